//! The wording of times, counts and lines in verdicts.

use spillq_storage::SeqRange;

use super::inputs::{GroupInputs, JudgeSettings};
use super::verdict::Step;
use crate::plain::{counted, duration, waiting};

/// When something is done again: `at once`, `in 3.2 s`.
#[must_use]
pub fn soon(until_ms: u64, now_ms: u64) -> String {
    match until_ms.saturating_sub(now_ms) {
        0 => "at once".to_owned(),
        wait => format!("in {}", duration(wait)),
    }
}

/// How often: `once`, `3 times`.
pub(super) fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { counted(count, "time") }
}

/// How many lines wait.
pub(super) fn waits(lines: u64) -> String {
    match lines {
        0 => "nothing waits".to_owned(),
        lines => waiting(lines),
    }
}

/// The segment file of these lines, below the data dir.
pub(super) fn segment_name(lines: SeqRange) -> String {
    format!("segments/{:020}", lines.first.0)
}

/// The number of dead letters of a group, and what to do about them.
pub(super) fn has_dead_letters(i: &GroupInputs, s: &JudgeSettings) -> Option<(String, Step)> {
    if i.dead_letters == 0 {
        return None;
    }
    let letters = counted(i.dead_letters, "dead letter");
    let they = match i.dead_letters {
        1 => "it was not delivered, and stays until you retry or discard it",
        _ => "they were not delivered, and stay until you retry or discard them",
    };
    Some((format!("group {} has {letters}: {they}", i.group), see_to_dead_letters(i, s)))
}

/// List the dead letters, and retry them when that helps.
pub(super) fn see_to_dead_letters(i: &GroupInputs, s: &JudgeSettings) -> Step {
    let list =
        s.commands.spillq("dead-letter list", &format!("--group {}    # which lines, and why", i.group));
    let retry = s
        .commands
        .spillq("dead-letter retry", &format!("--all --group {}    # when the cause is fixed", i.group));
    Step::from(list).or(retry)
}
