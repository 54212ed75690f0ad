//! The verdict on a group whose lines are not delivered: it has no processor, or one that cannot be started or is not
//! called. Pure.

use super::cause::Cause;
use super::healthy::at_work;
use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::{Step, Verdict};
use super::wording::segment_name;
use crate::plain::{counted, duration, waiting};

/// No processor: reported at once, as no delay would change it.
pub(super) fn no_processor(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    if i.processor.is_some() || i.has_worker || i.consumers.is_some() {
        return None;
    }
    let group = &i.group;
    let add = format!("add a [[processor]] with group = \"{group}\"");
    let step = if s.commands.has_config() {
        Step::from(s.commands.change(&add))
    } else {
        Step::from(format!(
            "stop the service, and start it with a command: {}",
            s.commands.start_with_command()
        ))
        .or(s.commands.change(&add))
    };
    let waits = match i.lag_lines {
        0 => "new lines will wait".to_owned(),
        lines => waiting(lines),
    };
    let pins = i.pins.as_ref().filter(|pins| now.saturating_sub(pins.since_ms) >= s.stall_after_ms);
    if let Some(pins) = pins {
        let summary = format!(
            "group {group} has no processor, and keeps acknowledged lines on disk: {waits}, and {} has been kept for {} although group {} has acked it",
            segment_name(pins.segment),
            duration(now.saturating_sub(pins.since_ms)),
            pins.groups.join(", ")
        );
        return Some(Verdict::unhealthy(i, State::NeverCalled, (Some("A"), Cause::PinsLog), summary, step));
    }
    let summary = format!("group {group} has no processor: {waits}");
    Some(Verdict::unhealthy(i, State::NeverCalled, (Some("A"), Cause::NeverCalled), summary, step))
}

/// A program that cannot be run: reported before the first delivery, until which the group would look healthy.
pub(super) fn program_missing(i: &GroupInputs, _: u64, s: &JudgeSettings) -> Option<Verdict> {
    let why = i.program_missing.as_ref()?;
    let summary = format!("the command of group {} cannot be run: {why}", i.group);
    let step = Step::from(
        s.commands.change(&format!("correct `command` of the [[processor]] of group {}", i.group)),
    )
    .or("put the program there; the next delivery runs it".to_owned());
    Some(Verdict::unhealthy(i, at_work(i).state, (None, Cause::Refused), summary, step))
}

/// Lines wait and are not delivered although a processor could take them.
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
        duration(now.saturating_sub(since))
    );
    let step = Step::from(s.commands.inspect(i.oldest.unwrap_or(i.ack_floor.next())))
        .or(format!("stop the service, and start it: {}", s.commands.start()));
    Some(Verdict::unhealthy(i, State::NeverCalled, (Some("A"), Cause::NeverCalled), summary, step))
}
