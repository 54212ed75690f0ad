//! The manifest: everything the log knows besides the lines, and what each new journal begins with.
//!
//! It is a pure fold over the records of commits: the running log and recovery apply the same records in the same
//! order. Bounds: one entry a segment, 50,000 sources with a checkpoint of at most 16 KiB each, and for each group a name
//! of at most a kilobyte, [`AckSet::RANGES_MAX`](crate::state::AckSet::RANGES_MAX) ranges and as many leases, suspects, failures
//! and deaths.

use std::collections::{BTreeMap, VecDeque};

use bincode::{Decode, Encode};

use crate::commit::Changes;
use crate::group_state::GroupState;
use crate::ids::{GroupId, Seq, SeqRange, SourceId, StoreId};
use crate::loss::{Loss, RetainedMark, not_lost};

/// Losses that are listed one by one; above this the oldest two become one.
const LOSSES_MAX: usize = 1_024;
/// Forgotten sources whose checkpoints are kept while lines of theirs are stored: with 10,000 live sources 50,000 are
/// known. Of a source that was removed above this, only its number is known.
const FORGOTTEN_MAX: usize = 40_000;

/// A segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SegmentMeta {
    /// Its name: the seq of its first line.
    pub(crate) first: Seq,
    /// The length of the file.
    pub(crate) bytes: u64,
    /// The raw bytes of its lines.
    pub(crate) raw_bytes: u64,
}

/// A source.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SourceState {
    /// Its last checkpoint.
    pub checkpoint: Vec<u8>,
    /// The seq of its last line in the log; 0 if it has none.
    pub last_seq: Seq,
    /// It will not be read again, and is removed when no line of it is stored.
    pub forgotten: bool,
}

/// Runs of a restored store are counted from a multiple of this, so that none has the number of a run of the original, or
/// of another store that was restored from it.
const RUNS_PER_EPOCH: u64 = 1_000_000;

/// The state of a log after some commit: all but the lines.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct State {
    pub(crate) store: StoreId,
    /// The journal that begins with this state, or follows it.
    pub(crate) journal: u64,
    /// The last commit in here.
    pub(crate) commit: u64,
    pub(crate) run: u64,
    pub(crate) next_seq: Seq,
    pub(crate) next_source: SourceId,
    pub(crate) next_group: GroupId,
    /// Oldest first. The last one grows.
    pub(crate) segments: VecDeque<SegmentMeta>,
    pub(crate) sources: BTreeMap<SourceId, SourceState>,
    pub(crate) groups: BTreeMap<GroupId, GroupState>,
    pub(crate) losses: VecDeque<Loss>,
    pub(crate) appended_bytes: u64,
    pub(crate) retained: RetainedMark,
}

impl State {
    /// The identity of the store.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// The run of the process that has the log open. It rises with every opening; leases of another run are stale.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// The seq of the next line.
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// A number for a new source: one above all that the log has seen.
    pub fn next_source(&self) -> SourceId {
        self.next_source
    }

    /// The sources whose checkpoints are known.
    pub fn sources(&self) -> &BTreeMap<SourceId, SourceState> {
        &self.sources
    }

    /// The groups.
    pub fn groups(&self) -> &BTreeMap<GroupId, GroupState> {
        &self.groups
    }

    /// Lines that were lost or dropped, oldest entry first: at most 1,024 entries.
    pub fn losses(&self) -> &VecDeque<Loss> {
        &self.losses
    }

    /// Raw bytes appended since the store was created.
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// How many segment files there are.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The lines of the oldest segment, unless that is the one that grows: what [`crate::Log::drop_oldest`] drops.
    #[must_use]
    pub fn oldest_segment(&self) -> Option<SeqRange> {
        let (oldest, next) = (self.segments.front()?, self.segments.get(1)?);
        Some(SeqRange { first: oldest.first, last: next.first.prev() })
    }

