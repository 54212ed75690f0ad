//! Files that a scan found where no source is known to be: which of them it looks at, which may become sources, and how
//! many are left out.
//!
//! A glob may match a million files, and 10,000 sources are followed at most. Of the files that are not sources yet, those
//! modified last get the free places; a file at the path of a source, or of one that was truncated, comes first. A scan looks at 10,000 at
//! most. It looks at a file without a place only to find out whether it continues a source, and only once until it changes.
//! A file that the last scan could not read is tried again, 10,000 of them at most, and takes no place from the others until
//! it can be read, however often it changes. Memory: 20,000 paths, 8 bytes for each file that is left out, and 8 bytes for
//! each that cannot be read.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::tail::find::{Found, hash};
use crate::tail::known::uncompressed;

/// Paths of one inode that are looked at in addition to the source's own: enough to find a renamed file, few if a file has
/// thousands of hard links.
const OTHER_PATHS_MAX: u8 = 4;
/// Files left out that are named: as examples, not as a list.
const NAMED_MAX: usize = 20;

/// Flags of a mark.
const LOOKED_AT: u64 = 1;
const REFUSED: u64 = 2;
const FLAGS: u64 = LOOKED_AT | REFUSED;

/// How a file that was found relates to the known sources, by path and inode alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// At the path of a source and with its inode, but changed or not looked at since the start.
    AtOwnPath,
    /// With the inode of a source, at another path.
    AtOtherPath,
    /// Another file at the path of a source.
    AtTakenPath,
    /// None of these.
    Unknown,
}

/// Why a file did not become a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    /// There is no place for it, and it was not looked at.
    Look,
    /// There is no place for it. It continues no source.
    Place,
    /// It cannot be opened or read.
    Permission,
    /// The last scan could not read it, and this one tried too many others that it could not read.
    Retry,
}

/// Files that one scan left out, or could not read, for the next one.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    /// Sorted once the scan is over: a hash of the file and of its state, and two flags.
    marks: Vec<u64>,
    /// Sorted once the scan is over: hashes of device and inode of the files that could not be read. Their state is not
    /// part of it: a file that another program writes to changes with each scan, and still cannot be read.
    refused: Vec<u64>,
    /// A file could not be read that the scan before had not tried.
    is_newly_refused: bool,
    /// Marks of files that became or continued a source in this scan.
    followed: HashSet<u64>,
    named: Vec<PathBuf>,
    files: usize,
}

fn mark(found: &Found) -> u64 {
    hash((found.device, found.inode, found.size, found.mtime_ns, found.ctime_ns)) & !FLAGS
}

fn inode_hash(found: &Found) -> u64 {
    hash((found.device, found.inode))
}

impl LeftOut {
    /// How many files match and have no place. Valid after [`LeftOut::close`].
    pub(crate) fn files(&self) -> usize {
        self.files
    }

    /// Some of them.
    pub(crate) fn named(&self) -> &[PathBuf] {
        &self.named
    }

    pub(crate) fn add(&mut self, found: &Found, without: Without) {
        let flags = match without {
            Without::Look => 0,
            Without::Place | Without::Retry => LOOKED_AT,
            Without::Permission => LOOKED_AT | REFUSED,
        };
        if matches!(without, Without::Permission | Without::Retry) {
            self.refused.push(inode_hash(found));
            self.is_newly_refused |= !found.was_refused;
        }
        self.marks.push(mark(found) | flags);
        if without != Without::Permission && self.named.len() < NAMED_MAX && !self.named.contains(&found.path)
        {
            self.named.push(found.path.clone());
        }
    }

    /// It is a source by now, even if it was also found by another glob or hard link.
    pub(crate) fn follow(&mut self, found: &Found) {
        self.followed.insert(mark(found));
        self.named.retain(|path| *path != found.path);
    }

    /// Whether places that this scan gave away are free again: a file continued a source, or could not be read.
    pub(crate) fn has_returned(&self) -> bool {
        !self.followed.is_empty() || self.is_newly_refused
    }

