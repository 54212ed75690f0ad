//! A part: lines that are to be delivered again together.

use spillq_storage::{DeadCause, SeqRange};

/// What is known of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A batch. It is retried once as a whole before it is bisected.
    Batch,
    /// Bisected from a batch that failed, or suspected of having killed an earlier run: its next failure bisects it again.
    Bisected,
    /// The one line that the processor named in a larger batch, delivered alone to check whether the number is right.
    Named,
    /// A line that was rejected alone, once.
    Rejected,
    /// A dead letter that was revived: it never holds the group.
    Revived,
    /// A line during whose delivery the process died too often: not delivered until an operator says so.
    Killer,
}

/// Lines to be delivered again together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) range: SeqRange,
    /// The same, with lines of other sources around them that were found when they were last read.
    pub(super) reach: SeqRange,
    /// The batch that it was cut from.
    pub(super) whole: SeqRange,
    pub(super) standing: Standing,
    /// It is to become a dead letter, and why.
    pub(super) condemned: Option<DeadCause>,
    /// Failed deliveries of exactly this part in this run of the process.
    pub(super) failures: u32,
    /// Failed deliveries of its one line in earlier runs.
    pub(super) failures_before: u32,
    /// When its one line failed first. Negative if that was before the clock's zero, in an earlier run.
    pub(super) failing_since_ms: Option<i64>,
    pub(super) not_before_ms: u64,
    /// Unordered only: how often the whole was merged again because all of it failed.
    pub(super) rounds: u32,
    /// Unordered only: another line was acked since this one first failed alone.
    pub(super) others_acked: bool,
    /// It was in flight when an earlier run died, and was not delivered since. It is delivered while nothing else is in
    /// flight, so that a death is known to be caused by it.
    pub(super) suspect: bool,
    pub(super) in_flight: bool,
}

impl Part {
    pub(super) fn new(range: SeqRange, standing: Standing) -> Part {
        Part {
            range,
            reach: range,
            whole: range,
            standing,
            condemned: None,
            failures: 0,
            failures_before: 0,
            failing_since_ms: None,
            not_before_ms: 0,
            rounds: 0,
            others_acked: false,
            suspect: false,
            in_flight: false,
        }
    }

    /// What is left of it, which keeps what lies around it on the sides where it ends as before.
    pub(super) fn rest(&self, rest: SeqRange) -> Part {
        let first = if rest.first == self.range.first { self.reach.first } else { rest.first };
        let last = if rest.last == self.range.last { self.reach.last } else { rest.last };
        Part { range: rest, reach: SeqRange { first, last }, ..self.clone() }
    }

    pub(super) fn is_one_line(&self) -> bool {
        self.range.lines() == 1
    }

    /// Whether it is a line that failed alone, in this run or an earlier one.
    pub(super) fn failed_alone(&self) -> bool {
        self.is_one_line() && self.failures + self.failures_before > 0
    }

    /// Whether nothing is known of its lines except that they wait.
    pub(super) fn is_plain(&self) -> bool {
        self.condemned.is_none()
            && !self.in_flight
            && matches!(self.standing, Standing::Batch | Standing::Bisected)
    }

    /// Whether it can be delivered once its time has come.
    pub(super) fn is_deliverable(&self) -> bool {
        !self.in_flight && self.condemned.is_none() && self.standing != Standing::Killer
    }

    /// Whether it holds a strict group: a line that keeps failing, perhaps by its own fault.
    pub(super) fn holds(&self) -> bool {
        self.is_one_line()
            && self.condemned.is_none()
            && (self.standing == Standing::Killer || self.failures + self.failures_before > 1)
    }

    /// Whether a run that ends by itself has tried it often enough.
    pub(super) fn is_exhausted(&self, attempts: u32) -> bool {
        let is_given_up = self.standing == Standing::Killer || self.failures >= attempts;
        (self.is_one_line() && is_given_up) || self.rounds >= attempts
    }
}
