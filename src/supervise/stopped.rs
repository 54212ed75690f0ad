//! Verdicts on a store that no service has open: how the last run ended, and what it left to each group. Pure.
//!
//! Lines that wait are not a problem then: the next start delivers them.

use super::cause::Cause;
use super::inputs::{GroupInputs, JudgeSettings};
use super::last_run::{Ended, LastRun};
use super::state::State;
use super::verdict::{Step, Verdict};
use super::wording::{has_dead_letters, waits};
use crate::plain::counted;

/// A group of a stopped store.
#[derive(Clone, Debug, Default)]
pub struct StoppedGroup {
    /// Its name.
    pub group: String,
    /// Lines that wait.
    pub lag_lines: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// An operator paused it.
    pub is_paused: bool,
    /// Why the program of its command cannot be run, if the configuration is known.
    pub program_missing: Option<String>,
    /// The lines that were in flight when the last run died, as text; empty if it stopped cleanly.
    pub in_flight: Vec<String>,
}

/// The verdict on a group: what matters most about it.
#[must_use]
pub fn judge_stopped(i: &StoppedGroup, last: Option<&LastRun>, s: &JudgeSettings) -> Verdict {
    let inputs =
        GroupInputs { group: i.group.clone(), dead_letters: i.dead_letters, ..GroupInputs::default() };
    let state = if i.is_paused { State::Paused } else { State::Idle };
    let again = || {
        let start = Step::from(s.commands.start());
        match s.commands.drain(&i.group) {
            Some(drain) => start.or(drain),
            None => start,
        }
    };
    if let Some(last) = last.filter(|_| !i.in_flight.is_empty()) {
        let who = if s.commands.has_consumers(&i.group) {
            format!("consumers of group {} had lines", i.group)
        } else {
            format!("the processor of group {} vanished with lines", i.group)
        };
        let summary = format!(
            "{who} in flight when the last run (pid {}) ended: they were not acked, and the next start delivers them again, bisected",
            last.pid
        );
        let cause = (None, Cause::ConsumerVanished);
        let mut verdict = Verdict::unhealthy(&inputs, State::Blocked, cause, summary, again());
        verdict.evidence = i.in_flight.clone();
        verdict.evidence.push(waits(i.lag_lines));
        if i.dead_letters > 0 {
            verdict.evidence.push(counted(i.dead_letters, "dead letter"));
        }
        return verdict;
    }
    if let Some((summary, step)) = has_dead_letters(&inputs, s) {
        return Verdict::unhealthy(&inputs, state, (None, Cause::DeadLetters), summary, step);
    }
    if let Some(why) = &i.program_missing {
        let summary = format!("the command of group {} cannot be run: {why}", i.group);
        let what = format!("correct `command` of the [[processor]] of group {}", i.group);
        return Verdict::unhealthy(&inputs, state, (None, Cause::Refused), summary, s.commands.change(&what));
    }
    let paused = if i.is_paused { "paused by an operator; " } else { "" };
    let mut verdict = Verdict::healthy(&inputs, state, format!("{paused}{}", waits(i.lag_lines)));
    if i.lag_lines > 0 && i.is_paused {
        verdict.suggest(Step::from(s.commands.spillq("group resume", &i.group)).or(s.commands.start()));
    } else if i.lag_lines > 0 {
        verdict.suggest(again());
    }
    verdict
}

/// The verdict on how the last run ended, unless cleanly.
#[must_use]
pub fn judge_end(last: &LastRun, s: &JudgeSettings) -> Option<Verdict> {
    let start = s.commands.start();
    let (cause, step) = match &last.ended {
        Ended::Cleanly => return None,
        Ended::OutOfMemory => {
            let look =
                "journalctl -k | grep -i oom    # raise the memory limit, or find what else takes the memory";
            (Cause::OutOfMemory, Step::from(look.to_owned()).or(start))
        }
        Ended::Stuck(_) => {
            let look = "journalctl -k | grep -iE 'i/o error|hung task'    # does the disk work?";
            (Cause::Stuck, Step::from(look.to_owned()).or(start))
        }
        Ended::Killed => (Cause::Killed, Step::from(start)),
    };
    Some(Verdict::on_log(State::Blocked, cause, last.sentence(), last.doing.clone(), step))
}
