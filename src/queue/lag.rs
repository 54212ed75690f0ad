//! What a group may leave behind, and what follows when it is more. Pure.

use spillq_storage::{GroupState, Seq, SeqRange, State};

use super::phase::LagReached;

/// What is dropped goes below the bound by one part in so many, so that not every commit of lines is followed by one
/// that drops.
pub(super) const SLACK: u64 = 32;

/// The bounds of a group's lag; without any it may leave everything behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxLag {
    /// Lines that it has not settled.
    pub lines: Option<u64>,
    /// Age of the oldest of them.
    pub age_ms: Option<u64>,
    /// Bytes of them, by the estimate of [`State::lag_bytes`].
    pub bytes: Option<u64>,
    /// What then happens.
    pub policy: LagPolicy,
}

/// What happens when a group has reached its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LagPolicy {
    /// Lines are not taken in until it is below.
    #[default]
    Block,
    /// Its oldest lines are dropped.
    Drop,
}

impl MaxLag {
    /// The bound at which a group stops all appends, if it has reached one. `oldest_ms` is the append time of its oldest
    /// line that waits, where that is known.
    pub(super) fn blocks(
        &self,
        state: &State,
        group: &GroupState,
        oldest_ms: Option<u64>,
        now_ms: u64,
    ) -> Option<LagReached> {
        if self.policy != LagPolicy::Block {
            return None;
        }
        let lag_lines = group.lag_lines(state.next_seq);
        if let Some(bound) = self.lines.filter(|lines| lag_lines >= *lines) {
            return Some(LagReached::Lines { bound, found: lag_lines });
        }
        let lag_bytes = state.lag_bytes(group);
        if let Some(bound) = self.bytes.filter(|bytes| lag_bytes >= *bytes) {
            return Some(LagReached::Bytes { bound, found: lag_bytes });
        }
        let found_ms = oldest_ms.map(|oldest| now_ms.saturating_sub(oldest)).filter(|_| lag_lines > 0)?;
        let bound_ms = self.age_ms.filter(|max| found_ms >= *max)?;
        Some(LagReached::Age { bound_ms, found_ms })
    }

    /// The waiting lines that a group with these bounds has to let go, from the oldest on; `since` is the first line
    /// that is young enough, where age is bounded.
    pub(super) fn surplus(&self, state: &State, group: &GroupState, since: Option<Seq>) -> Option<SeqRange> {
        if self.policy != LagPolicy::Drop {
            return None;
        }
        let all = SeqRange::new(Seq::FIRST, state.next_seq.prev())?;
        let oldest = group.revived.first().copied().into_iter();
        let oldest = oldest.chain(group.acks.gap(all.first, all.last).map(|gap| gap.first)).min()?;
        let lag_lines = group.lag_lines(state.next_seq);
        // Dead letters that were put back count as lag, and are not found by counting what was never acked.
        let by_lines = self.lines.and_then(|lines| {
            let surplus = lag_lines.checked_sub(lines).filter(|surplus| *surplus > 0)? + lines / SLACK;
            let last = group.acks.nth_outside(all, surplus - 1).unwrap_or(all.last);
            Some(last.next())
        });
        let by_bytes = self
            .bytes
            .filter(|bytes| state.lag_bytes(group) > *bytes)
            .map(|bytes| state.newest_within(bytes - bytes / SLACK));
        let stays = [by_lines, by_bytes, since].into_iter().flatten().max()?;
        SeqRange::new(oldest, stays.prev().min(all.last))
    }
}
