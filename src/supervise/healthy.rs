//! What a healthy group is doing. Pure.

use super::consumers::held;
use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::Verdict;
use super::wording::{soon, waits};
use crate::plain::{counted, duration, span};
use crate::queue::Phase;

/// What a healthy group is doing.
pub(super) fn healthy(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Verdict {
    if i.phase == Phase::Paused {
        return Verdict::healthy(i, State::Paused, format!("paused by an operator; {}", waits(i.lag_lines)));
    }
    if let Some((range, until)) = i.backs_off.filter(|(_, until)| *until > now) {
        let again = format!("{} failed; retried {}", span(range), soon(until, now));
        return Verdict::healthy(i, State::Retrying, again);
    }
    if let Some(seen) = i.consumers.as_ref().filter(|seen| !seen.held.is_empty()) {
        let summary = match held(seen, now).as_slice() {
            [one] => format!("{}; {one}", waits(i.lag_lines)),
            [oldest, rest @ ..] => {
                format!("{}; {oldest}, and {} more", waits(i.lag_lines), counted(rest.len() as u64, "lease"))
            }
            [] => waits(i.lag_lines),
        };
        return Verdict::healthy(i, State::Running, summary);
    }
    if let Some(since) = i.oldest_lease_ms.filter(|since| now.saturating_sub(*since) >= s.stall_after_ms) {
        let (lasts, timeout) = (duration(now.saturating_sub(since)), duration(i.timeout_ms));
        return Verdict::healthy(
            i,
            State::Slow,
            format!("a batch has been in flight for {lasts}; its timeout is {timeout}"),
        );
    }
    at_work(i)
}

/// What a group is doing that is neither paused nor failing.
pub(super) fn at_work(i: &GroupInputs) -> Verdict {
    match (i.lag_lines, i.leases.len()) {
        (0, 0) => Verdict::healthy(i, State::Idle, "nothing waits"),
        (_, 0) => Verdict::healthy(i, State::Running, waits(i.lag_lines)),
        (_, batches) => {
            let batches = counted(batches as u64, "batch");
            Verdict::healthy(i, State::Running, format!("{}, {batches} in flight", waits(i.lag_lines)))
        }
    }
}
