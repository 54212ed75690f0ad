//! The way of blocks to the segment files.
//!
//! A commit that stores more than [`Options::inline_bytes`] references its blocks. They are *staged*: another thread writes
//! and syncs them, while this one makes the commit before durable. The order on disk is always segment first: a record
//! that references blocks is written when their sync has returned. So a reference without its bytes is damage, and never
//! what a crash leaves. Bytes behind the last durable commit are cut off at the next opening.
//!
//! The idea is WiscKey's: keys and what makes them atomic in the tree, values next to it.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::TryRecvError;

use super::Log;
#[cfg(doc)]
use super::Options;
use super::staged::{Appended, End, Staged, Written, lock};
use crate::block::{BlockHeader, NewBlock};
use crate::commit::Placed;
use crate::disk::DiskFile;
use crate::error::{Context, Error, Result};
use crate::ids::Seq;
use crate::segment::{self, Write};

/// Blocks of commits that can be staged: of the next one, and of the one after that.
const STAGED_MAX: usize = 2;

impl Log {
    /// Begins to write `blocks` to disk, if they are many enough for that; false if they are not. The next commit with lines
    /// must have exactly these blocks, or the one after it if the blocks of a commit are staged already. Nothing of them
    /// counts before that: a crash, or an error of a commit, leaves nothing of it.
    ///
    /// To stage the blocks of the next commit before this one is made lets both use the disk at the same time.
    ///
    /// # Errors
    /// After [`Error::Full`] nothing more is staged than before. Otherwise as [`Log::commit`].
    ///
    /// # Panics
    /// If the blocks of two commits are staged already.
    pub fn stage(&mut self, blocks: &[NewBlock]) -> Result<bool> {
        self.refuse_poisoned()?;
        let staged = self.stage_unless_full(blocks);
        self.or_poison(staged)
    }

    /// Whether the blocks of the next commit with lines are staged.
    #[must_use]
    pub fn has_staged(&self) -> bool {
        !self.segments.staged.is_empty()
    }

    /// Waits until these blocks are on disk, or have failed, which the commit reports.
    pub fn wait_staged(&mut self) {
        if let Some(mut next) = self.segments.staged.pop_front() {
            next.written = Written::Known(next.written.wait());
            self.segments.staged.push_front(next);
        }
    }

    fn stage_unless_full(&mut self, blocks: &[NewBlock]) -> Result<bool> {
        let bytes = disk_bytes(blocks);
        if bytes <= self.options.inline_bytes {
            return Ok(false);
        }
        assert!(self.segments.staged.len() < STAGED_MAX, "the blocks of {STAGED_MAX} commits are staged");
        if let Some(full) = self.refusal_of(bytes + self.staged_bytes())? {
            return Err(Error::Full(full));
        }
        let number = self.state.commit + 1 + self.segments.staged.len() as u64;
        let (mut appended, end) = self.place(blocks, number, true);
        let writes = std::mem::take(&mut appended.writes);
        let writer = Arc::clone(&self.segments.writer);
        let written = self.segments.thread.run(move || lock(&writer).write_durably(&writes));
        let written = Written::Awaited(written);
        self.segments.staged.push_back(Staged { appended, end, bytes, written });
        Ok(true)
    }

    fn staged_bytes(&self) -> u64 {
        self.segments.staged.iter().map(|staged| staged.bytes).sum()
    }

    /// Writes the blocks of a commit, and waits until they are durable if it references them.
    pub(super) fn append(&mut self, blocks: &[NewBlock]) -> Result<Appended> {
        if blocks.is_empty() {
            if self.must_rotate(Some(0)) {
                self.rotate()?;
            }
            return Ok(Appended::default());
        }
        if self.has_staged() || self.stage_unless_full(blocks)? {
            let appended = self.take_staged(blocks)?;
            if self.must_rotate(Some(0)) {
                self.rotate()?;
            }
            return Ok(appended);
        }
        let bytes = disk_bytes(blocks);
        if let Some(full) = self.refusal_of(bytes)? {
            return Err(Error::Full(full));
        }
        if self.must_rotate(Some(bytes)) {
            self.rotate()?;
        }
        let (appended, _) = self.place(blocks, self.state.commit + 1, false);
        let written = self.segments.writer().write(&appended.writes);
        self.undo_if_full(written)?;
        Ok(appended)
    }

