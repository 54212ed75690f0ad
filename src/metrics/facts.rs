//! What metrics are made from: one look at every part.

use std::collections::{BTreeMap, BTreeSet};

use super::process::Process;
use super::text::Labels;
use crate::queue::Status;
use crate::supervise::{Report, State};
use crate::tail::{Snapshot, SourceState};

/// One look at every part.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The owner.
    pub status: &'a Status,
    /// The tail, where one runs.
    pub tail: Option<&'a Snapshot>,
    /// For how long it has been at one turn.
    pub tail_busy_ms: Option<u64>,
    /// Age of the oldest line that waits, by group, in seconds.
    pub ages: &'a BTreeMap<String, f64>,
    /// The verdicts.
    pub report: &'a Report,
    /// `disk.limit`.
    pub limit_bytes: u64,
    /// `disk.min_free`.
    pub min_free_bytes: u64,
    /// What the file system has free.
    pub free_bytes: Option<u64>,
    /// The process.
    pub process: &'a Process,
}

impl Facts<'_> {
    /// The causes that doctor names, each with its group.
    #[must_use]
    pub fn causes(&self) -> BTreeSet<(&'static str, &str)> {
        let all = self.report.log.iter().chain(&self.report.groups);
        // A cause that two lines have at once, as with `killer_line`, is one series.
        all.filter_map(|verdict| Some((verdict.cause?.word(), verdict.group.as_str()))).collect()
    }
}

pub(super) fn sources_by_state(facts: &Facts<'_>) -> Vec<(Labels, f64)> {
    let Some(tail) = facts.tail else { return Vec::new() };
    let count = |state| tail.sources.iter().filter(|source| source.state == state).count() as f64;
    SourceState::ALL.map(|state| (vec![("state", state.word().to_owned())], count(state))).into()
}

pub(super) fn states(facts: &Facts<'_>) -> Vec<(Labels, f64)> {
    let (own, _) = super::groups(facts);
    let state = |group: &crate::queue::GroupStatus| {
        facts.report.state_of(&group.name).unwrap_or(State::from(&group.phase)).word().to_owned()
    };
    own.iter().map(|group| (vec![("group", group.name.clone()), ("state", state(group))], 1.0)).collect()
}

pub(super) fn active_causes(facts: &Facts<'_>) -> Vec<(Labels, f64)> {
    let causes = facts.causes();
    causes
        .iter()
        .map(|(cause, group)| (vec![("cause", (*cause).to_owned()), ("group", (*group).to_owned())], 1.0))
        .collect()
}

pub(super) fn last_run(facts: &Facts<'_>) -> Vec<(Labels, f64)> {
    let last = facts.report.last_run.iter();
    last.map(|last| (vec![("ended", last.ended.word().to_owned())], 1.0)).collect()
}
