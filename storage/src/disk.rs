//! The seam between the log and the world: files, folders, free space, and the journal's database.
//!
//! Two implementations: [`real`], sled and the file system, and [`memory`], which on a crash loses any part of
//! what was not synced, folder entries included. Paths are relative to the data dir, with `/` between names; ""
//! is the data dir itself. Nothing here retries: the log decides.

#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)] // It may stop at the first surprise, as tests may.
pub(crate) mod memory;
pub(crate) mod real;

use std::io;

/// A data dir.
pub(crate) trait Disk: Send + Sync {
    /// Creates an empty file, or empties the one that is there.
    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that is there.
    fn open(&self, path: &str, write: bool) -> io::Result<Box<dyn DiskFile>>;
    /// Whether there is a file or folder of that name.
    fn exists(&self, path: &str) -> io::Result<bool>;
    /// The names in a folder, sorted.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Makes a folder; one that is there already is fine.
    fn make_folder(&self, folder: &str) -> io::Result<()>;
    /// Renames a file or a folder, replacing a file of the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file a second name. One that is this file's already is fine; another file's is `AlreadyExists`.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; one that is gone already is fine.
    fn remove_file(&self, path: &str) -> io::Result<()>;
    /// Removes a folder with all that is in it; one that is gone already is fine.
    fn remove_folder(&self, folder: &str) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, folder: &str) -> io::Result<()>;
    /// Bytes that an ordinary user could still write.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Makes a journal in a folder that is not there yet, with `reserve_bytes` set aside for it where the file
    /// system can.
    fn create_journal(&self, folder: &str, reserve_bytes: u64) -> io::Result<Box<dyn JournalDb>>;
    /// The raw bytes of a closed journal, for scanning.
    fn open_journal_raw(&self, folder: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Shows every value that the database gives when a *copy* of the journal is opened. The error is a finding,
    /// not a failure: the raw scan stands beside it.
    fn read_journal_copy(&self, folder: &str, visit: &mut dyn FnMut(&[u8])) -> io::Result<()>;

    /// Whether slow work may go to a thread beside the caller. The memory disk says no, so that a test's order
    /// of events is the same every time.
    fn works_in_background(&self) -> bool;
}

/// An open file. All methods take `&self`: reads and writes say where.
pub(crate) trait DiskFile: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Fills `buffer` from `at` as far as the file goes; says how far.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
    /// Up to `len` bytes from `at`: fewer only where the file ends.
    fn read_range(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = self.read_at(&mut bytes, at)?;
        bytes.truncate(read);
        Ok(bytes)
    }
    fn read_all(&self) -> io::Result<Vec<u8>> {
        self.read_range(0, self.len()? as usize)
    }
    /// Writes all of `bytes` at `at`.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable, not its name.
    fn sync(&self) -> io::Result<()>;
    /// Sets `len` bytes of the disk aside for this file and makes it that long.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Drops what the page cache holds of it: after a failed sync the cache lies.
    fn forget_cached(&self) -> io::Result<()>;
    /// Has the disk take what is cached, and drops that: what is read then is durable, whatever a run before wrote and
    /// did not sync, or failed to.
    fn settle(&self) -> io::Result<()> {
        self.sync()?;
        self.forget_cached()
    }
}

/// A journal that this process created and writes.
pub(crate) trait JournalDb: Send {
    /// Adds a value to the transaction that is being put together.
    fn put(&mut self, key: [u8; 12], value: &[u8]);
    /// Carries that transaction out: all its values, or none.
    fn apply(&mut self) -> io::Result<()>;
    /// Makes everything applied durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Makes the folder's own files and names durable too; once, before the folder gets its final name.
    fn sync_folder(&mut self) -> io::Result<()>;
    /// Bytes of its files.
    fn file_bytes(&self) -> io::Result<u64>;
}
