//! What a group may leave behind, and what follows when it is more. Pure.

use spillq_storage::{GroupState, Seq, SeqRange, State};

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
    /// Why no lines are taken in for the sake of a group with these bounds, if so. `oldest_ms` is the append time of
    /// its oldest line that waits, where that is known.
    pub(super) fn blocks(
        &self,
        state: &State,
        group: &GroupState,
        oldest_ms: Option<u64>,
        now_ms: u64,
    ) -> Option<String> {
        if self.policy != LagPolicy::Block {
            return None;
        }
        let said = |what: String| format!("group {} is at its max_lag of {what}", group.name);
        let lag_lines = group.lag_lines(state.next_seq);
        if let Some(lines) = self.lines.filter(|lines| lag_lines >= *lines) {
            return Some(said(format!("{lines} lines, {lag_lines} wait")));
        }
        let lag_bytes = state.lag_bytes(group);
        if let Some(bytes) = self.bytes.filter(|bytes| lag_bytes >= *bytes) {
            return Some(said(format!("{bytes} bytes, {lag_bytes} wait")));
        }
        let age = oldest_ms.map(|oldest| now_ms.saturating_sub(oldest)).filter(|_| lag_lines > 0);
        let age_max = self.age_ms.filter(|max| age.is_some_and(|age| age >= *max))?;
        Some(said(format!("{} ms, the oldest line waits for {} ms", age_max, age.unwrap_or_default())))
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
