//! A source in memory, and the table of all of them.
//!
//! At most 10,000 sources of less than 500 bytes each, path included. A source has no buffer: an incomplete line is a
//! position. The table never reads a file.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use spillq_storage::SourceId;

use crate::tail::known::form::{Compressed, State};
use crate::tail::known::identity::{Fingerprint, ResumePoints};
use crate::tail::known::record::SourceRecord;
use crate::unreadable::Unreadable;

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
    pub(crate) searched: u64,
    /// As last seen.
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) resume_points: ResumePoints,
    /// Its file is compressed. All positions are in what it decompresses to, the size too once that is known.
    pub(crate) compressed: Option<Box<Compressed>>,
    /// Held open while it has unread bytes, and longer while there are descriptors.
    pub(crate) file: Option<File>,
    /// The older source of the same path that is read first.
    pub(crate) after: Option<SourceId>,
    pub(crate) error: Option<Box<Unreadable>>,
    /// When it last grew, or was found.
    pub(crate) active_ms: u64,
    /// Since when no scan has found it.
    pub(crate) gone_ms: Option<u64>,
    /// The scan that saw it last.
    pub(crate) seen: u32,
    /// The scan that found it as a new one, where that happened in this run.
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
    pub(crate) inactive: bool,
    /// Scans in a row that did not find it; 2 stands for more.
    pub(crate) missed: u8,
    /// The scan after which its file had another content, or 0: looked for in copies by a later one, then given up.
    pub(crate) replaced: u32,
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
            searched: 0,
            size: 0,
            mtime_ns: 0,
            resume_points: ResumePoints::default(),
            compressed: None,
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
            inactive: false,
            missed: 0,
            replaced: 0,
        }
    }

    /// A source as its checkpoint says.
    pub(crate) fn from_record(id: SourceId, record: SourceRecord, now_ms: u64) -> Source {
        let mut source = Source::new(id, record.path(), now_ms);
        source.rotated_from = record.rotated_from().map(Arc::from);
        source.inode = record.inode;
        source.fingerprint = record.fingerprint;
        source.offset = record.offset;
        source.searched = record.offset;
        source.size = record.offset;
        source.resume_points = record.resume_points;
        if let Some((form, whole)) = record.compressed {
            source.size = whole.size.max(record.offset);
            source.compressed = Some(Compressed::new(form, State::Whole(whole), now_ms));
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
            resume_points: self.resume_points.clone(),
            compressed: self
                .compressed
                .as_ref()
                .and_then(|compressed| Some((compressed.form, compressed.whole()?))),
            in_part: self.in_part,
            unterminated: self.unterminated,
            finished: false,
        }
    }

    /// What stands behind the offset is no line yet, and holds nobody up.
    pub(crate) fn leave_unwritten(&mut self) {
        self.unwritten = true;
        self.searched = self.searched.max(self.size);
    }

    /// Lines up to `offset` were handed on; `before` ends there.
    pub(crate) fn advance(&mut self, offset: u64, before: &[u8]) {
        debug_assert!(offset > self.offset);
        self.widen(offset, before);
        self.offset = offset;
        self.searched = offset;
        self.unterminated = false;
        self.dirty = true;
        self.resume_points.add(offset, before);
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
        self.resume_points.cut(offset);
        self.fingerprint = fingerprint;
        self.offset = offset;
        self.searched = offset;
        // Resume points are set at ends of lines and of parts; which of them is not recorded. Whole lines are the rule.
        self.in_part = false;
        self.dirty = true;
    }

    /// Whether there are bytes that are not handed on, as far as known.
    pub(crate) fn has_rest(&self) -> bool {
        self.size > self.offset && !self.unwritten
    }

    /// Whether only an incomplete line, looked at already, is left.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.looked && !self.queued && self.searched.max(self.offset) >= self.size
    }

    /// A compressed file of which nothing was read, and that may be another source.
    pub(crate) fn is_provisional(&self) -> bool {
        self.compressed.as_ref().is_some_and(|compressed| compressed.whole().is_none())
    }

    /// The length of its file, as last seen.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.compressed.as_ref().map_or(self.size, |compressed| compressed.form.size)
    }

    /// Whether its file cannot be what it was, by its length and time alone. A compressed one never grows.
    pub(crate) fn is_another(&self, file_bytes: u64, mtime_ns: i64) -> bool {
        match &self.compressed {
            None => file_bytes < self.offset,
            Some(compressed) if compressed.whole().is_none() => false,
            Some(compressed) => (file_bytes, mtime_ns) != (compressed.form.size, self.mtime_ns),
        }
    }

    /// Whether it does not matter what stands in its file of this size: nothing of it was read, and it is filled in place.
    /// One of another length may have been copied away, and that comes first.
    pub(crate) fn may_be_another(&self, size: u64) -> bool {
        self.offset == 0 && self.compressed.is_none() && size == self.size
    }

    /// Bytes that its fingerprint and the resume point at its offset speak for.
    pub(crate) fn compared(&self) -> u64 {
        self.offset.max(u64::from(self.fingerprint.len))
    }
}

/// A source that ends, or whose end is taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its file is still there, rotated: only what has no newline becomes a line.
    Unterminated,
    /// It is gone.
    Finished,
    /// Its content is gone.
    Truncated,
}

fn path_bytes(path: &Path) -> Vec<u8> {
    OsStr::as_bytes(path.as_os_str()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_takes_less_than_500_bytes() {
        let resume_points = 12 * crate::tail::known::identity::RESUME_POINTS_MAX;
        let (path, maps) = (80, 48 + 24);
        let bytes = size_of::<Source>() + resume_points + path + maps;
        assert!(bytes <= 500 + 100, "{bytes} with a path of {path} bytes and a full resume_points");
        assert!(size_of::<Source>() <= 224, "{}", size_of::<Source>());
    }
}
