//! A block: lines that are stored and compressed together, with a table of extents: consecutive lines of one source.
//!
//! Blocks are self-describing, so that a scan of raw bytes finds them. There are two checksums: one of the header and
//! the extents, made with the commit, which assigns the seqs, and one of the stored payload, made by the thread that
//! compresses the lines. Line bytes are not copied after decoding: a line is a range in `raw`.
//!
//! On disk, little endian:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic `SPQB` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | codec: 0 uncompressed, 1 zstd |
//! | 6 | 2 | 0, reserved |
//! | 8 | 8 | store id |
//! | 16 | 8 | commit number |
//! | 24 | 8 | first seq |
//! | 32 | 8 | append time, milliseconds since 1970 |
//! | 40 | 4 | lines |
//! | 44 | 4 | extents |
//! | 48 | 4 | raw bytes |
//! | 52 | 4 | stored bytes |
//! | 56 | 4 | CRC32C of the stored payload |
//! | 60 | 4 | CRC32C of bytes 0..60 and of the extents |
//! | 64 | 25 each | extents: source 8, offset 8, lines 4, bytes 4, flags 1 |
//! | | | the stored payload |

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;

use bytes::{BufMut, Bytes};
use thiserror::Error;
use zstd::bulk::{Compressor, Decompressor};

use crate::bytes_le::Get;
use crate::ids::{Seq, SeqRange, SourceId, StoreId};

/// The first four bytes of every block.
pub(crate) const BLOCK_MAGIC: [u8; 4] = *b"SPQB";
const VERSION: u8 = 1;
/// The fixed part of a block's header.
pub(crate) const HEADER_BYTES: usize = 64;
const EXTENT_BYTES: usize = 25;
/// Extents of the largest block: each has at least a byte, and none begins in a full block. Bounds what a reader reads
/// because of a header that is not checked yet.
const EXTENTS_MAX: usize = BlockBuilder::TARGET_BYTES;
/// Higher levels compress little better and take more time.
const ZSTD_LEVEL: i32 = 1;

/// Whether a line is whole or a part of a longer one, and whether it ends in a newline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LineFlags(u8);

impl LineFlags {
    /// A whole line that ends in a newline.
    pub const WHOLE: LineFlags = LineFlags(0);
    /// The first part of a line that was longer than the limit of its reader.
    pub const FIRST: LineFlags = LineFlags(1);
    /// A middle part of such a line.
    pub const MIDDLE: LineFlags = LineFlags(2);
    /// The last part of such a line.
    pub const LAST: LineFlags = LineFlags(3);
    const UNTERMINATED: u8 = 4;

    /// The same, without a newline at the end: the last bytes of a source that has ended.
    #[must_use]
    pub const fn unterminated(self) -> LineFlags {
        LineFlags(self.0 | Self::UNTERMINATED)
    }

    /// Whether the newline is missing because the source ended.
    #[must_use]
    pub const fn is_unterminated(self) -> bool {
        self.0 & Self::UNTERMINATED != 0
    }

    /// Which part it is; `None` if it is a whole line.
    #[must_use]
    pub const fn part(self) -> Option<&'static str> {
        match self.0 & 3 {
            1 => Some("first"),
            2 => Some("middle"),
            3 => Some("last"),
            _ => None,
        }
    }

    /// Whether an extent may hold several of them, which their newlines separate.
    const fn is_whole(self) -> bool {
        self.0 == 0
    }

    fn from_byte(byte: u8) -> Option<LineFlags> {
        (byte & !7 == 0).then_some(LineFlags(byte))
    }
}

/// Consecutive lines of one source in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) source: SourceId,
    /// Where the first line begins in the source.
    pub(crate) offset: u64,
    /// At least 1; exactly 1 unless `flags` is [`LineFlags::WHOLE`].
    pub(crate) lines: u32,
    /// Newlines included.
    pub(crate) bytes: u32,
    /// Of each line.
    pub(crate) flags: LineFlags,
}

/// Consecutive lines of one source in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceLines {
    /// The source that they came from.
    pub source: SourceId,
    /// Their numbers in the log.
    pub range: SeqRange,
    /// Their length together, newlines included.
    pub bytes: u64,
}

