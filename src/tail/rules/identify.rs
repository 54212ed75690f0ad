//! Who the files are that a scan found and that are not simply where they were: the table of `docs/explanation/tail.md`, applied.
//!
//! Opens each, compares at most its first 1 KiB and 16 resume points, and never reads a line. At most 10,000 sources.
// long: the rows of one table, which are read side by side with it

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use spillq_storage::SourceId;

use crate::tail::bytes::open::open;
use crate::tail::bytes::reader::Look;
use crate::tail::clock::Now;
use crate::tail::error::ReadError;
use crate::tail::find::candidates::Without;
use crate::tail::find::walk::Found;
use crate::tail::known::form::{Compressed, State, Whole};
use crate::tail::known::identity::{
    COPY_WAIT_MS, Decision, Evidence, FINGERPRINT_BYTES, Fingerprint, Held, Likeness, OwnPath, decide,
};
use crate::tail::known::rotated_name::{base, decompressed, unrotated};
use crate::tail::known::source::{Ending, Source};
use crate::tail::known::table::SOURCES_MAX;
use crate::tail::rules::opened::Opened;
use crate::tail::rules::order::{Families, first_path, is_rotation_of};
use crate::tail::scan::{is_inode, mark_seen};
use crate::tail::settings::From;
use crate::tail::worker::Worker;

/// Sources of one name in other folders, and such as are gone, that a short file is compared with, the newest: there may be
/// thousands.
const SAME_NAME_MAX: usize = 64;
/// How long a source whose content is gone is not given up for what a scan could not look into: a compressed copy takes
/// the place of a copy within that time.
const INCONCLUSIVE_MS: u64 = 10_000;

/// Where a source goes on in another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// At its offset.
    Offset,
    /// Below its offset, as what was behind it is not what was read: those lines are read again.
    RolledBack(u64),
    /// At the end of a copy that ends before its offset: those lines are not.
    End(u64),
}

/// The sources that a unidentified file may be, by what a scan found so far.
#[derive(Debug)]
struct Known {
    prints: HashMap<Fingerprint, Vec<SourceId>>,
    families: Families,
    /// By the name that their file had at first, in whatever folder: a copy may be made into another one. Only short files
    /// ask for it.
    names: OnceCell<HashMap<OsString, Vec<SourceId>>>,
    /// Those that are not at their place.
    missing: Vec<SourceId>,
}

impl Worker {
    /// Finds out who the files are that are not simply where they were.
    pub(crate) fn identify(&mut self, unidentified: Vec<Found>, empty: usize, now: Now) {
        self.missed.clear();
        let held_back = std::mem::take(&mut self.held_back);
        // First those at their own path and inode: only then is it known which sources have lost theirs.
        let mut others = Vec::new();
        for found in unidentified {
            let own = self
                .table
                .at(&found.path)
                .filter(|id| self.table.get(*id).is_some_and(|s| is_inode(s, &found)));
            match own {
                Some(id) if self.is_still(id, &found, now) => {}
                _ => others.push(found),
            }
        }
        // Then renames, which an inode proves together with the content; then copies and new files. Those at a path
        // that a source had come last: its own continuation is looked for first.
        // Of one path the oldest come first, and the one that is there now last.
        others.sort_by_cached_key(|found| {
            let rotated = unrotated(&found.path).map(|rotated| rotated.1);
            let is_taken = rotated.is_none() && self.table.at(&found.path).is_some();
            (rotated.is_none(), is_taken, found.mtime_ns, rotated, found.path.clone())
        });
        others.retain(|found| !self.is_renamed(found, now));
        let mut known = None;
        for found in others {
            // An empty file has no identity yet. It becomes a source with its first byte.
            if found.size == 0 || found.follow.is_none() {
                // A compressed copy that is about to be written.
                let is_compressed = found.size == 0 && decompressed(&found.path).is_some();
                if is_compressed && self.unchanged_ms(&found, 0, now) < COPY_WAIT_MS {
                    self.miss_family(&found.path);
                }
                continue;
            }
            // One that is new may have more names than one, too.
            if self.is_other_name(&found) {
                continue;
            }
            let Some(opened) = self.open_found(found, None) else {
                continue;
            };
            let known = known.get_or_insert_with(|| {
                self.look_at_unwritten();
                Known {
                    prints: self.fingerprints(),
                    families: self.families(),
                    names: OnceCell::new(),
                    missing: self.missing(),
                }
            });
            // One that its path had before may be what was missed: that is read first.
            if self.missed.contains(&opened.found.path) {
                let key = (opened.found.device, opened.found.inode);
                let since_ms = held_back.get(&key).copied().unwrap_or(now.boot_ms);
                if now.boot_ms.saturating_sub(since_ms) < INCONCLUSIVE_MS {
                    self.held_back.insert(key, since_ms);
                    self.waiting_files += 1;
                    self.scan_wanted = true;
                    continue;
                }
            }
            self.copy_or_new(opened, known, now);
        }
        if self.has_replaced() {
            self.waiting_files += empty;
        }
        if self.scan_number == 1 {
            self.line_up_known();
        }
        self.give_up(now);
        self.scan_wanted |= self.has_replaced();
    }

