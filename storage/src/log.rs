//! The log: open, commit, read, and what must be done between.
//!
//! One value owns it all and is used by one thread. A commit goes to the newest segment file first (a full disk
//! shows there, and is undone), then through the journal, which makes it durable, then into MARK. After any other
//! error the log is poisoned: what is durable is only known after opening it again.
// long: opening and committing, whose order is the contract

mod next_journal;
mod removal;
mod rotate;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use self::next_journal::{NextJournal, Plan};
use crate::background::Background;
use crate::block::{Block, NewBlock};
use crate::commit::{Changes, Checkpoint, Commit, Placed};
use crate::compact;
use crate::create::{create, refuse_absent, refuse_foreign, remove_other_journals};
use crate::disk::Disk;
use crate::disk::real::RealDisk;
use crate::error::{Context, Error, Full, Result};
use crate::ids::{GroupId, Seq, SeqRange, SourceId};
use crate::journal::{self, Journal};
use crate::lock::Lock;
use crate::loss::RetainedMark;
use crate::manifest::State;
use crate::mark::{Mark, MarkFile};
use crate::private;
use crate::quarantine::Quarantined;
use crate::reader::Reader;
use crate::record::RecordRef;
use crate::recover::{self, CREATING, Store};
use crate::retained::{DEAD_LETTERS_MAX, DeadLetter, RETAINED_BYTES_MAX, Retained};
use crate::segment::{Index, SegmentWriter};
use crate::space::{DiskOptions, Keep, Space, used_bytes};

/// Segments removed in one go, so that the owner is not held up.
const REMOVALS_MAX: usize = 4;

/// How a log is to behave.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes at which a segment file is sealed.
    pub segment_bytes: u64,
    /// Stored bytes at which a journal is rolled: what sled holds in memory, and what opening copies and scans.
    pub journal_bytes: u64,
    /// Commits after which a journal is rolled however little they store.
    pub journal_commits: u64,
    /// How much disk it may use.
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

/// A commit that is durable.
#[derive(Debug)]
pub struct Committed {
    /// The seq of its first line; equal to `next` where it has none.
    pub first: Seq,
    /// The seq after its last line.
    pub next: Seq,
    /// Its blocks as a reader would see them, without reading them.
    pub blocks: Vec<Arc<Block>>,
}

/// What has happened since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commits made durable.
    pub commits: u64,
    /// Journals begun.
    pub rotations: u64,
    /// Segment files removed.
    pub segments_removed: u64,
    /// Lines relocated.
    pub lines_relocated: u64,
}

/// What the log holds beside its state: rows of the memory budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Stored bytes of the journal: up to four times as much in sled's memory.
    pub journal_bytes: u64,
    /// What they are at most.
    pub journal_bytes_max: u64,
    /// Bytes of the file in `kept/`.
    pub retained_bytes: u64,
}

