//! One followed file, as far as it is known in memory.
//!
//! At most 10,000 sources of less than 500 bytes each, path included. A source has no buffer: an incomplete line is a
//! position. The fields that other data depends on are changed by this layer alone: the path and the inode by
//! [`Table`](crate::tail::known::table::Table), the marks of queues by the queues.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use spillq_storage::SourceId;

use crate::tail::known::{Compressed, Fingerprint, ResumePoints, SourceRecord, State};
use crate::unreadable::Unreadable;

/// One followed file.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) id: SourceId,
    pub(super) path: Arc<Path>,
    /// 0 until found in this run.
    pub(super) device: u64,
    pub(super) inode: u64,
    /// It waits for its turn.
    pub(super) queued: bool,
    /// Its newest checkpoint is not in the log, nor on the way there.
    pub(super) dirty: bool,
    /// The log has a checkpoint of it.
    pub(super) stored: bool,
    pub(crate) presence: Presence,
    /// The path before it was renamed or copied away.
    pub(crate) rotated_from: Option<Arc<Path>>,
    pub(crate) fingerprint: Fingerprint,
    /// The end of the last line delivered to the log.
    pub(crate) offset: u64,
    /// No newline lies between the offset and here.
    pub(crate) searched: u64,
    /// As last seen. Of a compressed file that was checked: the size of its content.
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) resume_points: ResumePoints,
    /// Its file is compressed. All positions are in the content.
    pub(crate) compressed: Option<Box<Compressed>>,
    /// The older source of the same path that is read first.
    pub(crate) after: Option<SourceId>,
    /// The scan that found it as a new file, if that was in this run.
    pub(crate) found_by: u32,
    pub(crate) error: Option<Box<Unreadable>>,
    /// When it last grew, or was found.
    pub(crate) active_ms: u64,
    /// Which `[[follow]]` it belongs to.
    pub(crate) follow: u16,
    /// The offset is inside a line, of which parts are in the log.
    pub(crate) in_part: bool,
    /// The last line in the log has no newline.
    pub(crate) unterminated: bool,
    /// It begins with a byte-order mark of UTF-16, and that was reported.
    pub(crate) is_utf16: bool,
    /// Its content was checked since the start.
    pub(crate) looked: bool,
    /// A newer source took its path: its writer has left it.
    pub(crate) taken: bool,
    /// Its file was closed because descriptors ran short, not for being idle.
    pub(crate) closed_early: bool,
    /// What is behind the offset was allocated and not written yet, as far as known.
    pub(crate) unwritten: bool,
    /// It has a name that no glob matches.
    pub(crate) outside: bool,
}

/// Where the file of a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// At its path. `scan` found it there last, or has yet to look for it: 0 until the first scan of a run.
    Here { scan: u32 },
    /// One scan has not found it. That proves nothing: a rename during the walk hides a file from one scan.
    Missing { since_ms: u64 },
    /// Two scans in a row have not found it.
    Gone { since_ms: u64 },
    /// Its file has another content. The next scan after `scan` looks for the old content in copies; a source whose
    /// content is in none ends. `searched_since_ms`: since when copies are searched, once that began.
    Replaced { scan: u32, searched_since_ms: Option<u64> },
    /// No follow names it: it is not read, and not looked for. Its checkpoint stays in the log.
    Inactive,
}

impl Presence {
    /// Whether this scan found the file where it was.
    pub(crate) fn is_found_by(self, scan: u32) -> bool {
        self == Presence::Here { scan }
    }

    pub(crate) fn is_replaced(self) -> bool {
        matches!(self, Presence::Replaced { .. })
    }

    pub(crate) fn is_missing_once(self) -> bool {
        matches!(self, Presence::Missing { .. })
    }

    pub(crate) fn is_gone(self) -> bool {
        matches!(self, Presence::Gone { .. })
    }

    /// Since when no scan has found the file.
    pub(crate) fn missing_since_ms(self) -> Option<u64> {
        match self {
            Presence::Missing { since_ms } | Presence::Gone { since_ms } => Some(since_ms),
            _ => None,
        }
    }

    /// A scan did not find the file.
    pub(crate) fn missed(self, now_ms: u64) -> Presence {
        match self {
            Presence::Here { .. } => Presence::Missing { since_ms: now_ms },
            Presence::Missing { since_ms } => Presence::Gone { since_ms },
            other => other,
        }
    }
}

