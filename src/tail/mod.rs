//! The tail: follows the files that globs name and appends their lines to the log.
//!
//! A plain thread scans the folders, with inotify as a hint, knows each file again by its content
//! (`docs/explanation/tail.md`), reads whole lines and hands them over in blocks, with the checkpoints that cover them in the
//! same append. Standard input and FIFOs go the same way, but what was read of them is nowhere else until it is
//! durable. Bounds: 10,000 sources of 500 bytes, 4 MiB of buffers, two appends in flight, half of the descriptor
//! limit, 64 streams. It never drops a line, never follows its own outputs, and waits while the log is full: the files
//! are the outer buffer.

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
mod notice;
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
pub use settings::{Follow, From, MAX_LINE_BYTES, ROTATE_WAIT, SCAN_INTERVAL, Settings};
pub use status::{Counters, LeftOutFiles, Snapshot, SourceState, SourceStatus};
pub use thread::{Tail, TailHandle};

pub use crate::unreadable::{Unreadable, WhyUnreadable};
