//! Why a group has no lines to lease, in a few words: for a consumer that got none. Pure.

use std::fmt;

use super::view::Seen;
use crate::plain::duration;
use crate::queue::{Blocked, GroupStatus, Phase, Waits};

/// Why no lines were leased: `empty`, `busy`, `paused`, `rate`, `backoff 12 s`, `refused 12 s`, `held-by w2 18 s`, `blocked line 17`,
/// `blocked ack-window 10-40`, `blocked dead-letters`, `blocked damage`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why(String);

impl Why {
    /// There are lines, and they were not offered in time: the owner is in a slow commit.
    pub(super) fn busy() -> Why {
        Why("busy".to_owned())
    }

    /// The rate of the group allows none yet.
    pub(super) fn rate() -> Why {
        Why("rate".to_owned())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `None` if there are lines to lease.
pub(super) fn why(status: &GroupStatus, seen: &Seen, now_ms: u64) -> Option<Why> {
    let left = |until_ms: u64| duration(until_ms.saturating_sub(now_ms));
    let held = seen.held.iter().max_by_key(|held| held.until_ms);
    let text = match &status.phase {
        Phase::Paused => "paused".to_owned(),
        Phase::Blocked(Blocked::AckWindow) => {
            let above = seen.held.first().map_or(status.ack_floor.next(), |held| held.range.first);
            format!("blocked ack-window {}-{above}", status.ack_floor)
        }
        Phase::Blocked(Blocked::DeadLettersFull) => "blocked dead-letters".to_owned(),
        Phase::Blocked(Blocked::Damage(_) | Blocked::DiskError(_)) => "blocked damage".to_owned(),
        Phase::Blocked(Blocked::HeldBy(seq)) => format!("blocked line {seq}"),
        Phase::Refused { until_ms, .. } => format!("refused {}", left(*until_ms)),
        Phase::Retrying { until_ms, .. } if *until_ms > now_ms => format!("backoff {}", left(*until_ms)),
        Phase::Idle => "empty".to_owned(),
        Phase::Running | Phase::Retrying { .. } => {
            let is_out = status.lag_lines <= status.leased || status.waits == Some(Waits::ForLeases);
            match (status.waits, held.filter(|_| is_out)) {
                (Some(Waits::Until(until_ms)), _) => format!("backoff {}", left(until_ms)),
                (_, Some(held)) => format!("held-by {} {}", held.consumer, left(held.until_ms)),
                (_, None) => return None,
            }
        }
    };
    Some(Why(text))
}
