//! Reads blocks: from segment files, and from `kept/` for lines whose segment was removed.
//!
//! A reader works independently of the log, in another thread if need be. It has one file open and one buffer of
//! [`BUFFER_BYTES`], larger only while it reads a larger block. To continue where it stopped is cheap; to go back within
//! a segment it reads the block headers from the start of the file.

use std::sync::Arc;

use thiserror::Error;

use crate::block::{BLOCK_MAGIC, Block, BlockError, BlockHeader, SourceLines};
use crate::disk::{Disk, DiskFile};
use crate::ids::{Seq, SeqRange, StoreId};
use crate::loss::Loss;
use crate::segment::{self, Index, Overlay};

/// Two full blocks.
const BUFFER_BYTES: usize = if cfg!(feature = "fuzzing") { 512 } else { 512 * 1024 };

/// If only headers are wanted: most have a few extents.
const HEADER_BUFFER_BYTES: usize = 4 * 1024;

/// What was found at a line.
enum Found {
    Block(Block),
    Header(BlockHeader),
}

/// Why a line cannot be read. Other lines are not affected.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The log does not have the line any more, or not yet.
    #[error("line {seq} is not in the log")]
    Absent {
        /// The line.
        seq: Seq,
        /// The first line after it that the log has.
        next: Option<Seq>,
    },
    /// A block is damaged or missing.
    #[error("{path} at byte {at}: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// Where in it.
        at: u64,
        /// What does not match.
        what: BlockError,
        /// The lines that are lost with it, as far as known.
        range: SeqRange,
    },
    /// The disk returned an error.
    #[error("could not read {path} at byte {at}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Where in it.
        at: u64,
        /// What the disk returned.
        source: std::io::Error,
    },
}

impl ReadError {
    /// Whether the disk returned an error: the line may still be there, and another try may read it.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, ReadError::Io { .. })
    }

    /// Where reading continues behind the requested line `seq`: at the next line that the log has, as compaction leaves only
    /// dead letters and lines that wait, or behind lines that `losses` record as lost already. `None` for any other error.
    pub fn next<'l>(&self, seq: Seq, losses: impl IntoIterator<Item = &'l Loss>) -> Option<Seq> {
        match self {
            ReadError::Absent { next: Some(next), .. } => Some(*next),
            // A repair removed the last segment: the log has no line behind.
            ReadError::Absent { next: None, .. } => {
                Some(Loss::known(losses, SeqRange::new(seq, Seq(u64::MAX))?)?.last.next())
            }
            ReadError::Damaged { range, .. } => {
                Some(Loss::known(losses, SeqRange::new(seq, range.last)?)?.last.next())
            }
            ReadError::Io { .. } => None,
        }
    }
}

/// Reads blocks of a log by seq. [`crate::Log::reader`] makes one.
pub struct Reader {
    disk: Arc<dyn Disk>,
    index: Arc<Index>,
    store: StoreId,
    open: Option<Open>,
    buffer: Vec<u8>,
    /// How much is read at once.
    buffer_bytes: usize,
    blocks_read: u64,
    /// Of the header of the last block, if that was read from a segment.
    crc: Option<u32>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("store", &self.store).field("blocks_read", &self.blocks_read).finish()
    }
}

struct Open {
    first: Seq,
    /// None where only the journal has the segment.
    file: Option<Box<dyn DiskFile>>,
    overlay: Overlay,
    /// Where the next block begins, and its first seq.
    at: u64,
    next: Seq,
    /// Where in the file the content of the buffer begins.
    buffered_at: u64,
}

impl Reader {
    pub(crate) fn new(disk: Arc<dyn Disk>, index: Arc<Index>, store: StoreId) -> Reader {
        Reader {
            disk,
            index,
            store,
            open: None,
            buffer: Vec::new(),
            buffer_bytes: BUFFER_BYTES,
            blocks_read: 0,
            crc: None,
        }
    }

    /// How many blocks it has read from disk.
    #[must_use]
    pub fn blocks_read(&self) -> u64 {
        self.blocks_read
    }

    /// The checksum of the last block's header, by which a commit references it; `None` if no segment holds the block.
    pub(crate) fn crc(&self) -> Option<u32> {
        self.crc
    }

