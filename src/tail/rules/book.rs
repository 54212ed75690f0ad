//! The followed files and what waits because of them. The rules are functions over this.
//!
//! What has to agree is changed together, here: a source and its place in the table, its file and the number of open
//! files, its mark and its place in a queue. At most 10,000 sources. Nothing here decides what a file is.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use spillq_storage::SourceId;

use crate::tail::bytes::Decompressor;
use crate::tail::bytes::open::open;
use crate::tail::error::ReadError;
use crate::tail::find::Follows;
use crate::tail::known::{
    Checkpoints, Ending, Location, OpenFiles, Presence, SOURCES_MAX, Source, Table, Turns,
};
use crate::tail::rules::Slot;
use crate::tail::status::Counters;
use crate::unreadable::Unreadable;

/// The followed files.
#[derive(Debug)]
pub(crate) struct Book {
    follows: Follows,
    table: Table,
    files: OpenFiles,
    turns: Turns,
    checkpoints: Checkpoints,
    endings: VecDeque<(SourceId, Ending)>,
    /// The number of the next new source. Each is used once.
    pub(crate) next_id: SourceId,
    /// The number of the scan that is under way, or was the last. 0 before the first.
    scan: u32,
    /// A scan is due at once.
    pub(crate) scan_wanted: bool,
    /// A file could not be read since the last scan, and is to be tried again.
    pub(crate) has_failed: bool,
    /// A source with unread lines lost its file since the last scan began.
    pub(crate) lost_lines: bool,
    /// [`SOURCES_MAX`]; less for tests with few files.
    pub(crate) sources_max: usize,
    /// Everything is read once, then the tail ends.
    pub(crate) once: bool,
    pub(crate) slot: Slot,
    pub(crate) counters: Counters,
}

impl Book {
    pub(crate) fn new(follows: Follows, once: bool, next_id: SourceId, open_max: usize) -> Book {
        Book {
            follows,
            table: Table::default(),
            files: OpenFiles::new(open_max),
            turns: Turns::default(),
            checkpoints: Checkpoints::default(),
            endings: VecDeque::new(),
            next_id,
            scan: 0,
            scan_wanted: true,
            has_failed: false,
            lost_lines: false,
            sources_max: SOURCES_MAX,
            once,
            slot: Slot::default(),
            counters: Counters::default(),
        }
    }

    // Sources.

    pub(crate) fn sources(&self) -> &Table {
        &self.table
    }

    pub(crate) fn get(&self, id: SourceId) -> Option<&Source> {
        self.table.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: SourceId) -> Option<&mut Source> {
        self.table.get_mut(id)
    }

