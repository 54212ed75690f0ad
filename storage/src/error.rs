//! Errors of the log, and what the caller can do about each.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a log was not opened, or a commit not made.
#[derive(Debug, Error)]
pub enum Error {
    /// The disk returned an error. If a commit returns it, the log is poisoned: whether the commit is durable is known
    /// after the log is opened again.
    #[error("could not {attempted} {path}: {source}")]
    Io {
        /// What was attempted, as a verb.
        attempted: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the disk returned.
        source: io::Error,
    },
    /// There is no space for lines. Nothing was changed: the same commit may be tried again later, and commits without
    /// lines still succeed.
    #[error("the log is full: {0}")]
    Full(Full),
    /// Another process has the store open.
    #[error("the store in {path} is in use by process {pid}")]
    InUse {
        /// The data dir.
        path: PathBuf,
        /// The process, as it wrote its id to LOCK.
        pid: String,
    },
    /// The folder holds something that is not a store. It was not touched.
    #[error("{path} is not a spillq store: it holds {found}")]
    NotAStore {
        /// The data dir.
        path: PathBuf,
        /// What is in it instead.
        found: String,
    },
    /// The data dir belongs to another user. It was not touched.
    #[error("{path} belongs to user {owner}, and this process runs as {own}")]
    OfAnotherUser {
        /// The data dir.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// The effective user id of the process.
        own: u32,
    },
    /// Other users can access the store. It was not touched.
    #[error("{path} is open to other users (mode {mode:04o})")]
    OpenToOthers {
        /// The data dir.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The folder does not exist, or is empty.
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
    /// The store is damaged. Nothing was changed, because to continue could lose acknowledged lines silently.
    /// [`crate::repair::repair`] keeps what can be read.
    #[error("the store in {path} is damaged: {what}")]
    Damaged {
        /// The data dir.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// An earlier operation failed, so it is not known what is durable. Drop the log and open it again.
    #[error("the log does not continue after an earlier failure: {0}")]
    Poisoned(String),
}

/// Why there is no space for lines.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Full {
    /// The limit of the store is reached.
    #[error("{used} of at most {limit} bytes are used")]
    Limit {
        /// Bytes that the store takes.
        used: u64,
        /// Its limit.
        limit: u64,
    },
    /// The file system has less free space than the store must leave.
    #[error("the file system has {free} bytes free, and {min_free} must stay free")]
    MinFree {
        /// Free bytes.
        free: u64,
        /// Bytes that must stay free.
        min_free: u64,
    },
    /// A write failed because the file system is full.
    #[error("the file system is full")]
    NoSpace,
}

impl Error {
    /// Whether the only problem is a full disk: with free space the same may succeed.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::Io { source, .. } if is_no_space(source))
    }

    /// The error with paths below `dir`. The disk knows paths relative to it.
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

/// Adds what was attempted, and on which file.
pub(crate) trait Context<T> {
    fn during(self, attempted: &'static str, path: &str) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn during(self, attempted: &'static str, path: &str) -> Result<T> {
        self.map_err(|source| Error::Io { attempted, path: PathBuf::from(path), source })
    }
}

/// Whether the disk is full, or a quota is reached.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
