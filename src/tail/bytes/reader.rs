//! Reads one source: at most 1 MiB a turn, whole lines only, and never a byte before its identity was checked.
//!
//! One buffer of 256 KiB for all sources. The end of a longer line is searched in chunks; then the line is read whole into a
//! buffer of its own, one at a time, up to `max_line_bytes`.
// long: one way through a file, with each place where it may have changed meanwhile

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::tail::bytes::{Decompressor, Filler, Split, form_of, is_compressed, lines, mtime_ns, read_full};
use crate::tail::known::{
    FINGERPRINT_BYTES, Fingerprint, Form, Likeness, RESUME_POINT_BYTES, Source, crc_before,
};

/// Bytes of one read: about a block, so that a chunk fills one, and little compared with the 10 MiB of the tail. Few for the
/// fuzzer, whose lines are short.
const READ_BYTES: usize = if cfg!(feature = "fuzzing") { RESUME_POINT_BYTES } else { 256 * 1_024 };
/// Bytes of one source in a turn, so that the others have theirs.
pub(crate) const TURN_BYTES: u64 = 1_024 * 1_024;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There may be more to read.
    More,
    /// Every whole line was read.
    CaughtUp,
    /// The file does not have the content of the source any more.
    Changed,
}

/// The result of a first look at a file.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// The length of the file.
    pub(crate) size: u64,
    /// The first bytes of its content, at most what a fingerprint covers.
    pub(crate) start: Vec<u8>,
    /// If it is compressed.
    pub(crate) form: Option<Form>,
}

/// The bytes of a source: those of its file, or of the content if that is compressed.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    Plain(&'a File),
    Compressed(&'a mut Decompressor),
}

impl Body<'_> {
    fn read_at(&mut self, into: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Body::Plain(file) => file.read_at(into, at),
            Body::Compressed(decompressor) => decompressor.read_at(into, at),
        }
    }

    fn read_exact_at(&mut self, into: &mut [u8], at: u64) -> io::Result<()> {
        match read_full(&mut |into, at| self.read_at(into, at), into, at)? {
            read if read == into.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Whether a part that begins at an offset ends in a zero, and a plain file has only zeros behind it. They are taken for
    /// bytes that were allocated and not written yet, where the end of the line may still be written.
    fn is_unwritten_behind(&self, offset: u64, part: &[u8]) -> io::Result<bool> {
        let (Body::Plain(file), Some(&0)) = (self, part.last()) else {
            return Ok(false);
        };
        let size = file.metadata()?.len();
        let mut end = [1; RESUME_POINT_BYTES];
        let back = size.saturating_sub(offset + part.len() as u64).min(RESUME_POINT_BYTES as u64);
        let end = end.get_mut(..back as usize).unwrap_or_default();
        let read = read_full(&mut |into, at| file.read_at(into, at), end, size - back)?;
        Ok(read as u64 == back && end.iter().all(|byte| *byte == 0))
    }

    /// Whether it still has the bytes before `at`: a plain file may be truncated while it is read.
    fn reaches(&self, at: u64) -> io::Result<bool> {
        match self {
            Body::Plain(file) => Ok(file.metadata()?.len() >= at),
            Body::Compressed(_) => Ok(true),
        }
    }
}

/// What was compared of a file and a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    /// How many bytes it has.
    pub(crate) size: u64,
    pub(crate) fingerprint: Likeness,
    pub(crate) before_offset: bool,
    pub(crate) point: Option<u64>,
}

/// Reads sources through one buffer.
#[derive(Debug)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
    /// [`TURN_BYTES`]; less for small files that take many turns.
    pub(crate) turn_bytes: u64,
}

impl Default for Reader {
    fn default() -> Reader {
        let buffer = vec![0; (RESUME_POINT_BYTES + READ_BYTES).max(FINGERPRINT_BYTES)];
        Reader { buffer, turn_bytes: TURN_BYTES }
    }
}

impl Reader {
    /// The first bytes of a file; of the content if it is compressed.
    pub(crate) fn look(&mut self, file: &File) -> io::Result<Look> {
        let size = file.metadata()?.len();
        let start = self.read(&mut Body::Plain(file), 0, FINGERPRINT_BYTES)?;
        if !is_compressed(start) {
            return Ok(Look { size, start: start.to_vec(), form: None });
        }
        Ok(Look { size, start: Decompressor::start_of(file)?, form: Some(form_of(file, size)?) })
    }

