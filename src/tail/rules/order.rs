//! Which files had the same path, one after the other: the older is read first.
//!
//! A file that was rotated while the tail looked is known by its former path. One that was rotated before it was ever
//! seen has only its name to tell: `app.log.1` and `app.log-20240131` were `app.log`, if that is followed too.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use spillq_storage::SourceId;

use crate::tail::known::form::State;
use crate::tail::known::rotated_name::unrotated;
use crate::tail::known::source::Source;
use crate::tail::worker::Worker;

/// The sources of each path, those that left it included.
pub(crate) type Families = HashMap<PathBuf, Vec<SourceId>>;

/// Whether a file has the name of a source, or of what that was rotated from, and a number or a date or the suffix of a
/// compressed file.
pub(crate) fn is_rotation_of(path: &Path, source: &Source) -> bool {
    let first = first_path(source);
    unrotated(path).is_some_and(|(base, _)| {
        base == *first || base == *source.path || unrotated(first).is_some_and(|(other, _)| base == other)
    })
}

impl Worker {
    /// The path that a file was written at, as far as its name tells.
    pub(crate) fn family_of(&self, path: &Path) -> PathBuf {
        unrotated(path)
            .map(|unrotated| unrotated.0)
            .filter(|base| self.discover.names(base).is_some() || self.table.at(base).is_some())
            .unwrap_or_else(|| path.to_owned())
    }

    /// All sources, by the path that they were written at. Oldest first, as far as ids tell.
    pub(crate) fn families(&self) -> Families {
        let mut families = Families::new();
        for source in self.table.iter() {
            families.entry(self.family_of(first_path(source))).or_default().push(source.id);
        }
        families
    }

    /// The source of the same path that is older comes first: its rest, and its unterminated end. One that cannot be
    /// read is passed over, not waited for; what it waits for itself is waited for all the same.
    pub(crate) fn is_blocked(&self, id: SourceId) -> bool {
        let Some(source) = self.table.get(id).filter(|source| source.after.is_some()) else {
            return false;
        };
        // What a look at the older one is worth, and whether there is none between, only the next scan knows.
        if source.born == self.scan_number {
            return true;
        }
        let mut older = self.older(source).take_while(|older| older.id != id);
        older.find(|older| !is_passed_over(older)).is_some_and(|older| self.holds_up(older))
            && !self.is_first_of_circle(id)
    }

    /// Those of its path that come before it, the last of them first.
    fn older<'a>(&'a self, source: &'a Source) -> impl Iterator<Item = &'a Source> {
        let before = |source: &&Source| self.table.get(source.after?);
        // Files that were exchanged can each come after the other, hence the bound.
        std::iter::successors(before(&source), before).take(self.table.len())
    }

    fn holds_up(&self, older: &Source) -> bool {
        if older.replaced > 0 || older.missed == 1 || older.queued {
            return true;
        }
        // An incomplete end becomes a line only where it was seen that its file was rotated.
        let is_waited_for = older.rotated_from.is_some() || !older.is_caught_up();
        older.has_rest() && older.file.is_some() && is_waited_for && !(self.once && older.is_caught_up())
    }

    /// A circle is no order: the oldest of it that can be read waits for nobody.
    fn is_first_of_circle(&self, id: SourceId) -> bool {
        let Some(source) = self.table.get(id) else {
            return false;
        };
        let mut is_first = true;
        for older in self.older(source) {
            if older.id == id {
                return is_first;
            }
            is_first &= older.id > id || is_passed_over(older);
        }
        false
    }

    /// The compressed file `id`, which came after `before`, is a part of the source `of`: who came after it comes after both.
    pub(crate) fn stand_for(&mut self, id: SourceId, before: Option<SourceId>, of: SourceId) {
        if !self.table.iter().any(|other| other.after == Some(id)) {
            return;
        }
        let line = |from: Option<SourceId>| {
            let next = |one: &SourceId| self.table.get(*one)?.after;
            std::iter::successors(from, next).take_while(|one| *one != id).take(self.table.len())
        };
        let ahead: HashSet<SourceId> = line(before).collect();
        // What `of` comes after and `before` does not, it comes after already; the last of that comes after `before`.
        let last = line(Some(of)).take_while(|one| !ahead.contains(one)).last();
        if let Some(last) = last.and_then(|last| self.table.get_mut(last))
            && (before.is_some() || last.after == Some(id))
        {
            last.after = before;
        }
        let newest = if last.is_some() { Some(of) } else { before };
        for other in self.table.iter_mut().filter(|other| other.after == Some(id)) {
            other.after = newest.filter(|newest| *newest != other.id);
        }
    }

    /// One that is no more leaves its place: who came after it comes after the one before it.
    pub(crate) fn close_ranks(&mut self, gone: &Source) {
        let Some(before) = gone.after.filter(|before| self.table.get(*before).is_some()) else {
            return;
        };
        for other in self.table.iter_mut().filter(|other| other.after == Some(gone.id)) {
            other.after = Some(before).filter(|before| *before != other.id);
        }
    }