    pub(crate) fn sources_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        self.table.iter_mut()
    }

    /// What a walk matches with, and where it notes what it found.
    pub(crate) fn for_walk(&mut self) -> (&Follows, &mut Table) {
        (&self.follows, &mut self.table)
    }

    /// Whether no more files can be followed.
    pub(crate) fn is_full(&self) -> bool {
        self.table.len() >= self.sources_max
    }

    /// A source from now on. The log gets a checkpoint of it at once if it does not begin at the beginning.
    pub(crate) fn add(&mut self, mut source: Source) {
        if source.is_dirty() {
            self.checkpoints.owe(&mut source);
        }
        self.table.insert(source);
    }

    /// A source from now on, a copy of what `original` reads. Its checkpoint waits until that is read as far as the copy
    /// begins.
    pub(crate) fn add_copy(&mut self, mut source: Source, original: SourceId) {
        self.checkpoints.withhold(&mut source, original);
        self.table.insert(source);
    }

    /// A source no more; its file, if that was open. The log gets its last checkpoint.
    pub(crate) fn remove(&mut self, id: SourceId) -> Option<(Box<Source>, Option<File>)> {
        let source = self.table.remove(id)?;
        self.slot.release(id);
        let file = self.files.close(id);
        self.checkpoints.end(&source);
        Some((source, file))
    }

    /// The file of a source is here now, found by this scan.
    pub(crate) fn place(&mut self, id: SourceId, at: Location<'_>) {
        self.table.place(id, at.path, at.device, at.inode);
        if let Some(source) = self.table.get_mut(id) {
            source.mark_found(at.device, self.scan);
        }
    }

    /// The file of a source has another content. A scan finds out whether the old content is in a copy.
    pub(crate) fn mark_replaced(&mut self, id: SourceId) {
        self.slot.release(id);
        self.files.close(id);
        if let Some(source) = self.table.get_mut(id) {
            self.lost_lines |= source.has_rest();
            source.presence = Presence::Replaced { scan: self.scan.max(1), searched_since_ms: None };
            self.scan_wanted = true;
        }
    }

    /// A source cannot be read. Reported once; each scan tries again.
    pub(crate) fn fail(&mut self, id: SourceId, error: &ReadError) {
        if let Some(source) = self.table.get_mut(id) {
            if source.error.is_none() {
                self.counters.errors += 1;
                tracing::warn!(source = id.0, %error, "a file cannot be read; retried with each scan");
            }
            source.error = Some(Box::new(Unreadable { why: error.why(), found: error.to_string() }));
            self.has_failed = true;
        }
    }

    // What is followed.

    pub(crate) fn follows(&self) -> &Follows {
        &self.follows
    }

    /// Whether `rotate_wait` of a source is over at `now_ms`, if nothing has happened to it since `since_ms`.
    pub(crate) fn has_waited(&self, source: &Source, since_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(since_ms) >= self.follows.rotate_wait_ms(source.follow)
    }

    pub(crate) fn set_follows(&mut self, follows: Follows) {
        self.follows = follows;
        self.scan_wanted = true;
    }

    // Open files.

    pub(crate) fn files(&self) -> &OpenFiles {
        &self.files
    }

    /// How many files are kept open.
    #[cfg(test)]
    pub(crate) fn set_open_max(&mut self, max: usize) {
        self.files.max = max;
    }

    pub(crate) fn close(&mut self, id: SourceId) {
        self.files.close(id);
    }

    /// The file at the path of a source, by a descriptor that the caller closes. It may be another source's by now.
    pub(crate) fn open_path(&self, source: &Source) -> Result<(File, Metadata), ReadError> {
        open(source.path(), self.follows.way(Some(source.follow), source.path()))
    }

    /// The same, if it is still the file of this source.
    pub(crate) fn open_same(&self, source: &Source) -> Result<Option<File>, ReadError> {
        let (file, meta) = self.open_path(source)?;
        Ok(((meta.dev(), meta.ino()) == source.file_id()).then_some(file))
    }

    /// Opens the file of a source, unless it is open. False if there is nothing to read now.
    pub(crate) fn open(&mut self, id: SourceId) -> bool {
        match self.try_open(id) {
            Ok(true) => return true,
            // Another file took the path, or none is there: a scan finds out where this one went.
            Ok(false) => self.scan_wanted = true,
            Err(error) if error.is_gone() => self.scan_wanted = true,
            Err(error) => self.fail(id, &error),
        }
        false
    }

    /// The same, without consequences if it fails.
    pub(crate) fn try_open(&mut self, id: SourceId) -> Result<bool, ReadError> {
        let Some(source) = self.table.get(id) else {
            return Ok(false);
        };
        if self.files.has(id) {
            return Ok(true);
        }
        let opened = self.open_same(source)?;
        let is_same = opened.is_some();
        if let (Some(file), Some(source)) = (opened, self.table.get_mut(id)) {
            self.files.attach(source, file);
        }
        Ok(is_same)
    }

    /// The source reads from this file from now on, and opens it again later if too many are open.
    pub(crate) fn attach(&mut self, id: SourceId, file: File) {
        self.files.close(id);
        if let Some(source) = self.table.get_mut(id) {
            self.files.attach_if_free(source, file);
        }
    }

    /// Closes the file of a source because descriptors run short.
    pub(crate) fn close_early(&mut self, id: SourceId) {
        if let Some(source) = self.table.get_mut(id) {
            self.files.close_early(source);
        }
    }

    /// A source with its open file, and its decompressor if it has the slot.
    pub(crate) fn for_read(
        &mut self,
        id: SourceId,
    ) -> Option<(&mut Source, &File, Option<&mut Decompressor>)> {
        Some((self.table.get_mut(id)?, self.files.get(id)?, self.slot.decompressor(id)))
    }

    // Turns.

    /// It has a turn in this round, or in the next.
    pub(crate) fn queue(&mut self, id: SourceId) {
        if let Some(source) = self.table.get_mut(id) {
            self.turns.queue(source);
        }
    }

    /// It has its next turn in the next round.
    pub(crate) fn wait(&mut self, id: SourceId) {
        if let Some(source) = self.table.get_mut(id) {
            self.turns.wait(source);
        }
    }

    /// Its turn begins: it is not queued any more.
    pub(crate) fn begin_turn(&mut self, id: SourceId) -> Option<&mut Source> {
        let source = self.table.get_mut(id)?;
        Turns::begin(source);
        Some(source)
    }

    /// It was next and cannot be read yet: it is next again in the next round.
    pub(crate) fn postpone(&mut self, id: SourceId) {
        self.turns.postpone(id);
    }

    pub(crate) fn begin_round(&mut self) {
        self.turns.begin_round();
    }

    pub(crate) fn next_turn(&mut self) -> Option<SourceId> {
        self.turns.next()
    }

    // Endings.

    /// A source is to end with the next append.
    pub(crate) fn end_soon(&mut self, id: SourceId, ending: Ending) {
        self.endings.push_back((id, ending));
    }

    pub(crate) fn next_ending(&mut self) -> Option<(SourceId, Ending)> {
        self.endings.pop_front()
    }

    pub(crate) fn endings(&self) -> impl Iterator<Item = (SourceId, Ending)> + '_ {
        self.endings.iter().copied()
    }

    /// A source does not end after all.
    pub(crate) fn keep(&mut self, id: SourceId) {
        self.endings.retain(|ending| ending.0 != id);
    }

    // Checkpoints.

    /// Its checkpoint goes with the next append.
    pub(crate) fn owe_checkpoint(&mut self, id: SourceId) {
        if let Some(source) = self.table.get_mut(id) {
            self.checkpoints.owe(source);
        }
    }

    /// It was read: its checkpoint goes with its lines, and those of copies of what it has read by now.
    pub(crate) fn note_read(&mut self, id: SourceId) {
        self.checkpoints.note_read(id);
        self.checkpoints.release(&mut self.table, id);
    }

    /// A source has ended: copies of what it read get their checkpoint.
    pub(crate) fn release_checkpoints(&mut self, of: SourceId) {
        self.checkpoints.release(&mut self.table, of);
    }

    /// Checkpoints for an append, at most this many.
    pub(crate) fn take_checkpoints(&mut self, max: usize) -> Vec<(SourceId, Bytes)> {
        self.checkpoints.take(&mut self.table, max)
    }

    /// Last checkpoints of sources that ended: the log forgets them with that.
    pub(crate) fn take_last_checkpoints(&mut self) -> Vec<(SourceId, Bytes)> {
        self.checkpoints.take_last()
    }

    /// Whether nothing waits for a turn, an end or an append.
    pub(crate) fn is_idle(&self) -> bool {
        self.turns.is_empty() && self.endings.is_empty() && self.checkpoints.is_empty()
    }

    // Scans.

    pub(crate) fn scan(&self) -> u32 {
        self.scan
    }

    /// A scan begins. True if a source with unread lines lost its file since the last one began: any file may be the copy
    /// that has these lines.
    pub(crate) fn begin_scan(&mut self) -> bool {
        self.scan += 1;
        self.counters.scans += 1;
        self.scan_wanted = false;
        self.has_failed = false;
        // Those that are due are found again.
        self.endings.clear();
        std::mem::take(&mut self.lost_lines)
    }
}
