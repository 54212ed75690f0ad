//! The records of format version 1, and their conversion to the current ones.
//!
//! This is all that is needed to read a store, a backup or a dead letter that a version 1 program wrote. Nothing here is
//! written. When version 1 need not be read any more, remove this file and what `versions.rs` has of it, and raise
//! `OLDEST_VERSION` in `mark.rs`.
//!
//! Types whose layout has not changed ([`SegmentMeta`], [`SourceState`], [`AckSet`], [`Checkpoint`] and the numbers) are
//! the current ones; [`Placed`] is that of version 2. Before the layout of one changes, copy it to this file.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bincode::Decode;
#[cfg(test)]
use bincode::Encode;

use crate::acks::AckSet;
use crate::codec;
use crate::commit::{self, Checkpoint};
use crate::group_state::{self, Failures};
use crate::ids::{GroupId, Seq, SeqRange, SourceId, StoreId};
use crate::loss::{self, LossKind, RetainedMark};
use crate::manifest::{self, SegmentMeta, SourceState};
use crate::record;
use crate::retained::{self, DeadCause};
use crate::version2::Placed;

/// How the reason of a loss began if a limit had dropped the lines.
const DROPPED: &str = "dropped for ";

/// A loss. Its reason showed its kind.
#[derive(Decode)]
#[cfg_attr(test, derive(Encode))]
pub(crate) struct Loss {
    pub(crate) range: SeqRange,
    pub(crate) reason: String,
}

impl From<Loss> for loss::Loss {
    fn from(Loss { range, reason }: Loss) -> loss::Loss {
        let kind = if reason.starts_with(DROPPED) { LossKind::Dropped } else { LossKind::Unreadable };
        loss::Loss { range, kind, reason }
    }
}

/// A lease. It counted an attempt of its line if it was `alone`.
#[derive(Decode)]
#[cfg_attr(test, derive(Encode))]
pub(crate) struct Leased {
    pub(crate) range: SeqRange,
    pub(crate) alone: bool,
}

/// A group, with one count of attempts for each line.
#[derive(Decode)]
#[cfg_attr(test, derive(Encode))]
pub(crate) struct GroupState {
    pub(crate) name: String,
    pub(crate) paused: bool,
    pub(crate) acks: AckSet,
    pub(crate) revived: BTreeSet<Seq>,
    pub(crate) leases: Vec<Leased>,
    pub(crate) suspects: Vec<SeqRange>,
    pub(crate) attempts: BTreeMap<Seq, u32>,
    pub(crate) acked_lines: u64,
    pub(crate) dead_lines: u64,
    pub(crate) skipped_lines: u64,
    pub(crate) dropped_lines: u64,
}

impl From<GroupState> for group_state::GroupState {
    /// An attempt becomes a failure, even if the process died in it: version 1 did not distinguish them, and both count
    /// towards the same limit. How long a line had been failing was not stored: with 0 it gets more time than it should,
    /// never less.
    fn from(old: GroupState) -> group_state::GroupState {
        let mut attempts = old.attempts;
        for leased in old.leases.iter().filter(|leased| leased.alone && leased.range.lines() == 1) {
            // It was counted with the lease. Now the end of the lease counts, as a failure or as a death.
            if let Some(times) = attempts.get_mut(&leased.range.first) {
                *times = times.saturating_sub(1);
            }
        }
        attempts.retain(|_, times| *times > 0);
        group_state::GroupState {
            name: old.name,
            paused: old.paused,
            acks: old.acks,
            revived: old.revived,
            leases: old.leases.into_iter().map(|leased| leased.range).collect(),
            suspects: old.suspects,
            failures: attempts.into_iter().map(|(seq, times)| (seq, Failures { times, for_ms: 0 })).collect(),
            deaths: BTreeMap::new(),
            acked_lines: old.acked_lines,
            dead_lines: old.dead_lines,
            skipped_lines: old.skipped_lines,
            dropped_lines: old.dropped_lines,
        }
    }
}