    /// Puts a new source behind the older ones of its path. Unidentified files come from the oldest to the newest.
    pub(crate) fn line_up(&mut self, source: &mut Source, families: &mut Families) {
        let family = self.family_of(&source.path);
        let ids = families.entry(family.clone()).or_default();
        let is_rotated = *family != *source.path;
        let (number, mtime_ns) = (self.scan_number, source.mtime_ns);
        let older: Vec<&Source> = ids
            .iter()
            .filter_map(|id| self.table.get(*id))
            .filter(|one| !(is_duplicate(one) || is_rotated && is_newer(one, &family, number, mtime_ns)))
            .collect();
        let followed: HashSet<SourceId> = older.iter().filter_map(|one| one.after).collect();
        // A compressed file that is not checked is mostly the copy of one that was read. Where its time says that it is older
        // than another, it is not what the new one comes after.
        let is_left_behind = |one: &Source| {
            let mut others =
                older.iter().filter(|other| !other.is_provisional() && !followed.contains(&other.id));
            one.is_provisional() && others.any(|other| other.mtime_ns > one.mtime_ns)
        };
        let newest = older
            .iter()
            .filter(|one| !followed.contains(&one.id) && !is_left_behind(one))
            .max_by_key(|one| {
                let missing = one.replaced > 0 || one.seen != number && one.missed < 2;
                (missing || !one.is_caught_up(), one.id)
            })
            .map(|one| one.id);
        ids.push(source.id);
        source.after = newest;
        source.born = number;
        let Some(newest) = newest else {
            return;
        };
        // One that the last walk found at the path, and did not find this one behind it, is newer than this one.
        for id in ids.iter() {
            if let Some(one) = self.table.get_mut(*id)
                && one.after == Some(newest)
                && one.offset == 0
                && is_rotated
                && is_newer(one, &family, number, mtime_ns)
            {
                one.after = Some(source.id);
            }
        }
        if let Some(older) = self.table.get_mut(newest) {
            leave(older, &family);
        }
        // Read after one more scan: it looks again at the older one, which may have grown after this scan looked at
        // it, and it finds one that stood between the two and was renamed to a name that this scan had passed.
        self.scan_wanted = true;
    }

    /// Puts the sources that the log knew in line, once: who waits for whom is not stored. What was begun comes first,
    /// since what came before that was read; then what was not, oldest first, and the file that is there now last.
    pub(crate) fn line_up_known(&mut self) {
        for (family, mut ids) in self.families().into_iter().filter(|family| family.1.len() > 1) {
            // Begun and still there, it waits for nobody, and nobody for it: its writer has not left it.
            ids.retain(|id| {
                let one = self.table.get(*id);
                one.is_some_and(|one| one.offset == 0 || !is_there(one, &family, self.scan_number))
            });
            ids.sort_by_cached_key(|id| {
                self.table.get(*id).map(|one| {
                    let numbers = unrotated(&one.path).map(|rotated| rotated.1);
                    (one.offset == 0, *one.path == *family, one.mtime_ns, numbers, one.id)
                })
            });
            // One found just now may have been put behind one that is newer, by its time.
            if let Some(first) = ids.first().and_then(|id| self.table.get_mut(*id)) {
                first.after = first.after.filter(|after| !ids.contains(after));
            }
            for (older, newer) in ids.iter().zip(ids.iter().skip(1)) {
                let is_begun = self.table.get(*newer).is_none_or(|newer| newer.offset > 0);
                let Some(older) = self.table.get_mut(*older).filter(|_| !is_begun) else {
                    continue;
                };
                let older = leave(older, &family);
                if let Some(newer) = self.table.get_mut(*newer) {
                    newer.after = Some(older);
                }
            }
        }
    }
}

/// There is nothing to wait for in it: it cannot be read, or nobody asks for it.
fn is_passed_over(older: &Source) -> bool {
    older.error.is_some() || older.inactive
}

/// It has nothing of its own: the source that it is a duplicate of has its place.
fn is_duplicate(source: &Source) -> bool {
    source.compressed.as_ref().is_some_and(|compressed| matches!(compressed.state, State::Duplicate { .. }))
}

/// A newer source was at its path.
fn leave(older: &mut Source, family: &Path) -> SourceId {
    older.taken = true;
    if *older.path == *family {
        older.rotated_from.get_or_insert_with(|| std::sync::Arc::clone(&older.path));
    }
    older.id
}

/// The path that a source was first seen at.
pub(crate) fn first_path(source: &Source) -> &Path {
    source.rotated_from.as_deref().unwrap_or(&source.path)
}

/// Whether a source of the family is newer than a rotated file that this scan found first, last written at `mtime_ns`: it
/// is at the path, or was found there by the scan before, which may have missed the rotated one. It is not read before
/// this scan. Where this scan found both under other names, their times tell.
fn is_newer(one: &Source, family: &Path, number: u32, mtime_ns: i64) -> bool {
    let was_found_there = one.born + 1 == number && one.after.is_some() && first_path(one) == family;
    let is_later = one.seen != number || one.mtime_ns > mtime_ns;
    is_there(one, family, number) || was_found_there && is_later && !is_deleted(one)
}

/// It has no name any more, so that no scan has missed one.
fn is_deleted(one: &Source) -> bool {
    let meta = one.file.as_ref().and_then(|file| file.metadata().ok());
    meta.is_some_and(|meta| meta.nlink() == 0)
}

fn is_there(one: &Source, family: &Path, number: u32) -> bool {
    *one.path == *family && one.seen == number && one.replaced == 0
}
