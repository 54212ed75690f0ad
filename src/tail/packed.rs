//! Packed files: when they are checked, who they are then, and how they are read. Rows 13 to 21 of `docs/tail.md`.
//!
//! One is unpacked at a time, 4 MiB a turn. A packed file that is not checked is a provisional source: it has a place
//! in the order of its path, nothing of it is read, and the log does not know it. No line of a damaged one is ever
//! read, and no source is given up while a packed file may be what is left of it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bincode::{Decode, Encode};
use spillq_storage::SourceId;

use super::check::{Candidate, Check};
use super::discover::Found;
use super::error::ReadError;
use super::identity::{
    Decision, Evidence, FINGERPRINT_BYTES, Fingerprint, Likeness, OwnPath, RUNG_BYTES, SAME_PATH_BYTES, decide,
};
use super::open::open;
use super::reader::{Look, ctime_ms, mtime_ns};
use super::recognise::{COPY_WAIT_MS, Opened};
use super::rotation::unpacked;
use super::source::Source;
use super::unpack::{Fault, Form, Unpacker};
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
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Unchecked,
    /// Incomplete, damaged or unreadable as it is: checked again when it has changed, or even unchanged, but not before.
    Bad { not_before_ms: u64, even_unchanged: bool },
    /// It has what is in the file of another source, which is still there.
    Twin { of: SourceId, whole: Whole },
    /// Checked, and a source of its own.
    Whole(Whole),
}

impl Packed {
    pub(crate) fn unchecked(form: Form, since_ms: u64) -> Box<Packed> {
        Box::new(Packed { form, state: State::Unchecked, since_ms })
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
    id: SourceId,
    job: Job,
}

#[derive(Debug)]
enum Job {
    Check(Box<Check>),
    Read(Box<Unpacker>),
}

/// Who a checked file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    New,
    Twin(SourceId),
    /// What is left of a source, which goes on at this offset.
    Rest(SourceId, u64),
    /// Where that source is, or how far it is read, is not known yet.
    Later,
}

