//! The commands to the owner of the log, and how their answers come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use spillq_storage::{GroupId, NewBlock, Reader, Seq, SeqRange, SourceId};
use thiserror::Error;
use tokio::sync::oneshot;

use super::admin::{Admin, Answer, Refusal};
use super::failure::FailureKind;
use super::own::{Own, Taken};
use super::settings::{Configuration, GroupSettings};
use super::sources::Members;
use super::status::{GroupStatus, Status};

/// Commands that wait for the owner at most. Each sender waits for its answer, so this bounds senders, not throughput.
pub(super) const COMMANDS_MAX: usize = 1_024;

/// Ranges of settled lines in one answer.
pub(super) const SETTLED_RANGES_MAX: usize = 256;

/// How often an answer with a deadline is polled.
const ANSWER_LOOK: Duration = Duration::from_millis(5);

/// Lines to append, with the checkpoints that go with them in one transaction.
#[derive(Debug, Default)]
pub struct Append {
    /// The lines, in the order of the seqs that they get.
    pub blocks: Vec<NewBlock>,
    /// The new checkpoint of a source after these lines, opaque to the log. It replaces the earlier one.
    pub checkpoints: Vec<(SourceId, Bytes)>,
    /// Sources that will never be read again. The log forgets them once no stored line names them.
    pub forget: Vec<SourceId>,
}

impl Append {
    /// Stored bytes of its lines.
    pub(super) fn disk_bytes(&self) -> usize {
        self.blocks.iter().map(NewBlock::disk_bytes).sum()
    }
}

/// An append that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The seq of its first line; equal to `next` if it had only checkpoints.
    pub first: Seq,
    /// The seq after its last line.
    pub next: Seq,
}

/// The owner has ended: the service stops, and the owner's result is the reason. The command may or may not be durable;
/// after a restart the checkpoints show which.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the log is closed")]
pub struct Closed;

/// Lines that a worker may read, and lease as far as they fit into a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Names the offer to the owner.
    pub reservation: u64,
    /// The lines.
    pub range: SeqRange,
    /// How many of them a batch may have.
    pub lines_max: u64,
    /// Whose lines are the group's own; `None` if all are.
    pub members: Option<Members>,
}

/// Lines that are leased, durably. Tokens are never used twice in a run of the process, and do not outlive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Names the lease to the owner.
    pub token: u64,
    /// The lines.
    pub range: SeqRange,
    /// How often they have been delivered, this delivery included.
    pub attempt: u32,
}

/// A line that the processor rejects, while it has processed others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The line.
    pub seq: Seq,
    /// Why, for people.
    pub reason: String,
}

/// How a lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The lines are acked.
    Done,
    /// The lines are acked, except some, which become dead letters.
    DoneExcept {
        /// These, in rising order.
        rejected: Vec<Rejected>,
        /// The processor named them by their seqs. If not, it counted them in the batch: until a number by which it blames
        /// lines has proven right in this run, only the first of them counts, as a line that it names without an ack.
        by_seq: bool,
    },
    /// These lines are acked, and the others stay leased.
    DonePart(Vec<SeqRange>),
    /// The lines are delivered again, unless the failure makes them dead letters.
    Failed {
        /// What the failure says of the lines.
        kind: FailureKind,
        /// One sentence for people.
        summary: String,
        /// The end of what the processor printed.
        tail: String,
        /// The delivery was ended because it exceeded its timeout.
        timed_out: bool,
    },
    /// The service stops: the delivery does not count.
    Released,
}

impl Verdict {
    /// What a list of rejected lines of `range` counts for. If it is not believed, or counts in a batch of one line, nothing
    /// is acked: a processor that counts from 0 says of the bad line that it is done.
    pub(super) fn believed(self, range: SeqRange, own: &Own, believes: impl Fn(bool) -> bool) -> Verdict {
        let Verdict::DoneExcept { mut rejected, by_seq } = self else { return self };
        if rejected.is_empty() {
            return Verdict::Done;
        }
        let is_sorted = rejected.is_sorted_by(|one, next| one.seq < next.seq);
        let is_list = is_sorted && rejected.iter().all(|line| range.contains(line.seq) && own.has(line.seq));
        if is_list && believes(by_seq) && (by_seq || range.lines() > 1) {
            return Verdict::DoneExcept { rejected, by_seq };
        }
        let Rejected { seq, reason } = rejected.swap_remove(0);
        let kind = if is_list { FailureKind::BadLine(seq) } else { FailureKind::Poison };
        Verdict::Failed { kind, summary: reason, tail: String::new(), timed_out: false }
    }
}

/// The answer to the end of a lease, or of a part of it. Durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was accepted.
    Counted(Counted),
    /// The lease is unknown or was revoked: nothing was changed, and the lines are delivered again.
    Stale,
    /// The part would leave more ranges of acks than a group may have, or than a lease is cut into; or too many rejected lines
    /// wait to become dead letters. Nothing was changed, and the lines stay leased.
    NoRoom,
}

