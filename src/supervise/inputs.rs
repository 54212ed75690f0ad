//! The inputs of verdicts: counters and times. Times are milliseconds by the clock for deadlines.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use spillq_storage::{Seq, SeqRange};

use super::commands::Commands;
use super::processor::ProcessorName;
use crate::consumers::Seen;
use crate::queue::{DestinationLost, Failing, HeldLine, Phase, WhyFull};
pub use crate::unreadable::WhyUnreadable;

/// The inputs about a group, with the times of its last changes.
#[derive(Clone, Debug, Default)]
pub struct GroupInputs {
    /// Its name.
    pub group: String,
    /// What it is doing, as the owner reports it.
    pub phase: Phase,
    /// The processor that the configuration names.
    pub processor: Option<ProcessorName>,
    /// Whether a worker waits for lines, or has leased some.
    pub has_worker: bool,
    /// Lines that wait.
    pub lag_lines: u64,
    /// The first of them.
    pub oldest: Option<Seq>,
    /// All lines up to here are settled.
    pub ack_floor: Seq,
    /// The lines in flight.
    pub leases: Vec<SeqRange>,
    /// When the oldest lease began.
    pub oldest_lease_ms: Option<u64>,
    /// The timeout of a batch.
    pub timeout_ms: u64,
    /// The first lines that wait in back-off, and until when.
    pub backs_off: Option<(SeqRange, u64)>,
    /// Whether the oldest line waits in back-off.
    pub oldest_waits: bool,
    /// The failures since the last ack.
    pub failing: Option<Failing>,
    /// The last failure: summary, and the end of standard error.
    pub last_failure: Option<String>,
    /// The line that holds it.
    pub held: Option<HeldLine>,
    /// `retry.attempts`: after this many failures the verdict suggests to park the line.
    pub attempts_max: u32,
    /// Dead letters.
    pub dead_letters: u64,
    /// Why the program of its command cannot be run, as far as its file shows.
    pub program_missing: Option<String>,
    /// Its consumers, if they lease its lines by themselves.
    pub consumers: Option<Seen>,
    /// The service is a drain of other groups.
    pub is_left_out: bool,
    /// What its destination has lost.
    pub lost: Option<DestinationLost>,
    /// Batches acked in this run.
    pub acks: u64,
    /// Since when lines wait and nothing was leased.
    pub not_leased_since_ms: Option<u64>,
    /// When the ack floor last rose.
    pub floor_moved_ms: u64,
    /// Batches acked since.
    pub acks_since_floor: u64,
    /// A segment that this group has acked, and that is still on disk.
    pub pinned: Option<Pinned>,
    /// A segment that others have acked, and that this group keeps on disk.
    pub pins: Option<Pins>,
    /// How the lag grows, if it does.
    pub behind: Option<Behind>,
}

/// A segment that one group keeps on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    /// Its lines.
    pub segment: SeqRange,
    /// Since when.
    pub since_ms: u64,
    /// The groups that have acked all of it.
    pub groups: Vec<String>,
}

/// A lag that grows.
#[derive(Clone, Debug, PartialEq)]
pub struct Behind {
    /// Since when.
    pub since_ms: u64,
    /// The growth since then, in lines.
    pub grown_lines: u64,
    /// Lines that arrived since then.
    pub lines_in: u64,
    /// The oldest line has waited at least since then; `None` if it arrived after the last window.
    pub oldest_since_ms: Option<u64>,
    /// Lines that arrive in a second.
    pub lines_in_per_s: f64,
    /// Lines acked in a second.
    pub lines_out_per_s: f64,
    /// Seconds until the log is full at this rate; `None` while it does not grow.
    pub full_in_s: Option<f64>,
}

/// A segment that is acked and not removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Its lines.
    pub segment: SeqRange,
    /// Since when this group has acked all of them.
    pub since_ms: u64,
    /// The groups that have not.
    pub held_by: Vec<String>,
}