    /// Notes that a file of a path could not be looked into.
    fn miss_family(&mut self, path: &Path) {
        self.missed.insert(base(path));
    }

    /// Sources whose content is gone and was not found in a copy. A copy is complete before the truncation, so that a walk
    /// which began after that was seen has seen the copy too; unless that was replaced by a compressed one meanwhile,
    /// which the next walk sees.
    fn give_up(&mut self, now: Now) {
        let number = self.scan_number;
        self.replaced_ms.retain(|id, _| self.table.get(*id).is_some_and(|source| source.replaced > 0));
        let lost: Vec<SourceId> = self
            .table
            .iter()
            .filter(|source| source.replaced > 0 && source.replaced < number)
            .map(|source| source.id)
            .collect();
        for id in lost {
            let since_ms = *self.replaced_ms.entry(id).or_insert(now.boot_ms);
            if !self.missed.is_empty() && now.boot_ms.saturating_sub(since_ms) < INCONCLUSIVE_MS {
                if let Some(source) = self.table.get_mut(id) {
                    source.replaced = number;
                }
            } else {
                self.endings.push_back((id, Ending::Truncated));
            }
        }
    }

    fn has_replaced(&self) -> bool {
        self.table.iter().any(|source| source.replaced > 0 && source.replaced >= self.scan_number)
    }

    /// Rows 1 to 3. True where the source goes on here.
    fn is_still(&mut self, id: SourceId, found: &Found, now: Now) -> bool {
        if self.table.get(id).is_none_or(|source| source.replaced > 0) {
            return false;
        }
        let Some(opened) = self.open_found(found.clone(), Some(id)) else {
            // Unreadable: it stays who it was, and is tried again.
            self.mark(id, found);
            return true;
        };
        let decision = self.weigh(id, &opened, true, OwnPath::Here, now);
        match decision {
            Some(Decision::Continue) => self.take_over(id, opened, At::Offset, now),
            Some(Decision::RolledBack(to)) => self.take_over(id, opened, At::RolledBack(to), now),
            _ => {
                self.mark_replaced(id);
                return false;
            }
        }
        true
    }

    /// Rows 4 to 6, and the other names of one file; and rows 1 and 2 for a source whose path another one came to.
    fn is_renamed(&mut self, found: &Found, now: Now) -> bool {
        if self.is_other_name(found) {
            return true;
        }
        let candidates: Vec<SourceId> = self.table.with_inode(found.inode).collect();
        for id in candidates {
            let is_out = |source: &Source| source.inactive && found.follow.is_none();
            if self
                .table
                .get(id)
                .is_none_or(|source| source.replaced > 0 || is_out(source) || !is_inode(source, found))
            {
                continue;
            }
            let Some(opened) = self.open_found(found.clone(), None) else {
                continue;
            };
            match self.weigh(id, &opened, true, OwnPath::Taken, now) {
                Some(Decision::Continue | Decision::Renamed) => self.take_over(id, opened, At::Offset, now),
                Some(Decision::RolledBack(to)) => self.take_over(id, opened, At::RolledBack(to), now),
                _ => continue,
            }
            return true;
        }
        false
    }

    /// A hard link, or a second way to a file that this scan found already: one source.
    fn is_other_name(&self, found: &Found) -> bool {
        self.table.with_inode(found.inode).filter_map(|id| self.table.get(id)).any(|source| {
            let is_here = source.seen == self.scan_number && source.replaced == 0;
            is_here && is_inode(source, found) && is_at(&source.path, found)
        })
    }

