//! The tasks behind a client's connections, so that they can be ended if a request is given up.
//!
//! Before hyper closes a connection it writes all that it was given, even if nobody waits for the reply. If the server has
//! stopped reading, this never ends, and each time-out would leave one more connection with its unsent bytes.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

/// Runs the tasks of one client. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Mutex<JoinSet<()>>>);

impl Connections {
    /// Closes the connections and drops their unsent bytes.
    pub(super) fn end(&self) {
        self.with(JoinSet::abort_all);
    }

    fn with(&self, change: impl FnOnce(&mut JoinSet<()>)) {
        // Nothing panics while the lock is held.
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Removes those that have ended.
        while tasks.try_join_next().is_some() {}
        change(&mut tasks);
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Connections {
    fn execute(&self, task: F) {
        self.with(|tasks| drop(tasks.spawn(task)));
    }
}
