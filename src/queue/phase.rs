//! What a group is doing, and why ingestion pauses, as values. The `Display` of these types is for log messages and
//! summaries only: no code decides by it.

use std::fmt;
use std::time::Duration;

use humantime::format_duration;
use spillq_storage::{Full, Seq, SeqRange};

use crate::plain::{counted, number, size};

/// What a group is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing waits, and nothing is leased.
    #[default]
    Idle,
    /// Lines wait or are leased.
    Running,
    /// Lines failed and wait for their back-off.
    Retrying {
        /// The first of these lines.
        range: SeqRange,
        /// When they are delivered again, by the clock for deadlines.
        until_ms: u64,
    },
    /// The destination refuses everything.
    Refused {
        /// When it is retried, by the clock for deadlines.
        until_ms: u64,
        /// Every line is rejected; `None` if the destination is misconfigured.
        rejected: Option<EveryLineRejected>,
    },
    /// It cannot continue by itself.
    Blocked(Blocked),
    /// An operator paused it.
    Paused,
}

/// A rejected line that is not dead-lettered, because as many lines before it as `retry.rejects` were rejected too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EveryLineRejected {
    /// The line, which is retried.
    pub seq: Seq,
    /// Rejected dead letters directly below it.
    pub dead: u32,
}

/// Why a group cannot continue by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// Its next lines are damaged: which lines, and what was found.
    Damage(String),
    /// The disk refuses to read its next lines: which lines, and what the disk reported. It may read them later.
    DiskError(String),
    /// It has reached the limit of ack ranges above the floor.
    AckWindow,
    /// It has reached the limit of dead letters, and another line is to become one.
    DeadLettersFull,
    /// In strict order, a line that fails alone without blame, or during whose delivery the process died too often.
    HeldBy(Seq),
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocked::Damage(what) => write!(f, "damage: {what}"),
            Blocked::DiskError(what) => write!(f, "disk error: {what}"),
            Blocked::AckWindow => f.write_str("ack window"),
            Blocked::DeadLettersFull => f.write_str("dead letters full"),
            Blocked::HeldBy(seq) => write!(f, "held by line {seq}"),
        }
    }
}

/// Why ingestion pauses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyFull {
    /// The disk has no space for more lines.
    Disk(Full),
    /// A group with `policy = "block"` has reached its `max_lag`.
    MaxLag {
        /// The group.
        group: String,
        /// Which bound, and by how much.
        reached: LagReached,
    },
}

/// A bound of a group's lag that is reached, and the lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagReached {
    /// `max_lag.lines`.
    Lines {
        /// The bound.
        bound: u64,
        /// Lines that wait.
        found: u64,
    },
    /// `max_lag.bytes`.
    Bytes {
        /// The bound.
        bound: u64,
        /// Bytes that wait, estimated.
        found: u64,
    },
    /// `max_lag.age`.
    Age {
        /// The bound.
        bound_ms: u64,
        /// The age of the oldest line that waits.
        found_ms: u64,
    },
}

/// Why there is no space, with the settings that set the bound.
#[must_use]
pub fn no_space(full: &Full) -> String {
    match full {
        Full::Limit { used, limit } => {
            format!("the store uses {} and may use {} (disk.limit)", size(*used), size(*limit))
        }
        Full::MinFree { free, min_free } => format!(
            "{} free on the file system, and {} must stay free (disk.min_free, and what disk.reserve lacks)",
            size(*free),
            size(*min_free)
        ),
        Full::NoSpace => "the file system has no space left".to_owned(),
    }
}

impl fmt::Display for WhyFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyFull::Disk(full) => f.write_str(&no_space(full)),
            WhyFull::MaxLag { group, reached } => write!(f, "group {group} is at its max_lag of {reached}"),
        }
    }
}

impl fmt::Display for LagReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LagReached::Lines { bound, found } => {
                write!(f, "{} ({} waiting)", counted(*bound, "line"), number(*found))
            }
            LagReached::Bytes { bound, found } => write!(f, "{} ({} waiting)", size(*bound), size(*found)),
            LagReached::Age { bound_ms, found_ms } => {
                let found = Duration::from_secs(found_ms / 1_000);
                let bound = format_duration(Duration::from_millis(*bound_ms));
                write!(f, "{bound}, the oldest line has waited for {}", format_duration(found))
            }
        }
    }
}
