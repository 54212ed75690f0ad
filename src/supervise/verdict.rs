//! A verdict: what a group or the log is doing and why, the evidence, and the next step.

use super::cause::Cause;
use super::inputs::GroupInputs;
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
