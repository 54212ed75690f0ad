//! A disk in memory that can crash at any sync. It then loses any part of what was not synced: writes or parts of them,
//! lengths, names in folders, chunks of a journal. A copy of a journal may show even less.
// long: one disk, and all that it can lose

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile, JournalDb};

type Ino = u64;
const ROOT: Ino = 0;
/// A torn write keeps whole sectors.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Write {
    Bytes { at: usize, bytes: Vec<u8> },
    Len(usize),
}

#[derive(Clone, Debug)]
enum NameOp {
    Set(String, Ino),
    Unset(String),
    Rename(String, String),
}

#[derive(Clone, Debug, Default)]
struct Node {
    live: Vec<u8>,
    durable: Vec<u8>,
    writes: Vec<Write>,
    names: BTreeMap<String, Ino>,
    durable_names: BTreeMap<String, Ino>,
    name_ops: Vec<NameOp>,
    journal: Option<JournalData>,
    is_folder: bool,
}

type Chunks = BTreeMap<[u8; 12], Vec<u8>>;

#[derive(Clone, Debug, Default)]
struct JournalData {
    raw: Chunks,
    shown: Chunks,
    pending: Vec<Chunks>,
    /// What was preallocated for it, on a disk that counts that.
    reserved: u64,
}

#[derive(Clone, Debug)]
struct Inner {
    nodes: BTreeMap<Ino, Node>,
    next: Ino,
    syncs: u64,
    crash_at: Option<u64>,
    crashed: bool,
    capacity: u64,
    counts_journals: bool,
    /// The file whose next sync fails.
    failing: Option<Ino>,
    /// A byte of a file that cannot be read.
    bad: Option<(Ino, u64)>,
}

/// The disk; clones share it.
#[derive(Clone)]
pub(crate) struct MemoryDisk(Arc<Mutex<Inner>>);

