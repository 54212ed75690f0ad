//! Identifies the files that a scan found and that are not simply where they were: which sources they are, if any. The
//! rows are those of the table in `docs/explanation/tail.md`.
//!
//! Opens each, compares at most its first 1 KiB and 16 resume points, and never reads a line. At most 10,000 files a scan.
// long: the rows of one table, which are read side by side with it

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use spillq_storage::SourceId;

use crate::tail::bytes::open::open;
use crate::tail::bytes::{Look, Reader};
use crate::tail::clock::Now;
use crate::tail::error::ReadError;
use crate::tail::find::{Found, Without};
use crate::tail::known::{
    COPY_WAIT_MS, Decision, Ending, Evidence, Fingerprint, Held, OwnPath, Presence, SOURCES_MAX, Source,
    base, decide, uncompressed, unrotated,
};
use crate::tail::rules::own_path::own_path;
use crate::tail::rules::resume::resume;
use crate::tail::rules::{
    Begin, Book, Index, Opened, ResumeAt, Unfollowed, is_rotation_of, new_source, order,
};

/// For this long a source whose content is gone is not given up while there are files that scans could not look into: a
/// compressed copy takes the place of a copy within that time.
const INCONCLUSIVE_MS: u64 = 10_000;

/// The size of a file, and the times that its server gave it.
type State = (u64, i64, i64);

/// What scans noticed of files that are not identified yet.
#[derive(Debug, Default)]
pub(crate) struct Unidentified {
    /// Files that may be copies, by device and inode: their state, and since when they have it.
    seen: HashMap<(u64, u64), (State, u64)>,
    /// The same, of the scan before.
    seen_before: HashMap<(u64, u64), (State, u64)>,
    /// What this scan could not look into: paths of which rotated files were found that were gone or replaced when they
    /// were to be opened, or that are compressed files and still empty.
    inconclusive: HashSet<PathBuf>,
    /// Since when new files wait for that, by device and inode.
    held_back: HashMap<(u64, u64), u64>,
    /// Files that were found and are not sources yet: empty, or perhaps a copy under way.
    pub(crate) waiting: usize,
}

impl Unidentified {
    /// A scan begins.
    pub(crate) fn begin_scan(&mut self) {
        self.seen_before = std::mem::take(&mut self.seen);
        self.waiting = 0;
    }

    /// For how long a file has been as it is, by our clock and since it was first found so. Its times are those of another
    /// clock, which may be ahead of ours or behind.
    fn unchanged_ms(&mut self, found: &Found, size: u64, now: Now) -> u64 {
        let key = (found.device, found.inode);
        let state = (size, found.mtime_ns, found.ctime_ns);
        let before = self.seen.get(&key).or_else(|| self.seen_before.get(&key));
        let since_ms = before.filter(|before| before.0 == state).map_or(now.boot_ms, |before| before.1);
        // With this many that wait, none is waited for.
        if self.seen.len() >= SOURCES_MAX {
            return u64::MAX;
        }
        self.seen.insert(key, (state, since_ms));
        now.boot_ms.saturating_sub(since_ms)
    }
}

/// One scan's identification, with what it needs.
pub(crate) struct Identify<'a> {
    pub(crate) book: &'a mut Book,
    pub(crate) reader: &'a mut Reader,
    pub(crate) unidentified: &'a mut Unidentified,
    pub(crate) unfollowed: &'a mut Unfollowed,
    /// Files that begin at their end do so: it is the first scan of a new store.
    pub(crate) from_end: bool,
    pub(crate) now: Now,
}

