//! The log: how it is opened, committed to, maintained and read.
//!
//! A commit is written to the newest segment file first (a full disk shows there, and is undone), then to the journal,
//! which makes it durable, then to MARK. A large commit syncs the segment before that, and its record references the
//! blocks there ([`stage`]); a small one has its blocks in the journal as well. After any other error the log is poisoned:
//! what is durable is known only after it is opened again.

mod dead_letters;
mod next_journal;
mod open;
mod removal;
mod rotate;
mod stage;
mod staged;

use std::sync::Arc;

use self::next_journal::NextJournal;
use self::staged::{Appended, Segments};
use crate::background::Background;
use crate::block::Block;
use crate::commit::{Changes, Checkpoint, Commit};
use crate::compact;
use crate::disk::Disk;
use crate::error::{Error, Full, Result};
use crate::ids::Seq;
use crate::journal::Journal;
use crate::lock::Lock;
use crate::loss::RetainedMark;
use crate::manifest::State;
use crate::mark::{Mark, MarkFile};
use crate::quarantine::Quarantined;
use crate::reader::Reader;
use crate::record::RecordRef;
use crate::retained::Retained;
use crate::segment::Index;
use crate::space::{DiskOptions, Keep, Space, used_bytes};

/// Segments removed by one call of [`Log::maintain`], which should be short.
const REMOVALS_MAX: usize = 4;

/// How much a record with references counts towards the size of a journal: sled holds small values many times over, some 2
/// KiB for each, and a rotation after gigabytes of lines costs nothing.
const RECORD_WEIGHT: u64 = 8;

/// Sizes and limits of a log.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The size of a segment file; 16 MiB by default.
    pub segment_bytes: u64,
    /// Stored bytes after which the journal is rotated; 5 MiB by default. sled holds up to four times as much in memory, and
    /// opening copies and scans the journal.
    pub journal_bytes: u64,
    /// Commits after which the journal is rotated, however little they store; 16,384 by default.
    pub journal_commits: u64,
    /// A commit that stores more than this references its blocks; 64 KiB by default. Up to there two syncs take longer than
    /// writing the blocks twice.
    pub inline_bytes: u64,
    /// How much disk space it may use.
    pub disk: DiskOptions,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 16 * 1024 * 1024,
            journal_bytes: 5 * 1024 * 1024,
            journal_commits: 16_384,
            inline_bytes: 64 * 1024,
            disk: DiskOptions::default(),
        }
    }
}

/// The result of a commit, which is durable.
#[derive(Debug)]
pub struct Committed {
    /// The seq of its first line; equal to `next` if it has none.
    pub first: Seq,
    /// The seq after its last line.
    pub next: Seq,
    /// Its blocks, as a reader would return them.
    pub blocks: Vec<Arc<Block>>,
}

/// Counts since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commits made durable.
    pub commits: u64,
    /// Those that reference their blocks.
    pub large_commits: u64,
    /// Times that the journal was rotated.
    pub rotations: u64,
    /// Segment files removed.
    pub segments_removed: u64,
    /// Lines relocated.
    pub lines_relocated: u64,
}

/// An open log. It has no lock inside: one thread owns it. Dropping it loses no commit.
pub struct Log {
    disk: Arc<dyn Disk>,
    options: Options,
    state: State,
    journal: Journal,
    mark: MarkFile,
    segments: Segments,
    index: Arc<Index>,
    retained: Retained,
    space: Space,
    next_journal: NextJournal,
    /// The live lines of the oldest segment, and since which commit they are the same.
    stuck: Option<(compact::Removal, u64)>,
    /// The time of the first line of this segment: the one before it has no later line.
    begun: Option<(Seq, u64)>,
    counters: Counters,
    findings: Vec<String>,
    /// Counted at opening: only a repair of a closed log changes it.
    quarantined: Quarantined,
    poisoned: Option<String>,
    removal_held: bool,
    background: Background,
    _lock: Option<Lock>,
}

