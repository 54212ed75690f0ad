//! Removing what nobody needs any more, and relocating what holds it.

use super::Log;
use crate::commit::Changes;
use crate::compact;
use crate::error::{Context, Result};
use crate::ids::SeqRange;
use crate::kept::KEPT_BYTES_MAX;
use crate::segment;

/// Commits after which lines that hold the oldest segment are relocated.
const STUCK_COMMITS: u64 = 8;

impl Log {
    pub(super) fn remove_oldest(&mut self) -> Result<bool> {
        let Some(removal) = compact::oldest(&self.state) else { return Ok(false) };
        let may_go = removal.live.is_empty() || (self.is_stuck(&removal) && self.relocate(&removal.live)?);
        if !may_go {
            return Ok(false);
        }
        self.apply(Changes { first_segment: Some(removal.next), ..Changes::default() }, &[])?;
        // Its name may come back with a crash: opening removes what the journal does not know.
        let path = segment::path(removal.segment);
        self.disk.remove_file(&path).during("remove", &path)?;
        self.counters.segments_removed += 1;
        Ok(true)
    }

    /// Whether the same lines have been holding the oldest segment for a while. A group that works its way through
    /// leaves few live lines in every segment for a moment; those are not worth a copy. What was tried and could
    /// not be read is not tried again until something else changed.
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

    /// Copies live lines to `kept/`, durably; not where that is full or a block cannot be read.
    fn relocate(&mut self, live: &[SeqRange]) -> Result<bool> {
        if self.kept.bytes() > KEPT_BYTES_MAX {
            return Ok(false);
        }
        let mut reader = self.reader();
        self.room.relieve(self.disk.as_ref())?;
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
                self.kept.keep(&block, part)?;
                lines += part.lines();
                from = part.last.next();
            }
        }
        self.kept.sync()?;
        self.counters.lines_relocated += lines;
        Ok(true)
    }
}
