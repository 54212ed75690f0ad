//! Seeks, `max_lag`, and dropping the oldest segment.
//!
//! All of it is done between commits: a lease in the same commit as the end of its lines would outlive them.

use std::collections::BTreeMap;

use spillq_storage::{Counts, Error, Full, GroupChange, GroupId, Loss, Seq, SeqRange};

use super::administer::refuse;
use super::{Owner, view};
use crate::queue::admin::{AdminError, Answer, Refusal, SeekTo};
use crate::queue::clock;
use crate::queue::group::{Group, outside};
use crate::queue::lag::{Lag, LagPolicy, MaxLag, Room, SLACK};
use crate::queue::phase::WhyFull;
use crate::queue::settings::WhenFull;
use crate::queue::status::DiscardedBy;

impl Owner {
    /// Moves a group, or only reports what that would do. All that was gathered is durable.
    pub(super) fn seek(
        &mut self,
        name: &str,
        to: SeekTo,
        discard_lines: bool,
        dry_run: bool,
    ) -> Result<Answer, AdminError> {
        let id = self.find(name)?;
        let (first, next) = (self.log.state().first_seq(), self.log.state().next_seq());
        let to = match to {
            SeekTo::Seq(seq) => seq,
            SeekTo::Beginning => first,
            SeekTo::End => next,
            SeekTo::Time(ms) => {
                let since = self.log.reader().first_since(ms);
                since.map_err(|error| Refusal::TimeNotFound(error.to_string()))?
            }
        };
        let to = to.clamp(first, next);
        let skipped_range = SeqRange::new(Seq::FIRST, to.prev()).filter(|_| to > first);
        let own = skipped_range.and_then(|range| self.own_waiting(id, range));
        let again_range = SeqRange::new(to, next.prev());
        let own_again = again_range.and_then(|range| self.own_settled(id, range));
        let before = self.log.state().groups().get(&id).ok_or(Refusal::Failed)?;
        let mut changes = Vec::new();
        // A seek to the beginning skips nothing: lines of removed segments may still wait in `kept/`.
        if let Some(range) = skipped_range {
            let waiting = own.unwrap_or_else(|| before.waiting(range));
            if waiting > 0 && !discard_lines {
                return Err(refuse(name, waiting, "those that wait before that place").into());
            }
            changes.push(match own {
                Some(lines) => GroupChange::Some { range, lines, counts: Counts::Skipped },
                None => GroupChange::Skip { range, dropped: false },
            });
        }
        changes.push(GroupChange::Again { from: to });
        let mut after = before.clone();
        changes.iter().for_each(|change| after.apply(change));
        let skipped = after.skipped_lines() - before.skipped_lines();
        let again = (after.lag_lines(next) + skipped).saturating_sub(before.lag_lines(next));
        let again = own_again.unwrap_or(again);
        let sought = Answer::Sought { to, again, skipped };
        if dry_run {
            return Ok(sought);
        }
        self.commit.groups.extend(changes.into_iter().map(|change| (id, change)));
        self.make_durable()?;
        let dead = self.log.dead_seqs(id, SeqRange { first: to, last: Seq(u64::MAX) });
        if !dead.is_empty() {
            self.log.settle_dead(id, &dead)?;
        }
        let state = self.log.state().groups().get(&id).ok_or(Refusal::Failed)?;
        // All leases and offers of the group end.
        if let Some(group) = self.groups.get_mut(&id) {
            let moved = Group::new(group.settings().as_ref().clone(), state);
            tracing::info!(group = name, %to, again, skipped, "group moved");
            *group = moved;
            group.set_members(self.directory.members(id));
        }
        self.note_discarded(name, skipped, DiscardedBy::Seek);
        Ok(sought)
    }