impl Log {
    /// All that the log knows besides the lines.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What opening found wrong although the log could be opened: for people.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Counts since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Stored bytes of the journal; records that reference blocks count several times. sled holds up to four times as much in
    /// memory.
    pub fn journal_bytes(&self) -> u64 {
        self.journal.stored_bytes
    }

    /// The most that they can be, except for one larger commit: a commit that would exceed it goes to the next journal.
    pub fn journal_bytes_max(&self) -> u64 {
        self.options.journal_bytes + self.options.journal_bytes / 8
    }

    /// Bytes of dead letters and relocated lines.
    pub fn retained_bytes(&self) -> u64 {
        self.retained.bytes()
    }

    /// The damaged files that repairs have moved to `quarantine/`.
    #[must_use]
    pub fn quarantined(&self) -> Quarantined {
        self.quarantined
    }

    pub(crate) fn retained_mark(&self) -> RetainedMark {
        self.retained.mark()
    }

    /// Stops the removal of files, or resumes it: for the time in which a snapshot is copied. Disk use only grows meanwhile.
    pub fn hold_removal(&mut self, hold: bool) {
        self.removal_held = hold;
    }

    /// Changes the limits. The reserve stays as it was when the log was opened.
    pub fn set_limits(&mut self, to: DiskOptions) {
        self.space.set_limits(to.limit_bytes, to.min_free_bytes);
        self.options.disk = DiskOptions { reserve_bytes: self.options.disk.reserve_bytes, ..to };
    }

    /// Whether settled lines are removed at an age: then [`Log::maintain`] has to be called now and then without commits.
    #[must_use]
    pub fn keeps_by_age(&self) -> bool {
        matches!(self.options.disk.keep, Keep::Age(_))
    }

