//! The lines that earlier runs leave to a group: in flight when one died, failed, and those that come before them.

use std::collections::BTreeSet;

use spillq_storage::{GroupState, Seq, SeqRange};

use super::retry::Retries;
use super::settings::GroupSettings;

/// What is delivered before fresh lines: suspects, lines that failed alone or killed, revived lines, and in a strict group
/// all lines that wait before the last of these. Part of a batch may be suspect while lines of it further ahead were
/// released, and are not.
pub(super) fn left_over(settings: &GroupSettings, state: &GroupState) -> Retries {
    let mut retries = Retries::new(settings.retry, settings.strict);
    for suspect in state.suspects() {
        retries.add_suspect(*suspect);
    }
    let deaths = |seq: Seq| state.deaths().get(&seq).copied().unwrap_or_default();
    let alone: BTreeSet<Seq> = state.failures().keys().chain(state.deaths().keys()).copied().collect();
    for seq in alone.iter().filter(|seq| !state.acks().contains(**seq)) {
        let failures = state.failures().get(seq).map_or(0, |failures| failures.times);
        retries.add_line(*seq, failures, deaths(*seq));
    }
    let last = state.suspects().iter().map(|suspect| suspect.last).chain(alone.last().copied()).max();
    if let Some(last) = last.filter(|_| settings.strict) {
        let first = state.acks().floor().next();
        for mut gap in SeqRange::new(first, last).into_iter().flat_map(|range| state.acks().gaps(range)) {
            while let Some(untried) = retries.skip(gap) {
                retries.add_untried(untried);
                gap.first = untried.last.next();
            }
        }
    }
    for seq in state.revived() {
        retries.revive(*seq, deaths(*seq));
    }
    retries
}
