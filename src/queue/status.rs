//! The status of the log and its groups, as the owner reports it. Plain data: the text is made where it is shown.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use spillq_storage::repair::Quarantined;
use spillq_storage::{Counters, GroupId, Loss, Seq, SeqRange, SourceId};

use super::failure::FailureKind;
use super::phase::{Phase, WhyFull};

/// The status of the log and all groups.
#[derive(Clone, Debug)]
pub struct Status {
    /// The oldest seq that a segment holds.
    pub first_seq: Seq,
    /// The seq of the next line.
    pub next_seq: Seq,
    /// The last line of the oldest segment file, if there is another segment: the oldest goes once all groups have acked
    /// its lines.
    pub oldest_segment_last: Option<Seq>,
    /// A backup is running: no segment is removed meanwhile.
    pub is_copied: bool,
    /// Segment files.
    pub segments: u64,
    /// Bytes on disk, including journals and the reserve.
    pub disk_bytes: u64,
    /// Raw bytes appended since the store was created.
    pub appended_bytes: u64,
    /// Why ingestion pauses, if it does.
    pub full: Option<WhyFull>,
    /// Bytes of lines in memory.
    pub window_bytes: u64,
    /// The duration of all commits of this run together, including syncs.
    pub commit_time: Duration,
    /// How much of each bounded resource is used.
    pub usage: Usage,
    /// How often the store was opened.
    pub run: u64,
    /// Counters since the store was opened.
    pub counters: Counters,
    /// What was found to be wrong when the store was opened.
    pub findings: Vec<String>,
    /// What repairs have quarantined.
    pub quarantined: Quarantined,
    /// Lines that are lost.
    pub losses: Vec<Loss>,
    /// The sources with their checkpoints.
    pub sources: Vec<(SourceId, Bytes)>,
    /// The groups.
    pub groups: Vec<GroupStatus>,
    /// What operators have discarded in this run of the process; only the newest.
    pub discarded: Vec<Discarded>,
}

/// Lines that an operator discarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discarded {
    /// From 1, in this run of the process.
    pub number: u64,
    /// The group.
    pub group: String,
    /// How many.
    pub lines: u64,
    /// The operation.
    pub by: DiscardedBy,
}

/// The operation by which an operator discarded lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscardedBy {
    /// The group was removed.
    RemoveGroup,
    /// A seek forwards skipped lines that waited.
    Seek,
    /// Dead letters were discarded.
    DeadLetters,
}

impl fmt::Display for DiscardedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiscardedBy::RemoveGroup => "group remove",
            DiscardedBy::Seek => "group seek",
            DiscardedBy::DeadLetters => "dead-letter discard",
        })
    }
}

/// How much of each bounded resource is used, and the bounds that are not public constants. The rows are in
/// docs/design.md, Memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Stored bytes of the journal.
    pub journal_bytes: u64,
    /// The bound.
    pub journal_bytes_max: u64,
    /// Bytes of dead letters and relocated lines, on disk.
    pub kept_bytes: u64,
    /// Commands that the owner has not received.
    pub commands: u64,
    /// The bound.
    pub commands_max: u64,
    /// Stored bytes of the largest commit of this run.
    pub largest_commit_bytes: u64,
    /// The bound.
    pub largest_commit_bytes_max: u64,
    /// The bound of `window_bytes`.
    pub window_bytes_max: u64,
    /// Bytes of lines that workers hold: leased, or read ahead.
    pub lent_bytes: u64,
    /// The bound: the batches in flight and read ahead of all groups, and one long line.
    pub lent_bytes_max: u64,
    /// Ack ranges above the floor of the group that has the most.
    pub ack_ranges: u64,
}

