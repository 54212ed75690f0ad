//! What the disk and the processors can do: a plain copy, and a compressed one. Both are synced every 4 MiB.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes between two syncs.
const SYNC_BYTES: usize = 4 << 20;
/// What one thread compresses at once: little, as its memory counts in the peak of the measurement.
const CHUNK_BYTES: usize = 1 << 20;
/// The level that the log compresses with.
const LEVEL: i32 = 1;

/// Copies a file.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, Synced::create(to)?);
    let mut chunk = Vec::new();
    while read_chunk(&mut from, &mut chunk)? {
        to.write(&chunk)?;
    }
    to.file.sync_data()
}

/// Compresses a file on this many threads, as `zstd -1 -T` does.
pub(super) fn compress(from: &Path, to: &Path, threads: usize) -> io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, Synced::create(to)?);
    thread::scope(|scope| {
        // Each thread has every nth chunk, so that they are written in the order of the file.
        let (raw, compressed): (Vec<_>, Vec<_>) = (0..threads.max(1))
            .map(|_| {
                let ((send_raw, raw), (send, compressed)) = (sync_channel(1), sync_channel(1));
                scope.spawn(move || compress_chunks(&raw, &send));
                (send_raw, compressed)
            })
            .unzip();
        let reader = scope.spawn(move || read_to(&mut from, &raw));
        let mut in_turn = compressed.iter().cycle();
        while let Some(Ok(chunk)) = in_turn.next().map(Receiver::recv) {
            to.write(&chunk?)?;
        }
        // Otherwise it waits for a thread that waits for this one.
        drop(compressed);
        reader.join().map_err(|_| io::Error::other("the reader panicked"))??;
        to.file.sync_data()
    })
}

fn compress_chunks(raw: &Receiver<Vec<u8>>, to: &SyncSender<io::Result<Vec<u8>>>) {
    for chunk in raw {
        if to.send(zstd::bulk::compress(&chunk, LEVEL)).is_err() {
            return;
        }
    }
}

fn read_to(from: &mut File, threads: &[SyncSender<Vec<u8>>]) -> io::Result<()> {
    for thread in threads.iter().cycle() {
        let mut chunk = Vec::new();
        if !read_chunk(from, &mut chunk)? || thread.send(chunk).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The next chunk. False at the end of the file.
fn read_chunk(from: &mut File, chunk: &mut Vec<u8>) -> io::Result<bool> {
    chunk.clear();
    Ok(from.take(CHUNK_BYTES as u64).read_to_end(chunk)? > 0)
}

/// A file that is synced as it is written.
struct Synced {
    file: File,
    unsynced: usize,
}

impl Synced {
    fn create(path: &Path) -> io::Result<Synced> {
        Ok(Synced { file: File::create(path)?, unsynced: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.unsynced += bytes.len();
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn both_copies_have_all_bytes_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let [input, plain, small] = ["input", "plain", "small"].map(|name| folder.path().join(name));
        for len in [1, CHUNK_BYTES, 5 * CHUNK_BYTES + 7] {
            let bytes: Vec<u8> = (0..len).map(|at| (at / 1_000 + at % 7) as u8).collect();
            fs::write(&input, &bytes).unwrap();
            copy(&input, &plain).unwrap();
            assert!(fs::read(&plain).unwrap() == bytes);
            for threads in [1, 2, 3] {
                compress(&input, &small, threads).unwrap();
                assert!(
                    zstd::stream::decode_all(File::open(&small).unwrap()).unwrap() == bytes,
                    "{len} {threads}"
                );
            }
        }
        assert!(copy(&input, Path::new("/nosuch/x")).is_err());
        assert!(compress(Path::new("/nosuch"), &small, 2).is_err());
    }
}
