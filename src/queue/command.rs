//! What can be asked of the owner of the log, and how the answer comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use spillq_storage::{GroupId, NewBlock, Reader, Seq, SeqRange, SourceId};
use thiserror::Error;
use tokio::sync::oneshot;

use super::admin::{Admin, Answer, Refusal};
use super::retry::FailureKind;
use super::settings::{Configuration, GroupSettings};
use super::status::Status;

/// Commands that wait for the owner at most. Everybody who asks waits for the answer, so this bounds askers, not
/// throughput.
pub(super) const COMMANDS_MAX: usize = 1_024;

/// Between two looks for an answer that is waited for with a deadline.
const ANSWER_LOOK: Duration = Duration::from_millis(5);

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

/// Lines that a worker may read, and lease as far as they fit in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Names the offer to the owner.
    pub reservation: u64,
    /// The lines.
    pub range: SeqRange,
}

/// Lines that are lent, durably. Tokens are never used twice in a run of the process, and do not outlive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Names the lease to the owner.
    pub token: u64,
    /// The lines.
    pub range: SeqRange,
    /// How often they have been delivered, this time included.
    pub attempt: u32,
}

/// How a lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The lines are done with.
    Done,
    /// They come again, as what is said of them allows.
    Failed {
        /// What the failure says of the lines.
        kind: FailureKind,
        /// One sentence for people.
        summary: String,
        /// The end of what the processor printed.
        tail: String,
        /// It was ended past its time-out.
        timed_out: bool,
    },
    /// The service stops: the delivery does not count.
    GivenBack,
}

/// What became of an ack or a failure; durable when it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It counts.
    Counted,
    /// The lease was another's, or revoked: nothing was changed, and the lines come again.
    Stale,
}

/// One thing asked of the owner.
#[derive(Debug)]
pub enum Command {
    /// Append lines. The answer waits while the log is full: that is how taking in pauses.
    Append(Append, SyncSender<Appended>),
    /// The next lines of a group, when there are some. With `ahead` also while all batches are out, to read them
    /// meanwhile.
    Next {
        /// Whose.
        group: GroupId,
        /// Whether to look beyond what is out.
        ahead: bool,
        /// Dropped when the owner ends.
        reply: oneshot::Sender<Offer>,
    },
    /// Lends the lines of an offer up to `last`; `None` when the offer does not stand any more.
    Lease {
        /// Whose.
        group: GroupId,
        /// Which offer.
        reservation: u64,
        /// The last line that fits in the batch.
        last: Seq,
        /// Told when the lease is durable.
        reply: oneshot::Sender<Option<Lease>>,
    },
    /// An offer is not taken up.
    Release {
        /// Whose.
        group: GroupId,
        /// Which offer.
        reservation: u64,
    },
    /// Lines of an offer cannot be read.
    Unreadable {
        /// Whose.
        group: GroupId,
        /// Which offer.
        reservation: u64,
        /// The lines that are lost, as far as that is known.
        range: SeqRange,
        /// What was found.
        what: String,
        /// The disk refused to read them, and may give them another time: they are not lost.
        is_refused: bool,
    },
    /// The destination of a group has lost lines that it had taken. Nothing is changed; operators are told.
    Lost {
        /// Whose.
        group: GroupId,
        /// Which, rising.
        ranges: Vec<SeqRange>,
    },
    /// Ends a lease.
    Settle {
        /// Whose.
        group: GroupId,
        /// Which lease.
        token: u64,
        /// How.
        verdict: Verdict,
        /// Told when that is durable.
        reply: oneshot::Sender<Settled>,
    },
    /// What an operator asks for.
    Admin(Admin, oneshot::Sender<Result<Answer, Refusal>>),
    /// A look at everything.
    Status(oneshot::Sender<Status>),
    /// A reader of the log.
    Reader(oneshot::Sender<Reader>),
    /// The groups as they are, with their settings.
    Groups(oneshot::Sender<Vec<(GroupId, Arc<GroupSettings>)>>),
    /// Be set otherwise from the next batch and the next append on. The answer is the groups as they are then; groups
    /// that were made are durable.
    Configure(Box<Configuration>, oneshot::Sender<Vec<(GroupId, Arc<GroupSettings>)>>),
    /// End, when what was asked before is durable.
    Stop,
}

/// Asks the owner of the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: SyncSender<Command>,
    /// Commands that were sent and that the owner has not taken up.
    waiting: Arc<AtomicUsize>,
}

/// An append under way.
#[derive(Debug)]
pub struct Ticket(Receiver<Appended>);

impl Handle {
    /// A handle, and where the owner (or a test) receives what is asked through it.
    #[must_use]
    pub fn channel() -> (Handle, Receiver<Command>) {
        let (commands, received) = sync_channel(COMMANDS_MAX);
        (Handle { commands, waiting: Arc::default() }, received)
    }

    /// Counts commands that wait: the owner takes one off for each that it takes up.
    pub(super) fn waiting(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.waiting)
    }

    /// Sends a command that needs no answer, or whose answer is waited for elsewhere.
    ///
    /// # Errors
    /// [`Closed`] when the owner has ended.
    pub fn send(&self, command: Command) -> Result<(), Closed> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.commands.send(command).map_err(|_| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            Closed
        })
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// [`Closed`] when the owner ended before it answered.
    pub async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Closed> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        answer.await.map_err(|_| Closed)
    }

    /// [`Handle::ask`] from a plain thread, for `wait` at most; `None` when there is no answer by then. Never waits
    /// for an owner that is stuck.
    ///
    /// # Errors
    /// [`Closed`] when the owner has ended.
    pub fn ask_within<T>(
        &self,
        wait: Duration,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<Option<T>, Closed> {
        let (reply, mut answer) = oneshot::channel();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.commands.try_send(command(reply)) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return match error {
                TrySendError::Full(_) => Ok(None),
                TrySendError::Disconnected(_) => Err(Closed),
            };
        }
        let until = Instant::now() + wait;
        loop {
            match answer.try_recv() {
                Ok(answer) => return Ok(Some(answer)),
                Err(oneshot::error::TryRecvError::Closed) => return Err(Closed),
                Err(oneshot::error::TryRecvError::Empty) if Instant::now() >= until => return Ok(None),
                Err(oneshot::error::TryRecvError::Empty) => std::thread::sleep(ANSWER_LOOK),
            }
        }
    }

    /// [`Handle::ask`] from a plain thread.
    ///
    /// # Errors
    /// [`Closed`] when the owner ended before it answered.
    ///
    /// # Panics
    /// Within an asynchronous task.
    pub fn ask_blocking<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Closed> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        answer.blocking_recv().map_err(|_| Closed)
    }

    /// Hands over lines without waiting until they are durable.
    ///
    /// # Errors
    /// [`Closed`] when the owner has ended.
    pub fn append(&self, append: Append) -> Result<Ticket, Closed> {
        let (reply, answer) = sync_channel(1);
        self.send(Command::Append(append, reply))?;
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
