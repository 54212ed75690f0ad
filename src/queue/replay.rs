//! Giving lines again to a destination that notes what it was given.
//!
//! A seek backwards alone makes lines wait again, and such a destination then takes none that it has noted. A replay
//! takes them out of the note first and moves the group behind that: both by the worker that delivers, with no batch
//! out, so that nothing is noted in between. A crash between the two leaves a note that says less than was given, which
//! changes nothing for lines that are acked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use spillq_storage::Seq;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::admin::{Admin, Answer, Refusal};

/// What a worker is asked to do between two batches.
#[derive(Debug)]
pub struct Replay {
    /// The first line that is to be given again.
    pub from: Seq,
    /// The seek.
    pub seek: Admin,
    /// Whoever does not wait any more is spared it.
    pub reply: oneshot::Sender<Result<Answer, ReplayError>>,
}

/// Why lines are not given again.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReplayError {
    /// Nobody delivers for the group.
    #[error(
        "no processor is at work for group {0}, which would have to clear what its destination has noted: see \
         `spillq doctor`"
    )]
    NoProcessor(String),
    /// Another one is under way.
    #[error("another seek of group {0} is under way; try again when it has ended")]
    Busy(String),
    /// The note could not be changed; the group was not moved.
    #[error(
        "the group was not moved, and the destination may or may not have cleared its note of the lines: {0}; try again"
    )]
    Note(String),
    /// The group could not be moved.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Who can be asked: the workers of each group.
#[derive(Clone, Debug, Default)]
pub struct Replays(Arc<Mutex<BTreeMap<String, Desk>>>);

/// Of one group.
#[derive(Clone, Debug)]
struct Desk {
    keeps_note: bool,
    asks: mpsc::Sender<Replay>,
}

impl Replays {
    /// A worker begins for `group`; gives where it hears of replays.
    pub fn open(&self, group: &str, keeps_note: bool) -> mpsc::Receiver<Replay> {
        let (asks, hears) = mpsc::channel(1);
        let mut desks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        desks.retain(|_, desk| !desk.asks.is_closed());
        desks.insert(group.to_owned(), Desk { keeps_note, asks });
        hears
    }

    fn desk(&self, group: &str) -> Option<Desk> {
        let desks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        desks.get(group).filter(|desk| !desk.asks.is_closed()).cloned()
    }

    /// Whether the destination of `group` notes what it was given; `None` where no processor is at work.
    #[must_use]
    pub fn keeps_note(&self, group: &str) -> Option<bool> {
        self.desk(group).map(|desk| desk.keeps_note)
    }

    /// Takes the lines from `from` on out of the note, then moves the group.
    ///
    /// # Errors
    /// Says what was not done.
    pub async fn replay(&self, group: &str, from: Seq, seek: Admin) -> Result<Answer, ReplayError> {
        let desk = self.desk(group).ok_or_else(|| ReplayError::NoProcessor(group.to_owned()))?;
        let (reply, answer) = oneshot::channel();
        desk.asks.try_send(Replay { from, seek, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReplayError::Busy(group.to_owned()),
            mpsc::error::TrySendError::Closed(_) => ReplayError::NoProcessor(group.to_owned()),
        })?;
        // A worker that ends takes what it was asked with it.
        answer.await.unwrap_or_else(|_| Err(ReplayError::NoProcessor(group.to_owned())))
    }
}
