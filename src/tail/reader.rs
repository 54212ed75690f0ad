//! Reads one source: at most 1 MiB a turn, whole lines only, never a byte that its identity was not checked for.
//!
//! One buffer of 256 KiB for all sources. A line longer than that is looked for in chunks and read whole into a
//! buffer of its own, one at a time, up to `max_line_bytes`.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use spillq_storage::LineFlags;

use super::fill::Filler;
use super::identity::{FINGERPRINT_BYTES, Fingerprint, Likeness, RUNG_BYTES, crc_before};
use super::lines::{self, Split};
use super::source::Source;

/// Bytes of one read: about a block, so that a chunk goes into one, and small beside the 4 MiB of the tail.
const READ_BYTES: usize = 256 * 1_024;
/// Bytes of one source in a turn, so that the others come to theirs.
pub(crate) const TURN_BYTES: u64 = 1_024 * 1_024;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There may be more to read.
    More,
    /// Every whole line was read.
    CaughtUp,
    /// The file's content is not the source's any more.
    Changed,
}

/// What was compared of a file and a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) fingerprint: Likeness,
    pub(crate) before_offset: bool,
    pub(crate) rung: Option<u64>,
}

/// The modification time in nanoseconds since 1970.
pub(crate) fn mtime_ns(meta: &Metadata) -> i64 {
    meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec())
}

/// Reads sources through one buffer.
#[derive(Debug)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
    /// [`TURN_BYTES`]; less for small files that take many turns.
    pub(crate) turn_bytes: u64,
}

impl Reader {
    pub(crate) fn new() -> Reader {
        Reader { buffer: vec![0; RUNG_BYTES + READ_BYTES], turn_bytes: TURN_BYTES }
    }

    /// The first bytes of a file, at most what a fingerprint covers.
    pub(crate) fn start(&mut self, file: &File) -> io::Result<Vec<u8>> {
        Ok(self.read(file, 0, FINGERPRINT_BYTES)?.to_vec())
    }

    /// Compares a file of `size` bytes that begins with `start` with a source.
    pub(crate) fn compare(
        &mut self,
        file: &File,
        size: u64,
        start: &[u8],
        source: &Source,
    ) -> io::Result<Content> {
        let fingerprint = source.fingerprint.compare(start);
        let mut before_offset = source.offset == 0;
        let mut rung = None;
        for (offset, crc) in source.ladder.pairs().rev() {
            // A rung beyond what the fingerprint covers says nothing where the beginning is another.
            let spoken_against =
                offset >= u64::from(source.fingerprint.len) && fingerprint != Likeness::Equal;
            if offset > size || spoken_against {
                continue;
            }
            let back = offset.min(RUNG_BYTES as u64);
            let before = self.read(file, offset - back, back as usize)?;
            if before.len() as u64 == back && crc_before(before) == crc {
                before_offset |= offset == source.offset;
                rung = Some(offset);
                break;
            }
        }
        Ok(Content { fingerprint, before_offset, rung })
    }

    /// Reads whole lines of an open source into `filler`, and moves its offset.
    pub(crate) fn turn(
        &mut self,
        source: &mut Source,
        line_max: usize,
        filler: &mut Filler,
    ) -> io::Result<Turn> {
        let Some(file) = source.file.take() else {
            return Ok(Turn::Changed);
        };
        let turn = self.turn_on(&file, source, line_max, filler);
        source.file = Some(file);
        turn
    }

    fn turn_on(
        &mut self,
        file: &File,
        source: &mut Source,
        line_max: usize,
        filler: &mut Filler,
    ) -> io::Result<Turn> {
        let meta = file.metadata()?;
        if meta.len() < source.offset || !self.is_same_beginning(file, source)? {
            return Ok(Turn::Changed);
        }
        // The size and the time together say later whether anything happened; both are from before the reading.
        (source.size, source.mtime_ns) = (meta.len(), mtime_ns(&meta));
        let window_max = READ_BYTES.min(line_max);
        let turn_end = source.offset + self.turn_bytes;
        while source.offset < turn_end && !filler.is_full() {
            let offset = source.offset;
            let back = offset.min(RUNG_BYTES as u64) as usize;
            let got = self.read(file, offset - back as u64, back + window_max)?.len();
            // A truncation after the first look shows here: either the size or the bytes before the offset.
            let intact = got >= back && file.metadata()?.len() >= offset + (got - back) as u64;
            let expected = source.ladder.crc_at(offset);
            let read = self.buffer.get(..got).unwrap_or_default();
            let (before, window) = read.split_at_checked(back).unwrap_or_default();
            if !intact || offset > 0 && expected != Some(crc_before(before)) {
                return Ok(Turn::Changed);
            }
            source.size = source.size.max(offset + window.len() as u64);
            match lines::split(window, source.in_part, window.len() == line_max) {
                Split::Lines(len) => {
                    filler.push_whole(source.id, offset, window.get(..len).unwrap_or_default());
                    source.advance(offset + len as u64, read.get(..back + len).unwrap_or_default());
                }
                Split::LastPart(len) => {
                    let part = window.get(..len).unwrap_or_default();
                    filler.push_marked(source.id, offset, part, LineFlags::LAST);
                    source.in_part = false;
                    source.advance(offset + len as u64, read.get(..back + len).unwrap_or_default());
                }
                Split::Part => {
                    let flags = if source.in_part { LineFlags::MIDDLE } else { LineFlags::FIRST };
                    filler.push_marked(source.id, offset, window, flags);
                    source.in_part = true;
                    source.advance(offset + window.len() as u64, read);
                }
                Split::Incomplete if window.len() < window_max => {
                    source.scanned = offset + window.len() as u64;
                    return Ok(Turn::CaughtUp);
                }
                Split::Incomplete => {
                    source.scanned = source.scanned.max(offset + window.len() as u64);
                    if !self.long_line(file, source, line_max, filler)? {
                        return Ok(Turn::CaughtUp);
                    }
                }
            }
        }
        Ok(Turn::More)
    }