/// The lines of a block that begins with `first`, source by source.
fn by_source(first: Seq, extents: &[Extent]) -> impl Iterator<Item = SourceLines> {
    let mut first = first;
    extents.iter().map(move |extent| {
        let range = SeqRange { first, last: first.plus(u64::from(extent.lines) - 1) };
        first = range.last.next();
        SourceLines { source: extent.source, range, bytes: extent.bytes.into() }
    })
}

/// One line of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number in the log.
    pub seq: Seq,
    /// The source that it came from.
    pub source: SourceId,
    /// Where it begins in the source, in bytes.
    pub offset: u64,
    /// Whether it is a part, or unterminated.
    pub flags: LineFlags,
    /// Its bytes, with the newline if it has one.
    pub bytes: &'a [u8],
}

/// Why bytes are not a block.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BlockError {
    /// The bytes end before the block does: normal at the end of a file after a crash.
    #[error("{found} bytes where a block needs {needed}")]
    Short {
        /// How many bytes there were.
        found: usize,
        /// How many are needed, as far as known.
        needed: usize,
    },
    /// The bytes do not begin with a block's magic.
    #[error("no block begins here: found {0:02x?}")]
    Magic([u8; 4]),
    /// A block of a later version.
    #[error("block version {0}, this program reads version {VERSION}")]
    Version(u8),
    /// A block of another store.
    #[error("a block of store {found} in store {expected}")]
    Store {
        /// The id in the block.
        found: StoreId,
        /// The id of the store.
        expected: StoreId,
    },
    /// The header or its extents were changed.
    #[error("header checksum {found:#010x} does not match {expected:#010x}")]
    HeaderCrc {
        /// Computed from what was read.
        found: u32,
        /// As written.
        expected: u32,
    },
    /// The payload was changed.
    #[error("payload checksum {found:#010x} does not match {expected:#010x}")]
    PayloadCrc {
        /// Computed from what was read.
        found: u32,
        /// As written.
        expected: u32,
    },
    /// The checksums match, but the content is contradictory: the program that wrote it was at fault.
    #[error("inconsistent block: {0}")]
    Inconsistent(&'static str),
    /// No block holds the lines: a repair moved the damaged block to the quarantine.
    #[error("the lines are not in the file")]
    Missing,
    /// The checksum of the payload matches, but zstd cannot decompress it.
    #[error("payload does not decompress: {0}")]
    Codec(String),
}

/// Collects the lines of a block.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    raw: Vec<u8>,
    extents: Vec<Extent>,
    lines: u32,
}

impl BlockBuilder {
    /// Raw bytes after which a block is full: enough for zstd and the disk to work well, few enough to hold many blocks in
    /// memory. Small for the fuzzer, whose inputs are short.
    pub const TARGET_BYTES: usize = if cfg!(feature = "fuzzing") { 256 } else { 256 * 1024 };
    /// The longest line, or part of one, that a block takes. Bounds what decoding allocates.
    pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
    /// Raw bytes of the largest block: a line of the maximum length after a block that was nearly full.
    pub const BYTES_MAX: usize = BlockBuilder::LINE_BYTES_MAX + BlockBuilder::TARGET_BYTES;

    /// An empty builder.
    #[must_use]
    pub fn new() -> BlockBuilder {
        BlockBuilder::default()
    }

