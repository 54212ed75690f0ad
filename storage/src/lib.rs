//! The durable log of spillq: lines go in with the checkpoints of their sources, groups lease and ack them, and
//! what every group has acked is removed from disk.
//!
//! # The contract
//!
//! - [`Log::commit`] makes one [`Commit`] durable as a whole, or not at all. When it returns, the commit survives
//!   a kill of the process and a power cut. Seqs rise by one and are never used twice.
//! - Opening a log after any crash gives the state after the last commit that was answered, or after a later one
//!   that was under way.
//! - Damage is told, never passed over: opening refuses a store that says less than was answered.
//! - Memory does not grow with the backlog: one journal of about 8 MiB, the next one, an entry a segment.
//!
//! Every commit goes through one transaction of a single-use sled database, the journal; the backlog lies behind
//! it in plain segment files. The crate knows no followed files, no clock, no async and no configuration; a source
//! is an opaque number.

mod acks;
mod background;
mod backup;
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
mod repair;
mod retained;
mod segment;
mod space;
mod spare;
mod version1;
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

pub use acks::{ACK_RANGES_MAX, AckSet};
pub use backup::{BackupFile, MANIFEST, Restore, Snapshot};
pub use block::{
    BLOCK_BYTES_MAX, BLOCK_MAGIC, BLOCK_TARGET_BYTES, Block, BlockBuilder, BlockError, Extent,
    LINE_BYTES_MAX, Line, LineFlags, Lines, NewBlock,
};
pub use commit::Commit;
pub use error::{Error, Full};
pub use group_state::{Failures, GroupChange, GroupState, Leased};
pub use ids::{GroupId, Seq, SeqRange, SourceId, StoreId};
pub use log::{Committed, Counters, Held, Log, Options};
pub use loss::{Loss, LossKind, RetainedMark};
pub use manifest::{SegmentMeta, SourceState, State};
pub use quarantine::Quarantined;
pub use reader::{ReadError, Reader};
pub use repair::{Remake, Repaired, SourceEnd, repair};
pub use retained::{DEAD_LETTERS_MAX, DeadCause, DeadLetter, REASON_BYTES_MAX, RETAINED_BYTES_MAX};
pub use space::{DiskOptions, Keep};
pub use view::{Verified, View};