/// An open log. Dropping it loses nothing that was answered.
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
    settling: Option<(Seq, Receiver<Result<()>>)>,
    /// What the journal stored when segments were last synced beside the owner.
    settled_bytes: u64,
    /// What holds the oldest segment, and since which commit.
    stuck: Option<(compact::Removal, u64)>,
    /// When the segment of that name was begun: the one before it got no line after that.
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
    /// Opens the store in `dir`, after a crash as after a clean stop, or makes one there.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::NotAStore`], [`Error::OfAnotherUser`], [`Error::OpenToOthers`], [`Error::Version`] and [`Error::Damaged`] leave it untouched.
    pub fn open_or_create(dir: &Path, options: Options) -> Result<Log> {
        let disk = Arc::new(RealDisk::new(dir));
        disk.make_folder("").during("create", &dir.to_string_lossy())?;
        refuse_foreign(dir)?;
        private::ensure(dir)?;
        let lock = Lock::take(dir, true)?;
        Log::on_disk(disk, options, Some(lock)).map_err(|error| error.under(dir))
    }

    /// Opens the store in `dir`, which must be there.
    ///
    /// # Errors
    /// As [`Log::open_or_create`], and [`Error::Missing`].
    pub fn open(dir: &Path, options: Options) -> Result<Log> {
        refuse_absent(dir)?;
        Log::open_or_create(dir, options)
    }

    pub(crate) fn on_disk(disk: Arc<dyn Disk>, options: Options, lock: Option<Lock>) -> Result<Log> {
        let mut space = Space::open(disk.as_ref(), options.disk)?;
        MarkFile::settle(disk.as_ref())?;
        let (state, old_journal, findings) = match recover::read(disk.as_ref())? {
            Store::Absent => (create(disk.as_ref())?, None, Vec::new()),
            Store::Recovered(mut recovered) => {
                remove_other_journals(disk.as_ref(), recovered.journal)?;
                recovered.restore_segments(disk.as_ref())?;
                // Left where the power failed right after MARK got its name.
                if disk.exists(CREATING).during("look for", CREATING)? {
                    disk.remove_file(CREATING).during("remove", CREATING)?;
                    disk.sync_dir("").during("sync", "the data dir")?;
                }
                (recovered.state, Some(recovered.journal), recovered.findings)
            }
        };
        let background = Background::new(disk.as_ref()).during("start a thread for", "the log")?;
        let index = Arc::new(Index::default());
        let retained = Retained::open(Arc::clone(&disk), Arc::clone(&index), &state, true)?;
        let mut state = state;
        state.begin_run();
        let number = old_journal.map_or(1, |old| old + 1);
        (state.journal, state.commit) = (number, state.commit + 1);
        let db = Plan { number, long_bytes: 0 }.make(disk.as_ref(), &mut space)?;
        let journal = Journal::begin(disk.as_ref(), db, &state)?;
        let State { store, commit, next_seq, .. } = state;
        let mark = Mark { store, journal: number, commit, next_seq };
        let mark_file = match old_journal {
            Some(old) => {
                if cfg!(feature = "fault-removal-first") {
                    disk.remove_folder(&journal::folder(old)).during("remove", journal::FOLDER)?;
                }
                let file = MarkFile::open(disk.as_ref())?;
                file.write(mark)?;
                file.sync()?;
                file
            }
            None => {
                let file = MarkFile::create(disk.as_ref(), mark)?;
                disk.remove_file(CREATING).during("remove", CREATING)?;
                disk.sync_dir("").during("sync", "the data dir")?;
                file
            }
        };
        let mut findings = findings;
        findings.extend(retained.findings.iter().cloned());
        let mut log = Log {
            quarantined: Quarantined::count(disk.as_ref()),
            writer: SegmentWriter::open(Arc::clone(&disk), state.segments.back())?,
            disk,
            options,
            state,
            journal,
            mark: mark_file,
            index,
            retained,
            space,
            next_journal: NextJournal::default(),
            settling: None,
            settled_bytes: 0,
            stuck: None,
            begun: None,
            counters: Counters::default(),
            findings,
            poisoned: None,
            removal_held: false,
            background,
            _lock: lock,
        };
        log.publish();
        log.keep_spare();
        if let Some(old) = old_journal {
            log.discard_journal(old, None);
        }
        log.space.restore(log.disk.as_ref())?;
        Ok(log)
    }

    /// What the log knows besides the lines.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What opening found that was not as it should be; the log goes on all the same.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// What has happened since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What it holds in memory, and of dead letters on disk.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            journal_bytes: self.journal.stored_bytes,
            // A commit that would make it more rolls first.
            journal_bytes_max: self.options.journal_bytes + self.options.journal_bytes / 8,
            retained_bytes: self.retained.bytes(),
        }
    }

    /// What repairs have set aside.
    #[must_use]
    pub fn quarantined(&self) -> Quarantined {
        self.quarantined
    }

    pub(crate) fn retained_mark(&self) -> RetainedMark {
        self.retained.mark()
    }

    /// Stops removing files, or goes on: a snapshot is being copied. Disk use only grows meanwhile.
    pub fn hold_removal(&mut self, hold: bool) {
        self.removal_held = hold;
    }

    /// Other limits from now on. The reserve stays as it was when the log was opened.
    pub fn set_limits(&mut self, to: DiskOptions) {
        self.space.set_limits(to.limit_bytes, to.min_free_bytes);
        self.options.disk = DiskOptions { reserve_bytes: self.options.disk.reserve_bytes, ..to };
    }

    /// Whether settled lines go when they are old: then [`Log::maintain`] has something to do by time alone.
    #[must_use]
    pub fn keeps_by_age(&self) -> bool {
        matches!(self.options.disk.keep, Keep::Age(_))
    }

    /// A reader of what is durable, to be used beside the owner.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.disk), Arc::clone(&self.index), self.state.store)
    }

    /// Bytes that the store takes on disk, about: segments, retained lines, two journals, the reserve.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        used_bytes(&self.state, &self.retained, self.space.held_bytes())
    }

    /// Why lines cannot be taken in now, if so.
    ///
    /// Segments that are only retained go first.
    ///
    /// # Errors
    /// As [`Log::commit`], and when the file system does not say how much is free.
    pub fn refusal(&mut self) -> Result<Option<Full>> {
        self.refuse_poisoned()?;
        self.refusal_of(0).inspect_err(|error| self.poisoned = Some(error.to_string()))
    }

    fn refusal_of(&mut self, bytes: u64) -> Result<Option<Full>> {
        loop {
            let full = self.space.refusal(self.disk.as_ref(), self.disk_bytes(), bytes)?;
            if full.is_none() || !self.remove_settled()? {
                return Ok(full);
            }
        }
    }

    /// Makes one atomic change durable. When this returns, it survives a kill and a power cut; nothing of it does
    /// after [`Error::Full`], which leaves the log as it was.
    ///
    /// # Errors
    /// Any other error poisons the log.
    ///
    /// # Panics
    /// If a block holds lines of a source without a checkpoint in the same commit: offset and lines are one.
    pub fn commit(&mut self, commit: &Commit) -> Result<Committed> {
        self.refuse_poisoned()?;
        self.commit_or_poison(commit).inspect_err(|error| {
            if !matches!(error, Error::Full(_)) {
                self.poisoned = Some(error.to_string());
            }
        })
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

    /// Sends changes through the journal and makes them count.
    fn apply(&mut self, mut changes: Changes, blocks: &[Vec<u8>]) -> Result<()> {
        // Whatever is in `kept/` by now is synced: every addition ends with that.
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

    /// Lets readers see what became durable.
    fn publish(&self) {
        let mut index = self.index.lock();
        index.next_seq = self.state.next_seq;
        // Only the ends of the list change: the oldest go, the newest grows or is followed by others.
        let first = self.state.first_seq();
        while index.segments.front().is_some_and(|segment| segment.first < first) {
            index.segments.pop_front();
        }
        index.segments.pop_back();
        let known = index.segments.len();
        index.segments.extend(self.state.segments.iter().skip(known).copied());
    }

    /// Does what has become due: rolls the journal, removes segments that nobody needs, sets the reserve aside
    /// again. To be called after commits, when their answers are out; says whether there may be more to do. The wall
    /// clock's `now_ms` decides how old settled lines are.
    ///
    /// # Errors
    /// As [`Log::commit`].
    pub fn maintain(&mut self, now_ms: u64) -> Result<bool> {
        self.refuse_poisoned()?;
        self.maintain_or_poison(now_ms).inspect_err(|error| self.poisoned = Some(error.to_string()))
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

    /// Sets a line aside for a group: into `kept/` durably, to be followed by a commit of
    /// [`crate::GroupChange::Dead`]. A crash before that commit leaves the line waiting as before.
    ///
    /// # Errors
    /// As [`Log::commit`]; and where the line cannot be read.
    pub fn bury(&mut self, letter: &DeadLetter, block: &Block) -> Result<()> {
        self.refuse_poisoned()?;
        self.space.make(self.disk.as_ref(), block.raw().len() as u64)?;
        let buried = self
            .retained
            .keep(block, SeqRange::one(letter.seq))
            .and_then(|()| self.retained.bury(letter))
            .and_then(|()| self.retained.sync());
        buried.inspect_err(|error| self.poisoned = Some(error.to_string()))
    }

    /// Ends a dead letter: for good, or, with a commit of [`crate::GroupChange::Revive`] made before, to deliver
    /// it again.
    ///
    /// # Errors
    /// As [`Log::commit`].
    pub fn settle_dead(&mut self, group: GroupId, seqs: &[Seq]) -> Result<()> {
        self.refuse_poisoned()?;
        self.space.relieve(self.disk.as_ref())?;
        let settled = seqs
            .iter()
            .try_for_each(|seq| self.retained.settle(group, *seq))
            .and_then(|()| self.retained.sync());
        let settled = settled
            .and_then(|()| if self.removal_held { Ok(()) } else { self.retained.compact(&self.state) });
        settled.inspect_err(|error| self.poisoned = Some(error.to_string()))
    }

    /// The dead letters of a group from `from` on, at most `limit`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn dead_letters(&self, group: GroupId, from: Seq, limit: usize) -> Result<Vec<DeadLetter>> {
        self.retained.dead(group, from, limit)
    }

    /// How many dead letters a group has.
    #[must_use]
    pub fn dead_count(&self, group: GroupId) -> usize {
        self.retained.dead_count(group)
    }

    /// The seqs of a group's dead letters within `range`, at most [`DEAD_LETTERS_MAX`].
    #[must_use]
    pub fn dead_seqs(&self, group: GroupId, range: SeqRange) -> Vec<Seq> {
        self.retained.dead_seqs(group, range).collect()
    }

    /// How many lines directly below `seq` (the one before it, the one before that, without a gap) are held as dead
    /// letters of the group with [`crate::DeadCause::Rejected`], counted up to `most`. Looks at memory only.
    #[must_use]
    pub fn rejected_below(&self, group: GroupId, seq: Seq, most: u32) -> u32 {
        self.retained.rejected_below(group, seq, most)
    }

    /// Whether no more lines can be set aside for a group.
    #[must_use]
    pub fn is_dead_full(&self, group: GroupId) -> bool {
        self.dead_count(group) >= DEAD_LETTERS_MAX || self.retained.bytes() >= RETAINED_BYTES_MAX
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