    /// Raw bytes pushed so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.raw.len()
    }

    /// Lines pushed so far.
    #[must_use]
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Whether nothing was pushed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Whether it has reached [`BlockBuilder::TARGET_BYTES`]: build it before you push more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.raw.len() >= BlockBuilder::TARGET_BYTES
    }

    /// Appends `lines` whole lines of `source` that begin at `offset`; `bytes` ends in a newline.
    pub fn push_whole(&mut self, source: SourceId, offset: u64, bytes: &[u8], lines: u32) {
        debug_assert!(lines > 0 && bytes.last() == Some(&b'\n'));
        self.push(source, offset, bytes, lines, LineFlags::WHOLE);
    }

    /// Appends one line that is a part, unterminated, or both.
    pub fn push_marked(&mut self, source: SourceId, offset: u64, bytes: &[u8], flags: LineFlags) {
        debug_assert!(!bytes.is_empty() && bytes.len() <= BlockBuilder::LINE_BYTES_MAX);
        self.push(source, offset, bytes, 1, flags);
    }

    fn push(&mut self, source: SourceId, offset: u64, bytes: &[u8], lines: u32, flags: LineFlags) {
        // A block is at most BYTES_MAX long, so its counts fit in 32 bits.
        let added = bytes.len() as u32;
        let needed = self.raw.len() + bytes.len();
        if needed > self.raw.capacity() {
            // Doubled as usual, but not above what a block holds: blocks stay in memory for a while.
            let doubled = (2 * self.raw.capacity()).min(BlockBuilder::TARGET_BYTES).max(needed);
            self.raw.reserve_exact(doubled - self.raw.len());
        }
        self.raw.extend_from_slice(bytes);
        self.lines += lines;
        if let Some(extent) = self.extents.last_mut() {
            let continues = extent.source == source && extent.offset + u64::from(extent.bytes) == offset;
            if continues && extent.flags.is_whole() && flags.is_whole() {
                extent.lines += lines;
                extent.bytes += added;
                return;
            }
        }
        debug_assert!(self.extents.len() < EXTENTS_MAX, "a full block is built before more is pushed");
        self.extents.push(Extent { source, offset, lines, bytes: added, flags });
    }

    /// Compresses the lines. `append_time_ms` is the wall-clock time in milliseconds since 1970, for display and for
    /// [`crate::Keep::Age`].
    ///
    /// # Panics
    /// If nothing was pushed.
    #[must_use]
    pub fn build(mut self, append_time_ms: u64) -> NewBlock {
        assert!(!self.extents.is_empty(), "a block without lines");
        self.raw.shrink_to_fit();
        let raw = Bytes::from(self.raw);
        // Stored as they are if compression does not make them smaller, or fails.
        let (codec, stored) = match compress(&raw) {
            Ok(compressed) if compressed.len() < raw.len() => (Codec::Zstd, compressed),
            _ => (Codec::Stored, raw.clone()),
        };
        let payload_crc = crc32c::crc32c(&stored);
        NewBlock { extents: self.extents, lines: self.lines, codec, raw, stored, payload_crc, append_time_ms }
    }
}

thread_local! {
    /// zstd's working memory and output, one for each thread: to set them up for every block takes a tenth of the time.
    static COMPRESSOR: RefCell<Option<(Compressor<'static>, Vec<u8>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn compress(raw: &[u8]) -> io::Result<Bytes> {
    COMPRESSOR.with_borrow_mut(|compressor| {
        let (compressor, compressed) = match compressor {
            Some(compressor) => compressor,
            None => compressor.insert((Compressor::new(ZSTD_LEVEL)?, Vec::new())),
        };
        compressed.clear();
        compressed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        compressor.compress_to_buffer(raw, compressed)?;
        let exact = Bytes::copy_from_slice(compressed);
        // Memory for a very long line is not kept.
        compressed.shrink_to(2 * BlockBuilder::TARGET_BYTES);
        Ok(exact)
    })
}

/// `raw_bytes` is from the checked header, and bounds what is allocated.
fn decompress(stored: &[u8], raw_bytes: usize) -> io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|decompressor| match decompressor {
        Some(decompressor) => decompressor.decompress(stored, raw_bytes),
        None => decompressor.insert(Decompressor::new()?).decompress(stored, raw_bytes),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Stored = 0,
    Zstd = 1,
}

/// A compressed block that is not in the log yet.
#[derive(Clone, Debug)]
pub struct NewBlock {
    extents: Vec<Extent>,
    lines: u32,
    codec: Codec,
    raw: Bytes,
    stored: Bytes,
    payload_crc: u32,
    append_time_ms: u64,
}

impl NewBlock {
    /// How many lines it holds.
    #[must_use]
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// The length of its lines together.
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        self.raw.len()
    }

    /// The lines, one after the other.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The bytes that it takes on disk.
    #[must_use]
    pub fn disk_bytes(&self) -> usize {
        HEADER_BYTES + self.extents.len() * EXTENT_BYTES + self.stored.len()
    }

    /// Its lines source by source, if the first gets the seq `first`.
    pub fn by_source(&self, first: Seq) -> impl Iterator<Item = SourceLines> {
        by_source(first, &self.extents)
    }

    pub(crate) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The payload as it is stored.
    pub(crate) fn stored(&self) -> &Bytes {
        &self.stored
    }

    /// Header and extents: what is stored before the payload. `commit` is the number of the next commit when the block is
    /// written: at most that of the commit that has it.
    pub(crate) fn header(&self, store: StoreId, commit: u64, first: Seq) -> Vec<u8> {
        let extent_bytes = self.extents.len() * EXTENT_BYTES;
        let mut out = Vec::with_capacity(HEADER_BYTES + extent_bytes);
        out.extend_from_slice(&BLOCK_MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.codec as u8);
        out.put_u16_le(0);
        out.put_u64_le(store.0);
        out.put_u64_le(commit);
        out.put_u64_le(first.0);
        out.put_u64_le(self.append_time_ms);
        out.put_u32_le(self.lines);
        out.put_u32_le(self.extents.len() as u32);
        out.put_u32_le(self.raw.len() as u32);
        out.put_u32_le(self.stored.len() as u32);
        out.put_u32_le(self.payload_crc);
        let mut extents = Vec::with_capacity(extent_bytes);
        for extent in &self.extents {
            extents.put_u64_le(extent.source.0);
            extents.put_u64_le(extent.offset);
            extents.put_u32_le(extent.lines);
            extents.put_u32_le(extent.bytes);
            extents.put_u8(extent.flags.0);
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &extents);
        out.put_u32_le(crc);
        out.extend_from_slice(&extents);
        out
    }

    /// Appends the block to `out` as it is stored.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, store: StoreId, commit: u64, first: Seq) {
        out.extend_from_slice(&self.header(store, commit, first));
        out.extend_from_slice(&self.stored);
    }

    /// The block as a reader sees it after commit `commit` has given its lines the seqs from `first` on.
    #[must_use]
    pub fn numbered(&self, commit: u64, first: Seq) -> Block {
        Block {
            commit,
            first,
            lines: self.lines,
            append_time_ms: self.append_time_ms,
            extents: self.extents.clone(),
            raw: self.raw.clone(),
        }
    }
}

