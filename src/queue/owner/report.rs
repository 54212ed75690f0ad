//! The status of the log and its groups.

use std::sync::atomic::Ordering;

use spillq_storage::{BlockBuilder, GroupId, Seq, SeqRange};

use super::{GATHERED_BYTES_MAX, Owner, view};
use crate::queue::command::{COMMANDS_MAX, SETTLED_RANGES_MAX};
use crate::queue::group::{Group, Idle};
use crate::queue::phase::{Blocked, EveryLineRejected, Phase};
use crate::queue::retry::GroupWait;
use crate::queue::status::{GroupStatus, HeldLine, Status, Usage};

impl Owner {
    pub(super) fn status(&self) -> Status {
        let state = self.log.state();
        Status {
            first_seq: state.first_seq(),
            next_seq: state.next_seq(),
            oldest_segment_last: state.oldest_segment().map(|segment| segment.last),
            is_copied: self.hold.is_active(),
            segments: state.segment_count() as u64,
            disk_bytes: self.log.disk_bytes(),
            appended_bytes: state.appended_bytes(),
            full: self.full.clone(),
            window_bytes: self.window.bytes() as u64,
            commit_time: self.commit_time,
            usage: self.usage(),
            run: state.run(),
            counters: self.log.counters(),
            findings: self.log.findings().to_vec(),
            quarantined: self.log.quarantined(),
            losses: state.losses().iter().cloned().collect(),
            sources: state
                .sources()
                .iter()
                .map(|(id, source)| (*id, bytes::Bytes::copy_from_slice(&source.checkpoint)))
                .collect(),
            groups: self.groups.iter().filter_map(|(id, group)| self.group_status(*id, group)).collect(),
            discarded: self.discarded.iter().cloned().collect(),
        }
    }

    fn usage(&self) -> Usage {
        let (log, state) = (&self.log, self.log.state());
        let settings = self.groups.values().map(Group::settings);
        let batches = settings.map(|group| group.batch_bytes.saturating_mul(group.in_flight as u64 + 1));
        Usage {
            journal_bytes: log.journal_bytes(),
            journal_bytes_max: log.journal_bytes_max(),
            kept_bytes: log.retained_bytes(),
            commands: self.commands.load(Ordering::Relaxed) as u64,
            commands_max: COMMANDS_MAX as u64,
            largest_commit_bytes: self.largest_commit as u64,
            // What is gathered, and the append that exceeds it: one with a line of the maximum length.
            largest_commit_bytes_max: (GATHERED_BYTES_MAX
                + BlockBuilder::BYTES_MAX
                + 8 * BlockBuilder::TARGET_BYTES) as u64,
            window_bytes_max: self.window.bytes_max() as u64,
            lent_bytes: self.window.lent_bytes(),
            lent_bytes_max: batches.sum::<u64>() + BlockBuilder::LINE_BYTES_MAX as u64,
            ack_ranges: state.groups().values().map(|group| group.acks().ranges() as u64).max().unwrap_or(0),
        }
    }

