//! A commit: one atomic change of the log, and how it becomes the values of a journal.
//!
//! In the journal a commit is a framed record ([`crate::codec`]) and behind it the blocks that it stores, byte for
//! byte as in the segment file; the whole is cut into chunks, each of them self-describing (see
//! [`crate::journal`]).

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::block::NewBlock;
use crate::group_state::GroupChange;
use crate::ids::{GroupId, Seq, SourceId};
use crate::loss::{Loss, RetainedMark};

/// One atomic change to be made: everything in it becomes durable together, or nothing does.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Lines to append, in the order of their seqs.
    pub blocks: Vec<NewBlock>,
    /// The checkpoints of the sources; every source that `blocks` names has one.
    pub checkpoints: Vec<(SourceId, Bytes)>,
    /// Sources that will not be read again.
    pub forget: Vec<SourceId>,
    /// Groups to create: the name, and the seq up to which they count everything as acked.
    pub add_groups: Vec<(String, Seq)>,
    /// Groups to remove, with all that they know.
    pub remove_groups: Vec<GroupId>,
    /// What groups do, in order.
    pub groups: Vec<(GroupId, GroupChange)>,
    /// Lines that cannot be read, to be told from now on.
    pub losses: Vec<Loss>,
}

impl Commit {
    /// Whether there is nothing to be made durable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
            && self.checkpoints.is_empty()
            && self.forget.is_empty()
            && self.add_groups.is_empty()
            && self.remove_groups.is_empty()
            && self.groups.is_empty()
            && self.losses.is_empty()
    }
}

/// Where a block of a commit goes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Placed {
    pub(crate) first: Seq,
    pub(crate) lines: u32,
    pub(crate) raw_bytes: u32,
    pub(crate) bytes: u32,
    /// It begins a segment file of its own name; otherwise it goes behind the block before it.
    pub(crate) new_segment: bool,
}

/// A source's new checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Checkpoint {
    pub(crate) source: SourceId,
    /// The last line of it in this commit.
    pub(crate) last_seq: Option<Seq>,
    pub(crate) bytes: Vec<u8>,
}

/// What a commit changes, as the journal has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Changes {
    pub(crate) blocks: Vec<Placed>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) forget: Vec<SourceId>,
    pub(crate) add_groups: Vec<(String, Seq)>,
    pub(crate) remove_groups: Vec<GroupId>,
    pub(crate) groups: Vec<(GroupId, GroupChange)>,
    /// Segment files before this one are gone.
    pub(crate) first_segment: Option<Seq>,
    pub(crate) losses: Vec<Loss>,
    /// How far `kept/` is relied on from now on, where that changed.
    pub(crate) retained: Option<RetainedMark>,
}
