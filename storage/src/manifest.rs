//! The manifest: everything the log knows besides the lines, and what each new journal begins with.
//!
//! It is a pure fold over the records of commits: the running log and recovery apply the same records in the same
//! order, so that what a crash leaves can always be worked out again. Bounds: one entry a segment, 16 KiB a
//! checkpoint, [`crate::ACK_RANGES_MAX`] ranges and as many leases, suspects, failures and deaths a group, a kilobyte a
//! name.

use std::collections::{BTreeMap, VecDeque};

use bincode::{Decode, Encode};

use crate::commit::Changes;
use crate::group_state::GroupState;
use crate::ids::{GroupId, Seq, SeqRange, SourceId, StoreId};
use crate::loss::{Loss, RetainedMark, not_lost};

/// Losses that are listed one by one; past that the oldest two are told as one.
const LOSSES_MAX: usize = 1_024;
/// Forgotten sources whose names are retained for the lines that are stored; with 10,000 live ones 50,000 are known. Of
/// older ones the lines have only the number of their source.
const FORGOTTEN_MAX: usize = 40_000;

/// A segment file, as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SegmentMeta {
    /// Its name: the seq of its first line.
    pub first: Seq,
    /// How long it is.
    pub bytes: u64,
    /// The raw bytes of its lines.
    pub raw_bytes: u64,
}

/// A followed file, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SourceState {
    /// What the tail knows of it, opaque here.
    pub checkpoint: Vec<u8>,
    /// The seq of its last line in the log; 0 where it has none yet.
    pub last_seq: Seq,
    /// The tail will never read it again: it goes once no stored line names it.
    pub forgotten: bool,
}

/// Runs of a restored store are counted from a multiple of this that is its own: none of them is one of the
/// original's, or of another store that was restored from it.
const RUNS_PER_EPOCH: u64 = 1_000_000;

/// The state of a log after some commit.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct State {
    /// Whose store it is.
    pub store: StoreId,
    /// The journal that says what comes after.
    pub journal: u64,
    /// The last commit that is in here.
    pub commit: u64,
    /// Rises whenever the store is opened: leases of another run are stale.
    pub run: u64,
    /// The seq of the next line.
    pub next_seq: Seq,
    /// The next id for a followed file.
    pub next_source: SourceId,
    pub(crate) next_group: GroupId,
    /// The segment files, oldest first. The last one grows.
    pub segments: VecDeque<SegmentMeta>,
    /// The followed files.
    pub sources: BTreeMap<SourceId, SourceState>,
    /// The groups.
    pub groups: BTreeMap<GroupId, GroupState>,
    /// What was lost.
    pub losses: VecDeque<Loss>,
    /// Raw bytes appended since the store was created.
    pub appended_bytes: u64,
    /// How far `kept/` is relied on.
    pub retained: RetainedMark,
}