    /// Compares a file with a source.
    pub(crate) fn compare(&mut self, file: &File, look: &Look, source: &Source) -> io::Result<Content> {
        let (size, start) = (look.size, look.start.as_slice());
        if let Some(form) = look.form {
            return Ok(compare_compressed(form, start, source));
        }
        let fingerprint = source.fingerprint.compare(start);
        let mut before_offset = source.offset == 0;
        let mut point = None;
        for (offset, crc) in source.resume_points.pairs().rev() {
            // A resume point beyond what the fingerprint covers proves nothing if the beginning is another.
            let is_contradicted =
                offset >= u64::from(source.fingerprint.len) && fingerprint != Likeness::Equal;
            if offset > size || is_contradicted {
                continue;
            }
            let back = offset.min(RESUME_POINT_BYTES as u64);
            let before = self.read(&mut Body::Plain(file), offset - back, back as usize)?;
            if before.len() as u64 == back && crc_before(before) == crc {
                before_offset |= offset == source.offset;
                point = Some(offset);
                break;
            }
        }
        Ok(Content { size, fingerprint, before_offset, point })
    }

    /// Where the shorter of two plain files ends, if they are the same up to there, as far as their beginning and the bytes
    /// before that position prove.
    pub(crate) fn shared(&mut self, one: &File, other: &File, look: &Look) -> io::Result<Option<u64>> {
        let own = self.look(one)?;
        if own.form.is_some() || look.form.is_some() {
            return Ok(None);
        }
        let to = own.size.min(look.size);
        let start = own.start.len().min(look.start.len());
        if own.start.get(..start) != look.start.get(..start) {
            return Ok(None);
        }
        let back = to.min(RESUME_POINT_BYTES as u64);
        let before = self.read(&mut Body::Plain(one), to - back, back as usize)?.to_vec();
        let is_same = self.read(&mut Body::Plain(other), to - back, back as usize)? == before.as_slice();
        Ok((is_same && before.len() as u64 == back).then_some(to))
    }

    /// Reads whole lines of a source into `filler`, and moves its offset. `decompressor`: if its file is compressed.
    pub(crate) fn turn(
        &mut self,
        source: &mut Source,
        file: &File,
        decompressor: Option<&mut Decompressor>,
        line_max: usize,
        filler: &mut Filler,
    ) -> io::Result<Turn> {
        match decompressor {
            None => self.turn_on(file, &mut Body::Plain(file), source, line_max, filler),
            Some(decompressor) => {
                let mut body = Body::Compressed(decompressor);
                let turn = self.turn_on(file, &mut body, source, line_max, filler);
                // It never grows: a rest without a newline is a line now.
                match turn {
                    Ok(Turn::CaughtUp) if source.has_rest() => {
                        self.last_line(&mut body, source, line_max, filler).map(|_| Turn::CaughtUp)
                    }
                    turn => turn,
                }
            }
        }
    }

    fn turn_on(
        &mut self,
        file: &File,
        body: &mut Body<'_>,
        source: &mut Source,
        line_max: usize,
        filler: &mut Filler,
    ) -> io::Result<Turn> {
        let meta = file.metadata()?;
        // If only the time changed, the next scan looks closer.
        let is_another = source.is_another(meta.len(), source.mtime_ns);
        if is_another || !self.is_same_beginning(body, meta.len(), source)? {
            return Ok(Turn::Changed);
        }
        source.unwritten = false;
        if source.compressed.is_none() {
            // An incomplete line was taken back, or a file that was allocated is filled: what was searched has changed.
            if meta.len() < source.searched || meta.len() == source.size {
                source.searched = source.offset;
            }
            // The size and the time together show later whether anything happened; both are from before the reading.
            (source.size, source.mtime_ns) = (meta.len(), mtime_ns(&meta));
        }
        let window_max = READ_BYTES.min(line_max);
        let turn_end = source.offset + self.turn_bytes;
        while source.offset < turn_end && !filler.is_full() {
            let offset = source.offset;
            let back = offset.min(RESUME_POINT_BYTES as u64) as usize;
            if let Body::Compressed(decompressor) = body {
                decompressor.keep_from(offset - back as u64);
            }
            let got = self.read(body, offset - back as u64, back + window_max)?.len();
            // A truncation after the first look shows here: by the size, or by the bytes before the offset.
            let intact = got >= back && body.reaches(offset + (got - back) as u64)?;
            let expected = source.resume_points.crc_at(offset);
            let read = self.buffer.get(..got).unwrap_or_default();
            let (before, window) = read.split_at_checked(back).unwrap_or_default();
            if !intact || offset > 0 && expected != Some(crc_before(before)) {
                return Ok(Turn::Changed);
            }
            source.size = source.size.max(offset + window.len() as u64);
            let split = lines::split(window, source.in_part, window.len() == line_max);
            match split {
                Split::Part if body.is_unwritten_behind(offset, window)? => {
                    source.hold_back(window.iter().all(|byte| *byte == 0));
                    return Ok(Turn::CaughtUp);
                }
                Split::Incomplete if window.len() < window_max => {
                    source.searched = offset + window.len() as u64;
                    return Ok(Turn::CaughtUp);
                }
                Split::Incomplete => {
                    source.searched = source.searched.max(offset + window.len() as u64);
                    if let Some(turn) = self.long_line(body, source, line_max, filler)? {
                        return Ok(turn);
                    }
                }
                Split::Lines(_) | Split::LastPart(_) | Split::Part => {
                    let len = filler.push_split(source.id, offset, window, split, &mut source.in_part);
                    source.advance(offset + len as u64, read.get(..back + len).unwrap_or_default());
                }
            }
        }
        Ok(Turn::More)
    }

