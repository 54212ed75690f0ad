//! Compressed files: when they are checked, and when their content is read. `checked` decides which source a checked file
//! is.
//!
//! One file is decompressed at a time, 4 MiB a turn. A compressed file that is not checked is a provisional source: it has
//! a place in the order of its path, nothing of it is read, and the log does not know it. No line of a damaged file is
//! ever read.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;

use spillq_storage::SourceId;

use crate::tail::bytes::{Candidate, Check, Decompressor, Fault, Reader, mtime_ns};
use crate::tail::clock::Now;
use crate::tail::error::ReadError;
use crate::tail::known::{
    COPY_WAIT_MS, Compressed, FINGERPRINT_BYTES, Fingerprint, Presence, RESUME_POINT_BYTES, Source, State,
    is_named_as,
};
use crate::tail::rules::{Book, Job, checked, look_at_unwritten, order};

/// Bytes of content in one turn: some tens of milliseconds, after which the other files have theirs.
const TURN_BYTES: u64 = 4 * 1_024 * 1_024;
/// A file that keeps changing is checked all the same after this time, to report that it is not complete.
const RESTLESS_MS: u64 = 60_000;
/// An incomplete file that grows is checked again after this many times what the last check took.
const AGAIN_PAUSE: u64 = 20;
/// A file that could not be read is tried again after this time, since it is read from its beginning.
const UNREAD_PAUSE_MS: u64 = 60_000;
/// Files of sources that are still there and are compared byte by byte, in one check.
const COMPARED_MAX: usize = 8;

/// The turn of a compressed file that is not checked.
pub(crate) fn check(book: &mut Book, reader: &mut Reader, id: SourceId, now: Now) {
    let Some(source) = book.begin_turn(id) else {
        return;
    };
    if source.presence == Presence::Inactive {
        return;
    }
    let Some(compressed) = source.compressed.as_deref() else {
        return;
    };
    // One that would only give the same result is not even opened.
    let is_settled = match compressed.state {
        State::Bad { not_before_ms, even_unchanged, .. } => {
            now.boot_ms < not_before_ms || !even_unchanged && !has_changed(source)
        }
        State::Duplicate { .. } => !has_changed(source),
        _ => false,
    };
    if is_settled || !book.open(id) {
        return;
    }
    match prepare_check(book, reader, id, now) {
        Ok(true) => {}
        // One that was reported holds up no other.
        Ok(false) if book.get(id).is_some_and(|source| source.error.is_some()) => {}
        Ok(false) => book.wait(id),
        Err(error) => fail(book, id, 0, 0, error, now),
    }
    let Some(check) = book.slot.check(id) else {
        return;
    };
    let began = std::time::Instant::now();
    let from = check.end();
    let turn = check.turn(TURN_BYTES);
    let (end, cost_ms) = (check.end(), now.boot_ms.saturating_sub(check.began_ms));
    if end > from {
        book.slot.has_worked = true;
    }
    let cost_ms = cost_ms.max(began.elapsed().as_millis() as u64);
    match turn {
        Ok(false) => book.wait(id),
        Ok(true) => checked::conclude(book, reader, id, now),
        Err(error) => fail(book, id, end, cost_ms, error, now),
    }
}

/// Sees to it that a check of the file as it is now is under way. False if it has to wait.
fn prepare_check(book: &mut Book, reader: &mut Reader, id: SourceId, now: Now) -> io::Result<bool> {
    let Some(file) = book.files().get(id) else {
        return Ok(false);
    };
    let meta = file.metadata()?;
    let state = (meta.len(), mtime_ns(&meta));
    if book.slot.check(id).is_some_and(|check| (check.form.size, check.mtime_ns) == state) {
        return Ok(true);
    }
    book.slot.release(id);
    let Some(compressed) = book.get_mut(id).and_then(|source| source.compressed.as_mut()) else {
        return Ok(false);
    };
    let since_ms = compressed.since_ms;
    let is_restless = compressed.quiet_ms(state.0, state.1, now) < COPY_WAIT_MS;
    if is_restless && now.boot_ms.saturating_sub(since_ms) < RESTLESS_MS || !is_slot_free(book) {
        return Ok(false);
    }
    let Some(file) = book.files().get(id).map(File::try_clone).transpose()? else {
        return Ok(false);
    };
    let look = reader.look(&file)?;
    let Some(form) = look.form else {
        becomes_plain(book, id, &look.start, state);
        return Ok(false);
    };
    look_at_unwritten(book, reader);
    let Some(candidates) = candidates(book, id, &look.start) else {
        return Ok(false);
    };
    let decompressor = Decompressor::open(file)?;
    let check = Check::new(form, state.1, now.boot_ms, decompressor, candidates);
    book.slot.begin(id, Job::Check(Box::new(check)));
    if let Some(source) = book.get_mut(id) {
        source.fingerprint = Fingerprint::of(&look.start);
        (source.size, source.mtime_ns) = (form.size, state.1);
        source.compressed = Some(Compressed::new(form, State::Unchecked, since_ms));
    }
    Ok(true)
}

