//! Which files had the same path, one after the other: the older is read first.
//!
//! A file that was rotated while the tail ran is known by its former path. One that was rotated before it was ever found
//! has only its name to tell: `app.log.1` and `app.log-20240131` were `app.log`, if that is followed too.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spillq_storage::SourceId;

use crate::tail::known::{Presence, Source, unrotated};
use crate::tail::rules::Book;

/// The sources of each path, those that have left it included.
pub(crate) type Families = HashMap<PathBuf, Vec<SourceId>>;

/// Whether a file has the name of a source, or of the path that the source was rotated from, followed by a number, a date
/// or the suffix of a compressed file.
pub(crate) fn is_rotation_of(path: &Path, source: &Source) -> bool {
    let first = source.first_path();
    unrotated(path).is_some_and(|(base, _)| {
        base == *first || base == **source.path() || unrotated(first).is_some_and(|(other, _)| base == other)
    })
}

/// The path that a file was written at, by its name.
pub(crate) fn family_of(book: &Book, path: &Path) -> PathBuf {
    unrotated(path)
        .map(|unrotated| unrotated.0)
        .filter(|base| book.follows().names(base).is_some() || book.sources().at(base).is_some())
        .unwrap_or_else(|| path.to_owned())
}

/// All sources, by the path that they were written at. Oldest first, as far as ids tell.
pub(crate) fn families(book: &Book) -> Families {
    let mut families = Families::new();
    for source in book.sources().iter() {
        families.entry(family_of(book, source.first_path())).or_default().push(source.id);
    }
    families
}

/// Whether an older source of the same path is to be read first: its rest, and its incomplete last line. One that cannot
/// be read is passed over; the sources that it waits for itself are waited for all the same.
pub(crate) fn is_blocked(book: &Book, id: SourceId) -> bool {
    let Some(source) = book.get(id).filter(|source| source.after.is_some()) else {
        return false;
    };
    // Only the next scan knows how far the older one is to be read, and whether there is another between the two.
    if source.found_by == book.scan() {
        return true;
    }
    let mut older = older(book, source).take_while(|older| older.id != id);
    older.find(|older| !older.is_passed_over()).is_some_and(|older| holds_up(book, older))
        && !is_first_of_circle(book, source)
}

/// The sources of its path that come before it, the last of them first.
fn older<'a>(book: &'a Book, source: &'a Source) -> impl Iterator<Item = &'a Source> {
    let before = |source: &&Source| book.get(source.after?);
    // Files that were exchanged can each come after the other, hence the bound.
    std::iter::successors(before(&source), before).take(book.sources().len())
}

fn holds_up(book: &Book, older: &Source) -> bool {
    if older.presence.is_replaced() || older.presence.is_missing_once() || older.is_queued() {
        return true;
    }
    // An incomplete end becomes a line only if the file is known to be rotated.
    let is_waited_for = older.rotated_from.is_some() || !older.is_caught_up();
    older.has_rest() && book.files().has(older.id) && is_waited_for && !(book.once && older.is_caught_up())
}

/// A circle is not an order: the oldest of it that can be read waits for none.
fn is_first_of_circle(book: &Book, source: &Source) -> bool {
    let mut is_first = true;
    for older in older(book, source) {
        if older.id == source.id {
            return is_first;
        }
        is_first &= older.id > source.id || older.is_passed_over();
    }
    false
}

/// The compressed file `id`, which came after `before`, is a part of the source `of`: sources that came after it come after
/// both.
pub(crate) fn replace_in_order(book: &mut Book, id: SourceId, before: Option<SourceId>, of: SourceId) {
    if !book.sources().iter().any(|other| other.after == Some(id)) {
        return;
    }
    let line = |from: Option<SourceId>| {
        let next = |one: &SourceId| book.get(*one)?.after;
        std::iter::successors(from, next).take_while(|one| *one != id).take(book.sources().len())
    };
    let ahead: HashSet<SourceId> = line(before).collect();
    // What `of` comes after and `before` does not, it comes after already; the last of that comes after `before`.
    let last = line(Some(of)).take_while(|one| !ahead.contains(one)).last();
    if let Some(last) = last.and_then(|last| book.get_mut(last))
        && (before.is_some() || last.after == Some(id))
    {
        last.after = before;
    }
    let newest = if last.is_some() { Some(of) } else { before };
    put_behind(book, id, newest);
}

/// A source has ended: those that came after it come after the one before it.
pub(crate) fn close_ranks(book: &mut Book, ended: &Source) {
    let Some(before) = ended.after.filter(|before| book.get(*before).is_some()) else {
        return;
    };
    put_behind(book, ended.id, Some(before));
}

/// The sources that came after `id` come after this one from now on, if any.
pub(crate) fn put_behind(book: &mut Book, id: SourceId, before: Option<SourceId>) {
    for other in book.sources_mut().filter(|other| other.after == Some(id)) {
        other.after = before.filter(|before| *before != other.id);
    }
}

