//! The loop: what is ready goes into blocks, blocks go to the log, at most three appends at a time.
//!
//! While one append is being synced, the next is read and compressed. Nothing waits for a timer: what is there when
//! a slot is free goes at once. In memory a source is ahead of its checkpoint by what is in flight and no more. The
//! tail's buffers are the reading buffer and the appends, 12 MiB in all but for lines longer than that.
//! Time is an argument.
// long: one loop and the state that it alone changes; who finds, knows and reads files is elsewhere

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use spillq_storage::{BlockBuilder, SourceId};

use crate::plain::size;
use crate::queue::{Append, Closed, Handle, Ticket};
use crate::tail::bytes::compress::Compressor;
use crate::tail::bytes::decompress::Fault;
use crate::tail::bytes::fill::{APPEND_BYTES, Filler};
use crate::tail::bytes::open::open;
use crate::tail::bytes::reader::{Reader, Turn};
use crate::tail::clock::Now;
use crate::tail::error::{ReadError, TailError};
use crate::tail::find::candidates::LeftOut;
use crate::tail::find::follows::Follows;
use crate::tail::find::refused::Refused;
use crate::tail::find::walk::Discover;
use crate::tail::known::record::SourceRecord;
use crate::tail::known::source::{Ending, Source};
use crate::tail::known::table::{SOURCES_MAX, Table};
use crate::tail::notice::Notice;
use crate::tail::pipes::streams::{HELD_BYTES_MAX, Streams};
use crate::tail::rules::compressed::Slot;
use crate::tail::scan::IDLE_CLOSE_MS;
use crate::tail::settings::{Follow, Settings};
use crate::tail::status::{Counters, LeftOutFiles, Snapshot, SourceState, SourceStatus};
use crate::unreadable::Unreadable;

/// Appends that wait for the log: while one commit is synced, up to two gather and become the next. sled writes a
/// byte 3.3 times in commits of one append and 2.5 in large ones.
pub(crate) const IN_FLIGHT_MAX: usize = 3;
/// Bytes of lines that were read and are not durable yet: the appends in flight, the last of which may hold a line of
/// the longest, and the incomplete lines of streams.
pub const BUFFERED_BYTES_MAX: u64 =
    ((IN_FLIGHT_MAX + 1) * APPEND_BYTES + BlockBuilder::LINE_BYTES_MAX + HELD_BYTES_MAX) as u64;
/// One wait for an answer at the end, so that the end keeps to its time.
const ANSWER_WAIT: Duration = Duration::from_millis(100);
/// Checkpoints in one append. With 10,000 quiet sources renamed at once the rest goes with the next.
const CHECKPOINTS_MAX: usize = 2_048;

/// The size of a file, and the times that its server gave it.
pub(crate) type Looks = (u64, i64, i64);

/// What there is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More at once.
    Busy,
    /// More is ready and both slots are taken: wait for the log.
    WaitForLog,
    /// Nothing before a hint, or the next scan; see [`Worker::idle_ms`].
    Idle,
}

#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    bytes: usize,
    /// Of streams.
    stream_bytes: usize,
    since: SystemTime,
}

