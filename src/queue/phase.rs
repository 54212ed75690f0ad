//! What a group is doing, and why no lines are appended, as values. Words for people are made where they are shown; the
//! `Display` of these types is for log messages and summaries, and nothing decides by it.

use std::fmt;
use std::time::Duration;

use humantime::format_duration;
use indicatif::HumanCount;
use spillq_storage::{Full, Seq, SeqRange};

use crate::plain::{counted, size};

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
        /// The lines that come first.
        range: SeqRange,
        /// When they are delivered again, by the clock of deadlines.
        until_ms: u64,
    },
    /// The destination refuses everything.
    Refused {
        /// When it is tried again, by the clock of deadlines.
        until_ms: u64,
        /// As many lines in a row as may be were rejected; `None` if the destination is set up wrongly.
        rejected: Option<EveryLineRejected>,
    },
    /// It cannot continue by itself.
    Blocked(Blocked),
    /// An operator paused it.
    Paused,
}

/// A line that is not dead-lettered although it is rejected: the lines before it were all rejected, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EveryLineRejected {
    /// The line, which is tried again.
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
    /// It has as many ranges of acks above the floor as it may.
    AckWindow,
    /// It holds as many dead letters as it may, and another line is to become one.
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

/// Why no lines are appended now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyFull {
    /// The disk has no space for more.
    Disk(Full),
    /// A group with `policy = "block"` has reached its `max_lag`.
    MaxLag {
        /// The group.
        group: String,
        /// Which bound, and by how much.
        reached: LagReached,
    },
}

/// A bound of a group's lag that is reached, and the lag that was found.
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

/// Why there is no space, with the settings that bound it.
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
                write!(f, "{} ({} waiting)", counted(*bound, "line"), HumanCount(*found))
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