/// Where a file was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location<'a> {
    pub(crate) path: &'a Path,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) mtime_ns: i64,
    /// Which `[[follow]]` names it; `None` for the file of a source that has moved to a name that no glob matches.
    pub(crate) follow: Option<u16>,
}

impl Source {
    /// A new file, read from its beginning.
    pub(crate) fn found(id: SourceId, at: Location<'_>, scan: u32, now_ms: u64) -> Source {
        Source {
            device: at.device,
            inode: at.inode,
            mtime_ns: at.mtime_ns,
            presence: Presence::Here { scan },
            found_by: scan,
            follow: at.follow.unwrap_or_default(),
            looked: true,
            ..Source::unknown(id, at.path, now_ms)
        }
    }

    /// Not read from its beginning, but from `offset`. `before` ends there.
    pub(crate) fn begin_at(&mut self, offset: u64, before: &[u8]) {
        self.resume_points.add(offset, before);
        (self.offset, self.searched) = (offset, offset);
        self.in_part = false;
        self.dirty = true;
    }

    /// A compressed file of which nothing is read, as reading begins at the end.
    pub(crate) fn skip_content(&mut self) {
        if let Some(compressed) = self.compressed.as_mut() {
            compressed.state = State::Whole(Default::default());
            (self.size, self.dirty) = (0, true);
        }
    }

    /// As its checkpoint says. Whether its file is still there, the first scan finds out.
    pub(crate) fn from_record(id: SourceId, record: SourceRecord, now_ms: u64) -> Source {
        let size = record.compressed.map_or(0, |(_, whole)| whole.size).max(record.offset);
        let checked = |(form, whole)| Compressed::new(form, State::Whole(whole), now_ms);
        let unknown = Source::unknown(id, record.path(), now_ms);
        Source {
            rotated_from: record.rotated_from().map(Arc::from),
            inode: record.inode,
            fingerprint: record.fingerprint,
            offset: record.offset,
            searched: record.offset,
            size,
            compressed: record.compressed.map(checked),
            in_part: record.in_part,
            unterminated: record.unterminated,
            stored: true,
            resume_points: record.resume_points,
            ..unknown
        }
    }

