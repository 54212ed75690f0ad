//! What segment files will hold: for each, the sound blocks in order, and what cannot be read.
//!
//! One file is in memory at a time (some 16 MiB), and the blocks that only journals have.

use std::collections::BTreeMap;

use super::source_end::SourceEnds;
use crate::block::{BLOCK_MAGIC, Block, BlockHeader};
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Result};
use crate::ids::{Seq, SeqRange, StoreId};
use crate::manifest::{SegmentMeta, State};
use crate::segment;

/// How much of a disk with a bad sector cannot be read.
const PAGE_BYTES: usize = 4_096;

/// Where the bytes of a block are.
pub(crate) enum Piece {
    /// In the file itself.
    Own { at: u64, bytes: usize },
    /// In a journal: these bytes.
    Journal(Vec<u8>),
}

/// What becomes of one segment file.
pub(crate) struct FilePlan {
    /// The file; none if only a journal has its blocks.
    pub(crate) old: Option<String>,
    /// It holds bytes that cannot be read, and is moved to the quarantine.
    pub(crate) is_damaged: bool,
    /// It has to be written: it is damaged, or blocks go into it.
    pub(crate) is_changed: bool,
    pub(crate) pieces: Vec<Piece>,
    /// As the manifest will have it. The name stays even if the first block is lost, because the old manifest counts until
    /// the repair is complete. Meaningless without pieces.
    pub(crate) meta: SegmentMeta,
}

impl FilePlan {
    fn new(old: Option<String>, first: Seq) -> FilePlan {
        let meta = SegmentMeta { first, bytes: 0, raw_bytes: 0 };
        FilePlan { is_changed: old.is_none(), old, is_damaged: false, pieces: Vec::new(), meta }
    }
}

/// The plans of all files, and what follows from them.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) files: Vec<FilePlan>,
    /// Seqs that are held, in order and joined.
    pub(crate) held: Vec<SeqRange>,
    pub(crate) ends: SourceEnds,
    pub(crate) findings: Vec<String>,
    /// The newest commit of any block.
    pub(crate) newest_commit: u64,
}

impl Plan {
    /// Reads every segment file. `trusted` is the state of a store that opens: then other lines are ignored.
    /// `from_journals` are bytes with blocks in them.
    pub(crate) fn of(
        disk: &dyn Disk,
        store: StoreId,
        trusted: Option<&State>,
        from_journals: impl Iterator<Item = Vec<u8>>,
    ) -> Result<Plan> {
        let counts = |block: &Block| {
            trusted.is_none_or(|state| {
                block.commit() <= state.commit
                    && block.range().first >= state.first_seq()
                    && block.range().last < state.next_seq
            })
        };
        let mut extra = BTreeMap::new();
        for bytes in from_journals {
            for (at, len, block) in blocks(&bytes, store).0.into_iter().filter(|found| counts(&found.2)) {
                let bytes = bytes.get(at..at + len).unwrap_or_default().to_owned();
                extra.insert(block.range().first, bytes);
            }
        }
        let names = disk.list_if_exists(segment::FOLDER).during("list", segment::FOLDER)?;
        let mut plan = Plan::default();
        let firsts: Vec<Seq> = names.iter().filter_map(|name| segment::first_of(name)).collect();
        for (first, next) in firsts.iter().zip(firsts.iter().skip(1).chain([&Seq(u64::MAX)])) {
            let (first, next) = (*first, *next);
            let known = trusted.map(|state| state.segments.iter().find(|segment| segment.first == first));
            // Compacted, and there again after a power cut: opening removes it.
            if known == Some(None) {
                continue;
            }
            let name = segment::path(first);
            let file = disk.open(&name, false).during("open", &name)?;
            let len = file.len().during("read", &name)?;
            let bytes = read_all(file.as_ref(), known.flatten().map_or(len, |known| known.bytes.min(len)));
            plan.take_before(first, &mut extra, store);
            let belongs =
                |block: &Block| counts(block) && block.range().first >= first && block.range().last < next;
            plan.add_file(first, &bytes, &mut extra, store, &belongs);
        }
        plan.take_before(Seq(u64::MAX), &mut extra, store);
        Ok(plan)
    }