impl State {
    /// Which epoch from a backup it comes from, 0 if from none: with each the seqs from the backup on are given
    /// again, to other lines.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.run / RUNS_PER_EPOCH
    }

    /// Makes it that of a store of its own, which goes on from here. `random` tells apart those that were restored
    /// from one backup; of it so many bits that the run is a number which programs can read in JSON (below 2^53) over
    /// four restorations of restored stores.
    pub(crate) fn restore(&mut self, random: u64) {
        self.run = (self.epoch() + 1 + (random & 0x7FFF_FFFF)) * RUNS_PER_EPOCH;
    }

    /// A new store, with no lines and no groups.
    pub(crate) fn new(store: StoreId) -> State {
        State {
            store,
            journal: 1,
            commit: 1,
            run: 0,
            next_seq: Seq::FIRST,
            next_source: SourceId(1),
            next_group: GroupId(1),
            segments: VecDeque::new(),
            sources: BTreeMap::new(),
            groups: BTreeMap::new(),
            losses: VecDeque::new(),
            appended_bytes: 0,
            retained: RetainedMark::default(),
        }
    }

    /// The oldest seq that a segment still holds; the next one where there is none.
    #[must_use]
    pub fn first_seq(&self) -> Seq {
        self.segments.front().map_or(self.next_seq, |segment| segment.first)
    }

    /// The group of that name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<(GroupId, &GroupState)> {
        self.groups.iter().find(|(_, group)| group.name == name).map(|(id, group)| (*id, group))
    }

    /// Bytes of all segment files.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// A process begins to use the store: leases of the one before it are stale.
    pub(crate) fn begin_run(&mut self) {
        self.run += 1;
        self.groups.values_mut().for_each(GroupState::begin_run);
    }

    /// Raw bytes that a group has not acked, estimated: of the segment in which its floor lies, the share of the
    /// lines above it; acks above the floor are not counted.
    #[must_use]
    pub fn lag_bytes(&self, group: &GroupState) -> u64 {
        let floor = group.acks.floor();
        let ends = self.segments.iter().skip(1).map(|segment| segment.first).chain([self.next_seq]);
        self.segments
            .iter()
            .zip(ends)
            .filter(|(_, end)| *end > floor.next())
            .map(|(segment, end)| {
                let lines = end.0 - segment.first.0;
                let waiting = end.0 - segment.first.max(floor.next()).0;
                (u128::from(segment.raw_bytes) * u128::from(waiting) / u128::from(lines.max(1))) as u64
            })
            .sum()
    }

    /// What of `range` is not recorded as lost; lines that were dropped for some groups may be there for others.
    #[must_use]
    pub fn not_lost(&self, range: SeqRange) -> Vec<SeqRange> {
        not_lost(&self.losses, range)
    }

    /// Lines that nobody can ever read: recorded, and settled for every group, so that none waits for them.
    pub(crate) fn lose(&mut self, loss: Loss) {
        self.groups.values_mut().for_each(|group| group.settle(loss.range));
        self.note_loss(loss);
    }

    fn note_loss(&mut self, loss: Loss) {
        // A limit drops a little with every commit: one entry for what follows on each other.
        let follows = |known: &&mut Loss| {
            known.range.last.next() == loss.range.first
                && known.kind == loss.kind
                && known.reason == loss.reason
        };
        if let Some(known) = self.losses.iter_mut().rev().find(follows) {
            known.range.last = loss.range.last;
            return;
        }
        self.losses.push_back(loss);
        while self.losses.len() > LOSSES_MAX {
            if let (Some(oldest), Some(next)) = (self.losses.pop_front(), self.losses.front_mut()) {
                next.range.first = oldest.range.first;
            }
        }
    }

    /// A new group.
    pub(crate) fn add_group(&mut self, group: GroupState) {
        self.groups.insert(self.next_group, group);
        self.next_group = GroupId(self.next_group.0 + 1);
    }

    /// A group by a number that it had before; numbers are never used twice.
    pub(crate) fn restore_group(&mut self, id: GroupId, group: GroupState) {
        self.next_group = GroupId(self.next_group.0.max(id.0 + 1));
        self.groups.insert(id, group);
    }

    /// The first line of the newest ones that hold at most `bytes`, by the estimate of [`State::lag_bytes`].
    #[must_use]
    pub fn newest_within(&self, bytes: u64) -> Seq {
        let (mut left, mut end) = (bytes, self.next_seq);
        for segment in self.segments.iter().rev() {
            if segment.raw_bytes > left {
                let lines = end.0 - segment.first.0;
                let fit = u128::from(lines) * u128::from(left) / u128::from(segment.raw_bytes);
                return Seq(end.0 - fit as u64);
            }
            left -= segment.raw_bytes;
            end = segment.first;
        }
        end
    }

    /// Folds one commit in.
    pub(crate) fn apply(&mut self, commit: u64, changes: &Changes) {
        self.commit = commit;
        for placed in &changes.blocks {
            if placed.new_segment {
                self.segments.push_back(SegmentMeta { first: placed.first, bytes: 0, raw_bytes: 0 });
            }
            if let Some(segment) = self.segments.back_mut() {
                segment.bytes += u64::from(placed.bytes);
                segment.raw_bytes += u64::from(placed.raw_bytes);
            }
            self.appended_bytes += u64::from(placed.raw_bytes);
            self.next_seq = placed.first.plus(u64::from(placed.lines));
        }
        for checkpoint in &changes.checkpoints {
            self.next_source = SourceId(self.next_source.0.max(checkpoint.source.0 + 1));
            let source = self.sources.entry(checkpoint.source).or_insert_with(|| SourceState {
                checkpoint: Vec::new(),
                last_seq: Seq(0),
                forgotten: false,
            });
            source.checkpoint.clone_from(&checkpoint.bytes);
            source.forgotten = false;
            if let Some(last) = checkpoint.last_seq {
                source.last_seq = last;
            }
        }
        for source in &changes.forget {
            if let Some(source) = self.sources.get_mut(source) {
                source.forgotten = true;
            }
        }
        for (name, floor) in &changes.add_groups {
            self.add_group(GroupState::empty(name, *floor));
        }
        for group in &changes.remove_groups {
            self.groups.remove(group);
        }
        for (group, change) in &changes.groups {
            if let Some(group) = self.groups.get_mut(group) {
                group.apply(change);
            }
        }
        if let Some(first) = changes.first_segment {
            self.segments.retain(|segment| segment.first >= first);
        }
        self.retained = changes.retained.unwrap_or(self.retained);
        changes.losses.iter().for_each(|loss| self.note_loss(loss.clone()));
        // Only these two can make a source unneeded; with 50,000 known ones no other commit looks at them all.
        if changes.first_segment.is_some() || !changes.forget.is_empty() {
            self.drop_sources();
        }
    }

    /// Lets go of forgotten sources that no stored line names, and of the oldest above [`FORGOTTEN_MAX`].
    fn drop_sources(&mut self) {
        let first = self.first_seq();
        self.sources.retain(|_, source| !source.forgotten || source.last_seq >= first);
        let forgotten = self.sources.values().filter(|source| source.forgotten).count();
        let mut surplus = forgotten.saturating_sub(FORGOTTEN_MAX);
        if surplus > 0 {
            self.sources.retain(|_, source| {
                let goes = source.forgotten && surplus > 0;
                surplus -= usize::from(goes);
                !goes
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{Checkpoint, Placed};

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq(first), Seq(last)).unwrap()
    }

    #[test]
    fn what_lies_outside_a_hole() {
        let outside = |hole| range(3, 6).without(hole).collect::<Vec<_>>();
        assert_eq!(outside(range(1, 2)), [range(3, 6)]);
        assert_eq!(outside(range(1, 3)), [range(4, 6)]);
        assert_eq!(outside(range(4, 5)), [range(3, 3), range(6, 6)]);
        assert_eq!(outside(range(6, 9)), [range(3, 5)]);
        assert_eq!(outside(range(7, 9)), [range(3, 6)]);
        assert_eq!(outside(range(1, 9)), []);
    }

    #[test]
    fn what_a_limit_drops_bit_by_bit_is_one_loss() {
        let mut state = State::new(StoreId(1));
        let drop = |range, group| Changes {
            losses: vec![Loss::dropped(range, &[group], "max_lag")],
            ..Changes::default()
        };
        for first in [1, 11, 21] {
            state.apply(2, &drop(range(first, first + 9), "a"));
            state.apply(3, &drop(range(first, first + 9), "b"));
        }
        state.apply(4, &drop(range(32, 33), "a"));
        let told: Vec<_> = state.losses.iter().map(|loss| (loss.range, loss.reason.as_str())).collect();
        let expected = [
            (range(1, 30), "dropped for a: max_lag"),
            (range(1, 30), "dropped for b: max_lag"),
            (range(32, 33), "dropped for a: max_lag"),
        ];
        assert_eq!(told, expected);
        assert!(state.losses.iter().all(Loss::is_dropped));
    }

    #[test]
    fn what_a_loss_is_does_not_depend_on_its_reason() {
        let mut state = State::new(StoreId(1));
        let dropped = Loss::dropped(range(1, 4), &["a"], "max_lag");
        let lost = Loss::unreadable(range(5, 8), dropped.reason.clone());
        state.apply(2, &Changes { losses: vec![dropped.clone(), lost.clone()], ..Changes::default() });
        assert_eq!(state.losses, [dropped, lost], "two kinds are two losses");
        assert_eq!(state.losses.iter().map(Loss::is_dropped).collect::<Vec<_>>(), [true, false]);
        assert_eq!(state.not_lost(range(1, 9)), [range(1, 4), range(9, 9)]);
    }

    #[test]
    fn the_newest_lines_within_so_many_bytes() {
        let mut state = State::new(StoreId(1));
        let placed =
            |first| Placed { first: Seq(first), lines: 100, raw_bytes: 1_000, bytes: 1, new_segment: true };
        assert_eq!(state.newest_within(10), Seq(1));
        state.apply(2, &Changes { blocks: [1, 101, 201].map(placed).to_vec(), ..Changes::default() });
        for (bytes, first) in [(0, 301), (500, 251), (1_000, 201), (1_500, 151), (3_000, 1), (u64::MAX, 1)] {
            assert_eq!(state.newest_within(bytes), Seq(first), "{bytes} bytes");
            let group = GroupState::empty("a", Seq(first - 1));
            assert_eq!(state.lag_bytes(&group), bytes.min(3_000));
        }
    }

    #[test]
    fn forgotten_sources_go_with_their_last_line_and_the_oldest_when_they_are_too_many() {
        let checkpoint = |id: usize, last| Checkpoint {
            source: SourceId(id as u64),
            last_seq: Some(Seq(last)),
            bytes: vec![],
        };
        let mut state = State::new(StoreId(7));
        let total = FORGOTTEN_MAX + 10;
        let placed =
            |first: u64| Placed { first: Seq(first), lines: 1, raw_bytes: 1, bytes: 1, new_segment: true };
        state.apply(
            2,
            &Changes {
                blocks: vec![placed(1), placed(2)],
                checkpoints: (1..=total).map(|id| checkpoint(id, if id == 20 { 1 } else { 2 })).collect(),
                // The first five are live, whatever their age.
                forget: (6..=total).map(|id| SourceId(id as u64)).collect(),
                ..Changes::default()
            },
        );
        let ids: Vec<u64> = state.sources.keys().map(|id| id.0).collect();
        assert_eq!(ids.len(), FORGOTTEN_MAX + 5);
        assert_eq!(ids[..7], [1, 2, 3, 4, 5, 11, 12]);
        state.apply(3, &Changes { first_segment: Some(Seq(2)), ..Changes::default() });
        assert!(!state.sources.contains_key(&SourceId(20)));
        assert_eq!(state.sources.len(), FORGOTTEN_MAX + 4);
    }
}
