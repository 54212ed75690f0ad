//! Reads at a position, in spite of short and interrupted reads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

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
