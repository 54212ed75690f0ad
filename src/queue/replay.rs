//! Delivering lines again to a destination that keeps a record of what it was given.
//!
//! After a seek backwards alone, such a destination would ignore all lines in its record. A replay first removes the lines
//! from the record, and then moves the group. The worker of the group does both between two batches, so that nothing is
//! recorded in between. A crash between the two leaves a record with fewer lines than were delivered, which changes nothing
//! for lines that are acked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use spillq_storage::Seq;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::admin::{Admin, Answer, Refusal};

/// A request to a worker, to be carried out between two batches.
#[derive(Debug)]
pub struct Replay {
    /// The first line to deliver again.
    pub from: Seq,
    /// The seek.
    pub seek: Admin,
    /// The answer. The worker skips a request whose receiver is gone.
    pub reply: oneshot::Sender<Result<Answer, ReplayError>>,
}

/// Why lines are not delivered again.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReplayError {
    /// The group has no worker.
    #[error(
        "no processor runs for group {0}, which would have to clear the record of its destination: see `spillq doctor`"
    )]
    NoProcessor(String),
    /// Another replay is in progress.
    #[error("another seek of group {0} is in progress; try again when it has ended")]
    Busy(String),
    /// The record could not be changed; the group was not moved.
    #[error(
        "the group was not moved, and the destination may or may not have cleared its record of the lines: {0}; try \
         again"
    )]
    Note(String),
    /// The group could not be moved.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Sends replays to the worker of a group.
#[derive(Clone, Debug, Default)]
pub struct Replays(Arc<Mutex<BTreeMap<String, Inbox>>>);

/// The requests to the worker of one group.
#[derive(Clone, Debug)]
struct Inbox {
    keeps_note: bool,
    requests: mpsc::Sender<Replay>,
}

impl Replays {
    /// Registers the worker of `group`; returns where it receives requests.
    pub fn open(&self, group: &str, keeps_note: bool) -> mpsc::Receiver<Replay> {
        let (requests, received) = mpsc::channel(1);
        let mut inboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inboxes.retain(|_, inbox| !inbox.requests.is_closed());
        inboxes.insert(group.to_owned(), Inbox { keeps_note, requests });
        received
    }

    fn inbox(&self, group: &str) -> Option<Inbox> {
        let inboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inboxes.get(group).filter(|inbox| !inbox.requests.is_closed()).cloned()
    }

    /// Whether the destination of `group` keeps a record of what it was given; `None` without a processor.
    #[must_use]
    pub fn keeps_note(&self, group: &str) -> Option<bool> {
        self.inbox(group).map(|inbox| inbox.keeps_note)
    }

    /// Removes the lines from `from` on from the record, then moves the group.
    ///
    /// # Errors
    /// What was not done.
    pub async fn replay(&self, group: &str, from: Seq, seek: Admin) -> Result<Answer, ReplayError> {
        let inbox = self.inbox(group).ok_or_else(|| ReplayError::NoProcessor(group.to_owned()))?;
        let (reply, answer) = oneshot::channel();
        inbox.requests.try_send(Replay { from, seek, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReplayError::Busy(group.to_owned()),
            mpsc::error::TrySendError::Closed(_) => ReplayError::NoProcessor(group.to_owned()),
        })?;
        // A worker that ends drops the requests that it has received.
        answer.await.unwrap_or_else(|_| Err(ReplayError::NoProcessor(group.to_owned())))
    }
}
