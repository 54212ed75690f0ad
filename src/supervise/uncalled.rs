//! The verdict on a group whose lines nobody gets: no processor, one that cannot be started, or one that is not called.
//! Pure.

use super::cause::Cause;
use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::{Step, Verdict};
use super::well::at_work;
use super::words::{lasting, segment_name};
use crate::plain::{counted, waiting};

/// At once: nothing that happens later would change it.
pub(super) fn no_processor(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    if i.processor.is_some() || i.has_worker {
        return None;
    }
    let group = &i.group;
    let add = format!("add a [[processor]] with group = \"{group}\"");
    let step = if s.typed.has_config() {
        Step::from(s.typed.change(&add))
    } else {
        Step::from(format!("stop the service, and start it with a command: {}", s.typed.start_with_command()))
            .or(s.typed.change(&add))
    };
    let waits = match i.lag_lines {
        0 => "lines that come in will wait".to_owned(),
        lines => waiting(lines),
    };
    let pins = i.pins.as_ref().filter(|pins| now.saturating_sub(pins.since_ms) >= s.stall_after_ms);
    if let Some(pins) = pins {
        let summary = format!(
            "group {group} has no processor, and keeps acknowledged lines on disk: {waits}, and {} has been kept for {} although group {} has acked it",
            segment_name(pins.segment),
            lasting(now.saturating_sub(pins.since_ms)),
            pins.groups.join(", ")
        );
        return Some(Verdict::ill(i, State::NeverCalled, (Some("A"), Cause::PinsLog), summary, step));
    }
    let summary = format!("group {group} has no processor: {waits}");
    Some(Verdict::ill(i, State::NeverCalled, (Some("A"), Cause::NeverCalled), summary, step))
}

/// Before it was tried: a group that had nothing to deliver yet would look healthy.
pub(super) fn program_missing(i: &GroupInputs, _: u64, s: &JudgeSettings) -> Option<Verdict> {
    let why = i.program_missing.as_ref()?;
    let summary = format!("the command of group {} cannot be run: {why}", i.group);
    let step =
        Step::from(s.typed.change(&format!("correct `command` of the [[processor]] of group {}", i.group)))
            .or("put the program there; the next delivery runs it".to_owned());
    Some(Verdict::ill(i, at_work(i).state, (None, Cause::Refused), summary, step))
}

/// Lines wait, and nobody gets them although somebody could.
pub(super) fn never_called(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let since = i.not_leased_since_ms.filter(|since| now.saturating_sub(*since) >= s.stall_after_ms)?;
    let backs_off = i.backs_off.is_some_and(|(_, until)| until > now);
    if i.lag_lines == 0 || !i.leases.is_empty() || backs_off {
        return None;
    }
    let why = match (&i.processor, i.has_worker) {
        (Some(name), false) => format!("its processor ({name}) does not ask for lines"),
        _ => "its worker asks for lines, and gets none".to_owned(),
    };
    let summary = format!(
        "the processor of group {} is never called: {} waiting, nothing delivered for {}; {why}",
        i.group,
        counted(i.lag_lines, "line"),
        lasting(now.saturating_sub(since))
    );
    let step = Step::from(s.typed.inspect(i.oldest.unwrap_or(i.ack_floor.next())))
        .or(format!("stop the service, and start it: {}", s.typed.start()));
    Some(Verdict::ill(i, State::NeverCalled, (Some("A"), Cause::NeverCalled), summary, step))
}