/// All that the tail knows. Driven by [`Worker::step`].
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) follows: Vec<Follow>,
    pub(crate) once: bool,
    pub(crate) scan_interval_ms: u64,
    pub(crate) from_end: bool,
    pub(crate) discover: Discover,
    pub(crate) table: Table,
    pub(crate) reader: Reader,
    /// [`APPEND_BYTES`]; less for small files that take many appends.
    pub(crate) append_bytes: usize,
    pub(crate) next_source: SourceId,
    pub(crate) counters: Counters,
    /// Files and folders that cannot be followed: reported once, kept while it lasts.
    pub(crate) refused: Refused,
    /// The same, of the scan before.
    pub(crate) refused_before: Refused,
    pub(crate) refused_notice: Notice,
    /// [`SOURCES_MAX`]; less for tests with few files.
    pub(crate) sources_max: usize,
    /// Files that match and have no place.
    pub(crate) left_out: LeftOut,
    pub(crate) left_out_notice: Notice,
    /// Files that the last scan looked into to find out which source they are.
    pub(crate) looked_at: usize,
    /// Paths of sources that were truncated since the last scan: what is there now comes before other new files.
    pub(crate) vacated: HashSet<Arc<Path>>,
    pub(crate) folders: HashMap<PathBuf, u64>,
    /// Files that may be copies: device and inode, size and times, and since when they are that.
    pub(crate) unidentified: HashMap<(u64, u64), (Looks, u64)>,
    /// The same, of the scan before.
    pub(crate) unidentified_before: HashMap<(u64, u64), (Looks, u64)>,
    /// What this scan could not look into: paths whose rotated files were found, and gone or another when they were to be
    /// opened, or are compressed ones that are empty still.
    pub(crate) missed: HashSet<PathBuf>,
    /// Since when new files wait for that, by device and inode.
    pub(crate) held_back: HashMap<(u64, u64), u64>,
    /// Copies that have no checkpoint, since the open file that they are copies of has an end that was not read.
    pub(crate) apart: HashMap<SourceId, SourceId>,
    /// Since when sources whose content is gone are looked for in copies.
    pub(crate) replaced_ms: HashMap<SourceId, u64>,
    pub(crate) waiting_files: usize,
    /// Files that the last scan found by a glob: one that two globs name counts twice.
    pub(crate) matched_files: usize,
    pub(crate) scan_number: u32,
    pub(crate) scan_cost_ms: u64,
    pub(crate) scan_end_ms: u64,
    /// A name changed, or a content: the next scan is wanted soon.
    pub(crate) scan_wanted: bool,
    pub(crate) open: usize,
    pub(crate) open_max: usize,
    pub(crate) endings: VecDeque<(SourceId, Ending)>,
    /// The compressed file that is decompressed now.
    pub(crate) slot: Option<Slot>,
    /// Something was decompressed in this round.
    pub(crate) decompressed: bool,
    pub(crate) streams: Streams,
    compressor: Compressor,
    handle: Handle,
    ready: VecDeque<SourceId>,
    blocked: Vec<SourceId>,
    /// Sources whose checkpoint goes with the next append.
    dirty: VecDeque<SourceId>,
    /// Last checkpoints of sources that are forgotten.
    finals: Vec<(SourceId, Bytes)>,
    in_flight: VecDeque<InFlight>,
    closed: bool,
}

impl Worker {
    pub(crate) fn new(
        settings: Settings,
        known: Vec<(SourceId, Bytes)>,
        next_source: SourceId,
        handle: Handle,
        open_max: usize,
        now: Now,
    ) -> Result<Worker, TailError> {
        let Follows { follows, discover } = Follows::new(settings.follows, &settings.never)?;
        let mut worker = Worker {
            discover,
            follows,
            once: settings.once,
            scan_interval_ms: settings.scan_interval.as_millis() as u64,
            from_end: settings.first_start && known.is_empty(),
            table: Table::default(),
            reader: Reader::new(),
            append_bytes: APPEND_BYTES,
            next_source,
            counters: Counters::default(),
            refused: Refused::default(),
            refused_before: Refused::default(),
            refused_notice: Notice::default(),
            sources_max: SOURCES_MAX,
            left_out: LeftOut::default(),
            left_out_notice: Notice::default(),
            looked_at: 0,
            vacated: HashSet::new(),
            folders: HashMap::new(),
            unidentified: HashMap::new(),
            unidentified_before: HashMap::new(),
            missed: HashSet::new(),
            apart: HashMap::new(),
            held_back: HashMap::new(),
            replaced_ms: HashMap::new(),
            waiting_files: 0,
            matched_files: 0,
            scan_number: 0,
            scan_cost_ms: 0,
            scan_end_ms: 0,
            scan_wanted: true,
            open: 0,
            open_max,
            endings: VecDeque::new(),
            slot: None,
            decompressed: false,
            streams: Streams::new().map_err(TailError::Wait)?,
            compressor: Compressor::default(),
            handle,
            ready: VecDeque::new(),
            blocked: Vec::new(),
            dirty: VecDeque::new(),
            finals: Vec::new(),
            in_flight: VecDeque::new(),
            closed: false,
        };
        for (id, bytes) in known {
            match SourceRecord::decode(&bytes) {
                // Nothing is left of it that a file could be known by: a stream that the last run did not end.
                Ok(record) if record.is_finished() => {
                    worker.streams.forget(id, record.path(), record.offset(), bytes);
                }
                Ok(record) => worker.table.insert(Source::from_record(id, record, now.boot_ms)),
                Err(error) => {
                    worker.counters.errors += 1;
                    tracing::error!(source = id.0, %error, "a source is read from its beginning");
                }
            }
        }
        worker.settle_follows();
        Ok(worker)
    }

