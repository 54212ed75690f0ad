//! What can go wrong with a log, and what the caller may still do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a log could not be opened, or a commit not made.
#[derive(Debug, Error)]
pub enum Error {
    /// The disk refused something. From a commit: nothing of it was answered, the log is poisoned, and opening it
    /// again tells what is durable.
    #[error("could not {attempted} {path}: {source}")]
    Io {
        /// What was attempted, as a verb.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// What was found.
        source: io::Error,
    },
    /// No room for lines: the limit is reached, or the file system has too little left. Nothing was changed; the
    /// same commit may be tried again later, and commits without lines still go through.
    #[error("the log is full: {0}")]
    Full(Full),
    /// Another process has the store open.
    #[error("the store in {path} is in use by process {pid}")]
    InUse {
        /// The data dir.
        path: PathBuf,
        /// Who has it, as that process wrote it.
        pid: String,
    },
    /// The folder exists and is no store of ours. It was not touched.
    #[error("{path} is not a spillq store: it holds {found}")]
    NotAStore {
        /// The data dir.
        path: PathBuf,
        /// What is in it instead.
        found: String,
    },
    /// The data dir is another user's. It was not touched.
    #[error("{path} belongs to user {owner}, and this process runs as {own}")]
    OfAnotherUser {
        /// The data dir.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// The effective user id of the process.
        own: u32,
    },
    /// Other users can reach into the store. It was not touched.
    #[error("{path} is open to other users (mode {mode:04o})")]
    OpenToOthers {
        /// The data dir.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is no such folder.
    #[error("there is no store in {path}")]
    Missing {
        /// The data dir.
        path: PathBuf,
    },
    /// A store of a format version that this program does not read. It was not touched.
    #[error(
        "the store in {path} has format version {found}, this program reads versions {oldest} to {newest}"
    )]
    Version {
        /// The data dir.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The oldest version that this program reads.
        oldest: u32,
        /// The newest, which it writes.
        newest: u32,
    },
    /// The store contradicts itself. Nothing was changed: going on could lose acknowledged lines silently.
    #[error("the store in {path} is damaged: {what}")]
    Damaged {
        /// The data dir.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// An earlier commit failed, so what is durable is not known; the process must end and open the log again.
    #[error("the log refuses to go on after an earlier failure: {0}")]
    Poisoned(String),
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Full {
    /// The store's own limit.
    #[error("{used} of at most {limit} bytes are used")]
    Limit {
        /// Bytes that the store takes.
        used: u64,
        /// Its limit.
        limit: u64,
    },
    /// The file system has less than the store must leave free.
    #[error("the file system has {free} bytes left, and {min_free} are to stay free")]
    MinFree {
        /// Bytes left.
        free: u64,
        /// The least to leave.
        min_free: u64,
    },
    /// The file system refused a write for lack of room.
    #[error("the file system has no room left")]
    NoSpace,
}

impl Error {
    /// Whether the disk had no room, which is all that is wrong: with room the same is worth another try.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::Io { source, .. } if is_no_space(source))
    }

    /// The error with the data dir in its paths, which the disk knows relative to it.
    pub(crate) fn under(self, dir: &Path) -> Error {
        match self {
            Error::Io { attempted, path, source } => Error::Io { attempted, path: dir.join(path), source },
            Error::Damaged { path, what } => {
                let what =
                    if path.as_os_str().is_empty() { what } else { format!("{}: {what}", path.display()) };
                Error::Damaged { path: dir.to_owned(), what }
            }
            Error::NotAStore { found, .. } => Error::NotAStore { path: dir.to_owned(), found },
            Error::Version { found, oldest, newest, .. } => {
                Error::Version { path: dir.to_owned(), found, oldest, newest }
            }
            other => other,
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Says what was attempted, on what.
pub(crate) trait Context<T> {
    fn during(self, attempted: &'static str, path: &str) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn during(self, attempted: &'static str, path: &str) -> Result<T> {
        self.map_err(|source| Error::Io { attempted, path: PathBuf::from(path), source })
    }
}

/// Whether the disk said that there is no room (the file system, or a quota).
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