impl Identify<'_> {
    /// Identifies these files. `empty`: how many others are empty.
    pub(crate) fn run(&mut self, found: Vec<Found>, empty: usize) {
        self.unidentified.inconclusive.clear();
        let held_back = std::mem::take(&mut self.unidentified.held_back);
        // First those at their own path and inode: only then is it known which sources have lost theirs.
        let mut others = Vec::new();
        for found in found {
            let at_path = self.book.sources().at(&found.path).and_then(|id| self.book.get(id));
            let own =
                at_path.filter(|source| source.is_file(found.device, found.inode)).map(|source| source.id);
            match own {
                Some(id) if self.is_still(id, &found) => {}
                _ => others.push(found),
            }
        }
        // Then renames, which an inode proves together with the content; then copies and new files. Those at a path that
        // a source had come last: where that source continues is looked for first. Of one path the oldest file comes
        // first, and the one that is there now last.
        others.sort_by_cached_key(|found| {
            let rotated = unrotated(&found.path).map(|rotated| rotated.1);
            let is_taken = rotated.is_none() && self.book.sources().at(&found.path).is_some();
            (rotated.is_none(), is_taken, found.mtime_ns, rotated, found.path.clone())
        });
        others.retain(|found| !self.is_renamed(found));
        let mut index = None;
        for found in others {
            // An empty file has no identity yet. It becomes a source with its first byte.
            if found.size == 0 || found.follow.is_none() {
                self.note_empty(&found);
                continue;
            }
            // A new file may have several names, too.
            if self.is_other_name(&found) {
                continue;
            }
            let Some(opened) = self.open_found(found, None) else {
                continue;
            };
            let index = index.get_or_insert_with(|| {
                look_at_unwritten(self.book, self.reader);
                Index::new(self.book)
            });
            if !self.is_held_back(&opened.found, &held_back) {
                self.copy_or_new(opened, index);
            }
        }
        if self.has_replaced() {
            self.unidentified.waiting += empty;
        }
        if self.book.scan() == 1 {
            order::line_up_known(self.book);
        }
        self.give_up();
        if self.has_replaced() {
            self.book.scan_wanted = true;
        }
    }

    /// An empty file that is about to become a compressed copy may be the rest of a source.
    fn note_empty(&mut self, found: &Found) {
        let is_compressed = found.size == 0 && uncompressed(&found.path).is_some();
        if is_compressed && self.unidentified.unchanged_ms(found, 0, self.now) < COPY_WAIT_MS {
            self.note_inconclusive(&found.path);
        }
    }

    /// A rotated file of a path could not be looked into.
    fn note_inconclusive(&mut self, path: &Path) {
        self.unidentified.inconclusive.insert(base(path));
    }

    /// A new file waits while a file that its path had before could not be looked into: that is read first.
    fn is_held_back(&mut self, found: &Found, before: &HashMap<(u64, u64), u64>) -> bool {
        if !self.unidentified.inconclusive.contains(&found.path) {
            return false;
        }
        let key = (found.device, found.inode);
        let since_ms = before.get(&key).copied().unwrap_or(self.now.boot_ms);
        if self.now.boot_ms.saturating_sub(since_ms) >= INCONCLUSIVE_MS {
            return false;
        }
        self.unidentified.held_back.insert(key, since_ms);
        self.unidentified.waiting += 1;
        self.book.scan_wanted = true;
        true
    }

    /// Sources whose content is gone and was not found in a copy end. A copy is complete before the truncation, so a walk
    /// that began after that was noticed has found the copy too; unless it was replaced by a compressed one meanwhile,
    /// which the next walk finds.
    fn give_up(&mut self) {
        let (scan, now_ms) = (self.book.scan(), self.now.boot_ms);
        let is_conclusive = self.unidentified.inconclusive.is_empty();
        let mut lost = Vec::new();
        for source in self.book.sources_mut() {
            let Presence::Replaced { scan: by, searched_since_ms } = &mut source.presence else {
                continue;
            };
            if *by >= scan {
                continue;
            }
            let since_ms = *searched_since_ms.get_or_insert(now_ms);
            if !is_conclusive && now_ms.saturating_sub(since_ms) < INCONCLUSIVE_MS {
                *by = scan;
            } else {
                lost.push(source.id);
            }
        }
        for id in lost {
            self.book.end_soon(id, Ending::Truncated);
        }
    }

    fn has_replaced(&self) -> bool {
        let scan = self.book.scan();
        let is_searched =
            |source: &Source| matches!(source.presence, Presence::Replaced { scan: by, .. } if by >= scan);
        self.book.sources().iter().any(is_searched)
    }

    /// Rows 1 to 3. True if the source continues here.
    fn is_still(&mut self, id: SourceId, found: &Found) -> bool {
        if self.book.get(id).is_none_or(|source| source.presence.is_replaced()) {
            return false;
        }
        let Some(opened) = self.open_found(found.clone(), Some(id)) else {
            // It cannot be read: taken for what it was, and tried again.
            let scan = self.book.scan();
            if let Some(source) = self.book.get_mut(id) {
                source.mark_found(found.device, scan);
            }
            return true;
        };
        match self.weigh(id, &opened, true, OwnPath::Here) {
            Some(Decision::Continue) => self.resume(id, opened, ResumeAt::Offset),
            Some(Decision::RolledBack(to)) => self.resume(id, opened, ResumeAt::Below(to)),
            _ => {
                self.book.mark_replaced(id);
                return false;
            }
        }
        true
    }

    /// Rows 4 to 6, and the other names of one file; and rows 1 and 2 for a source whose path another one came to.
    fn is_renamed(&mut self, found: &Found) -> bool {
        if self.is_other_name(found) {
            return true;
        }
        let candidates: Vec<SourceId> = self.book.sources().with_inode(found.inode).collect();
        for id in candidates {
            let may_be = |source: &Source| {
                let is_asked_for = source.presence != Presence::Inactive || found.follow.is_some();
                !source.presence.is_replaced() && is_asked_for && source.is_file(found.device, found.inode)
            };
            if !self.book.get(id).is_some_and(may_be) {
                continue;
            }
            let Some(opened) = self.open_found(found.clone(), None) else {
                continue;
            };
            match self.weigh(id, &opened, true, OwnPath::Taken) {
                Some(Decision::Continue | Decision::Renamed) => self.resume(id, opened, ResumeAt::Offset),
                Some(Decision::RolledBack(to)) => self.resume(id, opened, ResumeAt::Below(to)),
                _ => continue,
            }
            return true;
        }
        false
    }

    /// A hard link, or a second way to a file that this scan has found already: one source.
    fn is_other_name(&self, found: &Found) -> bool {
        let book = &self.book;
        book.sources().with_inode(found.inode).filter_map(|id| book.get(id)).any(|source| {
            source.presence.is_found_by(book.scan())
                && source.is_file(found.device, found.inode)
                && is_at(source.path(), found)
        })
    }

    /// Rows 7 to 12.
    fn copy_or_new(&mut self, opened: Opened, index: &mut Index) {
        let mut may_be_copy = false;
        let mut copy_of = None;
        for id in index.candidates(self.book, &opened) {
            // One that an earlier file of this scan continued is at its path again.
            let Some(own_path) = own_path(self.book, self.reader, id, self.now) else {
                continue;
            };
            match self.weigh(id, &opened, false, own_path) {
                Some(Decision::Continue | Decision::Copy) => {
                    return self.resume(id, opened, ResumeAt::Offset);
                }
                Some(Decision::CopyRead) => {
                    let size = opened.look.size;
                    return self.resume(id, opened, ResumeAt::End(size));
                }
                Some(Decision::CopyFrom(to)) => return self.resume(id, opened, ResumeAt::Below(to)),
                Some(Decision::Apart(from)) => {
                    copy_of = Some((id, from));
                    break;
                }
                Some(Decision::Wait) => may_be_copy = true,
                _ => {}
            }
        }
        if may_be_copy && copy_of.is_none() {
            self.unidentified.waiting += 1;
            return;
        }
        self.begin(opened, index, copy_of);
    }

    /// Compares a file with the open file of a source, or with the one that is still at the source's path.
    fn held(&mut self, id: SourceId, opened: &Opened, own: OwnPath) -> Held {
        let Some(source) = self.book.get(id).filter(|source| source.compressed.is_none()) else {
            return Held::No;
        };
        let at_path = match (self.book.files().get(id), own) {
            (None, OwnPath::Here) => self.book.open_path(source).ok(),
            _ => None,
        };
        let Some(file) = self.book.files().get(id).or(at_path.as_ref().map(|opened| &opened.0)) else {
            return Held::No;
        };
        let read = source.searched.max(source.offset);
        match self.reader.shared(file, &opened.file, &opened.look) {
            Ok(Some(to)) => Held::Shares { to, read: source.looked && read >= to },
            Ok(None) => Held::Differs,
            // As if it were not open: the bytes that the checkpoint covers decide.
            Err(_) => Held::No,
        }
    }

    /// Compares and decides.
    fn weigh(
        &mut self,
        id: SourceId,
        opened: &Opened,
        same_inode: bool,
        own_path: OwnPath,
    ) -> Option<Decision> {
        let held = if same_inode { Held::No } else { self.held(id, opened, own_path) };
        let age_ms = match same_inode {
            true => 0,
            false => self.unidentified.unchanged_ms(&opened.found, opened.look.size, self.now),
        };
        let source = self.book.get(id)?;
        let content = self.reader.compare(&opened.file, &opened.look, source).ok()?;
        Some(decide(&Evidence {
            same_path: **source.path() == *opened.found.path,
            same_inode,
            fingerprint: content.fingerprint,
            size: content.size,
            offset: source.offset,
            before_offset: content.before_offset,
            point: content.point,
            first_look: !source.looked,
            own_path,
            fresh: age_ms < COPY_WAIT_MS && content.size <= source.size.max(source.offset),
            compared: source.compared(),
            nothing_read: source.may_be_another(opened.look.size),
            held,
            named: is_rotation_of(&opened.found.path, source),
        }))
    }

    fn resume(&mut self, id: SourceId, opened: Opened, at: ResumeAt) {
        self.unfollowed.left_out.follow(&opened.found);
        resume(self.book, self.reader, id, opened, at, self.now);
    }

    /// A new source. `copy_of`: it is a copy of the open file of that source, and begins at this offset.
    fn begin(&mut self, opened: Opened, index: &mut Index, copy_of: Option<(SourceId, u64)>) {
        let Opened { found, file, look } = opened;
        if !found.has_place || self.book.is_full() {
            return self.unfollowed.left_out.add(&found, Without::Place);
        }
        let begin = match copy_of {
            Some((of, from)) => Begin::Copy(of, from),
            None if self.from_end && self.book.follows().begins_at_end(found.follow) => Begin::End,
            None => Begin::Beginning,
        };
        let at = found.location();
        let begun = new_source(self.book, self.reader, (at, &file, &look), begin, self.now);
        let mut source = match begun {
            Ok(source) => source,
            Err(source) => {
                let (path, offset) = (found.path.clone(), copy_of.map_or(0, |of| of.1));
                let why = ReadError::Read { path, offset, source };
                return self.unfollowed.refuse_found(&found, &why);
            }
        };
        order::line_up(self.book, &mut source, &mut index.families);
        self.unfollowed.left_out.follow(&found);
        let id = source.id;
        match copy_of {
            Some((of, from)) if self.book.get(of).is_some_and(|open| open.offset < from) => {
                self.book.add_copy(source, of);
            }
            _ => self.book.add(source),
        }
        self.book.attach(id, file);
        self.book.queue(id);
    }

    /// Opens a file that was found, and makes sure that it is still that file. `own`: the source that it was.
    fn open_found(&mut self, found: Found, own: Option<SourceId>) -> Option<Opened> {
        match self.try_open(&found) {
            Ok(Some((file, look))) => return Some(Opened { found, file, look }),
            Err(error) if !error.is_gone() => match own {
                Some(id) => self.book.fail(id, &error),
                None => self.unfollowed.refuse_found(&found, &error),
            },
            // Gone, or another file by now.
            Ok(None) | Err(_) => {
                self.note_inconclusive(&found.path);
                self.book.scan_wanted = true;
            }
        }
        None
    }

    fn try_open(&mut self, found: &Found) -> Result<Option<(fs::File, Look)>, ReadError> {
        let (file, meta) = open(&found.path, self.book.follows().way(found.follow, &found.path))?;
        let look = self.reader.look(&file).map_err(|source| ReadError::Read {
            path: found.path.clone(),
            offset: 0,
            source,
        })?;
        let is_same = (meta.dev(), meta.ino()) == (found.device, found.inode);
        Ok(is_same.then_some((file, look)))
    }
}

/// Files that were allocated, that this scan did not find, and of which nothing was read may have been filled in place since
/// they were looked at. One that cannot be read is known by what it had then.
pub(crate) fn look_at_unwritten(book: &mut Book, reader: &mut Reader) {
    let is_unread = |source: &&Source| {
        source.unwritten
            && source.offset == 0
            && source.compressed.is_none()
            && !source.presence.is_found_by(book.scan())
    };
    let mut filled = Vec::new();
    for source in book.sources().iter().filter(is_unread) {
        let Some(look) = book.files().get(source.id).and_then(|file| reader.look(file).ok()) else {
            continue;
        };
        let print = Fingerprint::of(&look.start);
        if look.size == source.size && print != source.fingerprint {
            filled.push((source.id, print));
        }
    }
    for (id, print) in filled {
        if let Some(source) = book.get_mut(id) {
            (source.fingerprint, source.searched, source.unwritten) = (print, 0, false);
        }
        book.queue(id);
    }
}

fn is_at(path: &Path, found: &Found) -> bool {
    fs::metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == (found.device, found.inode))
}