    pub(super) fn group_status(&self, id: GroupId, group: &Group) -> Option<GroupStatus> {
        let state = self.log.state();
        let durable = state.groups().get(&id)?;
        let phase = self.phase(id, group)?;
        let oldest = durable.acks().gap(Seq::FIRST, state.next_seq().prev()).map(|gap| gap.first);
        let oldest = durable.revived().first().copied().or(oldest);
        let lag = group.lag(view(&self.log, id)?, state);
        Some(GroupStatus {
            id,
            name: durable.name().to_owned(),
            phase,
            ack_floor: durable.acks().floor(),
            lag_lines: lag.lines,
            is_counting: lag.is_counting,
            oldest: oldest.filter(|_| lag.lines > 0),
            lag_bytes: lag.bytes,
            leased: group.leased_lines(),
            leases: group.leases().map(|lease| lease.range).collect(),
            lease_tokens: group.tokens().collect(),
            next_token: self.next_token,
            dead_letters: self.log.dead_count(id) as u64,
            acked_lines: durable.acked_lines(),
            activity: group.activity.clone(),
            oldest_lease_ms: group.leases().map(|lease| lease.since_ms).min(),
            in_flight_max: group.settings().in_flight,
            timeout_ms: group.settings().timeout_ms,
            has_worker: group.leased_lines() > 0
                || self.asked.iter().any(|asked| asked.group == id && !asked.reply.is_closed()),
            backs_off: group.retries().waiting(),
            oldest_waits: oldest.is_some_and(|line| group.retries().holds(line)),
            skipped_lines: durable.skipped_lines(),
            dropped_lines: durable.dropped_lines(),
            last_failure: group.last_failure.clone(),
            held: group.retries().held().map(|seq| {
                let failures = durable.failures().get(&seq).copied().unwrap_or_default();
                let deaths = durable.deaths().get(&seq).copied().unwrap_or_default();
                let is_given_up = group.retries().killers().any(|killer| killer == seq);
                HeldLine { seq, failures: failures.times, for_ms: failures.for_ms, deaths, is_given_up }
            }),
            waits: view(&self.log, id).and_then(|view| group.waits(view)),
            attempts_max: group.settings().retry.attempts,
            is_exhausted: view(&self.log, id).is_some_and(|view| group.is_exhausted(view)),
        })
    }

    /// Which lines of `range` a group has settled, durably.
    pub(super) fn settled_of(&self, group: GroupId, range: SeqRange) -> Vec<SeqRange> {
        let all = SeqRange::new(Seq::FIRST, self.log.state().next_seq().prev());
        let Some(range) = all.and_then(|all| all.intersection(range)) else { return Vec::new() };
        let Some(state) = self.log.state().groups().get(&group) else { return Vec::new() };
        let mut settled = Vec::new();
        let mut from = range.first;
        for gap in state.acks().gaps(range) {
            settled.extend(SeqRange::new(from, gap.first.prev()).filter(|_| from < gap.first));
            from = gap.last.next();
        }
        settled.extend(SeqRange::new(from, range.last));
        // A line that was revived waits, although the acks have it.
        let revived = state.revived().range(range.first..=range.last).map(|seq| SeqRange::one(*seq));
        let without = |settled: Vec<SeqRange>, hole| {
            settled.into_iter().flat_map(|range| range.without(hole)).collect()
        };
        let mut settled: Vec<SeqRange> = revived.fold(settled, without);
        settled.truncate(SETTLED_RANGES_MAX);
        settled
    }

    /// What a group is doing.
    fn phase(&self, id: GroupId, group: &Group) -> Option<Phase> {
        let view = view(&self.log, id)?;
        if view.state.is_paused() {
            return Some(Phase::Paused);
        }
        if let Some(why) = &group.unreadable {
            return Some(Phase::Blocked(why.clone()));
        }
        match group.retries().group_wait() {
            Some((until_ms, GroupWait::Refused)) if until_ms > view.now_ms => {
                return Some(Phase::Refused { until_ms, rejected: None });
            }
            // Even while the line is in flight.
            Some((until_ms, GroupWait::EveryLineRejected(seq))) => {
                let below = || self.log.rejected_below(id, seq, group.settings().retry.rejects);
                let dead = group.rejected_in_a_row().unwrap_or_else(below);
                return Some(Phase::Refused { until_ms, rejected: Some(EveryLineRejected { seq, dead }) });
            }
            _ => {}
        }
        let idle = group.idle(view);
        // Before the back-off: a line that waits for it may be the one that blocks.
        if let Some(Idle::Blocked(why)) = idle {
            return Some(Phase::Blocked(why));
        }
        if let Some(seq) = group.retries().held() {
            return Some(Phase::Blocked(Blocked::HeldBy(seq)));
        }
        if let Some((range, until_ms)) = group.retries().waiting() {
            return Some(Phase::Retrying { range, until_ms });
        }
        Some(match idle {
            Some(Idle::Empty) if group.leased_lines() == 0 => Phase::Idle,
            _ => Phase::Running,
        })
    }
}
