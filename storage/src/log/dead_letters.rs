//! Dead letters: how they are stored, ended and read.

use super::Log;
use crate::block::Block;
use crate::error::Result;
use crate::ids::{GroupId, Seq, SeqRange};
use crate::retained::{DEAD_LETTERS_MAX, DeadLetter, RETAINED_BYTES_MAX};

impl Log {
    /// The most dead letters of a group.
    pub const DEAD_LETTERS_MAX: usize = DEAD_LETTERS_MAX;
    /// The most bytes of dead letters and relocated lines.
    pub const RETAINED_BYTES_MAX: u64 = RETAINED_BYTES_MAX;

    /// Stores a dead letter and its line. `block` holds the line. A commit with [`crate::GroupChange::Dead`] must follow, and
    /// makes both durable first: after a crash before that the line waits as before.
    ///
    /// # Errors
    /// As [`Log::commit`].
    pub fn bury(&mut self, letter: &DeadLetter, block: &Block) -> Result<()> {
        self.refuse_poisoned()?;
        self.space.release_for(self.disk.as_ref(), block.raw().len() as u64)?;
        let buried =
            self.retained.keep(block, SeqRange::one(letter.seq)).and_then(|()| self.retained.bury(letter));
        self.or_poison(buried)
    }

    /// Ends dead letters: they are discarded, or put back if a commit with [`crate::GroupChange::Revive`] was made before.
    ///
    /// # Errors
    /// As [`Log::commit`].
    pub fn settle_dead(&mut self, group: GroupId, seqs: &[Seq]) -> Result<()> {
        self.refuse_poisoned()?;
        self.space.relieve(self.disk.as_ref())?;
        let settled = seqs
            .iter()
            .try_for_each(|seq| self.retained.end_letter(group, *seq))
            .and_then(|()| self.retained.sync());
        let settled = settled
            .and_then(|()| if self.removal_held { Ok(()) } else { self.retained.compact(&self.state) });
        self.or_poison(settled)
    }

    /// The dead letters of a group from `from` on, at most `limit`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn dead_letters(&self, group: GroupId, from: Seq, limit: usize) -> Result<Vec<DeadLetter>> {
        self.retained.dead(group, from, limit)
    }

    /// How many dead letters a group has.
    #[must_use]
    pub fn dead_count(&self, group: GroupId) -> usize {
        self.retained.dead_count(group)
    }

    /// The seqs of a group's dead letters within `range`, at most [`Log::DEAD_LETTERS_MAX`].
    #[must_use]
    pub fn dead_seqs(&self, group: GroupId, range: SeqRange) -> Vec<Seq> {
        self.retained.dead_seqs(group, range).collect()
    }

    /// How many lines directly before `seq`, without a gap, are dead letters of the group with
    /// [`crate::DeadCause::Rejected`], counted up to `most`. Reads nothing from disk.
    #[must_use]
    pub fn rejected_below(&self, group: GroupId, seq: Seq, most: u32) -> u32 {
        self.retained.rejected_below(group, seq, most)
    }

    /// Whether the group can have no more dead letters: [`Log::DEAD_LETTERS_MAX`] or [`Log::RETAINED_BYTES_MAX`] is
    /// reached. The log does not refuse more; its user should stop the group.
    #[must_use]
    pub fn is_dead_full(&self, group: GroupId) -> bool {
        self.dead_count(group) >= DEAD_LETTERS_MAX || self.retained.bytes() >= RETAINED_BYTES_MAX
    }
}
