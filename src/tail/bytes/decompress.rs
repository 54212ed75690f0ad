//! The content of compressed files: gzip and zstd, forward only, one file at a time.
//!
//! Bounded whatever a file expands to: a zstd window of 8 MiB (gzip's has 32 KiB), 64 KiB of input, and of the content the
//! first 1 KiB and what its reader retains, a line at most.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use flate2::bufread::MultiGzDecoder;

use crate::tail::bytes::{Frames, read_up_to};
use crate::tail::known::{FINGERPRINT_BYTES, Form, RESUME_POINT_BYTES, crc_before};

/// A zstd window: 8 MiB, what its levels up to 19 use at most. The whole service is planned for 96 MiB.
const WINDOW_BYTES_MAX: u64 = 8 * 1_024 * 1_024;
/// Bytes of the file, and of the content, in one step.
const STEP_BYTES: usize = 64 * 1_024;
/// After a long line, a larger buffer shrinks to this.
const IDLE_BYTES_MAX: usize = 1_024 * 1_024;

/// Whether a file that begins like this is compressed: with gzip, or with zstd, whose first frame may be a skippable one.
pub(crate) fn is_compressed(start: &[u8]) -> bool {
    matches!(start, [0x1f, 0x8b, 8, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// The form of a compressed file of `size` bytes.
pub(crate) fn form_of(file: &File, size: u64) -> io::Result<Form> {
    let back = size.min(RESUME_POINT_BYTES as u64);
    Ok(Form { size, end: crc_before(&read_up_to(file, size - back, back as usize)?) })
}

/// What is wrong with a file that cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It ends inside its content.
    Incomplete,
    /// It was never compressed, or in a way that this program does not decompress.
    Damaged,
    /// It could not be read.
    Unread,
}

impl Fault {
    pub(crate) fn of(error: &io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Incomplete,
            _ if error.raw_os_error().is_some() => Fault::Unread,
            _ => Fault::Damaged,
        }
    }
}

/// A file read by position, so that other users of the handle are not disturbed.
struct At {
    file: File,
    at: u64,
}

impl Read for At {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

enum Codec {
    Gzip(Box<MultiGzDecoder<BufReader<At>>>),
    Zstd(Box<Frames<BufReader<At>>>),
}

/// The content of a compressed file, as far as it is decompressed.
pub(crate) struct Decompressor {
    codec: Codec,
    /// Its first bytes, at most what a fingerprint covers.
    start: Vec<u8>,
    /// The newest bytes. The first of them is at `base` of the content.
    kept: Vec<u8>,
    base: u64,
    ended: bool,
}

impl Decompressor {
    /// From the beginning of a file. `file` is used by nothing else.
    pub(crate) fn open(file: File) -> io::Result<Decompressor> {
        let magic = read_up_to(&file, 0, 4)?;
        let input = BufReader::with_capacity(STEP_BYTES, At { file, at: 0 });
        let codec = match magic.as_slice() {
            [0x1f, ..] => Codec::Gzip(Box::new(MultiGzDecoder::new(input))),
            _ => Codec::Zstd(Box::new(Frames::new(input, WINDOW_BYTES_MAX))),
        };
        Ok(Decompressor { codec, start: Vec::new(), kept: Vec::new(), base: 0, ended: false })
    }

    /// The first bytes of the content, at most what a fingerprint covers; fewer if no more can be decompressed.
    pub(crate) fn start_of(file: &File) -> io::Result<Vec<u8>> {
        let mut decompressor = Decompressor::open(file.try_clone()?)?;
        match decompressor.fill_to(FINGERPRINT_BYTES as u64) {
            Err(error) if Fault::of(&error) == Fault::Unread => Err(error),
            _ => Ok(decompressor.start),
        }
    }

    /// The first bytes, as far as they are decompressed.
    pub(crate) fn start(&self) -> &[u8] {
        &self.start
    }

    /// How far the content is decompressed.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.kept.len() as u64
    }

    /// The oldest byte that can be read.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Nothing comes behind [`Decompressor::end`].
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The bytes that are retained, up to [`Decompressor::end`].
    pub(crate) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// The bytes before `at` are not needed any more.
    pub(crate) fn keep_from(&mut self, at: u64) {
        let drop = (at.saturating_sub(self.base) as usize).min(self.kept.len());
        // Moving the rest costs as much as it is long: not for every line.
        if drop >= STEP_BYTES || drop > 0 && drop * 2 >= self.kept.len() {
            self.kept.drain(..drop);
            self.base += drop as u64;
            if self.kept.capacity() > IDLE_BYTES_MAX && self.kept.len() * 4 < self.kept.capacity() {
                self.kept.shrink_to(IDLE_BYTES_MAX);
            }
        }
    }

    /// Decompresses a step more.
    pub(crate) fn step(&mut self) -> io::Result<()> {
        let from = self.kept.len();
        self.kept.resize(from + STEP_BYTES, 0);
        let room = self.kept.get_mut(from..).unwrap_or_default();
        let read = match &mut self.codec {
            Codec::Gzip(decoder) => decoder.read(room),
            Codec::Zstd(decoder) => decoder.read(room),
        };
        self.kept.truncate(from + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => self.ended = true,
            Ok(_) if self.start.len() < FINGERPRINT_BYTES => {
                let fresh = self.kept.get(from..).unwrap_or_default();
                let want = FINGERPRINT_BYTES - self.start.len();
                self.start.extend_from_slice(fresh.get(..want).unwrap_or(fresh));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn fill_to(&mut self, to: u64) -> io::Result<()> {
        while self.end() < to && !self.ended {
            self.step()?;
        }
        Ok(())
    }

    /// Decompresses up to `to` without retaining what is before it, `budget` bytes at most. False if it is not there yet.
    pub(crate) fn forward(&mut self, to: u64, budget: u64) -> io::Result<bool> {
        let limit = self.end().saturating_add(budget);
        while self.end() < to && !self.ended {
            if self.end() >= limit {
                return Ok(false);
            }
            self.keep_from(to.min(self.end()));
            self.step()?;
        }
        Ok(true)
    }

    /// Reads at a position that is retained or comes later, or within the first bytes; 0 only at the end.
    pub(crate) fn read_at(&mut self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.fill_to(at.saturating_add(into.len() as u64).min(FINGERPRINT_BYTES as u64))?;
        let (from, to) = if at < self.base {
            let start = self.start.get(at as usize..).filter(|start| !start.is_empty());
            (start.ok_or_else(|| io::Error::other("decompressed beyond this position"))?, into)
        } else {
            self.fill_to(at.saturating_add(into.len() as u64))?;
            (self.kept.get((at - self.base) as usize..).unwrap_or_default(), into)
        };
        let len = from.len().min(to.len());
        to.get_mut(..len).unwrap_or_default().copy_from_slice(from.get(..len).unwrap_or_default());
        Ok(len)
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor")
            .field("end", &self.end())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// One member.
    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// One frame, with the sum of its content, as the program writes it.
    pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn content(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut decompressor = Decompressor::open(file(bytes))?;
        let mut all = Vec::new();
        let mut chunk = [0; 1_000];
        loop {
            decompressor.keep_from((all.len() as u64).saturating_sub(256));
            match decompressor.read_at(&mut chunk, all.len() as u64)? {
                0 => return Ok(all),
                read => all.extend_from_slice(&chunk[..read]),
            }
        }
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..len).map(|_| random.u8(..)).collect()
    }

    #[test]
    fn members_and_frames_behind_one_another_are_one_content() {
        let (one, two) = (noise(300_000), b"end\n".to_vec());
        let expected = [one.clone(), two.clone()].concat();
        assert_eq!(content(&[gzip(&one), gzip(b""), gzip(&two)].concat()).unwrap(), expected);
        let skipped = [0x53, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
        let frames = [skipped.to_vec(), zstd(&one), zstd(&two)].concat();
        assert!(is_compressed(&frames) && is_compressed(&gzip(b"")) && is_compressed(&zstd(b"")));
        assert_eq!(content(&frames).unwrap(), expected);
        assert!(!is_compressed(b"a line\n") && !is_compressed(&[0x1f]));
    }

    #[test]
    fn a_cut_is_incomplete_and_a_flipped_bit_is_damage() {
        let bytes = noise(20_000);
        for compressed in [gzip(&bytes), zstd(&bytes)] {
            for len in (4..compressed.len()).step_by(997).chain([compressed.len() - 1]) {
                let error = content(&compressed[..len]).unwrap_err();
                assert_eq!(Fault::of(&error), Fault::Incomplete, "{len} bytes: {error}");
            }
            let mut flipped = compressed.clone();
            flipped[10_000] ^= 1;
            let error = content(&flipped).unwrap_err();
            assert_eq!(Fault::of(&error), Fault::Damaged, "{error}");
        }
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(24).unwrap();
        encoder.write_all(&noise(100)).unwrap();
        let compressed = encoder.finish().unwrap();
        let error = content(&compressed).unwrap_err();
        assert_eq!(Fault::of(&error), Fault::Damaged);
        assert!(error.to_string().contains("window of 16.0 MiB"), "{error}");
    }

    #[test]
    fn what_expands_a_thousandfold_is_never_held() {
        let mut decompressor = Decompressor::open(file(&gzip(&vec![0; 50_000_000]))).unwrap();
        let mut turns = 0;
        while !decompressor.forward(u64::MAX, 1_000_000).unwrap() {
            turns += 1;
            assert!(decompressor.kept.capacity() <= 4 * STEP_BYTES, "{} bytes", decompressor.kept.capacity());
        }
        assert_eq!(decompressor.end(), 50_000_000);
        assert!(turns > 40);
        assert_eq!(decompressor.start(), [0; FINGERPRINT_BYTES]);
    }
}