    /// Whether the fingerprint still matches; widens it if the file has grown.
    fn is_same_beginning(&mut self, body: &mut Body<'_>, size: u64, source: &mut Source) -> io::Result<bool> {
        let start = self.read(body, 0, FINGERPRINT_BYTES)?;
        let is_other = source.fingerprint.len > 0 && source.fingerprint.compare(start) != Likeness::Equal;
        if is_other && !source.may_be_another(size) {
            return Ok(false);
        }
        if is_other {
            source.searched = 0;
        }
        if source.offset == 0 && !source.is_utf16 && matches!(start, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
            source.is_utf16 = true;
            tracing::warn!(
                path = %source.path().display(),
                "begins with a byte-order mark of UTF-16: its lines are cut at each byte 0x0a, which is not where they \
                 end. Have its writer write UTF-8"
            );
        }
        let print = Fingerprint::of_read(start, source.offset);
        if is_other || print.len != source.fingerprint.len {
            source.fingerprint = print;
        }
        Ok(true)
    }

    /// A line longer than the buffer: searches its end, from where the last search ended, and delivers it whole, or its first
    /// `line_max` bytes as a part. The turn ends if that is not possible yet.
    fn long_line(
        &mut self,
        body: &mut Body<'_>,
        source: &mut Source,
        line_max: usize,
        filler: &mut Filler,
    ) -> io::Result<Option<Turn>> {
        let limit = source.offset + line_max as u64;
        if source.searched >= limit {
            // It was held back, and may have been filled since.
            source.searched = source.offset;
        }
        let end = loop {
            if source.searched >= limit {
                break None;
            }
            let want = (limit - source.searched).min(READ_BYTES as u64) as usize;
            let chunk = self.read(body, source.searched, want)?;
            match memchr::memchr(b'\n', chunk) {
                Some(newline) => break Some(source.searched + newline as u64 + 1),
                None if chunk.is_empty() => {
                    source.size = source.size.max(source.searched);
                    return Ok(Some(Turn::CaughtUp));
                }
                None => source.searched += chunk.len() as u64,
            }
        };
        let to = end.unwrap_or(limit);
        let mut line = vec![0; (to - source.offset) as usize];
        body.read_exact_at(&mut line, source.offset)?;
        if body.is_unwritten_behind(source.offset, &line)? {
            source.hold_back(line.iter().all(|byte| *byte == 0));
            return Ok(Some(Turn::CaughtUp));
        }
        // Read again in one piece: bytes that were searched in chunks may have been overwritten since.
        let ends = usize::from(end.is_some());
        if ends != usize::from(line.last() == Some(&b'\n')) || lines::count(&line) as usize != ends {
            source.searched = source.offset;
            return Ok(Some(Turn::More));
        }
        match (end, source.in_part) {
            (Some(_), false) => filler.push_whole(source.id, source.offset, &line),
            (end, in_part) => {
                let flags = lines::flags(in_part, end.is_some());
                filler.push_marked(source.id, source.offset, &line, flags);
            }
        }
        source.in_part = end.is_none();
        source.size = source.size.max(to);
        source.advance(to, &line);
        Ok(None)
    }

