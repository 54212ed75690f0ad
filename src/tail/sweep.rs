//! The sweep: walks the folders, and finds out who each file is that is not simply where it was.
//!
//! It finds what events miss, so nothing rests on them. A known file that has not changed costs one stat; files that
//! are new, moved or changed in place are opened and compared (`docs/tail.md` has the table). At most 10,000
//! sources. It never reads lines.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use spillq_storage::SourceId;

use super::discover::Found;
use super::error::ReadError;
use super::identity::{Decision, Evidence, Fingerprint, Likeness, OwnPath, decide};
use super::reader::open;
use super::source::Source;
use super::worker::{Ending, Now, Worker};

/// Sources at once. The log's manifest is sized for as many.
const SOURCES_MAX: usize = 10_000;
/// A file that changed so recently may be a copy under way: copy-truncate truncates right after the last write.
const COPY_WAIT_MS: u64 = 2_000;
/// A file read to its end is held open for so long after its last line, as long as there are descriptors.
const IDLE_CLOSE_MS: u64 = 5 * 60 * 1_000;
/// The pause after a sweep, in multiples of what it took: 5 % of the time at most, 20 % where events ask for one.
const REGULAR_PAUSE: u64 = 20;
const WANTED_PAUSE: u64 = 4;
/// Between two sweeps, however cheap: a burst of events is one sweep.
const PAUSE_MIN_MS: u64 = 5;

/// A stranger that was opened.
struct Opened {
    found: Found,
    file: File,
    size: u64,
    start: Vec<u8>,
}

impl Worker {
    /// When the next sweep is due, by the clock of `now`.
    pub(crate) fn sweep_due(&self, now: Now) -> u64 {
        if self.sweep_number == 0 {
            return now.boot_ms;
        }
        match self.sweep_wanted {
            true => self.swept_ms + (self.sweep_cost_ms * WANTED_PAUSE).max(PAUSE_MIN_MS),
            false => self.swept_ms + (self.sweep_cost_ms * REGULAR_PAUSE).max(self.sweep_interval_ms),
        }
    }

    /// Looks at everything once.
    pub(crate) fn sweep(&mut self, now: Now) {
        let began = Instant::now();
        self.sweep_number += 1;
        self.sweep_wanted = false;
        self.waiting_files = 0;
        self.counters.sweeps += 1;
        let mut strangers = Vec::new();
        let mut changed = Vec::new();
        let inodes = self.table.inodes();
        let (table, number) = (&mut self.table, self.sweep_number);
        let walked = self.discover.walk(&|inode| inodes.contains(&inode), &mut |found| {
            let known = table.at(&found.path).and_then(|id| table.get_mut(id));
            let Some(source) = known.filter(|source| is_inode(source, &found)) else {
                strangers.push(found);
                return;
            };
            if source.displaced > 0 || source.finished || !source.looked || found.size < source.offset {
                strangers.push(found);
                return;
            }
            mark_seen(source, &found, number);
            if found.size != source.size || found.mtime_ns != source.mtime_ns || source.error.is_some() {
                changed.push(source.id);
            }
        });
        for id in changed {
            self.queue(id);
        }
        self.tell_refused(walked.refused, &walked.unlisted);
        self.folders = walked.folders;
        self.recognise(strangers, now);
        self.miss(&walked.unlisted, now);
        self.rotated_ends(now);
        if walked.unlisted.is_empty() {
            let gone: Vec<_> = self.table.iter().filter(|source| source.finished).map(|one| one.id).collect();
            for id in gone {
                self.table.remove(id);
            }
        }
        self.close_idle(now);
        // At the end of the first sweep, whatever it found existed at the start.
        self.from_end = false;
        self.sweep_cost_ms = began.elapsed().as_millis() as u64;
        self.swept_ms = now.boot_ms + self.sweep_cost_ms;
    }

    /// What cannot be followed is said once, and again only after it was gone from the list.
    fn tell_refused(&mut self, refused: Vec<(PathBuf, String)>, unlisted: &[PathBuf]) {
        let before = std::mem::take(&mut self.refused);
        for (path, why) in refused {
            if before.get(&path) != Some(&why) && !self.refused.contains_key(&path) {
                self.counters.errors += 1;
                tracing::warn!(path = %path.display(), "not followed: {why}");
            }
            self.refused.insert(path, why);
        }
        if self.sweep_number == 1 {
            for folder in unlisted {
                tracing::info!(path = %folder.display(), "not there yet, or not readable: looked for by each sweep");
            }
        }
    }

