//! One round: answers of the log, a scan if it is due, and one append of what is ready, while what is in flight is bounded.
//!
//! While appends are being synced, the next is read and compressed. Nothing waits for a timer: what is there when
//! an append may be sent goes at once. In memory a source is ahead of its checkpoint by what is in flight and no more. The
//! tail's buffers are the reading buffer and the appends, 18 MiB in all but for lines longer than that.
//! Time is an argument.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use spillq_storage::SourceId;

use crate::plain::size;
use crate::queue::{Closed, Handle};
use crate::tail::append::Appends;
use crate::tail::bytes::Reader;
use crate::tail::clock::Now;
use crate::tail::error::TailError;
use crate::tail::find::Follows;
use crate::tail::known::{Presence, Source, SourceRecord};
use crate::tail::pipes::streams::InputStreams;
use crate::tail::rules::{Book, ending, inactive, order};
use crate::tail::scan::Scans;
use crate::tail::settings::Settings;
use crate::tail::status::{LeftOutFiles, Snapshot, SourceState, SourceStatus};
use crate::tail::turn::turn;

/// One wait for an answer at the end, so that the end takes no longer than it may.
const ANSWER_WAIT: Duration = Duration::from_millis(100);

/// What there is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More at once.
    Busy,
    /// More is ready, and no append may be sent: wait for the log.
    WaitForLog,
    /// Nothing before a hint, or the next scan; see [`Worker::idle_ms`].
    Idle,
}

