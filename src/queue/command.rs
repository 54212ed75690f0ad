//! What can be asked of the owner of the log, and how the answer comes back.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use spillq_storage::{NewBlock, Seq, SourceId};
use thiserror::Error;

/// Commands that wait for the owner at most. Everybody who asks waits for the answer, so this bounds askers, not
/// throughput.
const COMMANDS_MAX: usize = 1_024;

/// Lines to append, with the checkpoints that go with them in one transaction.
#[derive(Debug, Default)]
pub struct Append {
    /// The lines, in the order that gives them their seqs.
    pub blocks: Vec<NewBlock>,
    /// What the tail knows of a source after these lines: opaque to the log. Replaces the earlier one.
    pub checkpoints: Vec<(SourceId, Bytes)>,
    /// Sources that will never be read again. The log drops them once no stored line names them.
    pub forget: Vec<SourceId>,
}

/// An append that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The seq of its first line; equal to `next` where it had only checkpoints.
    pub first: Seq,
    /// The seq after its last line.
    pub next: Seq,
}

/// The owner has ended: the service stops, and the reason is the owner's to tell. What was asked may or may not
/// be durable; after a restart the checkpoints say so.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the log is closed")]
pub struct Closed;

/// One thing asked of the owner.
#[derive(Debug)]
pub enum Command {
    /// Append lines. The answer waits while the log is full: that is how taking in pauses.
    Append(Append, SyncSender<Appended>),
}

/// Asks the owner of the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: SyncSender<Command>,
}

/// An append under way.
#[derive(Debug)]
pub struct Ticket(Receiver<Appended>);

impl Handle {
    /// A handle, and where the owner (or a test) receives what is asked through it.
    #[must_use]
    pub fn channel() -> (Handle, Receiver<Command>) {
        let (commands, received) = sync_channel(COMMANDS_MAX);
        (Handle { commands }, received)
    }

    /// Hands over lines without waiting until they are durable.
    ///
    /// # Errors
    /// [`Closed`] when the owner has ended.
    pub fn append(&self, append: Append) -> Result<Ticket, Closed> {
        let (reply, answer) = sync_channel(1);
        self.commands.send(Command::Append(append, reply)).map_err(|_| Closed)?;
        Ok(Ticket(answer))
    }
}

impl Ticket {
    /// Waits until the append is durable.
    ///
    /// # Errors
    /// [`Closed`] when the owner ended first.
    pub fn wait(&self) -> Result<Appended, Closed> {
        self.0.recv().map_err(|_| Closed)
    }

    /// Waits until the append is durable, for `timeout` at most; `None` when it is not yet. May be called again.
    ///
    /// # Errors
    /// [`Closed`] when the owner ended first.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Appended>, Closed> {
        match self.0.recv_timeout(timeout) {
            Ok(appended) => Ok(Some(appended)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Closed),
        }
    }
}