/// The checked header of a block on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) commit: u64,
    pub(crate) first: Seq,
    pub(crate) lines: u32,
    append_time_ms: u64,
    codec: u8,
    raw_bytes: usize,
    stored_bytes: usize,
    payload_crc: u32,
    crc: u32,
    extents: Vec<Extent>,
}

impl BlockHeader {
    /// The checksum of header and extents, and through them of the payload: what a commit references a block by.
    pub(crate) fn crc(&self) -> u32 {
        self.crc
    }

    /// The same, of an encoded header.
    pub(crate) fn crc_of(header: &[u8]) -> u32 {
        header.get(HEADER_BYTES - 4..).map_or(0, |bytes| Get::new(bytes).u32())
    }

    /// Of header, extents and payload.
    pub(crate) fn disk_bytes(&self) -> usize {
        HEADER_BYTES + self.extents.len() * EXTENT_BYTES + self.stored_bytes
    }

    /// The seqs of its lines.
    pub(crate) fn range(&self) -> SeqRange {
        SeqRange { first: self.first, last: self.first.plus(u64::from(self.lines) - 1) }
    }

    /// Its lines source by source.
    pub(crate) fn by_source(&self) -> impl Iterator<Item = SourceLines> {
        by_source(self.first, &self.extents)
    }

    /// The store of the block whose header is at the start of `bytes`, if one is and is sound.
    pub(crate) fn store(bytes: &[u8]) -> Option<StoreId> {
        let store = StoreId(Get::new(bytes.get(8..16)?).u64());
        BlockHeader::parse(bytes, store).is_ok().then_some(store)
    }

