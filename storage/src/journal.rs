//! The journal: a single-use sled database, in which every commit becomes durable.
//!
//! A commit is cut into chunks: the values of one sled batch, with the keys (commit, chunk), never overwritten. Chunks are
//! self-describing, so that a raw scan of sled's file finds every commit without sled:
//!
//! | at | bytes | what (little endian) |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 8 | store id |
//! | 16 | 8 | journal number |
//! | 24 | 8 | commit number |
//! | 32 | 4 | chunk, from 0 |
//! | 36 | 4 | chunks of the commit |
//! | 40 | 4 | bytes of the payload |
//! | 44 | 4 | CRC32C of the payload |
//! | 48 | 4 | CRC32C of bytes 0..48 |
//! | 52 | | payload |
//!
//! A value is at most [`CHUNK_BYTES`] long: a larger one would go to a blob file, which sled never syncs. The
//! database is not read while it is written, and never opened in place afterwards.

use std::collections::{BTreeMap, BTreeSet};

use bincode::Encode;
use bytes::BufMut;

use crate::bytes_le::Get;
use crate::codec::{self, Versioned};
use crate::disk::{Disk, DiskFile, JournalDb};
use crate::error::{Context, Error, Result};
use crate::ids::StoreId;
use crate::manifest::State;
use crate::record::{Record, RecordRef};

const MAGIC: [u8; 8] = *b"\xf1SPQJRN\x01";
const HEADER_BYTES: usize = 52;
/// The largest value: 17 of them with their keys stay below a quarter of sled's segment. Small for the fuzzer, whose
/// commits are small.
const CHUNK_BYTES: usize = if cfg!(feature = "fuzzing") { 300 } else { 60_000 };
const PAYLOAD_BYTES: usize = CHUNK_BYTES - HEADER_BYTES;
/// Preallocated for each journal when it is made: what sled's file grows to for 8 MiB of values, measured at 20 to 25
/// MiB (docs/decisions/0001-journal-sizes.md).
pub(crate) const RESERVED_BYTES: u64 = 28 * 1024 * 1024;
/// If a journal is longer than this with nothing but the manifest in it, more is preallocated: a long manifest must not
/// cause a rotation after few lines.
const BEGUN_BYTES: u64 = 8 * 1024 * 1024;
/// Read at a time by a scan.
const SCAN_BYTES: usize = if cfg!(feature = "fuzzing") { 2_000 } else { 1024 * 1024 };
/// The most chunks of a commit: bounds what a reader expects because of a damaged header.
const CHUNKS_MAX: u32 = 4_096;

pub(crate) const FOLDER: &str = "journal";

/// The folder of journal `number`.
pub(crate) fn folder(number: u64) -> String {
    format!("{FOLDER}/{number:08}")
}

/// The number of a journal folder's name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    (name.len() >= 8 && name.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.parse().ok())?
}

/// A journal being written.
pub(crate) struct Journal {
    db: Box<dyn JournalDb>,
    store: StoreId,
    number: u64,
    /// Bytes of blocks since it began; records that reference blocks count several times.
    pub(crate) stored_bytes: u64,
    /// Commits since it began.
    pub(crate) commits: u64,
    /// Of its file with nothing but the manifest in it.
    begun_bytes: u64,
}

impl Journal {
    /// Makes an empty one under a temporary name, for [`Journal::begin`]. `long_bytes` more than usual are preallocated,
    /// for a long manifest.
    pub(crate) fn prepare(
        disk: &dyn Disk,
        number: u64,
        long_bytes: u64,
    ) -> std::io::Result<Box<dyn JournalDb>> {
        let temporary = temporary(number);
        // Left by a run that was killed while it made the next journal.
        disk.remove_folder(&temporary)?;
        disk.create_journal(&temporary, RESERVED_BYTES + long_bytes)
    }

    /// Writes the manifest to a prepared journal and gives it its final name, durably. From the moment that MARK names it,
    /// it is the journal of the store.
    pub(crate) fn begin(disk: &dyn Disk, db: Box<dyn JournalDb>, manifest: &State) -> Result<Journal> {
        let State { store, journal, commit, .. } = *manifest;
        Journal::begin_with(disk, db, store, journal, commit, &RecordRef::Manifest(manifest))
    }

