//! The verdict on a group that cannot continue by itself, for each reason, and what the verdicts on failures share. Pure.

use spillq_storage::Seq;

use super::cause::Cause;
use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::{Step, Verdict};
use super::wording::{see_to_dead_letters, times};
use crate::plain::{counted, duration};
use crate::queue::{Blocked, Failing, FailureKind, HeldLine, Phase};

/// This many failures in a row are not an accident: a restart of the destination explains two.
const FAILURES_IN_A_ROW: u64 = 3;

/// The first rows of the table in docs/explanation/supervision.md.
pub(super) fn blocked(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let Phase::Blocked(why) = &i.phase else { return None };
    let oldest = i.oldest.unwrap_or(i.ack_floor.next());
    Some(match why {
        Blocked::Damage(what) => {
            let summary = format!("group {} is blocked at a damaged block: {what}", i.group);
            let repair = s.commands.spillq("repair", "--dry-run    # with the service stopped");
            let skip = s.commands.change("set `on_damage = \"skip\"` in [disk] to skip such blocks");
            let step = Step::from(repair).or(skip);
            Verdict::unhealthy(i, State::Blocked, (None, Cause::Damage), summary, step)
        }
        Blocked::DiskError(what) => {
            let summary = format!("group {} is blocked at lines that the disk cannot read: {what}", i.group);
            let verify = s.commands.spillq(
                "verify",
                "   # with the service stopped: lists what else cannot be read; start the service when the disk works again",
            );
            Verdict::unhealthy(i, State::Blocked, (None, Cause::Damage), summary, verify)
        }
        Blocked::AckWindow => {
            let summary = format!(
                "group {} does not clear: it has 4,096 ranges of acks above line {oldest}, which blocks the ack floor",
                i.group
            );
            let next = s.commands.inspect(oldest);
            Verdict::unhealthy(i, State::Blocked, (Some("D"), Cause::NotClearing), summary, next)
        }
        Blocked::DeadLettersFull => {
            let letters = counted(i.dead_letters, "dead letter");
            let summary = format!(
                "group {} is blocked: dead letters full ({letters}), and another line is to become one",
                i.group
            );
            let step = see_to_dead_letters(i, s);
            Verdict::unhealthy(i, State::Blocked, (None, Cause::DeadLettersFull), summary, step)
        }
        Blocked::HeldBy(_) => return held(i, now, s),
    })
}

/// A line that keeps failing, and blocks its strict group. `None` if another row says more (a hang, an outage, an
/// out-of-memory kill), or while the failure is only a few seconds old.
fn held(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let HeldLine { seq, failures, for_ms, deaths, is_given_up } = i.held?;
    let is_command = i.processor.as_ref().is_none_or(|name| name.kind.is_command());
    let how = if is_given_up {
        format!(
            "the service died {} while it was in flight, and it is no longer delivered",
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
        format!("it failed {} as a single-line batch, for {}", times(failures.into()), duration(for_ms))
    };
    let summary =
        format!("group {} is blocked by line {seq}: {how}; nothing behind it is delivered", i.group);
    let hypothesis = is_command.then_some("B");
    let retry = s.commands.spillq("group retry-now", &format!("{}    # when the command is fixed", i.group));
    let step = look_at(i, s, seq, retry);
    Some(Verdict::unhealthy(i, State::Blocked, (hypothesis, Cause::HeldLine), summary, step))
}

/// The command that shows a line, then the command that parks it if the line may be at fault, otherwise `or`. A line is not
/// at fault while the destination cannot be reached or reports a failure of its own.
pub(super) fn look_at(i: &GroupInputs, s: &JudgeSettings, seq: Seq, or: String) -> Step {
    let is_down = i.failing.as_ref().is_some_and(|failing| failing.kind == FailureKind::Down);
    // A command that has acked nothing is more likely to be at fault than its first line.
    let has_worked = i.acks > 0;
    let may_park = i.held.is_some_and(|held| {
        held.seq == seq && (held.is_given_up || (held.failures >= i.attempts_max && !is_down && has_worked))
    });
    let look = s.commands.inspect(seq);
    Step::from(look).or(if may_park { s.commands.park(seq, &i.group) } else { or })
}

/// Whether failures are more than a restart of the destination.
pub(super) fn is_no_accident(failing: &Failing, is_command: bool, now: u64, s: &JudgeSettings) -> bool {
    // The back-off after one failure may be longer than `stall_after`.
    let lasts = failing.times > 1 && now.saturating_sub(failing.since_ms) >= s.stall_after_ms;
    // A destination refuses a few times while it restarts; a command has no reason to.
    lasts || (is_command && failing.times >= FAILURES_IN_A_ROW)
}
