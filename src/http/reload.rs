//! What is reported of the configuration, and how a service is asked to reload it.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// How many requests may wait at once.
const REQUESTS_MAX: usize = 16;

/// The configuration that runs, and how the one on disk differs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConfigJson {
    /// The file; null if all settings came from the command line and the environment.
    pub file: Option<String>,
    /// When the configuration that runs was read.
    pub read: String,
    /// How many times it was reloaded.
    pub reloads: u64,
    /// Why the file on disk was refused and does not run; empty if it was not.
    pub refused: Vec<String>,
    /// What differs on disk and applies from the next start on.
    pub needs_restart: Vec<String>,
}

/// The result of a reload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReloadJson {
    /// The new configuration runs now, except for what needs a restart. If false, nothing was changed.
    pub taken: bool,
    /// What differs.
    pub changes: Vec<ChangeJson>,
    /// What looks wrong but works, or takes a while.
    pub notes: Vec<String>,
    /// Why it was refused.
    pub problems: Vec<String>,
}

/// One difference.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeJson {
    /// The setting with its new and old values.
    pub what: String,
    /// It applies only from the next start on.
    pub needs_restart: bool,
}

/// Gets the result of a reload.
pub type ReloadReply = oneshot::Sender<ReloadJson>;

/// Connects the server, which reports and requests, with the service, which reloads.
#[derive(Clone, Debug)]
pub struct ConfigHandle {
    requests: mpsc::Sender<ReloadReply>,
    current: Arc<Mutex<ConfigJson>>,
}

impl ConfigHandle {
    /// A handle, and the requests for the service.
    #[must_use]
    pub fn new(first: ConfigJson) -> (ConfigHandle, mpsc::Receiver<ReloadReply>) {
        let (requests, requested) = mpsc::channel(REQUESTS_MAX);
        (ConfigHandle { requests, current: Arc::new(Mutex::new(first)) }, requested)
    }

    /// What is known now.
    #[must_use]
    pub fn current(&self) -> ConfigJson {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is reported.
    pub fn update(&self, change: impl FnOnce(&mut ConfigJson)) {
        change(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Reloads the configuration; `None` if the service is ending.
    pub(super) async fn reload(&self) -> Option<ReloadJson> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(reply).await.ok()?;
        answer.await.ok()
    }
}

impl ConfigJson {
    /// The notes on it for `doctor`.
    pub(super) fn notes(&self) -> Vec<String> {
        let file = self.file.as_deref().unwrap_or_default();
        self.needs_restart.iter().map(|what| format!("{file} says {what}: that needs a restart")).collect()
    }
}