    /// One round: answers, a scan when it is due, an append when a slot is free.
    pub(crate) fn step(&mut self, now: Now) -> Result<Step, Closed> {
        let step = self.round(now);
        self.closed |= step.is_err();
        step
    }

    fn round(&mut self, now: Now) -> Result<Step, Closed> {
        self.retire(Duration::ZERO)?;
        if now.boot_ms >= self.scan_due(now) {
            self.scan(now);
        }
        if !self.has_slot() {
            return Ok(Step::WaitForLog);
        }
        self.streams.look();
        if self.fill(now)? {
            return Ok(Step::Busy);
        }
        if self.streams.is_ready() {
            return Ok(Step::WaitForLog);
        }
        Ok(Step::Idle)
    }

    /// Milliseconds until the next scan is due. To be asked right before the wait: a scan may be wanted since the last step.
    pub(crate) fn idle_ms(&self, now: Now) -> u64 {
        self.scan_due(now).saturating_sub(now.boot_ms)
    }

    /// A hint: this path changed.
    pub(crate) fn hint(&mut self, path: &Path) {
        match self.table.at(path) {
            Some(id) => self.queue(id),
            // It tells by itself that it can be read.
            None if self.streams.is_at(path) => {}
            None if self.discover.names(path).is_some() => self.scan_wanted = true,
            None => {}
        }
    }

    /// Waits for the oldest append, up to `timeout`.
    pub(crate) fn retire(&mut self, timeout: Duration) -> Result<(), Closed> {
        while let Some(oldest) = self.in_flight.front() {
            if oldest.ticket.wait_timeout(timeout)?.is_none() {
                break;
            }
            self.in_flight.pop_front();
        }
        Ok(())
    }

    /// Bytes of streams that a kill would lose: they are read, and the log has not answered.
    pub(crate) fn streams_at_risk(&self) -> usize {
        self.in_flight.iter().map(|append| append.stream_bytes).sum()
    }

    pub(crate) fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether everything that was found is read and stored.
    pub(crate) fn is_done(&self) -> bool {
        self.scan_number > 0
            && !self.scan_wanted
            && self.waiting_files == 0
            && self.ready.is_empty()
            && self.blocked.is_empty()
            && self.endings.is_empty()
            && self.dirty.is_empty()
            && self.finals.is_empty()
            && self.streams.is_done()
            && self.in_flight.is_empty()
            && !self.is_place_due()
    }

    /// Files wait for a place, and one becomes free when `rotate_wait` of a deleted file is over. Runs that are always
    /// shorter than that would never free one.
    fn is_place_due(&self) -> bool {
        let scanned_ms = self.scan_end_ms.saturating_sub(self.scan_cost_ms);
        let is_due = |source: &Source| {
            let since_ms = source.gone_ms.map(|gone_ms| source.active_ms.max(gone_ms));
            since_ms.is_some_and(|since_ms| scanned_ms.saturating_sub(since_ms) < self.rotate_wait_ms(source))
        };
        self.left_out.files() > 0 && self.table.iter().any(is_due)
    }