    /// As [`Journal::begin`], with a manifest of any version.
    pub(crate) fn begin_with(
        disk: &dyn Disk,
        db: Box<dyn JournalDb>,
        store: StoreId,
        number: u64,
        commit: u64,
        manifest: &(impl Versioned + Encode),
    ) -> Result<Journal> {
        let name = folder(number);
        let mut journal = Journal { db, store, number, stored_bytes: 0, commits: 0, begun_bytes: 0 };
        journal.append(commit, manifest, &[])?;
        journal.db.sync_folder().during("sync", &name)?;
        disk.rename(&temporary(number), &name).during("rename", &temporary(number))?;
        disk.sync_dir(FOLDER).during("sync", FOLDER)?;
        journal.stored_bytes = 0;
        journal.begun_bytes = journal.file_bytes().during("look at the size of", &name)?;
        Ok(journal)
    }

    /// The number of this journal.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that its manifest takes above [`BEGUN_BYTES`].
    pub(crate) fn long_bytes(&self) -> u64 {
        self.begun_bytes.saturating_sub(BEGUN_BYTES)
    }

    /// Bytes of the database's files.
    pub(crate) fn file_bytes(&self) -> std::io::Result<u64> {
        self.db.file_bytes()
    }

    /// Adds one commit and makes it durable. `blocks` are its blocks as they are stored, in one or more parts each. Returns
    /// the length of the record. After an error it is not known what is durable, until the store is opened again.
    pub(crate) fn append(
        &mut self,
        commit: u64,
        record: &(impl Versioned + Encode),
        blocks: &[&[u8]],
    ) -> Result<u64> {
        let name = folder(self.number);
        let framed =
            codec::encode(record).map_err(std::io::Error::other).during("encode a commit for", &name)?;
        self.put_chunks(commit, &framed, blocks);
        self.db.apply().during("write a commit to", &name)?;
        self.db.sync().during("sync", &name)?;
        self.commits += 1;
        self.stored_bytes += blocks.iter().map(|block| block.len() as u64).sum::<u64>();
        Ok(framed.len() as u64)
    }

    /// Cuts the record and its blocks into chunks, without a copy of the whole commit, which may be megabytes.
    fn put_chunks(&mut self, commit: u64, record: &[u8], blocks: &[&[u8]]) {
        let bytes = record.len() + blocks.iter().map(|part| part.len()).sum::<usize>();
        let count = bytes.div_ceil(PAYLOAD_BYTES) as u32;
        let mut parts = std::iter::once(record).chain(blocks.iter().copied());
        let mut rest: &[u8] = &[];
        let mut value = Vec::with_capacity(CHUNK_BYTES);
        for chunk in 0..count {
            value.clear();
            value.resize(HEADER_BYTES, 0);
            while value.len() < CHUNK_BYTES {
                if rest.is_empty() {
                    match parts.next() {
                        Some(part) => rest = part,
                        None => break,
                    }
                }
                let (now, later) = rest.split_at(rest.len().min(CHUNK_BYTES - value.len()));
                value.extend_from_slice(now);
                rest = later;
            }
            let header =
                self.chunk_header(commit, chunk, count, value.get(HEADER_BYTES..).unwrap_or_default());
            value.splice(..HEADER_BYTES, header);
            let [_, _, _, _, key @ ..] = (u128::from(commit) << 32 | u128::from(chunk)).to_be_bytes();
            self.db.put(key, &value);
        }
    }

    fn chunk_header(&self, commit: u64, chunk: u32, count: u32, payload: &[u8]) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.put_u64_le(self.store.0);
        header.put_u64_le(self.number);
        header.put_u64_le(commit);
        header.put_u32_le(chunk);
        header.put_u32_le(count);
        header.put_u32_le(payload.len() as u32);
        header.put_u32_le(crc32c::crc32c(payload));
        header.put_u32_le(crc32c::crc32c(&header));
        header
    }
}

/// The name of a journal before it is begun.
fn temporary(number: u64) -> String {
    format!("{FOLDER}/.tmp-{number:08}")
}

