//! One turn of a source: at most 1 MiB of its lines go into the append under construction.

use std::io;

use spillq_storage::SourceId;

use crate::tail::bytes::{Fault, Filler, Reader, Turn};
use crate::tail::clock::Now;
use crate::tail::error::ReadError;
use crate::tail::known::{Presence, Source};
use crate::tail::rules::{Book, compressed, order};

/// Reads a source, unless it has to wait.
pub(crate) fn turn(book: &mut Book, reader: &mut Reader, id: SourceId, filler: &mut Filler, now: Now) {
    if book.get(id).is_some_and(Source::is_provisional) {
        return compressed::check(book, reader, id, now);
    }
    if order::is_blocked(book, id) {
        return book.postpone(id);
    }
    let Some(source) = book.begin_turn(id) else {
        return;
    };
    // One that was not looked at waits for its first look in a scan; one whose content was replaced for its copy.
    let is_here = !source.presence.is_replaced() && source.presence != Presence::Inactive && source.looked;
    if !is_here || !book.open(id) {
        return;
    }
    let Some(source) = book.get(id) else {
        return;
    };
    // A compressed file never grows: if all of it is read, nothing more comes.
    let is_compressed = source.compressed.is_some();
    let turn = if is_compressed && !source.has_rest() {
        Ok(Turn::CaughtUp)
    } else {
        // One is decompressed at a time.
        if is_compressed {
            match compressed::prepare_read(book, id) {
                Ok(true) => {}
                Ok(false) => return book.wait(id),
                Err(error) => return read_failed(book, id, error),
            }
        }
        read(book, reader, id, filler, now)
    };
    match turn {
        Ok(turn) => {
            if let Some(source) = book.get_mut(id)
                && source.error.take().is_some()
            {
                tracing::info!(path = %source.path().display(), "readable again");
            }
            match turn {
                Turn::More => book.queue(id),
                Turn::CaughtUp => book.slot.release(id),
                Turn::Changed => book.mark_replaced(id),
            }
        }
        Err(error) => read_failed(book, id, error),
    }
    let is_missing = book.get(id).is_none_or(|source| source.presence.missing_since_ms().is_some());
    if book.files().has_too_many() && !is_missing {
        book.close_early(id);
    }
}

/// Reads lines, and counts those that were destroyed.
fn read(
    book: &mut Book,
    reader: &mut Reader,
    id: SourceId,
    filler: &mut Filler,
    now: Now,
) -> io::Result<Turn> {
    let line_max = book.get(id).map_or(1, |source| book.follows().line_max(source.follow));
    let Some((source, file, decompressor)) = book.for_read(id) else {
        return Ok(Turn::CaughtUp);
    };
    debug_assert_eq!(source.compressed.is_some(), decompressor.is_some());
    let (was_dirty, was_size) = (source.is_dirty(), source.size);
    let was_looked_at = source.searched.max(source.offset);
    let turn = reader.turn(source, file, decompressor, line_max, filler);
    if source.size != was_size {
        source.active_ms = now.boot_ms;
    }
    // An incomplete line that is taken back is not a loss; what was not looked at may be lines.
    let destroyed = match &turn {
        Ok(Turn::Changed) => 0,
        _ if source.compressed.is_some() => 0,
        _ => was_size.saturating_sub(source.size.max(was_looked_at)),
    };
    let has_read = source.is_dirty() && !was_dirty;
    if destroyed > 0 {
        let (path, offset) = (source.path().clone(), source.offset);
        book.counters.destroyed(&path, offset, destroyed);
    }
    if has_read {
        book.note_read(id);
    }
    turn
}

fn read_failed(book: &mut Book, id: SourceId, error: io::Error) {
    book.slot.release(id);
    let Some(source) = book.get(id) else {
        return;
    };
    // It was complete when it was checked: it is another file by now, and the next check reports more.
    if source.compressed.is_some() && Fault::of(&error) != Fault::Unread {
        return book.mark_replaced(id);
    }
    let (path, offset) = (source.path().to_path_buf(), source.offset);
    book.close(id);
    book.fail(id, &ReadError::Read { path, offset, source: error });
}