fn gone() -> io::Error {
    io::Error::other("the disk has crashed")
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn write_into(content: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Len(len) => content.resize(*len, 0),
        Write::Bytes { at, bytes } => {
            if content.len() < at + bytes.len() {
                content.resize(at + bytes.len(), 0);
            }
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

fn apply_name(names: &mut BTreeMap<String, Ino>, op: &NameOp) {
    match op {
        NameOp::Set(name, ino) => drop(names.insert(name.clone(), *ino)),
        NameOp::Unset(name) => drop(names.remove(name)),
        NameOp::Rename(from, to) => {
            if let Some(ino) = names.remove(from) {
                names.insert(to.clone(), ino);
            }
        }
    }
}

impl MemoryDisk {
    pub(crate) fn new(capacity: u64) -> MemoryDisk {
        let root = Node { is_folder: true, ..Node::default() };
        let nodes = BTreeMap::from([(ROOT, root)]);
        MemoryDisk(Arc::new(Mutex::new(Inner {
            nodes,
            next: 1,
            syncs: 0,
            crash_at: None,
            crashed: false,
            capacity,
            counts_journals: false,
            failing: None,
            bad: None,
        })))
    }

    /// From the `syncs`-th sync on, counted from now, everything fails.
    pub(crate) fn crash_after(&self, syncs: u64) {
        let mut inner = self.0.lock().unwrap();
        inner.crash_at = Some(inner.syncs + syncs);
    }

    pub(crate) fn has_crashed(&self) -> bool {
        self.0.lock().unwrap().crashed
    }

    /// The next sync of this file fails, as when a device cannot write: the bytes are lost, but the cache still shows them,
    /// and a second sync succeeds.
    pub(crate) fn fail_next_sync(&self, path: &str) {
        let mut inner = self.0.lock().unwrap();
        inner.failing = inner.find(path);
    }

    /// Whether that sync has not happened yet.
    pub(crate) fn is_failing(&self) -> bool {
        self.0.lock().unwrap().failing.is_some()
    }

    /// Reads of the sector that holds this byte fail from now on.
    pub(crate) fn turn_bad(&self, path: &str, at: u64) {
        let mut inner = self.0.lock().unwrap();
        inner.bad = inner.find(path).map(|ino| (ino, at));
    }

    /// Everything can be read again.
    pub(crate) fn heal(&self) {
        self.0.lock().unwrap().bad = None;
    }

    /// The same disk in another machine: what one of them does the other does not see.
    pub(crate) fn fork(&self) -> MemoryDisk {
        MemoryDisk(Arc::new(Mutex::new(self.0.lock().unwrap().clone())))
    }

    /// Flips a bit of a file, durably: the disk is old.
    pub(crate) fn flip(&self, path: &str, at: usize) {
        let mut inner = self.0.lock().unwrap();
        let ino = inner.find(path).unwrap();
        let node = inner.nodes.get_mut(&ino).unwrap();
        node.live[at] ^= 1;
        node.durable[at] ^= 1;
    }

    /// Flips a bit of the `nth` value of a journal, in the file and in what sled shows of it.
    pub(crate) fn flip_journal(&self, folder: &str, nth: usize) {
        self.damage_journal(folder, nth, [true, true], |value| *value.last_mut().unwrap() ^= 1);
    }

    /// Changes the `nth` value of a journal: in the file, in what sled shows of it, or in both.
    pub(crate) fn damage_journal(
        &self,
        folder: &str,
        nth: usize,
        in_raw_and_shown: [bool; 2],
        change: impl Fn(&mut Vec<u8>),
    ) {
        let mut inner = self.0.lock().unwrap();
        let ino = inner.find(folder).unwrap();
        let journal = inner.nodes.get_mut(&ino).unwrap().journal.as_mut().unwrap();
        let Some(key) = journal.raw.keys().nth(nth % journal.raw.len().max(1)).copied() else { return };
        for (chunks, is_meant) in [&mut journal.raw, &mut journal.shown].into_iter().zip(in_raw_and_shown) {
            if let Some(value) = chunks.get_mut(&key).filter(|_| is_meant) {
                change(value);
            }
        }
    }

    /// Another disk with the same content, all of it durable.
    pub(crate) fn copy(&self) -> MemoryDisk {
        let mut copy = self.0.lock().unwrap().clone();
        let mut named: Vec<Ino> = vec![ROOT];
        let mut at = 0;
        while let Some(ino) = named.get(at).copied() {
            named.extend(copy.nodes.get(&ino).into_iter().flat_map(|node| node.names.values()));
            at += 1;
        }
        // Files without a name are not copied.
        copy.nodes.retain(|ino, _| named.contains(ino));
        for node in copy.nodes.values_mut() {
            node.writes.clear();
            node.name_ops.clear();
            node.durable.clone_from(&node.live);
            node.durable_names.clone_from(&node.names);
        }
        MemoryDisk(Arc::new(Mutex::new(copy)))
    }

    /// From now on preallocated bytes of journals take space, as on a real disk.
    pub(crate) fn count_journals(&self) {
        self.0.lock().unwrap().counts_journals = true;
    }

    /// Other programs take all free space.
    pub(crate) fn fill(&self) {
        let mut inner = self.0.lock().unwrap();
        inner.capacity = inner.used();
    }

    /// Adds free space.
    pub(crate) fn add_capacity(&self, bytes: u64) {
        self.0.lock().unwrap().capacity += bytes;
    }

    pub(crate) fn set_capacity(&self, capacity: u64) {
        self.0.lock().unwrap().capacity = capacity;
    }

    /// The disk after the crash: everything that was synced, and any part of the rest.
    pub(crate) fn after_crash(&self, rng: &mut fastrand::Rng) -> MemoryDisk {
        let mut inner = self.0.lock().unwrap().clone();
        // To lose nothing is a kill of the process. To lose everything is common, too.
        let keep = [0, 50, 90, 100][rng.usize(..4)];
        for node in inner.nodes.values_mut() {
            for write in std::mem::take(&mut node.writes) {
                if rng.u8(..100) < keep {
                    match write {
                        Write::Bytes { at, mut bytes } if keep < 100 && rng.bool() => {
                            bytes.truncate(rng.usize(..=bytes.len() / SECTOR) * SECTOR);
                            write_into(&mut node.durable, &Write::Bytes { at, bytes });
                        }
                        write => write_into(&mut node.durable, &write),
                    }
                }
            }
            for op in std::mem::take(&mut node.name_ops) {
                if rng.u8(..100) < keep {
                    apply_name(&mut node.durable_names, &op);
                }
            }
            node.live = node.durable.clone();
            node.names = node.durable_names.clone();
            if let Some(journal) = &mut node.journal {
                for batch in std::mem::take(&mut journal.pending) {
                    let whole = rng.u8(..100) < keep;
                    for (key, value) in &batch {
                        if whole || rng.bool() {
                            journal.raw.insert(*key, value.clone());
                        }
                    }
                    if whole {
                        journal.shown.extend(batch);
                    }
                }
                // After a crash, sled may show less than its file holds, without an error (docs/decisions/0003-raw-scan-and-copy.md).
                if rng.u8(..4) == 0 {
                    let shown = rng.usize(..=journal.shown.len());
                    journal.shown = std::mem::take(&mut journal.shown).into_iter().take(shown).collect();
                }
            }
        }
        (inner.crashed, inner.crash_at) = (false, None);
        MemoryDisk(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.0.lock().unwrap();
        if inner.crashed { Err(gone()) } else { Ok(inner) }
    }

    fn sync_point(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.lock()?;
        inner.syncs += 1;
        if inner.crash_at.is_some_and(|at| inner.syncs >= at) {
            inner.crashed = true;
            return Err(gone());
        }
        Ok(inner)
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Inner {
    fn find(&self, path: &str) -> Option<Ino> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |ino, name| self.nodes.get(&ino)?.names.get(name).copied())
    }

    fn name(&mut self, folder: &str, op: NameOp) -> io::Result<()> {
        let ino = self.find(folder).ok_or_else(not_found)?;
        let node = self.nodes.get_mut(&ino).ok_or_else(not_found)?;
        apply_name(&mut node.names, &op);
        node.name_ops.push(op);
        Ok(())
    }

    fn move_now(&mut self, from: (&str, &str), to: (&str, &str), ino: Ino) -> io::Result<()> {
        for (folder, op) in
            [(to.0, NameOp::Set(to.1.to_owned(), ino)), (from.0, NameOp::Unset(from.1.to_owned()))]
        {
            let folder = self.find(folder).ok_or_else(not_found)?;
            let node = self.nodes.get_mut(&folder).ok_or_else(not_found)?;
            apply_name(&mut node.names, &op);
            apply_name(&mut node.durable_names, &op);
        }
        Ok(())
    }

    fn add(&mut self, path: &str, node: Node) -> io::Result<Ino> {
        let (folder, name) = split(path);
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, node);
        self.name(folder, NameOp::Set(name.to_owned(), ino))?;
        Ok(ino)
    }

    fn used(&self) -> u64 {
        let mut used = 0;
        let mut folders = vec![ROOT];
        // Files without a name take no space.
        while let Some(node) = folders.pop().and_then(|ino| self.nodes.get(&ino)) {
            let journal = node.journal.as_ref().map_or(0, |journal| 1_000 + journal.reserved);
            used += node.live.len() as u64 + journal;
            folders.extend(node.names.values());
        }
        used
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.lock()?;
        let ino = match inner.find(path) {
            Some(ino) => {
                let node = inner.nodes.get_mut(&ino).ok_or_else(not_found)?;
                node.live.clear();
                node.writes.push(Write::Len(0));
                ino
            }
            None => inner.add(path, Node::default())?,
        };
        Ok(Box::new(MemoryFile { disk: self.clone(), ino }))
    }

    fn open(&self, path: &str, _write: bool) -> io::Result<Box<dyn DiskFile>> {
        let ino = self.lock()?.find(path).ok_or_else(not_found)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), ino }))
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        Ok(self.lock()?.find(path).is_some())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let inner = self.lock()?;
        let ino = inner.find(folder).ok_or_else(not_found)?;
        Ok(inner.nodes[&ino].names.keys().cloned().collect())
    }

    fn make_folder(&self, folder: &str) -> io::Result<()> {
        let mut inner = self.lock()?;
        if inner.find(folder).is_none() {
            inner.add(folder, Node { is_folder: true, ..Node::default() })?;
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock()?;
        let ((folder, from_name), (to_folder, to_name)) = (split(from), split(to));
        let ino = inner.find(from).ok_or_else(not_found)?;
        if let Some(there) = inner.find(to)
            && (inner.nodes[&there].is_folder || inner.nodes[&there].journal.is_some())
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if folder != to_folder {
            // File systems make it in one transaction: the file is never under neither name.
            inner.move_now((folder, from_name), (to_folder, to_name), ino)?;
            return Ok(());
        }
        inner.name(folder, NameOp::Rename(from_name.to_owned(), to_name.to_owned()))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock()?;
        let ino = inner.find(from).ok_or_else(not_found)?;
        if let Some(there) = inner.find(to) {
            return if there == ino { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) };
        }
        let (folder, name) = split(to);
        inner.name(folder, NameOp::Set(name.to_owned(), ino))
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        let mut inner = self.lock()?;
        let (folder, name) = split(path);
        if inner.find(path).is_some() { inner.name(folder, NameOp::Unset(name.to_owned())) } else { Ok(()) }
    }

    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        self.remove_file(folder)
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        let mut inner = self.sync_point()?;
        let ino = inner.find(folder).ok_or_else(not_found)?;
        let node = inner.nodes.get_mut(&ino).ok_or_else(not_found)?;
        node.name_ops.clear();
        node.durable_names = node.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let inner = self.lock()?;
        Ok(inner.capacity.saturating_sub(inner.used()))
    }

    fn create_journal(&self, folder: &str, reserve_bytes: u64) -> io::Result<Box<dyn JournalDb>> {
        let mut inner = self.lock()?;
        assert!(inner.find(folder).is_none(), "{folder} exists");
        let reserved = if inner.counts_journals { reserve_bytes } else { 0 };
        if reserved > 0 && inner.used() + reserved > inner.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let journal = JournalData { reserved, ..JournalData::default() };
        let ino = inner.add(folder, Node { journal: Some(journal), ..Node::default() })?;
        Ok(Box::new(MemoryJournal { disk: self.clone(), batch: Chunks::new(), ino }))
    }

    fn open_journal_raw(&self, folder: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.lock()?;
        let ino = inner.find(folder).ok_or_else(not_found)?;
        let journal = inner.nodes[&ino].journal.clone().ok_or_else(not_found)?;
        // In a real file sled's bytes are between the values.
        let raw: Vec<u8> =
            journal.raw.values().flat_map(|value| [b"between", value.as_slice()].concat()).collect();
        let ino = inner.next;
        inner.next += 1;
        inner.nodes.insert(ino, Node { durable: raw.clone(), live: raw, ..Node::default() });
        Ok(Box::new(MemoryFile { disk: self.clone(), ino }))
    }

    fn read_journal_copy(&self, folder: &str, visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let inner = self.lock()?;
        let ino = inner.find(folder).ok_or_else(not_found)?;
        let journal = inner.nodes[&ino].journal.as_ref().ok_or_else(not_found)?;
        journal.shown.values().for_each(|value| visit(value));
        Ok(())
    }

    fn works_in_background(&self) -> bool {
        false
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    ino: Ino,
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock()?.nodes[&self.ino].live.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let inner = self.disk.lock()?;
        if inner
            .bad
            .is_some_and(|(ino, bad)| ino == self.ino && (at..at + buffer.len() as u64).contains(&bad))
        {
            return Err(io::Error::other("the device cannot read it"));
        }
        let bytes = inner.nodes[&self.ino].live.get(at as usize..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut inner = self.disk.lock()?;
        let more = (at + bytes.len() as u64).saturating_sub(inner.nodes[&self.ino].live.len() as u64);
        if more > 0 && inner.used() + more > inner.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let node = inner.nodes.get_mut(&self.ino).ok_or_else(not_found)?;
        let write = Write::Bytes { at: at as usize, bytes: bytes.to_vec() };
        write_into(&mut node.live, &write);
        node.writes.push(write);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.lock()?;
        let node = inner.nodes.get_mut(&self.ino).ok_or_else(not_found)?;
        write_into(&mut node.live, &Write::Len(len as usize));
        node.writes.push(Write::Len(len as usize));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.sync_point()?;
        let fails = inner.failing.take_if(|ino| *ino == self.ino).is_some();
        let node = inner.nodes.get_mut(&self.ino).ok_or_else(not_found)?;
        for write in std::mem::take(&mut node.writes) {
            if !fails || matches!(write, Write::Len(_)) {
                write_into(&mut node.durable, &write);
            }
        }
        if fails { Err(io::Error::other("the device could not take it")) } else { Ok(()) }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.write_at(&vec![0; len as usize], 0)
    }

    fn forget_cached(&self) -> io::Result<()> {
        let mut inner = self.disk.lock()?;
        let node = inner.nodes.get_mut(&self.ino).ok_or_else(not_found)?;
        // Writes that are not synced stay.
        node.live = node.durable.clone();
        for write in &node.writes {
            write_into(&mut node.live, write);
        }
        Ok(())
    }
}

struct MemoryJournal {
    disk: MemoryDisk,
    batch: Chunks,
    ino: Ino,
}

impl JournalDb for MemoryJournal {
    fn put(&mut self, key: [u8; 12], value: &[u8]) {
        self.batch.insert(key, value.to_vec());
    }

    fn apply(&mut self) -> io::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let mut inner = self.disk.lock()?;
        let journal =
            inner.nodes.get_mut(&self.ino).and_then(|node| node.journal.as_mut()).ok_or_else(not_found)?;
        journal.pending.push(batch);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.sync_point()?;
        let journal =
            inner.nodes.get_mut(&self.ino).and_then(|node| node.journal.as_mut()).ok_or_else(not_found)?;
        for batch in std::mem::take(&mut journal.pending) {
            journal.raw.extend(batch.clone());
            journal.shown.extend(batch);
        }
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.sync()
    }

    fn file_bytes(&self) -> io::Result<u64> {
        let inner = self.disk.lock()?;
        let journal = inner.nodes[&self.ino].journal.as_ref().ok_or_else(not_found)?;
        Ok(journal.raw.values().map(|value| value.len() as u64).sum())
    }
}