    /// A slot is free, and what is in flight is no giant line that a second append would double.
    fn has_slot(&self) -> bool {
        let bytes: usize = self.in_flight.iter().map(|append| append.bytes).sum();
        self.in_flight.len() < IN_FLIGHT_MAX && bytes < IN_FLIGHT_MAX * APPEND_BYTES
    }

    pub(crate) fn queue(&mut self, id: SourceId) {
        if let Some(source) = self.table.get_mut(id)
            && !source.queued
        {
            source.queued = true;
            self.ready.push_back(id);
        }
    }

    /// It has its next turn in the next round.
    pub(crate) fn wait(&mut self, id: SourceId) {
        if let Some(source) = self.table.get_mut(id)
            && !source.queued
        {
            source.queued = true;
            self.blocked.push(id);
        }
    }

    /// Its checkpoint goes with the next append. A compressed file that is not checked may turn out to be no source of its own,
    /// and has none.
    pub(crate) fn owe_checkpoint(&mut self, id: SourceId) {
        if let Some(source) =
            self.table.get_mut(id).filter(|source| source.stored || !source.is_provisional())
        {
            source.dirty = true;
            self.dirty.push_back(id);
        }
    }

    /// Reads what is ready into one append and hands it over. False where there was nothing.
    fn fill(&mut self, now: Now) -> Result<bool, Closed> {
        let mut filler = Filler::begin(now.wall_ms, self.append_bytes);
        while !filler.is_full() {
            let Some((id, ending)) = self.endings.pop_front() else {
                break;
            };
            self.end(id, ending, &mut filler, now);
        }
        let stream_bytes = self.fill_streams(&mut filler, now);
        for id in std::mem::take(&mut self.blocked) {
            self.ready.push_back(id);
        }
        // Those that are blocked come back into `blocked`, so this ends.
        while !filler.is_full() {
            let Some(id) = self.ready.pop_front() else {
                break;
            };
            self.turn(id, &mut filler, now);
        }
        Ok(self.submit(filler, stream_bytes)? | std::mem::take(&mut self.decompressed))
    }

    /// `stream_bytes` of it cannot be read again.
    fn submit(&mut self, filler: Filler, stream_bytes: usize) -> Result<bool, Closed> {
        let mut append = Append::default();
        let mut seen = HashSet::new();
        while append.checkpoints.len() < CHECKPOINTS_MAX || filler.lines > 0 {
            let Some(id) = self.dirty.pop_front() else {
                break;
            };
            let Some(source) = self.table.get_mut(id).filter(|source| source.dirty) else {
                continue;
            };
            source.dirty = false;
            match source.record().encode() {
                Ok(record) if seen.insert(id) => {
                    source.stored = true;
                    append.checkpoints.push((id, record));
                }
                Ok(_) => {}
                Err(error) => tracing::error!(source = id.0, %error, "a checkpoint cannot be written"),
            }
        }
        append.forget = self.finals.iter().map(|last| last.0).collect();
        append.checkpoints.append(&mut self.finals);
        self.streams.give_checkpoints(&mut append);
        self.counters.lines += filler.lines;
        append.blocks = filler.finish(&mut self.compressor);
        if append.blocks.is_empty() && append.checkpoints.is_empty() {
            return Ok(false);
        }
        let bytes = append.blocks.iter().map(spillq_storage::NewBlock::raw_bytes).sum();
        self.counters.bytes += bytes as u64;
        self.counters.appends += 1;
        let ticket = self.handle.append(append)?;
        self.in_flight.push_back(InFlight { ticket, bytes, stream_bytes, since: SystemTime::now() });
        Ok(true)
    }

