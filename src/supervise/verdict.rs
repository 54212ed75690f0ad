//! A verdict: what somebody is doing and why, what that rests on, and what to type.

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
    /// What it rests on.
    pub evidence: Vec<String>,
    /// The next command to paste, or the next step.
    pub next: String,
}

impl Verdict {
    pub(super) fn well(inputs: &GroupInputs, state: State, summary: impl Into<String>) -> Verdict {
        Verdict { group: inputs.group.clone(), state, summary: summary.into(), ..Verdict::default() }
    }

    pub(super) fn ill(
        inputs: &GroupInputs,
        state: State,
        (hypothesis, cause): (Option<&'static str>, Cause),
        summary: String,
        next: String,
    ) -> Verdict {
        Verdict {
            group: inputs.group.clone(),
            state,
            hypothesis,
            cause: Some(cause),
            summary,
            evidence: Vec::new(),
            next,
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.cause.is_none()
    }
}
