//! The queue: one owner of the log, and who may ask it what.
//!
//! A plain thread owns the log. Everybody else sends it commands through a [`Handle`]; it gathers what waits into
//! one commit, makes that durable once, and only then answers. The queue knows no files, no HTTP and no
//! processor.

mod admin;
mod clock;
mod command;
mod group;
mod lag;
#[cfg(test)]
mod model_test;
mod owner;
mod phase;
mod pulse;
mod reason;
mod replay;
mod retry;
mod settings;
mod status;
mod suspects;
mod window;

use std::sync::Arc;
use std::thread::JoinHandle;

use spillq_storage::{Error, Log};
use tokio::sync::oneshot;

pub use admin::{Admin, Answer, DEAD_LETTERS_SHOWN_MAX, Refusal, SeekTo, is_group_name};
pub use clock::{now_ms, wall_ms};
pub use command::{Append, Appended, Closed, Command, Handle, Lease, Offer, Settled, Ticket, Verdict};
pub use lag::{LagPolicy, MaxLag};
pub use phase::{Blocked, EveryLineRejected, LagReached, Phase, WhyFull, no_space};
pub use pulse::Pulse;
pub use replay::{Replay, ReplayError, Replays};
pub use retry::{FailureKind, OomKill, RetrySettings, Stuck};
pub use settings::{Configuration, GroupSettings};
pub use status::{
    Activity, DestinationLost, Discarded, DiscardedBy, Failing, GroupStatus, Held, HeldLine, Status,
};
pub use window::{Lent, Window};

/// What happens when the log takes all the disk that it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Lines are not taken in.
    #[default]
    Pause,
    /// The oldest segment is dropped, whoever needs it.
    DropOldest,
}

/// The running owner.
#[derive(Debug)]
pub struct Queue {
    handle: Handle,
    window: Arc<Window>,
    pulse: Pulse,
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<Result<(), Error>>,
}

impl Queue {
    /// Starts the owner of `log`. Groups that `groups` names and the log does not have are created; others are
    /// kept, with the defaults.
    ///
    /// # Errors
    /// When the log fails, or the system has no thread to give.
    pub fn start(log: Log, groups: Vec<GroupSettings>, window_bytes: usize) -> Result<Queue, Error> {
        Queue::start_with(log, groups, window_bytes, WhenFull::Pause)
    }

    /// [`Queue::start`], with what happens at the limit of the disk.
    ///
    /// # Errors
    /// As [`Queue::start`].
    pub fn start_with(
        log: Log,
        groups: Vec<GroupSettings>,
        window_bytes: usize,
        when_full: WhenFull,
    ) -> Result<Queue, Error> {
        let (handle, received) = Handle::channel();
        let window = Arc::new(Window::new(window_bytes));
        let pulse = Pulse::default();
        let owner = owner::Owner::new(
            log,
            Arc::clone(&window),
            groups,
            when_full,
            (received, handle.waiting()),
            pulse.clone(),
        )?;
        let (tell, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("spillq-owner".to_owned())
            // Nobody listens where the service is ending anyway.
            .spawn(move || drop(tell.send(owner.run())))
            .map_err(|source| Error::Io {
                attempted: "start a thread for",
                path: "the log".into(),
                source,
            })?;
        Ok(Queue { handle, window, pulse, thread, ended })
    }

    /// Asks the owner.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// How long the owner has been at one commit.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// The newest lines.
    #[must_use]
    pub fn window(&self) -> Arc<Window> {
        Arc::clone(&self.window)
    }

    /// Resolves when the owner has ended by itself: the log failed, and nothing is acknowledged any more.
    pub async fn failed(&mut self) -> Error {
        match (&mut self.ended).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => Error::Poisoned("the owner of the log was stopped".to_owned()),
            Err(_) => Error::Poisoned("the owner of the log panicked".to_owned()),
        }
    }

    /// Makes durable what was asked before, and closes the log.
    ///
    /// # Errors
    /// When the log fails on the way.
    pub fn stop(mut self) -> Result<(), Error> {
        // A closed channel means that it has ended: the result says how.
        let _ = self.handle.send(Command::Stop);
        let panicked = || Error::Poisoned("the owner of the log panicked".to_owned());
        self.thread.join().map_err(|_| panicked())?;
        self.ended.try_recv().unwrap_or_else(|_| Err(panicked()))
    }
}
