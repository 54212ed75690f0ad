//! The tail: follows the files that globs name and appends their lines to the log.
//!
//! One thread scans the folders, with inotify as a hint, identifies each file by its content (`docs/explanation/tail.md`),
//! reads whole lines and sends them to the log in blocks, with the checkpoints that cover them in the same append. Standard
//! input and FIFOs go the same way, but until their bytes are durable they are only in memory. Bounds: 10,000 sources of 500
//! bytes, 12 MiB of buffers, three appends in flight, half of the descriptor limit, 64 streams. The tail never drops a line,
//! never follows outputs of the service, and waits while the log is full: the files are the outer buffer.
//!
//! The files are in layers, and each imports only from layers below its own:
//!
//! ```text
//! thread                                    the thread, its handle, stop, status
//! worker                                    one round: answers, a scan when due, one append
//! scan, turn, append, checkpoint            one scan; one turn of a source; appends in flight
//! rules/                                    what is decided about followed files
//! pipes/                                    standard input, FIFOs
//! find/                                     which files exist
//! bytes/                                    from files to blocks
//! known/                                    plain data and pure rules
//! settings, status, error, bell, clock
//! ```

mod append;
mod bell;
mod bytes;
mod checkpoint;
mod clock;
mod error;
mod find;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod known;
mod pipes;
mod rules;
mod scan;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod thread;
mod turn;
mod worker;

pub use append::BUFFERED_BYTES_MAX;
pub use checkpoint::{adopt, remake};
pub use error::TailError;
pub use find::follows::Follows;
pub use find::preview::{Preview, preview};
pub use known::record::{RecordError, SourceRecord};
pub use known::table::SOURCES_MAX;
pub use settings::{Follow, From, SCAN_INTERVAL, STDIN, Settings};
pub use status::{Counters, LeftOutFiles, Snapshot, SourceState, SourceStatus};
pub use thread::TailHandle;

pub use crate::unreadable::{Unreadable, WhyUnreadable};

/// Where the source of a checkpoint was first followed; `None` if the checkpoint does not say so.
#[must_use]
pub fn first_path(checkpoint: &[u8]) -> Option<std::path::PathBuf> {
    SourceRecord::decode(checkpoint).ok()?.first_path().map(std::path::Path::to_owned)
}
