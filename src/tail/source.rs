//! A source in memory, and the table of all of them.
//!
//! At most 10,000 sources of less than 500 bytes each, path included. A source has no buffer: an incomplete line is a
//! position. The table never reads a file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use spillq_storage::SourceId;

use super::identity::{Fingerprint, Ladder};
use super::packed::{Packed, State};
use super::record::SourceRecord;
use super::refused::Unreadable;

/// One followed file.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) id: SourceId,
    pub(crate) path: Arc<Path>,
    /// The path before it was renamed or copied away.
    pub(crate) rotated_from: Option<Arc<Path>>,
    /// 0 until seen in this run.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) fingerprint: Fingerprint,
    /// The end of the last line handed on.
    pub(crate) offset: u64,
    /// No newline lies between the offset and here.
    pub(crate) scanned: u64,
    /// As last seen.
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ladder: Ladder,
    /// Its file is packed. All positions are in what it unpacks to, the size too once that is known.
    pub(crate) packed: Option<Box<Packed>>,
    /// Held open while it has unread bytes, and longer while there are descriptors.
    pub(crate) file: Option<File>,
    /// The older source of the same path that is read first.
    pub(crate) after: Option<SourceId>,
    pub(crate) error: Option<Box<Unreadable>>,
    /// When it last grew, or was found.
    pub(crate) active_ms: u64,
    /// Since when no sweep has found it.
    pub(crate) gone_ms: Option<u64>,
    /// The sweep that saw it last.
    pub(crate) seen: u32,
    /// The sweep that found it as a new one, where that happened in this run.
    pub(crate) born: u32,
    /// Which `[[follow]]` it belongs to.
    pub(crate) follow: u16,
    pub(crate) in_part: bool,
    pub(crate) unterminated: bool,
    /// It begins with a byte-order mark of UTF-16, and that was said.
    pub(crate) wide: bool,
    /// Its content was checked since the start.
    pub(crate) looked: bool,
    pub(crate) queued: bool,
    /// In the append under construction, or owed a checkpoint.
    pub(crate) dirty: bool,
    /// The log has a checkpoint of it.
    pub(crate) stored: bool,
    /// A newer source took its path: its writer has left it.
    pub(crate) taken: bool,
    /// Its file was closed for want of descriptors, not for being idle.
    pub(crate) closed_early: bool,
    /// What is behind the offset was allocated and not written yet, as far as known.
    pub(crate) unwritten: bool,
    /// It has a name that no glob matches.
    pub(crate) outside: bool,
    /// No follow names it: it is not read, and not looked for.
    pub(crate) resting: bool,
    /// Sweeps in a row that did not find it; 2 stands for more.
    pub(crate) missed: u8,
    /// The sweep after which its file had another content, or 0: looked for in copies by a later one, then given up.
    pub(crate) displaced: u32,
}

impl Source {
    /// A source that is not known to the log.
    pub(crate) fn new(id: SourceId, path: &Path, now_ms: u64) -> Source {
        Source {
            id,
            path: Arc::from(path),
            rotated_from: None,
            device: 0,
            inode: 0,
            fingerprint: Fingerprint::default(),
            offset: 0,
            scanned: 0,
            size: 0,
            mtime_ns: 0,
            ladder: Ladder::default(),
            packed: None,
            file: None,
            after: None,
            error: None,
            active_ms: now_ms,
            gone_ms: None,
            seen: 0,
            born: 0,
            follow: 0,
            in_part: false,
            unterminated: false,
            wide: false,
            looked: false,
            queued: false,
            dirty: false,
            stored: false,
            taken: false,
            closed_early: false,
            unwritten: false,
            outside: false,
            resting: false,
            missed: 0,
            displaced: 0,
        }
    }

    /// A source as its checkpoint says.
    pub(crate) fn from_record(id: SourceId, record: SourceRecord, now_ms: u64) -> Source {
        let mut source = Source::new(id, record.path(), now_ms);
        source.rotated_from = record.rotated_from().map(Arc::from);
        source.inode = record.inode;
        source.fingerprint = record.fingerprint;
        source.offset = record.offset;
        source.scanned = record.offset;
        source.size = record.offset;
        source.ladder = record.ladder;
        if let Some((form, whole)) = record.packed {
            source.size = whole.size.max(record.offset);
            source.packed = Some(Packed::new(form, State::Whole(whole), now_ms));
        }
        source.in_part = record.in_part;
        source.unterminated = record.unterminated;
        source.stored = true;
        source
    }