    /// The epoch of the store: 0, and another number after each restore from a backup. Seqs after the backup are used
    /// again in the new epoch, for other lines.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.run / RUNS_PER_EPOCH
    }

    /// Begins a new epoch. `random` distinguishes stores that were restored from one backup. 31 bits of it are used, so
    /// that the run stays below 2^53, which JSON readers can represent, over four restores of restored stores.
    pub(crate) fn begin_epoch(&mut self, random: u64) {
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

    /// The oldest seq in a segment; the next one if there is none.
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

    /// A process begins to use the store.
    pub(crate) fn begin_run(&mut self) {
        self.run += 1;
        self.groups.values_mut().for_each(GroupState::begin_run);
    }

    /// An estimate of the raw bytes that a group has not acked: of the segment that holds its floor, the share of the
    /// lines above the floor. Acks above the floor are not counted.
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

    /// What of `range` is not recorded as lost; dropped lines do not count as lost.
    pub(crate) fn not_lost(&self, range: SeqRange) -> Vec<SeqRange> {
        not_lost(&self.losses, range)
    }

    /// Records lines that cannot be read, and settles them for every group.
    pub(crate) fn lose(&mut self, loss: Loss) {
        self.groups.values_mut().for_each(|group| group.settle(loss.range));
        self.note_loss(loss);
    }

    fn note_loss(&mut self, loss: Loss) {
        // A limit drops a little with every commit: consecutive ranges become one entry.
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

    /// Adds a group under the number that it had before.
    pub(crate) fn readd_group(&mut self, id: GroupId, group: GroupState) {
        self.next_group = GroupId(self.next_group.0.max(id.0 + 1));
        self.groups.insert(id, group);
    }

    /// The first of the newest lines that are at most `bytes` together, by the estimate of [`State::lag_bytes`].
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

    /// Applies one commit.
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
        // No other change can make a source unneeded, and looking at 50,000 of them takes time.
        if changes.first_segment.is_some() || !changes.forget.is_empty() {
            self.drop_sources();
        }
    }

    /// Removes forgotten sources of which no line is stored or waits, and the oldest above [`FORGOTTEN_MAX`].
    fn drop_sources(&mut self) {
        let first = self.first_seq();
        // Lines that some group has not settled are in `kept/` when their segment is gone.
        let settled = self.groups.values().map(|group| group.acks.floor()).min().unwrap_or(first);
        let needed = first.min(settled.next());
        self.sources.retain(|_, source| !source.forgotten || source.last_seq >= needed);
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
    fn a_range_without_another_is_what_lies_outside_it() {
        let outside = |hole| range(3, 6).without(hole).collect::<Vec<_>>();
        assert_eq!(outside(range(1, 2)), [range(3, 6)]);
        assert_eq!(outside(range(1, 3)), [range(4, 6)]);
        assert_eq!(outside(range(4, 5)), [range(3, 3), range(6, 6)]);
        assert_eq!(outside(range(6, 9)), [range(3, 5)]);
        assert_eq!(outside(range(7, 9)), [range(3, 6)]);
        assert_eq!(outside(range(1, 9)), []);
    }

    #[test]
    fn consecutive_drops_of_a_group_are_one_loss() {
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
        let listed: Vec<_> = state.losses.iter().map(|loss| (loss.range, loss.reason.as_str())).collect();
        let expected = [
            (range(1, 30), "dropped for a: max_lag"),
            (range(1, 30), "dropped for b: max_lag"),
            (range(32, 33), "dropped for a: max_lag"),
        ];
        assert_eq!(listed, expected);
        assert!(state.losses.iter().all(Loss::is_dropped));
    }

    #[test]
    fn the_kind_of_a_loss_does_not_depend_on_its_reason() {
        let mut state = State::new(StoreId(1));
        let dropped = Loss::dropped(range(1, 4), &["a"], "max_lag");
        let lost = Loss::unreadable(range(5, 8), dropped.reason.clone());
        state.apply(2, &Changes { losses: vec![dropped.clone(), lost.clone()], ..Changes::default() });
        assert_eq!(state.losses, [dropped, lost], "two kinds are two losses");
        assert_eq!(state.losses.iter().map(Loss::is_dropped).collect::<Vec<_>>(), [true, false]);
        assert_eq!(state.not_lost(range(1, 9)), [range(1, 4), range(9, 9)]);
    }

    #[test]
    fn the_newest_lines_within_a_number_of_bytes() {
        let mut state = State::new(StoreId(1));
        let placed = |first| Placed {
            first: Seq(first),
            lines: 100,
            raw_bytes: 1_000,
            bytes: 1,
            new_segment: true,
            reference: None,
        };
        assert_eq!(state.newest_within(10), Seq(1));
        state.apply(2, &Changes { blocks: [1, 101, 201].map(placed).to_vec(), ..Changes::default() });
        for (bytes, first) in [(0, 301), (500, 251), (1_000, 201), (1_500, 151), (3_000, 1), (u64::MAX, 1)] {
            assert_eq!(state.newest_within(bytes), Seq(first), "{bytes} bytes");
            let group = GroupState::empty("a", Seq(first - 1));
            assert_eq!(state.lag_bytes(&group), bytes.min(3_000));
        }
    }

    #[test]
    fn forgotten_sources_are_removed_with_their_last_line_and_the_oldest_when_there_are_too_many() {
        let checkpoint = |id: usize, last| Checkpoint {
            source: SourceId(id as u64),
            last_seq: Some(Seq(last)),
            bytes: vec![],
        };
        let mut state = State::new(StoreId(7));
        let total = FORGOTTEN_MAX + 10;
        let placed = |first: u64| Placed {
            first: Seq(first),
            lines: 1,
            raw_bytes: 1,
            bytes: 1,
            new_segment: true,
            reference: None,
        };
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
