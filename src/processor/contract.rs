//! What a worker and a processor agree on: a processor takes one batch at a time and returns what became of it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use spillq_storage::{Seq, SeqRange};

use super::Batch;
use crate::queue::OomKill;

/// What became of one delivery of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is done: it is acked, and never delivered again.
    Done,
    /// It failed, and nobody is blamed. Delivered again after a back-off (docs/explanation/delivery.md).
    Failed(Evidence),
    /// The destination cannot be reached, or says that it fails itself. The same as `Failed`, but for what an operator
    /// is told.
    Down(Evidence),
    /// The kernel killed the command for want of memory. The same as `Failed`, but for what an operator is told.
    OutOfMemory(OomKill, Evidence),
    /// The processor rejects the lines. Bisected at once, to find the line; a single line becomes a dead letter.
    Poison(Evidence),
    /// The processor rejects this line of the batch, the first bad one that it met. All of the batch comes again,
    /// cut there: what it did with the lines before is not known to last.
    BadLine(Seq, Evidence),
    /// The destination asks to be left alone for so long, which the group's longest back-off bounds. Nothing is
    /// charged.
    Later(Duration, Evidence),
    /// Too large for the destination: bisected at once. A single line that is too large is rejected.
    TooLarge(Evidence),
    /// The destination is set up wrongly: the group stops, tries again now and then, and nothing is charged.
    Refused(Evidence),
}

/// What a failed delivery left behind, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// One sentence: what was attempted, on what, what was found.
    pub summary: String,
    /// The end of the processor's standard error or of the reply, at most [`EVIDENCE_BYTES_MAX`].
    pub tail: String,
}

/// Of a failing processor's output so much is kept.
pub const EVIDENCE_BYTES_MAX: usize = 4 * 1024;

/// The answer to come of [`Processor::process`].
pub type Processing<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// The answer to come of [`Processor::forget`].
pub type Forgetting<'a> = Pin<Box<dyn Future<Output = Result<(), Evidence>> + Send + 'a>>;

/// Takes batches of one group, one at a time.
///
/// A batch is delivered at least once: after a crash, or an answer that got lost, it comes again with the same
/// seqs and a higher attempt, so that a receiver can drop repeats. The future is dropped when the group's
/// time-out passes; whatever it had started must end with it, or be harmless.
pub trait Processor: Send {
    /// What it is, for logs and `status`: `exec ./process.sh`.
    fn name(&self) -> String;

    /// What it works on, without its kind: `./process.sh`, a URL, a path. Its name where that says no more.
    fn about(&self) -> String {
        self.name()
    }

    /// Hands over one batch. Returning [`Outcome::Done`] acks all of its lines.
    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a>;

    /// What was seen of the latest delivery when its future was dropped before it answered: what hung, and where.
    /// `None` when there is nothing to tell. To be asked after the drop, and once: it is taken.
    fn interrupted(&mut self) -> Option<Evidence> {
        None
    }

    /// Lines that the destination had noted as given in this run and has lost since, each told once. To be asked after a
    /// batch.
    fn lost(&mut self) -> Vec<SeqRange> {
        Vec::new()
    }

    /// Whether it notes which lines the destination was given, so that none of them is given again.
    fn keeps_note(&self) -> bool {
        false
    }

    /// Takes the lines from `from` on out of that note, durably: those that are delivered again are then given again. The
    /// destination keeps what it has. No batch is out meanwhile.
    fn forget(&mut self, _from: Seq) -> Forgetting<'_> {
        Box::pin(std::future::ready(Ok(())))
    }
}