pub(crate) struct ChunkHeader {
    pub(crate) store: StoreId,
    pub(crate) journal: u64,
    pub(crate) commit: u64,
    pub(crate) chunk: u32,
    pub(crate) chunks: u32,
}

/// The chunk that `bytes` begin with and its payload, if they are sound. It may be of any journal.
pub(crate) fn sound_chunk(bytes: &[u8]) -> Option<(ChunkHeader, &[u8])> {
    let header = bytes.get(..HEADER_BYTES)?;
    let mut get = Get::new(header);
    let magic = get.array::<8>();
    let (store, journal) = (StoreId(get.u64()), get.u64());
    let (commit, chunk, chunks) = (get.u64(), get.u32(), get.u32());
    let (len, crc, header_crc) = (get.u32() as usize, get.u32(), get.u32());
    let is_sound = crc32c::crc32c(header.get(..HEADER_BYTES - 4)?) == header_crc;
    let is_sane = chunk < chunks && chunks <= CHUNKS_MAX && len <= PAYLOAD_BYTES;
    if magic != MAGIC || !is_sound || !is_sane {
        return None;
    }
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + len)?;
    (crc32c::crc32c(payload) == crc)
        .then_some((ChunkHeader { store, journal, commit, chunk, chunks }, payload))
}

/// Shows every sound chunk in the raw bytes of a journal, with the place of its payload.
pub(crate) fn scan(raw: &dyn DiskFile, mut show: impl FnMut(ChunkHeader, u64, &[u8])) -> std::io::Result<()> {
    let finder = memchr::memmem::Finder::new(&MAGIC);
    let len = raw.len()?;
    // A chunk that crosses the end of what was read is found again at the start of the next piece.
    let mut buffer = vec![0; SCAN_BYTES + CHUNK_BYTES];
    let mut at = 0;
    while at < len {
        let read = raw.read_at(&mut buffer, at)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        for found in finder.find_iter(bytes) {
            if let Some((header, payload)) = sound_chunk(bytes.get(found..).unwrap_or_default()) {
                show(header, at + (found + HEADER_BYTES) as u64, payload);
            }
        }
        at += SCAN_BYTES as u64;
    }
    Ok(())
}

/// Where the chunks of a closed journal are.
pub(crate) struct Reading {
    raw: Box<dyn DiskFile>,
    store: StoreId,
    journal: u64,
    /// Found in the raw bytes: where the payload begins, and how long it is.
    scanned: BTreeMap<(u64, u32), (u64, usize)>,
    /// Sound in what the database shows of a copy, and not found by the scan.
    rescued: BTreeMap<(u64, u32), Vec<u8>>,
    /// The number of chunks of each commit, from either reading.
    chunks: BTreeMap<u64, u32>,
    /// Differences of the two readings, for people. Empty if there are none.
    pub(crate) findings: Vec<String>,
    /// The disk returned an error while the journal was copied: the findings may be no damage.
    pub(crate) is_refused: bool,
}

impl Reading {
    /// Reads a closed journal by a raw scan and through a copy, changing nothing. `durable` is the last commit that MARK
    /// has.
    pub(crate) fn of(disk: &dyn Disk, store: StoreId, journal: u64, durable: u64) -> Result<Reading> {
        let name = folder(journal);
        let raw = disk.open_journal_raw(&name).during("open", &name)?;
        raw.forget_cached().during("drop the cached pages of", &name)?;
        let mut reading = Reading {
            raw,
            store,
            journal,
            scanned: BTreeMap::new(),
            rescued: BTreeMap::new(),
            chunks: BTreeMap::new(),
            findings: Vec::new(),
            is_refused: false,
        };
        let Reading { raw, scanned, chunks, .. } = &mut reading;
        let scan = scan(raw.as_ref(), |header, at, payload| {
            if (header.store, header.journal) == (store, journal) {
                scanned.insert((header.commit, header.chunk), (at, payload.len()));
                chunks.insert(header.commit, header.chunks);
            }
        });
        scan.during("scan", &name)?;
        let mut shown = BTreeSet::new();
        let copy = disk.read_journal_copy(&name, &mut |value| shown.extend(reading.compare(value)));
        if let Err(error) = copy {
            reading
                .findings
                .push(format!("could not read {name} through a copy: {error}; the raw scan is used"));
            reading.is_refused = error.raw_os_error().is_some();
        }
        // A commit that a crash interrupted may be whole in the raw file, although sled does not show it.
        let owed = reading.last().unwrap_or_default().min(durable);
        let lacking = reading.scanned.keys().filter(|key| key.0 <= owed && !shown.contains(*key)).count();
        if lacking > 0 && !reading.is_refused {
            reading.findings.push(format!(
                "journal {journal}: sled's copy lacks {lacking} chunks that the raw scan found"
            ));
        }
        Ok(reading)
    }