/// The state.
#[derive(Decode)]
#[cfg_attr(test, derive(Encode))]
pub(crate) struct State {
    pub(crate) store: StoreId,
    pub(crate) journal: u64,
    pub(crate) commit: u64,
    pub(crate) run: u64,
    pub(crate) next_seq: Seq,
    pub(crate) next_source: SourceId,
    pub(crate) next_group: GroupId,
    pub(crate) segments: VecDeque<SegmentMeta>,
    pub(crate) sources: BTreeMap<SourceId, SourceState>,
    pub(crate) groups: BTreeMap<GroupId, GroupState>,
    pub(crate) losses: VecDeque<Loss>,
    pub(crate) appended_bytes: u64,
    pub(crate) retained: RetainedMark,
}

impl State {
    /// Decodes the body of a record.
    ///
    /// # Errors
    /// What does not match.
    pub(crate) fn decode(body: &[u8]) -> Result<manifest::State, String> {
        codec::decode_body::<State>(body).map(Into::into)
    }
}

impl From<State> for manifest::State {
    fn from(old: State) -> manifest::State {
        manifest::State {
            store: old.store,
            journal: old.journal,
            commit: old.commit,
            run: old.run,
            next_seq: old.next_seq,
            next_source: old.next_source,
            next_group: old.next_group,
            segments: old.segments,
            sources: old.sources,
            groups: old.groups.into_iter().map(|(id, group)| (id, group.into())).collect(),
            losses: old.losses.into_iter().map(Into::into).collect(),
            appended_bytes: old.appended_bytes,
            retained: old.retained,
        }
    }
}

/// What a group does.
#[derive(Decode)]
#[cfg_attr(test, derive(Encode))]
pub(crate) enum GroupChange {
    Lease {
        range: SeqRange,
        #[allow(dead_code)] // It is part of the layout.
        alone: bool,
    },
    Return {
        range: SeqRange,
        untried: bool,
    },
    Ack {
        range: SeqRange,
    },
    Dead {
        seq: Seq,
    },
    Revive {
        seq: Seq,
    },
    Pause(bool),
    Skip {
        range: SeqRange,
        dropped: bool,
    },
    Again {
        from: Seq,
    },
}

impl From<GroupChange> for group_state::GroupChange {
    /// Whether a lease was `alone` is not converted: a single-line batch that failed, or was in flight, counts as if it was
    /// `alone`. The effect is small: the line is delivered by itself next, or becomes a dead letter some deliveries
    /// earlier. It concerns the commits of one journal, once.
    fn from(old: GroupChange) -> group_state::GroupChange {
        use group_state::GroupChange as New;
        match old {
            GroupChange::Lease { range, .. } => New::Lease { range },
            GroupChange::Return { range, untried } => {
                New::Return { range, failed_for_ms: (!untried).then_some(0) }
            }
            GroupChange::Ack { range } => New::Ack { range },
            GroupChange::Dead { seq } => New::Dead { seq },
            GroupChange::Revive { seq } => New::Revive { seq },
            GroupChange::Pause(paused) => New::Pause(paused),
            GroupChange::Skip { range, dropped } => New::Skip { range, dropped },
            GroupChange::Again { from } => New::Again { from },
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
            groups: old.groups.into_iter().map(|(id, change)| (id, change.into())).collect(),
            first_segment: old.first_segment,
            losses: old.losses.into_iter().map(Into::into).collect(),
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
            Record::Manifest(state) => record::Record::Manifest(Box::new((*state).into())),
            Record::Changes(changes) => record::Record::Changes(changes.into()),
        })
    }
}

/// A dead letter, without a cause.
#[derive(Decode)]
#[cfg_attr(test, derive(Encode))]
pub(crate) struct DeadLetter {
    pub(crate) group: GroupId,
    pub(crate) seq: Seq,
    pub(crate) attempts: u32,
    pub(crate) time_ms: u64,
    pub(crate) reason: String,
}

impl DeadLetter {
    /// Decodes the body of a record.
    ///
    /// # Errors
    /// What does not match.
    pub(crate) fn decode(body: &[u8]) -> Result<retained::DeadLetter, String> {
        codec::decode_body::<DeadLetter>(body).map(Into::into)
    }
}

impl From<DeadLetter> for retained::DeadLetter {
    fn from(old: DeadLetter) -> retained::DeadLetter {
        retained::DeadLetter {
            group: old.group,
            seq: old.seq,
            attempts: old.attempts,
            time_ms: old.time_ms,
            cause: DeadCause::Unknown,
            reason: old.reason,
        }
    }
}
