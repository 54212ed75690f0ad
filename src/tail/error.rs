//! What can go wrong: with the settings, which stops the start; with one file, which stops nothing else.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::plain::size;
use crate::unreadable::WhyUnreadable;

/// Why the tail cannot start. Nothing was read.
#[derive(Debug, Error)]
pub enum TailError {
    /// A glob that does not parse.
    #[error("follow `{glob}`: {found}")]
    Glob {
        /// As written.
        glob: String,
        /// What is wrong with it.
        found: String,
    },
    /// A glob that is not absolute.
    #[error("follow `{0}`: not an absolute path")]
    Relative(String),
    /// A limit that no block can hold, or that no line fits in.
    #[error("max_line_bytes is {}, at least 1 B and at most {}", size(*found as u64), size(*max as u64))]
    LineBytes {
        /// As set.
        found: usize,
        /// The most.
        max: usize,
    },
    /// More `[[follow]]` sections than a source can name.
    #[error("{0} [[follow]] sections, at most 1,000")]
    Follows(usize),
    /// Nothing can be read from standard input.
    #[error("follow standard input: {0}")]
    Input(#[source] io::Error),
    /// There is nothing to wait with.
    #[error("create the epoll descriptor that the tail waits with: {0}")]
    Wait(#[source] io::Error),
    /// The thread cannot be started.
    #[error("start the tail's thread: {0}")]
    Thread(#[source] io::Error),
}

/// Why one file cannot be read. Each scan tries again; the other files continue.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    #[error("open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("open {}: {found}, {wanted}", path.display())]
    NotAFile { path: PathBuf, found: &'static str, wanted: &'static str },
    #[error("read {} at offset {offset}: {source}", path.display())]
    Read { path: PathBuf, offset: u64, source: io::Error },
    #[error("decompress {}: the file is incomplete, it ends after {} of content; it is read once it is complete", path.display(), size(*decompressed))]
    Incomplete { path: PathBuf, decompressed: u64 },
    #[error(
        "decompress {}: {source}, after {} of content; nothing of it is read. To read the part that is good, decompress it into a \
         followed file", path.display(), size(*decompressed)
    )]
    Damaged { path: PathBuf, decompressed: u64, source: io::Error },
}

impl ReadError {
    /// What kind of reason it is.
    pub(crate) fn why(&self) -> WhyUnreadable {
        match self {
            ReadError::Open { .. } | ReadError::Read { .. } => WhyUnreadable::System,
            ReadError::NotAFile { .. } => WhyUnreadable::NotAFile,
            ReadError::Incomplete { .. } | ReadError::Damaged { .. } => WhyUnreadable::Content,
        }
    }

    /// Whether the file is simply no longer there.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, ReadError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
