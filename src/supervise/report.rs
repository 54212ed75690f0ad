//! All verdicts at a point in time: what `doctor` prints.

use spillq_storage::Seq;

use super::last_run::LastRun;
use super::state::State;
use super::verdict::Verdict;

/// All verdicts at a point in time.
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