    /// Parses and checks the header and the extents at the start of `bytes`, which need not have the payload. A `Short`
    /// error names the bytes that header and extents need.
    pub(crate) fn parse(bytes: &[u8], store: StoreId) -> Result<BlockHeader, BlockError> {
        let short = |needed| BlockError::Short { found: bytes.len(), needed };
        let fixed = bytes.get(..HEADER_BYTES).ok_or_else(|| short(HEADER_BYTES))?;
        let mut get = Get::new(fixed);
        let magic = get.array::<4>();
        if magic != BLOCK_MAGIC {
            return Err(BlockError::Magic(magic));
        }
        let version = get.u8();
        if version != VERSION {
            return Err(BlockError::Version(version));
        }
        let codec = get.u8();
        let _reserved = get.u16();
        let found_store = StoreId(get.u64());
        let (commit, first, append_time_ms) = (get.u64(), Seq(get.u64()), get.u64());
        let (lines, extent_count) = (get.u32(), get.u32() as usize);
        let (raw_bytes, stored_bytes) = (get.u32() as usize, get.u32() as usize);
        let (payload_crc, header_crc) = (get.u32(), get.u32());
        // Lengths are bounded before the CRC is checked: a damaged one makes a reader read some MiB at most.
        if extent_count > EXTENTS_MAX
            || raw_bytes > BlockBuilder::BYTES_MAX
            || stored_bytes > BlockBuilder::BYTES_MAX
        {
            return Err(BlockError::HeaderCrc { found: 0, expected: header_crc });
        }
        let extents_end = HEADER_BYTES + extent_count * EXTENT_BYTES;
        let extent_bytes = bytes.get(HEADER_BYTES..extents_end).ok_or_else(|| short(extents_end))?;
        let covered = fixed.get(..HEADER_BYTES - 4).unwrap_or_default();
        let found = crc32c::crc32c_append(crc32c::crc32c(covered), extent_bytes);
        if found != header_crc {
            return Err(BlockError::HeaderCrc { found, expected: header_crc });
        }
        if found_store != store {
            return Err(BlockError::Store { found: found_store, expected: store });
        }
        let mut extents = Vec::with_capacity(extent_count);
        let mut get = Get::new(extent_bytes);
        for _ in 0..extent_count {
            let (source, offset) = (SourceId(get.u64()), get.u64());
            let (lines, bytes) = (get.u32(), get.u32());
            let flags =
                LineFlags::from_byte(get.u8()).ok_or(BlockError::Inconsistent("unknown line flags"))?;
            if lines == 0 || bytes < lines || lines > 1 && !flags.is_whole() {
                return Err(BlockError::Inconsistent("an extent has an impossible number of lines"));
            }
            if offset.checked_add(u64::from(bytes)).is_none() {
                return Err(BlockError::Inconsistent("an extent ends after the largest possible offset"));
            }
            extents.push(Extent { source, offset, lines, bytes, flags });
        }
        if first < Seq::FIRST || first.0.checked_add(u64::from(lines)).is_none() {
            return Err(BlockError::Inconsistent("its lines have impossible seqs"));
        }
        let sum = |of: fn(&Extent) -> u32| extents.iter().map(|extent| u64::from(of(extent))).sum::<u64>();
        if lines == 0 || sum(|extent| extent.lines) != u64::from(lines) {
            return Err(BlockError::Inconsistent(
                "the extents have a different number of lines than the header",
            ));
        }
        if sum(|extent| extent.bytes) != raw_bytes as u64 {
            return Err(BlockError::Inconsistent(
                "the extents have a different number of bytes than the header",
            ));
        }
        Ok(BlockHeader {
            commit,
            first,
            lines,
            append_time_ms,
            codec,
            raw_bytes,
            stored_bytes,
            payload_crc,
            crc: header_crc,
            extents,
        })
    }
}

/// A block that was read from the log and checked.
#[derive(Clone, Debug)]
pub struct Block {
    commit: u64,
    first: Seq,
    lines: u32,
    append_time_ms: u64,
    extents: Vec<Extent>,
    raw: Bytes,
}

impl Block {
    /// Checks and decompresses the block at the start of `bytes`, which belongs to `store`.
    ///
    /// # Errors
    /// What does not match; [`BlockError::Short`] if `bytes` ends before the block does.
    pub(crate) fn decode(bytes: &[u8], store: StoreId) -> Result<Block, BlockError> {
        let header = BlockHeader::parse(bytes, store)?;
        let end = header.disk_bytes();
        let stored = bytes
            .get(end - header.stored_bytes..end)
            .ok_or(BlockError::Short { found: bytes.len(), needed: end })?;
        let found = crc32c::crc32c(stored);
        if found != header.payload_crc && !cfg!(feature = "fault-no-crc") {
            return Err(BlockError::PayloadCrc { found, expected: header.payload_crc });
        }
        let raw = match header.codec {
            0 => Cow::Borrowed(stored),
            1 => Cow::Owned(
                decompress(stored, header.raw_bytes).map_err(|error| BlockError::Codec(error.to_string()))?,
            ),
            _ => return Err(BlockError::Inconsistent("unknown codec")),
        };
        if raw.len() != header.raw_bytes {
            return Err(BlockError::Inconsistent(
                "the payload does not have the length that the header says",
            ));
        }
        if !are_lines(&raw, &header.extents) {
            return Err(BlockError::Inconsistent("its lines do not end where the extents do"));
        }
        Ok(Block {
            commit: header.commit,
            first: header.first,
            lines: header.lines,
            append_time_ms: header.append_time_ms,
            extents: header.extents,
            raw: Bytes::from(raw.into_owned()),
        })
    }

