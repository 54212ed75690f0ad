//! The scan: walks the folders, and finds out who each file is that is not simply where it was.
//!
//! It finds what events miss, so nothing is inactive on them. A known file that has not changed costs one stat; files that
//! are new, moved or changed in place are handed to `identify`. It never reads lines.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use spillq_storage::SourceId;

use crate::plain::counted;
use crate::tail::bytes::open::open;
use crate::tail::bytes::stamp::mtime_ns;
use crate::tail::clock::Now;
use crate::tail::find::candidates::{Candidates, Chosen, Met};
use crate::tail::find::walk::Found;
use crate::tail::known::source::{Ending, Source};
use crate::tail::worker::Worker;
use crate::unreadable::WhyUnreadable;

/// A file read to its end is held open for so long after its last line, as long as there are descriptors.
pub(crate) const IDLE_CLOSE_MS: u64 = 5 * 60 * 1_000;
/// One descriptor in so many is made free when all are in use.
const OPEN_RESERVE: usize = 8;
/// The pause after a scan, in multiples of what it took: 5 % of the time at most, 20 % where events ask for one.
const REGULAR_PAUSE: u64 = 20;
const WANTED_PAUSE: u64 = 4;
/// Between two scans, however cheap: a burst of events is one scan.
const PAUSE_MIN_MS: u64 = 5;
/// New files of one scan that cannot be followed and have a message each: as many as a person reads.
const REPORTED_EACH_MAX: usize = 5;

impl Worker {
    /// When the next scan is due, by the clock of `now`.
    pub(crate) fn scan_due(&self, now: Now) -> u64 {
        if self.scan_number == 0 {
            return now.boot_ms;
        }
        match self.scan_wanted {
            true => self.scan_end_ms + (self.scan_cost_ms * WANTED_PAUSE).max(PAUSE_MIN_MS),
            false => self.scan_end_ms + (self.scan_cost_ms * REGULAR_PAUSE).max(self.scan_interval_ms),
        }
    }

    /// Looks at everything once.
    pub(crate) fn scan(&mut self, now: Now) {
        let began = Instant::now();
        self.scan_number += 1;
        self.scan_wanted = false;
        self.waiting_files = 0;
        self.matched_files = 0;
        self.counters.scans += 1;
        // Those that are due are found again.
        self.endings.clear();
        let mut candidates =
            Candidates::new(self.sources_max, std::mem::take(&mut self.left_out), self.former_paths());
        let mut changed = Vec::new();
        let inodes = self.table.inodes();
        let (table, number) = (&mut self.table, self.scan_number);
        let matched = &mut self.matched_files;
        let walked = self.discover.walk(&|inode| inodes.contains(&inode), &mut |found| {
            *matched += usize::from(found.follow.is_some());
            let at_path = table.at(&found.path);
            let known = at_path.and_then(|id| table.get_mut(id));
            let Some(source) = known.filter(|source| is_inode(source, &found)) else {
                let mut same = table.with_inode(found.inode).filter_map(|id| table.get(id));
                let met = match at_path {
                    _ if same.any(|source| is_inode(source, &found)) => Met::AtOtherPath,
                    Some(_) => Met::AtTakenPath,
                    None => Met::Unknown,
                };
                candidates.meet(found, met);
                return;
            };
            if source.inactive && found.follow.is_none() {
                return;
            }
            if source.replaced > 0 || !source.looked || source.is_another(found.size, found.mtime_ns) {
                candidates.meet(found, Met::AtOwnPath);
                return;
            }
            mark_seen(source, &found, number);
            let has_changed = found.size != source.file_bytes() || found.mtime_ns != source.mtime_ns;
            if has_changed || source.error.is_some() {
                changed.push(source.id);
            }
            if has_changed && let Some(compressed) = source.compressed.as_mut() {
                compressed.note_change();
            }
        });
        for id in changed {
            self.queue(id);
        }
        self.refused_before = std::mem::take(&mut self.refused);
        self.unidentified_before = std::mem::take(&mut self.unidentified);
        self.refused.extend(walked.refused);
        self.tell_unlisted(&walked.unlisted);
        self.folders = walked.folders;
        self.matched_files += walked.fifos.len();
        self.meet_fifos(walked.fifos, &walked.unlisted);
        let places = self.sources_max.saturating_sub(self.table.len());
        let Chosen { found, empty, left_out } = candidates.choose(places);
        (self.left_out, self.looked_at) = (left_out, found.len());
        self.identify(found, empty, now);
        self.count_left_out(now);
        self.report_refused(now);
        self.miss(&walked.unlisted, now);
        self.settle_duplicates(now);
        self.rotated_ends(now);
        self.keep_awaited();
        self.close_idle(now);
        // At the end of the first scan, whatever it found existed at the start.
        self.from_end = false;
        self.scan_cost_ms = began.elapsed().as_millis() as u64;
        self.scan_end_ms = now.boot_ms + self.scan_cost_ms;
        tracing::trace!(ms = self.scan_cost_ms, looked_at = self.looked_at, "scanned the followed folders");
    }

