//! The log: how it is opened, committed to, maintained and read.
//!
//! A commit is written to the newest segment file first (a full disk shows there, and is undone), then to the journal,
//! which makes it durable, then to MARK. After any other error the log is poisoned: what is durable is known only after it
//! is opened again.

mod dead_letters;
mod next_journal;
mod open;
mod removal;
mod rotate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use self::next_journal::NextJournal;
use crate::background::Background;
use crate::block::{Block, NewBlock};
use crate::commit::{Changes, Checkpoint, Commit, Placed};
use crate::compact;
use crate::disk::Disk;
use crate::error::{Error, Full, Result};
use crate::ids::{Seq, SourceId};
use crate::journal::Journal;
use crate::lock::Lock;
use crate::loss::RetainedMark;
use crate::manifest::State;
use crate::mark::{Mark, MarkFile};
use crate::quarantine::Quarantined;
use crate::reader::Reader;
use crate::record::RecordRef;
use crate::retained::Retained;
use crate::segment::{Index, SegmentWriter};
use crate::space::{DiskOptions, Keep, Space, used_bytes};

/// Segments removed by one call of [`Log::maintain`], which should be short.
const REMOVALS_MAX: usize = 4;

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
    /// How much disk space it may use.
    pub disk: DiskOptions,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 16 * 1024 * 1024,
            journal_bytes: 5 * 1024 * 1024,
            journal_commits: 16_384,
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
    writer: SegmentWriter,
    index: Arc<Index>,
    retained: Retained,
    space: Space,
    next_journal: NextJournal,
    /// The sync of the segments before this one in the background.
    syncing: Option<(Seq, Receiver<Result<()>>)>,
    /// What the journal stored when that last began.
    background_synced_bytes: u64,
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

    /// Stored bytes of the journal. sled holds up to four times as much in memory.
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
    /// After [`Error::Full`] the log is as it was. Any other error poisons the log: all later calls return
    /// [`Error::Poisoned`].
    ///
    /// # Panics
    /// If a block holds lines of a source that has no checkpoint in the commit: both must become durable together.
    pub fn commit(&mut self, commit: &Commit) -> Result<Committed> {
        self.refuse_poisoned()?;
        self.commit_or_poison(commit).inspect_err(|error| {
            if !matches!(error, Error::Full(_)) {
                self.poisoned = Some(error.to_string());
            }
        })
    }

    fn or_poison<T>(&mut self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| self.poisoned = Some(error.to_string()))
    }

    fn refuse_poisoned(&self) -> Result<()> {
        self.poisoned.as_ref().map_or(Ok(()), |why| Err(Error::Poisoned(why.clone())))
    }

    fn commit_or_poison(&mut self, commit: &Commit) -> Result<Committed> {
        let stored: u64 = commit.blocks.iter().map(|block| block.disk_bytes() as u64).sum();
        if stored > 0
            && let Some(full) = self.refusal_of(stored)?
        {
            return Err(Error::Full(full));
        }
        if self.must_rotate(stored) {
            self.rotate()?;
        }
        let first = self.state.next_seq;
        let appended = self.append(&commit.blocks)?;
        let changes = Changes {
            blocks: appended.placed,
            checkpoints: checkpoints(&commit.checkpoints, appended.last_seqs),
            forget: commit.forget.clone(),
            add_groups: commit.add_groups.clone(),
            remove_groups: commit.remove_groups.clone(),
            groups: commit.groups.clone(),
            losses: commit.losses.clone(),
            ..Changes::default()
        };
        self.apply(changes, &appended.encoded)?;
        Ok(Committed { first, next: self.state.next_seq, blocks: appended.blocks })
    }

    /// Writes blocks to the newest segment, or to new ones, without a sync. On an error the file is cut to what it was.
    fn append(&mut self, blocks: &[NewBlock]) -> Result<Appended> {
        let (number, mut next) = (self.state.commit + 1, self.state.next_seq);
        let mut end = self.state.segments.back().map(|segment| (segment.first, segment.bytes));
        let mut appended = Appended::default();
        for block in blocks {
            let mut bytes = Vec::with_capacity(block.disk_bytes());
            block.encode(&mut bytes, self.state.store, number, next);
            let fits = |len: u64| len == 0 || len + bytes.len() as u64 <= self.options.segment_bytes;
            let (segment, at) = end.filter(|(_, len)| fits(*len)).unwrap_or((next, 0));
            if let Err(error) = self.writer.append(segment, at, &bytes) {
                self.writer.cut(self.state.segments.back())?;
                return Err(error);
            }
            end = Some((segment, at + bytes.len() as u64));
            appended.placed.push(Placed {
                first: next,
                lines: block.lines(),
                raw_bytes: block.raw_bytes() as u32,
                bytes: bytes.len() as u32,
                new_segment: at == 0,
            });
            appended.encoded.push(bytes);
            appended.blocks.push(Arc::new(block.numbered(number, next)));
            for extent in block.extents() {
                next = next.plus(u64::from(extent.lines));
                appended.last_seqs.insert(extent.source, next.prev());
            }
        }
        Ok(appended)
    }

    /// Makes changes durable in the journal, and applies them.
    fn apply(&mut self, mut changes: Changes, blocks: &[Vec<u8>]) -> Result<()> {
        // All of `kept/` is synced: every addition ends with a sync.
        changes.retained = Some(self.retained.mark()).filter(|mark| *mark != self.state.retained);
        let number = self.state.commit + 1;
        self.journal.append(number, &RecordRef::Changes(&changes), blocks)?;
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
        if self.must_rotate(0) && self.is_next_ready()? {
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

/// The blocks of a commit, written to segment files.
#[derive(Default)]
struct Appended {
    placed: Vec<Placed>,
    encoded: Vec<Vec<u8>>,
    blocks: Vec<Arc<Block>>,
    /// The last line of each source in them.
    last_seqs: BTreeMap<SourceId, Seq>,
}

/// The checkpoints of a commit, each with the last line of its source.
fn checkpoints(
    given: &[(SourceId, bytes::Bytes)],
    mut last_seqs: BTreeMap<SourceId, Seq>,
) -> Vec<Checkpoint> {
    let checkpoints = given
        .iter()
        .map(|(source, bytes)| Checkpoint {
            source: *source,
            last_seq: last_seqs.remove(source),
            bytes: bytes.to_vec(),
        })
        .collect();
    assert!(last_seqs.is_empty(), "lines of sources {last_seqs:?} without a checkpoint");
    checkpoints
}
