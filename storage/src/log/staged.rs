//! Blocks that are staged, and the writer of segment files that they are on their way to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::background::Background;
use crate::block::Block;
use crate::commit::Placed;
use crate::disk::Disk;
use crate::error::{Context, Error, Result};
use crate::ids::{Seq, SourceId};
use crate::manifest::SegmentMeta;
use crate::segment::{self, SegmentWriter, Write};

/// The newest segment files, and what is being written to them.
pub(super) struct Segments {
    pub(super) writer: Arc<Mutex<SegmentWriter>>,
    pub(super) thread: Background,
    /// The oldest first. The next commit with lines has the blocks of the first one.
    pub(super) staged: VecDeque<Staged>,
    /// The sync of the segments before this one in the background.
    pub(super) syncing: Option<(Seq, Receiver<Result<()>>)>,
    /// What the journal stored when that last began.
    pub(super) syncing_since_bytes: u64,
}

/// The blocks of one commit.
pub(super) struct Staged {
    pub(super) appended: Appended,
    pub(super) end: End,
    pub(super) bytes: u64,
    pub(super) written: Written,
}

/// Whether they are on disk.
pub(super) enum Written {
    Awaited(Receiver<Result<()>>),
    Known(Result<()>),
}

impl Written {
    pub(super) fn wait(self) -> Result<()> {
        match self {
            Written::Awaited(result) => result.recv().unwrap_or_else(|_| {
                Err(Error::Poisoned("the thread that writes segments has ended".to_owned()))
            }),
            Written::Known(result) => result,
        }
    }
}

/// Where the next block goes.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) next_seq: Seq,
    /// The newest segment, and its length.
    pub(super) segment: Option<(Seq, u64)>,
}

/// The blocks of a commit in their places.
#[derive(Default)]
pub(super) struct Appended {
    pub(super) placed: Vec<Placed>,
    pub(super) blocks: Vec<Arc<Block>>,
    /// What the journal has to hold as well.
    pub(super) writes: Vec<Write>,
    /// The last line of each source in them.
    pub(super) last_seqs: BTreeMap<SourceId, Seq>,
}

impl Segments {
    pub(super) fn open(disk: &Arc<dyn Disk>, newest: Option<&SegmentMeta>) -> Result<Segments> {
        let writer = SegmentWriter::open(Arc::clone(disk), newest)?;
        let thread = Background::new(disk.as_ref(), "spillq-segments");
        Ok(Segments {
            writer: Arc::new(Mutex::new(writer)),
            thread: thread.during("start a thread for", segment::FOLDER)?,
            staged: VecDeque::new(),
            syncing: None,
            syncing_since_bytes: 0,
        })
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, SegmentWriter> {
        lock(&self.writer)
    }
}

/// A writer that another thread left by a panic has failed, which it says itself.
pub(super) fn lock(writer: &Mutex<SegmentWriter>) -> MutexGuard<'_, SegmentWriter> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}