    /// Paths that followed files had before they were rotated or truncated, asked for where places are short.
    fn former_paths(&mut self) -> HashSet<Arc<Path>> {
        let mut former_paths = std::mem::take(&mut self.vacated);
        if self.left_out.files() > 0 {
            former_paths.extend(self.table.iter().filter_map(|source| source.rotated_from.clone()));
        }
        former_paths
    }

    /// The scan is over: how many files have no place. One message for all of them.
    fn count_left_out(&mut self, now: Now) {
        let has_returned = self.left_out.has_returned();
        self.left_out.close();
        let (files, limit) = (self.left_out.files(), self.sources_max);
        if files > 0 {
            self.end_inactive();
            // Some turned out to continue a source, or cannot be read: their places are given to others at once.
            self.scan_wanted |= has_returned && self.table.len() < limit;
        }
        if !self.left_out_notice.is_due(files, now.boot_ms) {
            return;
        }
        if files == 0 {
            tracing::info!("all files that match are followed again");
            return;
        }
        self.counters.errors += 1;
        let example =
            self.left_out.named().first().map(|path| path.display().to_string()).unwrap_or_default();
        let left = counted(files as u64, "file");
        let verb = if files == 1 { "matches and is" } else { "match and are" };
        let (limit, kept) = (counted(limit as u64, "file"), self.kept_places());
        tracing::warn!(
            files,
            %example,
            "{left} {verb} not followed: at most {limit} are followed at once, those modified last first{kept}. Another \
             one is followed when a followed file has been deleted and `rotate_wait` is over. Narrow `include`, add to \
             `exclude`, or delete finished files"
        );
    }

    /// That some places are taken by files which no section matches, if so: narrower globs alone do not free them.
    fn kept_places(&self) -> String {
        let kept = self.table.inactive();
        if kept == 0 {
            return String::new();
        }
        format!(
            "; {} that no [[follow]] matches now {} counted, to be resumed later",
            counted(kept as u64, "file"),
            if kept == 1 { "is" } else { "are" }
        )
    }

    /// What cannot be followed, after this scan. Reported once, and again only after a scan that did not meet it.
    pub(crate) fn refuse(&mut self, path: &Path, why: WhyUnreadable, found: String) {
        self.refused.add(path, why, || found);
    }

    /// A few that are new with a message each, more of them with one for all.
    pub(crate) fn report_refused(&mut self, now: Now) {
        self.refused.close();
        let new: Vec<_> = self.refused.new_since(&self.refused_before).collect();
        let is_all_named = self.refused.unnamed() == 0;
        // Of more than can be named nobody knows which are new: all of them are counted.
        let all = if is_all_named { 0 } else { self.refused.files() };
        let is_due = self.refused_notice.is_due(all, now.boot_ms) && all > 0;
        self.counters.errors += new.len() as u64 + u64::from(is_due);
        if is_all_named && new.len() <= REPORTED_EACH_MAX {
            for (path, why) in new {
                tracing::warn!(path = %path.display(), "not followed: {why}");
            }
            return;
        }
        let files = match is_all_named {
            true => new.len(),
            false if is_due || !new.is_empty() => all,
            false => return,
        };
        if let Some((_, example)) = new.first().copied().or_else(|| self.refused.named().next()) {
            tracing::warn!(
                files,
                "{} match and cannot be followed, for example: {example}; `spillq doctor` names more",
                counted(files as u64, "file")
            );
        }
    }

    fn tell_unlisted(&self, unlisted: &[PathBuf]) {
        if self.scan_number == 1 {
            for folder in unlisted {
                tracing::info!(path = %folder.display(), "not there yet, or not readable: looked for by each scan");
            }
        }
    }

