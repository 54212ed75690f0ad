//! MARK: the last durable commit, and which journal has it.
//!
//! Two slots of 64 bytes, a page apart, written in turn after every commit, without a sync: MARK may be behind what is
//! durable, never ahead. It is synced only when a new journal takes over. The other slot is written next, so that a torn
//! write never destroys the only valid one.
//!
//! A slot, little endian: CRC32C of the rest 4, format version 4, store id 8, journal number 8, commit number 8,
//! next seq 8, zeros 24.

use bytes::BufMut;

use crate::bytes_le::Get;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Error, Result};
use crate::ids::{Seq, StoreId};

/// The format version of a store: the one that is written, and the newest that is read.
pub(crate) const FORMAT_VERSION: u32 = 3;
/// The oldest version that is read. The first slot that is written makes it a store of [`FORMAT_VERSION`]: from then on an
/// older program refuses it.
pub(crate) const OLDEST_VERSION: u32 = 1;
pub(crate) const PATH: &str = "MARK";
const SLOT_BYTES: usize = 64;
/// A page apart, so that no sector holds both.
const SLOT_STRIDE: u64 = 4_096;

/// The error for a store of that format version.
pub(crate) fn unknown(found: u32) -> Error {
    Error::Version { path: "".into(), found, oldest: OLDEST_VERSION, newest: FORMAT_VERSION }
}

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) store: StoreId,
    pub(crate) journal: u64,
    pub(crate) commit: u64,
    pub(crate) next_seq: Seq,
}

/// What the file has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Mark(Mark),
    /// A valid slot of a format version that is not read.
    Version(u32),
    /// No valid slot.
    Nothing,
}

impl Found {
    fn newer(self, other: Found) -> Found {
        match (self, other) {
            // A newer program writes one slot at a time: the other one is older than the store.
            (Found::Version(version), _) | (_, Found::Version(version)) => Found::Version(version),
            (Found::Mark(one), Found::Mark(other)) => {
                Found::Mark(if one.commit > other.commit { one } else { other })
            }
            (found, Found::Nothing) | (Found::Nothing, found) => found,
        }
    }
}

impl Mark {
    pub(crate) fn encode(self, version: u32) -> Vec<u8> {
        let mut body = Vec::with_capacity(SLOT_BYTES);
        body.put_u32_le(version);
        body.put_u64_le(self.store.0);
        body.put_u64_le(self.journal);
        body.put_u64_le(self.commit);
        body.put_u64_le(self.next_seq.0);
        body.resize(SLOT_BYTES - 4, 0);
        let mut slot = Vec::with_capacity(SLOT_BYTES);
        slot.put_u32_le(crc32c::crc32c(&body));
        slot.extend_from_slice(&body);
        slot
    }

    fn decode(slot: &[u8; SLOT_BYTES]) -> Found {
        let mut get = Get::new(slot);
        let crc = get.u32();
        if crc32c::crc32c(slot.get(4..).unwrap_or_default()) != crc {
            return Found::Nothing;
        }
        match get.u32() {
            OLDEST_VERSION..=FORMAT_VERSION => Found::Mark(Mark {
                store: StoreId(get.u64()),
                journal: get.u64(),
                commit: get.u64(),
                next_seq: Seq(get.u64()),
            }),
            version => Found::Version(version),
        }
    }
}

/// The open file.
pub(crate) struct MarkFile(Box<dyn DiskFile>);

impl MarkFile {
    /// Makes the file with `mark` in it, durably. From then on the folder is a store.
    pub(crate) fn create(disk: &dyn Disk, mark: Mark) -> Result<MarkFile> {
        const TEMPORARY: &str = ".tmp-MARK";
        let file = disk.create(TEMPORARY).during("create", TEMPORARY)?;
        // The space of both slots is allocated here, so that to overwrite them cannot fail on a full disk.
        file.write_at(&[0; 2 * SLOT_STRIDE as usize], 0).during("write", TEMPORARY)?;
        let mark_file = MarkFile(file);
        mark_file.write(mark)?;
        mark_file.sync()?;
        disk.rename(TEMPORARY, PATH).during("rename", TEMPORARY)?;
        disk.sync_dir("").during("sync", "the data dir")?;
        Ok(mark_file)
    }