    /// Finds out who the files are that are not simply where they were.
    fn recognise(&mut self, strangers: Vec<Found>, now: Now) {
        // First those at their own path and inode: only then is it known which sources have lost theirs.
        let mut others = Vec::new();
        for found in strangers {
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
        others.sort_by_cached_key(|found| {
            (self.table.at(&found.path).is_some(), found.mtime_ns, found.path.clone())
        });
        others.retain(|found| !self.is_renamed(found, now));
        let mut prints = None;
        for found in others {
            // An empty file has no identity yet. It becomes a source with its first byte.
            if found.size == 0 || found.follow.is_none() {
                self.waiting_files += usize::from(found.size == 0 && self.has_displaced());
                continue;
            }
            let Some(opened) = self.open_stranger(found) else {
                continue;
            };
            let prints = prints.get_or_insert_with(|| self.fingerprints());
            self.copy_or_new(opened, prints, now);
        }
        // A copy is complete before the truncation: a walk that began after it was seen has seen the copy too.
        let lost: Vec<SourceId> = self
            .table
            .iter()
            .filter(|source| source.displaced > 0)
            .filter(|source| source.displaced < self.sweep_number)
            .map(|source| source.id)
            .collect();
        for id in lost {
            self.endings.push_back((id, Ending::Truncated));
        }
        self.sweep_wanted |= self.has_displaced();
    }

    fn has_displaced(&self) -> bool {
        self.table.iter().any(|source| source.displaced > 0 && source.displaced >= self.sweep_number)
    }

    /// Rows 1 to 3. True where the source goes on here.
    fn is_still(&mut self, id: SourceId, found: &Found, now: Now) -> bool {
        if self.table.get(id).is_none_or(|source| source.displaced > 0) {
            return false;
        }
        let Some(opened) = self.open_stranger_of(found.clone(), Some(id)) else {
            // Unreadable: it stays who it was, and is tried again.
            self.mark(id, found);
            return true;
        };
        let decision = self.weigh(id, &opened, true, OwnPath::Here, now);
        match decision {
            Some(Decision::Continue) => self.take_over(id, opened, None, now),
            Some(Decision::RolledBack(to)) => self.take_over(id, opened, Some(to), now),
            _ => {
                self.displace(id);
                return false;
            }
        }
        true
    }

    /// Rows 4 to 6, and the other names of one file.
    fn is_renamed(&mut self, found: &Found, now: Now) -> bool {
        let candidates: Vec<SourceId> = self.table.with_inode(found.inode).collect();
        for id in candidates {
            let Some(source) = self.table.get(id) else {
                continue;
            };
            if source.displaced > 0 || !is_inode(source, found) || source.finished && found.follow.is_none() {
                continue;
            }
            if *source.path == *found.path {
                continue;
            }
            if source.seen == self.sweep_number && is_at(&source.path, found) {
                // A hard link or a second way to the same file: one source.
                return true;
            }
            let Some(opened) = self.open_stranger_of(found.clone(), None) else {
                continue;
            };
            match self.weigh(id, &opened, true, OwnPath::Taken, now) {
                Some(Decision::Continue | Decision::Renamed) => self.take_over(id, opened, None, now),
                Some(Decision::RolledBack(to)) => self.take_over(id, opened, Some(to), now),
                _ => continue,
            }
            return true;
        }
        false
    }

    /// Rows 7 to 12.
    fn copy_or_new(&mut self, opened: Opened, prints: &HashMap<Fingerprint, Vec<SourceId>>, now: Now) {
        let mut candidates: Vec<SourceId> = Fingerprint::prefixes(&opened.start)
            .filter_map(|print| prints.get(&print))
            .flatten()
            .copied()
            .collect();
        // The longest content that fits is the best evidence.
        candidates.sort_by_key(|id| self.table.get(*id).map(|source| std::cmp::Reverse(source.compared())));
        let mut wait = false;
        for id in candidates {
            // One that an earlier stranger of this sweep continued is not looked for any more.
            let Some(own_path) = self.own_path(id, now) else {
                continue;
            };
            match self.weigh(id, &opened, false, own_path, now) {
                Some(Decision::Continue | Decision::Copy) => return self.take_over(id, opened, None, now),
                Some(Decision::CopyRead) => {
                    let size = opened.size;
                    return self.take_over(id, opened, Some(size), now);
                }
                Some(Decision::Wait) => wait = true,
                _ => {}
            }
        }
        if wait {
            self.waiting_files += 1;
            return;
        }
        self.give_birth(opened, now);
    }

    /// What is now at the path of a source; compares its content where the file looks like itself.
    fn own_path(&mut self, id: SourceId, now: Now) -> Option<OwnPath> {
        let source = self.table.get_mut(id)?;
        if source.displaced > 0 {
            return Some(OwnPath::Truncated);
        }
        let Ok(meta) = fs::metadata(&source.path) else {
            return Some(OwnPath::Gone);
        };
        if meta.ino() != source.inode || source.device != 0 && meta.dev() != source.device {
            return Some(OwnPath::Taken);
        }
        let same = File::open(&source.path).and_then(|file| {
            let start = self.reader.start(&file)?;
            self.reader.compare(&file, meta.len(), &start, source)
        });
        match same {
            Ok(same) if same.fingerprint == Likeness::Equal && same.before_offset => {
                // A copy can be as long as the source is by now, not as it was at the last look.
                if meta.len() > source.size {
                    (source.size, source.active_ms) = (meta.len(), now.boot_ms);
                    self.queue(id);
                }
                Some(OwnPath::Here)
            }
            Ok(_) => {
                self.displace(id);
                Some(OwnPath::Truncated)
            }
            Err(_) => Some(OwnPath::Here),
        }
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
        let source = self.table.get(id)?;
        let content = self.reader.compare(&opened.file, opened.size, &opened.start, source).ok()?;
        let age = (now.wall_ms as i64).saturating_sub(opened.found.ctime_ms);
        Some(decide(&Evidence {
            same_path: *source.path == *opened.found.path,
            same_inode,
            fingerprint: content.fingerprint,
            size: opened.size,
            offset: source.offset,
            before_offset: content.before_offset,
            rung: content.rung,
            first_look: !source.looked,
            own_path: own,
            fresh: age < COPY_WAIT_MS as i64 && opened.size <= source.size.max(source.offset),
            compared: source.compared(),
        }))
    }

    /// The source goes on in this file; at `to` where that is not its offset.
    fn take_over(&mut self, id: SourceId, opened: Opened, to: Option<u64>, now: Now) {
        let number = self.sweep_number;
        let Some(source) = self.table.get_mut(id) else {
            return;
        };
        let found = &opened.found;
        let moved = *source.path != *found.path;
        let mut changed = moved || source.inode != found.inode || source.finished;
        if moved && source.rotated_from.is_none() {
            source.rotated_from = Some(std::sync::Arc::clone(&source.path));
        }
        if let Some(to) = to {
            let (from, is_copy) = (source.offset, source.displaced > 0);
            if is_copy {
                // All of the copy was read; its end may lie inside a line that was read elsewhere.
                source.ladder.cut(to);
                if let Err(error) = self.reader.skip_to(&opened.file, source, to) {
                    tracing::warn!(source = id.0, %error, "a copy cannot be read");
                }
            } else {
                source.roll_back(to, Fingerprint::of(&opened.start));
                self.counters.rolled_back += 1;
                self.counters.rolled_back_bytes += from - to;
                let path = found.path.display();
                tracing::warn!(%path, from, to, "rolled back: the file is not what was read; resumed below");
            }
            changed = true;
        }
        source.displaced = 0;
        source.finished = false;
        source.looked = true;
        source.error = None;
        source.outside = found.follow.is_none();
        if let Some(follow) = found.follow {
            source.follow = follow;
        }
        source.size = opened.size.max(source.offset);
        source.scanned = source.offset;
        self.open -= usize::from(source.file.take().is_some());
        if self.open < self.open_max {
            source.file = Some(opened.file);
            self.open += 1;
        }
        if moved {
            source.active_ms = now.boot_ms;
        }
        self.table.place(id, &found.path, found.device, found.inode);
        if let Some(source) = self.table.get_mut(id) {
            mark_seen(source, found, number);
        }
        if changed {
            self.owe_checkpoint(id);
        }
        self.queue(id);
    }

    /// A new source.
    fn give_birth(&mut self, opened: Opened, now: Now) {
        let Opened { found, file, size, start } = opened;
        if self.table.len() >= SOURCES_MAX {
            let why = format!("follow {}: {SOURCES_MAX} files are followed already", found.path.display());
            return self.tell_refused(vec![(found.path, why)], &[]);
        }
        let id = self.next_source;
        let mut source = Source::new(id, &found.path, now.boot_ms);
        (source.device, source.inode) = (found.device, found.inode);
        source.follow = found.follow.unwrap_or_default();
        source.fingerprint = Fingerprint::of(&start);
        source.size = size;
        source.looked = true;
        let from_end = self.from_end
            && self.follows.get(usize::from(source.follow)).is_some_and(|one| one.from == super::From::End);
        if from_end {
            let line_max = self.follows.get(usize::from(source.follow)).map_or(1, |one| one.max_line_bytes);
            let skipped = self.reader.last_line_start(&file, size, line_max).and_then(|start| {
                if start > 0 { self.reader.skip_to(&file, &mut source, start) } else { Ok(()) }
            });
            if let Err(error) = skipped {
                let why = ReadError::Read { path: found.path.clone(), offset: 0, source: error }.to_string();
                return self.tell_refused(vec![(found.path, why)], &[]);
            }
        }
        self.next_source = SourceId(id.0 + 1);
        if self.open < self.open_max {
            source.file = Some(file);
            self.open += 1;
        }
        source.after = self.older_of(&found.path);
        if let Some(older) = source.after.and_then(|older| self.table.get_mut(older)) {
            older.taken = true;
            older.rotated_from.get_or_insert_with(|| std::sync::Arc::clone(&source.path));
        }
        mark_seen(&mut source, &found, self.sweep_number);
        let owed = source.dirty;
        self.table.insert(source);
        if owed {
            self.owe_checkpoint(id);
        }
        self.queue(id);
    }

    /// The newest source that had this path before.
    fn older_of(&self, path: &Path) -> Option<SourceId> {
        let rotated = self
            .table
            .iter()
            .filter(|one| one.rotated_from.as_deref() == Some(path))
            .map(|one| one.id)
            .last();
        rotated.max(self.table.at(path)).filter(|id| self.table.get(*id).is_some_and(|one| !one.finished))
    }

    fn mark(&mut self, id: SourceId, found: &Found) {
        let number = self.sweep_number;
        if let Some(source) = self.table.get_mut(id) {
            mark_seen(source, found, number);
        }
    }

    /// Which sources have which fingerprint.
    fn fingerprints(&self) -> HashMap<Fingerprint, Vec<SourceId>> {
        let mut prints: HashMap<_, Vec<_>> = HashMap::new();
        for source in self.table.iter().filter(|source| source.fingerprint.len > 0) {
            prints.entry(source.fingerprint).or_default().push(source.id);
        }
        prints
    }

    fn open_stranger(&mut self, found: Found) -> Option<Opened> {
        self.open_stranger_of(found, None)
    }

    /// Opens a file that was found, and makes sure that it is still that file.
    fn open_stranger_of(&mut self, found: Found, source: Option<SourceId>) -> Option<Opened> {
        let links = found
            .follow
            .and_then(|at| self.follows.get(usize::from(at)))
            .is_some_and(|one| one.follow_symlinks);
        let opened = open(&found.path, links).and_then(|(file, meta)| {
            let start = self.reader.start(&file).map_err(|source| ReadError::Read {
                path: found.path.clone(),
                offset: 0,
                source,
            })?;
            Ok((file, meta, start))
        });
        match opened {
            Ok((file, meta, start)) if (meta.dev(), meta.ino()) == (found.device, found.inode) => {
                Some(Opened { found, file, size: meta.len(), start })
            }
            Ok(_) => {
                self.sweep_wanted = true;
                None
            }
            Err(error) if error.is_gone() => {
                self.sweep_wanted = true;
                None
            }
            Err(error) => {
                match source {
                    Some(id) => self.fail(id, &error),
                    None => self.tell_refused(vec![(found.path, error.to_string())], &[]),
                }
                None
            }
        }
    }

    /// Sources that this sweep did not find.
    fn miss(&mut self, unlisted: &[PathBuf], now: Now) {
        let mut queue = Vec::new();
        for source in self.table.iter_mut() {
            if source.seen == self.sweep_number || source.finished || source.displaced > 0 {
                continue;
            }
            let held = source.file.as_ref().and_then(|file| file.metadata().ok());
            let deleted = held.as_ref().is_some_and(|meta| meta.nlink() == 0);
            if !deleted && unlisted.iter().any(|folder| source.path.starts_with(folder)) {
                continue;
            }
            if let Some(meta) = &held
                && meta.len() != source.size
            {
                queue.push(source.id);
            }
            source.missed = (source.missed + 1).min(2);
            let gone_ms = *source.gone_ms.get_or_insert(now.boot_ms);
            let wait = self
                .follows
                .get(usize::from(source.follow))
                .map_or(0, |one| one.rotate_wait.as_millis() as u64);
            let quiet = now.boot_ms.saturating_sub(source.active_ms.max(gone_ms)) >= wait;
            // A rename during the walk hides a file from one sweep, so one is never enough.
            if source.missed < 2 {
                self.sweep_wanted = true;
            } else if quiet && !source.queued && (held.is_none() || source.is_caught_up()) {
                // Moved away with nothing in its place: its writer may have it open, so it is read on.
                let waits_for_writer = held.is_some() && !deleted && !source.taken && !source.path.exists();
                if !waits_for_writer && !queue.contains(&source.id) {
                    self.endings.push_back((source.id, Ending::Finished));
                }
            }
        }
        for id in queue {
            self.queue(id);
        }
    }

    /// Rotated files that are still there and quiet: an unterminated end becomes a line; one outside the globs ends.
    fn rotated_ends(&mut self, now: Now) {
        for source in self.table.iter() {
            let Some(former) = source.rotated_from.as_deref().filter(|_| source.seen == self.sweep_number)
            else {
                continue;
            };
            let wait = self
                .follows
                .get(usize::from(source.follow))
                .map_or(0, |one| one.rotate_wait.as_millis() as u64);
            let quiet = now.boot_ms.saturating_sub(source.active_ms) >= wait;
            if !quiet
                || !source.is_caught_up()
                || !(source.has_rest() || source.outside)
                || !(source.taken || former.exists())
            {
                continue;
            }
            let ending = if source.outside { Ending::Finished } else { Ending::Unterminated };
            self.endings.push_back((source.id, ending));
        }
        // What ends with a rest must be open.
        for (id, _) in self.endings.clone() {
            let has_rest = self
                .table
                .get(id)
                .is_some_and(|source| source.has_rest() && source.seen == self.sweep_number);
            if has_rest && !self.open_for_end(id) {
                self.endings.retain(|ending| ending.0 != id);
            }
        }
    }

    fn open_for_end(&mut self, id: SourceId) -> bool {
        let Some(source) = self.table.get_mut(id) else {
            return false;
        };
        if source.file.is_none()
            && let Ok((file, meta)) = open(&source.path, false)
            && (meta.dev(), meta.ino()) == (source.device, source.inode)
        {
            source.file = Some(file);
            self.open += 1;
        }
        source.file.is_some()
    }

    /// Closes what was read to its end: the idle, and the least recently written where there are too many.
    fn close_idle(&mut self, now: Now) {
        let mut open = Vec::new();
        for source in self.table.iter_mut().filter(|source| source.file.is_some() && source.gone_ms.is_none())
        {
            let unread = !source.is_caught_up();
            if !unread && now.boot_ms.saturating_sub(source.active_ms) >= IDLE_CLOSE_MS {
                source.file = None;
                self.open -= 1;
            } else {
                // Rotated files are the next to vanish.
                open.push((unread, source.rotated_from.is_some(), source.active_ms, source.id));
            }
        }
        let surplus = self.open.saturating_sub(self.open_max);
        if surplus > 0 {
            open.sort_unstable();
            for (.., id) in open.into_iter().take(surplus) {
                if let Some(source) = self.table.get_mut(id) {
                    source.file = None;
                    self.open -= 1;
                }
            }
        }
    }
}

fn mark_seen(source: &mut Source, found: &Found, number: u32) {
    source.seen = number;
    source.device = found.device;
    source.gone_ms = None;
    source.missed = 0;
}

/// The same inode, on the same device as far as that is known in this run.
fn is_inode(source: &Source, found: &Found) -> bool {
    source.inode == found.inode && (source.device == 0 || source.device == found.device)
}

fn is_at(path: &Path, found: &Found) -> bool {
    fs::metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == (found.device, found.inode))
}