    /// The block that holds `seq`. It may begin before `seq`.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] has the range of lines that are lost; the caller can continue after it.
    pub fn block(&mut self, seq: Seq) -> Result<Block, ReadError> {
        let found = self.find(seq, true)?;
        if let Found::Block(block) = found { Ok(block) } else { Err(ReadError::Absent { seq, next: None }) }
    }

    /// The lines of the block that holds `seq`, source by source. Reads a few kilobytes of a segment: the payload is neither
    /// read nor checked.
    ///
    /// # Errors
    /// As [`Reader::block`], if the header cannot be read.
    pub fn by_source(&mut self, seq: Seq) -> Result<Vec<SourceLines>, ReadError> {
        self.find(seq, false).map(|found| match found {
            Found::Block(block) => block.by_source().collect(),
            Found::Header(header) => header.by_source().collect(),
        })
    }

    fn find(&mut self, seq: Seq, with_payload: bool) -> Result<Found, ReadError> {
        self.crc = None;
        self.buffer_bytes = if with_payload { BUFFER_BYTES } else { HEADER_BUFFER_BYTES };
        let segment = {
            let index = self.index.lock();
            if seq >= index.next_seq {
                return Err(ReadError::Absent { seq, next: None });
            }
            let behind = index.segments.partition_point(|segment| segment.first <= seq);
            behind.checked_sub(1).and_then(|at| {
                let segment = index.segments.get(at)?;
                let end = index.segments.get(behind).map_or(index.next_seq, |segment| segment.first);
                Some((*segment, end, index.overlays.get(&segment.first).cloned().unwrap_or_default()))
            })
        };
        match segment {
            // A dead letter's line is in `kept/` as well.
            Some((segment, end, overlay)) => {
                let read = self.read_segment((seq, with_payload), segment.first, segment.bytes, end, overlay);
                read.or_else(|error| match error {
                    ReadError::Damaged { .. } => self.read_retained(seq).map(Found::Block).map_err(|_| error),
                    error => Err(error),
                })
            }
            None => self.read_retained(seq).map(Found::Block),
        }
    }

    /// The first line that was appended at `time_ms` or later, by the time of its block; the next seq if there is none. If
    /// the clock of the host was set back, one of the lines that match.
    ///
    /// # Errors
    /// As [`Reader::block`].
    pub fn first_since(&mut self, time_ms: u64) -> Result<Seq, ReadError> {
        let (firsts, next) = {
            let index = self.index.lock();
            (index.segments.iter().map(|segment| segment.first).collect::<Vec<_>>(), index.next_seq)
        };
        let (mut low, mut high) = (0, firsts.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(first) = firsts.get(middle) else { break };
            if self.block(*first)?.append_time_ms() < time_ms { low = middle + 1 } else { high = middle }
        }
        let Some(mut seq) = low.checked_sub(1).and_then(|at| firsts.get(at)).or(firsts.first()).copied()
        else {
            return Ok(next);
        };
        while seq < next {
            let block = self.block(seq)?;
            if block.append_time_ms() >= time_ms {
                break;
            }
            seq = block.range().last.next();
        }
        Ok(seq)
    }

