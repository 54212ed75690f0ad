//! Packed files: when they are checked, and how they are read. Who they are then, `verdict` says.
//!
//! One is unpacked at a time, 4 MiB a turn. A packed file that is not checked is a provisional source: it has a place
//! in the order of its path, nothing of it is read, and the log does not know it. No line of a damaged one is ever
//! read.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;

use bincode::{Decode, Encode};
use spillq_storage::SourceId;

use super::check::{Candidate, Check};
use super::error::ReadError;
use super::identity::{FINGERPRINT_BYTES, Fingerprint, RUNG_BYTES};
use super::open::open;
use super::reader::mtime_ns;
use super::recognise::COPY_WAIT_MS;
use super::source::Source;
use super::unpack::{Fault, Form, Unpacker};
use super::verdict::is_named_as;
use super::worker::{Now, Worker};

/// Bytes of content in one turn: some tens of milliseconds, after which the other files come to theirs.
const TURN_BYTES: u64 = 4 * 1_024 * 1_024;
/// A file that does not come to rest is checked all the same after so long, to say that it is not complete.
const RESTLESS_MS: u64 = 60_000;
/// An incomplete file that grows is checked again after so many times of what the last check took.
const AGAIN_PAUSE: u64 = 20;
/// One that could not be read is tried again after so long, since it is read from its beginning.
const UNREAD_PAUSE_MS: u64 = 60_000;
/// Files of sources that are still there and are compared byte by byte, in one check.
const TWINS_MAX: usize = 8;

/// What a packed file unpacks to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Whole {
    pub(crate) size: u64,
    pub(crate) crc: u32,
    /// CRC of its last bytes, as of a rung there.
    pub(crate) end: u32,
}

/// What is known of the file of a packed source.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) form: Form,
    pub(crate) state: State,
    /// Since when it waits to be checked.
    pub(crate) since_ms: u64,
    /// Its length and time as last looked at, and since when they are that.
    rest: (u64, i64),
    rest_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Unchecked,
    /// Incomplete, damaged or unreadable as it is: checked again when it has changed, or even unchanged, but not before.
    Bad {
        not_before_ms: u64,
        even_unchanged: bool,
        /// A sweep saw it changed since.
        changed: bool,
    },
    /// It has what is in the file of another source, which is still there.
    Twin {
        of: SourceId,
        whole: Whole,
    },
    /// Checked, and a source of its own.
    Whole(Whole),
}

impl Packed {
    pub(crate) fn unchecked(form: Form, since_ms: u64) -> Box<Packed> {
        Packed::new(form, State::Unchecked, since_ms)
    }

    pub(crate) fn new(form: Form, state: State, since_ms: u64) -> Box<Packed> {
        Box::new(Packed { form, state, since_ms, rest: (0, 0), rest_ms: since_ms })
    }

    /// For how long it has not changed while we looked. The time of its last change is of another clock: that of a server
    /// may be ahead of ours, or behind.
    fn quiet_ms(&mut self, size: u64, mtime_ns: i64, now: Now) -> u64 {
        if self.rest != (size, mtime_ns) {
            (self.rest, self.rest_ms) = ((size, mtime_ns), now.boot_ms);
        }
        now.boot_ms.saturating_sub(self.rest_ms)
    }

    /// It has another length or time than it was checked with.
    pub(crate) fn note_change(&mut self) {
        if let State::Bad { changed, .. } = &mut self.state {
            *changed = true;
        }
    }

    /// As it was found.
    pub(crate) fn found(form: Form, mtime_ns: i64, now_ms: u64) -> Box<Packed> {
        Box::new(Packed { rest: (form.size, mtime_ns), ..*Packed::unchecked(form, now_ms) })
    }

    /// Who it is will be found out, and is not known yet.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Unchecked | State::Bad { changed: true, .. })
    }

    /// What it unpacks to, where it is a source of its own.
    pub(crate) fn whole(&self) -> Option<Whole> {
        match self.state {
            State::Whole(whole) => Some(whole),
            _ => None,
        }
    }
}