    fn turn(&mut self, id: SourceId, filler: &mut Filler, now: Now) {
        if self.table.get(id).is_some_and(Source::is_provisional) {
            return self.check_compressed(id, now);
        }
        if self.is_blocked(id) {
            self.blocked.push(id);
            return;
        }
        let Some(source) = self.table.get_mut(id) else {
            return;
        };
        source.queued = false;
        // An unlooked source waits for its first look in a scan; a replaced one for its copy.
        if source.replaced > 0 || source.inactive || !source.looked || !self.open_source(id) {
            return;
        }
        // Compressed: one at a time; and where all of it is read, nothing more comes.
        let Some(source) = self.table.get(id) else {
            return;
        };
        let is_compressed = source.compressed.is_some();
        if is_compressed && source.has_rest() {
            match self.prepare_decompressor(id) {
                Ok(true) => {}
                Ok(false) => return self.wait(id),
                Err(error) => return self.read_failed(id, error),
            }
        }
        let Some(source) = self.table.get_mut(id) else {
            return;
        };
        let (was_dirty, was_size) = (source.dirty, source.size);
        let was_looked_at = source.searched.max(source.offset);
        let line_max = self.follows.get(usize::from(source.follow)).map_or(1, |follow| follow.max_line_bytes);
        let turn = match self.slot.as_mut().and_then(|slot| slot.decompressor(id)) {
            _ if is_compressed && !source.has_rest() => Ok(Turn::CaughtUp),
            None if is_compressed => return self.wait(id),
            decompressor => self.reader.turn(source, decompressor, line_max, filler),
        };
        if source.size != was_size {
            source.active_ms = now.boot_ms;
        }
        // An unfinished line that is taken back is no loss; what nobody has looked at may be lines.
        let destroyed = was_size.saturating_sub(source.size.max(was_looked_at));
        if destroyed > 0 && !is_compressed && !matches!(turn, Ok(Turn::Changed)) {
            self.counters.destroyed(&source.path, source.offset, destroyed);
        }
        let has_read = source.dirty && !was_dirty;
        if has_read {
            self.dirty.push_back(id);
        }
        match turn {
            Ok(turn) => {
                if source.error.take().is_some() {
                    tracing::info!(path = %source.path.display(), "readable again");
                }
                match turn {
                    Turn::More => self.queue(id),
                    Turn::CaughtUp => self.let_go(id),
                    Turn::Changed => self.mark_replaced(id),
                }
            }
            Err(error) => self.read_failed(id, error),
        }
        if has_read {
            self.settle_apart(id);
        }
        self.close_if_too_many(id);
    }

    fn read_failed(&mut self, id: SourceId, source_error: io::Error) {
        self.let_go(id);
        let Some(source) = self.table.get_mut(id) else {
            return;
        };
        // It was complete when it was checked: it is another file by now, which a check says more of.
        if source.compressed.is_some() && Fault::of(&source_error) != Fault::Unread {
            return self.mark_replaced(id);
        }
        let (path, offset) = (source.path.to_path_buf(), source.offset);
        self.open -= usize::from(source.file.take().is_some());
        self.fail(id, &ReadError::Read { path, offset, source: source_error });
    }

    /// Opens the file of a source, unless it is open. False where there is nothing to read now.
    pub(crate) fn open_source(&mut self, id: SourceId) -> bool {
        let Some(source) = self.table.get_mut(id) else {
            return false;
        };
        if source.file.is_some() {
            return true;
        }
        match open(&source.path, self.discover.way(Some(source.follow), &source.path)) {
            Ok((file, meta)) => {
                use std::os::unix::fs::MetadataExt;
                if (meta.dev(), meta.ino()) == (source.device, source.inode) {
                    source.file = Some(file);
                    source.closed_early = false;
                    self.open += 1;
                    return true;
                }
                // Another file took the path: a scan finds out where this one went.
                self.scan_wanted = true;
            }
            Err(error) if error.is_gone() => self.scan_wanted = true,
            Err(error) => self.fail(id, &error),
        }
        false
    }

    /// The file has another content than the source. Whether that lives on in a copy, a scan finds out.
    pub(crate) fn mark_replaced(&mut self, id: SourceId) {
        self.let_go(id);
        if let Some(source) = self.table.get_mut(id) {
            if source.has_rest() {
                self.left_out.look_again();
            }
            source.replaced = self.scan_number.max(1);
            if source.file.take().is_some() {
                self.open = self.open.saturating_sub(1);
            }
            self.scan_wanted = true;
        }
    }