impl Worker {
    /// The turn of a packed file that is not checked.
    pub(crate) fn check_packed(&mut self, id: SourceId, now: Now) {
        let Some(source) = self.table.get_mut(id) else {
            return;
        };
        source.queued = false;
        let Some(packed) = source.packed.as_deref() else {
            return;
        };
        // What is known to be no use is not even opened.
        let is_settled = match packed.state {
            State::Bad { not_before_ms, even_unchanged } => {
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
        let Some(Slot { job: Job::Check(check), .. }) = self.slot.as_mut().filter(|slot| slot.id == id) else {
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
        let Some(source) = self.table.get(id) else {
            return Ok(false);
        };
        let since_ms = source.packed.as_ref().map_or(0, |packed| packed.since_ms);
        let age_ms = (now.wall_ms as i64).saturating_sub(ctime_ms(&meta));
        let is_restless = age_ms < COPY_WAIT_MS as i64;
        if is_restless && now.boot_ms.saturating_sub(since_ms) < RESTLESS_MS || !self.is_slot_free() {
            return Ok(false);
        }
        let Some(file) = source.file.as_ref().map(File::try_clone).transpose()? else {
            return Ok(false);
        };
        let look = self.reader.look(&file)?;
        let Some(form) = look.form else {
            self.unpack_no_more(id, &look.start, &meta);
            return Ok(false);
        };
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
        let alike = |source: &&Source| {
            source.id != id && !source.is_provisional() && prints.contains(&source.fingerprint)
        };
        let path = self.table.get(id).map(|source| source.path.clone())?;
        let mut sources: Vec<&Source> = self.table.iter().filter(alike).collect();
        if sources.iter().any(|source| source.displaced == 0 && source.missed == 1) {
            return None;
        }
        // The one whose name it has, then the longest content that fits: the best evidence.
        sources.sort_by_key(|source| {
            (!is_named_as(&path, &source.path), std::cmp::Reverse(source.compared()))
        });
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

    /// What was checked is somebody: the table.
    fn judge(&mut self, id: SourceId, now: Now) {
        let Some(Slot { job: Job::Check(check), .. }) = self.slot.take_if(|slot| slot.id == id) else {
            return;
        };
        let Some(whole) = check.whole() else {
            return self.wait(id);
        };
        let verdict = self.verdict(id, &check, whole, now);
        match verdict {
            Verdict::Rest(of, to) => return self.rest(id, of, to, whole, now),
            Verdict::Later => {
                self.sweep_wanted = true;
                return self.wait(id);
            }
            Verdict::Twin(of) => {
                let before = self.table.get(id).and_then(|source| source.after);
                self.stand_for(id, before, of);
            }
            Verdict::New => {}
        }
        let Some(source) = self.table.get_mut(id) else {
            return;
        };
        source.fingerprint = Fingerprint::of(check.start());
        if source.error.take().is_some() {
            tracing::info!(path = %source.path.display(), "complete now");
        }
        let (size, state) = match verdict {
            Verdict::Twin(of) => (0, State::Twin { of, whole }),
            _ => (whole.size, State::Whole(whole)),
        };
        source.size = size;
        if let Some(packed) = source.packed.as_mut() {
            (packed.form, packed.state) = (check.form, state);
        }
        self.queue(id);
    }

    /// Rows 14 to 17, and 20.
    fn verdict(&mut self, id: SourceId, check: &Check, whole: Whole, now: Now) -> Verdict {
        let Some((path, is_gone)) = self.table.get(id).map(|one| (one.path.clone(), one.missed > 0)) else {
            return Verdict::Later;
        };
        for candidate in &check.candidates {
            let Some(own_path) = self.own_path(candidate.id, now) else {
                continue;
            };
            let Some(source) = self.table.get(candidate.id) else {
                continue;
            };
            let offset = source.offset;
            let is_here = own_path == OwnPath::Here;
            // A short content may be a header that many files have.
            let is_told = whole.size >= SAME_PATH_BYTES || is_gone || is_named_as(&path, &source.path);
            let is_alike = match &source.packed {
                Some(packed) => packed.whole() == Some(whole),
                None => candidate.is_twin(),
            };
            let is_twin = is_alike && (is_told || !is_here && whole.size >= offset);
            if is_here || source.file.is_some() && candidate.is_compared {
                if is_twin {
                    return Verdict::Twin(candidate.id);
                }
                continue;
            }
            let fingerprint = source.fingerprint.compare(check.start());
            let decision = decide(&Evidence {
                // Of one that is changed in place nothing but the content tells.
                same_path: *source.path == *path && source.displaced == 0,
                same_inode: false,
                fingerprint,
                size: whole.size,
                offset,
                before_offset: candidate.matches(offset) || is_twin && offset <= whole.size,
                rung: candidate.rung(),
                first_look: !source.looked,
                own_path,
                fresh: false,
                compared: source.compared(),
            });
            let to = match decision {
                Decision::Continue | Decision::Copy => Some(offset),
                Decision::CopyRead => Some(whole.size),
                _ => is_twin.then_some(whole.size.min(offset)),
            };
            // It was read on while the file was checked.
            let has_moved = fingerprint == Likeness::Equal
                && source.ladder.crc_at(offset).is_some()
                && !candidate.knows(offset);
            let is_on_its_way =
                source.displaced == 0 && (source.seen == self.sweep_number || source.missed == 1);
            match to {
                None if has_moved => return Verdict::Later,
                Some(_) if is_on_its_way || is_read(source) => return Verdict::Later,
                Some(to) => return Verdict::Rest(candidate.id, to),
                None => {}
            }
        }
        Verdict::New
    }

    /// The source `of` goes on in the packed file, at `to`; the provisional source of that is no more.
    fn rest(&mut self, id: SourceId, of: SourceId, to: u64, whole: Whole, now: Now) {
        if !self.open_source(id) {
            return;
        }
        let Some(mut provisional) = self.table.remove(id) else {
            return;
        };
        self.let_go(id);
        self.let_go(of);
        self.endings.retain(|ending| ending.0 != of);
        let (Some(file), Some(packed)) = (provisional.file.take(), provisional.packed.take()) else {
            return;
        };
        self.open = self.open.saturating_sub(1);
        self.stand_for(id, provisional.after, of);
        let Some(source) = self.table.get_mut(of) else {
            return;
        };
        let destroyed = source.size.saturating_sub(source.offset.max(whole.size));
        if destroyed > 0 && source.packed.is_none() {
            self.counters.destroyed_unread_bytes += destroyed;
            let (path, offset) = (source.path.display(), source.offset);
            tracing::error!(%path, offset, bytes = destroyed, "bytes were destroyed before they were read");
        }
        if to < source.offset {
            source.ladder.set(to, whole.end);
            (source.offset, source.in_part) = (to, false);
        }
        source.size = whole.size;
        source.displaced = 0;
        let found = Found {
            path: provisional.path.to_path_buf(),
            device: provisional.device,
            inode: provisional.inode,
            size: packed.form.size,
            mtime_ns: provisional.mtime_ns,
            ctime_ms: 0,
            follow: Some(provisional.follow),
        };
        tracing::debug!(path = %found.path.display(), source = of.0, to, "what is left of a source is packed");
        let look = Look { size: packed.form.size, start: Vec::new(), form: Some(packed.form) };
        let state = State::Whole(whole);
        source.packed = Some(Box::new(Packed { state, ..*packed }));
        self.take_over(of, Opened { found, file, look }, None, now);
        self.owe_checkpoint(of);
    }

    /// Who came after the packed file comes after the source that it is a part of, which itself comes after `before`.
    fn stand_for(&mut self, id: SourceId, before: Option<SourceId>, of: SourceId) {
        for other in self.table.iter_mut().filter(|other| other.after == Some(id)) {
            other.after = match other.id == of {
                true => before.filter(|before| *before != of),
                false => Some(of),
            };
        }
    }

    /// A source whose twin is a packed file, and that is gone, goes on there. Its writer may have it open still, so one that
    /// is held open is read from its descriptor until it is quiet.
    pub(crate) fn settle_twins(&mut self, now: Now) {
        let twin = |source: &Source| match source.packed.as_ref()?.state {
            State::Twin { of, whole } => Some((source.id, of, whole)),
            _ => None,
        };
        let twins: Vec<_> = self.table.iter().filter_map(twin).collect();
        for (id, of, whole) in twins {
            let Some(source) = self.table.get(of) else {
                // Who it was is not known any more.
                if let Some(packed) = self.table.get_mut(id).and_then(|source| source.packed.as_mut()) {
                    packed.state = State::Unchecked;
                }
                self.queue(id);
                continue;
            };
            let wait_ms = self.rotate_wait_ms(source);
            let quiet_ms = now.boot_ms.saturating_sub(source.active_ms.max(source.gone_ms.unwrap_or(0)));
            let is_quiet = source.is_caught_up() && (self.once || quiet_ms >= wait_ms);
            if source.displaced > 0 || source.missed >= 2 && (source.file.is_none() || is_quiet) {
                let to = source.offset.min(whole.size);
                self.rest(id, of, to, whole, now);
            }
        }
    }

    /// Whether a packed file that is not checked may be what is left of the source.
    pub(crate) fn is_awaited(&mut self, id: SourceId) -> bool {
        let Some(print) = self.table.get(id).map(|source| source.fingerprint) else {
            return false;
        };
        let mut looked_into = Vec::new();
        for source in self.table.iter().filter(|source| source.id != id) {
            match source.packed.as_ref().map(|packed| &packed.state) {
                Some(State::Twin { of, .. }) if *of == id => return true,
                Some(State::Unchecked) if print.len == 0 || source.fingerprint == print => return true,
                // Two whole kilobytes that differ, or the beginning of a smaller file.
                Some(State::Unchecked) if usize::from(print.len) < FINGERPRINT_BYTES => {
                    looked_into.push((source.path.clone(), source.follow));
                }
                _ => {}
            }
        }
        looked_into.into_iter().any(|(path, follow)| {
            let opened = open(&path, self.discover.way(Some(follow), &path));
            let look = opened.ok().and_then(|(file, _)| self.reader.look(&file).ok());
            look.is_some_and(|look| print.compare(&look.start) == Likeness::Equal)
        })
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
            packed.state = State::Bad { not_before_ms, even_unchanged };
            packed.since_ms = now.boot_ms;
        }
        // Nobody waits for its descriptor.
        self.open -= usize::from(provisional.file.take().is_some());
        self.fail(id, &error);
    }

    /// Makes the unpacker of a source ready at its offset. False where it waits, for another or for its next turn.
    pub(crate) fn is_unpacked(&mut self, id: SourceId) -> io::Result<bool> {
        let Some((source, file)) = self.table.get(id).and_then(|source| Some((source, source.file.as_ref()?)))
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

/// Held open with whole lines that are not read.
fn is_read(source: &Source) -> bool {
    source.displaced == 0 && source.file.is_some() && source.error.is_none() && !source.is_caught_up()
}

/// Whether the file is another than it was at the last check, by length and time.
fn has_changed(source: &Source) -> bool {
    fs::metadata(&source.path)
        .is_ok_and(|meta| (meta.len(), mtime_ns(&meta)) != (source.file_bytes(), source.mtime_ns))
}

/// Whether a packed file has the name of another and a suffix.
fn is_named_as(packed: &Path, plain: &Path) -> bool {
    unpacked(packed).is_some_and(|name| name == plain)
}
