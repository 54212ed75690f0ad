//! What is told of the configuration, and how a service is asked to read it again.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// Who asks at once at most: each waits for the answer.
const ASKS_MAX: usize = 16;

/// The configuration that runs, beside the one on disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConfigJson {
    /// The file; null where all settings came from the command line and the environment.
    pub file: Option<String>,
    /// When what runs was read.
    pub read: String,
    /// How often it was read again and taken.
    pub reloads: u64,
    /// Why what is on disk was refused and does not run; empty where it was not.
    pub refused: Vec<String>,
    /// What is different on disk and holds from the next start on.
    pub needs_restart: Vec<String>,
}

/// What came of reading it again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReloadJson {
    /// It runs now, but for what needs a restart. Otherwise nothing was changed.
    pub taken: bool,
    /// What is different.
    pub changes: Vec<ChangeJson>,
    /// What is odd but works, or takes a while.
    pub notes: Vec<String>,
    /// Why it was not taken.
    pub problems: Vec<String>,
}

/// One thing that is different.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeJson {
    /// Which, what it is and what it was.
    pub what: String,
    /// It holds from the next start on only.
    pub needs_restart: bool,
}

/// Who waits for what comes of it.
pub type Asker = oneshot::Sender<ReloadJson>;

/// Between the server, which tells and asks, and the service, which reads.
#[derive(Clone, Debug)]
pub struct ConfigDoor {
    asks: mpsc::Sender<Asker>,
    told: Arc<Mutex<ConfigJson>>,
}

impl ConfigDoor {
    /// A door, and where the service hears who asks.
    #[must_use]
    pub fn new(first: ConfigJson) -> (ConfigDoor, mpsc::Receiver<Asker>) {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        (ConfigDoor { asks, told: Arc::new(Mutex::new(first)) }, asked)
    }

    /// What is known now.
    #[must_use]
    pub fn told(&self) -> ConfigJson {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is told.
    pub fn tell(&self, change: impl FnOnce(&mut ConfigJson)) {
        change(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Asks for the configuration to be read again; `None` when the service is ending.
    pub(super) async fn reload(&self) -> Option<ReloadJson> {
        let (asker, answer) = oneshot::channel();
        self.asks.send(asker).await.ok()?;
        answer.await.ok()
    }
}

impl ConfigJson {
    /// What is worth knowing of it: for `doctor`.
    pub(super) fn notes(&self) -> Vec<String> {
        let file = self.file.as_deref().unwrap_or_default();
        self.needs_restart.iter().map(|what| format!("{file} says {what}: that needs a restart")).collect()
    }
}