    /// Whether the scan could not read a file, whether or not that has changed since.
    fn has_refused(&self, found: &Found) -> bool {
        self.refused.binary_search(&inode_hash(found)).is_ok()
    }

    /// Whether a file was looked at as it is.
    fn has_seen(&self, mark: u64) -> bool {
        let at = self.marks.partition_point(|one| one & !FLAGS < mark);
        self.marks.get(at).is_some_and(|one| one & !FLAGS == mark && one & LOOKED_AT != 0)
    }

    /// The scan is over: each file counts once, however many globs and links lead to it.
    pub(crate) fn close(&mut self) {
        self.marks.retain(|one| !self.followed.contains(&(one & !FLAGS)));
        self.marks.sort_unstable();
        // Of several marks of one file the last has the most flags.
        self.marks.dedup_by(|later, kept| {
            let is_same = *later & !FLAGS == *kept & !FLAGS;
            if is_same {
                *kept |= *later;
            }
            is_same
        });
        self.marks.shrink_to_fit();
        self.refused.sort_unstable();
        self.refused.dedup();
        self.refused.shrink_to_fit();
        self.followed = HashSet::new();
        self.files = self.marks.iter().filter(|one| *one & REFUSED == 0).count();
        if self.files == 0 {
            self.named.clear();
        }
    }
}

/// The files that a scan looks at.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) found: Vec<Found>,
    /// Empty files: they have no content to be known by.
    pub(crate) empty: usize,
    pub(crate) left_out: LeftOut,
}

/// Collects files during a scan.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    max: usize,
    /// What the last scan left out.
    before: LeftOut,
    /// Paths of sources that were truncated: what is there now continues their log.
    vacated: HashSet<Arc<Path>>,
    /// A source with unread lines lost its file: any file may be the copy that has these lines.
    look_again: bool,
    known: Vec<Found>,
    /// Of each inode of a source: whether its own path was found, and how many others.
    paths: HashMap<(u64, u64), (bool, u8)>,
    /// The best, with the worst of them on top.
    ranked: BinaryHeap<Ranked>,
    /// The best of those that the last scan could not read: apart, so that they take no place from the others.
    refused: BinaryHeap<Ranked>,
    empty: usize,
    left_out: LeftOut,
}

/// A file without a source. The least is the best: those at the path of a followed file come first; then those that were
/// never looked at; then those modified last. Of one that several sections name, that of the first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    is_elsewhere: bool,
    has_been_seen: bool,
    modified: Reverse<i64>,
    found: Found,
}

impl Candidates {
    /// `max`: how many are looked at, and how many sources there may be.
    /// `look_again`: files without a place are looked at even if they were before.
    pub(crate) fn new(
        max: usize,
        before: LeftOut,
        vacated: HashSet<Arc<Path>>,
        look_again: bool,
    ) -> Candidates {
        Candidates { max, before, vacated, look_again, ..Candidates::default() }
    }

    /// A file that is not simply where its source was.
    pub(crate) fn meet(&mut self, mut found: Found, met: Met) {
        match met {
            Met::AtOwnPath | Met::AtOtherPath => self.meet_known(found, met == Met::AtOwnPath),
            // It has the inode number of a source, on another device.
            _ if found.follow.is_none() => {}
            // A file that a compressed copy is about to be written to is remembered; any other becomes a source with its first byte.
            _ if found.size == 0 && uncompressed(&found.path).is_none() => self.empty += 1,
            _ => {
                self.empty += usize::from(found.size == 0);
                let is_elsewhere = met != Met::AtTakenPath && !self.vacated.contains(&*found.path);
                let has_been_seen = !self.look_again && self.before.has_seen(mark(&found));
                found.was_refused = self.before.has_refused(&found);
                let modified = Reverse(found.mtime_ns);
                self.rank(Ranked { is_elsewhere, has_been_seen, modified, found });
            }
        }
    }

    fn meet_known(&mut self, found: Found, is_own: bool) {
        let (own, others) = self.paths.entry((found.device, found.inode)).or_default();
        let is_new = match is_own {
            true => !std::mem::replace(own, true),
            false => *others < OTHER_PATHS_MAX,
        };
        *others += u8::from(is_new && !is_own);
        if is_new {
            self.known.push(found);
        }
    }

