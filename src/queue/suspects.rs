//! What an earlier run leaves to a group: lines that were out when it died, and those that come before them.

use spillq_storage::{GroupState, Seq, SeqRange};

use super::GroupSettings;
use super::retry::Retries;

/// What is to be delivered before fresh lines: suspects, dead letters that were put back, and in a strict group all
/// that waits before the last suspect. Of a batch that was cut some may be suspect, and a part before them was given
/// back, and is not.
pub(super) fn left_over(settings: &GroupSettings, state: &GroupState) -> Retries {
    let attempts = |seq: Seq| state.attempts(seq);
    let mut retries = Retries::new(settings.retry, settings.strict, &state.suspects, &attempts);
    let last = state.suspects.iter().map(|suspect| suspect.last).max();
    if let Some(last) = last.filter(|_| settings.strict) {
        for mut gap in state.acks.gaps(SeqRange { first: state.acks.floor().next(), last }) {
            while let Some(untried) = retries.skip(gap) {
                retries.add(untried, false);
                gap.first = untried.last.next();
            }
        }
    }
    for seq in &state.revived {
        retries.add(SeqRange::one(*seq), true);
    }
    retries
}