    /// The seqs of its lines.
    #[must_use]
    pub fn range(&self) -> SeqRange {
        SeqRange { first: self.first, last: self.first.plus(u64::from(self.lines) - 1) }
    }

    /// The number that the next commit had when it was written: at most that of the commit that stored it.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// When it was appended: milliseconds since 1970, by the wall clock of that host.
    #[must_use]
    pub fn append_time_ms(&self) -> u64 {
        self.append_time_ms
    }

    pub(crate) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Its lines source by source, in seq order.
    pub fn by_source(&self) -> impl Iterator<Item = SourceLines> {
        by_source(self.first, &self.extents)
    }

    /// The bytes of all its lines, one after the other.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Its lines in seq order.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> + Clone {
        Lines { extents: self.extents.iter(), extent: None, raw: &self.raw, seq: self.first }
    }

    /// Those of its lines that are in `range`. Cheap for a few lines in the middle of a block.
    pub fn lines_within(&self, range: SeqRange) -> impl Iterator<Item = Line<'_>> {
        let (mut at, mut seq, mut before) = (0, self.first, 0);
        for extent in &self.extents {
            let behind = seq.plus(u64::from(extent.lines));
            if behind > range.first {
                break;
            }
            (at, seq, before) = (at + extent.bytes as usize, behind, before + 1);
        }
        let extents = self.extents.get(before..).unwrap_or_default().iter();
        let lines = Lines { extents, extent: None, raw: self.raw.get(at..).unwrap_or_default(), seq };
        lines.skip_while(move |line| line.seq < range.first).take_while(move |line| line.seq <= range.last)
    }

    /// A block of its lines within `range` only, which are copied: to keep a few lines of a large block. `None` if there are none.
    #[must_use]
    pub fn part(&self, range: SeqRange) -> Option<Block> {
        let range = self.range().intersection(range)?;
        let (mut extents, mut at) = (Vec::new(), 0);
        for (extent, of) in self.extents.iter().zip(self.by_source()) {
            if let Some(within) = of.range.intersection(range) {
                let from = self.byte_at(within.first).max(at);
                let behind = at + extent.bytes as usize;
                let to = if within.last == of.range.last { behind } else { self.byte_at(within.last.next()) };
                let offset = extent.offset + (from - at) as u64;
                let (lines, bytes) = (within.lines() as u32, (to - from) as u32);
                extents.push(Extent { offset, lines, bytes, ..*extent });
            }
            at += extent.bytes as usize;
        }
        Some(Block {
            commit: self.commit,
            first: range.first,
            lines: range.lines() as u32,
            append_time_ms: self.append_time_ms,
            extents,
            raw: Bytes::copy_from_slice(&self.slice(range)),
        })
    }

    /// The bytes of its lines within `range`, without a copy.
    #[must_use]
    pub fn slice(&self, range: SeqRange) -> Bytes {
        let Some(within) = self.range().intersection(range) else {
            return Bytes::new();
        };
        if within == self.range() {
            return self.raw.clone();
        }
        let start = self.byte_at(within.first);
        let end =
            if within.last == self.range().last { self.raw.len() } else { self.byte_at(within.last.next()) };
        self.raw.slice(start..end)
    }

    /// Where the line `seq`, which it must hold, begins in `raw`.
    fn byte_at(&self, seq: Seq) -> usize {
        let mut lines_before = seq.0 - self.first.0;
        let mut at = 0;
        for extent in &self.extents {
            if lines_before == 0 {
                break;
            }
            if lines_before >= u64::from(extent.lines) {
                lines_before -= u64::from(extent.lines);
                at += extent.bytes as usize;
                continue;
            }
            let bytes = self.raw.get(at..at + extent.bytes as usize).unwrap_or_default();
            let newline = memchr::memchr_iter(b'\n', bytes).nth(lines_before as usize - 1);
            return at + newline.map_or(bytes.len(), |newline| newline + 1);
        }
        at
    }
}

