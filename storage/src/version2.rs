//! The journal records of format version 2, and their conversion to the current ones. In version 2 a journal had the bytes
//! of all its blocks.
//!
//! Nothing here is written. When version 2 need not be read any more, remove this file with `version1.rs`, and raise
//! `OLDEST` in `versions.rs` and `OLDEST_VERSION` in `mark.rs`.
//!
//! Types whose layout has not changed are the current ones. Before the layout of one changes, copy it to this file.

#[cfg(test)]
mod tests;

use bincode::Decode;
#[cfg(test)]
use bincode::Encode;

use crate::codec;
use crate::commit::{self, Checkpoint};
use crate::group_state::GroupChange;
use crate::ids::{GroupId, Seq, SourceId};
use crate::loss::{Loss, RetainedMark};
use crate::manifest::State;
use crate::record;

/// Where a block is: in the journal, and in the segment.
#[derive(Decode)]
#[cfg_attr(test, derive(Encode))]
pub(crate) struct Placed {
    pub(crate) first: Seq,
    pub(crate) lines: u32,
    pub(crate) raw_bytes: u32,
    pub(crate) bytes: u32,
    pub(crate) new_segment: bool,
}

impl From<Placed> for commit::Placed {
    fn from(old: Placed) -> commit::Placed {
        commit::Placed {
            first: old.first,
            lines: old.lines,
            raw_bytes: old.raw_bytes,
            bytes: old.bytes,
            new_segment: old.new_segment,
            reference: None,
        }
    }
}

/// What a commit changes.
#[derive(Decode)]
#[cfg_attr(test, derive(Encode))]
pub(crate) struct Changes {
    pub(crate) blocks: Vec<Placed>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) forget: Vec<SourceId>,
    pub(crate) add_groups: Vec<(String, Seq)>,
    pub(crate) remove_groups: Vec<GroupId>,
    pub(crate) groups: Vec<(GroupId, GroupChange)>,
    pub(crate) first_segment: Option<Seq>,
    pub(crate) losses: Vec<Loss>,
    pub(crate) retained: Option<RetainedMark>,
}

impl From<Changes> for commit::Changes {
    fn from(old: Changes) -> commit::Changes {
        commit::Changes {
            blocks: old.blocks.into_iter().map(Into::into).collect(),
            checkpoints: old.checkpoints,
            forget: old.forget,
            add_groups: old.add_groups,
            remove_groups: old.remove_groups,
            groups: old.groups,
            first_segment: old.first_segment,
            losses: old.losses,
            retained: old.retained,
        }
    }
}

/// The record of a commit.
#[derive(Decode)]
#[cfg_attr(test, derive(Encode))]
pub(crate) enum Record {
    Manifest(Box<State>),
    Changes(Changes),
}

impl Record {
    /// Decodes the body of a record.
    ///
    /// # Errors
    /// What does not match.
    pub(crate) fn decode(body: &[u8]) -> Result<record::Record, String> {
        Ok(match codec::decode_body::<Record>(body)? {
            Record::Manifest(state) => record::Record::Manifest(state),
            Record::Changes(changes) => record::Record::Changes(changes.into()),
        })
    }
}
