//! Opens followed files: regular files, FIFOs if they were asked for, and never through a symbolic link that is not allowed.
//!
//! A user who may write into a followed folder must not choose what the service reads with its rights. So a path is opened
//! folder by folder, each relative to the one before and none through a symbolic link: if one is exchanged meanwhile, opening
//! fails. That is what `openat2` with `RESOLVE_NO_SYMLINKS` does, on every kernel and with every filter of system calls.

use std::fs::{self, File, FileType, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::tail::error::ReadError;

/// Where the symbolic links on the way to a file may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'a> {
    /// None below this folder, which itself may be reached through one.
    Straight(&'a Path),
    /// Anywhere, as long as they end below this folder.
    Links(&'a Path),
}

/// Opens a regular file for reading.
///
/// # Errors
/// What was found instead.
pub(crate) fn open(path: &Path, way: Way<'_>) -> Result<(File, Metadata), ReadError> {
    open_if(path, way, "not a regular file", |found| found.is_file())
}

/// Opens a FIFO for reading without blocking, whether or not a process has it open for writing.
///
/// # Errors
/// What was found instead.
pub(crate) fn open_fifo(path: &Path, way: Way<'_>) -> Result<(File, Metadata), ReadError> {
    open_if(path, way, "not a FIFO any more", |found| found.is_fifo())
}

fn open_if(
    path: &Path,
    way: Way<'_>,
    wanted: &'static str,
    is_it: fn(FileType) -> bool,
) -> Result<(File, Metadata), ReadError> {
    let failed = |source| ReadError::Open { path: path.to_owned(), source };
    let file = match way {
        Way::Straight(root) => {
            path.strip_prefix(root).map_err(io::Error::other).and_then(|below| straight(root, below))
        }
        Way::Links(root) => ending_below(root, path),
    };
    let file = file.map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !is_it(meta.file_type()) {
        return Err(ReadError::NotAFile { path: path.to_owned(), found: kind(meta.file_type()), wanted });
    }
    Ok((file, meta))
}

/// Opens what a path leads to, if that is below `root`: the links are resolved first, then the result is opened without
/// any.
fn ending_below(root: &Path, path: &Path) -> io::Result<File> {
    let root = fs::canonicalize(root)?;
    let real = fs::canonicalize(path)?;
    let below = real.strip_prefix(&root).map_err(|_| {
        let (real, root) = (real.display(), root.display());
        let found = format!("it leads to {real}, outside {root}, where links may lead");
        io::Error::new(io::ErrorKind::PermissionDenied, found)
    })?;
    straight(&root, below)
}

/// Opens `below` from the folder `root`, without a link on the way or at its end.
fn straight(root: &Path, below: &Path) -> io::Result<File> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at: OwnedFd = openat(CWD, root, folder, Mode::empty())?;
    let mut parts = below.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            break;
        };
        let flags = match parts.peek() {
            Some(_) => folder,
            // Does not wait if a FIFO took the place of a file.
            None => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY,
        };
        at = openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
        if parts.peek().is_none() {
            return Ok(File::from(at));
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name below its folder"))
}

/// Where a link leads to, if that is below `root`. Only a look: [`open`] enforces it.
pub(crate) fn leads_below(root: &Path, link: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(link).ok()?;
    real.starts_with(fs::canonicalize(root).ok()?).then_some(real)
}

/// The kind of a file that is not regular, for messages.
pub(crate) fn kind(found: FileType) -> &'static str {
    if found.is_dir() {
        "a folder"
    } else if found.is_symlink() {
        "a symbolic link"
    } else if found.is_fifo() {
        "a FIFO"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}
