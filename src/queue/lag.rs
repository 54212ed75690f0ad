//! The bounds of a group's lag, and what follows when it reaches one. Pure.

use spillq_storage::{GroupState, NewBlock, Seq, SeqRange, State};

use super::phase::LagReached;

/// Drops go below the bound by this fraction of it, so that not every commit of lines is followed by a drop.
pub(super) const SLACK: u64 = 32;

/// How far a group is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lag {
    /// Lines that wait or are in flight.
    pub lines: u64,
    /// Their bytes, estimated.
    pub bytes: u64,
    /// Lines of other sources are among them, as the group's own are still being counted.
    pub is_counting: bool,
}

/// The bounds of a group's lag. Without any its lag is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxLag {
    /// Lines that are not settled.
    pub lines: Option<u64>,
    /// The age of the oldest of them.
    pub age_ms: Option<u64>,
    /// Their bytes, as estimated by [`State::lag_bytes`].
    pub bytes: Option<u64>,
    /// What happens at a bound.
    pub policy: LagPolicy,
}

/// What happens when a group has reached its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LagPolicy {
    /// Ingestion pauses until the lag is below the bound.
    #[default]
    Block,
    /// The group's oldest lines are dropped.
    Drop,
}

/// What may still be appended until a group reaches a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) lines: u64,
    /// Raw bytes, as in [`State::lag_bytes`].
    pub(super) bytes: u64,
}

impl Room {
    pub(super) const UNBOUNDED: Room = Room { lines: u64::MAX, bytes: u64::MAX };

    pub(super) fn is_used_up(self) -> bool {
        self.lines == 0 || self.bytes == 0
    }

    pub(super) fn min(self, other: Room) -> Room {
        Room { lines: self.lines.min(other.lines), bytes: self.bytes.min(other.bytes) }
    }

    pub(super) fn take(&mut self, block: &NewBlock) {
        self.lines = self.lines.saturating_sub(block.lines().into());
        self.bytes = self.bytes.saturating_sub(block.raw_bytes() as u64);
    }
}

impl MaxLag {
    /// Whether there is any bound: without one nobody needs to know the lag, whose bytes are a sum over all segments.
    pub(super) fn is_bounded(&self) -> bool {
        self.lines.is_some() || self.age_ms.is_some() || self.bytes.is_some()
    }

    /// What may be appended until the group pauses ingestion by its lines or bytes; its age says nothing about that.
    pub(super) fn room(&self, lag: Lag) -> Room {
        if self.policy != LagPolicy::Block || lag.is_counting {
            return Room::UNBOUNDED;
        }
        Room {
            lines: self.lines.map_or(u64::MAX, |bound| bound.saturating_sub(lag.lines)),
            bytes: self.bytes.map_or(u64::MAX, |bound| bound.saturating_sub(lag.bytes)),
        }
    }

    /// The bound by which the group pauses ingestion, if it has reached one. `oldest_ms` is the append time of its oldest
    /// waiting line, if that is known.
    pub(super) fn blocks(&self, lag: Lag, oldest_ms: Option<u64>, now_ms: u64) -> Option<LagReached> {
        if self.policy != LagPolicy::Block || lag.is_counting {
            return None;
        }
        if let Some(bound) = self.lines.filter(|lines| lag.lines >= *lines) {
            return Some(LagReached::Lines { bound, found: lag.lines });
        }
        if let Some(bound) = self.bytes.filter(|bytes| lag.bytes >= *bytes) {
            return Some(LagReached::Bytes { bound, found: lag.bytes });
        }
        let found_ms = oldest_ms.map(|oldest| now_ms.saturating_sub(oldest)).filter(|_| lag.lines > 0)?;
        let bound_ms = self.age_ms.filter(|max| found_ms >= *max)?;
        Some(LagReached::Age { bound_ms, found_ms })
    }

    /// How many of its own lines a group over some sources has to drop for its bounds on lines and bytes; none while they are
    /// counted.
    pub(super) fn surplus_lines(&self, lag: Lag) -> u64 {
        if lag.is_counting {
            return 0;
        }
        let by_lines =
            self.lines.filter(|lines| lag.lines > *lines).map(|lines| lag.lines - lines + lines / SLACK);
        let by_bytes = self.bytes.filter(|bytes| lag.bytes > *bytes).map(|bytes| {
            let surplus = u128::from(lag.bytes - bytes + bytes / SLACK);
            (surplus * u128::from(lag.lines)).div_ceil(u128::from(lag.bytes)) as u64
        });
        by_lines.max(by_bytes).unwrap_or(0)
    }

    /// The waiting lines that the group has to drop, from the oldest on. `since` is the first line that is young enough,
    /// if the age is bounded.
    pub(super) fn surplus(&self, state: &State, group: &GroupState, since: Option<Seq>) -> Option<SeqRange> {
        if self.policy != LagPolicy::Drop {
            return None;
        }
        let all = SeqRange::new(Seq::FIRST, state.next_seq().prev())?;
        let oldest = group.revived().first().copied().into_iter();
        let oldest = oldest.chain(group.acks().gap(all.first, all.last).map(|gap| gap.first)).min()?;
        let lag_lines = group.lag_lines(state.next_seq());
        // Revived lines count as lag, but are not among the lines that were never acked.
        let by_lines = self.lines.and_then(|lines| {
            let surplus = lag_lines.checked_sub(lines).filter(|surplus| *surplus > 0)? + lines / SLACK;
            let last = group.acks().nth_outside(all, surplus - 1).unwrap_or(all.last);
            Some(last.next())
        });
        let by_bytes = self
            .bytes
            .filter(|bytes| state.lag_bytes(group) > *bytes)
            .map(|bytes| state.newest_within(bytes - bytes / SLACK));
        let keeps_from = [by_lines, by_bytes, since].into_iter().flatten().max()?;
        SeqRange::new(oldest, keeps_from.prev().min(all.last))
    }
}
