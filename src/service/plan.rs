//! What a run of the service is to do, and how it ended, or why it could not do it. Plain data.

use std::time::Duration;

use spillq_storage::Error;

use crate::config::Sources;
use crate::http::StatusJson;
use crate::supervise::Started;

/// What a run is to do, and whether it ends by itself.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Follow files.
    pub follow: bool,
    /// End when all files have been read and no line waits for a processor.
    pub once: bool,
    /// End when no line waits for these groups.
    pub drain: Option<Drain>,
    /// Read the configuration again on SIGHUP and when its file changes.
    pub reread: Option<Reread>,
    /// How the service was started, for the commands that verdicts suggest.
    pub started: Started,
}

/// What `drain` is to do.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    /// One group; `None` means all that have a processor.
    pub group: Option<String>,
    /// Lines to deliver at most.
    pub max_lines: Option<u64>,
    /// Time to take at most.
    pub time_max: Option<Duration>,
    /// Lines a second.
    pub rate: Option<u64>,
}

/// Where the settings came from, to read them again.
#[derive(Clone, Debug)]
pub struct Reread {
    /// File, environment, command line.
    pub sources: Sources,
    /// The content of the file that is in effect.
    pub text: String,
}

/// What a drain has done, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Lines acked or dead-lettered since it started.
    pub lines: u64,
    /// Their bytes, estimated.
    pub bytes: u64,
    /// Lines that still wait.
    pub lines_left: u64,
    /// Their bytes, estimated.
    pub bytes_left: u64,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The last status.
    pub status: StatusJson,
    /// No line waited any more, of a run that ends by itself.
    pub all_done: bool,
    /// What a drain has done.
    pub progress: Progress,
    /// Of `once`: the files that matched and could not be read, each with the reason.
    pub unread: Vec<String>,
    /// Of a run that ends by itself: the groups whose lines cannot be delivered, each with the reason. They ended the
    /// run.
    pub stuck: Vec<String>,
}

/// Why the service did not do its job. Its text is one line, without the next step.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The store could not be opened, or failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// A part could not be started, or a setting does not fit the store; with the next step.
    #[error("{0}")]
    Start(String, Option<String>),
}
