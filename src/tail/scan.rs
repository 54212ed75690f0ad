//! The scan: walks the folders, identifies the files that are not simply where they were, and notes which are missing.
//!
//! It finds what events miss, so nothing depends on events. A known file that has not changed costs one stat; files that
//! are new, moved or changed in place are identified. It never reads lines. Where events report every change and nothing is
//! pending, scans are rare if there are many files.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use spillq_storage::SourceId;

use crate::tail::bytes::Reader;
use crate::tail::clock::Now;
use crate::tail::find::{Candidates, Chosen, Met, Walked};
use crate::tail::known::{Presence, Source, State};
use crate::tail::pipes::streams::InputStreams;
use crate::tail::rules::{Book, Identify, Unfollowed, Unidentified, checked, ending, inactive};

/// The pause after a scan, in multiples of what it took: 5 % of the time at most, 20 % if events ask for a scan.
const REGULAR_PAUSE: u64 = 20;
const WANTED_PAUSE: u64 = 4;
/// The same where events report every change: 0.25 % of the time, and how long it may be for that. Then a scan only finds what
/// a program has written through a memory map.
const WATCHED_PAUSE: u64 = 400;
const WATCHED_PAUSE_MAX_MS: u64 = 30_000;
/// Between two scans, however cheap: a burst of events is one scan.
const PAUSE_MIN_MS: u64 = 5;

/// When scans are due, and what the last one found.
#[derive(Debug, Default)]
pub(crate) struct Scans {
    interval_ms: u64,
    /// Files that are there now begin at the end, if their section says so. Only at the first scan of a new store.
    from_end: bool,
    /// What the last scan took, and when it ended.
    pub(crate) cost_ms: u64,
    pub(crate) end_ms: u64,
    /// Folders with their inodes, for the watch.
    pub(crate) folders: HashMap<PathBuf, u64>,
    /// Files that were found by a glob: one that two globs name counts twice.
    pub(crate) matched_files: usize,
    /// Files that were looked into to find out which source they are.
    pub(crate) looked_at: usize,
    /// Every change in the folders is an event.
    pub(crate) is_watched: bool,
    /// The last scan left nothing that another one has to look at.
    is_quiet: bool,
    pub(crate) unidentified: Unidentified,
    pub(crate) unfollowed: Unfollowed,
}

impl Scans {
    pub(crate) fn new(interval_ms: u64, from_end: bool) -> Scans {
        Scans { interval_ms, from_end, ..Scans::default() }
    }

    /// When the next scan is due, by the clock of `now`.
    pub(crate) fn due_ms(&self, book: &Book, now: Now) -> u64 {
        match book.scan_wanted {
            _ if book.scan() == 0 => now.boot_ms,
            true => self.end_ms + (self.cost_ms * WANTED_PAUSE).max(PAUSE_MIN_MS),
            false => {
                let regular = (self.cost_ms * REGULAR_PAUSE).max(self.interval_ms);
                let watched = (self.cost_ms * WATCHED_PAUSE).min(WATCHED_PAUSE_MAX_MS);
                let is_rare = self.is_watched && self.is_quiet && !book.has_failed;
                self.end_ms + if is_rare { regular.max(watched) } else { regular }
            }
        }
    }

    /// Looks at everything once.
    pub(crate) fn run(&mut self, book: &mut Book, reader: &mut Reader, streams: &mut InputStreams, now: Now) {
        let began = Instant::now();
        let look_again = book.begin_scan();
        self.unidentified.begin_scan();
        self.unfollowed.begin_scan();
        let before = std::mem::take(&mut self.unfollowed.left_out);
        let vacated = std::mem::take(&mut self.unfollowed.vacated);
        let mut candidates = Candidates::new(book.sources_max, before, vacated, look_again);
        let walked = self.walk(book, &mut candidates);
        self.is_quiet = !walked.has_links && walked.unlisted.is_empty() && walked.fifos.is_empty();
        self.unfollowed.refused.extend(walked.refused);
        for folder in walked.unlisted.iter().filter(|_| book.scan() == 1) {
            tracing::info!(path = %folder.display(), "not there yet, or not readable: each scan looks for it");
        }
        self.folders = walked.folders;
        self.matched_files += walked.fifos.len();
        let refused = &mut self.unfollowed.refused;
        streams.follow_fifos(walked.fifos, &walked.unlisted, book.follows(), refused);
        let places = book.sources_max.saturating_sub(book.sources().len());
        let Chosen { found, empty, left_out } = candidates.choose(places);
        (self.unfollowed.left_out, self.looked_at) = (left_out, found.len());
        let (unidentified, unfollowed) = (&mut self.unidentified, &mut self.unfollowed);
        let from_end = self.from_end;
        Identify { book, reader, unidentified, unfollowed, from_end, now }.run(found, empty);
        self.unfollowed.report_left_out(book, now);
        if self.unfollowed.left_out.files() > 0 {
            inactive::end_gone(book);
        }
        self.unfollowed.report_refused(book, now);
        ending::note_missing(book, &walked.unlisted, now);
        checked::resume_in_duplicates(book, now);
        ending::end_rotated(book, now);
        ending::keep_those_with_rest(book, reader);
        ending::close_idle(book, reader, now);
        self.is_quiet &= self.unidentified.waiting == 0
            && self.unfollowed.left_out.files() == 0
            && self.unfollowed.refused.files() == 0
            && book.sources().iter().all(Source::is_at_rest);
        // At the end of the first scan, all that it found existed at the start.
        self.from_end = false;
        self.cost_ms = began.elapsed().as_millis() as u64;
        self.end_ms = now.boot_ms + self.cost_ms;
        tracing::trace!(ms = self.cost_ms, looked_at = self.looked_at, "scanned the followed folders");
    }

    /// Walks the folders. Sources that are where they were are noted; all other files become candidates.
    fn walk(&mut self, book: &mut Book, candidates: &mut Candidates) -> Walked {
        let inodes = book.sources().inodes();
        let mut matched = 0;
        let mut changed: Vec<SourceId> = Vec::new();
        let scan = book.scan();
        let (follows, table) = book.for_walk();
        let walked = follows.walk(&|inode| inodes.contains(&inode), &mut |found| {
            matched += usize::from(found.follow.is_some());
            let at_path = table.at(&found.path);
            let known = at_path.and_then(|id| table.get_mut(id));
            let Some(source) = known.filter(|source| source.is_file(found.device, found.inode)) else {
                let mut same = table.with_inode(found.inode).filter_map(|id| table.get(id));
                let met = match at_path {
                    _ if same.any(|source| source.is_file(found.device, found.inode)) => Met::AtOtherPath,
                    Some(_) => Met::AtTakenPath,
                    None => Met::Unknown,
                };
                candidates.meet(found, met);
                return;
            };
            if source.presence == Presence::Inactive && found.follow.is_none() {
                return;
            }
            let is_unsure = source.presence.is_replaced() || !source.looked;
            if is_unsure || source.is_another(found.size, found.mtime_ns) {
                candidates.meet(found, Met::AtOwnPath);
                return;
            }
            source.mark_found(found.device, scan);
            let has_changed = found.size != source.file_bytes() || found.mtime_ns != source.mtime_ns;
            if has_changed || source.error.is_some() {
                changed.push(source.id);
            }
            let state = source.compressed.as_mut().map(|one| &mut one.state);
            if has_changed && let Some(State::Bad { changed, .. }) = state {
                *changed = true;
            }
        });
        for id in changed {
            book.queue(id);
        }
        self.matched_files = matched;
        walked
    }
}
