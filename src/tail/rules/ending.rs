//! When a source is missing, ends, or has its file closed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use spillq_storage::SourceId;

use crate::plain::counted;
use crate::tail::bytes::{Filler, Reader, mtime_ns};
use crate::tail::clock::Now;
use crate::tail::known::{Ending, Presence, Source};
use crate::tail::rules::{Book, Unfollowed, may_have_rest, order};

/// A file that was read to its end stays open for this long after its last line, as long as there are descriptors.
const IDLE_CLOSE_MS: u64 = 5 * 60 * 1_000;

/// Sources that a scan did not find. `unlisted`: folders that could not be listed.
pub(crate) fn note_missing(book: &mut Book, unlisted: &[PathBuf], now: Now) {
    let scan = book.scan();
    let is_looked_for = |source: &&Source| match source.presence {
        Presence::Here { scan: by } => by != scan,
        Presence::Missing { .. } | Presence::Gone { .. } => true,
        Presence::Replaced { .. } | Presence::Inactive => false,
    };
    let missed: Vec<SourceId> = book.sources().iter().filter(is_looked_for).map(|source| source.id).collect();
    for id in missed {
        note_missing_source(book, id, unlisted, now);
    }
}

fn note_missing_source(book: &mut Book, id: SourceId, unlisted: &[PathBuf], now: Now) {
    let Some(source) = book.get(id) else {
        return;
    };
    let held = book.files().get(id).and_then(|file| file.metadata().ok());
    let is_deleted = held.as_ref().is_some_and(|meta| meta.nlink() == 0);
    if !is_deleted && unlisted.iter().any(|folder| source.path().starts_with(folder)) {
        return;
    }
    // A file that is filled in place changes its time alone.
    let has_changed = |meta: &Metadata| {
        meta.len() != source.file_bytes() || source.compressed.is_none() && mtime_ns(meta) != source.mtime_ns
    };
    let has_changed = held.as_ref().is_some_and(has_changed);
    let presence = source.presence.missed(now.boot_ms);
    // A file that was moved away may still be written to, as one that was deleted may. Neither is waited for longer than
    // `rotate_wait`, or the descriptors would run out.
    let quiet_since_ms = source.active_ms.max(presence.missing_since_ms().unwrap_or(0));
    let is_quiet = book.has_waited(source, quiet_since_ms, now.boot_ms);
    let is_read = !source.is_queued() && !has_changed && (held.is_none() || source.is_caught_up());
    let loses_lines = matches!(source.presence, Presence::Here { .. }) && source.has_rest();
    if let Some(source) = book.get_mut(id) {
        source.presence = presence;
    }
    if loses_lines {
        book.lost_lines = true;
    }
    if has_changed {
        book.queue(id);
    }
    if !presence.is_gone() {
        book.scan_wanted = true;
    } else if is_quiet && is_read {
        book.end_soon(id, Ending::Finished);
    }
}

/// Rotated files that are still there and quiet: an incomplete last line becomes a line; a source whose name no glob matches
/// ends.
pub(crate) fn end_rotated(book: &mut Book, now: Now) {
    let mut endings = Vec::new();
    for source in book.sources().iter().filter(|source| source.presence.is_found_by(book.scan())) {
        let Some(former) = source.rotated_from.as_deref() else {
            continue;
        };
        let is_quiet = book.has_waited(source, source.active_ms, now.boot_ms);
        let has_something = source.has_rest() || source.outside;
        if is_quiet && source.is_caught_up() && has_something && (source.taken || former.exists()) {
            let ending = if source.outside { Ending::Finished } else { Ending::Unterminated };
            endings.push((source.id, ending, source.has_rest()));
        }
    }
    for (id, ending, has_rest) in endings {
        // What ends with a rest must be open.
        if !has_rest || matches!(book.try_open(id), Ok(true)) {
            book.end_soon(id, ending);
        }
    }
}

/// A source whose rest may be in a compressed file does not end.
pub(crate) fn keep_those_with_rest(book: &mut Book, reader: &mut Reader) {
    let ending: Vec<_> = book.endings().filter(|one| one.1 != Ending::Unterminated).collect();
    for (id, _) in ending {
        if may_have_rest(book, reader, id) {
            book.keep(id);
        }
    }
}

