//! The memory budget: the use of each part that docs/explanation/design.md bounds, and its bound.

use spillq_storage::Log;
use spillq_storage::state::AckSet;

use super::series::{Facts, Labels};
use crate::tail::{BUFFERED_BYTES_MAX, SOURCES_MAX};

/// The unit of a part.
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
    /// The value of its label.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// How much is held now.
    pub held: fn(&Facts<'_>) -> u64,
    /// The bound.
    pub bound: fn(&Facts<'_>) -> u64,
}

/// Followed files, and 40,000 others of which lines are stored.
const KNOWN_SOURCES_MAX: u64 = SOURCES_MAX as u64 + 40_000;
/// For the number of segments of a log at `disk.limit`: a new one begins when the last has 16 MiB, or has no space for the next
/// block, which takes 256 KiB or one line.
const SEGMENT_BYTES_MIN: u64 = 8 << 20;
/// Recorded losses.
const LOSSES_MAX: u64 = 1_024;
/// The text of a group's last failure: 4 KiB of output, and a summary with the error of the system.
const EVIDENCE_BYTES_MAX: u64 = 8 << 10;

/// The parts that are counted. The others in docs/explanation/design.md show only in the peak of the whole process.
#[rustfmt::skip]
pub const PARTS: &[Part] = &[
    Part { name: "journal", unit: Unit::Bytes,
        held: |f| f.status.usage.journal_bytes, bound: |f| f.status.usage.journal_bytes_max },
    Part { name: "commit", unit: Unit::Bytes,
        held: |f| f.status.usage.largest_commit_bytes, bound: |f| f.status.usage.largest_commit_bytes_max },
    Part { name: "commands", unit: Unit::Entries,
        // Senders that wait for a place in the channel are counted too.
        held: |f| f.status.usage.commands.min(f.status.usage.commands_max), bound: |f| f.status.usage.commands_max },
    Part { name: "window", unit: Unit::Bytes,
        held: |f| f.status.window_bytes, bound: |f| f.status.usage.window_bytes_max },
    Part { name: "tail", unit: Unit::Bytes,
        held: |f| f.tail.map_or(0, |tail| tail.buffered_bytes), bound: |_| BUFFERED_BYTES_MAX },
    Part { name: "leased", unit: Unit::Bytes,
        held: |f| f.status.usage.lent_bytes, bound: |f| f.status.usage.lent_bytes_max },
    Part { name: "bodies", unit: Unit::Bytes,
        held: |f| f.bodies_bytes.0, bound: |f| f.bodies_bytes.1 },
    Part { name: "sources", unit: Unit::Entries,
        held: |f| f.tail.map_or(0, |tail| tail.sources.len() as u64), bound: |_| SOURCES_MAX as u64 },
    Part { name: "known_sources", unit: Unit::Entries,
        held: |f| f.status.sources.len() as u64, bound: |_| KNOWN_SOURCES_MAX },
    Part { name: "segments", unit: Unit::Entries,
        held: |f| f.status.segments, bound: |f| f.limit_bytes / SEGMENT_BYTES_MIN + 1 },
    Part { name: "acks", unit: Unit::Entries,
        held: |f| f.status.usage.ack_ranges, bound: |_| AckSet::RANGES_MAX as u64 },
    Part { name: "dead_letters", unit: Unit::Entries,
        held: |f| f.status.groups.iter().map(|group| group.dead_letters).max().unwrap_or(0),
        bound: |_| Log::DEAD_LETTERS_MAX as u64 },
    Part { name: "retained", unit: Unit::Bytes,
        held: |f| f.status.usage.kept_bytes, bound: |_| Log::RETAINED_BYTES_MAX },
    Part { name: "losses", unit: Unit::Entries,
        held: |f| f.status.losses.len() as u64, bound: |_| LOSSES_MAX },
    Part { name: "evidence", unit: Unit::Bytes,
        held: |f| f.status.groups.iter().filter_map(|group| Some(group.last_failure.as_ref()?.len() as u64)).max().unwrap_or(0),
        bound: |_| EVIDENCE_BYTES_MAX },
];

/// The series of the parts with this unit.
pub(super) fn parts(unit: Unit, figure: impl Fn(&Part) -> u64) -> Vec<(Labels, f64)> {
    let parts = PARTS.iter().filter(|part| part.unit == unit);
    parts.map(|part| (vec![("part", part.name.to_owned())], figure(part) as f64)).collect()
}