    /// Said once; each scan tries again.
    pub(crate) fn fail(&mut self, id: SourceId, error: &ReadError) {
        if let Some(source) = self.table.get_mut(id) {
            if source.error.is_none() {
                self.counters.errors += 1;
                tracing::warn!(source = id.0, %error, "a file cannot be read; tried again by each scan");
            }
            source.error = Some(Box::new(Unreadable { why: error.why(), found: error.to_string() }));
        }
    }

    fn end(&mut self, id: SourceId, ending: Ending, filler: &mut Filler, now: Now) {
        let Some(source) = self.table.get_mut(id) else {
            return;
        };
        let was_dirty = source.dirty;
        let is_plain = source.compressed.is_none();
        if ending != Ending::Truncated && is_plain && source.has_rest() && source.file.is_some() {
            match self.reader.unterminated_end(source, filler) {
                Ok(true) => {}
                // It grew after all.
                Ok(false) => return self.queue(id),
                Err(error) => tracing::warn!(source = id.0, %error, "the end of a file cannot be read"),
            }
        }
        if ending == Ending::Unterminated {
            source.active_ms = now.boot_ms;
            if source.dirty && !was_dirty {
                self.dirty.push_back(id);
            }
            return;
        }
        let Some(mut source) = self.table.remove(id) else {
            return;
        };
        self.let_go(id);
        self.close_ranks(&source);
        // Its place is taken before the run ends.
        self.scan_wanted |= self.once && self.left_out.files() > 0;
        let was_open = source.file.take().is_some();
        self.open = self.open.saturating_sub(usize::from(was_open));
        // An inode that was given to another file since looks like a truncation.
        if !was_open && is_end_unknown(&source) {
            self.counters.lost_sight += 1;
            let (path, offset) = (source.path.display(), source.offset);
            let why =
                if source.looked { "closed as descriptors ran short" } else { "not seen since the start" };
            tracing::warn!(%path, offset, "what a file had is gone, {why}: what was written behind the offset is not known");
        }
        // Where nothing was read, an unfinished first line was taken back.
        let known =
            if source.offset == 0 && ending == Ending::Truncated { source.searched } else { source.offset };
        let destroyed = source.size.saturating_sub(known);
        if destroyed > 0 && !source.unwritten {
            self.counters.destroyed(&source.path, source.offset, destroyed);
        }
        if ending == Ending::Truncated && (source.offset > 0 || destroyed > 0) {
            self.counters.truncated += 1;
            tracing::info!(path = %source.path.display(), "truncated: a new source from its beginning");
        }
        if ending == Ending::Truncated {
            self.vacated.insert(Arc::clone(&source.path));
        }
        self.forget(&source);
        self.apart.remove(&id);
        self.settle_apart(id);
    }

    /// A source has read on, or ended: copies of what it has read by now get their checkpoint with that.
    fn settle_apart(&mut self, of: SourceId) {
        if self.apart.is_empty() {
            return;
        }
        let read = self.table.get(of).map_or(u64::MAX, |source| source.offset);
        let of_it = self.apart.iter().filter(|(_, other)| **other == of).map(|(copy, _)| *copy);
        let copies: Vec<SourceId> = of_it.collect();
        for copy in copies {
            if self.table.get(copy).is_none_or(|copy| copy.offset <= read) {
                self.apart.remove(&copy);
                self.owe_checkpoint(copy);
            }
        }
    }

    /// The last checkpoint of a source that is no more.
    pub(crate) fn forget(&mut self, source: &Source) {
        if source.stored || source.dirty {
            match SourceRecord::of_finished(&source.path, source.offset).encode() {
                Ok(record) => self.finals.push((source.id, record)),
                Err(error) => tracing::error!(source = source.id.0, %error, "a checkpoint cannot be written"),
            }
        }
    }

    fn close_if_too_many(&mut self, id: SourceId) {
        if self.open > self.open_max && self.table.get(id).is_some_and(|source| source.gone_ms.is_none()) {
            self.close_early(id);
        }
    }