    fn read_segment(
        &mut self,
        (seq, with_payload): (Seq, bool),
        first: Seq,
        bytes: u64,
        end: Seq,
        overlay: Overlay,
    ) -> Result<Found, ReadError> {
        let path = segment::path(first);
        let usable = self.open.as_ref().is_some_and(|open| open.first == first && open.next <= seq);
        if !usable {
            let file = match self.disk.open(&path, false) {
                Ok(file) => Some(file),
                // Only the journal has this segment: the store is read without being opened.
                Err(_) if overlay.begins_file() => None,
                Err(source) => return Err(ReadError::Io { path, at: 0, source }),
            };
            self.buffer.clear();
            self.open = Some(Open { first, file, overlay, at: 0, next: first, buffered_at: 0 });
        } else if let Some(open) = &mut self.open {
            open.overlay = overlay;
        }
        loop {
            let Some(open) = &self.open else {
                return Err(ReadError::Absent { seq, next: None });
            };
            let (at, next) = (open.at, open.next);
            if at >= bytes || next >= end {
                return Err(self.skip_damage(&path, bytes, end, BlockError::Missing)?);
            }
            let header = match self.parse_header(at, &path)? {
                Ok(header) if header.first == next => header,
                // A repair removed the damaged blocks in between.
                Ok(header) if next < header.first && header.first < end => {
                    self.step(at, header.first);
                    let range = SeqRange { first: next, last: header.first.prev() };
                    if range.last < seq {
                        continue;
                    }
                    return Err(ReadError::Damaged { path, at, what: BlockError::Missing, range });
                }
                unexpected => {
                    let other = BlockError::Inconsistent("a block with another first seq than expected");
                    let what = unexpected.err().unwrap_or(other);
                    match self.skip_damage(&path, bytes, end, what)? {
                        ReadError::Damaged { range, .. } if range.last < seq => continue,
                        damage => return Err(damage),
                    }
                }
            };
            let range = header.range();
            if range.contains(seq) {
                if !with_payload {
                    return Ok(Found::Header(header));
                }
                self.fill(at, header.disk_bytes(), &path)?;
                let block = Block::decode(self.buffered(at), self.store);
                self.blocks_read += 1;
                self.crc = block.is_ok().then(|| header.crc());
                self.step(at + header.disk_bytes() as u64, range.last.next());
                return block.map(Found::Block).map_err(|what| ReadError::Damaged { path, at, what, range });
            }
            self.step(at + header.disk_bytes() as u64, range.last.next());
        }
    }

    /// Finds the next sound block after a damaged one: only the lines in between are lost.
    fn skip_damage(
        &mut self,
        path: &str,
        bytes: u64,
        end: Seq,
        what: BlockError,
    ) -> Result<ReadError, ReadError> {
        let (at, next) = self.open.as_ref().map_or((0, end), |open| (open.at, open.next));
        let finder = memchr::memmem::Finder::new(&BLOCK_MAGIC);
        let mut look = at + 1;
        while look < bytes {
            self.fill(look, BUFFER_BYTES.min((bytes - look) as usize), path)?;
            let found: Vec<u64> =
                finder.find_iter(self.buffered(look)).map(|found| look + found as u64).collect();
            let seen = self.buffered(look).len() as u64;
            for candidate in found {
                if let Ok(header) = self.parse_header(candidate, path)?
                    && (next < header.first && header.first < end)
                {
                    let range = SeqRange { first: next, last: header.first.prev() };
                    self.step(candidate, header.first);
                    return Ok(ReadError::Damaged { path: path.to_owned(), at, what, range });
                }
            }
            // If the file is too short, the next bytes are those that the journal has.
            let gap_end = self.open.as_ref().and_then(|open| open.overlay.next(look));
            match seen.checked_sub(BLOCK_MAGIC.len() as u64) {
                Some(looked_at) => look += looked_at + 1,
                None => look = gap_end.unwrap_or(bytes),
            }
        }
        self.open = None;
        let range = SeqRange { first: next, last: end.prev().max(next) };
        Ok(ReadError::Damaged { path: path.to_owned(), at, what, range })
    }

    fn step(&mut self, at: u64, next: Seq) {
        if let Some(open) = &mut self.open {
            (open.at, open.next) = (at, next);
        }
        if self.buffer.len() > BUFFER_BYTES {
            self.buffer = Vec::new();
        }
    }

    fn parse_header(&mut self, at: u64, path: &str) -> Result<Result<BlockHeader, BlockError>, ReadError> {
        let mut wanted = crate::block::HEADER_BYTES;
        loop {
            self.fill(at, wanted, path)?;
            match BlockHeader::parse(self.buffered(at), self.store) {
                Err(BlockError::Short { needed, .. }) if needed > wanted => wanted = needed,
                parsed => return Ok(parsed),
            }
        }
    }

    fn buffered(&self, at: u64) -> &[u8] {
        let start = self.open.as_ref().map_or(0, |open| at.saturating_sub(open.buffered_at));
        self.buffer.get(start as usize..).unwrap_or_default()
    }

