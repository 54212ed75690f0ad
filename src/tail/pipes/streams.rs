//! The streams: standard input and FIFOs, whose bytes cannot be read again.
//!
//! Bytes of a stream that are read and not yet durable are lost when the process dies, so they are few: [`AT_RISK_BYTES`]
//! of all streams wait for the log, and [`HELD_BYTES_MAX`] are incomplete lines. While the log is full nothing is read: the
//! pipe fills up, and its writer waits. A FIFO is a source by its inode, from its first byte on and for this run of the
//! process; it does not end while the service runs. Standard input does.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use spillq_storage::SourceId;

use crate::queue::Append;
use crate::tail::bell::Bell;
use crate::tail::bytes::{Filler, open_fifo};
use crate::tail::error::TailError;
use crate::tail::find::{Follows, Found, Refused};
use crate::tail::pipes::pipe::Pipe;
use crate::tail::pipes::stream::InputStream;
use crate::tail::pipes::wait::{Edge, Waiter};
use crate::tail::status::SourceStatus;
use crate::unreadable::WhyUnreadable;

/// FIFOs and standard input together: a descriptor each, and they share the bytes that may be held and at risk.
pub(crate) const STREAMS_MAX: usize = 64;
/// Bytes of all streams that the log has not answered: a kill loses no more. As much as one append.
const AT_RISK_BYTES: usize = 2 * 1_024 * 1_024;
/// Bytes of all streams in one append, so that files have their turns and two appends are in flight.
const APPEND_BYTES: usize = AT_RISK_BYTES / 2;
/// Incomplete lines of all streams together: one of the greatest length. Above it the longest is cut.
pub(crate) const HELD_BYTES_MAX: usize = spillq_storage::BlockBuilder::LINE_BYTES_MAX;
/// One read: what a pipe holds.
const READ_BYTES: usize = 64 * 1_024;

/// All streams.
#[derive(Debug)]
pub(crate) struct InputStreams {
    /// Everything is read once: a FIFO ends with its last writer.
    once: bool,
    waiter: Waiter,
    streams: BTreeMap<u64, InputStream>,
    next_key: u64,
    /// Those that wait for a read, in turn.
    ready: VecDeque<u64>,
    buffer: Vec<u8>,
    /// Last checkpoints of those that have ended.
    finals: Vec<(SourceId, Bytes)>,
}

impl InputStreams {
    pub(crate) fn new(once: bool) -> io::Result<InputStreams> {
        Ok(InputStreams {
            once,
            waiter: Waiter::new()?,
            streams: BTreeMap::new(),
            next_key: 1,
            ready: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
            finals: Vec::new(),
        })
    }

    /// What ends a wait of the tail.
    pub(crate) fn bell(&self) -> Bell {
        self.waiter.bell()
    }

    /// A stream that an earlier run did not read to its end: reported, and forgotten with the first append.
    pub(crate) fn forget(&mut self, id: SourceId, name: &Path, offset: u64, record: Bytes) {
        tracing::warn!(
            stream = %name.display(), stored_bytes = offset,
            "a stream was being read when the last run died: bytes that were read and not stored are lost"
        );
        self.finals.push((id, record));
    }

    /// Begins with standard input.
    ///
    /// # Errors
    /// If nothing can be read from it.
    pub(crate) fn follow_input(&mut self, fd: BorrowedFd<'_>, line_max: usize) -> Result<(), TailError> {
        let pipe = Pipe::input(fd).map_err(TailError::Input)?;
        report_begin("standard input");
        self.begin("stdin".into(), None, pipe, line_max).map_err(TailError::Input)
    }

    fn begin(
        &mut self,
        path: PathBuf,
        fifo: Option<(u64, u64)>,
        pipe: Pipe,
        line_max: usize,
    ) -> io::Result<()> {
        let key = self.next_key;
        self.next_key += 1;
        self.waiter.add(&pipe, key)?;
        let mut stream = InputStream::new(key, path, fifo, pipe, line_max);
        stream.queued = true;
        self.ready.push_back(key);
        self.streams.insert(key, stream);
        Ok(())
    }