/// The file is plain now: a source from its beginning.
fn becomes_plain(book: &mut Book, id: SourceId, start: &[u8], (size, mtime_ns): (u64, i64)) {
    if let Some(source) = book.get_mut(id) {
        source.compressed = None;
        source.error = None;
        source.fingerprint = Fingerprint::of(start);
        (source.size, source.mtime_ns) = (size, mtime_ns);
    }
    book.queue(id);
}

/// The sources that begin as the file does; none as long as one of them was missed by one scan: a rename hides a file from
/// one.
fn candidates(book: &Book, id: SourceId, start: &[u8]) -> Option<Vec<Candidate>> {
    let prints: HashSet<Fingerprint> = Fingerprint::prefixes(start).collect();
    // A content that is shorter than what the fingerprint covers is known by a resume point inside it.
    let is_short = start.len() < FINGERPRINT_BYTES;
    let is_longer = |source: &Source| {
        is_short && usize::from(source.fingerprint.len) > start.len() && source.resume_points.is_in(start)
    };
    let is_alike = |source: &&Source| {
        let is_alike = prints.contains(&source.fingerprint) || is_longer(source);
        source.id != id && !source.is_provisional() && is_alike
    };
    let path = book.get(id).map(|source| source.path().clone())?;
    let mut sources: Vec<&Source> = book.sources().iter().filter(is_alike).collect();
    if sources.iter().any(|source| source.presence.is_missing_once()) {
        return None;
    }
    // The one whose name it has, then the longest content that fits: the best evidence.
    sources.sort_by_key(|source| (!is_named_as(&path, source.path()), std::cmp::Reverse(source.compared())));
    let mut files = 0;
    let candidate = |source: &Source| {
        let file = (files < COMPARED_MAX).then(|| plain_file(book, source)).flatten();
        files += usize::from(file.is_some());
        Candidate::new(source, file)
    };
    Some(sources.into_iter().map(candidate).collect())
}

/// The file of a plain source, to compare with.
fn plain_file(book: &Book, source: &Source) -> Option<File> {
    if source.compressed.is_some() || source.presence.is_replaced() {
        return None;
    }
    if let Some(file) = book.files().get(source.id) {
        return file.try_clone().ok();
    }
    book.open_same(source).ok()?
}

/// Rows 18 and 19. Reported once; it holds up no other source.
fn fail(book: &mut Book, id: SourceId, decompressed: u64, cost_ms: u64, source: io::Error, now: Now) {
    book.slot.release(id);
    let Some(provisional) = book.get_mut(id) else {
        return;
    };
    let path = provisional.path().to_path_buf();
    let again_ms = now.boot_ms + cost_ms * AGAIN_PAUSE;
    let (error, not_before_ms, even_unchanged) = match Fault::of(&source) {
        Fault::Incomplete => (ReadError::Incomplete { path, decompressed }, again_ms, false),
        Fault::Damaged => (ReadError::Damaged { path, decompressed, source }, again_ms, false),
        Fault::Unread => {
            let offset = decompressed;
            (ReadError::Read { path, offset, source }, now.boot_ms + UNREAD_PAUSE_MS, true)
        }
    };
    if let Some(compressed) = provisional.compressed.as_mut() {
        compressed.state = State::Bad { not_before_ms, even_unchanged, changed: false };
        compressed.since_ms = now.boot_ms;
    }
    // Its descriptor is not needed before the next check.
    book.close(id);
    book.fail(id, &error);
}

/// Makes the decompressor of a source ready at its offset. False if it waits, for another source or for its next turn.
pub(crate) fn prepare_read(book: &mut Book, id: SourceId) -> io::Result<bool> {
    let Some(source) = book.get(id).filter(|_| book.files().has(id)) else {
        return Ok(false);
    };
    let from = source.offset.saturating_sub(RESUME_POINT_BYTES as u64);
    if book.slot.decompressor(id).is_none_or(|decompressor| decompressor.base() > from) {
        let Some(file) = book.files().get(id).map(File::try_clone).transpose()? else {
            return Ok(false);
        };
        book.slot.release(id);
        if !is_slot_free(book) {
            return Ok(false);
        }
        book.slot.begin(id, Job::Read(Box::new(Decompressor::open(file)?)));
    }
    let Some(decompressor) = book.slot.decompressor(id).filter(|decompressor| decompressor.end() < from)
    else {
        return Ok(true);
    };
    let is_there = decompressor.forward(from, TURN_BYTES);
    book.slot.has_worked = true;
    is_there
}

/// Whether the source that has the slot does not continue to decompress.
fn is_slot_free(book: &Book) -> bool {
    book.slot.holder().is_none_or(|(id, is_check)| {
        let is_queued = book.get(id).is_some_and(Source::is_queued);
        !(is_queued && (is_check || !order::is_blocked(book, id)))
    })
}

/// Whether the file is another than it was at the last check, by length and time.
fn has_changed(source: &Source) -> bool {
    fs::metadata(source.path())
        .is_ok_and(|meta| (meta.len(), mtime_ns(&meta)) != (source.file_bytes(), source.mtime_ns))
}
