//! The check of a compressed file: decompresses it to its end once, and compares on the way with the sources that begin as
//! it does.
//!
//! Memory does not grow: of the content only the 256 bytes before the position are retained. `rules::checked` decides which
//! source the file is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use spillq_storage::SourceId;

use crate::tail::bytes::{Decompressor, read_full};
use crate::tail::known::{Form, RESUME_POINT_BYTES, Source, Whole, crc_before};

/// What is compared with a source that begins as the file does.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) id: SourceId,
    /// Its resume points when the check began, rising, and how many of them are compared.
    points: Vec<(u64, u32)>,
    next: usize,
    /// Offsets of the resume points that match, rising.
    matched: Vec<u64>,
    /// Its file is compared byte by byte.
    pub(crate) is_compared: bool,
    /// The same, as long as it has the same bytes.
    file: Option<File>,
}

impl Candidate {
    pub(crate) fn new(source: &Source, file: Option<File>) -> Candidate {
        Candidate {
            id: source.id,
            points: source.resume_points.pairs().collect(),
            next: 0,
            matched: Vec::new(),
            is_compared: file.is_some(),
            file,
        }
    }

    /// Whether its file begins with all of the content.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.file.is_some()
    }

    /// Whether the bytes before `offset` were looked at.
    pub(crate) fn knows(&self, offset: u64) -> bool {
        offset == 0 || self.points.iter().any(|point| point.0 == offset)
    }

    /// Whether the bytes before `offset` are equal.
    pub(crate) fn matches(&self, offset: u64) -> bool {
        offset == 0 || self.matched.contains(&offset)
    }

    /// The highest resume point inside the file that matches.
    pub(crate) fn point(&self) -> Option<u64> {
        self.matched.last().copied()
    }

    /// `kept` begins at `base` of the content; bytes from `from` on are new.
    fn compare(&mut self, kept: &[u8], base: u64, from: u64, scratch: &mut Vec<u8>) -> io::Result<()> {
        let end = base + kept.len() as u64;
        while let Some(&(offset, crc)) = self.points.get(self.next).filter(|point| point.0 <= end) {
            self.next += 1;
            // The retained bytes reach back this far, or to the beginning.
            let back = offset.saturating_sub(RESUME_POINT_BYTES as u64);
            let before = kept.get(back.saturating_sub(base) as usize..offset.saturating_sub(base) as usize);
            if before.is_some_and(|before| crc_before(before) == crc) {
                self.matched.push(offset);
            }
        }
        if let Some(file) = &self.file {
            let fresh = kept.get((from - base) as usize..).unwrap_or_default();
            scratch.resize(fresh.len(), 0);
            let read = read_full(&mut |into, at| file.read_at(into, at), scratch, from)?;
            if scratch.get(..read) != Some(fresh) {
                self.file = None;
            }
        }
        Ok(())
    }
}

/// One check, under way or done.
#[derive(Debug)]
pub(crate) struct Check {
    /// The file as it was when the check began.
    pub(crate) form: Form,
    pub(crate) mtime_ns: i64,
    pub(crate) began_ms: u64,
    pub(crate) candidates: Vec<Candidate>,
    decompressor: Decompressor,
    crc: u32,
    scratch: Vec<u8>,
}

impl Check {
    pub(crate) fn new(
        form: Form,
        mtime_ns: i64,
        began_ms: u64,
        decompressor: Decompressor,
        candidates: Vec<Candidate>,
    ) -> Check {
        Check { form, mtime_ns, began_ms, candidates, decompressor, crc: 0, scratch: Vec::new() }
    }

    /// Decompresses and compares `budget` bytes more. True when all of it is checked.
    pub(crate) fn turn(&mut self, budget: u64) -> io::Result<bool> {
        let limit = self.decompressor.end().saturating_add(budget);
        while !self.decompressor.has_ended() {
            let from = self.decompressor.end();
            if from >= limit {
                return Ok(false);
            }
            self.decompressor.keep_from(from.saturating_sub(RESUME_POINT_BYTES as u64));
            self.decompressor.step()?;
            let (kept, base) = (self.decompressor.kept(), self.decompressor.base());
            let fresh = kept.get((from - base) as usize..).unwrap_or_default();
            self.crc = crc32c::crc32c_append(self.crc, fresh);
            if !fresh.is_empty() {
                for candidate in &mut self.candidates {
                    candidate.compare(kept, base, from, &mut self.scratch)?;
                }
            }
        }
        Ok(true)
    }

    /// The first bytes.
    pub(crate) fn start(&self) -> &[u8] {
        self.decompressor.start()
    }

    /// How far it is decompressed.
    pub(crate) fn end(&self) -> u64 {
        self.decompressor.end()
    }

    /// The content, once all of it is decompressed.
    pub(crate) fn whole(&self) -> Option<Whole> {
        let end = crc_before(self.decompressor.kept());
        self.decompressor.has_ended().then(|| Whole { size: self.decompressor.end(), crc: self.crc, end })
    }
}
