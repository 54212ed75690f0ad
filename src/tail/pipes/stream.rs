//! One stream: bytes that can be read once and go into lines.
//!
//! A file keeps its bytes, a stream does not: the incomplete last line is held in memory, up to `max_line_bytes`, then it
//! becomes a part. Its checkpoint names it and counts its bytes; no stream is ever identified by it.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use memchr::memchr;
use spillq_storage::{LineFlags, SourceId};

use crate::tail::bytes::{Filler, flags, split};
use crate::tail::known::SourceRecord;
use crate::tail::pipes::pipe::Pipe;
use crate::tail::status::{SourceState, SourceStatus};
use crate::unreadable::{Unreadable, WhyUnreadable};

/// An empty buffer of an incomplete line shrinks to this.
const HOLDER_BYTES: usize = 256 * 1_024;

/// Standard input, or a FIFO.
#[derive(Debug, Default)]
pub(crate) struct InputStream {
    /// Identifies it to the waiter.
    pub(crate) key: u64,
    /// `stdin`, or the path of the FIFO.
    pub(crate) path: PathBuf,
    /// Device and inode of a FIFO; `None` for standard input, which ends.
    pub(crate) fifo: Option<(u64, u64)>,
    /// `None` once it has ended.
    pub(crate) pipe: Option<Pipe>,
    /// It waits for a read.
    pub(crate) queued: bool,
    /// A process has written, or had it open, since none had.
    pub(crate) has_writer: bool,
    /// Its path does not lead to it any more: it ends with its last writer.
    pub(crate) gone: bool,
    pub(crate) error: Option<String>,
    /// The log does not have its newest checkpoint.
    pub(crate) dirty: bool,
    /// From its first byte on, with its name in the log.
    source: Option<(SourceId, PathBuf)>,
    line_max: usize,
    /// The end of the last line delivered to the log.
    offset: u64,
    in_part: bool,
    /// The bytes behind it.
    held: Vec<u8>,
    /// No newline is in this many of them.
    searched: usize,
}

impl InputStream {
    pub(crate) fn new(
        key: u64,
        path: PathBuf,
        fifo: Option<(u64, u64)>,
        pipe: Pipe,
        line_max: usize,
    ) -> InputStream {
        InputStream { key, path, fifo, pipe: Some(pipe), line_max, ..InputStream::default() }
    }

    /// Its number in the log, once it has one.
    pub(crate) fn id(&self) -> Option<SourceId> {
        self.source.as_ref().map(|source| source.0)
    }

    /// Bytes in memory that are not a line yet.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// It becomes a source. The time makes its name unique: offsets begin at 0 with each stream.
    pub(crate) fn begin(&mut self, id: SourceId, now_ms: u64) {
        let time = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(now_ms));
        let mut name = self.path.clone().into_os_string();
        name.push(format!("@{time}"));
        self.source = Some((id, name.into()));
    }

    /// Makes lines of bytes that were read. It must have begun.
    pub(crate) fn take(&mut self, bytes: &[u8], filler: &mut Filler) {
        let Some(id) = self.id() else { return };
        self.reserve(bytes.len());
        self.held.extend_from_slice(bytes);
        let mut from = 0;
        loop {
            let rest = self.held.get(from..).unwrap_or_default();
            let window = rest.get(..self.line_max).unwrap_or(rest);
            // A long line that grows is not searched from its beginning each time.
            let known = self.searched.saturating_sub(from).min(window.len());
            let is_cut = window.len() == self.line_max;
            if !is_cut && memchr(b'\n', window.get(known..).unwrap_or_default()).is_none() {
                break;
            }
            let split = split(window, self.in_part, is_cut);
            let len = filler.push_split(id, self.offset, window, split, &mut self.in_part);
            if len == 0 {
                break;
            }
            self.advance(len);
            from += len;
        }
        self.held.drain(..from);
        self.searched = self.held.len();
        if self.held.capacity() > HOLDER_BYTES && self.held.len() < HOLDER_BYTES / 2 {
            self.held.shrink_to(HOLDER_BYTES);
        }
    }

    /// The held bytes become a part of their line, before they are as long as a part may be.
    pub(crate) fn cut(&mut self, filler: &mut Filler) {
        self.in_part |= self.deliver(flags(self.in_part, false), filler);
    }

    /// The incomplete line is a line without a newline: no process will write the rest.
    pub(crate) fn end_line(&mut self, filler: &mut Filler) {
        self.deliver(flags(self.in_part, true).unterminated(), filler);
        self.in_part = false;
    }

    fn deliver(&mut self, flags: LineFlags, filler: &mut Filler) -> bool {
        let held = std::mem::take(&mut self.held);
        self.searched = 0;
        let Some(id) = self.id().filter(|_| !held.is_empty()) else {
            return false;
        };
        filler.push_marked(id, self.offset, &held, flags);
        self.advance(held.len());
        true
    }

    fn advance(&mut self, len: usize) {
        self.offset += len as u64;
        self.dirty = true;
    }

    /// Space for more: doubled as usual, but not beyond the length of a line.
    fn reserve(&mut self, more: usize) {
        let needed = self.held.len() + more;
        if needed > self.held.capacity() {
            let doubled = (2 * self.held.capacity()).min(self.line_max).max(needed);
            self.held.reserve_exact(doubled - self.held.len());
        }
    }

    /// Its checkpoint: that of a source which is never read again, as its bytes cannot be.
    pub(crate) fn take_checkpoint(&mut self) -> Option<(SourceId, Bytes)> {
        self.dirty = false;
        let (id, name) = self.source.as_ref()?;
        let record = SourceRecord::of_finished(name, None, self.offset).encode();
        let record = record
            .inspect_err(|error| tracing::error!(%error, "the checkpoint of a stream cannot be written"));
        Some((*id, record.ok()?))
    }

    pub(crate) fn status(&self) -> Option<SourceStatus> {
        let (id, name) = self.source.as_ref()?;
        let state = match (&self.error, &self.pipe) {
            (Some(_), _) => SourceState::Failed,
            (None, Some(_)) => SourceState::Stream,
            (None, None) => SourceState::Ended,
        };
        Some(SourceStatus {
            source: *id,
            path: name.clone(),
            followed_as: self.path.clone(),
            offset: self.offset,
            size: self.offset + self.held.len() as u64,
            state,
            rotated: false,
            held_open: self.pipe.is_some(),
            last_error: self.error.clone().map(|found| Unreadable { why: WhyUnreadable::System, found }),
        })
    }

    /// Its name, for messages.
    pub(crate) fn name(&self) -> std::path::Display<'_> {
        let name: &Path = self.source.as_ref().map_or(&self.path, |source| &source.1);
        name.display()
    }
}

