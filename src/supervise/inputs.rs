//! What verdicts are made from: counters and times. Times are milliseconds by the clock of deadlines.

use std::fmt;
use std::path::PathBuf;

use spillq_storage::{Seq, SeqRange};

use super::processor::ProcessorName;
use super::typed::Typed;
use crate::queue::{DestinationLost, Failing, HeldLine, Phase, WhyFull};
pub use crate::unreadable::WhyUnreadable;

/// One group, with the times of its last changes.
#[derive(Clone, Debug, Default)]
pub struct GroupInputs {
    /// Its name.
    pub group: String,
    /// What it is doing, as the owner sees it.
    pub phase: Phase,
    /// The processor that the configuration names.
    pub processor: Option<ProcessorName>,
    /// A worker waits for lines, or has some.
    pub has_worker: bool,
    /// Lines that wait.
    pub lag_lines: u64,
    /// The first of them.
    pub oldest: Option<Seq>,
    /// Everything up to here is acked or dead.
    pub ack_floor: Seq,
    /// The lines that are out.
    pub leases: Vec<SeqRange>,
    /// Since when the oldest of them is.
    pub oldest_lease_ms: Option<u64>,
    /// How long one may be.
    pub timeout_ms: u64,
    /// What waits in back-off, and until when: the lines that come first.
    pub backs_off: Option<(SeqRange, u64)>,
    /// Whether the first line that waits does so in back-off.
    pub oldest_waits: bool,
    /// Failures since the last ack.
    pub failing: Option<Failing>,
    /// The last failure: summary, and the end of standard error.
    pub last_failure: Option<String>,
    /// The line that holds it.
    pub held: Option<HeldLine>,
    /// `retry.attempts`: only after so many failures it is suggested to park a line.
    pub attempts_max: u32,
    /// Dead letters that are held.
    pub dead_letters: u64,
    /// Why the program of its command cannot be run, as far as its file shows.
    pub program_missing: Option<String>,
    /// The command that runs drains other groups only.
    pub is_left_out: bool,
    /// What its destination has lost of what it had taken.
    pub lost: Option<DestinationLost>,
    /// Batches acked in this run.
    pub acks: u64,
    /// Since when lines wait and nothing was leased.
    pub not_leased_since_ms: Option<u64>,
    /// When the ack floor moved last, and how many batches were acked since.
    pub floor_moved_ms: u64,
    /// Batches acked since.
    pub acks_since_floor: u64,
    /// A segment that this group has acked and that is still there: its last line, since when, and who holds it.
    pub pinned: Option<Pinned>,
    /// A segment that others have acked and that is still there for this group.
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
    /// By how many lines it has grown since then.
    pub grown_lines: u64,
    /// Lines that came in since then.
    pub lines_in: u64,
    /// Since when the oldest line has waited at least; `None` if it was not there when the last window ended.
    pub oldest_since_ms: Option<u64>,
    /// Lines a second in.
    pub lines_in_per_s: f64,
    /// Lines a second acked.
    pub lines_out_per_s: f64,
    /// Seconds until there is no more room for the log at this rate; `None` while it does not grow.
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
    /// The owner does not append any now.
    Now(WhyFull),
    /// No service runs, and the log has reached `disk.limit`: the next one would not append any.
    AtLimit,
    /// No service runs, and the file system has less than `disk.min_free` free: the next one would not append any.
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

/// The log and what surrounds it.
#[derive(Clone, Debug, Default)]
pub struct LogInputs {
    /// Why lines are not taken in, if so.
    pub full: Option<Pauses>,
    /// Bytes of the log on disk.
    pub disk_bytes: u64,
    /// `disk.limit`.
    pub limit_bytes: u64,
    /// What the file system has free.
    pub free_bytes: Option<u64>,
    /// `disk.min_free`.
    pub min_free_bytes: u64,
    /// Bytes that the file system has in all.
    pub file_system_bytes: Option<u64>,
    /// Files that were renamed away or deleted and have unread bytes.
    pub at_risk: Vec<AtRisk>,
    /// For how long the tail has been at one turn: a read that hangs.
    pub tail_busy_ms: Option<u64>,
    /// Files that cannot be read, why in words, and what kind of reason that is: some of them.
    pub unreadable: Vec<(PathBuf, String, WhyUnreadable)>,
    /// How many cannot be read.
    pub unreadable_files: u64,
    /// Files that match and are not followed.
    pub left_out: LeftOut,
    /// Runs in a row that ended without a clean stop.
    pub unclean_runs: u64,
    /// A configuration on disk that was refused, so that an earlier one runs on.
    pub config_refused: Option<ConfigRefused>,
    /// Lines that were in flight alone when the process died, more than once: group, line, deaths.
    pub killers: Vec<(String, Seq, u32)>,
    /// The data dir, if its file system is mounted read-only.
    pub read_only: Option<String>,
    /// The group with the largest lag: its name, lines and bytes.
    pub lags_most: Option<(String, u64, u64)>,
    /// Files are to be followed, and none was found.
    pub follows_nothing: bool,
    /// Groups that a line blocks.
    pub held: Vec<(String, HeldLine)>,
}

/// Files that match a glob and are not followed, since no more are followed at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many.
    pub files: u64,
    /// Some of them.
    pub named: Vec<PathBuf>,
    /// How many are followed at most.
    pub limit: u64,
}

/// A configuration that does not run.
#[derive(Clone, Debug, Default)]
pub struct ConfigRefused {
    /// Its file.
    pub file: String,
    /// All that is wrong with it.
    pub problems: Vec<String>,
}

/// A file with unread bytes that has left its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtRisk {
    /// Where it is, or was last seen.
    pub path: PathBuf,
    /// Its unread bytes.
    pub bytes: u64,
    /// Whether the service has it open: then it can be read to its end even when it is deleted.
    pub held_open: bool,
}

/// What `[disk]` says.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskSettings {
    /// `limit`.
    pub limit_bytes: u64,
    /// `min_free`.
    pub min_free_bytes: u64,
    /// Whether `keep` holds what is acked.
    pub keeps: bool,
}

/// What counts as too long, and which store it is about.
#[derive(Clone, Debug, Default)]
pub struct JudgeSettings {
    /// `stall_after`.
    pub stall_after_ms: u64,
    /// Commands that are told as the next step.
    pub typed: Typed,
}
