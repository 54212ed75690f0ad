//! A durable log of lines on disk, for one process.
//!
//! A [`Log`] stores lines in order and gives each a number, its [`Seq`]. Groups read it independently: a group leases
//! lines, acks them, or makes them dead letters. Lines that every group has settled are removed from disk.
//!
//! ```
//! use spillq_storage::{BlockBuilder, Commit, GroupChange, Log, Options, Seq, SeqRange, SourceId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let dir = folder.path().join("log");
//! let mut log = Log::open_or_create(&dir, Options::default())?;
//!
//! // Append two lines of source 1. The checkpoint says how far the source was read: here its offset as text.
//! let text = b"first line\nsecond line\n";
//! let mut block = BlockBuilder::new();
//! block.push_whole(SourceId(1), 0, text, 2);
//! let committed = log.commit(&Commit {
//!     blocks: vec![block.build(0)],
//!     checkpoints: vec![(SourceId(1), text.len().to_string().into())],
//!     ..Commit::default()
//! })?;
//! assert_eq!((committed.first, committed.next), (Seq(1), Seq(3)));
//!
//! // Create a group for which all lines wait, and lease both lines to a worker.
//! log.commit(&Commit { add_groups: vec![("mail".to_owned(), Seq(0))], ..Commit::default() })?;
//! let (mail, _) = log.state().group("mail").ok_or("no such group")?;
//! let range = SeqRange { first: Seq(1), last: Seq(2) };
//! log.commit(&Commit { groups: vec![(mail, GroupChange::Lease { range })], ..Commit::default() })?;
//!
//! // Read the lines, and ack the first one.
//! let block = log.reader().block(Seq(1))?;
//! let lines: Vec<&[u8]> = block.lines().map(|line| line.bytes).collect();
//! assert_eq!(lines, [&b"first line\n"[..], b"second line\n"]);
//! let ack = GroupChange::Ack { range: SeqRange::one(Seq(1)) };
//! log.commit(&Commit { groups: vec![(mail, ack)], ..Commit::default() })?;
//!
//! // Remove segments that are acked, and do what else is due.
//! while log.maintain(0)? {}
//! drop(log);
//!
//! // After a restart one line waits, and the source continues at its checkpoint.
//! let log = Log::open(&dir, Options::default())?;
//! let (_, group) = log.state().group("mail").ok_or("no such group")?;
//! assert_eq!(group.lag_lines(log.state().next_seq()), 1);
//! assert_eq!(log.state().sources()[&SourceId(1)].checkpoint, b"23");
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - **Atomic and durable.** [`Log::commit`] makes all of a [`Commit`] durable, or nothing. When it returns, the commit
//!   survives a kill of the process and a power cut: lines, checkpoints, leases and acks alike.
//! - **Recovery.** Opening a log after any crash gives the state after the last commit that returned, or after the one
//!   that was under way.
//! - **Order.** Seqs rise by one for each line and are never used twice.
//! - **No silent loss.** Each block, journal entry and state record has a checksum. A store that has lost a commit, for
//!   example to a damaged disk, is not opened ([`Error::Damaged`]); [`repair`] keeps what can be read, and names the rest.
//! - **A full disk loses nothing.** Lines are refused with [`Error::Full`]; acks and leases still work, and so does
//!   opening, thanks to a reserve ([`DiskOptions`]).
//!
//! It promises this on a local file system that keeps what `fsync` has written. It has no access for several processes, no
//! network, no clock and no configuration. A source is a number with a checkpoint that the log does not look into.
//!
//! # Bounds
//!
//! | what | at most |
//! |---|---|
//! | a line | 16 MiB ([`BlockBuilder::LINE_BYTES_MAX`]); longer ones are stored in parts ([`LineFlags`]) |
//! | a block | 16.25 MiB of lines; 256 KiB is usual |
//! | dead letters | 100,000 for each group, 256 MiB of their lines and relocated ones ([`Log::DEAD_LETTERS_MAX`], [`Log::RETAINED_BYTES_MAX`]) |
//! | known sources | 40,000 that have ended, and those that have not |
//! | the state | 64 MiB as a record |
//! | disk | [`DiskOptions::limit_bytes`]; two journals of 28 MiB and the reserve are part of it |
//! | memory | one journal (5 MiB stored, up to four times as much in memory), the next one, the state; not more with a longer backlog |
//!
//! # How it works
//!
//! A small commit is written to a segment file without a sync, and to the journal, a single-use sled database, with one
//! sync. The blocks of a large commit are written to a segment file alone, which is synced; then the journal gets a
//! reference to each, with a second sync. [`Log::stage`] does the first half while the commit before is made. When the
//! journal is full, segment files are synced and the next journal begins with a copy of the state. Put what is waiting into
//! one [`Commit`]. The formats on disk and the steps of recovery are in `docs/explanation/design.md`.

mod acks;
mod background;
pub mod backup;
mod block;
mod bytes_le;
mod codec;
mod commit;
mod compact;
mod create;
mod disk;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod group_state;
mod ids;
mod journal;
mod lock;
mod log;
mod loss;
mod manifest;
mod mark;
mod private;
mod quarantine;
mod ranges;
mod reader;
mod record;
mod recover;
pub mod repair;
mod retained;
mod segment;
mod space;
mod spare;
mod version1;
mod version2;
mod versions;
mod view;

#[cfg(test)]
mod limits_test;
#[cfg(test)]
mod lying_cache_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod space_test;

pub use block::{Block, BlockBuilder, BlockError, Line, LineFlags, NewBlock, SourceLines};
pub use commit::Commit;
pub use error::{Error, Full};
pub use group_state::{Counts, GroupChange, GroupState};
pub use ids::{GroupId, Seq, SeqRange, SourceId, StoreId};
pub use log::{Committed, Counters, Log, Options};
pub use loss::Loss;
pub use manifest::State;
pub use reader::{ReadError, Reader};
pub use retained::{DeadCause, DeadLetter};
pub use space::{DiskOptions, Keep};
pub use view::{Verified, View};

/// What a [`State`] and a [`GroupState`] consist of.
pub mod state {
    pub use crate::acks::AckSet;
    pub use crate::group_state::Failures;
    pub use crate::manifest::SourceState;
}