    /// The rest of a file that has ended becomes a line without a newline. False if the file is not quiet after all.
    pub(crate) fn unterminated_end(
        &mut self,
        source: &mut Source,
        file: &File,
        line_max: usize,
        filler: &mut Filler,
    ) -> io::Result<bool> {
        let is_quiet = file.metadata()?.len() == source.size;
        Ok(is_quiet && self.last_line(&mut Body::Plain(file), source, line_max, filler)?)
    }

    /// The bytes behind the offset become a line without a newline, in parts if they are more than a line may be. False if
    /// there is a newline, or if there was room for some parts only. Zeros at the end of a plain file were never written.
    fn last_line(
        &mut self,
        body: &mut Body<'_>,
        source: &mut Source,
        line_max: usize,
        filler: &mut Filler,
    ) -> io::Result<bool> {
        let end = match body {
            Body::Plain(_) => self.written_end(body, source.offset, source.size)?,
            Body::Compressed(_) => source.size,
        };
        while source.offset < end {
            let offset = source.offset;
            let mut part = vec![0; (end - offset).min(line_max as u64) as usize];
            body.read_exact_at(&mut part, offset)?;
            if lines::count(&part) > 0 || filler.is_full() {
                return Ok(false);
            }
            let is_last = part.len() < line_max;
            let flags = lines::flags(source.in_part, is_last);
            let flags = if is_last { flags.unterminated() } else { flags };
            filler.push_marked(source.id, offset, &part, flags);
            let to = offset + part.len() as u64;
            // The bytes before the new offset may reach back beyond the part.
            let before = match part.len() < RESUME_POINT_BYTES {
                true => {
                    let back = to.min(RESUME_POINT_BYTES as u64);
                    self.read(body, to - back, back as usize)?.to_vec()
                }
                false => part,
            };
            source.advance(to, &before);
            (source.in_part, source.unterminated) = (!is_last, is_last);
        }
        source.hold_back(true);
        Ok(true)
    }

    /// Where the zeros begin that are before `to`, not before `from`.
    fn written_end(&mut self, body: &mut Body<'_>, from: u64, mut to: u64) -> io::Result<u64> {
        while from < to {
            let begin = to.saturating_sub(READ_BYTES as u64).max(from);
            let read = self.read(body, begin, (to - begin) as usize)?;
            if (read.len() as u64) < to - begin {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match read.iter().rposition(|byte| *byte != 0) {
                Some(last) => return Ok(begin + last as u64 + 1),
                None => to = begin,
            }
        }
        Ok(to)
    }

    /// The bytes before an offset, as many as a resume point covers.
    pub(crate) fn before(&mut self, file: &File, offset: u64) -> io::Result<Vec<u8>> {
        let back = offset.min(RESUME_POINT_BYTES as u64);
        Ok(self.read(&mut Body::Plain(file), offset - back, back as usize)?.to_vec())
    }

    /// The beginning of the line that `size` is in: where reading from the end starts. A line longer than `line_max` is entered
    /// at `size`.
    pub(crate) fn last_line_start(&mut self, file: &File, size: u64, line_max: usize) -> io::Result<u64> {
        let mut to = size;
        while to > 0 && size - to < line_max as u64 {
            let back = to.min(READ_BYTES as u64);
            let chunk = self.read(&mut Body::Plain(file), to - back, back as usize)?;
            if let Some(newline) = memchr::memrchr(b'\n', chunk) {
                return Ok(to - back + newline as u64 + 1);
            }
            to -= back;
        }
        Ok(if to == 0 { 0 } else { size })
    }

    /// Reads up to `len` bytes at `at`; fewer only at the end.
    fn read(&mut self, body: &mut Body<'_>, at: u64, len: usize) -> io::Result<&[u8]> {
        let free = self.buffer.get_mut(..len).unwrap_or_default();
        let got = read_full(&mut |into, at| body.read_at(into, at), free, at)?;
        Ok(self.buffer.get(..got).unwrap_or_default())
    }
}

/// A compressed file is the source that it was checked for, by its form, or one of which nothing was read. Whether it is
/// another source, the check finds out.
fn compare_compressed(form: Form, start: &[u8], source: &Source) -> Content {
    let is_it = source.compressed.as_ref().is_some_and(|compressed| {
        compressed.whole().is_none()
            || compressed.form == form && source.fingerprint.compare(start) != Likeness::Differs
    });
    match is_it {
        true => Content {
            size: source.size,
            fingerprint: Likeness::Equal,
            before_offset: true,
            point: Some(source.offset),
        },
        false => Content { size: 0, fingerprint: Likeness::Differs, before_offset: false, point: None },
    }
}