/// One group.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// Its number in the store.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// What the group is doing.
    pub phase: Phase,
    /// All lines up to here are settled.
    pub ack_floor: Seq,
    /// Lines that wait or are in flight.
    pub lag_lines: u64,
    /// A group over some sources: its own lines are still being counted, and `lag_lines` has those of other sources too.
    pub is_counting: bool,
    /// The first of them.
    pub oldest: Option<Seq>,
    /// Their bytes, estimated from the average of their segments.
    pub lag_bytes: u64,
    /// Lines in flight.
    pub leased: u64,
    /// The leases.
    pub leases: Vec<SeqRange>,
    /// Their tokens, in rising order.
    pub lease_tokens: Vec<u64>,
    /// No lease has this token or a higher one yet.
    pub next_token: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Lines acked since the group was created.
    pub acked_lines: u64,
    /// What the group did in this run of the process.
    pub activity: Activity,
    /// When its oldest lease began.
    pub oldest_lease_ms: Option<u64>,
    /// Batches in flight at most.
    pub in_flight_max: usize,
    /// Its timeout.
    pub timeout_ms: u64,
    /// Whether a worker waits for lines, or has leased some.
    pub has_worker: bool,
    /// The first lines that wait in back-off, and until when.
    pub backs_off: Option<(SeqRange, u64)>,
    /// Whether the oldest line waits in back-off too. The back-off of other lines may end before.
    pub oldest_waits: bool,
    /// Lines that seeks have skipped.
    pub skipped_lines: u64,
    /// Lines that limits have dropped for it.
    pub dropped_lines: u64,
    /// The text of the last failure.
    pub last_failure: Option<String>,
    /// The line that holds the group, in strict order.
    pub held: Option<HeldLine>,
    /// Why none of the lines that wait can be leased at this moment, although the group is not stopped.
    pub waits: Option<Waits>,
    /// `retry.attempts`.
    pub attempts_max: u32,
    /// Whether the remaining lines need an operator, or have failed alone as often as a run that ends by itself tries.
    pub is_exhausted: bool,
}

/// What lines wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// For the end of the leases that are out.
    ForLeases,
    /// For this time.
    Until(u64),
}

/// A line that holds a strict group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLine {
    /// The line.
    pub seq: Seq,
    /// How often it failed alone, over all runs.
    pub failures: u32,
    /// For how long it had been failing at its last failure.
    pub for_ms: u64,
    /// How often the process died while only this line was in flight.
    pub deaths: u32,
    /// It is no longer delivered, because of these deaths.
    pub is_given_up: bool,
}

/// What a group did in this run of the process. Times are by the clock for deadlines.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// Batches leased.
    pub leases: u64,
    /// Batches acked.
    pub acks: u64,
    /// Batches that failed.
    pub failures: u64,
    /// The failures since the last ack.
    pub failing: Option<Failing>,
    /// What its destination has lost since the last seek of the group.
    pub lost: Option<DestinationLost>,
}

/// Lines that a destination had stored and has lost, as far as it keeps a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationLost {
    /// The first of them.
    pub first: Seq,
    /// The last of them.
    pub last: Seq,
    /// Their number.
    pub lines: u64,
}

/// Consecutive failures without an ack between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// When the first happened.
    pub since_ms: u64,
    /// Their number.
    pub times: u64,
    /// The lines of the last failure.
    pub range: SeqRange,
    /// What it said of its lines.
    pub kind: FailureKind,
    /// Whether it exceeded the timeout.
    pub timed_out: bool,
}

impl Activity {
    pub(super) fn failed(&mut self, range: SeqRange, (kind, timed_out): (FailureKind, bool), now_ms: u64) {
        self.failures += 1;
        let (since_ms, times) = self.failing.as_ref().map_or((now_ms, 0), |f| (f.since_ms, f.times));
        self.failing = Some(Failing { since_ms, times: times + 1, range, kind, timed_out });
    }

    pub(super) fn lost(&mut self, ranges: &[SeqRange]) {
        for range in ranges {
            let before =
                self.lost.unwrap_or(DestinationLost { first: range.first, last: range.last, lines: 0 });
            self.lost = Some(DestinationLost {
                first: before.first.min(range.first),
                last: before.last.max(range.last),
                lines: before.lines + range.lines(),
            });
        }
    }

    pub(super) fn acked(&mut self) {
        self.acks += 1;
        self.failing = None;
    }
}