    pub(crate) fn record(&self) -> SourceRecord {
        SourceRecord {
            path: path_bytes(&self.path),
            rotated_from: self.rotated_from.as_deref().map(path_bytes),
            inode: self.inode,
            fingerprint: self.fingerprint,
            offset: self.offset,
            ladder: self.ladder.clone(),
            packed: self.packed.as_ref().and_then(|packed| Some((packed.form, packed.whole()?))),
            in_part: self.in_part,
            unterminated: self.unterminated,
            finished: false,
        }
    }

    /// What stands behind the offset is no line yet, and holds nobody up.
    pub(crate) fn leave_unwritten(&mut self) {
        self.unwritten = true;
        self.scanned = self.scanned.max(self.size);
    }

    /// Lines up to `offset` were handed on; `before` ends there.
    pub(crate) fn advance(&mut self, offset: u64, before: &[u8]) {
        debug_assert!(offset > self.offset);
        self.widen(offset, before);
        self.offset = offset;
        self.scanned = offset;
        self.unterminated = false;
        self.dirty = true;
        self.ladder.climb(offset, before);
    }

    /// The fingerprint covers what was read, as it was read: the file may change behind that, and under our hands.
    fn widen(&mut self, offset: u64, before: &[u8]) {
        let covered = if self.offset == 0 { Fingerprint::default() } else { self.fingerprint };
        let fresh = usize::try_from(offset - self.offset).ok();
        let fresh =
            fresh.and_then(|fresh| before.len().checked_sub(fresh)).and_then(|from| before.get(from..));
        if let Some(fresh) = fresh.filter(|_| u64::from(covered.len) == self.offset) {
            self.fingerprint = covered.widened(fresh);
        }
    }

    /// Resumes at `offset`, which is below where it was.
    pub(crate) fn roll_back(&mut self, offset: u64, fingerprint: Fingerprint) {
        self.ladder.cut(offset);
        self.fingerprint = fingerprint;
        self.offset = offset;
        self.scanned = offset;
        // Rungs are set at ends of lines and of parts; which of them is not recorded. Whole lines are the rule.
        self.in_part = false;
        self.dirty = true;
    }

    /// Whether there are bytes that are not handed on, as far as known.
    pub(crate) fn has_rest(&self) -> bool {
        self.size > self.offset && !self.unwritten
    }

    /// Whether only an incomplete line, looked at already, is left.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.looked && !self.queued && self.scanned.max(self.offset) >= self.size
    }

    /// A packed file of which nothing was read, and that may be another source.
    pub(crate) fn is_provisional(&self) -> bool {
        self.packed.as_ref().is_some_and(|packed| packed.whole().is_none())
    }

    /// The length of its file, as last seen.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.packed.as_ref().map_or(self.size, |packed| packed.form.size)
    }

    /// Whether its file cannot be what it was, by its length and time alone. A packed one never grows.
    pub(crate) fn is_another(&self, file_bytes: u64, mtime_ns: i64) -> bool {
        match &self.packed {
            None => file_bytes < self.offset,
            Some(packed) if packed.whole().is_none() => false,
            Some(packed) => (file_bytes, mtime_ns) != (packed.form.size, self.mtime_ns),
        }
    }

    /// Whether it does not matter what stands in its file of this size: nothing of it was read, and it is filled in place.
    /// One of another length may have been copied away, and that comes first.
    pub(crate) fn may_be_another(&self, size: u64) -> bool {
        self.offset == 0 && self.packed.is_none() && size == self.size
    }

    /// Bytes that its fingerprint and the rung at its offset speak for.
    pub(crate) fn compared(&self) -> u64 {
        self.offset.max(u64::from(self.fingerprint.len))
    }
}

