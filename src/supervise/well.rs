//! What a group is doing that nothing is wrong with. Pure.

use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::Verdict;
use super::words::{lasting, soon, span, waits};
use crate::plain::counted;
use crate::queue::Phase;

/// What the group is doing.
pub(super) fn well(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Verdict {
    if i.phase == Phase::Paused {
        return Verdict::well(i, State::Paused, format!("paused by an operator; {}", waits(i.lag_lines)));
    }
    if let Some((range, until)) = i.backs_off.filter(|(_, until)| *until > now) {
        let again = format!("{} failed; retried {}", span(range), soon(until, now));
        return Verdict::well(i, State::Retrying, again);
    }
    if let Some(since) = i.oldest_lease_ms.filter(|since| now.saturating_sub(*since) >= s.stall_after_ms) {
        let (lasts, timeout) = (lasting(now.saturating_sub(since)), lasting(i.timeout_ms));
        return Verdict::well(
            i,
            State::Slow,
            format!("a batch has been in flight for {lasts}; its timeout is {timeout}"),
        );
    }
    at_work(i)
}

/// What a group does that is neither paused nor fails.
pub(super) fn at_work(i: &GroupInputs) -> Verdict {
    match (i.lag_lines, i.leases.len()) {
        (0, 0) => Verdict::well(i, State::Idle, "nothing waits"),
        (_, 0) => Verdict::well(i, State::Running, waits(i.lag_lines)),
        (_, batches) => {
            let batches = counted(batches as u64, "batch");
            Verdict::well(i, State::Running, format!("{}, {batches} in flight", waits(i.lag_lines)))
        }
    }
}
