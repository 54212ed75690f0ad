//! The owner's thread: its start, its handle, and its end.

use std::sync::Arc;
use std::thread::JoinHandle;

use spillq_storage::{Error, Log};
use tokio::sync::oneshot;

use super::command::{Command, Handle};
use super::owner::Owner;
use super::pulse::Pulse;
use super::settings::{GroupSettings, WhenFull};
use super::sources::Origin;
use super::window::Window;

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
    /// Starts the owner of `log`. Groups of `groups` that the log does not have are created; groups of the log that
    /// `groups` does not name continue with the defaults. `origin` says where a checkpoint's source was first followed, for groups
    /// over some sources.
    ///
    /// # Errors
    /// When the log fails, or the system cannot start a thread.
    pub fn start(
        log: Log,
        groups: Vec<GroupSettings>,
        window_bytes: usize,
        when_full: WhenFull,
        origin: Origin,
    ) -> Result<Queue, Error> {
        let (handle, received) = Handle::channel();
        let window = Arc::new(Window::new(window_bytes));
        let pulse = Pulse::default();
        let owner = Owner::new(
            log,
            Arc::clone(&window),
            groups,
            when_full,
            (received, handle.waiting()),
            (pulse.clone(), origin),
        )?;
        let (result, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("spillq-owner".to_owned())
            // Without a receiver the service is ending anyway.
            .spawn(move || drop(result.send(owner.run())))
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

    /// For how long the owner has been busy with one commit.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// The newest lines.
    #[must_use]
    pub fn window(&self) -> Arc<Window> {
        Arc::clone(&self.window)
    }

    /// Resolves when the owner ends although [`Queue::stop`] was not called: the log has failed, and nothing is
    /// acknowledged any more.
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
    /// When the log fails meanwhile.
    pub fn stop(mut self) -> Result<(), Error> {
        // A closed channel means that the owner has ended: its result is returned below.
        let _ = self.handle.send(Command::Stop);
        let panicked = || Error::Poisoned("the owner of the log panicked".to_owned());
        self.thread.join().map_err(|_| panicked())?;
        self.ended.try_recv().unwrap_or_else(|_| Err(panicked()))
    }
}