#[cfg(test)]
mod tests {
    use spillq_storage::{Line, Seq};

    use super::*;

    /// Lines as they were delivered: part, whether it has no newline, offset and bytes.
    fn lines(blocks: Filler) -> Vec<(Option<&'static str>, bool, u64, Vec<u8>)> {
        let mut lines = Vec::new();
        for block in blocks.finish() {
            let block = block.numbered(0, Seq::FIRST);
            let line = |line: Line<'_>| {
                (line.flags.part(), line.flags.is_unterminated(), line.offset, line.bytes.to_vec())
            };
            lines.extend(block.lines().map(line));
        }
        lines
    }

    fn stream(line_max: usize) -> InputStream {
        let pipe = Pipe::Ready(tempfile::tempfile().unwrap());
        let mut stream = InputStream::new(1, "stdin".into(), None, pipe, line_max);
        stream.begin(SourceId(1), 0);
        stream
    }

    #[test]
    fn its_name_says_when_it_began() {
        let mut stream = stream(8);
        assert_eq!(stream.name().to_string(), "stdin@1970-01-01T00:00:00.000Z");
        assert_eq!(stream.take_checkpoint().unwrap().0, SourceId(1));
    }

    #[test]
    fn lines_longer_than_the_limit_are_cut_as_those_of_files_are() {
        let mut stream = stream(8);
        let mut filler = Filler::begin(0, 1 << 20);
        stream.take(b"1234567\n12345678\n123456789abcdefgh\nx\ny", &mut filler);
        stream.end_line(&mut filler);
        let found = lines(filler);
        let found: Vec<_> = found.iter().map(|line| (line.0, line.1, line.2, &line.3[..])).collect();
        assert_eq!(
            found,
            [
                (None, false, 0, &b"1234567\n"[..]),
                (Some("first"), false, 8, b"12345678"),
                (Some("last"), false, 16, b"\n"),
                (Some("first"), false, 17, b"12345678"),
                (Some("middle"), false, 25, b"9abcdefg"),
                (Some("last"), false, 33, b"h\n"),
                (None, false, 35, b"x\n"),
                (None, true, 37, b"y"),
            ]
        );
    }

    proptest::proptest! {
        /// However the bytes are cut on their way, the same lines come out of them.
        #[test]
        fn lines_do_not_depend_on_how_bytes_come(
            bytes in proptest::collection::vec(proptest::prop_oneof![proptest::strategy::Just(b'\n'), 0_u8..], 0..200),
            cuts in proptest::collection::vec(1_usize..40, 0..40),
            line_max in 1_usize..30,
        ) {
            let mut whole = stream(line_max);
            let mut at_once = Filler::begin(0, 1 << 20);
            whole.take(&bytes, &mut at_once);
            whole.end_line(&mut at_once);
            let mut cut = stream(line_max);
            let mut in_bits = Filler::begin(0, 1 << 20);
            let mut rest = &bytes[..];
            for len in cuts.into_iter().chain([usize::MAX]) {
                let (piece, more) = rest.split_at(len.min(rest.len()));
                cut.take(piece, &mut in_bits);
                proptest::prop_assert!(cut.held() < line_max);
                rest = more;
            }
            cut.end_line(&mut in_bits);
            let (at_once, in_bits) = (lines(at_once), lines(in_bits));
            let all: Vec<u8> = at_once.iter().flat_map(|line| line.3.clone()).collect();
            proptest::prop_assert_eq!(&all, &bytes);
            proptest::prop_assert_eq!(at_once, in_bits);
        }
    }
}
