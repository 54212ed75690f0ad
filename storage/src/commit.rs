//! A commit: one atomic change of the log, and how it becomes the values of a journal.
//!
//! In the journal a commit is a framed record ([`crate::codec`]) and behind it the blocks that it stores, byte for
//! byte as in the segment file; the whole is cut into chunks, each of them self-describing (see
//! [`crate::journal`]).

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::block::NewBlock;
use crate::codec::Versioned;
use crate::ids::{GroupId, Seq, SeqRange, SourceId};
use crate::manifest::{Loss, RetainedMark, State};
use crate::version1;

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

/// One thing that a group does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum GroupChange {
    /// Lines are lent to a processor. Nothing is counted: what counts is how the lease ends.
    Lease {
        /// Which lines.
        range: SeqRange,
    },
    /// A lease ended without an ack. A range of which no lease is out changes nothing.
    Return {
        /// The range of that lease.
        range: SeqRange,
        /// The delivery failed, and its line, if it was one, has been failing for this many milliseconds: counted in
        /// [`crate::GroupState::failures`]. `None`: it was never delivered, or taken back in time; nothing is counted.
        failed_for_ms: Option<u64>,
    },
    /// Lines are done with.
    Ack {
        /// Which lines; what of it was acked before does no harm.
        range: SeqRange,
    },
    /// A line is set aside. It stands in `kept/` already.
    Dead {
        /// Which line.
        seq: Seq,
    },
    /// A dead letter is to be delivered again.
    Revive {
        /// Which line.
        seq: Seq,
    },
    /// No new leases, or again.
    Pause(bool),
    /// Lines that wait are settled although nobody processed them: counted as skipped, or as dropped.
    Skip {
        /// Which lines; what of it was settled before does no harm.
        range: SeqRange,
        /// A limit did it, not an operator.
        dropped: bool,
    },
    /// Every line from here on waits again, with no attempts against it; all leases end. Letters of dead lines from
    /// here on end with this: opening settles those that a crash left.
    Again {
        /// The first of them; a segment must hold it.
        from: Seq,
    },
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

/// What a journal's commit says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Record {
    /// The first commit of every journal.
    Manifest(Box<State>),
    /// Every other one.
    Changes(Changes),
}

impl Versioned for Record {
    const NAME: &'static str = "a journal record";
    /// 2: kinds of losses; failures and deaths in place of attempts; leases that count nothing.
    const VERSION: u8 = 2;
    const OLDEST: u8 = 1;

    fn decode_older(_: u8, body: &[u8]) -> Result<Record, String> {
        version1::Record::decode(body)
    }
}