    fn take_staged(&mut self, blocks: &[NewBlock]) -> Result<Appended> {
        let staged = self.segments.staged.pop_front();
        let Some(Staged { appended, bytes, written, .. }) = staged else {
            return Ok(Appended::default());
        };
        let is_same = appended.placed.len() == blocks.len() && bytes == disk_bytes(blocks);
        assert!(is_same, "other blocks are committed than were staged");
        self.undo_if_full(written.wait())?;
        Ok(appended)
    }

    /// After a full disk the files are what the last commit left, and nothing is staged.
    fn undo_if_full(&mut self, written: Result<()>) -> Result<()> {
        if let Err(Error::Full(_)) = written {
            // Those behind it were written behind it, or not at all. The lock waits for them.
            self.segments.staged.drain(..).for_each(|staged| drop(staged.written.wait()));
            self.segments.writer().cut(self.state.segments.back())?;
            // What it says of segments that are gone now must not be taken for others of their names.
            self.segments.syncing = None;
        }
        written
    }

    /// Finds the places of blocks behind all that is staged, and numbers their lines.
    fn place(&self, blocks: &[NewBlock], number: u64, is_referenced: bool) -> (Appended, End) {
        let newest = self.state.segments.back().map(|segment| (segment.first, segment.bytes));
        let durable = End { next_seq: self.state.next_seq, segment: newest };
        let mut end = self.segments.staged.back().map_or(durable, |staged| staged.end);
        let mut appended = Appended::default();
        for block in blocks {
            let first = end.next_seq;
            let bytes = block.disk_bytes() as u64;
            let fits = |len: u64| len == 0 || len + bytes <= self.options.segment_bytes;
            let (segment, at) = end.segment.filter(|(_, len)| fits(*len)).unwrap_or((first, 0));
            let header = block.header(self.state.store, number, first);
            appended.placed.push(Placed {
                first,
                lines: block.lines(),
                raw_bytes: block.raw_bytes() as u32,
                bytes: bytes as u32,
                new_segment: at == 0,
                reference: is_referenced.then(|| BlockHeader::crc_of(&header)),
            });
            appended.blocks.push(Arc::new(block.numbered(number, first)));
            appended.writes.push(Write { segment, at, header, payload: block.stored().clone() });
            for extent in block.extents() {
                end.next_seq = end.next_seq.plus(u64::from(extent.lines));
                appended.last_seqs.insert(extent.source, end.next_seq.prev());
            }
            end.segment = Some((segment, at + bytes));
        }
        (appended, end)
    }

    /// Syncs sealed segments in the background, so that a rotation has to sync the newest bytes only.
    pub(super) fn sync_in_background(&mut self) -> Result<()> {
        if let Some((before, receiver)) = &self.segments.syncing {
            match receiver.try_recv() {
                Ok(result) => {
                    let before = *before;
                    self.segments.syncing = None;
                    result?;
                    self.segments.writer().synced_before(before);
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => self.segments.syncing = None,
            }
        }
        // Not after every commit: that would double the number of syncs.
        if self.journal.stored_bytes < self.segments.syncing_since_bytes + self.options.journal_bytes / 4 {
            return Ok(());
        }
        self.segments.syncing_since_bytes = self.journal.stored_bytes;
        let unsynced = self.segments.writer().unsynced();
        let Some((newest, _)) = unsynced.last().cloned() else {
            return Ok(());
        };
        let writer = Arc::clone(&self.segments.writer);
        // In the thread that also syncs for commits: one of the two gets the error of a write-back, and both must fail.
        let receiver = self.segments.thread.run(move || {
            let sync =
                |(first, file): &(Seq, Arc<dyn DiskFile>)| file.sync().during("sync", &segment::path(*first));
            unsynced.iter().try_for_each(sync).inspect_err(|error| lock(&writer).fail(error))
        });
        self.segments.syncing = Some((newest, receiver));
        Ok(())
    }

    /// Makes all segment files durable, before the journal that has their newest bytes is replaced.
    pub(super) fn sync_segments(&mut self) -> Result<()> {
        if let Some((_, receiver)) = self.segments.syncing.take()
            && let Ok(result) = receiver.recv()
        {
            result?;
        }
        self.segments.syncing_since_bytes = 0;
        self.segments.writer().sync()
    }
}

fn disk_bytes(blocks: &[NewBlock]) -> u64 {
    blocks.iter().map(|block| block.disk_bytes() as u64).sum()
}
