//! What metrics are made from; the series with labels, and which sources and groups have series by themselves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::process::Process;
use crate::consumers::Seen;
use crate::queue::{GroupStatus, Status, now_ms};
use crate::supervise::{Report, State};
use crate::tail::{Snapshot, SourceState, SourceStatus};

/// The status of every part at a point in time.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The log and its groups.
    pub status: &'a Status,
    /// The tail, if one runs.
    pub tail: Option<&'a Snapshot>,
    /// For how long it has been busy with one turn.
    pub tail_busy_ms: Option<u64>,
    /// Age of the oldest line that waits, by group, in seconds.
    pub ages: &'a BTreeMap<String, f64>,
    /// The verdicts.
    pub report: &'a Report,
    /// `disk.limit`.
    pub limit_bytes: u64,
    /// `disk.min_free`.
    pub min_free_bytes: u64,
    /// Free bytes of the file system.
    pub free_bytes: Option<u64>,
    /// The process.
    pub process: &'a Process,
    /// The consumers of groups that lease lines by themselves.
    pub consumers: &'a BTreeMap<String, Seen>,
    /// Bytes of lines that are being sent to them, and their bound.
    pub bodies_bytes: (u64, u64),
}

impl Facts<'_> {
    /// The causes that doctor reports, each with its group.
    #[must_use]
    pub fn causes(&self) -> BTreeSet<(&'static str, &str)> {
        let all = self.report.log.iter().chain(&self.report.groups);
        // A cause that two verdicts share, such as `killer_line`, is one series.
        all.filter_map(|verdict| Some((verdict.cause?.word(), verdict.group.as_str()))).collect()
    }
}

/// A consumer that was seen within this time counts as one.
const SEEN_MS: u64 = 300_000;

/// Consumers of a group that were seen lately.
pub(super) fn consumers(facts: &Facts<'_>, group: &str) -> u64 {
    let lately = now_ms().saturating_sub(SEEN_MS);
    let consumers = facts.consumers.get(group).map(|seen| seen.consumers.iter());
    consumers.map_or(0, |consumers| consumers.filter(|one| one.last_ms >= lately).count() as u64)
}

/// Labels of a series: names and values.
pub type Labels = Vec<(&'static str, String)>;

/// Sources with a series each: those with most unread bytes. The others are one series.
pub const SOURCES_MAX: usize = 1_000;
/// Groups with a series each, those with the largest lag: more than a configuration can name.
pub const GROUPS_MAX: usize = 100;
/// The label of the series for all others.
pub const OTHERS: &str = "others";

/// The sources that have a series each, those with most unread bytes first, and the others.
pub(super) fn sources<'f>(facts: &'f Facts<'_>) -> (Vec<&'f SourceStatus>, Vec<&'f SourceStatus>) {
    let mut all: Vec<&SourceStatus> =
        facts.tail.map(|tail| tail.sources.iter().collect()).unwrap_or_default();
    all.sort_by_key(|source| (Reverse(source.size.saturating_sub(source.offset)), source.source));
    let others = all.split_off(all.len().min(SOURCES_MAX));
    (all, others)
}

/// The groups that have a series each, and the others.
pub(super) fn groups<'f>(facts: &'f Facts<'_>) -> (Vec<&'f GroupStatus>, Vec<&'f GroupStatus>) {
    let mut all: Vec<&GroupStatus> = facts.status.groups.iter().collect();
    if all.len() > GROUPS_MAX {
        all.sort_by_key(|group| (Reverse(group.lag_lines), group.id));
    }
    let others = all.split_off(all.len().min(GROUPS_MAX));
    (all, others)
}

pub(super) fn sources_by_state(facts: &Facts<'_>) -> Vec<(Labels, f64)> {
    let Some(tail) = facts.tail else { return Vec::new() };
    let count = |state| tail.sources.iter().filter(|source| source.state == state).count() as f64;
    SourceState::ALL.map(|state| (vec![("state", state.word().to_owned())], count(state))).into()
}

pub(super) fn states(facts: &Facts<'_>) -> Vec<(Labels, f64)> {
    let (groups, _) = groups(facts);
    let state = |group: &GroupStatus| {
        facts.report.state_of(&group.name).unwrap_or(State::from(&group.phase)).word().to_owned()
    };
    let labels = |group: &&GroupStatus| vec![("group", group.name.clone()), ("state", state(group))];
    groups.iter().map(|group| (labels(group), 1.0)).collect()
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