    fn add_file(
        &mut self,
        first: Seq,
        bytes: &[u8],
        extra: &mut BTreeMap<Seq, Vec<u8>>,
        store: StoreId,
        belongs: &dyn Fn(&Block) -> bool,
    ) {
        let name = segment::path(first);
        let (found, unreadable) = blocks(bytes, store);
        self.files.push(FilePlan::new(Some(name.clone()), first));
        for (at, len, what) in &unreadable {
            self.damaged(format!("{name}: {len} bytes at {at} are not a block: {what}"));
        }
        for (at, len, block) in found {
            // If files were exchanged, a block of another file does not replace those of this file.
            if !belongs(&block) {
                self.damaged(format!("{name}: the block at {at} holds lines of another file"));
                continue;
            }
            self.take_before(block.range().first, extra, store);
            if block.range().first > self.last() {
                self.add(Piece::Own { at: at as u64, bytes: len }, &block, len);
            } else {
                self.damaged(format!("{name}: the block at {at} holds lines that an earlier block holds"));
            }
        }
    }

    /// Records damage of the last file.
    fn damaged(&mut self, what: String) {
        self.findings.push(what);
        if let Some(file) = self.files.last_mut() {
            (file.is_damaged, file.is_changed) = (true, true);
        }
    }

    fn last(&self) -> Seq {
        self.held.last().map_or(Seq(0), |range| range.last)
    }

    /// Adds the blocks of journals before `seq` that no file has.
    fn take_before(&mut self, seq: Seq, extra: &mut BTreeMap<Seq, Vec<u8>>, store: StoreId) {
        while let Some(entry) = extra.first_entry().filter(|entry| *entry.key() < seq) {
            let bytes = entry.remove();
            let Ok(block) = Block::decode(&bytes, store) else { continue };
            if block.range().first <= self.last() || block.range().last >= seq {
                continue;
            }
            if self.files.is_empty() {
                self.files.push(FilePlan::new(None, Seq(0)));
            }
            let len = bytes.len();
            self.add(Piece::Journal(bytes), &block, len);
            if let Some(file) = self.files.last_mut() {
                file.is_changed = true;
            }
        }
    }

    fn add(&mut self, piece: Piece, block: &Block, len: usize) {
        let range = block.range();
        let Some(file) = self.files.last_mut() else { return };
        if file.pieces.is_empty() && file.old.is_none() {
            file.meta.first = range.first;
        }
        file.meta.bytes += len as u64;
        file.meta.raw_bytes += block.raw().len() as u64;
        file.pieces.push(piece);
        match self.held.last_mut() {
            Some(last) if last.last.next() == range.first => last.last = range.last,
            _ => self.held.push(range),
        }
        self.newest_commit = self.newest_commit.max(block.commit());
        self.ends.note(block);
    }
}

/// The first `len` bytes; zeros where the disk cannot read them.
fn read_all(file: &dyn DiskFile, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    if file.read_at(&mut bytes, 0).is_err() {
        for (number, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
            if file.read_at(page, (number * PAGE_BYTES) as u64).is_err() {
                page.fill(0);
            }
        }
    }
    bytes
}

pub(crate) type Found = (usize, usize, Block);

/// The sound blocks in `bytes` with place and length, and the bytes in between with the reason why they are not blocks.
pub(crate) fn blocks(bytes: &[u8], store: StoreId) -> (Vec<Found>, Vec<(usize, usize, String)>) {
    let (mut found, mut unreadable) = (Vec::new(), Vec::<(usize, usize, String)>::new());
    let finder = memchr::memmem::Finder::new(&BLOCK_MAGIC);
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let parsed = BlockHeader::parse(rest, store)
            .and_then(|header| Block::decode(rest, store).map(|block| (header.disk_bytes(), block)));
        match parsed {
            Ok((len, block)) => {
                found.push((at, len, block));
                at += len;
            }
            Err(what) => {
                let next =
                    rest.get(1..).and_then(|rest| finder.find(rest)).map_or(rest.len(), |next| next + 1);
                match unreadable.last_mut() {
                    Some((from, len, _)) if *from + *len == at => *len += next,
                    _ => unreadable.push((at, next, what.to_string())),
                }
                at += next;
            }
        }
    }
    (found, unreadable)
}
