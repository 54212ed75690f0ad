//! A commit: one atomic change of the log, as it is asked for and as the journal stores it.
//!
//! In the journal a commit is a framed record ([`crate::codec`]). Behind it are the blocks of a small commit, byte for byte
//! as in the segment file; a large commit references its blocks instead, which are in the segment file only. All of that is
//! cut into chunks, which are self-describing ([`crate::journal`]).

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::block::NewBlock;
use crate::group_state::GroupChange;
use crate::ids::{GroupId, Seq, SeqRange, SourceId};
use crate::loss::{Loss, RetainedMark};

/// An atomic change: [`crate::Log::commit`] makes all of it durable, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Lines to append, in the order of their seqs.
    pub blocks: Vec<NewBlock>,
    /// For each source in `blocks`, its new checkpoint: how far it was read, in bytes that the log does not look into. They
    /// are part of the state, which each journal begins with: keep them below 16 KiB.
    pub checkpoints: Vec<(SourceId, Bytes)>,
    /// Sources that will not be read again. Their checkpoints go when no line of theirs is stored.
    pub forget: Vec<SourceId>,
    /// Groups to create: the name, and the seq up to which all lines count as acked ([`Seq`] 0 for none).
    pub add_groups: Vec<(String, Seq)>,
    /// Groups to remove, with their state.
    pub remove_groups: Vec<GroupId>,
    /// Changes of groups, in order.
    pub groups: Vec<(GroupId, GroupChange)>,
    /// Lines that were found to be unreadable, to be recorded as lost.
    pub losses: Vec<Loss>,
}

impl Commit {
    /// Whether it changes nothing.
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

/// Where a block of a commit is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Placed {
    pub(crate) first: Seq,
    pub(crate) lines: u32,
    pub(crate) raw_bytes: u32,
    pub(crate) bytes: u32,
    /// It is the first block of a segment file; otherwise it follows the block before it.
    pub(crate) new_segment: bool,
    /// The checksum of its header ([`crate::block::BlockHeader::crc`]) if only the segment file has its bytes; `None` if
    /// they follow the record in the journal.
    pub(crate) reference: Option<u32>,
}

impl Placed {
    /// The seqs of its lines.
    pub(crate) fn range(&self) -> SeqRange {
        SeqRange { first: self.first, last: self.first.plus(u64::from(self.lines)).prev() }
    }
}

/// A source's new checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Checkpoint {
    pub(crate) source: SourceId,
    /// The last line of the source in this commit.
    pub(crate) last_seq: Option<Seq>,
    pub(crate) bytes: Vec<u8>,
}

/// What a commit changes, as the journal stores it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Changes {
    pub(crate) blocks: Vec<Placed>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) forget: Vec<SourceId>,
    pub(crate) add_groups: Vec<(String, Seq)>,
    pub(crate) remove_groups: Vec<GroupId>,
    pub(crate) groups: Vec<(GroupId, GroupChange)>,
    /// Segment files before this one are removed.
    pub(crate) first_segment: Option<Seq>,
    pub(crate) losses: Vec<Loss>,
    /// How much of `kept/` is relied on from now on, if that changed.
    pub(crate) retained: Option<RetainedMark>,
}
