//! A verdict: what a group or the log is doing and why, the evidence, and the next step; and all verdicts together.

use spillq_storage::Seq;

use super::cause::Cause;
use super::inputs::GroupInputs;
use super::last_run::LastRun;
use super::state::State;

/// What a group, or the log, is doing and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The group; empty for the log.
    pub group: String,
    /// What it is doing.
    pub state: State,
    /// `A` never called, `B` crashes, `C` hangs, `D` does not clear.
    pub hypothesis: Option<&'static str>,
    /// What is wrong; `None` when nothing is.
    pub cause: Option<Cause>,
    /// The verdict in one sentence.
    pub summary: String,
    /// The evidence.
    pub evidence: Vec<String>,
    /// The next step: a command to paste, or what to change.
    pub next: String,
    /// Another step, instead or afterwards; empty if there is only one.
    pub or: String,
}

/// What to do about a finding.
pub(super) struct Step {
    next: String,
    or: String,
}

impl From<String> for Step {
    fn from(next: String) -> Step {
        Step { next, or: String::new() }
    }
}

impl Step {
    /// Adds another step.
    pub(super) fn or(self, or: String) -> Step {
        Step { or, ..self }
    }
}

impl Verdict {
    /// A verdict on the log, or on its surroundings.
    pub(super) fn on_log(
        state: State,
        cause: Cause,
        summary: String,
        evidence: Vec<String>,
        step: impl Into<Step>,
    ) -> Verdict {
        let Step { next, or } = step.into();
        Verdict { state, cause: Some(cause), summary, evidence, next, or, ..Verdict::default() }
    }

    pub(super) fn healthy(inputs: &GroupInputs, state: State, summary: impl Into<String>) -> Verdict {
        Verdict { group: inputs.group.clone(), state, summary: summary.into(), ..Verdict::default() }
    }

    pub(super) fn unhealthy(
        inputs: &GroupInputs,
        state: State,
        (hypothesis, cause): (Option<&'static str>, Cause),
        summary: String,
        step: impl Into<Step>,
    ) -> Verdict {
        let Step { next, or } = step.into();
        Verdict {
            group: inputs.group.clone(),
            state,
            hypothesis,
            cause: Some(cause),
            summary,
            evidence: Vec::new(),
            next,
            or,
        }
    }

    pub(super) fn suggest(&mut self, Step { next, or }: Step) {
        (self.next, self.or) = (next, or);
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.cause.is_none()
    }
}

/// All verdicts at a point in time: what `doctor` prints.
#[derive(Clone, Debug)]
pub struct Report {
    /// One for each group.
    pub groups: Vec<Verdict>,
    /// What is wrong with the log and its surroundings.
    pub log: Vec<Verdict>,
    /// What is worth knowing, but not a problem.
    pub notes: Vec<String>,
    /// The previous run.
    pub last_run: Option<LastRun>,
    /// The lines that each group's verdict is about, for EVENTS.
    pub(super) seqs: Vec<(Seq, Seq)>,
}

impl Report {
    /// The state of a group.
    #[must_use]
    pub fn state_of(&self, group: &str) -> Option<State> {
        self.groups.iter().find(|verdict| verdict.group == group).map(|verdict| verdict.state)
    }

    /// What is wrong with a group, if something is.
    #[must_use]
    pub fn what_is_wrong(&self, group: &str) -> Option<String> {
        let unhealthy = self.groups.iter().find(|verdict| verdict.group == group && !verdict.is_healthy());
        unhealthy.map(|verdict| verdict.summary.clone())
    }

    /// A report of verdicts on a store that no service has open.
    #[must_use]
    pub fn of(
        groups: Vec<Verdict>,
        log: Vec<Verdict>,
        notes: Vec<String>,
        last_run: Option<LastRun>,
    ) -> Report {
        Report { groups, log, notes, last_run, seqs: Vec::new() }
    }
}
