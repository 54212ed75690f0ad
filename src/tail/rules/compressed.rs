//! Compressed files: when they are checked, and how they are read. Who they are then, `verdict` says.
//!
//! One is decompressed at a time, 4 MiB a turn. A compressed file that is not checked is a provisional source: it has a place
//! in the order of its path, nothing of it is read, and the log does not know it. No line of a damaged one is ever
//! read.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;

use spillq_storage::SourceId;

use crate::tail::bytes::check::{Candidate, Check};
use crate::tail::bytes::decompress::{Decompressor, Fault};
use crate::tail::bytes::open::open;
use crate::tail::bytes::stamp::mtime_ns;
use crate::tail::clock::Now;
use crate::tail::error::ReadError;
use crate::tail::known::form::{Compressed, State};
use crate::tail::known::identity::{COPY_WAIT_MS, FINGERPRINT_BYTES, Fingerprint, RESUME_POINT_BYTES};
use crate::tail::known::rotated_name::is_named_as;
use crate::tail::known::source::Source;
use crate::tail::worker::Worker;

/// Bytes of content in one turn: some tens of milliseconds, after which the other files come to theirs.
const TURN_BYTES: u64 = 4 * 1_024 * 1_024;
/// A file that does not come to rest is checked all the same after so long, to say that it is not complete.
const RESTLESS_MS: u64 = 60_000;
/// An incomplete file that grows is checked again after so many times of what the last check took.
const AGAIN_PAUSE: u64 = 20;
/// One that could not be read is tried again after so long, since it is read from its beginning.
const UNREAD_PAUSE_MS: u64 = 60_000;
/// Files of sources that are still there and are compared byte by byte, in one check.
const COMPARED_MAX: usize = 8;

/// The one file that is decompressed now.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: SourceId,
    pub(crate) job: Job,
}

#[derive(Debug)]
pub(crate) enum Job {
    Check(Box<Check>),
    Read(Box<Decompressor>),
}

impl Worker {
    /// The turn of a compressed file that is not checked.
    pub(crate) fn check_compressed(&mut self, id: SourceId, now: Now) {
        let Some(source) = self.table.get_mut(id) else {
            return;
        };
        source.queued = false;
        if source.inactive {
            return;
        }
        let Some(compressed) = source.compressed.as_deref() else {
            return;
        };
        // What is known to be no use is not even opened.
        let is_settled = match compressed.state {
            State::Bad { not_before_ms, even_unchanged, .. } => {
                now.boot_ms < not_before_ms || !even_unchanged && !has_changed(source)
            }
            State::Duplicate { .. } => !has_changed(source),
            _ => false,
        };
        if is_settled || !self.open_source(id) {
            return;
        }
        match self.prepare(id, now) {
            Ok(true) => {}
            // One that was told holds nobody up.
            Ok(false) if self.table.get(id).is_some_and(|source| source.error.is_some()) => {}
            Ok(false) => self.wait(id),
            Err(error) => self.fault(id, 0, 0, error, now),
        }
        let Some(Slot { job: Job::Check(check), .. }) = self.slot.as_mut().filter(|slot| slot.id == id)
        else {
            return;
        };
        let began = std::time::Instant::now();
        let from = check.end();
        let turn = check.turn(TURN_BYTES);
        let (end, cost_ms) = (check.end(), now.boot_ms.saturating_sub(check.began_ms));
        self.decompressed |= end > from;
        let cost_ms = cost_ms.max(began.elapsed().as_millis() as u64);
        match turn {
            Ok(false) => self.wait(id),
            Ok(true) => self.judge(id, now),
            Err(error) => self.fault(id, end, cost_ms, error, now),
        }
    }

