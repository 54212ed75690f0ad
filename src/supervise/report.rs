//! All verdicts of a moment: what `doctor` shows.

use spillq_storage::Seq;

use super::last_run::LastRun;
use super::state::State;
use super::verdict::Verdict;

/// All verdicts of a moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// One a group.
    pub groups: Vec<Verdict>,
    /// What is wrong beside the groups.
    pub log: Vec<Verdict>,
    /// What is worth knowing, and makes nobody ill.
    pub notes: Vec<String>,
    /// The run before this one.
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
        let ill = self.groups.iter().find(|verdict| verdict.group == group && !verdict.is_well());
        ill.map(|verdict| verdict.summary.clone())
    }

    /// Verdicts that were made elsewhere: on a store that no service has open.
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