    fn unknown(id: SourceId, path: &Path, now_ms: u64) -> Source {
        Source {
            id,
            path: Arc::from(path),
            device: 0,
            inode: 0,
            queued: false,
            dirty: false,
            stored: false,
            presence: Presence::Here { scan: 0 },
            rotated_from: None,
            fingerprint: Fingerprint::default(),
            offset: 0,
            searched: 0,
            size: 0,
            mtime_ns: 0,
            resume_points: ResumePoints::default(),
            compressed: None,
            after: None,
            found_by: 0,
            error: None,
            active_ms: now_ms,
            follow: 0,
            in_part: false,
            unterminated: false,
            is_utf16: false,
            looked: false,
            taken: false,
            closed_early: false,
            unwritten: false,
            outside: false,
        }
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Device and inode of its file, as last found.
    pub(crate) fn file_id(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// The same inode, on the same device as far as that is known in this run.
    pub(crate) fn is_file(&self, device: u64, inode: u64) -> bool {
        self.inode == inode && (self.device == 0 || self.device == device)
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.queued
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// A scan found its file where it was.
    pub(crate) fn mark_found(&mut self, device: u64, scan: u32) {
        (self.device, self.presence) = (device, Presence::Here { scan });
    }

    /// No follow names it any more: only what its checkpoint says is known of it.
    pub(crate) fn deactivate(&mut self) {
        self.presence = Presence::Inactive;
        self.looked = false;
        self.device = 0;
        (self.size, self.searched, self.mtime_ns) = (self.offset, self.offset, 0);
        self.error = None;
    }

    /// The path that it was first seen at.
    pub(crate) fn first_path(&self) -> &Path {
        self.rotated_from.as_deref().unwrap_or(&self.path)
    }

    pub(crate) fn record(&self) -> SourceRecord {
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        SourceRecord {
            path: bytes(&self.path),
            rotated_from: self.rotated_from.as_deref().map(bytes),
            inode: self.inode,
            fingerprint: self.fingerprint,
            offset: self.offset,
            resume_points: self.resume_points.clone(),
            compressed: self.compressed.as_ref().and_then(|one| Some((one.form, one.whole()?))),
            in_part: self.in_part,
            unterminated: self.unterminated,
            finished: false,
        }
    }

    /// The bytes behind the offset are not a line yet. If they are only zeros, they hold up no other source.
    pub(crate) fn hold_back(&mut self, is_zeros: bool) {
        self.unwritten = is_zeros;
        self.searched = self.searched.max(self.size);
    }

    /// Lines up to `offset` were delivered to the log; `before` ends there.
    pub(crate) fn advance(&mut self, offset: u64, before: &[u8]) {
        debug_assert!(offset > self.offset);
        self.widen_fingerprint(offset, before);
        self.offset = offset;
        self.searched = offset;
        self.unterminated = false;
        self.dirty = true;
        self.resume_points.add(offset, before);
    }

    /// The fingerprint covers what was read, as it was read: the file may change behind that, and while it is read.
    fn widen_fingerprint(&mut self, offset: u64, before: &[u8]) {
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
        // Resume points are at ends of lines and of parts; which of the two is not recorded. Whole lines are the rule.
        self.in_part = false;
        self.dirty = true;
    }

    /// Whether there are bytes that were not delivered, as far as known.
    pub(crate) fn has_rest(&self) -> bool {
        self.size > self.offset && !self.unwritten
    }

    /// Whether nothing is to be done before it changes.
    pub(crate) fn is_at_rest(&self) -> bool {
        let unchecked = |one: &Compressed| matches!(one.state, State::Unchecked | State::Bad { .. });
        // The end of a rotated file is decided by a later scan.
        let has_end = self.rotated_from.is_some() && (self.has_rest() || self.outside);
        let is_settled = self.error.is_none() && !has_end && self.is_caught_up();
        self.presence == Presence::Inactive
            || matches!(self.presence, Presence::Here { .. })
                && is_settled
                && !self.compressed.as_deref().is_some_and(unchecked)
    }

    /// Whether nothing is left but an incomplete line that was looked at.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.looked && !self.queued && self.searched.max(self.offset) >= self.size
    }

    /// A compressed file of which nothing was read, and that may be another source.
    pub(crate) fn is_provisional(&self) -> bool {
        self.compressed.as_ref().is_some_and(|one| one.whole().is_none())
    }

    /// A compressed file whose content is in the file of another source.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.compressed.as_ref().is_some_and(|one| matches!(one.state, State::Duplicate { .. }))
    }

    /// It is not waited for: it cannot be read, or no follow names it.
    pub(crate) fn is_passed_over(&self) -> bool {
        self.error.is_some() || self.presence == Presence::Inactive
    }

    /// The length of its file, as last seen.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.compressed.as_ref().map_or(self.size, |one| one.form.size)
    }

    /// Whether its file cannot be what it was, by its length and time alone. A compressed file never grows.
    pub(crate) fn is_another(&self, file_bytes: u64, mtime_ns: i64) -> bool {
        match &self.compressed {
            None => file_bytes < self.offset,
            Some(one) if one.whole().is_none() => false,
            Some(one) => (file_bytes, mtime_ns) != (one.form.size, self.mtime_ns),
        }
    }

    /// Whether any content of this size will do: nothing of it was read, and it is filled in place. A file of another
    /// length may have been copied away, and that comes first.
    pub(crate) fn may_be_another(&self, size: u64) -> bool {
        self.offset == 0 && self.compressed.is_none() && size == self.size
    }

    /// Bytes that its fingerprint and the resume point at its offset cover.
    pub(crate) fn compared(&self) -> u64 {
        self.offset.max(u64::from(self.fingerprint.len))
    }

    /// Since when nothing has happened to it: it last grew then, or was last found.
    pub(crate) fn quiet_since_ms(&self) -> u64 {
        self.active_ms.max(self.presence.missing_since_ms().unwrap_or(0))
    }
}

/// A source that ends, or whose incomplete last line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its file is still there, rotated: only what has no newline becomes a line.
    Unterminated,
    /// Its file is gone.
    Finished,
    /// Its content is gone.
    Truncated,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_takes_less_than_500_bytes() {
        let points = 12 * crate::tail::known::identity::RESUME_POINTS_MAX;
        let (path, maps) = (80, 48 + 24);
        let bytes = size_of::<Source>() + points + path + maps;
        assert!(bytes <= 500 + 100, "{bytes} with a path of {path} bytes and all resume points");
        assert!(size_of::<Source>() <= 224, "{}", size_of::<Source>());
    }
}
