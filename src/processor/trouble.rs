//! Why a destination did not store lines, and what that means for them.

use std::fmt::Display;
use std::time::Duration;

use spillq_storage::Seq;

use super::{Evidence, Outcome};
use crate::plain::harmless;
use crate::secret::Secret;

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) fault: Fault,
    /// What was found, for people. Safe to print.
    pub(super) why: String,
    /// What else the server said. Safe to print.
    pub(super) more: String,
}

/// What is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server or the network: it is unreachable, full or restarting. This passes.
    Server,
    /// The setup: this does not pass by itself.
    Setup,
    /// The size of the batch, or of its only line.
    Size,
    /// The time that the batch took: a smaller one may be fast enough.
    Time,
    /// This line.
    Line(Seq),
    /// Some line; the server does not say which.
    Lines,
}

/// A secret, read where it is now. Not on a thread of the runtime, as it may be a file.
pub(super) async fn read_secret(at: &Secret) -> Result<String, Trouble> {
    let at = at.clone();
    let read = tokio::task::spawn_blocking(move || at.read()).await.map_err(Trouble::server)?;
    read.map_err(Trouble::setup)
}

impl Trouble {
    pub(super) fn new(fault: Fault, why: impl Display) -> Trouble {
        Trouble { fault, why: harmless(&why.to_string()), more: String::new() }
    }

    /// The server or the network is at fault.
    pub(super) fn server(why: impl Display) -> Trouble {
        Trouble::new(Fault::Server, why)
    }

    /// The setup is at fault.
    pub(super) fn setup(why: impl Display) -> Trouble {
        Trouble::new(Fault::Setup, why)
    }

    /// What becomes of the batch. `pause` is asked for only if the server is at fault.
    pub(super) fn outcome(self, what: &str, pause: impl FnOnce() -> Duration) -> Outcome {
        let fault = self.fault;
        let evidence = self.evidence(&format!("{what} failed"));
        match fault {
            Fault::Server => Outcome::Later(pause(), evidence),
            Fault::Setup => Outcome::Refused(evidence),
            Fault::Size => Outcome::TooLarge(evidence),
            Fault::Time => Outcome::Failed(evidence),
            Fault::Line(seq) => Outcome::BadLine(seq, evidence),
            Fault::Lines => Outcome::Poison(evidence),
        }
    }

    /// The trouble with `what`, for people.
    pub(super) fn evidence(self, what: &str) -> Evidence {
        Evidence { summary: format!("{what}: {}", self.why), tail: self.more }
    }
}
