//! What the fuzz targets need of private code: decoders, the scan of a repair, and a store on a disk in memory. The
//! properties are in `fuzz/fuzz_targets`. Behind the feature `fuzzing`, and not part of the contract.
#![allow(missing_docs, clippy::missing_errors_doc)]

use std::path::Path;
use std::sync::Arc;

use crate::block::{Block, BlockError, NewBlock};
use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
use crate::error::Result;
use crate::ids::{Seq, StoreId};
use crate::journal;
use crate::log::{Log, Options};
use crate::manifest::State;
use crate::mark::{Found, Mark, MarkFile};
use crate::quarantine;
use crate::record::Record;
use crate::repair::{self, Remake, Repaired, scan};
use crate::retained::{self, DeadLetter};
use crate::view::View;
use crate::{codec, segment};

/// The block as a segment file has it.
#[must_use]
pub fn encode(block: &NewBlock, store: StoreId, commit: u64, first: Seq) -> Vec<u8> {
    let mut out = Vec::new();
    block.encode(&mut out, store, commit, first);
    out
}

/// Reads the block that bytes begin with.
pub fn decode(bytes: &[u8], store: StoreId) -> std::result::Result<Block, BlockError> {
    Block::decode(bytes, store)
}

/// Sound blocks with place and length, and the bytes in between with the reason why they are not blocks.
pub type Scanned = (Vec<(usize, usize, Block)>, Vec<(usize, usize, String)>);

/// The scan of a repair.
#[must_use]
pub fn scan_blocks(bytes: &[u8], store: StoreId) -> Scanned {
    scan(bytes, store)
}

/// A type of record.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// A commit of a journal, which may be a manifest.
    Commit,
    /// SPARE, and the manifest of a backup.
    State,
    DeadLetter,
}

/// Decodes a framed record; returns it encoded again, and how many bytes follow it.
pub fn record(of: Of, bytes: &[u8]) -> std::result::Result<(Vec<u8>, usize), String> {
    fn again<T: codec::Versioned + bincode::Encode + bincode::Decode<()>>(
        bytes: &[u8],
    ) -> std::result::Result<(Vec<u8>, usize), String> {
        let (record, rest) = codec::decode::<T>(bytes)?;
        Ok((codec::encode(&record)?, rest.len()))
    }
    match of {
        Of::Commit => again::<Record>(bytes),
        Of::State => again::<State>(bytes),
        Of::DeadLetter => again::<DeadLetter>(bytes),
    }
}

/// The payload of the chunk of a journal that `bytes` begin with.
#[must_use]
pub fn chunk(bytes: &[u8]) -> Option<&[u8]> {
    journal::sound_chunk(bytes).map(|(_, payload)| payload)
}

/// The content of MARK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Mark { store: StoreId, journal: u64, commit: u64, next_seq: Seq },
    Version(u32),
    Nothing,
}

/// A store on a disk in memory.
#[derive(Clone)]
pub struct Store(MemoryDisk);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.files()).finish()
    }
}

impl Default for Store {
    fn default() -> Store {
        Store(MemoryDisk::new(1 << 40))
    }
}

impl Store {
    /// A copy of the store.
    #[must_use]
    pub fn copy(&self) -> Store {
        Store(self.0.copy())
    }

    pub fn open(&self, options: Options) -> Result<Log> {
        Log::on_disk(Arc::new(self.0.clone()), options, None)
    }

    pub fn view(&self) -> Result<View> {
        View::on_disk(Arc::new(self.0.clone()), Path::new(""), None)
    }

    pub fn repair(&self, dry_run: bool, remake: Remake<'_>) -> Result<Repaired> {
        let disk: Arc<dyn Disk> = Arc::new(self.0.clone());
        repair::on_disk(&disk, dry_run, remake)
    }

    /// The names of all files, including those in folders.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        const FOLDERS: [&str; 4] = [segment::FOLDER, retained::FOLDER, quarantine::FOLDER, journal::FOLDER];
        let mut files = self.0.list("").unwrap_or_default();
        files.retain(|name| !FOLDERS.contains(&name.as_str()));
        for folder in FOLDERS.into_iter().filter(|folder| *folder != journal::FOLDER) {
            let names = self.0.list(folder).unwrap_or_default();
            files.extend(names.iter().map(|name| format!("{folder}/{name}")));
        }
        // A journal in the quarantine is a folder, which has no bytes.
        files.retain(|name| self.read(name).is_some_and(|bytes| !bytes.is_empty()));
        files
    }

    /// The folders of journals.
    #[must_use]
    pub fn journals(&self) -> Vec<String> {
        let names = self.0.list(journal::FOLDER).unwrap_or_default();
        names.iter().map(|name| format!("{}/{name}", journal::FOLDER)).collect()
    }

    #[must_use]
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let file = self.0.open(path, false).ok()?;
        file.read_all().ok()
    }

    /// Replaces the content of a file, or makes it.
    pub fn write(&self, path: &str, bytes: &[u8]) -> std::io::Result<()> {
        self.0.create(path)?.write_at(bytes, 0)
    }

    pub fn remove(&self, path: &str) -> std::io::Result<()> {
        self.0.remove_file(path)
    }

    /// Changes the `nth` value of a journal: in its file, in what the database shows of a copy, or in both.
    pub fn damage_journal(
        &self,
        folder: &str,
        nth: usize,
        raw: bool,
        shown: bool,
        change: &dyn Fn(&mut Vec<u8>),
    ) {
        self.0.damage_journal(folder, nth, [raw, shown], change);
    }

    pub fn mark(&self) -> Result<Says> {
        Ok(match MarkFile::read(&self.0)? {
            Found::Mark(Mark { store, journal, commit, next_seq }) => {
                Says::Mark { store, journal, commit, next_seq }
            }
            Found::Version(version) => Says::Version(version),
            Found::Nothing => Says::Nothing,
        })
    }

    /// Overwrites the slot of MARK whose turn it is.
    pub fn set_mark(&self, store: StoreId, journal: u64, commit: u64, next_seq: Seq) -> Result<()> {
        MarkFile::open(&self.0)?.write(Mark { store, journal, commit, next_seq })
    }
}