    /// A reader of all durable lines. It can be used in another thread while the log is in use.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.disk), Arc::clone(&self.index), self.state.store)
    }

    /// About the bytes that the store takes on disk: segments, retained lines, two journals and the reserve.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        used_bytes(&self.state, &self.retained, self.space.held_bytes())
    }

    /// Why lines cannot be appended now; `None` if they can. To make space, it first removes settled segments that stay
    /// only because of [`Keep`].
    ///
    /// # Errors
    /// As [`Log::commit`].
    pub fn refusal(&mut self) -> Result<Option<Full>> {
        self.refuse_poisoned()?;
        let refusal = self.refusal_of(0);
        self.or_poison(refusal)
    }

    fn refusal_of(&mut self, bytes: u64) -> Result<Option<Full>> {
        loop {
            let full = self.space.refusal(self.disk.as_ref(), self.disk_bytes(), bytes)?;
            if full.is_none() || !self.remove_settled()? {
                return Ok(full);
            }
        }
    }

    /// Makes an atomic change durable. When it returns, the change survives a kill and a power cut.
    ///
    /// # Errors
    /// After [`Error::Full`] the log is as it was, and nothing is staged. Any other error poisons the log: all later calls
    /// return [`Error::Poisoned`].
    ///
    /// # Panics
    /// If a block holds lines of a source that has no checkpoint in the commit: both must become durable together. If
    /// blocks are staged ([`Log::stage`]) and others are committed.
    pub fn commit(&mut self, commit: &Commit) -> Result<Committed> {
        self.refuse_poisoned()?;
        let committed = self.commit_unless_full(commit);
        self.or_poison(committed)
    }

    /// After any error but a full disk, nothing is done any more.
    fn or_poison<T>(&mut self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            if !matches!(error, Error::Full(_)) {
                self.poisoned = Some(error.to_string());
            }
        })
    }

    fn refuse_poisoned(&self) -> Result<()> {
        self.poisoned.as_ref().map_or(Ok(()), |why| Err(Error::Poisoned(why.clone())))
    }

    fn commit_unless_full(&mut self, commit: &Commit) -> Result<Committed> {
        let first = self.state.next_seq;
        let appended = self.append(&commit.blocks)?;
        let Appended { placed, blocks, writes, mut last_seqs } = appended;
        let checkpoints = commit.checkpoints.iter().map(|(source, bytes)| Checkpoint {
            source: *source,
            last_seq: last_seqs.remove(source),
            bytes: bytes.to_vec(),
        });
        let changes = Changes {
            blocks: placed,
            checkpoints: checkpoints.collect(),
            forget: commit.forget.clone(),
            add_groups: commit.add_groups.clone(),
            remove_groups: commit.remove_groups.clone(),
            groups: commit.groups.clone(),
            losses: commit.losses.clone(),
            ..Changes::default()
        };
        assert!(last_seqs.is_empty(), "lines of sources {last_seqs:?} without a checkpoint");
        let parts: Vec<&[u8]> =
            writes.iter().flat_map(|write| [write.header.as_slice(), write.payload.as_ref()]).collect();
        self.apply(changes, &parts)?;
        Ok(Committed { first, next: self.state.next_seq, blocks })
    }

    /// Makes changes durable in the journal, with the blocks that they do not reference, and applies them.
    fn apply(&mut self, mut changes: Changes, blocks: &[&[u8]]) -> Result<()> {
        // What the mark covers. Dead letters of this commit share one sync.
        self.retained.sync()?;
        changes.retained = Some(self.retained.mark()).filter(|mark| *mark != self.state.retained);
        let number = self.state.commit + 1;
        let record_bytes = self.journal.append(number, &RecordRef::Changes(&changes), blocks)?;
        if changes.blocks.iter().any(|placed| placed.reference.is_some()) {
            self.journal.stored_bytes += RECORD_WEIGHT * record_bytes;
            self.counters.large_commits += 1;
        }
        self.state.apply(number, &changes);
        self.write_mark()?;
        self.publish();
        self.counters.commits += 1;
        Ok(())
    }

    fn write_mark(&self) -> Result<()> {
        let State { store, journal, commit, next_seq, .. } = self.state;
        self.mark.write(Mark { store, journal, commit, next_seq })
    }

    /// Shows readers what became durable.
    fn publish(&self) {
        let mut index = self.index.lock();
        index.next_seq = self.state.next_seq;
        // Only the ends of the list change: the oldest are removed, the newest grows or is followed by others.
        let first = self.state.first_seq();
        while index.segments.front().is_some_and(|segment| segment.first < first) {
            index.segments.pop_front();
        }
        index.segments.pop_back();
        let known = index.segments.len();
        index.segments.extend(self.state.segments.iter().skip(known).copied());
    }

    /// Does what is due: rotates the journal, removes segments that are not needed, allocates the reserve again. Call it
    /// after commits, and again as long as it returns true. `now_ms` is the wall-clock time in milliseconds since 1970,
    /// for [`Keep::Age`].
    ///
    /// # Errors
    /// As [`Log::commit`].
    pub fn maintain(&mut self, now_ms: u64) -> Result<bool> {
        self.refuse_poisoned()?;
        let is_more = self.maintain_or_poison(now_ms);
        self.or_poison(is_more)
    }

    fn maintain_or_poison(&mut self, now_ms: u64) -> Result<bool> {
        self.space.relieve(self.disk.as_ref())?;
        if self.journal.stored_bytes >= self.options.journal_bytes / 2
            || self.journal.commits >= self.options.journal_commits / 2
        {
            self.prepare_next();
            self.sync_in_background()?;
        }
        if self.must_rotate(None) && self.is_next_ready()? {
            self.rotate()?;
        }
        let mut removed = 0;
        while removed < REMOVALS_MAX && !self.removal_held && self.remove_oldest(now_ms)? {
            removed += 1;
        }
        if removed > 0 {
            self.retained.compact(&self.state)?;
        }
        self.space.restore(self.disk.as_ref())?;
        Ok(removed == REMOVALS_MAX)
    }
}
