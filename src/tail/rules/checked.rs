//! Which source a compressed file is that was checked: rows 14 to 17 and 20 of `docs/explanation/tail.md`.
//!
//! It is new, or a duplicate of a source that is still there, or the rest of one that is gone. No source ends as long as a
//! compressed file may be its rest. Nothing here decompresses.

use spillq_storage::SourceId;

use crate::tail::bytes::{Candidate, Check, Reader};
use crate::tail::clock::Now;
use crate::tail::known::{
    Compressed, Decision, Evidence, FINGERPRINT_BYTES, Fingerprint, Held, Likeness, Location, OwnPath,
    Presence, SAME_PATH_BYTES, Source, State, Whole, decide, is_named_as,
};
use crate::tail::rules::own_path::own_path;
use crate::tail::rules::{Book, attach, is_rotation_of, order};

/// What a checked file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conclusion {
    New,
    Duplicate(SourceId),
    /// The rest of a source, which resumes at this offset.
    Rest(SourceId, u64),
    /// Where that source is, or how far it is read, is not known yet.
    Later,
}

/// All of a file is checked: applies the table.
pub(crate) fn conclude(book: &mut Book, reader: &mut Reader, id: SourceId, now: Now) {
    let Some(check) = book.slot.take_check(id) else {
        return;
    };
    let Some(whole) = check.whole() else {
        return book.wait(id);
    };
    let conclusion = conclusion(book, reader, id, &check, whole, now);
    let (size, state) = match conclusion {
        Conclusion::Rest(of, to) => return becomes(book, id, of, to, whole, now),
        Conclusion::Later => {
            book.scan_wanted = true;
            return book.wait(id);
        }
        Conclusion::Duplicate(of) => {
            let before = book.get(id).and_then(|source| source.after);
            order::replace_in_order(book, id, before, of);
            (0, State::Duplicate { of, whole })
        }
        Conclusion::New => (whole.size, State::Whole(whole)),
    };
    let Some(source) = book.get_mut(id) else {
        return;
    };
    source.fingerprint = Fingerprint::of(check.start());
    if source.error.take().is_some() {
        tracing::info!(path = %source.path().display(), "complete now");
    }
    source.size = size;
    if let Some(compressed) = source.compressed.as_mut() {
        (compressed.form, compressed.state) = (check.form, state);
    }
    book.queue(id);
}

/// Rows 14 to 17, and 20.
fn conclusion(
    book: &mut Book,
    reader: &mut Reader,
    id: SourceId,
    check: &Check,
    whole: Whole,
    now: Now,
) -> Conclusion {
    for candidate in &check.candidates {
        let Some(own_path) = own_path(book, reader, candidate.id, now) else {
            continue;
        };
        let (Some(file), Some(source)) = (book.get(id), book.get(candidate.id)) else {
            continue;
        };
        // A short content may be a header that many files have.
        let is_enough = whole.size >= SAME_PATH_BYTES
            || file.presence.missing_since_ms().is_some()
            || is_named_as(file.path(), source.path());
        let is_same = match &source.compressed {
            Some(compressed) => compressed.whole() == Some(whole),
            None => candidate.is_duplicate(),
        };
        let is_here = own_path == OwnPath::Here;
        let is_rest = !is_here && (whole.size >= source.offset || is_rotation_of(file.path(), source));
        let is_duplicate = is_same && (is_enough || is_rest);
        if is_here || book.files().has(source.id) && candidate.is_compared {
            if is_duplicate {
                return Conclusion::Duplicate(source.id);
            }
            continue;
        }
        let conclusion = rest_of(book, source, (file, check, candidate), own_path, whole, is_duplicate);
        if let Some(conclusion) = conclusion {
            return conclusion;
        }
    }
    Conclusion::New
}

/// Whether the file is the rest of a source that is not at its path.
fn rest_of(
    book: &Book,
    source: &Source,
    (file, check, candidate): (&Source, &Check, &Candidate),
    own_path: OwnPath,
    whole: Whole,
    is_duplicate: bool,
) -> Option<Conclusion> {
    let offset = source.offset;
    let fingerprint = source.fingerprint.compare(check.start());
    let is_replaced = source.presence.is_replaced();
    let decision = decide(&Evidence {
        // A file that is changed in place is known by its content alone.
        same_path: source.path() == file.path() && !is_replaced,
        same_inode: false,
        fingerprint,
        size: whole.size,
        offset,
        before_offset: candidate.matches(offset) || is_duplicate && offset <= whole.size,
        point: candidate.point(),
        first_look: !source.looked,
        own_path,
        fresh: false,
        compared: source.compared(),
        // An open file was compared byte by byte above, or is not what is in here.
        nothing_read: false,
        held: Held::No,
        named: is_rotation_of(file.path(), source),
    });
    let to = match decision {
        Decision::Continue | Decision::Copy => Some(offset),
        Decision::CopyRead => Some(whole.size),
        Decision::CopyFrom(to) => Some(to),
        _ => is_duplicate.then_some(whole.size.min(offset)),
    };
    let Some(to) = to else {
        // It was read on while the file was checked.
        let has_moved = fingerprint == Likeness::Equal
            && source.resume_points.crc_at(offset).is_some()
            && !candidate.knows(offset);
        return has_moved.then_some(Conclusion::Later);
    };
    let is_on_its_way = source.presence.is_found_by(book.scan()) || source.presence.is_missing_once();
    // Open, with whole lines that are not read.
    let is_read =
        !is_replaced && book.files().has(source.id) && source.error.is_none() && !source.is_caught_up();
    match is_on_its_way || is_read {
        true => Some(Conclusion::Later),
        false => Some(Conclusion::Rest(source.id, to)),
    }
}

