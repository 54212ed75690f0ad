//! The disk as it is: sled and the file system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags};

use super::{Disk, DiskFile, JournalDb};

/// sled's segment size. Chunks of the journal must not go to blob files: 17 × (value + 14) + 92 ≤ segment size / 4.
const SLED_SEGMENT_BYTES: usize = 4 * 1024 * 1024;
/// The smallest that is useful: nothing is read from an open journal.
const SLED_CACHE_BYTES: u64 = 1024 * 1024;
/// sled may release its lock some time after a database was dropped.
const SLED_OPEN_TRIES: u32 = 50;

/// A folder of the file system.
pub(crate) struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    pub(crate) fn new(root: &Path) -> RealDisk {
        RealDisk { root: root.to_owned() }
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(path))?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &str, write: bool) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(write).open(self.path(path))?;
        Ok(Box::new(RealFile(file)))
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        self.path(path).try_exists()
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(folder))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn make_folder(&self, folder: &str) -> io::Result<()> {
        match fs::DirBuilder::new().recursive(true).mode(0o700).create(self.path(folder)) {
            // An existing folder is not an error: this is a file.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(io::ErrorKind::NotADirectory.into())
            }
            made => made,
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        match fs::hard_link(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let (one, other) = (fs::metadata(from)?, fs::metadata(to)?);
                if (one.dev(), one.ino()) == (other.dev(), other.ino()) { Ok(()) } else { Err(error) }
            }
            other => other,
        }
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        or_absent(fs::remove_file(self.path(path)))
    }

    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        or_absent(fs::remove_dir_all(self.path(folder)))
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        File::open(self.path(folder))?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn create_journal(&self, folder: &str, reserve_bytes: u64) -> io::Result<Box<dyn JournalDb>> {
        let folder = self.path(folder);
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let db = open_sled(&folder)?;
        // sled only starts write-back (sync_file_range). The sync that makes commits durable is ours, on a descriptor that is
        // open from the start, so that write-back errors are reported on it.
        let file = File::open(folder.join("db"))?;
        // Space is allocated beyond the end of the file, so that a commit does not fail when other programs fill the disk.
        // A file system without fallocate lacks this safeguard only.
        let writable = OpenOptions::new().write(true).open(folder.join("db"))?;
        match rustix::fs::fallocate(&writable, FallocateFlags::KEEP_SIZE, 0, reserve_bytes) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Box::new(SledJournal { db: Some(db), batch: sled::Batch::default(), file, folder }))
    }

    fn open_journal_raw(&self, folder: &str) -> io::Result<Box<dyn DiskFile>> {
        self.open(&format!("{folder}/db"), false)
    }

    fn read_journal_copy(&self, folder: &str, visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let copy = copy_folder(&self.path(folder))?;
        // sled can panic on a damaged file, when it is opened or read. The panic ends this thread only, and what it read
        // before is used.
        let (values, read) = std::sync::mpsc::sync_channel::<sled::IVec>(16);
        let path = copy.path().to_owned();
        let reader = std::thread::spawn(move || -> io::Result<()> {
            let db = open_sled(&path)?;
            for entry in db.iter().values() {
                let value = entry.map_err(from_sled)?;
                if values.send(value).is_err() {
                    break;
                }
            }
            Ok(())
        });
        for value in read {
            visit(&value);
        }
        reader.join().unwrap_or_else(|_| Err(io::Error::other("sled panicked")))
    }

    fn works_in_background(&self) -> bool {
        true
    }
}

fn or_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Copies a journal to a temporary folder in the data dir.
fn copy_folder(folder: &Path) -> io::Result<tempfile::TempDir> {
    let parent = folder.parent().unwrap_or(Path::new("."));
    let copy = match tempfile::Builder::new().prefix(".tmp-copy-").tempdir_in(parent) {
        Ok(copy) => copy,
        // If the data dir is read-only, to the temporary folder of the system.
        Err(_) => tempfile::tempdir()?,
    };
    copy_into(folder, copy.path())?;
    Ok(copy)
}

fn copy_into(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_into(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn open_sled(folder: &Path) -> io::Result<sled::Db> {
    let mut tries = 0;
    loop {
        let opened = sled::Config::default()
            .path(folder)
            .cache_capacity(SLED_CACHE_BYTES)
            .segment_size(SLED_SEGMENT_BYTES)
            .flush_every_ms(None)
            .open();
        match opened {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(error))
                if error.kind() == io::ErrorKind::WouldBlock && tries < SLED_OPEN_TRIES =>
            {
                tries += 1;
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(error) => return Err(from_sled(error)),
        }
    }
}

fn from_sled(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // Zeros allocate space too, only slower.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let zeros = vec![0; 1024 * 1024];
                let mut at = 0;
                while at < len {
                    let count = zeros.len().min((len - at) as usize);
                    self.write_at(zeros.get(..count).unwrap_or_default(), at)?;
                    at += count as u64;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn forget_cached(&self) -> io::Result<()> {
        rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed)?;
        Ok(())
    }
}

struct SledJournal {
    /// None after an error: to drop a sled database whose sync failed would panic.
    db: Option<sled::Db>,
    batch: sled::Batch,
    file: File,
    /// Where it was created: under a temporary name, which it has until [`JournalDb::sync_folder`] is done.
    folder: PathBuf,
}

impl SledJournal {
    fn with_db(&mut self, act: impl FnOnce(&sled::Db) -> io::Result<()>) -> io::Result<()> {
        let Some(db) = &self.db else {
            return Err(io::Error::other("the journal failed before"));
        };
        act(db).inspect_err(|_| self.abandon())
    }

    /// Leaks the database: the process is about to end.
    fn abandon(&mut self) {
        if let Some(db) = self.db.take() {
            std::mem::forget(db);
        }
    }
}

impl Drop for SledJournal {
    /// sled panics if its last sync fails. So the database is synced here first, and leaked if that fails.
    fn drop(&mut self) {
        let synced = self.db.as_ref().is_some_and(|db| db.flush().is_ok() && self.file.sync_all().is_ok());
        if !synced {
            self.abandon();
        }
    }
}

impl JournalDb for SledJournal {
    fn put(&mut self, key: [u8; 12], value: &[u8]) {
        self.batch.insert(&key, value);
    }

    fn apply(&mut self) -> io::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.with_db(|db| db.apply_batch(batch).map_err(from_sled))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with_db(|db| db.flush().map(drop).map_err(from_sled))?;
        if cfg!(feature = "fault-no-sync") {
            return Ok(());
        }
        self.file.sync_data().inspect_err(|_| self.abandon())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.file.sync_all().inspect_err(|_| self.abandon())?;
        File::open(self.folder.join("conf"))?.sync_all()?;
        let blobs = self.folder.join("blobs");
        if blobs.try_exists()? {
            File::open(blobs)?.sync_all()?;
        }
        File::open(&self.folder)?.sync_all()
    }

    fn file_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}