/// What a verdict has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Lines acked.
    pub acked: u64,
    /// Lines of the lease that became dead letters.
    pub dead: u64,
    /// Lines of the lease that are delivered again.
    pub again: u64,
    /// Lines that stay leased.
    pub left: Vec<SeqRange>,
    /// All lines up to here are settled.
    pub ack_floor: Seq,
}

/// A command to the owner.
#[derive(Debug)]
pub enum Command {
    /// Appends lines. While the log is full there is no answer: that is how ingestion pauses.
    Append(Append, SyncSender<Appended>),
    /// Offers the next lines of a group, once there are some. With `ahead` also while the maximum of batches is in
    /// flight, to read the lines meanwhile.
    Next {
        /// The group.
        group: GroupId,
        /// Whether to read ahead.
        ahead: bool,
        /// The answer; dropped when the owner ends.
        reply: oneshot::Sender<Offer>,
    },
    /// Leases lines of an offer; `None` when the offer is no longer valid.
    Lease {
        /// The group.
        group: GroupId,
        /// The offer.
        reservation: u64,
        /// Those that fit into the batch.
        taken: Taken,
        /// The answer, once the lease is durable.
        reply: oneshot::Sender<Option<Lease>>,
    },
    /// Releases an offer without leasing it.
    Release {
        /// The group.
        group: GroupId,
        /// The offer.
        reservation: u64,
    },
    /// Releases an offer, whose lines up to `to` are of other sources than the group's. They are settled.
    Pass {
        /// The group.
        group: GroupId,
        /// The offer.
        reservation: u64,
        /// The last of them.
        to: Seq,
    },
    /// Reports that lines of an offer cannot be read.
    Unreadable {
        /// The group.
        group: GroupId,
        /// The offer.
        reservation: u64,
        /// The lines that cannot be read, as far as that is known.
        range: SeqRange,
        /// What was found.
        what: String,
        /// The disk refused to read them, and may succeed later: they are not lost.
        is_refused: bool,
    },
    /// Reports that the destination of a group has lost lines that it had stored. Changes nothing; doctor reports it.
    Lost {
        /// The group.
        group: GroupId,
        /// The lines, in rising order.
        ranges: Vec<SeqRange>,
    },
    /// Ends a lease.
    Settle {
        /// The group.
        group: GroupId,
        /// The lease.
        token: u64,
        /// How it ends.
        verdict: Verdict,
        /// The answer, once that is durable.
        reply: oneshot::Sender<Settled>,
    },
    /// The status of one group, and which lines of `range` it has settled, at most [`SETTLED_RANGES_MAX`] ranges; `None`
    /// if there is no such group.
    Group {
        /// The group.
        group: GroupId,
        /// The lines.
        range: Option<SeqRange>,
        /// The answer.
        reply: oneshot::Sender<Option<(GroupStatus, Vec<SeqRange>)>>,
    },
    /// A request of an operator.
    Admin(Admin, oneshot::Sender<Result<Answer, Refusal>>),
    /// The status of the log and all groups.
    Status(oneshot::Sender<Status>),
    /// A reader of the log.
    Reader(oneshot::Sender<Reader>),
    /// All groups with their settings.
    Groups(oneshot::Sender<Vec<(GroupId, Arc<GroupSettings>)>>),
    /// Changes settings, from the next batch and the next append on. The answer is all groups with their new settings; new
    /// groups are durable.
    Configure(Box<Configuration>, oneshot::Sender<Vec<(GroupId, Arc<GroupSettings>)>>),
    /// Ends the owner, once all earlier commands are durable.
    Stop,
}

/// Sends commands to the owner of the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: SyncSender<Command>,
    /// Commands that were sent, and that the owner has not received.
    waiting: Arc<AtomicUsize>,
}

/// An append in progress.
#[derive(Debug)]
pub struct Ticket(Receiver<Appended>);

impl Handle {
    /// A handle, and the receiver of its commands for the owner or a test.
    #[must_use]
    pub fn channel() -> (Handle, Receiver<Command>) {
        let (commands, received) = sync_channel(COMMANDS_MAX);
        (Handle { commands, waiting: Arc::default() }, received)
    }

    /// The number of commands that wait. The owner counts down for each that it receives.
    pub(super) fn waiting(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.waiting)
    }

    /// Sends a command without waiting for an answer.
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

    /// [`Handle::ask`] from a plain thread, for at most `wait`; `None` when there is no answer by then. Never waits
    /// longer for an owner that is stuck.
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

    /// Sends lines without waiting until they are durable.
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

    /// Waits until the append is durable, for at most `timeout`; `None` when it is not durable yet. May be called again.
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
