//! The append under construction: blocks that many sources share.
//!
//! About 2 MiB in blocks of 256 KiB; a long line makes it longer, by one line at most.

use std::sync::mpsc::Receiver;

use spillq_storage::{BlockBuilder, LineFlags, NewBlock, SourceId};

use crate::tail::bytes::{Jobs, Split, lines};

/// Raw bytes that one append is filled to: eight blocks. Enough for a sync to be worth it, and little compared with the memory
/// of a service.
pub(crate) const APPEND_BYTES: usize = 8 * BlockBuilder::TARGET_BYTES;

/// Fills blocks one after the other.
#[derive(Debug, Default)]
pub(crate) struct Filler {
    builder: BlockBuilder,
    /// The full ones, which are compressed meanwhile.
    full: Vec<Receiver<NewBlock>>,
    jobs: Jobs,
    built_bytes: usize,
    /// When it is appended, by wall-clock time.
    pub(crate) now_ms: u64,
    full_bytes: usize,
    pub(crate) lines: u64,
}

impl Filler {
    /// Begins an append of `full_bytes` at the wall-clock time `now_ms`, which is compressed when it is finished.
    pub(crate) fn begin(now_ms: u64, full_bytes: usize) -> Filler {
        Filler { now_ms, full_bytes, ..Filler::default() }
    }

    /// The same, but its blocks are compressed with the help of other threads.
    pub(crate) fn with_jobs(self, jobs: Jobs) -> Filler {
        Filler { jobs, ..self }
    }

    /// Raw bytes so far.
    pub(crate) fn bytes(&self) -> usize {
        self.built_bytes + self.builder.bytes()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes() >= self.full_bytes
    }

    /// What ends in a window, or fills it; returns how long that is. `in_part`: the window begins inside a line.
    pub(crate) fn push_split(
        &mut self,
        source: SourceId,
        offset: u64,
        window: &[u8],
        split: Split,
        in_part: &mut bool,
    ) -> usize {
        let len = match split {
            Split::Lines(len) | Split::LastPart(len) => len,
            Split::Part => window.len(),
            Split::Incomplete => return 0,
        };
        let bytes = window.get(..len).unwrap_or_default();
        if matches!(split, Split::Lines(_)) {
            self.push_whole(source, offset, bytes);
        } else {
            self.push_marked(source, offset, bytes, lines::flags(*in_part, split != Split::Part));
            *in_part = split == Split::Part;
        }
        len
    }

    /// Whole lines of one source: `bytes` ends in a newline.
    pub(crate) fn push_whole(&mut self, source: SourceId, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let free = BlockBuilder::TARGET_BYTES.saturating_sub(self.builder.bytes());
            let mut len = lines::fitting(bytes, free);
            if len == 0 {
                if !self.builder.is_empty() {
                    self.build();
                    continue;
                }
                // A line longer than a block has a separate block.
                len = lines::first(bytes);
            }
            let (piece, rest) = bytes.split_at(len);
            let count = lines::count(piece);
            self.lines += u64::from(count);
            self.builder.push_whole(source, offset, piece, count);
            offset += len as u64;
            bytes = rest;
            if self.builder.is_full() {
                self.build();
            }
        }
    }

    /// One line that is a part, or has no newline.
    pub(crate) fn push_marked(&mut self, source: SourceId, offset: u64, bytes: &[u8], flags: LineFlags) {
        if !self.builder.is_empty() && self.builder.bytes() + bytes.len() > BlockBuilder::TARGET_BYTES {
            self.build();
        }
        self.lines += 1;
        self.builder.push_marked(source, offset, bytes, flags);
        if self.builder.is_full() {
            self.build();
        }
    }

    /// The blocks, compressed.
    ///
    /// # Panics
    /// If compression panicked on another thread.
    pub(crate) fn finish(mut self) -> Vec<NewBlock> {
        let last = (!self.builder.is_empty()).then(|| std::mem::take(&mut self.builder));
        self.jobs.help();
        let last = last.map(|last| last.build(self.now_ms));
        let full = self.full.into_iter();
        let mut blocks: Vec<NewBlock> =
            full.map(|block| block.recv().expect("the threads that compress answer")).collect();
        blocks.extend(last);
        blocks
    }

    fn build(&mut self) {
        if !self.builder.is_empty() {
            self.built_bytes += self.builder.bytes();
            let full = std::mem::take(&mut self.builder);
            self.full.push(self.jobs.give(full, self.now_ms, self.full.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::bytes::Compressor;

    #[test]
    fn blocks_stay_at_their_size_and_hold_every_line() {
        let line = [vec![b'x'; 999], vec![b'\n']].concat();
        let chunk = line.repeat(200);
        let compressor = Compressor::default();
        let mut filler = Filler::begin(1, APPEND_BYTES).with_jobs(compressor.jobs());
        let mut offset = 0;
        while !filler.is_full() {
            filler.push_whole(SourceId(1), offset, &chunk);
            offset += chunk.len() as u64;
        }
        filler.push_whole(SourceId(2), 0, b"a\n");
        filler.push_marked(SourceId(2), 2, b"b", LineFlags::WHOLE.unterminated());
        assert_eq!(filler.lines, offset / 1_000 + 2);
        let blocks = filler.finish();
        assert!(blocks.iter().all(|block| block.raw_bytes() <= BlockBuilder::TARGET_BYTES));
        let lines: u64 = blocks.iter().map(|block| u64::from(block.lines())).sum();
        assert_eq!(lines, offset / 1_000 + 2);
        assert!(blocks.len() <= 12);
        let sources: Vec<u64> = blocks.iter().map(|block| block.raw().len() as u64).collect();
        assert_eq!(sources.iter().sum::<u64>(), offset + 3, "in their order");
    }

    #[test]
    fn a_line_longer_than_a_block_is_alone_in_one() {
        let long = [vec![b'x'; 600_000], vec![b'\n']].concat();
        let mut filler = Filler::begin(1, APPEND_BYTES);
        filler.push_whole(SourceId(1), 0, b"a\n");
        filler.push_whole(SourceId(1), 2, &long);
        filler.push_whole(SourceId(1), 600_003, b"b\n");
        let sizes: Vec<_> = filler.finish().iter().map(NewBlock::raw_bytes).collect();
        assert_eq!(sizes, [2, 600_001, 2]);
    }
}