    /// Fills the buffer with at least `wanted` bytes from `at`, or all to the end.
    fn fill(&mut self, at: u64, wanted: usize, path: &str) -> Result<(), ReadError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let have = if open.buffered_at <= at {
            (self.buffer.len() as u64 + open.buffered_at).saturating_sub(at) as usize
        } else {
            0
        };
        if have >= wanted {
            return Ok(());
        }
        self.buffer.resize(wanted.max(self.buffer_bytes), 0);
        open.buffered_at = at;
        let mut read = open.overlay.read_at(open.file.as_deref(), &mut self.buffer, at);
        if read.is_err() && self.buffer.len() > wanted {
            // The bad sector may be after what is wanted.
            self.buffer.truncate(wanted);
            read = open.overlay.read_at(open.file.as_deref(), &mut self.buffer, at);
        }
        // After a failed read the buffer has no content of the file: it would look like damage.
        self.buffer.truncate(read.as_ref().map_or(0, |filled| *filled));
        read.map(drop).map_err(|source| ReadError::Io { path: path.to_owned(), at, source })
    }

    fn read_retained(&mut self, seq: Seq) -> Result<Block, ReadError> {
        let (first, place) = {
            let index = self.index.lock();
            let before = index.retained.range(..=seq).next_back();
            let holds = before.filter(|(first, place)| first.plus(u64::from(place.lines)) > seq);
            let Some((first, place)) = holds else {
                let retained = index.retained.range(seq..).next().map(|(first, _)| *first);
                let segment =
                    index.segments.front().map(|segment| segment.first).filter(|first| *first > seq);
                return Err(ReadError::Absent { seq, next: retained.into_iter().chain(segment).min() });
            };
            (*first, place.clone())
        };
        let io = |source| ReadError::Io { path: place.path.clone(), at: place.at, source };
        let file = self.disk.open(&place.path, false).map_err(io)?;
        let bytes = file.read_range(place.at, place.bytes as usize).map_err(io)?;
        self.blocks_read += 1;
        Block::decode(&bytes, self.store).map_err(|what| ReadError::Damaged {
            path: place.path.clone(),
            at: place.at,
            what,
            range: SeqRange { first, last: first.plus(u64::from(place.lines) - 1) },
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::disk::memory::MemoryDisk;
    use crate::ids::SourceId;
    use crate::view::{Verified, View};
    use crate::{BlockBuilder, Commit, DiskOptions, Log, Options};

    const BLOCKS: u64 = 16;

    /// Sixteen blocks of one line of 200 kB each, the newest eight of them in the journal too.
    fn store() -> MemoryDisk {
        let disk = MemoryDisk::new(1 << 40);
        let disk_options = DiskOptions { min_free_bytes: 0, reserve_bytes: 0, ..DiskOptions::default() };
        let options = Options { disk: disk_options, inline_bytes: 1 << 20, ..Options::default() };
        let open = || Log::on_disk(Arc::new(disk.clone()), options, None).unwrap();
        let mut log = open();
        let mut rng = fastrand::Rng::with_seed(1);
        for nth in 0..BLOCKS {
            if nth == BLOCKS / 2 {
                // The new journal does not have the lines before.
                drop(log);
                log = open();
            }
            let mut line: Vec<u8> = std::iter::repeat_with(|| rng.u8(b' '..)).take(200_000).collect();
            line.push(b'\n');
            let mut builder = BlockBuilder::new();
            builder.push_whole(SourceId(1), nth * 200_001, &line, 1);
            let checkpoints = vec![(SourceId(1), Bytes::new())];
            log.commit(&Commit { blocks: vec![builder.build(1)], checkpoints, ..Commit::default() }).unwrap();
        }
        drop(log);
        disk.copy()
    }

    /// Found on a device with bad sectors: with one in the 512 KiB that are read at once, the lines before it could not be
    /// read either. The lines on it are not damaged, however often they are tried.
    #[test]
    fn lines_before_a_bad_sector_are_read_and_those_on_it_when_the_device_recovers() {
        let disk = store();
        let view = View::on_disk(Arc::new(disk.clone()), std::path::Path::new(""), None).unwrap();
        let mut reader = view.reader();
        // In the third block, behind its header.
        disk.turn_bad(&format!("segments/{:020}", 1), 500_000);
        for seq in 1..=2 {
            assert!(reader.block(Seq(seq)).is_ok(), "lines before the bad sector can be read");
        }
        for _ in 0..3 {
            let error = reader.block(Seq(3)).unwrap_err();
            assert!(matches!(error, ReadError::Io { .. }), "{error}");
        }
        disk.heal();
        for seq in 3..=BLOCKS {
            assert_eq!(reader.block(Seq(seq)).unwrap().range(), SeqRange::one(Seq(seq)));
        }
    }

    #[test]
    fn verify_distinguishes_errors_of_the_disk_from_damage() {
        let disk = store();
        disk.turn_bad(&format!("segments/{:020}", 1), 500_000);
        let view = View::on_disk(Arc::new(disk.clone()), std::path::Path::new(""), None).unwrap();
        let mut last = Verified::default();
        let findings = view.verify(&mut |verified| last = verified);
        assert_eq!((findings.len(), last.refused), (1, 1), "{findings:?}");
        assert!(findings[0].contains("at byte") && !findings[0].contains("lost"), "{findings:?}");
        disk.heal();
        assert_eq!(view.verify(&mut |verified| last = verified), [""; 0]);
        assert_eq!((last.lines, last.refused), (BLOCKS, 0));
    }

    /// Found by fuzzing: after the end of the file the missing part was searched byte by byte, with the whole buffer cleared
    /// each time, which took minutes for every MiB.
    #[test]
    fn the_missing_part_of_a_cut_segment_is_skipped_at_once() {
        let disk = store();
        let name = format!("segments/{:020}", 1);
        disk.open(&name, true).unwrap().set_len(1_000).unwrap();
        let view = View::on_disk(Arc::new(disk), std::path::Path::new(""), None).unwrap();
        let mut reader = view.reader();
        // The header of the first block is intact: which lines are lost with it is known.
        for (first, last) in [(1, 1), (2, BLOCKS / 2)] {
            let ReadError::Damaged { range, .. } = reader.block(Seq(first)).unwrap_err() else {
                panic!("block {first} is damaged")
            };
            assert_eq!(range, SeqRange { first: Seq(first), last: Seq(last) });
        }
        for seq in BLOCKS / 2 + 1..=BLOCKS {
            assert_eq!(reader.block(Seq(seq)).unwrap().range(), SeqRange::one(Seq(seq)));
        }
    }

    #[test]
    fn lines_by_source_are_read_from_headers_alone() {
        let disk = store();
        let view = View::on_disk(Arc::new(disk.clone()), std::path::Path::new(""), None).unwrap();
        let mut reader = view.reader();
        // The payload of the third block: its header can be read.
        disk.turn_bad(&format!("segments/{:020}", 1), 500_000);
        for seq in 1..=BLOCKS {
            let found = reader.by_source(Seq(seq)).unwrap();
            let range = SeqRange::one(Seq(seq));
            assert_eq!(found, [SourceLines { source: SourceId(1), range, bytes: 200_001 }]);
        }
        assert_eq!(reader.blocks_read(), 0);
        assert_eq!(
            reader.by_source(Seq(2)).unwrap(),
            reader.block(Seq(2)).unwrap().by_source().collect::<Vec<_>>()
        );
        assert!(reader.block(Seq(3)).is_err());
        assert!(reader.by_source(Seq(BLOCKS + 1)).is_err());
    }

    /// `inspect` of a store that had lost its last segment, and was repaired, ended with an error.
    #[test]
    fn behind_lines_that_are_lost_up_to_the_end_reading_ends() {
        let lost =
            |first, last| Loss::unreadable(SeqRange::new(Seq(first), Seq(last)).unwrap(), "x".to_owned());
        let absent = |next| ReadError::Absent { seq: Seq(7), next };
        let losses = [lost(1, 4), lost(6, 9), lost(10, 12)];
        assert_eq!(absent(None).next(Seq(7), &losses), Some(Seq(13)));
        assert_eq!(absent(Some(Seq(8))).next(Seq(7), &losses), Some(Seq(8)), "the log has it");
        assert_eq!(absent(None).next(Seq(13), &losses), None);
        assert_eq!(absent(None).next(Seq(5), &losses), None, "it is not lost, and missing");
    }
}
