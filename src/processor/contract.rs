//! What a worker and a processor agree on: a processor takes one batch at a time and returns what became of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use spillq_storage::{Seq, SeqRange};

use super::{Batch, Piece};
use crate::queue::{OomKill, Rejected};

/// What became of one delivery of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The batch is done: it is acked, and never delivered again.
    Done,
    /// The lines are done, except these, in rising order, which the processor rejects.
    DoneExcept(Vec<Rejected>),
    /// It failed, and no line is blamed. It is delivered again after a back-off (docs/explanation/delivery.md).
    Failed(Evidence),
    /// The destination cannot be reached, or says that the fault is its own. Handled like `Failed`; `doctor` reports it as
    /// an outage.
    Down(Evidence),
    /// The kernel killed the command because memory ran out. Handled like `Failed`; `doctor` reports the cause.
    OutOfMemory(OomKill, Evidence),
    /// The processor rejects the lines. The batch is bisected at once to find the bad line; a single line becomes a dead
    /// letter.
    Poison(Evidence),
    /// The processor rejects this line, the first bad one of the batch. The whole batch is delivered again, cut at this
    /// line: it is not known whether the effects of the lines before it are durable.
    BadLine(Seq, Evidence),
    /// The destination asks for a pause of this length. The group's longest back-off bounds it. No attempt is counted.
    Later(Duration, Evidence),
    /// Too large for the destination. The batch is bisected at once; a single line that is too large is rejected.
    TooLarge(Evidence),
    /// The destination is set up wrongly. The group stops and tries again from time to time. No attempt is counted.
    Refused(Evidence),
}

/// What is known of a failed delivery, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// One sentence: what was attempted, on what, and what was found.
    pub summary: String,
    /// The end of the processor's standard error or of the reply, at most [`EVIDENCE_BYTES_MAX`].
    pub tail: String,
}

impl Evidence {
    /// Without any output.
    #[must_use]
    pub fn new(summary: String) -> Evidence {
        Evidence { summary, tail: String::new() }
    }
}

/// How much is kept of the output of a processor that fails.
pub const EVIDENCE_BYTES_MAX: usize = 4 * 1024;

/// The future of [`Processor::process`].
pub type Processing<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// The future of [`Processor::forget`].
pub type Forgetting<'a> = Pin<Box<dyn Future<Output = Result<(), Evidence>> + Send + 'a>>;

/// Prepares a delivery while another one is under way.
pub trait Prepare: Send + Sync {
    /// These lines will probably be the next batch. They are not leased: nothing of them may leave the process. Blocks for
    /// about as long as a copy of them takes.
    fn prepare(&self, pieces: &[Piece]);
}

/// Processes the batches of one group, one at a time.
///
/// A batch is delivered at least once. After a crash, or if an answer was lost, the lines are delivered again with the same
/// seqs and a higher attempt, so that a receiver can drop repeats. The future is dropped when the group's time-out
/// passes; whatever it has started must end then, or be harmless.
pub trait Processor: Send {
    /// Its kind and target, for logs and `status`: `exec ./process.sh`.
    fn name(&self) -> String;

    /// Its target without its kind: `./process.sh`, a URL, a path. Its name if the kind says it all.
    fn about(&self) -> String {
        self.name()
    }

    /// Processes one batch. [`Outcome::Done`] acks all of its lines.
    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a>;

    /// Who prepares its next delivery; `None` if there is nothing to prepare.
    fn prepares(&self) -> Option<Arc<dyn Prepare>> {
        None
    }

    /// What was seen of the latest delivery when its future was dropped before it answered: what hung, and where.
    /// `None` if nothing is known. Call it after the drop; a second call returns `None`.
    fn interrupted(&mut self) -> Option<Evidence> {
        None
    }

    /// Lines that the destination had noted in this run of the process and has lost since, each returned once. Call it after
    /// a batch.
    fn lost(&mut self) -> Vec<SeqRange> {
        Vec::new()
    }

    /// Whether the destination keeps a note of the lines that it was given, so that no line is stored twice.
    fn keeps_note(&self) -> bool {
        false
    }

    /// Removes the lines from `from` on from that note, durably, so that those that are delivered again are stored again. The
    /// destination keeps what it has. No batch is in flight meanwhile.
    fn forget(&mut self, _from: Seq) -> Forgetting<'_> {
        Box::pin(std::future::ready(Ok(())))
    }
}
