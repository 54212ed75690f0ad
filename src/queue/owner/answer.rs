//! The answers of the owner.

use std::sync::mpsc::SyncSender;

use spillq_storage::Seq;
use tokio::sync::oneshot;

use crate::queue::admin::{Answer, Refusal};
use crate::queue::command::{Appended, Lease, Settled};

/// An answer that waits until the commit is durable.
pub(super) enum Pending {
    Appended { reply: SyncSender<Appended>, lines: u64 },
    Lease(oneshot::Sender<Option<Lease>>, Lease),
    Settled(oneshot::Sender<Settled>),
    Admin(oneshot::Sender<Result<Answer, Refusal>>, Answer),
}

impl Pending {
    /// Sends the answer. `seq` is the seq of the first line that no append before this one has got; returns the same for
    /// the next.
    pub(super) fn send(self, seq: Seq) -> Seq {
        match self {
            Pending::Appended { reply, lines } => {
                let next = seq.plus(lines);
                // As in `send`, for the tail.
                let _ = reply.send(Appended { first: seq, next });
                return next;
            }
            Pending::Lease(reply, lease) => send(reply, Some(lease)),
            Pending::Settled(reply) => send(reply, Settled::Counted),
            Pending::Admin(reply, answer) => send(reply, Ok(answer)),
        }
        seq
    }
}

/// Sends an answer. A client that has gone away does not get it; what was done stays done.
pub(super) fn send<T>(reply: oneshot::Sender<T>, answer: T) {
    let _ = reply.send(answer);
}
