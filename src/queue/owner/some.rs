//! Groups over some sources: learns whose lines they get, counts those that wait, and settles lines of other sources.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{TryRecvError, sync_channel};

use spillq_storage::{Block, Commit, Error, GroupId, Seq, SeqRange, SourceLines};

use super::{Owner, view};
use crate::queue::clock;
use crate::queue::count::{Counting, Waiting, count};
use crate::queue::share::PASSED_WAIT;
use crate::queue::sources::Members;

/// The pause before lines are counted again that could not be: their segment was just removed, or the disk refused.
const COUNT_AGAIN_MS: u64 = 1_000;
/// Blocks whose headers the owner reads at once, for an operator or a limit: some 100 ms at most.
pub(super) const HEADERS_MAX: usize = 2_048;

/// Own lines of a group that were found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Which.
    pub(super) ranges: Vec<SeqRange>,
    /// How many.
    pub(super) lines: u64,
    /// Up to here it is known which lines are its own.
    pub(super) to: Seq,
}

impl Owner {
    /// The groups have these globs from now on.
    pub(super) fn set_sources(&mut self) {
        let globs = self.groups.iter().map(|(id, group)| (*id, Arc::clone(group.settings())));
        let globs: Vec<_> = globs.collect();
        let sources = globs.iter().map(|(id, settings)| (*id, &settings.sources));
        self.directory.set(sources, self.log.state().sources());
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let members = self.directory.members(id);
            group.set_members(members.clone());
            // A line that failed alone may be another's now, and holds or condemns nothing here.
            let alone = group.alone();
            let Some(members) = members else { continue };
            for seq in alone {
                let found = self.find_own(&members, [SeqRange::one(seq)], 1);
                if let Some(group) = self.groups.get_mut(&id).filter(|_| found.lines == 0 && found.to == seq)
                {
                    group.give_up(seq);
                }
            }
        }
    }

    /// A commit may have new sources: their lines can be read as soon as it is durable.
    pub(super) fn learn_sources(&self, commit: &Commit) {
        let checkpoints = commit.checkpoints.iter();
        self.directory.learn(checkpoints.map(|(source, checkpoint)| (*source, checkpoint.as_ref())));
    }

    /// A commit is durable: sources that the log does not know any more are forgotten.
    pub(super) fn forget_sources(&self, commit: &Commit) {
        if !commit.forget.is_empty() {
            self.directory.prune(self.log.state().sources());
        }
    }

    /// A block is durable.
    pub(super) fn note_appended(&mut self, block: &Block) {
        for (id, group) in &mut self.groups {
            let Some(members) = group.members().cloned() else { continue };
            let own = block.by_source().filter(|of| members.has(of.source));
            let (lines, bytes) =
                own.fold((0, 0), |(lines, bytes), of| (lines + of.range.lines(), bytes + of.bytes));
            group.appended(lines, bytes);
            if let Some(view) = view(&self.log, *id) {
                group.note_block(view, (block.range(), block.raw().len() as u64), lines);
            }
        }
    }

    /// Adds to the commit that is being gathered what settles lines of other sources.
    pub(super) fn settle_passed(&mut self) {
        self.passed_since_ms = None;
        for (id, group) in &mut self.groups {
            let changes = group.take_passed();
            self.commit.groups.extend(changes.into_iter().map(|change| (*id, change)));
        }
    }

    /// Settles lines of other sources that no commit has settled, a while after they were found.
    pub(super) fn settle_passed_in_time(&mut self) -> Result<(), Error> {
        let some = self.groups.iter().filter(|(_, group)| group.members().is_some());
        let ids: Vec<GroupId> = some.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.pass_rest(id));
        if !self.groups.values().any(super::Group::has_passed) {
            self.passed_since_ms = None;
            return Ok(());
        }
        let now_ms = clock::now_ms();
        let since_ms = *self.passed_since_ms.get_or_insert(now_ms);
        let is_due = now_ms >= since_ms + PASSED_WAIT.as_millis() as u64;
        if is_due || self.stopping {
            self.settle_passed();
            self.make_durable()?;
        }
        Ok(())
    }

    /// If none of a group's own lines waits, all that wait are of other sources. That is not believed, but looked at: what is
    /// settled is never delivered.
    fn pass_rest(&mut self, id: GroupId) {
        let (Some(view), Some(group)) = (view(&self.log, id), self.groups.get_mut(&id)) else { return };
        let rest = group.rest(view);
        let Some(members) = group.members().cloned().filter(|_| !rest.is_empty()) else { return };
        let found = self.find_own(&members, rest.iter().copied(), 1);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let others = found.ranges.first().map_or(found.to, |own| own.first.prev());
        for range in rest {
            if let Some(range) = SeqRange::new(range.first, range.last.min(others)) {
                group.pass(range);
            }
        }
        if found.lines > 0 {
            tracing::debug!(group = group.settings().name, "a line waits that was not counted");
            group.count_again();
        }
    }

    /// Lines of a group in this range are known to be of other sources. Returns whether some of them are passed now.
    pub(super) fn pass_others(&mut self, id: GroupId, range: SeqRange) -> bool {
        let (Some(view), Some(group)) = (view(&self.log, id), self.groups.get_mut(&id)) else { return false };
        let free = if group.members().is_some() { group.free_within(view, range) } else { Vec::new() };
        free.iter().for_each(|free| group.pass(*free));
        !free.is_empty()
    }

    /// Begins counts that are wanted, one after the other, and takes their results. Nothing is being gathered.
    pub(super) fn count(&mut self) {
        if let Some(counting) = &self.counting {
            let result = match counting.result.try_recv() {
                Err(TryRecvError::Empty) => return,
                Ok(result) => result,
                Err(TryRecvError::Disconnected) => Err("its thread has ended".to_owned()),
            };
            let group = self.groups.get_mut(&counting.group);
            match (result, group) {
                (_, None) => {}
                (Ok(counted), Some(group)) => {
                    group.counted(counting.number, counted);
                    self.uncounted = self.uncounted.filter(|failed| *failed != counting.group);
                }
                (Err(what), Some(group)) => {
                    let name = &group.settings().name;
                    tracing::debug!(group = name, "the lines that wait could not be counted: {what}");
                    group.count_again();
                    self.uncounted = Some(counting.group);
                    self.count_from_ms = clock::now_ms() + COUNT_AGAIN_MS;
                }
            }
            self.counting = None;
        }
        if clock::now_ms() < self.count_from_ms {
            return;
        }
        let Some(id) = self.groups.iter().find(|(_, group)| group.wants_count()).map(|(id, _)| *id) else {
            return;
        };
        self.begin_count(id);
    }

    fn begin_count(&mut self, id: GroupId) {
        let state = self.log.state();
        let Some(waiting) = state.groups().get(&id).map(|group| Waiting::of(state, group)) else { return };
        // Lines that are missing twice are not just compacted.
        let even_missing = self.uncounted == Some(id);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(members) = group.members().cloned() else { return };
        let number = self.next_token;
        self.next_token += 1;
        group.begin_count(number);
        let (send, result) = sync_channel(1);
        let cancelled = Arc::new(AtomicBool::new(false));
        let (reader, stop) = (self.log.reader(), Arc::clone(&cancelled));
        let work = move || {
            let counted = count(reader, &members, &waiting, even_missing, &|| stop.load(Ordering::Relaxed));
            // The owner may have ended.
            let _ = send.send(counted);
        };
        match std::thread::Builder::new().name("spillq-count".to_owned()).spawn(work) {
            Ok(_) => self.counting = Some(Counting { group: id, number, result, cancelled }),
            Err(error) => {
                tracing::warn!("could not start a thread that counts lines: {error}");
                group.count_again();
                self.count_from_ms = clock::now_ms() + COUNT_AGAIN_MS;
            }
        }
    }

    /// How many own lines of a group over some sources wait in `range`; `None` if that is too much to look at.
    pub(super) fn own_waiting(&mut self, id: GroupId, range: SeqRange) -> Option<u64> {
        let members = self.groups.get(&id)?.members()?.clone();
        let state = self.log.state().groups().get(&id)?;
        let waiting: Vec<SeqRange> = state.acks().gaps(range).collect();
        let revived = state.revived().range(range.first..=range.last).count() as u64;
        let Some(last) = waiting.last().map(|last| last.last) else { return Some(revived) };
        let found = self.find_own(&members, waiting, u64::MAX);
        (found.to >= last).then_some(found.lines + revived)
    }

    /// How many own lines of such a group in `range` do not wait; `None` if that is too much to look at.
    pub(super) fn own_settled(&mut self, id: GroupId, range: SeqRange) -> Option<u64> {
        let members = self.groups.get(&id)?.members()?.clone();
        let all = self.find_own(&members, [range], u64::MAX);
        let waiting = self.own_waiting(id, range)?;
        (all.to >= range.last).then(|| all.lines.saturating_sub(waiting))
    }

    /// The first own lines of a group in `ranges`, which are in rising order: at most `lines_max`, within [`HEADERS_MAX`]
    /// blocks, and before the first that cannot be read.
    pub(super) fn find_own(
        &mut self,
        members: &Members,
        ranges: impl IntoIterator<Item = SeqRange>,
        lines_max: u64,
    ) -> Found {
        let mut found = Found::default();
        let mut headers = 0;
        for range in ranges {
            let mut from = range.first;
            while from <= range.last {
                if headers == HEADERS_MAX || found.lines >= lines_max {
                    return found;
                }
                headers += 1;
                let by_source = match self.window.get(from) {
                    Some(block) => Ok(block.by_source().collect()),
                    None => self.reader.by_source(from),
                };
                let by_source: Vec<SourceLines> = by_source.unwrap_or_default();
                let before = from;
                for of in by_source {
                    let Some(within) = of.range.intersection(range).filter(|within| within.last >= from)
                    else {
                        continue;
                    };
                    let mut within = SeqRange { first: within.first.max(from), ..within };
                    if members.has(of.source) {
                        let left = lines_max - found.lines;
                        if left == 0 {
                            return found;
                        }
                        within.last = within.last.min(within.first.plus(left - 1));
                        found.lines += within.lines();
                        found.ranges.push(within);
                    }
                    (found.to, from) = (within.last, within.last.next());
                    if found.lines >= lines_max {
                        return found;
                    }
                }
                if from == before {
                    return found;
                }
            }
        }
        found
    }
}