fn path_bytes(path: &Path) -> Vec<u8> {
    OsStr::as_bytes(path.as_os_str()).to_vec()
}

/// All sources, by id (oldest first), by path and by inode.
#[derive(Debug, Default)]
pub(crate) struct Table {
    sources: BTreeMap<SourceId, Box<Source>>,
    paths: HashMap<Arc<Path>, SourceId>,
    inodes: BTreeSet<(u64, SourceId)>,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// How many no section matches now.
    pub(crate) fn resting(&self) -> usize {
        self.iter().filter(|source| source.resting).count()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.sources.values().map(Box::as_ref)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        self.sources.values_mut().map(Box::as_mut)
    }

    pub(crate) fn get(&self, id: SourceId) -> Option<&Source> {
        self.sources.get(&id).map(Box::as_ref)
    }

    /// The path and the inode must be changed by [`Table::place`] alone.
    pub(crate) fn get_mut(&mut self, id: SourceId) -> Option<&mut Source> {
        self.sources.get_mut(&id).map(Box::as_mut)
    }

    /// The inodes of those that are read.
    pub(crate) fn inodes(&self) -> std::collections::HashSet<u64> {
        let is_read = |id: &SourceId| self.get(*id).is_some_and(|source| !source.resting);
        self.inodes.iter().filter(|(_, id)| is_read(id)).map(|entry| entry.0).collect()
    }

    /// The newest source of a path.
    pub(crate) fn at(&self, path: &Path) -> Option<SourceId> {
        self.paths.get(path).copied()
    }

    pub(crate) fn with_inode(&self, inode: u64) -> impl Iterator<Item = SourceId> + '_ {
        self.inodes.range((inode, SourceId(0))..=(inode, SourceId(u64::MAX))).map(|entry| entry.1)
    }

    pub(crate) fn insert(&mut self, source: Source) {
        // Where two name the same path, the later one is there now: the earlier was renamed away.
        let newest = self.paths.entry(Arc::clone(&source.path)).or_insert(source.id);
        *newest = (*newest).max(source.id);
        self.inodes.insert((source.inode, source.id));
        self.sources.insert(source.id, Box::new(source));
    }

    pub(crate) fn remove(&mut self, id: SourceId) -> Option<Box<Source>> {
        let source = self.sources.remove(&id)?;
        self.unname(&source.path, id);
        self.inodes.remove(&(source.inode, id));
        Some(source)
    }

    /// Moves a source to another path and inode.
    pub(crate) fn place(&mut self, id: SourceId, path: &Path, device: u64, inode: u64) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        self.inodes.remove(&(source.inode, id));
        self.inodes.insert((inode, id));
        (source.device, source.inode) = (device, inode);
        let old = std::mem::replace(&mut source.path, Arc::from(path));
        let new = Arc::clone(&source.path);
        self.unname(&old, id);
        self.paths.insert(new, id);
    }

    /// The path no longer leads to this source.
    pub(crate) fn unname(&mut self, path: &Path, id: SourceId) {
        if self.paths.get(path) == Some(&id) {
            self.paths.remove(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_takes_less_than_500_bytes() {
        let ladder = 12 * super::super::identity::RUNGS_MAX;
        let (path, maps) = (80, 48 + 24);
        let bytes = size_of::<Source>() + ladder + path + maps;
        assert!(bytes <= 500 + 100, "{bytes} with a path of {path} bytes and a full ladder");
        assert!(size_of::<Source>() <= 224, "{}", size_of::<Source>());
    }

    #[test]
    fn a_path_leads_to_its_newest_source() {
        let mut table = Table::default();
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        table.insert(Source::new(SourceId(1), a, 0));
        table.place(SourceId(1), a, 5, 50);
        table.insert(Source::new(SourceId(2), a, 0));
        assert_eq!(table.at(a), Some(SourceId(2)));
        table.place(SourceId(1), b, 5, 50);
        assert_eq!((table.at(a), table.at(b)), (Some(SourceId(2)), Some(SourceId(1))));
        assert_eq!(table.with_inode(50).collect::<Vec<_>>(), [SourceId(1)]);
        table.remove(SourceId(2));
        assert_eq!(table.at(a), None);
    }
}