    /// The group because of whose lag ingestion pauses, if any.
    pub(super) fn held_by_lag(&mut self) -> Option<WhyFull> {
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        ids.into_iter().find_map(|id| {
            let max_lag = self.groups.get(&id)?.settings().max_lag;
            if max_lag.policy != LagPolicy::Block || !max_lag.is_bounded() {
                return None;
            }
            let oldest_ms = max_lag.age_ms.and_then(|_| self.oldest_ms(id));
            let (group, lag) = self.lag(id)?;
            let reached = max_lag.blocks(lag, oldest_ms, clock::wall_ms())?;
            Some(WhyFull::MaxLag { group: group.settings().name.clone(), reached })
        })
    }

    /// What may be appended until a group pauses ingestion.
    pub(super) fn lag_room(&self) -> Room {
        let bounded = self.groups.iter().filter(|(_, group)| group.settings().max_lag.is_bounded());
        let room = |(id, group): (&GroupId, &Group)| Some(group.settings().max_lag.room(self.lag(*id)?.1));
        bounded.filter_map(room).fold(Room::UNBOUNDED, Room::min)
    }

    /// A group, and how far it is behind.
    pub(super) fn lag(&self, id: GroupId) -> Option<(&Group, Lag)> {
        let group = self.groups.get(&id)?;
        Some((group, group.lag(view(&self.log, id)?, self.log.state())))
    }

    /// When the oldest line that waits for a group was appended. `None` if it cannot be read: then its age bounds nothing,
    /// and the group is blocked there, or skips it.
    fn oldest_ms(&mut self, id: GroupId) -> Option<u64> {
        let state = self.log.state();
        let seq = state.groups().get(&id)?.acks().gap(Seq::FIRST, state.next_seq().prev())?.first;
        if self.oldest.get(&id).is_none_or(|(range, _)| !range.contains(seq)) {
            let (range, ms) = match self.window.get(seq) {
                Some(block) => (block.range(), block.append_time_ms()),
                None => self.reader.block(seq).map(|block| (block.range(), block.append_time_ms())).ok()?,
            };
            self.oldest.insert(id, (range, ms));
        }
        self.oldest.get(&id).map(|(_, ms)| *ms)
    }

    /// Drops the lines by which groups with `policy = "drop"` exceed their `max_lag`. Nothing is being gathered.
    pub(super) fn keep_within_lag(&mut self) -> Result<(), Error> {
        let bounded: Vec<_> = self
            .groups
            .iter()
            .map(|(id, group)| (*id, group.settings().max_lag))
            .filter(|(_, max_lag)| max_lag.policy == LagPolicy::Drop)
            .collect();
        let mut dropped = Vec::new();
        for (id, max_lag) in bounded {
            let cutoff = max_lag.age_ms.map(|age| clock::wall_ms().saturating_sub(age));
            let is_old = cutoff.is_some_and(|cutoff| self.oldest_ms(id).is_some_and(|ms| ms < cutoff));
            // If the block of that time cannot be read, no line is dropped for its age until it can.
            let age = max_lag.age_ms.unwrap_or_default();
            let since = cutoff.filter(|_| is_old).map(|ms| ms + age / SLACK);
            let since = since.and_then(|ms| self.log.reader().first_since(ms).ok());
            let Some((range, lines, change)) = self.surplus(id, max_lag, since) else { continue };
            if lines == 0 {
                // Lines of other sources only, which no worker has passed. There are more behind them.
                if self.pass_others(id, range) {
                    self.wake_ms = Some(clock::now_ms());
                }
                continue;
            }
            let Some(group) = self.log.state().groups().get(&id) else { continue };
            tracing::warn!(group = group.name(), %range, lines, "lines dropped for the group, which exceeded its max_lag");
            self.commit.losses.push(Loss::dropped(range, &[group.name()], "it was past its max_lag"));
            self.commit.groups.push((id, change));
            dropped.push((id, range));
            if let Some(group) = self.groups.get_mut(&id) {
                group.settled_own(lines);
            }
        }
        if dropped.is_empty() {
            return Ok(());
        }
        self.make_durable()?;
        for (id, range) in dropped {
            if let Some(group) = self.groups.get_mut(&id) {
                let ended = group.dropped(range, clock::now_ms());
                self.commit.groups.extend(ended.into_iter().map(|change| (id, change)));
            }
        }
        self.offer_waiting();
        Ok(())
    }

