//! The verdict on a group that is blocked by one line, and what verdicts on failures share. Pure.

use spillq_storage::Seq;

use super::cause::Cause;
use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::{Step, Verdict};
use super::words::{lasting, times};
use crate::queue::{Failing, FailureKind, HeldLine};

/// So many failures in a row are no accident: the first may be a restart of the destination, the second its end.
const FAILURES_IN_A_ROW: u64 = 3;

/// A line that fails again and again, and keeps its strict group from all others. `None` where a later row has more to
/// say: a hang, an outage, want of memory, or a failure that is only a few seconds old.
pub(super) fn held(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let HeldLine { seq, failures, for_ms, deaths, is_given_up } = i.held?;
    let is_command = i.processor.as_ref().is_none_or(|name| name.kind.is_command());
    let how = if is_given_up {
        format!(
            "the service died {} while it was in flight, and it is not delivered any more",
            times(deaths.into())
        )
    } else {
        let failing = i.failing.as_ref()?;
        if failing.timed_out
            || matches!(failing.kind, FailureKind::Down | FailureKind::OutOfMemory(_))
            || !is_no_accident(failing, is_command, now, s)
        {
            return None;
        }
        format!("it failed {} as a single-line batch, for {}", times(failures.into()), lasting(for_ms))
    };
    let summary =
        format!("group {} is blocked by line {seq}: {how}; nothing behind it is delivered", i.group);
    let hypothesis = is_command.then_some("B");
    let retry = s.typed.spillq("group retry-now", &format!("{}    # when the command is fixed", i.group));
    let step = look_at(i, s, seq, retry);
    Some(Verdict::ill(i, State::Blocked, (hypothesis, Cause::HeldLine), summary, step))
}

/// The command that shows a line; or the one that parks it, where the line may be at fault: never while the destination
/// cannot be reached or says itself that it fails. Otherwise `or`.
pub(super) fn look_at(i: &GroupInputs, s: &JudgeSettings, seq: Seq, or: String) -> Step {
    let is_down = i.failing.as_ref().is_some_and(|failing| failing.kind == FailureKind::Down);
    // A command that has acked nothing is more likely to be wrong than the line that it began with.
    let has_worked = i.acks > 0;
    let may_park = i.held.is_some_and(|held| {
        held.seq == seq && (held.is_given_up || (held.failures >= i.attempts_max && !is_down && has_worked))
    });
    let look = s.typed.inspect(seq);
    Step::from(look).or(if may_park { s.typed.park(seq, &i.group) } else { or })
}

/// Failures that are more than a destination that is started again.
pub(super) fn is_no_accident(failing: &Failing, is_command: bool, now: u64, s: &JudgeSettings) -> bool {
    // One failure may back off for longer than `stall_after`: it was tried once.
    let lasts = failing.times > 1 && now.saturating_sub(failing.since_ms) >= s.stall_after_ms;
    // A destination that is started again refuses a few times meanwhile, a command has no reason to.
    lasts || (is_command && failing.times >= FAILURES_IN_A_ROW)
}
