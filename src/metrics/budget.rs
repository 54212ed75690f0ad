//! The memory budget: what is held of each part that docs/explanation/design.md bounds, and its bound.

use spillq_storage::{ACK_RANGES_MAX, DEAD_LETTERS_MAX, RETAINED_BYTES_MAX};

use super::facts::Facts;
use super::text::Labels;
use crate::tail::{BUFFERED_BYTES_MAX, SOURCES_MAX};

/// What a part is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Entries of a list.
    Entries,
}

/// A part of the budget.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its label.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: Unit,
    /// How much is held.
    pub held: fn(&Facts<'_>) -> u64,
    /// How much may be.
    pub bound: fn(&Facts<'_>) -> u64,
}

/// Followed files, and 40,000 whose names are kept for the lines that are stored.
const KNOWN_SOURCES_MAX: u64 = SOURCES_MAX as u64 + 40_000;
/// Segments that a log of `disk.limit` has: each is begun when the one before it has 16 MiB, or has none left for the
/// next block, which takes 256 KiB or a line.
const SEGMENT_BYTES_MIN: u64 = 8 << 20;
/// Losses, one of which may be about to be told together with another.
const LOSSES_MAX: u64 = 1_024;
/// What a group keeps of its last failure: 4 KiB of output, and a sentence with what the system said.
const EVIDENCE_BYTES_MAX: u64 = 8 << 10;

/// The parts that are counted. What else docs/explanation/design.md lists is seen in the peak of the whole process alone.
#[rustfmt::skip]
pub const PARTS: &[Part] = &[
    Part { name: "journal", unit: Unit::Bytes,
        held: |f| f.status.usage.journal_bytes, bound: |f| f.status.usage.journal_bytes_max },
    Part { name: "commit", unit: Unit::Bytes,
        held: |f| f.status.usage.largest_commit_bytes, bound: |f| f.status.usage.largest_commit_bytes_max },
    Part { name: "commands", unit: Unit::Entries,
        // Askers that wait for room in the queue are counted too: each waits for one.
        held: |f| f.status.usage.commands.min(f.status.usage.commands_max), bound: |f| f.status.usage.commands_max },
    Part { name: "window", unit: Unit::Bytes,
        held: |f| f.status.window_bytes, bound: |f| f.status.usage.window_bytes_max },
    Part { name: "tail", unit: Unit::Bytes,
        held: |f| f.tail.map_or(0, |tail| tail.buffered_bytes), bound: |_| BUFFERED_BYTES_MAX },
    Part { name: "leased", unit: Unit::Bytes,
        held: |f| f.status.usage.lent_bytes, bound: |f| f.status.usage.lent_bytes_max },
    Part { name: "sources", unit: Unit::Entries,
        held: |f| f.tail.map_or(0, |tail| tail.sources.len() as u64), bound: |_| SOURCES_MAX as u64 },
    Part { name: "known_sources", unit: Unit::Entries,
        held: |f| f.status.sources.len() as u64, bound: |_| KNOWN_SOURCES_MAX },
    Part { name: "segments", unit: Unit::Entries,
        held: |f| f.status.segments, bound: |f| f.limit_bytes / SEGMENT_BYTES_MIN + 1 },
    Part { name: "acks", unit: Unit::Entries,
        held: |f| f.status.usage.ack_ranges, bound: |_| ACK_RANGES_MAX as u64 },
    Part { name: "dead_letters", unit: Unit::Entries,
        held: |f| f.status.groups.iter().map(|group| group.dead_letters).max().unwrap_or(0),
        bound: |_| DEAD_LETTERS_MAX as u64 },
    Part { name: "kept", unit: Unit::Bytes,
        held: |f| f.status.usage.kept_bytes, bound: |_| RETAINED_BYTES_MAX },
    Part { name: "losses", unit: Unit::Entries,
        held: |f| f.status.losses.len() as u64, bound: |_| LOSSES_MAX },
    Part { name: "evidence", unit: Unit::Bytes,
        held: |f| f.status.groups.iter().filter_map(|group| Some(group.last_failure.as_ref()?.len() as u64)).max().unwrap_or(0),
        bound: |_| EVIDENCE_BYTES_MAX },
];

fn of(unit: Unit, figure: impl Fn(&Part) -> u64) -> Vec<(Labels, f64)> {
    let parts = PARTS.iter().filter(|part| part.unit == unit);
    parts.map(|part| (vec![("part", part.name.to_owned())], figure(part) as f64)).collect()
}

pub(super) fn held(facts: &Facts<'_>, unit: Unit) -> Vec<(Labels, f64)> {
    of(unit, |part| (part.held)(facts))
}

pub(super) fn bound(facts: &Facts<'_>, unit: Unit) -> Vec<(Labels, f64)> {
    of(unit, |part| (part.bound)(facts))
}
