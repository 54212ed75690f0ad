//! The series with labels, and which sources and groups have series by themselves.

use std::cmp::Reverse;

use super::facts::Facts;
use crate::queue::GroupStatus;
use crate::supervise::State;
use crate::tail::{SourceState, SourceStatus};

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
