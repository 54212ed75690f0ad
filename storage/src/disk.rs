//! What the log needs of the disk, as traits: files, folders, free space, and the database of a journal.
//!
//! Two implementations: `real.rs` is sled and the file system; `memory.rs` is for tests, and loses any part of what was
//! not synced at a crash, folder entries included. Paths are relative to the data dir, with `/` between names; "" is the
//! data dir. Nothing is retried here.

#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)] // As in tests.
pub(crate) mod memory;
pub(crate) mod real;

use std::io;

/// A data dir.
pub(crate) trait Disk: Send + Sync {
    /// Creates an empty file, or empties an existing one.
    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file.
    fn open(&self, path: &str, write: bool) -> io::Result<Box<dyn DiskFile>>;
    /// Whether there is a file or folder of that name.
    fn exists(&self, path: &str) -> io::Result<bool>;
    /// The names in a folder, sorted.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// As [`Disk::list`]; nothing if the folder does not exist.
    fn list_if_exists(&self, folder: &str) -> io::Result<Vec<String>> {
        if self.exists(folder)? { self.list(folder) } else { Ok(Vec::new()) }
    }
    /// Makes a folder unless it exists.
    fn make_folder(&self, folder: &str) -> io::Result<()>;
    /// Renames a file or a folder, replacing a file of the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file a second name, unless it has that name. `AlreadyExists` if another file has it.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file if it exists.
    fn remove_file(&self, path: &str) -> io::Result<()>;
    /// Removes a folder and all that is in it, if it exists.
    fn remove_folder(&self, folder: &str) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, folder: &str) -> io::Result<()>;
    /// Bytes that an ordinary user can still write.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Makes a journal in a new folder, and preallocates `reserve_bytes` for it if the file system supports that.
    fn create_journal(&self, folder: &str, reserve_bytes: u64) -> io::Result<Box<dyn JournalDb>>;
    /// The raw bytes of a closed journal, for scanning.
    fn open_journal_raw(&self, folder: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Shows every value that the database has in a *copy* of the journal. An error is a finding and not a failure, because
    /// there is the raw scan as well.
    fn read_journal_copy(&self, folder: &str, visit: &mut dyn FnMut(&[u8])) -> io::Result<()>;

    /// Whether slow work may be done in another thread. Not on the disk in memory, so that the order of events in a test is
    /// always the same.
    fn works_in_background(&self) -> bool;
}

/// An open file. It has no position: reads and writes have one.
pub(crate) trait DiskFile: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Fills `buffer` from `at`, up to the end of the file; returns how many bytes were read.
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
    /// Allocates `len` bytes of the disk for this file and makes it that long.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Drops its pages from the page cache: after a failed sync they may differ from the disk.
    fn forget_cached(&self) -> io::Result<()>;
    /// Syncs the file and drops its cached pages. What is read afterwards is durable, whatever an earlier run did not sync,
    /// or failed to.
    fn settle(&self) -> io::Result<()> {
        self.sync()?;
        self.forget_cached()
    }
}

/// A journal that this process created and writes.
pub(crate) trait JournalDb: Send {
    /// Adds a value to the next transaction.
    fn put(&mut self, key: [u8; 12], value: &[u8]);
    /// Applies that transaction: all its values, or none.
    fn apply(&mut self) -> io::Result<()>;
    /// Makes everything applied durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Makes the other files and the names in the folder durable; once, before the folder gets its final name.
    fn sync_folder(&mut self) -> io::Result<()>;
    /// Bytes of its files.
    fn file_bytes(&self) -> io::Result<u64>;
}