    /// Notices what has become readable.
    pub(crate) fn look(&mut self) {
        if !self.streams.is_empty() {
            let edges = self.waiter.look();
            self.queue(edges);
        }
    }

    /// Waits until something becomes readable, or the bell rings.
    pub(crate) fn wait(&mut self, ms: u64) {
        let edges = self.waiter.wait(ms);
        self.queue(edges);
    }

    fn queue(&mut self, edges: Vec<Edge>) {
        for edge in edges {
            if let Some(stream) = self.streams.get_mut(&edge.key).filter(|stream| stream.pipe.is_some()) {
                stream.has_writer |= edge.hung_up;
                if !std::mem::replace(&mut stream.queued, true) {
                    self.ready.push_back(edge.key);
                }
            }
        }
    }

    /// Something is there to be read.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// All have ended, and their last checkpoints are sent.
    pub(crate) fn is_done(&self) -> bool {
        self.finals.is_empty() && self.streams.values().all(|stream| stream.pipe.is_none())
    }

    /// A FIFO is followed at this path.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.streams.values().any(|stream| stream.fifo.is_some() && stream.path == path)
    }

    /// Reads what is there into `filler`, in turn, unless too much waits for the log, where `at_risk` bytes of streams are.
    /// Returns how many bytes of the append are of streams.
    pub(crate) fn fill(&mut self, filler: &mut Filler, at_risk: usize, next_source: &mut SourceId) -> usize {
        let before = filler.bytes();
        let bytes_max = AT_RISK_BYTES.saturating_sub(at_risk).min(APPEND_BYTES);
        let mut read = 0;
        while read < bytes_max && !filler.is_full() {
            let Some(key) = self.ready.pop_front() else {
                break;
            };
            read += self.read(key, filler, next_source);
        }
        filler.bytes() - before
    }

    fn read(&mut self, key: u64, filler: &mut Filler, next_source: &mut SourceId) -> usize {
        let Some(stream) = self.streams.get_mut(&key) else { return 0 };
        stream.queued = false;
        let Some(pipe) = &mut stream.pipe else { return 0 };
        let len = match pipe.read(&mut self.buffer) {
            Ok(0) => {
                let has_writer = std::mem::take(&mut stream.has_writer);
                if stream.fifo.is_none() {
                    tracing::info!("standard input has ended: all of it is ingested");
                    self.end(key, filler);
                } else if stream.gone || self.once && has_writer {
                    self.end(key, filler);
                } else {
                    // The next writer begins a new line.
                    stream.end_line(filler);
                }
                return 0;
            }
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => {
                tracing::error!(stream = %stream.name(), %error, "a stream cannot be read any more, and ends here");
                stream.error = Some(format!("read {}: {error}", stream.name()));
                self.end(key, filler);
                return 0;
            }
        };
        if len > 0 {
            stream.has_writer = true;
            if stream.id().is_none() {
                stream.begin(*next_source, filler.now_ms);
                next_source.0 += 1;
            }
            stream.take(self.buffer.get(..len).unwrap_or_default(), filler);
        }
        stream.queued = true;
        self.ready.push_back(key);
        self.bound_held(filler);
        len
    }

    /// Cuts the longest incomplete line if all together take too much.
    fn bound_held(&mut self, filler: &mut Filler) {
        if self.held() > HELD_BYTES_MAX
            && let Some(longest) = self.streams.values_mut().max_by_key(|stream| stream.held())
        {
            longest.cut(filler);
        }
    }

    fn end(&mut self, key: u64, filler: &mut Filler) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        stream.end_line(filler);
        stream.pipe = None;
        self.finals.extend(stream.take_checkpoint());
        // Those that have ended are shown for a while; standard input that never was a source is not.
        let ended = self.streams.values().filter(|stream| stream.pipe.is_none());
        let surplus = ended.clone().count().saturating_sub(STREAMS_MAX);
        let dropped: Vec<u64> = ended.map(|stream| stream.key).take(surplus).collect();
        self.streams.retain(|key, stream| {
            !dropped.contains(key)
                && (stream.pipe.is_some() || stream.fifo.is_some() || stream.id().is_some())
        });
    }

    /// All that are still open end here, as the process does.
    pub(crate) fn end_all(&mut self, filler: &mut Filler) {
        let open: Vec<u64> =
            self.streams.values().filter(|stream| stream.pipe.is_some()).map(|stream| stream.key).collect();
        for key in open {
            self.end(key, filler);
        }
    }

    /// Bytes of incomplete lines.
    pub(crate) fn held(&self) -> usize {
        self.streams.values().map(InputStream::held).sum()
    }

    /// The checkpoints that go with the lines of this append.
    pub(crate) fn give_checkpoints(&mut self, append: &mut Append) {
        let dirty = self.streams.values_mut().filter(|stream| stream.dirty);
        append.checkpoints.extend(dirty.filter_map(InputStream::take_checkpoint));
        append.forget.extend(self.finals.iter().map(|last| last.0));
        append.checkpoints.append(&mut self.finals);
    }

    pub(crate) fn statuses(&self) -> impl Iterator<Item = SourceStatus> {
        self.streams.values().filter_map(InputStream::status)
    }

    /// The FIFOs that a scan found, of those that `include` names by their whole path. `unlisted`: folders that could not be
    /// listed. What cannot be followed goes into `refused`.
    pub(crate) fn follow_fifos(
        &mut self,
        found: Vec<Found>,
        unlisted: &[PathBuf],
        follows: &Follows,
        refused: &mut Refused,
    ) {
        for stream in self.streams.values_mut() {
            let Some(fifo) = stream.fifo.filter(|_| stream.pipe.is_some()) else { continue };
            let is_there = found.iter().any(|found| (found.device, found.inode) == fifo)
                || unlisted.iter().any(|folder| stream.path.starts_with(folder));
            stream.gone = !is_there;
            // If no process has it open for writing, it ends with this.
            if stream.gone && !std::mem::replace(&mut stream.queued, true) {
                self.ready.push_back(stream.key);
            }
        }
        for found in found {
            // If everything is read once, one that has ended does not begin again.
            let count = self.streams.values().filter(|stream| self.once || stream.pipe.is_some());
            if count.clone().any(|stream| stream.fifo == Some((found.device, found.inode))) {
                continue;
            }
            if count.count() >= STREAMS_MAX {
                refused.add(&found.path, WhyUnreadable::TooMany, || {
                    format!("a FIFO more than the {STREAMS_MAX} streams that are followed at once")
                });
            } else if let Err(why) = self.follow_fifo(&found, follows) {
                refused.add(&found.path, WhyUnreadable::System, || why);
            }
        }
    }

    fn follow_fifo(&mut self, found: &Found, follows: &Follows) -> Result<(), String> {
        let way = follows.way(found.follow, &found.path);
        let (file, meta) = open_fifo(&found.path, way).map_err(|error| error.to_string())?;
        let line_max = follows.line_max(found.follow.unwrap_or_default());
        let fifo = Some((meta.dev(), meta.ino()));
        report_begin(&format!("the FIFO {}", found.path.display()));
        let begun = self.begin(found.path.clone(), fifo, Pipe::Ready(file), line_max);
        begun.map_err(|error| format!("watch {}: {error}", found.path.display()))
    }
}

fn report_begin(what: &str) {
    tracing::info!(
        "{what} is followed: a line is safe once it is in the log; bytes that were read and not stored yet cannot be \
         read again after a crash, unlike those of files"
    );
}
