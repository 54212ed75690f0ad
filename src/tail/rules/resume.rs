//! How a source continues in another file: at which offset, and from which handle. And how a new one begins.

use std::fs::File;
use std::io;
use std::sync::Arc;

use spillq_storage::SourceId;

use crate::tail::bytes::{Look, Reader};
use crate::tail::clock::Now;
use crate::tail::find::Found;
use crate::tail::known::{Compressed, Fingerprint, Form, Location, Source, State};
use crate::tail::rules::{Book, order};

/// A file that a scan found and opened.
pub(crate) struct Opened {
    pub(crate) found: Found,
    pub(crate) file: File,
    pub(crate) look: Look,
}

/// At which offset a source continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResumeAt {
    /// At its own.
    Offset,
    /// Below it, as the bytes behind that are not what was read: those lines are read again.
    Below(u64),
    /// At the end of a copy that ends before it: no line is read again.
    End(u64),
}

/// The source continues in this file.
pub(crate) fn resume(
    book: &mut Book,
    reader: &mut Reader,
    id: SourceId,
    opened: Opened,
    at: ResumeAt,
    now: Now,
) {
    set_offset(book, reader, id, &opened, at);
    let Opened { found, file, look } = opened;
    attach(book, id, found.location(), file, (look.size, look.form), now);
}

/// Sets the offset that the source continues at in this file.
fn set_offset(book: &mut Book, reader: &mut Reader, id: SourceId, opened: &Opened, at: ResumeAt) {
    let (start, path) = (&opened.look.start, opened.found.path.display());
    let Some(source) = book.get_mut(id) else {
        return;
    };
    let from = source.offset;
    match at {
        ResumeAt::Offset => return,
        ResumeAt::End(to) => {
            // All of the copy was read; its end may lie inside a line that was read elsewhere.
            source.resume_points.cut(to);
            source.fingerprint = Fingerprint::of_read(start, to);
            match reader.before(&opened.file, to) {
                Ok(before) => source.begin_at(to, &before),
                Err(error) => tracing::warn!(source = id.0, %error, "a copy cannot be read"),
            }
        }
        ResumeAt::Below(to) => {
            source.roll_back(to, Fingerprint::of_read(start, to));
            book.counters.rolled_back(from, to);
            tracing::warn!(
                %path, from, to,
                "rolled back: the bytes of the file are not those that were read; resumed at the last offset before \
                 which they are"
            );
        }
    }
    book.owe_checkpoint(id);
}

/// The source reads from this file from now on. The bytes before its offset are in it. `size` is the length of the file,
/// `form` is there if it is compressed.
pub(crate) fn attach(
    book: &mut Book,
    id: SourceId,
    at: Location<'_>,
    file: File,
    (size, form): (u64, Option<Form>),
    now: Now,
) {
    let Some(source) = book.get_mut(id) else {
        return;
    };
    let has_moved = **source.path() != *at.path;
    let is_same_file = source.inode() == at.inode && source.compressed.is_some() == form.is_some();
    let mut has_changed = has_moved || source.inode() != at.inode;
    let was_taken = source.taken;
    if source.rotated_from.as_deref() == Some(at.path) {
        // Back at the path that it left: it may be written to again.
        (source.rotated_from, source.taken, has_changed) = (None, false, true);
    } else if has_moved && source.rotated_from.is_none() {
        source.rotated_from = Some(Arc::clone(source.path()));
    }
    let is_back = was_taken && !source.taken;
    source.looked = true;
    source.unwritten = false;
    source.error = None;
    source.outside = at.follow.is_none();
    source.follow = at.follow.unwrap_or(source.follow);
    source.mtime_ns = at.mtime_ns;
    set_form(source, (size, form), now);
    source.searched = source.offset;
    if has_moved {
        source.active_ms = now.boot_ms;
    }
    if !is_same_file {
        book.slot.release(id);
    }
    book.attach(id, file);
    book.place(id, at);
    if is_back {
        // It is not older than the others of that path any more.
        order::put_behind(book, id, None);
    }
    if has_changed {
        book.owe_checkpoint(id);
    }
    book.queue(id);
}

/// Whether the file is compressed, and how long the content is then.
fn set_form(source: &mut Source, (size, form): (u64, Option<Form>), now: Now) {
    let former = source.compressed.take();
    source.compressed = form.map(|form| match former {
        Some(one) if one.form == form => one,
        _ => Compressed::found(form, source.mtime_ns, now.boot_ms),
    });
    source.size = match source.compressed.as_ref().map(|one| &one.state) {
        Some(State::Whole(whole)) => whole.size.max(source.offset),
        Some(State::Duplicate { .. }) => 0,
        _ => size.max(source.offset),
    };
}

/// How a new source begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    Beginning,
    /// The file was there at the first start of the store, and its section begins at the end.
    End,
    /// A copy of the open file of this source: what both have is read from that. It begins at this offset.
    Copy(SourceId, u64),
}

/// A new source that begins with the next byte to read; the caller puts it in order and adds it.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn new_source(
    book: &mut Book,
    reader: &mut Reader,
    (at, file, look): (Location<'_>, &File, &Look),
    begin: Begin,
    now: Now,
) -> io::Result<Source> {
    let mut source = Source::found(book.next_id, at, book.scan(), now.boot_ms);
    source.fingerprint = Fingerprint::of(&look.start);
    set_form(&mut source, (look.size, look.form), now);
    match begin {
        Begin::Beginning => {}
        // Nothing of it is read, so it does not matter what it holds.
        Begin::End if source.compressed.is_some() => source.skip_content(),
        Begin::End => {
            let line_max = book.follows().line_max(source.follow);
            let start = reader.last_line_start(file, look.size, line_max)?;
            if start > 0 {
                source.begin_at(start, &reader.before(file, start)?);
            }
        }
        Begin::Copy(of, from) => {
            // What both have was read of the other.
            source.resume_points = book.get(of).map(|of| of.resume_points.clone()).unwrap_or_default();
            source.begin_at(from, &reader.before(file, from)?);
        }
    }
    if source.compressed.is_none() {
        source.fingerprint = Fingerprint::of_read(&look.start, source.offset);
    }
    book.next_id.0 += 1;
    Ok(source)
}