/// The tail without its thread. Driven by [`Worker::step`].
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) book: Book,
    pub(crate) scans: Scans,
    pub(crate) streams: InputStreams,
    pub(crate) reader: Reader,
    pub(crate) appends: Appends,
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
        let follows = Follows::new(settings.follows, &settings.never)?;
        let from_end = settings.first_start && known.is_empty();
        let mut book = Book::new(follows, settings.once, next_source, open_max);
        let mut streams = InputStreams::new(settings.once).map_err(TailError::Wait)?;
        for (id, bytes) in known {
            match SourceRecord::decode(&bytes) {
                // No file is known by it: a stream that the last run did not read to its end.
                Ok(record) if record.finished => {
                    streams.forget(id, record.path(), record.offset, bytes);
                }
                Ok(record) => book.add(Source::from_record(id, record, now.boot_ms)),
                Err(error) => {
                    book.counters.errors += 1;
                    tracing::error!(source = id.0, %error, "a source is read from its beginning");
                }
            }
        }
        inactive::assign(&mut book);
        Ok(Worker {
            book,
            scans: Scans::new(settings.scan_interval.as_millis() as u64, from_end),
            streams,
            reader: Reader::default(),
            appends: Appends::new(handle),
            closed: false,
        })
    }

    /// Begins with standard input, if a section follows it.
    pub(crate) fn follow_input(&mut self, fd: BorrowedFd<'_>) -> Result<(), TailError> {
        match self.book.follows().of_input() {
            Some(follow) => self.streams.follow_input(fd, follow.max_line_bytes),
            None => Ok(()),
        }
    }

    /// One round.
    pub(crate) fn step(&mut self, now: Now) -> Result<Step, Closed> {
        let step = self.round(now);
        self.closed |= step.is_err();
        step
    }

    fn round(&mut self, now: Now) -> Result<Step, Closed> {
        self.appends.retire(Duration::ZERO)?;
        if now.boot_ms >= self.scans.due_ms(&self.book, now) {
            self.scan(now);
        }
        if !self.appends.has_slot() {
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

    pub(crate) fn scan(&mut self, now: Now) {
        self.scans.run(&mut self.book, &mut self.reader, &mut self.streams, now);
    }

    /// Milliseconds until the next scan is due. To be asked right before the wait: a scan may be wanted since the last step.
    pub(crate) fn idle_ms(&self, now: Now) -> u64 {
        self.scans.due_ms(&self.book, now).saturating_sub(now.boot_ms)
    }

    /// A hint: this path changed.
    pub(crate) fn hint(&mut self, path: &Path) {
        match self.book.sources().at(path) {
            Some(id) => self.book.queue(id),
            // The stream itself reports that it can be read.
            None if self.streams.is_at(path) => {}
            None if self.book.follows().names(path).is_some() => self.book.scan_wanted = true,
            None => {}
        }
    }

    /// Whether everything that was found is read and stored.
    pub(crate) fn is_done(&self) -> bool {
        self.book.scan() > 0
            && !self.book.scan_wanted
            && self.scans.unidentified.waiting == 0
            && self.book.is_idle()
            && self.streams.is_done()
            && self.appends.is_empty()
            && !self.is_place_due()
    }

    /// Files wait for a place, and one becomes free when `rotate_wait` of a deleted file is over. Runs that are always
    /// shorter than that would never free one.
    fn is_place_due(&self) -> bool {
        let scan_began_ms = self.scans.end_ms.saturating_sub(self.scans.cost_ms);
        let is_due = |source: &Source| {
            source.presence.missing_since_ms().is_some()
                && !self.book.has_waited(source, source.quiet_since_ms(), scan_began_ms)
        };
        self.scans.unfollowed.left_out.files() > 0 && self.book.sources().iter().any(is_due)
    }

    /// Reads what is ready into one append and sends it. False if there was nothing.
    fn fill(&mut self, now: Now) -> Result<bool, Closed> {
        let mut filler = self.appends.begin(now.wall_ms);
        let (book, reader) = (&mut self.book, &mut self.reader);
        while !filler.is_full()
            && let Some(one) = book.next_ending()
        {
            ending::end(book, reader, &mut self.scans.unfollowed, one, &mut filler, now);
        }
        let at_risk = self.appends.stream_bytes();
        let stream_bytes = self.streams.fill(&mut filler, at_risk, &mut self.book.next_id);
        let (book, reader) = (&mut self.book, &mut self.reader);
        book.begin_round();
        while !filler.is_full()
            && let Some(id) = book.next_turn()
        {
            turn(book, reader, id, &mut filler, now);
        }
        let has_sent = self.appends.send(book, &mut self.streams, filler, stream_bytes)?;
        Ok(has_sent | std::mem::take(&mut book.slot.has_worked))
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let files = self.book.sources().iter().map(|source| SourceStatus {
            source: source.id,
            path: source.path().to_path_buf(),
            followed_as: source.first_path().to_path_buf(),
            offset: source.offset,
            size: source.size,
            state: self.state(source),
            rotated: source.rotated_from.is_some() || source.presence.missing_since_ms().is_some(),
            held_open: self.book.files().has(source.id),
            last_error: source.error.as_deref().cloned(),
        });
        let mut sources: Vec<SourceStatus> = files.chain(self.streams.statuses()).collect();
        sources.sort_by_key(|source| source.source);
        let (refused, left_out) = (&self.scans.unfollowed.refused, &self.scans.unfollowed.left_out);
        Snapshot {
            taken_at: SystemTime::now(),
            counters: self.book.counters,
            sources,
            waiting_files: self.scans.unidentified.waiting,
            matched_files: self.scans.matched_files,
            refused: refused.named().map(|(path, why)| (path.clone(), why.clone())).collect(),
            refused_files: refused.files(),
            left_out: LeftOutFiles {
                files: left_out.files(),
                named: left_out.named().to_vec(),
                limit: self.book.sources_max,
                inactive: self.book.sources().inactive(),
            },
            waits_for_log_since: self.appends.oldest_since(),
            buffered_bytes: (self.appends.bytes() + self.streams.held()) as u64,
            done: self.is_done(),
            closed: self.closed,
        }
    }

    fn state(&self, source: &Source) -> SourceState {
        if source.error.is_some() {
            SourceState::Failed
        } else if source.presence == Presence::Inactive {
            SourceState::Inactive
        } else if source.presence.missing_since_ms().is_some() {
            SourceState::Gone
        } else if order::is_blocked(&self.book, source.id) {
            SourceState::Blocked
        } else if source.is_caught_up() {
            SourceState::CaughtUp
        } else {
            SourceState::Reading
        }
    }

    /// The end of the streams: what they have now, and their incomplete lines, which cannot be read again. Reports bytes
    /// that the log has not stored until then.
    pub(crate) fn close_streams(&mut self, now: Now, until: Instant) {
        let mut open = !self.streams.is_done();
        while open && !self.appends.has_slot() {
            open = self.appends.retire(ANSWER_WAIT).is_ok() && Instant::now() < until;
        }
        if open {
            let mut filler = self.appends.begin(now.wall_ms);
            self.streams.look();
            let at_risk = self.appends.stream_bytes();
            let before = self.streams.fill(&mut filler, at_risk, &mut self.book.next_id);
            let held = self.streams.held();
            self.streams.end_all(&mut filler);
            let sent = self.appends.send(&mut self.book, &mut self.streams, filler, before + held);
            open = sent.is_ok();
        }
        while open && self.appends.stream_bytes() > 0 {
            open = self.appends.retire(ANSWER_WAIT).is_ok() && Instant::now() < until;
        }
        let lost = self.appends.stream_bytes() + self.streams.held();
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
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.appends.retire(left).map_err(io::Error::other)?;
            if self.appends.is_empty() || left.is_zero() {
                break;
            }
        }
        match self.appends.is_empty() {
            true => Ok(()),
            // The checkpoint is in the same commit as the lines: if that was made or not, nothing is lost.
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
