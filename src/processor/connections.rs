//! The tasks that keep a client's connections going, so that they can be ended with an exchange that is given up.
//!
//! hyper writes what it was given to the end before it closes a connection, also when nobody waits for the reply any
//! more. To a server that has stopped reading that takes for ever, and each time-out would leave one more connection
//! with what it had to send.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

/// Runs the tasks of one client. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Mutex<JoinSet<()>>>);

impl Connections {
    /// Ends them: the connections are closed, and what they had to send is dropped.
    pub(super) fn end(&self) {
        self.with(JoinSet::abort_all);
    }

    fn with(&self, change: impl FnOnce(&mut JoinSet<()>)) {
        // Nothing panics while it is held.
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended are let go of.
        while tasks.try_join_next().is_some() {}
        change(&mut tasks);
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Connections {
    fn execute(&self, task: F) {
        self.with(|tasks| drop(tasks.spawn(task)));
    }
}