/// Why no lines are appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pauses {
    /// The owner pauses ingestion now.
    Now(WhyFull),
    /// No service runs, and the log has reached `disk.limit`: the next start would pause ingestion.
    AtLimit,
    /// No service runs, and the file system has less than `disk.min_free` free: the next start would pause ingestion.
    BelowMinFree,
}

impl fmt::Display for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pauses::Now(why) => why.fmt(f),
            Pauses::AtLimit => f.write_str("the log has reached disk.limit"),
            Pauses::BelowMinFree => f.write_str("the file system has less than disk.min_free left"),
        }
    }
}

/// What the owner does not know, collected by the service, which knows all parts.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// Free bytes of the data dir's file system.
    pub free_bytes: Option<u64>,
    /// Its size.
    pub file_system_bytes: Option<u64>,
    /// Files that were renamed or deleted and have unread bytes.
    pub at_risk: Vec<AtRisk>,
    /// It is mounted read-only.
    pub is_read_only: bool,
    /// Files are to be followed, and none was found.
    pub follows_nothing: bool,
    /// Why the commands of groups cannot be run. Empty for the watchdog's thread, which must not wait for the file systems
    /// of programs.
    pub programs_missing: BTreeMap<String, String>,
    /// Bytes of followed files that are not in the log, as far as known.
    pub unread_bytes: u64,
    /// For how long the tail has been busy with one turn, if it is.
    pub tail_busy_ms: Option<u64>,
    /// Some of the files that cannot be read: path, reason as text, kind of reason.
    pub unreadable: Vec<(PathBuf, String, WhyUnreadable)>,
    /// Their number.
    pub unreadable_files: u64,
    /// Files that match and are not followed.
    pub left_out: LeftOut,
}

/// The inputs about the log and its surroundings.
#[derive(Clone, Debug, Default)]
pub struct LogInputs {
    /// Its surroundings.
    pub outside: Outside,
    /// Settings of `[disk]`.
    pub disk: DiskSettings,
    /// Why ingestion pauses, if so.
    pub full: Option<Pauses>,
    /// Bytes of the log on disk.
    pub disk_bytes: u64,
    /// Runs in a row that ended without a clean stop.
    pub unclean_runs: u64,
    /// A configuration on disk that was refused, so that an earlier one is still in effect.
    pub config_refused: Option<ConfigRefused>,
    /// Lines that were the only one in flight when the process died, more than once: group, line, deaths.
    pub killers: Vec<(String, Seq, u32)>,
    /// The data dir, if its file system is mounted read-only.
    pub read_only: Option<String>,
    /// The group with the largest lag: its name, lines and bytes.
    pub lags_most: Option<(String, u64, u64)>,
    /// Groups that a line blocks.
    pub held: Vec<(String, HeldLine)>,
}

/// Files that match a glob and are not followed, because the limit of followed files is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Their number.
    pub files: u64,
    /// Some of them.
    pub named: Vec<PathBuf>,
    /// The limit of followed files.
    pub limit: u64,
}

/// A configuration that was refused.
#[derive(Clone, Debug, Default)]
pub struct ConfigRefused {
    /// Its file.
    pub file: String,
    /// Its problems.
    pub problems: Vec<String>,
}

/// A file with unread bytes that was renamed or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtRisk {
    /// Its path, or the last that is known.
    pub path: PathBuf,
    /// Its unread bytes.
    pub bytes: u64,
    /// Whether the service holds it open, and so can read it to the end even when it is deleted.
    pub held_open: bool,
}

/// Settings of `[disk]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskSettings {
    /// `limit`.
    pub limit_bytes: u64,
    /// `min_free`.
    pub min_free_bytes: u64,
    /// Whether `keep` retains acked lines.
    pub retains: bool,
}

/// The settings of verdicts.
#[derive(Clone, Debug, Default)]
pub struct JudgeSettings {
    /// `stall_after`.
    pub stall_after_ms: u64,
    /// The commands that are suggested as next steps.
    pub commands: Commands,
}