    /// Sources that this scan did not find.
    fn miss(&mut self, unlisted: &[PathBuf], now: Now) {
        let mut queue = Vec::new();
        for source in self.table.iter_mut() {
            if source.inactive || source.seen == self.scan_number || source.replaced > 0 {
                continue;
            }
            let held = source.file.as_ref().and_then(|file| file.metadata().ok());
            let deleted = held.as_ref().is_some_and(|meta| meta.nlink() == 0);
            if !deleted && unlisted.iter().any(|folder| source.path.starts_with(folder)) {
                continue;
            }
            // One that is filled in place changes its time alone.
            let has_changed = |meta: &Metadata| {
                meta.len() != source.file_bytes()
                    || source.compressed.is_none() && mtime_ns(meta) != source.mtime_ns
            };
            if held.as_ref().is_some_and(has_changed) {
                queue.push(source.id);
            }
            if source.missed == 0 && source.has_rest() {
                self.left_out.look_again();
            }
            source.missed = (source.missed + 1).min(2);
            let gone_ms = *source.gone_ms.get_or_insert(now.boot_ms);
            let wait = self
                .follows
                .get(usize::from(source.follow))
                .map_or(0, |one| one.rotate_wait.as_millis() as u64);
            let quiet = now.boot_ms.saturating_sub(source.active_ms.max(gone_ms)) >= wait;
            // A rename during the walk hides a file from one scan, so one is never enough.
            if source.missed < 2 {
                self.scan_wanted = true;
            } else if quiet && !source.queued && (held.is_none() || source.is_caught_up()) {
                // One that was moved away may still be written to, as one that was deleted may. Neither is waited for
                // longer than this, or the descriptors would run out.
                if !queue.contains(&source.id) {
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
            let Some(former) = source.rotated_from.as_deref().filter(|_| source.seen == self.scan_number)
            else {
                continue;
            };
            let quiet = now.boot_ms.saturating_sub(source.active_ms) >= self.rotate_wait_ms(source);
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
            let has_rest =
                self.table.get(id).is_some_and(|source| source.has_rest() && source.seen == self.scan_number);
            if has_rest && !self.open_for_end(id) {
                self.endings.retain(|ending| ending.0 != id);
            }
        }
    }

    /// A source that a compressed file may hold the rest of does not end.
    fn keep_awaited(&mut self) {
        for (id, ending) in self.endings.clone() {
            if ending != Ending::Unterminated && self.is_awaited(id) {
                self.endings.retain(|one| one.0 != id);
            }
        }
    }

    pub(crate) fn rotate_wait_ms(&self, source: &Source) -> u64 {
        let follow = self.follows.get(usize::from(source.follow));
        follow.map_or(0, |follow| follow.rotate_wait.as_millis() as u64)
    }

    fn open_for_end(&mut self, id: SourceId) -> bool {
        let Some(source) = self.table.get_mut(id) else {
            return false;
        };
        if source.file.is_none()
            && let Ok((file, meta)) = open(&source.path, self.discover.way(Some(source.follow), &source.path))
            && (meta.dev(), meta.ino()) == (source.device, source.inode)
        {
            source.file = Some(file);
            self.open += 1;
        }
        source.file.is_some()
    }

    /// Closes what was read to its end: the idle, and those that were quiet for longest where there are too many. One
    /// that is gone cannot be opened again, so it ends with that; with unread bytes it stays open.
    fn close_idle(&mut self, now: Now) {
        let mut open = Vec::new();
        for source in self.table.iter_mut().filter(|source| source.file.is_some()) {
            let (is_gone, unread) = (source.gone_ms.is_some(), !source.is_caught_up());
            let quiet_since_ms = source.active_ms.max(source.gone_ms.unwrap_or(0));
            if !is_gone && !unread && now.boot_ms.saturating_sub(source.active_ms) >= IDLE_CLOSE_MS {
                source.file = None;
                self.open -= 1;
            } else if !is_gone || !unread && source.missed >= 2 {
                // Of those with unread bytes rotated files are the next to vanish.
                open.push((unread, unread && source.rotated_from.is_some(), quiet_since_ms, source.id));
            }
        }
        if open.is_empty() || self.open < self.open_max {
            return;
        }
        // Some stay free for what is opened before the next scan: closing those would hit the ones written last.
        let surplus = self.open - (self.open_max - self.open_max / OPEN_RESERVE);
        open.sort_unstable();
        let mut released = 0;
        for (.., id) in open.into_iter().take(surplus) {
            let is_gone = self.table.get(id).is_some_and(|source| source.gone_ms.is_some());
            if !is_gone {
                self.close_early(id);
            } else if !self.endings.iter().any(|ending| ending.0 == id) && !self.is_awaited(id) {
                self.endings.push_back((id, Ending::Finished));
                released += 1;
            }
        }
        if released > 0 {
            self.counters.released_early += released;
            tracing::warn!(
                files = released,
                open = self.open,
                limit = self.open_max,
                "descriptors run short: closed {} that had been deleted or moved away before `rotate_wait` was over; \
                 what a writer adds now is lost. Raise RLIMIT_NOFILE",
                counted(released, "file")
            );
        }
    }
}

pub(crate) fn mark_seen(source: &mut Source, found: &Found, number: u32) {
    source.seen = number;
    source.device = found.device;
    source.gone_ms = None;
    source.missed = 0;
}

/// The same inode, on the same device as far as that is known in this run.
pub(crate) fn is_inode(source: &Source, found: &Found) -> bool {
    source.inode == found.inode && (source.device == 0 || source.device == found.device)
}