/// The source `of` resumes in the compressed file, at `to`; the provisional source of that is no more.
fn becomes(book: &mut Book, id: SourceId, of: SourceId, to: u64, whole: Whole, now: Now) {
    if !book.open(id) {
        return;
    }
    let Some((mut provisional, file)) = book.remove(id) else {
        return;
    };
    book.slot.release(of);
    book.keep(of);
    let (Some(file), Some(compressed)) = (file, provisional.compressed.take()) else {
        return;
    };
    order::replace_in_order(book, id, provisional.after, of);
    let Some(source) = book.get(of) else {
        return;
    };
    let destroyed = source.size.saturating_sub(source.offset.max(whole.size));
    if destroyed > 0 && source.compressed.is_none() {
        let (path, offset) = (source.path().clone(), source.offset);
        book.counters.destroyed(&path, offset, destroyed);
    }
    set_offset(book, of, to, whole);
    let Some(source) = book.get_mut(of) else {
        return;
    };
    if u64::from(source.fingerprint.len) > whole.size {
        source.fingerprint = provisional.fingerprint;
    }
    source.size = whole.size;
    let (form, since_ms) = (compressed.form, compressed.since_ms);
    source.compressed = Some(Compressed::new(form, State::Whole(whole), since_ms));
    let (device, inode) = provisional.file_id();
    let at = Location {
        path: provisional.path(),
        device,
        inode,
        mtime_ns: provisional.mtime_ns,
        follow: Some(provisional.follow),
    };
    tracing::debug!(path = %at.path.display(), source = of.0, to, "a source resumes in a compressed file");
    attach(book, of, at, file, (form.size, Some(form)), now);
    book.owe_checkpoint(of);
}

/// Sets the offset that the source resumes at in the compressed file.
fn set_offset(book: &mut Book, of: SourceId, to: u64, whole: Whole) {
    let Some(source) = book.get_mut(of).filter(|source| to < source.offset) else {
        return;
    };
    let (from, path) = (source.offset, source.path().clone());
    (source.offset, source.in_part) = (to, false);
    if to == whole.size {
        source.resume_points.set(to, whole.end);
        return;
    }
    source.resume_points.cut(to);
    book.counters.rolled_back(from, to);
    tracing::warn!(path = %path.display(), from, to, "rolled back: the compressed copy ends below what was read");
}

/// A source that has a compressed duplicate, and that is gone, resumes there. Its writer may have it open still, so an open
/// file is read until it is quiet.
pub(crate) fn resume_in_duplicates(book: &mut Book, now: Now) {
    let duplicate = |source: &Source| match source.compressed.as_ref()?.state {
        State::Duplicate { of, whole } => Some((source.id, of, whole)),
        _ => None,
    };
    let duplicates: Vec<_> = book.sources().iter().filter_map(duplicate).collect();
    for (id, of, whole) in duplicates {
        let Some(source) = book.get(of) else {
            // Which source it was is not known any more.
            if let Some(compressed) = book.get_mut(id).and_then(|source| source.compressed.as_mut()) {
                compressed.state = State::Unchecked;
            }
            book.queue(id);
            continue;
        };
        let has_waited = || book.has_waited(source, source.quiet_since_ms(), now.boot_ms);
        let is_quiet = source.is_caught_up() && (book.once || has_waited());
        let is_gone = source.presence.is_gone() && (!book.files().has(of) || is_quiet);
        if source.presence.is_replaced() || is_gone {
            let to = source.offset.min(whole.size);
            becomes(book, id, of, to, whole, now);
        }
    }
}

/// Whether a compressed file that is not checked may be the rest of the source.
pub(crate) fn may_have_rest(book: &Book, reader: &mut Reader, id: SourceId) -> bool {
    let Some(print) = book.get(id).map(|source| source.fingerprint) else {
        return false;
    };
    let mut looked_into = Vec::new();
    for source in book.sources().iter() {
        let Some(compressed) = source.compressed.as_ref() else {
            continue;
        };
        if source.id == id || source.presence == Presence::Inactive {
            continue;
        }
        match compressed.state {
            State::Duplicate { of, .. } if of == id => return true,
            _ if !compressed.is_to_be_checked() => {}
            _ if print.len == 0 || source.fingerprint == print => return true,
            // Two whole kilobytes that differ, or the beginning of a smaller file.
            _ if usize::from(print.len.min(source.fingerprint.len)) < FINGERPRINT_BYTES => {
                looked_into.push(source);
            }
            _ => {}
        }
    }
    looked_into.into_iter().any(|source| {
        let look = book.open_path(source).ok().and_then(|(file, _)| reader.look(&file).ok());
        // A file that is shorter than the fingerprint may be the beginning of the source.
        look.is_some_and(|look| print.compare(&look.start) != Likeness::Differs)
    })
}