/// Puts a new source behind the older ones of its path. Files are identified from the oldest to the newest.
pub(crate) fn line_up(book: &mut Book, source: &mut Source, families: &mut Families) {
    let family = family_of(book, source.path());
    let ids = families.entry(family.clone()).or_default();
    let is_rotated = family != **source.path();
    let (scan, mtime_ns) = (book.scan(), source.mtime_ns);
    let newer = |one: &Source| is_rotated && is_newer(book, one, &family, mtime_ns);
    let older: Vec<&Source> =
        ids.iter().filter_map(|id| book.get(*id)).filter(|one| !(one.is_duplicate() || newer(one))).collect();
    let followed: HashSet<SourceId> = older.iter().filter_map(|one| one.after).collect();
    // A compressed file that is not checked is mostly the copy of one that was read. If its time says that it is older
    // than another, the new one does not come after it.
    let is_left_behind = |one: &Source| {
        let mut others =
            older.iter().filter(|other| !other.is_provisional() && !followed.contains(&other.id));
        one.is_provisional() && others.any(|other| other.mtime_ns > one.mtime_ns)
    };
    let newest = older
        .iter()
        .filter(|one| !followed.contains(&one.id) && !is_left_behind(one))
        .max_by_key(|one| {
            let is_missing = !one.presence.is_found_by(scan) && !one.presence.is_gone();
            (is_missing || !one.is_caught_up(), one.id)
        })
        .map(|one| one.id);
    // One that the last walk found at the path, without this one behind it, is newer than this one.
    let is_after_newest =
        |one: &&Source| newest.is_some() && one.after == newest && one.offset == 0 && newer(one);
    let newer: Vec<SourceId> =
        ids.iter().filter_map(|id| book.get(*id)).filter(is_after_newest).map(|one| one.id).collect();
    ids.push(source.id);
    source.after = newest;
    let Some(newest) = newest else {
        return;
    };
    for id in newer {
        if let Some(one) = book.get_mut(id) {
            one.after = Some(source.id);
        }
    }
    if let Some(older) = book.get_mut(newest) {
        leave(older, &family);
    }
    // Read after one more scan: that looks again at the older one, which may have grown after this scan looked at it, and
    // finds one that was between the two and got a name that this scan had passed.
    book.scan_wanted = true;
}

/// Puts the sources that the log knew in order, once: the order is not stored. Those that were begun come first, since what
/// came before them was read; then the others, oldest first, and the file that is at the path now last.
pub(crate) fn line_up_known(book: &mut Book) {
    for (family, mut ids) in families(book).into_iter().filter(|family| family.1.len() > 1) {
        // Begun and still there, it waits for none, and none for it: its writer has not left it.
        ids.retain(|id| {
            let one = book.get(*id);
            one.is_some_and(|one| one.offset == 0 || !is_there(book, one, &family))
        });
        ids.sort_by_cached_key(|id| {
            book.get(*id).map(|one| {
                let numbers = unrotated(one.path()).map(|rotated| rotated.1);
                (one.offset == 0, **one.path() == *family, one.mtime_ns, numbers, one.id)
            })
        });
        // One found just now may have been put behind one that is newer, by its time.
        if let Some(first) = ids.first().and_then(|id| book.get_mut(*id)) {
            first.after = first.after.filter(|after| !ids.contains(after));
        }
        for (older, newer) in ids.iter().zip(ids.iter().skip(1)) {
            let is_begun = book.get(*newer).is_none_or(|newer| newer.offset > 0);
            let Some(one) = book.get_mut(*older).filter(|_| !is_begun) else {
                continue;
            };
            leave(one, &family);
            if let Some(newer) = book.get_mut(*newer) {
                newer.after = Some(*older);
            }
        }
    }
}

/// A newer source was at its path.
fn leave(older: &mut Source, family: &Path) {
    older.taken = true;
    if **older.path() == *family && older.rotated_from.is_none() {
        older.rotated_from = Some(Arc::clone(older.path()));
    }
}

/// Whether a source of the family is newer than a rotated file that this scan found first, last written at `mtime_ns`: it
/// is at the path, or was found there by the scan before, which may have missed the rotated one. It is not read before
/// this scan. If this scan found both under other names, their times tell.
fn is_newer(book: &Book, one: &Source, family: &Path, mtime_ns: i64) -> bool {
    let was_found_there =
        one.found_by + 1 == book.scan() && one.after.is_some() && one.first_path() == family;
    let is_later = !one.presence.is_found_by(book.scan()) || one.mtime_ns > mtime_ns;
    is_there(book, one, family) || was_found_there && is_later && !is_deleted(book, one)
}

/// It has no name any more, so that no scan has missed one.
fn is_deleted(book: &Book, one: &Source) -> bool {
    let meta = book.files().get(one.id).and_then(|file| file.metadata().ok());
    meta.is_some_and(|meta| meta.nlink() == 0)
}

fn is_there(book: &Book, one: &Source, family: &Path) -> bool {
    **one.path() == *family && one.presence == (Presence::Here { scan: book.scan() })
}