    /// For want of descriptors.
    pub(crate) fn close_early(&mut self, id: SourceId) {
        if let Some(source) = self.table.get_mut(id)
            && source.file.take().is_some()
        {
            source.closed_early = true;
            self.open -= 1;
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = |source: &Source| {
            if source.error.is_some() {
                SourceState::Failed
            } else if source.inactive {
                SourceState::Inactive
            } else if source.gone_ms.is_some() {
                SourceState::Gone
            } else if self.is_blocked(source.id) {
                SourceState::Blocked
            } else if source.is_caught_up() {
                SourceState::CaughtUp
            } else {
                SourceState::Reading
            }
        };
        let files = self.table.iter().map(|source| SourceStatus {
            source: source.id,
            path: source.path.to_path_buf(),
            offset: source.offset,
            size: source.size,
            state: state(source),
            rotated: source.rotated_from.is_some() || source.gone_ms.is_some(),
            held_open: source.file.is_some(),
            last_error: source.error.as_deref().cloned(),
        });
        let mut sources: Vec<SourceStatus> = files.chain(self.streams.statuses()).collect();
        sources.sort_by_key(|source| source.source);
        Snapshot {
            taken_at: SystemTime::now(),
            counters: self.counters,
            sources,
            waiting_files: self.waiting_files,
            matched_files: self.matched_files,
            refused: self.refused.named().map(|(path, why)| (path.clone(), why.clone())).collect(),
            refused_files: self.refused.files(),
            left_out: LeftOutFiles {
                files: self.left_out.files(),
                named: self.left_out.named().to_vec(),
                limit: self.sources_max,
                inactive: self.table.inactive(),
            },
            waits_for_log_since: self.in_flight.front().map(|oldest| oldest.since),
            buffered_bytes: self.in_flight.iter().map(|append| append.bytes as u64).sum::<u64>()
                + self.streams.held() as u64,
            done: self.is_done(),
            closed: self.closed,
        }
    }

    /// The end of the streams: what they have now, and their incomplete lines, which nobody can read again. Where the
    /// log does not take it until then, it says so.
    pub(crate) fn close_streams(&mut self, now: Now, until: Instant) {
        let mut open = !self.streams.is_done();
        while open && !self.has_slot() {
            open = self.retire(ANSWER_WAIT).is_ok() && Instant::now() < until;
        }
        if open {
            let mut filler = Filler::begin(now.wall_ms, self.append_bytes);
            self.streams.look();
            let before = self.fill_streams(&mut filler, now);
            let held = self.streams.held();
            self.streams.end_all(&mut filler);
            open = self.submit(filler, before + held).is_ok();
        }
        while open && self.streams_at_risk() > 0 {
            open = self.retire(ANSWER_WAIT).is_ok() && Instant::now() < until;
        }
        let lost = self.streams_at_risk() + self.streams.held();
        if lost > 0 {
            let size = size(lost as u64);
            tracing::error!(
                bytes = lost,
                "{size} read from streams may be lost: the log did not store them before the stop"
            );
        }
    }

    /// Waits until nothing is in flight, for `timeout` at most.
    pub(crate) fn settle(&mut self, timeout: Duration) -> io::Result<()> {
        let each = timeout / IN_FLIGHT_MAX as u32;
        for _ in 0..IN_FLIGHT_MAX {
            self.retire(each).map_err(io::Error::other)?;
        }
        match self.in_flight.is_empty() {
            true => Ok(()),
            // The checkpoint is in the same commit as the lines: whether it was made or not, nothing is lost.
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Whether a source that ended while its file was not open may have had more. One that was closed for being idle had been
/// quiet until the last scan; a compressed file never grows.
fn is_end_unknown(source: &Source) -> bool {
    let quiet_ms = source.gone_ms.unwrap_or(0).saturating_sub(source.active_ms);
    let is_out_of_sight = !source.looked || source.closed_early && quiet_ms < IDLE_CLOSE_MS;
    let is_complete = source.compressed.is_some() && !source.has_rest();
    is_out_of_sight && !is_complete && !source.inactive
}