    /// Rows 7 to 12.
    fn copy_or_new(&mut self, opened: Opened, known: &mut Known, now: Now) {
        let mut candidates: Vec<SourceId> = Fingerprint::prefixes(&opened.look.start)
            .filter_map(|print| known.prints.get(&print))
            .flatten()
            .copied()
            .collect();
        candidates.extend(self.longer(&opened, known));
        // The longest content that fits is the best evidence.
        candidates.sort_by_key(|id| self.table.get(*id).map(|source| std::cmp::Reverse(source.compared())));
        let mut wait = false;
        for id in candidates {
            // One that an earlier unidentified file of this scan continued is not looked for any more.
            let Some(own_path) = self.own_path(id, now) else {
                continue;
            };
            match self.weigh(id, &opened, false, own_path, now) {
                Some(Decision::Continue | Decision::Copy) => {
                    return self.take_over(id, opened, At::Offset, now);
                }
                Some(Decision::CopyRead) => {
                    let size = opened.look.size;
                    return self.take_over(id, opened, At::End(size), now);
                }
                Some(Decision::CopyFrom(to)) => {
                    return self.take_over(id, opened, At::RolledBack(to), now);
                }
                Some(Decision::Apart(from)) => {
                    return self.add_source(opened, &mut known.families, Some((id, from)), now);
                }
                Some(Decision::Wait) => wait = true,
                _ => {}
            }
        }
        if wait {
            self.waiting_files += 1;
            return;
        }
        self.add_source(opened, &mut known.families, None, now);
    }