    /// Sees to it that a check of the file as it is now is under way. False where it has to wait.
    fn prepare(&mut self, id: SourceId, now: Now) -> io::Result<bool> {
        let Some(source) = self.table.get(id) else {
            return Ok(false);
        };
        let Some(file) = source.file.as_ref() else {
            return Ok(false);
        };
        let meta = file.metadata()?;
        if let Some(Slot { job: Job::Check(check), .. }) = self.slot.as_ref().filter(|slot| slot.id == id)
            && (check.form.size, check.mtime_ns) == (meta.len(), mtime_ns(&meta))
        {
            return Ok(true);
        }
        self.let_go(id);
        let Some(compressed) = self.table.get_mut(id).and_then(|source| source.compressed.as_mut()) else {
            return Ok(false);
        };
        let since_ms = compressed.since_ms;
        let is_restless = compressed.quiet_ms(meta.len(), mtime_ns(&meta), now) < COPY_WAIT_MS;
        if is_restless && now.boot_ms.saturating_sub(since_ms) < RESTLESS_MS || !self.is_slot_free() {
            return Ok(false);
        }
        let file = self.table.get(id).and_then(|source| source.file.as_ref());
        let Some(file) = file.map(File::try_clone).transpose()? else {
            return Ok(false);
        };
        let look = self.reader.look(&file)?;
        let Some(form) = look.form else {
            self.becomes_plain(id, &look.start, &meta);
            return Ok(false);
        };
        self.look_at_unwritten();
        let Some(candidates) = self.candidates(id, &look.start) else {
            return Ok(false);
        };
        let decompressor = Decompressor::open(file)?;
        let check = Check::new(form, mtime_ns(&meta), now.boot_ms, decompressor, candidates);
        self.slot = Some(Slot { id, job: Job::Check(Box::new(check)) });
        if let Some(source) = self.table.get_mut(id) {
            source.fingerprint = Fingerprint::of(&look.start);
            (source.size, source.mtime_ns) = (form.size, mtime_ns(&meta));
            source.compressed = Some(Compressed::unchecked(form, since_ms));
        }
        Ok(true)
    }

    /// The file is plain now: a source from its beginning.
    fn becomes_plain(&mut self, id: SourceId, start: &[u8], meta: &fs::Metadata) {
        if let Some(source) = self.table.get_mut(id) {
            source.compressed = None;
            source.error = None;
            source.fingerprint = Fingerprint::of(start);
            (source.size, source.mtime_ns) = (meta.len(), mtime_ns(meta));
        }
        self.queue(id);
    }

    /// The sources that begin as the file does; none as long as one of them may only be on its way: a rename hides a file
    /// from one scan.
    fn candidates(&self, id: SourceId, start: &[u8]) -> Option<Vec<Candidate>> {
        let prints: HashSet<Fingerprint> = Fingerprint::prefixes(start).collect();
        // A content that is shorter than what the fingerprint covers is known by a resume point inside it.
        let is_short = start.len() < FINGERPRINT_BYTES;
        let is_longer = |source: &Source| {
            is_short && usize::from(source.fingerprint.len) > start.len() && source.resume_points.is_in(start)
        };
        let alike = |source: &&Source| {
            let is_alike = prints.contains(&source.fingerprint) || is_longer(source);
            source.id != id && !source.is_provisional() && is_alike
        };
        let path = self.table.get(id).map(|source| source.path.clone())?;
        let mut sources: Vec<&Source> = self.table.iter().filter(alike).collect();
        if sources.iter().any(|source| source.replaced == 0 && source.missed == 1) {
            return None;
        }
        // The one whose name it has, then the longest content that fits: the best evidence.
        sources
            .sort_by_key(|source| (!is_named_as(&path, &source.path), std::cmp::Reverse(source.compared())));
        let mut files = 0;
        let candidate = |source: &Source| {
            let file = (files < COMPARED_MAX).then(|| self.plain_file(source)).flatten();
            files += usize::from(file.is_some());
            Candidate::new(source, file)
        };
        Some(sources.into_iter().map(candidate).collect())
    }

