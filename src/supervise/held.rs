//! The verdict on a group that one line holds, and what verdicts on failures share. Pure.

use spillq_storage::Seq;

use super::cause::Cause;
use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::Verdict;
use crate::queue::{Failing, FailureKind, HeldLine};

/// So many failures in a row are no accident: the first may be a restart of the destination, the second its end.
const FAILURES_IN_A_ROW: u64 = 3;

/// A line that fails again and again, and keeps its strict group from all others. `None` where a later row has more to
/// say: a hang, an outage, or a failure that is only a few seconds old.
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
            || failing.kind == FailureKind::Down
            || !is_no_accident(failing, is_command, now, s)
        {
            return None;
        }
        format!("it failed {} alone, for {}", times(failures.into()), lasting(for_ms))
    };
    let summary = format!("group {} is held by line {seq}: {how}; nothing behind it is delivered", i.group);
    let hypothesis = is_command.then_some("B");
    let next = look_at(i, s, seq, "");
    Some(Verdict::ill(i, State::Blocked, (hypothesis, Cause::HeldLine), summary, next))
}

/// The command that shows a line; and behind it the one that parks it, where the line may be at fault: never while the
/// destination cannot be reached or says itself that it fails.
pub(super) fn look_at(i: &GroupInputs, s: &JudgeSettings, seq: Seq, remark: &str) -> String {
    let is_down = i.failing.as_ref().is_some_and(|failing| failing.kind == FailureKind::Down);
    let may_park = i.held.filter(|held| {
        held.seq == seq && (held.is_given_up || (held.failures >= i.attempts_max && !is_down))
    });
    let park = may_park.map(|_| {
        let park = s.typed.spillq("dead-letter park", &format!("{seq} --group {}", i.group));
        format!("    # if the line is at fault: {park}")
    });
    let behind = park.unwrap_or_else(|| remark.to_owned());
    s.typed.spillq("inspect", &format!("--from {seq} --limit 1{behind}"))
}

/// Failures that are more than a destination that is started again.
pub(super) fn is_no_accident(failing: &Failing, is_command: bool, now: u64, s: &JudgeSettings) -> bool {
    // One failure may back off for longer than `stall_after`: it was tried once.
    let lasts = failing.times > 1 && now.saturating_sub(failing.since_ms) >= s.stall_after_ms;
    // A destination that is started again refuses a few times meanwhile, a command has no reason to.
    lasts || (is_command && failing.times >= FAILURES_IN_A_ROW)
}

/// A time that has passed, as people say it.
pub(super) fn lasting(ms: u64) -> String {
    match ms / 1_000 {
        0..120 => format!("{:.1} s", ms as f64 / 1e3),
        s @ 120..7_200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3_600),
    }
}

/// How often, in words.
pub(super) fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}