/// Closes files that were read to their end: the idle, and those that were quiet for longest if too many are open. A file
/// that is gone cannot be opened again, so its source ends with that; with unread bytes it stays open.
pub(crate) fn close_idle(book: &mut Book, reader: &mut Reader, now: Now) {
    let (mut idle, mut open) = (Vec::new(), Vec::new());
    for source in book.files().ids().filter_map(|id| book.get(id)) {
        let is_missing = source.presence.missing_since_ms().is_some();
        let is_unread = !source.is_caught_up();
        if !is_missing && !is_unread && now.boot_ms.saturating_sub(source.active_ms) >= IDLE_CLOSE_MS {
            idle.push(source.id);
        } else if !is_missing || !is_unread && source.presence.is_gone() {
            // Of those with unread bytes rotated files are the next to vanish.
            let is_rotated = is_unread && source.rotated_from.is_some();
            open.push((is_unread, is_rotated, source.quiet_since_ms(), source.id));
        }
    }
    for id in idle {
        book.close(id);
    }
    let surplus = book.files().surplus();
    open.sort_unstable();
    let mut released = 0;
    for (.., id) in open.into_iter().take(surplus) {
        let is_missing = book.get(id).is_some_and(|source| source.presence.missing_since_ms().is_some());
        if !is_missing {
            book.close_early(id);
        } else if !book.endings().any(|ending| ending.0 == id) && !may_have_rest(book, reader, id) {
            book.end_soon(id, Ending::Finished);
            released += 1;
        }
    }
    if released > 0 {
        book.counters.released_early += released;
        tracing::warn!(
            files = released,
            open = book.files().len(),
            limit = book.files().max,
            "descriptors run short: closed {} that had been deleted or moved away before `rotate_wait` was over; \
             what a writer adds now is lost. Raise RLIMIT_NOFILE",
            counted(released, "file")
        );
    }
}

/// A source ends, or its incomplete last line.
pub(crate) fn end(
    book: &mut Book,
    reader: &mut Reader,
    unfollowed: &mut Unfollowed,
    (id, ending): (SourceId, Ending),
    filler: &mut Filler,
    now: Now,
) {
    let Some(source) = book.get(id) else {
        return;
    };
    let was_dirty = source.is_dirty();
    let ends_line = ending != Ending::Truncated && source.compressed.is_none() && source.has_rest();
    let line_max = book.follows().line_max(source.follow);
    let mut is_read = true;
    if ends_line && let Some((source, file, _)) = book.for_read(id) {
        match reader.unterminated_end(source, file, line_max, filler) {
            Ok(is_all) => is_read = is_all,
            Err(error) => tracing::warn!(source = id.0, %error, "the end of a file cannot be read"),
        }
    }
    if ending == Ending::Unterminated || !is_read {
        if let Some(source) = book.get_mut(id) {
            if is_read {
                source.active_ms = now.boot_ms;
            }
            if source.is_dirty() && !was_dirty {
                book.note_read(id);
            }
        }
        if !is_read {
            // It grew after all, or has more parts than there was room for.
            book.queue(id);
        }
        return;
    }
    let Some((source, file)) = book.remove(id) else {
        return;
    };
    order::close_ranks(book, &source);
    book.release_checkpoints(id);
    // Its place is taken before the run ends.
    if book.once && unfollowed.left_out.files() > 0 {
        book.scan_wanted = true;
    }
    if ending == Ending::Truncated {
        unfollowed.vacated.insert(Arc::clone(source.path()));
    }
    report_end(book, &source, ending, file.is_some());
}

/// Counts and reports what was lost with a source.
fn report_end(book: &mut Book, source: &Source, ending: Ending, was_open: bool) {
    let path = source.path();
    // An inode that was given to another file since looks like a truncation.
    if !was_open && is_end_unknown(source) {
        book.counters.lost_sight += 1;
        let why = if source.looked { "closed as descriptors ran short" } else { "not seen since the start" };
        tracing::warn!(
            path = %path.display(), offset = source.offset,
            "the content of a file is gone, {why}: what was written behind the offset is not known"
        );
    }
    // If nothing was read, an incomplete first line was taken back.
    let is_taken_back = source.offset == 0 && ending == Ending::Truncated;
    let known = if is_taken_back { source.searched } else { source.offset };
    let destroyed = source.size.saturating_sub(known);
    if destroyed > 0 && !source.unwritten {
        book.counters.destroyed(path, source.offset, destroyed);
    }
    if ending == Ending::Truncated && (source.offset > 0 || destroyed > 0) {
        book.counters.truncated += 1;
        tracing::info!(path = %path.display(), "truncated: a new source from its beginning");
    }
}

/// Whether a source that ended while its file was not open may have had more. One that was closed for being idle had been
/// quiet until the last scan; a compressed file never grows.
fn is_end_unknown(source: &Source) -> bool {
    let quiet_ms = source.presence.missing_since_ms().unwrap_or(0).saturating_sub(source.active_ms);
    let is_out_of_sight = !source.looked || source.closed_early && quiet_ms < IDLE_CLOSE_MS;
    let is_complete = source.compressed.is_some() && !source.has_rest();
    is_out_of_sight && !is_complete && source.presence != Presence::Inactive
}