    /// Adds a value that the database showed; returns which chunk of this journal it is, if it is sound.
    fn compare(&mut self, value: &[u8]) -> Option<(u64, u32)> {
        let (header, payload) = sound_chunk(value)?;
        if (header.store, header.journal) != (self.store, self.journal)
            || HEADER_BYTES + payload.len() != value.len()
        {
            return None;
        }
        let key = (header.commit, header.chunk);
        if !self.scanned.contains_key(&key) {
            self.rescued.insert(key, payload.to_owned());
            self.chunks.insert(header.commit, header.chunks);
        }
        Some(key)
    }

    /// The first commit, which must be the manifest.
    pub(crate) fn first(&self) -> Option<u64> {
        self.chunks.keys().next().copied()
    }

    /// The newest commit of which either reading has a chunk.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.chunks.keys().next_back().copied()
    }

    /// The last of the commits that are whole and follow one another from the first.
    pub(crate) fn last(&self) -> Option<u64> {
        let mut last = None;
        for commit in self.first()?.. {
            if !self.is_whole(commit) {
                break;
            }
            last = Some(commit);
        }
        last
    }

    fn is_whole(&self, commit: u64) -> bool {
        let has = |chunk: &u32| {
            self.scanned.contains_key(&(commit, *chunk)) || self.rescued.contains_key(&(commit, *chunk))
        };
        self.chunks.get(&commit).is_some_and(|chunks| (0..*chunks).all(|chunk| has(&chunk)))
    }

    /// The record of a whole commit, and its blocks.
    pub(crate) fn commit(&self, commit: u64) -> Result<(Record, Vec<u8>)> {
        let name = folder(self.journal);
        let mut payload = Vec::new();
        for chunk in 0..self.chunks.get(&commit).copied().unwrap_or_default() {
            if let Some((at, bytes)) = self.scanned.get(&(commit, chunk)) {
                payload.extend(self.raw.read_range(*at, *bytes).during("read", &name)?);
            } else if let Some(bytes) = self.rescued.get(&(commit, chunk)) {
                payload.extend_from_slice(bytes);
            }
        }
        let (record, blocks) = codec::decode(&payload)
            .map_err(|what| Error::Damaged { path: name.into(), what: format!("commit {commit}: {what}") })?;
        let blocks = blocks.to_vec();
        Ok((record, blocks))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;
    use crate::disk::real::RealDisk;

    #[test]
    fn a_whole_commit_that_sled_does_not_show_after_a_crash_is_not_damage() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        std::fs::create_dir(dir.path().join(FOLDER)).unwrap();
        let store = StoreId(7);
        let manifest = State::new(store);
        let db = Journal::prepare(&disk, 1, 0).unwrap();
        let mut journal = Journal::begin(&disk, db, &manifest).unwrap();
        journal.append(2, &RecordRef::Manifest(&manifest), &[]).unwrap();
        let left = [journal.chunk_header(3, 0, 1, b"under way"), b"under way".to_vec()].concat();
        drop(journal);
        let db = dir.path().join(folder(1)).join("db");
        OpenOptions::new().append(true).open(db).unwrap().write_all(&left).unwrap();
        let reading = |durable| Reading::of(&disk, store, 1, durable).unwrap();
        assert_eq!((reading(2).last(), reading(2).findings), (Some(3), vec![]));
        assert_eq!(reading(3).findings.len(), 1, "sled must show what was durable");
    }
}