    /// The file of a plain source, to compare with.
    fn plain_file(&self, source: &Source) -> Option<File> {
        if source.compressed.is_some() || source.replaced > 0 {
            return None;
        }
        if let Some(file) = &source.file {
            return file.try_clone().ok();
        }
        let opened = open(&source.path, self.discover.way(Some(source.follow), &source.path));
        let (file, meta) = opened.ok()?;
        ((meta.dev(), meta.ino()) == (source.device, source.inode)).then_some(file)
    }

    /// Rows 18 and 19. Told once; it holds nobody up.
    fn fault(&mut self, id: SourceId, decompressed: u64, cost_ms: u64, source: io::Error, now: Now) {
        self.let_go(id);
        let Some(provisional) = self.table.get_mut(id) else {
            return;
        };
        let path = provisional.path.to_path_buf();
        let again_ms = now.boot_ms + cost_ms * AGAIN_PAUSE;
        let (error, not_before_ms, even_unchanged) = match Fault::of(&source) {
            Fault::Incomplete => (ReadError::Incomplete { path, decompressed }, again_ms, false),
            Fault::Damaged => (ReadError::Damaged { path, decompressed, source }, again_ms, false),
            Fault::Unread => {
                (ReadError::Read { path, offset: decompressed, source }, now.boot_ms + UNREAD_PAUSE_MS, true)
            }
        };
        if let Some(compressed) = provisional.compressed.as_mut() {
            compressed.state = State::Bad { not_before_ms, even_unchanged, changed: false };
            compressed.since_ms = now.boot_ms;
        }
        // Nobody waits for its descriptor.
        self.open -= usize::from(provisional.file.take().is_some());
        self.fail(id, &error);
    }

    /// Makes the decompressor of a source ready at its offset. False where it waits, for another or for its next turn.
    pub(crate) fn prepare_decompressor(&mut self, id: SourceId) -> io::Result<bool> {
        let Some((source, file)) =
            self.table.get(id).and_then(|source| Some((source, source.file.as_ref()?)))
        else {
            return Ok(false);
        };
        let from = source.offset.saturating_sub(RESUME_POINT_BYTES as u64);
        let is_there = |slot: &Slot| match &slot.job {
            Job::Read(decompressor) => slot.id == id && decompressor.base() <= from,
            Job::Check(_) => false,
        };
        if !self.slot.as_ref().is_some_and(is_there) {
            let file = file.try_clone()?;
            self.let_go(id);
            if !self.is_slot_free() {
                return Ok(false);
            }
            self.slot = Some(Slot { id, job: Job::Read(Box::new(Decompressor::open(file)?)) });
        }
        match self.slot.as_mut().map(|slot| &mut slot.job) {
            Some(Job::Read(decompressor)) if decompressor.end() < from => {
                self.decompressed = true;
                decompressor.forward(from, TURN_BYTES)
            }
            _ => Ok(true),
        }
    }

    /// Whether the last one that was decompressed does not go on with it.
    fn is_slot_free(&self) -> bool {
        self.slot.as_ref().is_none_or(|slot| {
            let is_check = matches!(slot.job, Job::Check(_));
            let holder = self.table.get(slot.id);
            !holder.is_some_and(|holder| holder.queued && (is_check || !self.is_blocked(slot.id)))
        })
    }

    /// The source is not decompressed now.
    pub(crate) fn let_go(&mut self, id: SourceId) {
        self.slot.take_if(|slot| slot.id == id);
    }
}

impl Slot {
    /// the decompressor of a source that is read.
    pub(crate) fn decompressor(&mut self, of: SourceId) -> Option<&mut Decompressor> {
        match &mut self.job {
            Job::Read(decompressor) if self.id == of => Some(decompressor),
            _ => None,
        }
    }
}

/// Whether the file is another than it was at the last check, by length and time.
fn has_changed(source: &Source) -> bool {
    fs::metadata(&source.path)
        .is_ok_and(|meta| (meta.len(), mtime_ns(&meta)) != (source.file_bytes(), source.mtime_ns))
}