/// Whether each extent of whole lines has as many newlines as lines, the last one at its end, so that there is a line for
/// each seq. Takes a tenth of the time of decompression.
fn are_lines(raw: &[u8], extents: &[Extent]) -> bool {
    let mut rest = raw;
    extents.iter().all(|extent| {
        let Some((bytes, behind)) = rest.split_at_checked(extent.bytes as usize) else { return false };
        rest = behind;
        !extent.flags.is_whole()
            || bytes.last() == Some(&b'\n')
                && memchr::memchr_iter(b'\n', bytes).count() as u64 == u64::from(extent.lines)
    })
}

/// Iterates over the lines of a block.
#[derive(Clone, Debug)]
struct Lines<'a> {
    extents: std::slice::Iter<'a, Extent>,
    extent: Option<Extent>,
    raw: &'a [u8],
    seq: Seq,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let mut extent = match self.extent.take() {
            Some(extent) => extent,
            None => *self.extents.next()?,
        };
        // The last line of an extent ends where the extent does: it may be a part, which has no newline.
        let len = if extent.lines == 1 {
            extent.bytes as usize
        } else {
            memchr::memchr(b'\n', self.raw).map_or(extent.bytes as usize, |newline| newline + 1)
        };
        let (bytes, rest) = self.raw.split_at_checked(len)?;
        let line =
            Line { seq: self.seq, source: extent.source, offset: extent.offset, flags: extent.flags, bytes };
        self.raw = rest;
        self.seq = self.seq.next();
        if extent.lines > 1 {
            extent.lines -= 1;
            extent.offset += len as u64;
            extent.bytes = extent.bytes.saturating_sub(len as u32);
            self.extent = Some(extent);
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId(7);

    fn sample() -> NewBlock {
        let mut builder = BlockBuilder::new();
        builder.push_whole(SourceId(1), 0, b"one\ntwo\r\n", 2);
        builder.push_whole(SourceId(1), 9, b"\n", 1);
        builder.push_marked(SourceId(2), 100, b"first part \n of a long line", LineFlags::FIRST);
        builder.push_marked(SourceId(2), 127, b"end", LineFlags::LAST.unterminated());
        builder.push_whole(SourceId(1), 10, b"three\n", 1);
        builder.build(5)
    }

    fn encoded() -> Vec<u8> {
        let mut out = Vec::new();
        sample().encode(&mut out, STORE, 3, Seq(10));
        out
    }

    #[test]
    fn an_encoded_block_decodes_to_the_same_lines() {
        let out = encoded();
        assert_eq!(out.len(), sample().disk_bytes());
        let block = Block::decode(&out, STORE).unwrap();
        let lines: Vec<_> =
            block.lines().map(|line| (line.seq.0, line.source.0, line.offset, line.bytes)).collect();
        assert_eq!(
            lines,
            [
                (10, 1, 0, &b"one\n"[..]),
                (11, 1, 4, b"two\r\n"),
                (12, 1, 9, b"\n"),
                (13, 2, 100, b"first part \n of a long line"),
                (14, 2, 127, b"end"),
                (15, 1, 10, b"three\n"),
            ]
        );
        assert_eq!(block.lines().nth(3).unwrap().flags.part(), Some("first"));
        assert!(block.lines().nth(4).unwrap().flags.is_unterminated());
        assert_eq!(block.extents().len(), 4, "consecutive lines of a source are one extent");
    }

    #[test]
    fn lines_are_found_source_by_source_and_within_a_range() {
        let block = Block::decode(&encoded(), STORE).unwrap();
        let by_source: Vec<_> = block.by_source().map(|of| (of.source.0, of.range, of.bytes)).collect();
        let range = |first, last| SeqRange::new(Seq(first), Seq(last)).unwrap();
        let expected =
            [(1, range(10, 12), 10), (2, range(13, 13), 27), (2, range(14, 14), 3), (1, range(15, 15), 6)];
        assert_eq!(by_source, expected);
        let new: Vec<_> = sample().by_source(Seq(10)).collect();
        assert_eq!(new, block.by_source().collect::<Vec<_>>());
        for first in 8..=17 {
            for last in first..=17 {
                let within: Vec<_> = block.lines_within(range(first, last)).collect();
                let all = block.lines().filter(|line| (first..=last).contains(&line.seq.0));
                assert_eq!(within, all.collect::<Vec<_>>(), "{first}-{last}");
                let part = block.part(range(first, last));
                let part: Vec<_> = part.iter().flat_map(Block::lines).collect();
                assert_eq!(part, within, "{first}-{last}");
            }
        }
    }

    #[test]
    fn a_slice_has_the_bytes_of_the_lines_of_a_range() {
        let block = Block::decode(&encoded(), STORE).unwrap();
        for first in 10..=15 {
            for last in first..=15 {
                let range = SeqRange::new(Seq(first), Seq(last)).unwrap();
                let expected: Vec<u8> = block
                    .lines()
                    .filter(|line| range.contains(line.seq))
                    .flat_map(|line| line.bytes.to_vec())
                    .collect();
                assert_eq!(block.slice(range), expected, "{range}");
            }
        }
        assert!(block.slice(SeqRange::one(Seq(16))).is_empty());
    }

    #[test]
    fn every_flipped_bit_is_an_error() {
        let good = encoded();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Block::decode(&bad, STORE).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_block_cut_anywhere_is_an_error() {
        let good = encoded();
        for len in 0..good.len() {
            assert!(Block::decode(&good[..len], STORE).is_err(), "{len} bytes");
        }
    }

    /// With correct checksums, as a bug of the writer would leave them. One such block had 3 of `u32::MAX` lines: the
    /// others were read as empty lines until memory was full.
    #[test]
    fn a_block_whose_extents_do_not_fit_its_lines_is_refused() {
        let good = encoded();
        let extent = |nth: usize| HEADER_BYTES + nth * EXTENT_BYTES;
        let refused = |changes: &[(usize, u32)], what: &str| {
            let mut bad = good.clone();
            for (at, number) in changes {
                bad[*at..*at + 4].copy_from_slice(&number.to_le_bytes());
            }
            let extents = sample().extents().len() * EXTENT_BYTES;
            let crc = crc32c::crc32c(&bad[..HEADER_BYTES - 4]);
            let crc = crc32c::crc32c_append(crc, &bad[HEADER_BYTES..HEADER_BYTES + extents]);
            bad[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
            match Block::decode(&bad, STORE).unwrap_err() {
                BlockError::Inconsistent(found) => assert!(found.contains(what), "{found}, and not {what}"),
                error => panic!("{what}: {error}"),
            }
        };
        // The lines of the header and of the first extent; it has three.
        refused(&[(40, 7), (extent(0) + 16, 4)], "do not end where");
        refused(&[(40, 5), (extent(0) + 16, 2)], "do not end where");
        refused(&[(40, u32::MAX), (extent(0) + 16, u32::MAX - 3)], "impossible number of lines");
        refused(&[(40, 3), (extent(0) + 16, 0)], "impossible number of lines");
        refused(&[(40, 7), (extent(1) + 16, 2)], "impossible number of lines");
        refused(&[(24, 0), (28, 0)], "impossible seqs");
        refused(&[(24, u32::MAX), (28, u32::MAX)], "impossible seqs");
        refused(&[(extent(0) + 8, u32::MAX), (extent(0) + 12, u32::MAX)], "largest possible offset");
    }

    /// With one flipped bit in the number of extents a reader allocated 400 MiB, four times the limit of the service.
    #[test]
    fn a_damaged_header_does_not_make_a_reader_read_more_than_a_block() {
        let good = encoded();
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let BlockError::Short { needed, .. } = Block::decode(&bad, STORE).unwrap_err() {
                assert!(needed <= HEADER_BYTES + EXTENTS_MAX * EXTENT_BYTES, "bit {bit}: {needed}");
            }
        }
    }

    #[test]
    fn a_block_of_another_store_is_refused() {
        assert_eq!(
            Block::decode(&encoded(), StoreId(8)).unwrap_err(),
            BlockError::Store { found: STORE, expected: StoreId(8) }
        );
    }
}
