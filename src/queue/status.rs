//! What the owner tells of the log and its groups. Plain data; who shows it decides how.

use std::fmt;
use std::time::Duration;

use super::retry::FailureKind;
use bytes::Bytes;
use spillq_storage::{Counters, GroupId, Loss, Quarantined, Seq, SeqRange, SourceId};

use super::phase::{Phase, WhyFull};

/// A look at everything that the owner knows.
#[derive(Clone, Debug)]
pub struct Status {
    /// The oldest seq that a segment holds.
    pub first_seq: Seq,
    /// The seq of the next line.
    pub next_seq: Seq,
    /// The last line of the oldest segment file, where there is another behind it: what all have acked goes.
    pub oldest_segment_last: Option<Seq>,
    /// A backup is being made: no segment goes meanwhile.
    pub is_copied: bool,
    /// Segment files.
    pub segments: u64,
    /// Bytes on disk, journals and reserve included.
    pub disk_bytes: u64,
    /// Raw bytes appended since the store was created.
    pub appended_bytes: u64,
    /// Why lines are not taken in now.
    pub full: Option<WhyFull>,
    /// Bytes of lines in memory.
    pub window_bytes: u64,
    /// How long all commits of this run took together, syncs included.
    pub commit_time: Duration,
    /// How much is held of what is bounded.
    pub held: Held,
    /// How often the store was opened.
    pub run: u64,
    /// What has happened since it was opened.
    pub counters: Counters,
    /// What opening found that was not as it should be.
    pub findings: Vec<String>,
    /// What repairs have set aside.
    pub quarantined: Quarantined,
    /// Lines that are lost.
    pub losses: Vec<Loss>,
    /// The sources with their checkpoints.
    pub sources: Vec<(SourceId, Bytes)>,
    /// The groups.
    pub groups: Vec<GroupStatus>,
    /// What operators have discarded in this run of the process; the oldest are forgotten.
    pub discarded: Vec<Discarded>,
}

/// Lines that an operator discarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discarded {
    /// From 1, in this run of the process.
    pub number: u64,
    /// Whose lines.
    pub group: String,
    /// How many.
    pub lines: u64,
    /// By what.
    pub by: DiscardedBy,
}

/// What ends lines without an ack.
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

/// How much is held of what is bounded, and the bound where it is not a constant of everybody's: rows of
/// docs/explanation/design.md, Memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Stored bytes of the journal.
    pub journal_bytes: u64,
    /// Their bound.
    pub journal_bytes_max: u64,
    /// Bytes of dead letters and relocated lines, on disk.
    pub kept_bytes: u64,
    /// Commands that the owner has not taken up.
    pub commands: u64,
    /// Their bound.
    pub commands_max: u64,
    /// Stored bytes of the largest commit of this run.
    pub largest_commit_bytes: u64,
    /// Their bound.
    pub largest_commit_bytes_max: u64,
    /// The bound of `window_bytes`.
    pub window_bytes_max: u64,
    /// Bytes of lines that workers hold: leased, or read ahead.
    pub lent_bytes: u64,
    /// Their bound: the batches in flight and read ahead of all groups, and one long line.
    pub lent_bytes_max: u64,
    /// Ranges of acks above the floor, of the group that has most.
    pub ack_ranges: u64,
}

/// One group.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// Its number in the store.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub phase: Phase,
    /// Everything up to here is acked or dead.
    pub ack_floor: Seq,
    /// Lines of the log that it has not acked.
    pub lag_lines: u64,
    /// The first of them.
    pub oldest: Option<Seq>,
    /// Bytes of lag, estimated from what its segments hold on average.
    pub lag_bytes: u64,
    /// Lines out with processors.
    pub leased: u64,
    /// Which.
    pub leases: Vec<SeqRange>,
    /// Dead letters that are held.
    pub dead_letters: u64,
    /// Lines acked since the group was created.
    pub acked_lines: u64,
    /// What it did in this run of the process.
    pub activity: Activity,
    /// Since when its oldest lease is out.
    pub oldest_lease_ms: Option<u64>,
    /// Its time-out.
    pub timeout_ms: u64,
    /// Whether a worker waits for lines, or has some.
    pub has_worker: bool,
    /// What waits in back-off, and until when: the lines that come first.
    pub backs_off: Option<(SeqRange, u64)>,
    /// Whether the oldest line waits in back-off too; another may end before.
    pub oldest_waits: bool,
    /// Lines that seeks have passed over.
    pub skipped_lines: u64,
    /// Lines that limits have dropped for it.
    pub dropped_lines: u64,
    /// The last failure, for people.
    pub last_failure: Option<String>,
    /// The line that holds it, in strict order.
    pub held: Option<HeldLine>,
    /// `retry.attempts`.
    pub attempts_max: u32,
    /// Nothing that waits can be delivered before an operator acts, or all of it has failed alone as often as a run that
    /// is to end by itself tries.
    pub is_exhausted: bool,
}

/// A line that holds a strict group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLine {
    /// Which.
    pub seq: Seq,
    /// How often it failed alone, over all runs.
    pub failures: u32,
    /// For how long it had been failing when it did so last.
    pub for_ms: u64,
    /// How often the process died while it was in flight alone.
    pub deaths: u32,
    /// It is not delivered any more, for its deaths.
    pub is_given_up: bool,
}

/// What a group did in this run of the process. Times by the clock of deadlines.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// Batches leased.
    pub leases: u64,
    /// Batches acked.
    pub acks: u64,
    /// Batches that failed.
    pub failures: u64,
    /// Failures since the last ack.
    pub failing: Option<Failing>,
    /// What its destination has lost of what it had taken, since the group was moved last.
    pub lost: Option<DestinationLost>,
}

/// Lines that a destination had taken and has no more, as far as it notes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationLost {
    /// The first of them.
    pub first: Seq,
    /// The last.
    pub last: Seq,
    /// How many.
    pub lines: u64,
}

/// Failures in a row, without an ack between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// When the first was.
    pub since_ms: u64,
    /// How many.
    pub times: u64,
    /// The lines of the last.
    pub range: SeqRange,
    /// What the last said of its lines.
    pub kind: FailureKind,
    /// Whether the last went past its time-out.
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
