//! What std does not have for a file: reads at a position in spite of short and interrupted reads, and times as numbers.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

/// Reads until `into` is full or there is no more.
pub(crate) fn read_full(
    read_at: &mut dyn FnMut(&mut [u8], u64) -> io::Result<usize>,
    into: &mut [u8],
    at: u64,
) -> io::Result<usize> {
    let mut got = 0;
    while let Some(room) = into.get_mut(got..).filter(|room| !room.is_empty()) {
        match read_at(room, at + got as u64) {
            Ok(0) => break,
            Ok(read) => got += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Up to `len` bytes of a file; fewer only at its end.
pub(crate) fn read_up_to(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let read = read_full(&mut |into, at| file.read_at(into, at), &mut bytes, at)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The modification time in nanoseconds since 1970.
pub(crate) fn mtime_ns(meta: &Metadata) -> i64 {
    meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec())
}

/// When the file or its inode changed, in nanoseconds since 1970, by the clock of the server that has the file. Comparable
/// only with itself.
pub(crate) fn ctime_ns(meta: &Metadata) -> i64 {
    meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec())
}
