//! A descriptor whose bytes can be read once: standard input, or a FIFO. Reading it never blocks.
//!
//! The tail opens its own handle, so that other users of the pipe do not notice that it does not block. If standard input
//! cannot be opened again (it belongs to another user), it is polled before each read.

use std::fs::{self, File, Metadata};
use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{RecvFlags, recv};

/// Reads without blocking.
#[derive(Debug)]
pub(crate) enum Pipe {
    /// Opened with `O_NONBLOCK`, or a regular file, which is always ready.
    Ready(File),
    /// Polled before each read.
    Polled(File),
    /// Read with a flag that only sockets have.
    Socket(OwnedFd),
}

impl Pipe {
    /// Standard input, or its substitute in a test. Reports if it is not what is expected.
    ///
    /// # Errors
    /// If it is a folder, or not open.
    pub(crate) fn input(fd: BorrowedFd<'_>) -> io::Result<Pipe> {
        let file = File::from(fd.try_clone_to_owned()?);
        let meta = file.metadata()?;
        let found = meta.file_type();
        if found.is_dir() {
            return Err(io::Error::other("it is a folder"));
        }
        if found.is_socket() {
            return Ok(Pipe::Socket(file.into()));
        }
        if found.is_fifo() || found.is_char_device() {
            if is_null(&meta) {
                tracing::warn!(
                    "standard input is /dev/null: no line comes from it; pipe into spillq, or do not follow \"-\""
                );
            } else if file.is_terminal() {
                tracing::info!("standard input is a terminal: what is typed is ingested; Ctrl-D ends it");
            }
            return Ok(reopened(&file).map_or(Pipe::Polled(file), Pipe::Ready));
        }
        // The offset is shared with the process that passed it: `{ head -1; spillq run --follow -; } < file` reads the rest.
        Ok(Pipe::Ready(file))
    }

    /// Reads what is there. 0: nothing is left, and no process can write to it now.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there now.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Pipe::Ready(file) => file.read(buffer),
            Pipe::Polled(file) => {
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&now))? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    _ => file.read(buffer),
                }
            }
            Pipe::Socket(socket) => Ok(recv(socket, buffer, RecvFlags::DONTWAIT)?.0),
        }
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Pipe::Ready(file) | Pipe::Polled(file) => file.as_fd(),
            Pipe::Socket(socket) => socket.as_fd(),
        }
    }
}

/// The same pipe or terminal as another open file, whose flags nothing else uses.
fn reopened(file: &File) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    openat(CWD, path, flags, Mode::empty()).ok().map(File::from)
}

fn is_null(meta: &Metadata) -> bool {
    meta.file_type().is_char_device()
        && fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == meta.rdev())
}