    /// Sources whose fingerprint covers more than a short file has: those that are missing, and those whose name it has
    /// with a number behind it. All of them would be too many to compare each new file with.
    fn longer(&self, opened: &Opened, known: &Known) -> Vec<SourceId> {
        let len = opened.look.start.len();
        if len >= FINGERPRINT_BYTES || opened.look.form.is_some() {
            return Vec::new();
        }
        let family = self.family_of(&opened.found.path);
        let at_path = self.table.at(&family);
        let names = known.names.get_or_init(|| self.names());
        let named = base(&opened.found.path).file_name().and_then(|name| names.get(name));
        let named = named.into_iter().flatten().rev().take(SAME_NAME_MAX);
        let family = known.families.get(&family).into_iter().flatten();
        // A resume point tells without a look at any file; what is held open is compared, so not with thousands.
        let missing = || known.missing.iter().filter_map(|id| self.table.get(*id));
        let told = missing().filter(|source| source.resume_points.is_in(&opened.look.start));
        let held = missing().rev().filter(|source| source.file.is_some()).take(SAME_NAME_MAX);
        let missing = told.chain(held).map(|source| &source.id);
        let ids = family.chain(named).chain(missing).chain(&at_path);
        let mut ids: Vec<SourceId> = ids.copied().collect();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| {
            let source = self.table.get(*id);
            source.is_some_and(|source| {
                usize::from(source.fingerprint.len) > len
                    && !source.is_provisional()
                    && source.compressed.is_none()
            })
        });
        ids
    }

    /// The sources by the name without a number that their file had at first.
    fn names(&self) -> HashMap<OsString, Vec<SourceId>> {
        let mut names = HashMap::<_, Vec<_>>::new();
        for source in self.table.iter() {
            if let Some(name) = base(first_path(source)).file_name() {
                names.entry(name.to_owned()).or_default().push(source.id);
            }
        }
        names
    }

    /// Files that were allocated, that this scan did not find, and of which nothing was read may have been filled in place
    /// since they were looked at. One that cannot be read is known by what it had then.
    pub(crate) fn look_at_unwritten(&mut self) {
        let number = self.scan_number;
        let mut filled = Vec::new();
        let is_unread = |source: &&mut Source| {
            source.unwritten && source.offset == 0 && source.compressed.is_none() && source.seen != number
        };
        for source in self.table.iter_mut().filter(is_unread) {
            let Some(look) = source.file.as_ref().and_then(|file| self.reader.look(file).ok()) else {
                continue;
            };
            let print = Fingerprint::of(&look.start);
            if look.size == source.size && print != source.fingerprint {
                (source.fingerprint, source.searched, source.unwritten) = (print, 0, false);
                filled.push(source.id);
            }
        }
        for id in filled {
            self.queue(id);
        }
    }

    fn missing(&self) -> Vec<SourceId> {
        let is_missing =
            |source: &&Source| !source.inactive && (source.replaced > 0 || source.seen != self.scan_number);
        self.table.iter().filter(is_missing).map(|source| source.id).collect()
    }

    /// Compares a file with the open one of a source, or with the one that is still at the source's path.
    fn held(&mut self, id: SourceId, opened: &Opened, own: OwnPath) -> Held {
        let Some(source) = self.table.get(id).filter(|source| source.compressed.is_none()) else {
            return Held::No;
        };
        let at_path = match (&source.file, own) {
            (None, OwnPath::Here) => {
                open(&source.path, self.discover.way(Some(source.follow), &source.path)).ok()
            }
            _ => None,
        };
        let Some(file) = source.file.as_ref().or(at_path.as_ref().map(|opened| &opened.0)) else {
            return Held::No;
        };
        let read = source.searched.max(source.offset);
        match self.reader.shared(file, &opened.file, &opened.look) {
            Ok(Some(to)) => Held::Shares { to, read: source.looked && read >= to },
            Ok(None) => Held::Differs,
            // As if it were not open: the bytes that the checkpoint speaks for decide.
            Err(_) => Held::No,
        }
    }

    /// What is now at the path of a source; compares its content where the file looks like itself.
    pub(crate) fn own_path(&mut self, id: SourceId, now: Now) -> Option<OwnPath> {
        let source = self.table.get_mut(id)?;
        if source.replaced > 0 {
            return Some(OwnPath::Truncated);
        }
        let here = |meta: &fs::Metadata| {
            meta.ino() == source.inode && (source.device == 0 || meta.dev() == source.device)
        };
        let (own, size) = match fs::metadata(&source.path) {
            Ok(meta) if here(&meta) => (OwnPath::Here, meta.len()),
            Ok(_) => (OwnPath::Taken, 0),
            Err(_) => (OwnPath::Gone, 0),
        };
        // Where it is out of sight, what is held open tells whether it was truncated since.
        let file = match (&source.file, own) {
            (_, OwnPath::Here) => open(&source.path, self.discover.way(Some(source.follow), &source.path))
                .map(|opened| opened.0)
                .map_err(io::Error::other),
            (Some(held), _) => held.try_clone(),
            (None, _) => return Some(own),
        };
        let same = file.and_then(|file| {
            let look = self.reader.look(&file)?;
            self.reader.compare(&file, &look, source)
        });
        match same {
            Ok(same)
                if same.before_offset
                    && (same.fingerprint == Likeness::Equal || source.may_be_another(same.size)) =>
            {
                // A copy can be as long as the source is by now, not as it was at the last look.
                if source.compressed.is_none() && size > source.size {
                    (source.size, source.active_ms) = (size, now.boot_ms);
                    self.queue(id);
                }
                Some(own)
            }
            Ok(_) => {
                // What is inactive is not given up for it: nobody asked for its file.
                if !source.inactive {
                    self.mark_replaced(id);
                }
                Some(OwnPath::Truncated)
            }
            Err(_) => Some(own),
        }
    }

    /// For how long a unidentified file has been as it is, by our clock and since it was first seen so: its times are those of
    /// another clock, which may be ahead of ours or behind.
    fn unchanged_ms(&mut self, found: &Found, size: u64, now: Now) -> u64 {
        let key = (found.device, found.inode);
        let state = (size, found.mtime_ns, found.ctime_ns);
        let before = self.unidentified.get(&key).or_else(|| self.unidentified_before.get(&key));
        let since_ms = before.filter(|before| before.0 == state).map_or(now.boot_ms, |before| before.1);
        // With so many that wait nobody is waited for.
        if self.unidentified.len() >= SOURCES_MAX {
            return u64::MAX;
        }
        self.unidentified.insert(key, (state, since_ms));
        now.boot_ms.saturating_sub(since_ms)
    }

    /// Compares and decides.
    fn weigh(
        &mut self,
        id: SourceId,
        opened: &Opened,
        same_inode: bool,
        own: OwnPath,
        now: Now,
    ) -> Option<Decision> {
        let held = if same_inode { Held::No } else { self.held(id, opened, own) };
        let age_ms = if same_inode { 0 } else { self.unchanged_ms(&opened.found, opened.look.size, now) };
        let source = self.table.get(id)?;
        let content = self.reader.compare(&opened.file, &opened.look, source).ok()?;
        Some(decide(&Evidence {
            same_path: *source.path == *opened.found.path,
            same_inode,
            fingerprint: content.fingerprint,
            size: content.size,
            offset: source.offset,
            before_offset: content.before_offset,
            point: content.point,
            first_look: !source.looked,
            own_path: own,
            fresh: age_ms < COPY_WAIT_MS && content.size <= source.size.max(source.offset),
            compared: source.compared(),
            nothing_read: source.may_be_another(opened.look.size),
            held,
            named: is_rotation_of(&opened.found.path, source),
        }))
    }

    /// The source goes on in this file.
    pub(crate) fn take_over(&mut self, id: SourceId, opened: Opened, at: At, now: Now) {
        let number = self.scan_number;
        let Some(source) = self.table.get_mut(id) else {
            return;
        };
        let found = &opened.found;
        self.left_out.follow(found);
        let moved = *source.path != *found.path;
        let mut changed = moved || source.inode != found.inode;
        let was_taken = source.taken;
        let is_same_file =
            source.inode == found.inode && source.compressed.is_some() == opened.look.form.is_some();
        if source.rotated_from.as_deref() == Some(&*found.path) {
            // Back at the path that it left: it may be written to again.
            (source.rotated_from, source.taken, changed) = (None, false, true);
        } else if moved && source.rotated_from.is_none() {
            source.rotated_from = Some(std::sync::Arc::clone(&source.path));
        }
        let is_back = was_taken && !source.taken;
        let from = source.offset;
        match at {
            At::Offset => {}
            At::End(to) => {
                // All of the copy was read; its end may lie inside a line that was read elsewhere.
                source.resume_points.cut(to);
                source.fingerprint = Fingerprint::of_read(&opened.look.start, to);
                if let Err(error) = self.reader.skip_to(&opened.file, source, to) {
                    tracing::warn!(source = id.0, %error, "a copy cannot be read");
                }
                changed = true;
            }
            At::RolledBack(to) => {
                source.roll_back(to, Fingerprint::of_read(&opened.look.start, to));
                self.counters.rolled_back += 1;
                self.counters.rolled_back_bytes += from - to;
                let path = found.path.display();
                tracing::warn!(%path, from, to, "rolled back: the file is not what was read; resumed below");
                changed = true;
            }
        }
        source.replaced = 0;
        source.looked = true;
        source.unwritten = false;
        source.error = None;
        source.outside = found.follow.is_none();
        source.inactive = false;
        if let Some(follow) = found.follow {
            source.follow = follow;
        }
        source.mtime_ns = found.mtime_ns;
        settle_form(source, &opened.look, found.mtime_ns, now);
        source.searched = source.offset;
        self.open -= usize::from(source.file.take().is_some());
        source.closed_early = self.open >= self.open_max;
        if !source.closed_early {
            source.file = Some(opened.file);
            self.open += 1;
        }
        if moved {
            source.active_ms = now.boot_ms;
        }
        if !is_same_file {
            self.let_go(id);
        }
        self.table.place(id, &found.path, found.device, found.inode);
        if let Some(source) = self.table.get_mut(id) {
            mark_seen(source, found, number);
        }
        if is_back {
            // It is no older file any more that others come after.
            for other in self.table.iter_mut().filter(|other| other.after == Some(id)) {
                other.after = None;
            }
        }
        if changed {
            self.owe_checkpoint(id);
        }
        self.queue(id);
    }

    /// A new source; `apart`: a copy of the open file of this one, of which what is behind an offset is read.
    fn add_source(
        &mut self,
        opened: Opened,
        families: &mut Families,
        apart: Option<(SourceId, u64)>,
        now: Now,
    ) {
        let Opened { found, file, look } = opened;
        if !found.has_place || self.table.len() >= self.sources_max {
            return self.left_out.add(&found, Without::Place);
        }
        let id = self.next_source;
        let mut source = Source::new(id, &found.path, now.boot_ms);
        (source.device, source.inode) = (found.device, found.inode);
        source.follow = found.follow.unwrap_or_default();
        source.fingerprint = Fingerprint::of(&look.start);
        settle_form(&mut source, &look, found.mtime_ns, now);
        source.looked = true;
        let from_end = self.from_end
            && self.follows.get(usize::from(source.follow)).is_some_and(|one| one.from == From::End);
        if from_end && let Some(compressed) = source.compressed.as_mut() {
            // Nothing of it is read, so it does not matter what it holds.
            compressed.state = State::Whole(Whole::default());
            (source.size, source.dirty) = (0, true);
        } else if let Some((of, from)) = apart {
            let open = self.table.get(of);
            let is_read = open.is_none_or(|open| open.offset >= from);
            if let Some(open) = open {
                source.resume_points = open.resume_points.clone();
                source.resume_points.cut(from);
            }
            if let Err(error) = self.reader.skip_to(&file, &mut source, from) {
                let why = ReadError::Read { path: found.path.clone(), offset: from, source: error };
                return self.refuse_found(&found, &why);
            }
            // After a restart nobody has the open file: what it had not read yet is then read here.
            if !is_read {
                source.dirty = false;
                self.apart.insert(id, of);
            }
            tracing::debug!(path = %found.path.display(), from, "a copy of an open file: read from where they part");
        } else if from_end {
            let size = look.size;
            let line_max = self.follows.get(usize::from(source.follow)).map_or(1, |one| one.max_line_bytes);
            let skipped = self.reader.last_line_start(&file, size, line_max).and_then(|start| {
                if start > 0 { self.reader.skip_to(&file, &mut source, start) } else { Ok(()) }
            });
            if let Err(error) = skipped {
                let why = ReadError::Read { path: found.path.clone(), offset: 0, source: error };
                return self.refuse_found(&found, &why);
            }
        }
        if source.compressed.is_none() {
            source.fingerprint = Fingerprint::of_read(&look.start, source.offset);
        }
        self.next_source = SourceId(id.0 + 1);
        source.closed_early = self.open >= self.open_max;
        if !source.closed_early {
            source.file = Some(file);
            self.open += 1;
        }
        source.mtime_ns = found.mtime_ns;
        self.line_up(&mut source, families);
        self.left_out.follow(&found);
        mark_seen(&mut source, &found, self.scan_number);
        let owed = source.dirty;
        self.table.insert(source);
        if owed {
            self.owe_checkpoint(id);
        }
        self.queue(id);
    }

    /// A file that is no source cannot be read.
    fn refuse_found(&mut self, found: &Found, error: &ReadError) {
        self.left_out.add(found, Without::Permission);
        self.refuse(&found.path, error.why(), error.to_string());
    }

    fn mark(&mut self, id: SourceId, found: &Found) {
        let number = self.scan_number;
        if let Some(source) = self.table.get_mut(id) {
            mark_seen(source, found, number);
        }
    }

    /// Which sources have which fingerprint.
    fn fingerprints(&self) -> HashMap<Fingerprint, Vec<SourceId>> {
        let mut prints: HashMap<_, Vec<_>> = HashMap::new();
        // Of a provisional one nothing was read.
        let known = |source: &&Source| source.fingerprint.len > 0 && !source.is_provisional();
        for source in self.table.iter().filter(known) {
            prints.entry(source.fingerprint).or_default().push(source.id);
        }
        prints
    }

    /// Opens a file that was found, and makes sure that it is still that file.
    fn open_found(&mut self, found: Found, source: Option<SourceId>) -> Option<Opened> {
        let opened =
            open(&found.path, self.discover.way(found.follow, &found.path)).and_then(|(file, meta)| {
                let look = self.reader.look(&file).map_err(|source| ReadError::Read {
                    path: found.path.clone(),
                    offset: 0,
                    source,
                })?;
                Ok((file, meta, look))
            });
        match opened {
            Ok((file, meta, look)) if (meta.dev(), meta.ino()) == (found.device, found.inode) => {
                Some(Opened { found, file, look })
            }
            Ok(_) => {
                self.miss_family(&found.path);
                self.scan_wanted = true;
                None
            }
            Err(error) if error.is_gone() => {
                self.miss_family(&found.path);
                self.scan_wanted = true;
                None
            }
            Err(error) => {
                match source {
                    Some(id) => self.fail(id, &error),
                    None => self.refuse_found(&found, &error),
                }
                None
            }
        }
    }
}

/// Whether the file is compressed, and how long it is then.
fn settle_form(source: &mut Source, look: &Look, mtime_ns: i64, now: Now) {
    let former = source.compressed.take();
    source.compressed = look.form.map(|form| match former {
        Some(compressed) if compressed.form == form => compressed,
        _ => Compressed::found(form, mtime_ns, now.boot_ms),
    });
    source.size = match source.compressed.as_ref().map(|compressed| &compressed.state) {
        Some(State::Whole(whole)) => whole.size.max(source.offset),
        Some(State::Duplicate { .. }) => 0,
        _ => look.size.max(source.offset),
    };
}

fn is_at(path: &Path, found: &Found) -> bool {
    fs::metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == (found.device, found.inode))
}