    pub(crate) fn open(disk: &dyn Disk) -> Result<MarkFile> {
        Ok(MarkFile(disk.open(PATH, true).during("open", PATH)?))
    }

    /// Makes the file's content durable, before files are removed because of it.
    pub(crate) fn settle(disk: &dyn Disk) -> Result<()> {
        if !disk.exists(PATH).during("look for", PATH)? {
            return Ok(());
        }
        disk.open(PATH, true).during("open", PATH)?.settle().during("sync", PATH)
    }

    /// The newer valid slot.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Found> {
        Ok(MarkFile::slots(disk)?.into_iter().fold(Found::Nothing, Found::newer))
    }

    /// Both slots; none if the file does not exist.
    pub(crate) fn slots(disk: &dyn Disk) -> Result<Vec<Found>> {
        if !disk.exists(PATH).during("look for", PATH)? {
            return Ok(Vec::new());
        }
        let file = disk.open(PATH, false).during("open", PATH)?;
        let mut slots = Vec::new();
        for at in [0, SLOT_STRIDE] {
            let mut slot = [0; SLOT_BYTES];
            let read = file.read_at(&mut slot, at).during("read", PATH)?;
            slots.push(if read < SLOT_BYTES { Found::Nothing } else { Mark::decode(&slot) });
        }
        Ok(slots)
    }

    /// Overwrites the slot whose turn it is, without a sync.
    pub(crate) fn write(&self, mark: Mark) -> Result<()> {
        let at = (mark.commit % 2) * SLOT_STRIDE;
        self.0.write_at(&mark.encode(FORMAT_VERSION), at).during("write", PATH)
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.0.sync().during("sync", PATH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::MemoryDisk;

    fn mark(commit: u64) -> Mark {
        Mark { store: StoreId(7), journal: commit, commit, next_seq: Seq(commit) }
    }

    fn found(slots: [(u64, u32); 2]) -> Found {
        let disk = MemoryDisk::new(1 << 20);
        let file = disk.create(PATH).unwrap();
        file.write_at(&[0; 2 * SLOT_STRIDE as usize], 0).unwrap();
        for ((commit, version), at) in slots.into_iter().zip([0, SLOT_STRIDE]) {
            file.write_at(&mark(commit).encode(version), at).unwrap();
        }
        MarkFile::read(&disk).unwrap()
    }

    #[test]
    fn the_newer_slot_counts_whichever_known_version_it_has() {
        for versions in [(1, 1), (1, 3), (3, 1), (2, 3), (3, 2), (3, 3)] {
            assert_eq!(found([(4, versions.0), (5, versions.1)]), Found::Mark(mark(5)), "{versions:?}");
            assert_eq!(found([(6, versions.0), (5, versions.1)]), Found::Mark(mark(6)), "{versions:?}");
        }
        for version in [0, 4, u32::MAX] {
            assert_eq!(found([(4, version), (5, 3)]), Found::Version(version), "whatever the other slot has");
            assert_eq!(found([(4, 1), (5, version)]), Found::Version(version));
        }
    }

    #[test]
    fn version_3_is_written() {
        let disk = MemoryDisk::new(1 << 20);
        MarkFile::create(&disk, mark(4)).unwrap().write(mark(5)).unwrap();
        let mut bytes = [0; 2 * SLOT_STRIDE as usize];
        disk.open(PATH, false).unwrap().read_at(&mut bytes, 0).unwrap();
        let version = |at: usize| u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        assert_eq!((version(0), version(SLOT_STRIDE as usize)), (3, 3));
    }
}
