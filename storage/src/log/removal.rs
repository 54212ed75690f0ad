//! Compaction: segments that no group needs are removed, and the last lines that hold one are relocated.

use super::Log;
use crate::commit::Changes;
use crate::compact;
use crate::error::{Context, Result};
use crate::group_state::{Counts, GroupChange};
use crate::ids::{GroupId, Seq, SeqRange};
use crate::loss::Loss;
use crate::retained::RETAINED_BYTES_MAX;
use crate::segment;
use crate::space::Keep;

/// Commits after which the lines that hold the oldest segment are relocated.
const STUCK_COMMITS: u64 = 8;

impl Log {
    pub(super) fn remove_oldest(&mut self, now_ms: u64) -> Result<bool> {
        let Some(removal) = compact::oldest(&self.state) else { return Ok(false) };
        if self.is_retained(&removal, now_ms) {
            return Ok(false);
        }
        let may_go = removal.live.is_empty() || (self.is_stuck(&removal) && self.relocate(&removal.live)?);
        if !may_go {
            return Ok(false);
        }
        self.remove(removal.segment, Changes { first_segment: Some(removal.next), ..Changes::default() })?;
        Ok(true)
    }

    /// Removes the oldest segment if all its lines are settled, whatever [`Keep`] says, because space is needed.
    pub(super) fn remove_settled(&mut self) -> Result<bool> {
        if self.removal_held {
            return Ok(false);
        }
        let Some(removal) = compact::oldest(&self.state).filter(|removal| removal.live.is_empty()) else {
            return Ok(false);
        };
        self.rotate_if_full()?;
        self.remove(removal.segment, Changes { first_segment: Some(removal.next), ..Changes::default() })?;
        Ok(true)
    }

    /// Drops the oldest segment although groups need it: its lines are settled as dropped for every group that they wait
    /// for, and recorded as lost with the reason `limit`, in the commit that removes the segment. Leases of these lines
    /// end. Returns the lines; `None` if there is only the segment that grows, or removal is held. `own` says how many of them
    /// wait for a group, if not all that wait are its own.
    ///
    /// # Errors
    /// As [`Log::commit`].
    pub fn drop_oldest(
        &mut self,
        limit: &str,
        own: impl Fn(GroupId) -> Option<u64>,
    ) -> Result<Option<SeqRange>> {
        self.refuse_poisoned()?;
        if self.removal_held {
            return Ok(None);
        }
        let Some(range) = self.state.oldest_segment() else { return Ok(None) };
        let waits: Vec<_> = self.state.groups.iter().filter(|(_, group)| group.waiting(range) > 0).collect();
        let loses = |(id, _): &&(&GroupId, _)| own(**id) != Some(0);
        let names: Vec<&str> = waits.iter().filter(loses).map(|(_, group)| group.name.as_str()).collect();
        let losses = if names.is_empty() { Vec::new() } else { vec![Loss::dropped(range, &names, limit)] };
        let change = |id| match own(id) {
            Some(lines) => GroupChange::Some { range, lines, counts: Counts::Dropped },
            None => GroupChange::Skip { range, dropped: true },
        };
        let groups = waits.iter().map(|(id, _)| (**id, change(**id))).collect();
        let changes =
            Changes { groups, losses, first_segment: Some(range.last.next()), ..Changes::default() };
        let removed = self.rotate_if_full().and_then(|()| self.remove(range.first, changes));
        self.or_poison(removed)?;
        Ok(Some(range))
    }

    /// Many removals in a row must not fill a journal.
    fn rotate_if_full(&mut self) -> Result<()> {
        if self.must_rotate(None) { self.rotate() } else { Ok(()) }
    }

    /// Makes the removal durable, then removes the file.
    fn remove(&mut self, segment: Seq, changes: Changes) -> Result<()> {
        self.apply(changes, &[])?;
        // After a crash the name may be there again: opening removes segments that the journal does not have.
        let path = segment::path(segment);
        self.disk.remove_file(&path).during("remove", &path)?;
        self.counters.segments_removed += 1;
        Ok(())
    }

    /// Whether the oldest segment stays because of [`Keep`].
    fn is_retained(&mut self, removal: &compact::Removal, now_ms: u64) -> bool {
        match self.options.disk.keep {
            Keep::Nothing => false,
            Keep::Bytes(bytes) => compact::settled_bytes(&self.state, bytes) <= bytes,
            // If the time cannot be read, the segment stays until space is needed.
            Keep::Age(age_ms) => {
                self.begun_ms(removal.next).is_none_or(|begun| now_ms.saturating_sub(begun) < age_ms)
            }
        }
    }

    fn begun_ms(&mut self, segment: Seq) -> Option<u64> {
        if self.begun.is_none_or(|(known, _)| known != segment) {
            let block = self.reader().block(segment).ok()?;
            self.begun = Some((segment, block.append_time_ms()));
        }
        self.begun.map(|(_, begun)| begun)
    }

    /// Whether the same lines have been holding the oldest segment for a while. A group that processes the segment leaves
    /// few live lines for a moment, which are not worth a copy. Lines that could not be read are not tried again until
    /// something else changes.
    fn is_stuck(&mut self, removal: &compact::Removal) -> bool {
        match &mut self.stuck {
            Some((stuck, since)) if stuck == removal => {
                let is_due = self.state.commit >= since.saturating_add(STUCK_COMMITS);
                if is_due {
                    *since = u64::MAX;
                }
                is_due
            }
            _ => {
                self.stuck = Some((removal.clone(), self.state.commit));
                false
            }
        }
    }

    /// Copies live lines to `kept/`, durably; false if that is full or a block cannot be read.
    fn relocate(&mut self, live: &[SeqRange]) -> Result<bool> {
        if self.retained.bytes() > RETAINED_BYTES_MAX {
            return Ok(false);
        }
        let mut reader = self.reader();
        self.space.relieve(self.disk.as_ref())?;
        let mut lines = 0;
        for range in live {
            let mut from = range.first;
            while let Some(rest) = SeqRange::new(from, range.last) {
                let Ok(block) = reader.block(from) else {
                    return Ok(false);
                };
                let Some(part) = block.range().intersection(rest) else {
                    return Ok(false);
                };
                self.retained.keep(&block, part)?;
                lines += part.lines();
                from = part.last.next();
            }
        }
        self.retained.sync()?;
        self.counters.lines_relocated += lines;
        Ok(true)
    }
}