    /// Whether the fingerprint still holds; widens it where the file has grown.
    fn is_same_beginning(&mut self, file: &File, source: &mut Source) -> io::Result<bool> {
        let start = self.read(file, 0, FINGERPRINT_BYTES)?;
        if source.fingerprint.len > 0 && source.fingerprint.compare(start) != Likeness::Equal {
            return Ok(false);
        }
        if source.offset == 0 && !source.wide && matches!(start, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
            source.wide = true;
            tracing::warn!(
                path = %source.path.display(),
                "begins with a byte-order mark of UTF-16: its lines are cut at each byte 0x0a, which is not where they \
                 end; let its writer write UTF-8"
            );
        }
        if start.len() > usize::from(source.fingerprint.len) {
            source.fingerprint = Fingerprint::of(start);
        }
        Ok(true)
    }

    /// A line longer than the buffer: finds its end, from where the last look ended, and hands it on whole or its
    /// first `line_max` bytes as a part. False where it has not ended yet.
    fn long_line(
        &mut self,
        file: &File,
        source: &mut Source,
        line_max: usize,
        filler: &mut Filler,
    ) -> io::Result<bool> {
        let limit = source.offset + line_max as u64;
        let end = loop {
            if source.scanned >= limit {
                break None;
            }
            let want = (limit - source.scanned).min(READ_BYTES as u64) as usize;
            let chunk = self.read(file, source.scanned, want)?;
            match memchr::memchr(b'\n', chunk) {
                Some(newline) => break Some(source.scanned + newline as u64 + 1),
                None if chunk.is_empty() => {
                    source.size = source.size.max(source.scanned);
                    return Ok(false);
                }
                None => source.scanned += chunk.len() as u64,
            }
        };
        let to = end.unwrap_or(limit);
        let mut line = vec![0; (to - source.offset) as usize];
        file.read_exact_at(&mut line, source.offset)?;
        let whole = end.is_some() && !source.in_part;
        // Read again in one piece: what was scanned in chunks may have been overwritten since.
        if end.is_some() != (line.last() == Some(&b'\n')) || whole && lines::count(&line) != 1 {
            source.scanned = source.offset;
            return Ok(false);
        }
        match (end, source.in_part) {
            (Some(_), false) => filler.push_whole(source.id, source.offset, &line),
            (Some(_), true) => filler.push_marked(source.id, source.offset, &line, LineFlags::LAST),
            (None, false) => filler.push_marked(source.id, source.offset, &line, LineFlags::FIRST),
            (None, true) => filler.push_marked(source.id, source.offset, &line, LineFlags::MIDDLE),
        }
        source.in_part = end.is_none();
        source.size = source.size.max(to);
        source.advance(to, &line);
        Ok(true)
    }

    /// The rest of a finished file becomes a line without a newline. False where the file is not quiet after all.
    pub(crate) fn unterminated_end(&mut self, source: &mut Source, filler: &mut Filler) -> io::Result<bool> {
        let Some(file) = source.file.take() else {
            return Ok(false);
        };
        let size = file.metadata().map(|meta| meta.len());
        let mut rest = vec![0; source.size.saturating_sub(source.offset) as usize];
        let read = file.read_exact_at(&mut rest, source.offset);
        source.file = Some(file);
        read?;
        if size? != source.size || rest.is_empty() || lines::count(&rest) > 0 {
            return Ok(false);
        }
        let flags = if source.in_part { LineFlags::LAST } else { LineFlags::WHOLE };
        filler.push_marked(source.id, source.offset, &rest, flags.unterminated());
        // The bytes before the new offset may reach back beyond the rest.
        let back = source.size.min(RUNG_BYTES as u64);
        let file = source.file.take();
        let before = match &file {
            Some(file) => self.read(file, source.size - back, back as usize)?.to_vec(),
            None => rest,
        };
        source.file = file;
        source.in_part = false;
        source.advance(source.size, &before);
        source.unterminated = true;
        Ok(true)
    }

    /// Sets the offset of a source that is not read from its beginning.
    pub(crate) fn skip_to(&mut self, file: &File, source: &mut Source, offset: u64) -> io::Result<()> {
        let back = offset.min(RUNG_BYTES as u64);
        let before = self.read(file, offset - back, back as usize)?.to_vec();
        source.ladder.climb(offset, &before);
        (source.offset, source.scanned) = (offset, offset);
        source.in_part = false;
        source.dirty = true;
        Ok(())
    }

    /// The beginning of the line that `size` lies in: where reading from the end starts. A line longer than
    /// `line_max` is entered at `size`.
    pub(crate) fn last_line_start(&mut self, file: &File, size: u64, line_max: usize) -> io::Result<u64> {
        let mut to = size;
        while to > 0 && size - to < line_max as u64 {
            let back = to.min(READ_BYTES as u64);
            let chunk = self.read(file, to - back, back as usize)?;
            if let Some(newline) = memchr::memrchr(b'\n', chunk) {
                return Ok(to - back + newline as u64 + 1);
            }
            to -= back;
        }
        Ok(if to == 0 { 0 } else { size })
    }

    /// Reads up to `len` bytes at `at`; fewer only at the end of the file.
    fn read(&mut self, file: &File, at: u64, len: usize) -> io::Result<&[u8]> {
        let mut got = 0;
        while got < len {
            let Some(room) = self.buffer.get_mut(got..len) else {
                break;
            };
            match file.read_at(room, at + got as u64) {
                Ok(0) => break,
                Ok(read) => got += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.buffer.get(..got).unwrap_or_default())
    }
}