/// The one file that is unpacked now.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: SourceId,
    pub(crate) job: Job,
}

#[derive(Debug)]
pub(crate) enum Job {
    Check(Box<Check>),
    Read(Box<Unpacker>),
}

impl Worker {
    /// The turn of a packed file that is not checked.
    pub(crate) fn check_packed(&mut self, id: SourceId, now: Now) {
        let Some(source) = self.table.get_mut(id) else {
            return;
        };
        source.queued = false;
        if source.resting {
            return;
        }
        let Some(packed) = source.packed.as_deref() else {
            return;
        };
        // What is known to be no use is not even opened.
        let is_settled = match packed.state {
            State::Bad { not_before_ms, even_unchanged, .. } => {
                now.boot_ms < not_before_ms || !even_unchanged && !has_changed(source)
            }
            State::Twin { .. } => !has_changed(source),
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
        self.unpacked |= end > from;
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
        let Some(packed) = self.table.get_mut(id).and_then(|source| source.packed.as_mut()) else {
            return Ok(false);
        };
        let since_ms = packed.since_ms;
        let is_restless = packed.quiet_ms(meta.len(), mtime_ns(&meta), now) < COPY_WAIT_MS;
        if is_restless && now.boot_ms.saturating_sub(since_ms) < RESTLESS_MS || !self.is_slot_free() {
            return Ok(false);
        }
        let file = self.table.get(id).and_then(|source| source.file.as_ref());
        let Some(file) = file.map(File::try_clone).transpose()? else {
            return Ok(false);
        };
        let look = self.reader.look(&file)?;
        let Some(form) = look.form else {
            self.unpack_no_more(id, &look.start, &meta);
            return Ok(false);
        };
        self.look_at_unwritten();
        let Some(candidates) = self.candidates(id, &look.start) else {
            return Ok(false);
        };
        let unpacker = Unpacker::open(file)?;
        let check = Check::new(form, mtime_ns(&meta), now.boot_ms, unpacker, candidates);
        self.slot = Some(Slot { id, job: Job::Check(Box::new(check)) });
        if let Some(source) = self.table.get_mut(id) {
            source.fingerprint = Fingerprint::of(&look.start);
            (source.size, source.mtime_ns) = (form.size, mtime_ns(&meta));
            source.packed = Some(Packed::unchecked(form, since_ms));
        }
        Ok(true)
    }

    /// The file is plain now: a source from its beginning.
    fn unpack_no_more(&mut self, id: SourceId, start: &[u8], meta: &fs::Metadata) {
        if let Some(source) = self.table.get_mut(id) {
            source.packed = None;
            source.error = None;
            source.fingerprint = Fingerprint::of(start);
            (source.size, source.mtime_ns) = (meta.len(), mtime_ns(meta));
        }
        self.queue(id);
    }

    /// The sources that begin as the file does; none as long as one of them may only be on its way: a rename hides a file
    /// from one sweep.
    fn candidates(&self, id: SourceId, start: &[u8]) -> Option<Vec<Candidate>> {
        let prints: HashSet<Fingerprint> = Fingerprint::prefixes(start).collect();
        // A content that is shorter than what the fingerprint covers is known by a rung inside it.
        let is_short = start.len() < FINGERPRINT_BYTES;
        let is_longer = |source: &Source| {
            is_short && usize::from(source.fingerprint.len) > start.len() && source.ladder.is_in(start)
        };
        let alike = |source: &&Source| {
            let is_alike = prints.contains(&source.fingerprint) || is_longer(source);
            source.id != id && !source.is_provisional() && is_alike
        };
        let path = self.table.get(id).map(|source| source.path.clone())?;
        let mut sources: Vec<&Source> = self.table.iter().filter(alike).collect();
        if sources.iter().any(|source| source.displaced == 0 && source.missed == 1) {
            return None;
        }
        // The one whose name it has, then the longest content that fits: the best evidence.
        sources
            .sort_by_key(|source| (!is_named_as(&path, &source.path), std::cmp::Reverse(source.compared())));
        let mut files = 0;
        let candidate = |source: &Source| {
            let file = (files < TWINS_MAX).then(|| self.plain_file(source)).flatten();
            files += usize::from(file.is_some());
            Candidate::new(source, file)
        };
        Some(sources.into_iter().map(candidate).collect())
    }

    /// The file of a plain source, to compare with.
    fn plain_file(&self, source: &Source) -> Option<File> {
        if source.packed.is_some() || source.displaced > 0 {
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
    fn fault(&mut self, id: SourceId, unpacked: u64, cost_ms: u64, source: io::Error, now: Now) {
        self.let_go(id);
        let Some(provisional) = self.table.get_mut(id) else {
            return;
        };
        let path = provisional.path.to_path_buf();
        let again_ms = now.boot_ms + cost_ms * AGAIN_PAUSE;
        let (error, not_before_ms, even_unchanged) = match Fault::of(&source) {
            Fault::Incomplete => (ReadError::Incomplete { path, unpacked }, again_ms, false),
            Fault::Damaged => (ReadError::Damaged { path, unpacked, source }, again_ms, false),
            Fault::Unread => {
                (ReadError::Read { path, offset: unpacked, source }, now.boot_ms + UNREAD_PAUSE_MS, true)
            }
        };
        if let Some(packed) = provisional.packed.as_mut() {
            packed.state = State::Bad { not_before_ms, even_unchanged, changed: false };
            packed.since_ms = now.boot_ms;
        }
        // Nobody waits for its descriptor.
        self.open -= usize::from(provisional.file.take().is_some());
        self.fail(id, &error);
    }

    /// Makes the unpacker of a source ready at its offset. False where it waits, for another or for its next turn.
    pub(crate) fn is_unpacked(&mut self, id: SourceId) -> io::Result<bool> {
        let Some((source, file)) =
            self.table.get(id).and_then(|source| Some((source, source.file.as_ref()?)))
        else {
            return Ok(false);
        };
        let from = source.offset.saturating_sub(RUNG_BYTES as u64);
        let is_there = |slot: &Slot| match &slot.job {
            Job::Read(unpacker) => slot.id == id && unpacker.base() <= from,
            Job::Check(_) => false,
        };
        if !self.slot.as_ref().is_some_and(is_there) {
            let file = file.try_clone()?;
            self.let_go(id);
            if !self.is_slot_free() {
                return Ok(false);
            }
            self.slot = Some(Slot { id, job: Job::Read(Box::new(Unpacker::open(file)?)) });
        }
        match self.slot.as_mut().map(|slot| &mut slot.job) {
            Some(Job::Read(unpacker)) if unpacker.end() < from => {
                self.unpacked = true;
                unpacker.forward(from, TURN_BYTES)
            }
            _ => Ok(true),
        }
    }

    /// Whether the last one that was unpacked does not go on with it.
    fn is_slot_free(&self) -> bool {
        self.slot.as_ref().is_none_or(|slot| {
            let is_check = matches!(slot.job, Job::Check(_));
            let holder = self.table.get(slot.id);
            !holder.is_some_and(|holder| holder.queued && (is_check || !self.is_blocked(slot.id)))
        })
    }

    /// The source is not unpacked now.
    pub(crate) fn let_go(&mut self, id: SourceId) {
        self.slot.take_if(|slot| slot.id == id);
    }
}

impl Slot {
    /// The unpacker of a source that is read.
    pub(crate) fn unpacker(&mut self, of: SourceId) -> Option<&mut Unpacker> {
        match &mut self.job {
            Job::Read(unpacker) if self.id == of => Some(unpacker),
            _ => None,
        }
    }
}

/// Whether the file is another than it was at the last check, by length and time.
fn has_changed(source: &Source) -> bool {
    fs::metadata(&source.path)
        .is_ok_and(|meta| (meta.len(), mtime_ns(&meta)) != (source.file_bytes(), source.mtime_ns))
}