    /// The lines that a group has to drop, how many of them are its own, and the change that drops them.
    fn surplus(
        &mut self,
        id: GroupId,
        max_lag: MaxLag,
        since: Option<Seq>,
    ) -> Option<(SeqRange, u64, GroupChange)> {
        let (group, lag) = self.lag(id)?;
        let members = group.members().cloned();
        let state = self.log.state();
        let durable = state.groups().get(&id)?;
        let Some(members) = members else {
            let range = max_lag.surplus(state, durable, since)?;
            return Some((range, durable.waiting(range), GroupChange::Skip { range, dropped: true }));
        };
        // Where its own lines are is in the headers of the blocks. What is beyond those that are read now follows later.
        let next = state.next_seq();
        let all = SeqRange::new(Seq::FIRST, next.prev())?;
        let unpassed = |gap| outside(&[gap], group.passed());
        let waiting: Vec<SeqRange> = durable.acks().gaps(all).flat_map(unpassed).collect();
        let revived: Vec<Seq> = durable.revived().iter().copied().collect();
        let waiting_from = waiting.first().map(|waiting| waiting.first);
        let most = max_lag.surplus_lines(lag);
        let is_old = |range: &SeqRange| since.is_some_and(|since| range.first < since);
        let (old, young): (Vec<SeqRange>, Vec<SeqRange>) = waiting.into_iter().partition(is_old);
        let old: Vec<SeqRange> = old
            .iter()
            .filter_map(|range| range.intersection(SeqRange::new(Seq::FIRST, since?.prev())?))
            .collect();
        let mut found = self.find_own(&members, old.iter().copied(), u64::MAX);
        if found.lines < most {
            let searched_old = old.last().is_none_or(|last| found.to >= last.last);
            if searched_old {
                let more = self.find_own(&members, young, most - found.lines);
                if more.lines > 0 {
                    (found.lines, found.to) = (found.lines + more.lines, more.to);
                }
            }
        }
        let oldest = waiting_from.into_iter().chain(revived.first().copied()).min()?;
        let range = SeqRange::new(oldest, found.to)?;
        let lines = found.lines + revived.iter().filter(|seq| range.contains(**seq)).count() as u64;
        let change = GroupChange::Some { range, lines, counts: Counts::Dropped };
        Some((range, lines, change))
    }

    /// Drops the oldest segment if that is allowed and helps. Returns whether it did. Nothing is being gathered.
    pub(super) fn drop_oldest(&mut self, full: &Full) -> Result<bool, Error> {
        if self.when_full != WhenFull::DropOldest || !matches!(full, Full::Limit { .. }) {
            return Ok(false);
        }
        if self.hold.is_active() {
            return Ok(false);
        }
        let oldest = self.log.state().oldest_segment();
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        let own = |id| (id, oldest.and_then(|oldest| self.own_waiting(id, oldest)));
        let own: BTreeMap<GroupId, Option<u64>> = ids.into_iter().map(own).collect();
        let dropped = self.log.drop_oldest("disk.limit was reached", |id| own.get(&id).copied().flatten())?;
        let Some(range) = dropped else { return Ok(false) };
        tracing::warn!(%range, "disk.limit reached: the oldest segment was dropped");
        for (id, group) in &mut self.groups {
            match own.get(id).copied().flatten().filter(|_| oldest == Some(range)) {
                Some(lines) => group.settled_own(lines),
                None => group.count_again(),
            }
            let ended = group.dropped(range, clock::now_ms());
            self.commit.groups.extend(ended.into_iter().map(|change| (*id, change)));
        }
        Ok(true)
    }
}