    fn rank(&mut self, one: Ranked) {
        let ranked = if one.found.was_refused { &mut self.refused } else { &mut self.ranked };
        if ranked.len() < self.max {
            ranked.push(one);
            return;
        }
        let mut worse = one;
        if let Some(mut worst) = ranked.peek_mut()
            && worse < *worst
        {
            std::mem::swap(&mut *worst, &mut worse);
        }
        self.leave_out(&worse);
    }

    fn leave_out(&mut self, one: &Ranked) {
        let without = match one {
            _ if one.found.was_refused => Without::Retry,
            _ if one.has_been_seen => Without::Place,
            _ => Without::Look,
        };
        if one.found.size > 0 {
            self.left_out.add(&one.found, without);
        }
    }

    /// All files were found. `places`: how many may become sources.
    pub(crate) fn choose(mut self, places: usize) -> Chosen {
        let mut given: HashSet<(u64, u64)> = HashSet::new();
        let mut found = std::mem::take(&mut self.known);
        for mut one in std::mem::take(&mut self.ranked).into_sorted_vec() {
            let file = (one.found.device, one.found.inode);
            let has_place = given.contains(&file) || given.len() < places;
            if has_place && one.found.size > 0 {
                given.insert(file);
            }
            // Without a place, and looked at before: there is nothing to find out.
            if has_place || !one.has_been_seen {
                one.found.has_place = has_place;
                found.push(one.found);
            } else {
                self.leave_out(&one);
            }
        }
        // Each is tried again: it may be readable by now, and then takes a place that is left.
        let has_place = given.len() < places;
        let refused = std::mem::take(&mut self.refused).into_sorted_vec();
        found.extend(refused.into_iter().map(|one| Found { has_place, ..one.found }));
        Chosen { found, empty: self.empty, left_out: self.left_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(nth: u64) -> Found {
        Found {
            path: format!("/{nth}.log").into(),
            device: 1,
            inode: nth,
            size: 1,
            mtime_ns: nth as i64,
            ctime_ns: 0,
            follow: Some(0),
            has_place: true,
            was_refused: false,
        }
    }

    /// Two scans over the same 100 files with 10 places; `without` says what came of those that the first looked at.
    fn scan_twice(without: Without) -> (Chosen, Chosen) {
        let meet = |before| {
            let mut candidates = Candidates::new(30, before, HashSet::new(), false);
            (0..100).for_each(|nth| candidates.meet(found(nth), Met::Unknown));
            candidates.choose(10)
        };
        let first = meet(LeftOut::default());
        let mut before = LeftOut { marks: first.left_out.marks.clone(), ..LeftOut::default() };
        first.found.iter().for_each(|found| before.add(found, without));
        before.close();
        (first, meet(before))
    }

    fn inodes(chosen: &Chosen, has_place: bool) -> Vec<u64> {
        chosen.found.iter().filter(|found| found.has_place == has_place).map(|found| found.inode).collect()
    }

    #[test]
    fn what_cannot_be_read_or_was_looked_at_comes_after_what_was_not() {
        for without in [Without::Permission, Without::Place] {
            let (first, second) = scan_twice(without);
            assert_eq!(inodes(&first, true), Vec::from_iter((90..100).rev()));
            assert_eq!(inodes(&first, false), Vec::from_iter((70..90).rev()));
            assert_eq!(first.left_out.marks.len(), 70);
            assert_eq!(inodes(&second, true), Vec::from_iter((60..70).rev()), "{without:?}");
            // Permission may have been given since: that is tried, whether or not there is a place.
            let retried = if without == Without::Permission { 70..100 } else { 0..0 };
            let looked_at = Vec::from_iter((40..60).rev().chain(retried.rev()));
            assert_eq!(inodes(&second, false), looked_at, "{without:?}");
        }
    }

    /// Scans over `files` with `places` free ones, of which those from `unreadable` on cannot be read and are written to
    /// all the time. Returns what the last of them looked at, and what it left out.
    fn scans(scans: i64, files: u64, unreadable: u64, places: usize) -> (Vec<Found>, LeftOut) {
        let mut before = LeftOut::default();
        let mut looked_at = Vec::new();
        for scan in 0..scans {
            let mut candidates = Candidates::new(30, before, HashSet::new(), false);
            for nth in 0..files {
                let mut found = found(nth);
                found.mtime_ns += if nth >= unreadable { scan * 1_000 } else { 0 };
                candidates.meet(found, Met::Unknown);
            }
            let chosen = candidates.choose(places);
            before = chosen.left_out;
            for found in &chosen.found {
                match found.inode >= unreadable {
                    true => before.add(found, Without::Permission),
                    false if !found.has_place => before.add(found, Without::Place),
                    false => before.follow(found),
                }
            }
            looked_at = chosen.found;
            assert!(scan > 0 || before.has_returned(), "the places go to others at once");
            before.close();
        }
        (looked_at, before)
    }

    /// A new state made it a new file with each scan: newest, first, and with a place that it could not use.
    #[test]
    fn a_file_that_cannot_be_read_and_changes_takes_no_place() {
        let with_place = |found: &[Found]| {
            let readable = found.iter().filter(|found| found.has_place && found.inode < 50);
            readable.map(|found| found.inode).collect::<Vec<_>>()
        };
        assert_eq!(with_place(&scans(1, 51, 50, 1).0), [0; 0]);
        for number in 2..5 {
            let (found, left_out) = scans(number, 51, 50, 1);
            assert_eq!(with_place(&found).len(), 1, "scan {number}");
            assert!(found.iter().any(|found| found.inode == 50), "it may be readable by now");
            assert_eq!(left_out.files(), 49, "scan {number}");
        }
        // More of them than a scan tries: none of them is in the way, and each is counted as one or the other.
        for number in 6..9 {
            let (found, left_out) = scans(number, 150, 50, 1);
            let retried = found.iter().filter(|found| found.inode >= 50).count();
            assert_eq!((with_place(&found).len(), retried), (1, 30), "scan {number}");
            assert_eq!(left_out.files(), 149 - 30, "scan {number}");
        }
        // One that can be read again has a place if one is left, and waits like the others if not.
        for (places, has_place) in [(50, false), (51, true)] {
            let (_, before) = scans(1, 51, 50, 50);
            let mut candidates = Candidates::new(60, before, HashSet::new(), false);
            (0..51).for_each(|nth| candidates.meet(found(nth), Met::Unknown));
            let chosen = candidates.choose(places);
            assert_eq!(inodes(&chosen, has_place).last(), Some(&50), "{places}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_counted_as_left_out() {
        let mut left_out = LeftOut::default();
        (0..10).for_each(|nth| left_out.add(&found(nth), Without::Look));
        (5..10).for_each(|nth| left_out.add(&found(nth), Without::Permission));
        left_out.follow(&found(0));
        left_out.close();
        assert_eq!((left_out.files(), left_out.has_seen(mark(&found(7)))), (4, true));
        assert!(!left_out.has_seen(mark(&found(1))) && !left_out.has_seen(mark(&found(0))));
    }

    #[test]
    fn what_was_looked_at_is_looked_at_again_after_lines_were_lost() {
        for look_again in [false, true] {
            let mut before = LeftOut::default();
            before.add(&found(7), Without::Place);
            before.close();
            let mut candidates = Candidates::new(30, before, HashSet::new(), look_again);
            candidates.meet(found(7), Met::Unknown);
            assert_eq!(candidates.choose(0).found.len(), usize::from(look_again));
        }
    }

    #[test]
    fn a_file_at_the_path_of_a_followed_one_comes_first() {
        let vacated = Arc::from(Path::new("/3.log"));
        let mut candidates = Candidates::new(30, LeftOut::default(), HashSet::from([vacated]), false);
        for nth in 0..100 {
            candidates.meet(found(nth), if nth == 4 { Met::AtTakenPath } else { Met::Unknown });
        }
        assert_eq!(inodes(&candidates.choose(3), true), [4, 3, 99]);
    }
}
