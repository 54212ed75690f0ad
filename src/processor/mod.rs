//! Processors: who gets the batches, and how they say that a batch is done.

mod batch;
mod blocking;
mod evidence;
mod exec;
mod file;
mod input;
mod passthrough;
mod procs;
mod report;
#[cfg(test)]
mod sample;
pub mod shim;
mod sidecar;
mod stdout;
mod written;

use std::future::Future;
use std::pin::Pin;

pub use batch::{Batch, Piece};
pub use exec::Exec;
pub use file::AppendFile;
pub use input::{Input, Paths};
pub use stdout::Stdout;

/// What became of one delivery of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is done: it is acked, and never delivered again.
    Done,
    /// It failed, or the destination is down. Delivered again after a back-off; blamed on a line only when that
    /// line fails alone while others pass.
    Failed(Evidence),
    /// The processor says that the lines themselves are at fault. Halved at once; charged when alone.
    Poison(Evidence),
    /// Too large for the destination: halved, nothing is charged.
    TooLarge(Evidence),
    /// The destination is set up wrongly: the group stops, is probed now and then, and nothing is charged.
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

/// Takes batches of one group, one at a time.
///
/// A batch is delivered at least once: after a crash, or an answer that got lost, it comes again with the same
/// seqs and a higher attempt, so that a receiver can drop repeats. The future is dropped when the group's
/// time-out passes; whatever it had started must end with it, or be harmless.
pub trait Processor: Send {
    /// What it is, for logs and `status`: `exec ./process.sh`.
    fn name(&self) -> String;

    /// Hands over one batch. Returning [`Outcome::Done`] acks all of its lines.
    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a>;

    /// What was seen of the latest delivery when its future was dropped before it answered: what hung, and where.
    /// `None` when there is nothing to tell. To be asked after the drop, and once: it is taken.
    fn interrupted(&mut self) -> Option<Evidence> {
        None
    }
}
