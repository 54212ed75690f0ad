//! Consecutive zstd frames as one content, decompressed by ruzstd: files of other programs are not given to a C library
//! (CVE-2026-124851).
//!
//! ruzstd reads one frame. What is between frames is here: skippable ones, the checksum and the length at the end of each,
//! which the C library checks by itself, and whether the file ends inside one. A window beyond the limit is refused before
//! it is allocated.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::plain::size;

/// The content of frames.
pub(crate) struct Frames<R> {
    input: Input<R>,
    decoder: FrameDecoder,
    /// Inside a frame: the bytes of it that were delivered.
    given: Option<u64>,
}

/// Distinguishes a file that ends from one that cannot be read: ruzstd's errors do not.
struct Input<R> {
    from: R,
    has_ended: bool,
    refused: Option<i32>,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into);
        match &read {
            Ok(0) if !into.is_empty() => self.has_ended = true,
            Err(error) if error.kind() != io::ErrorKind::Interrupted => self.refused = error.raw_os_error(),
            _ => {}
        }
        read
    }
}

impl<R: BufRead> Frames<R> {
    /// Frames with windows of at most `window_bytes`.
    pub(crate) fn new(from: R, window_bytes: u64) -> Frames<R> {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(window_bytes);
        Frames { input: Input { from, has_ended: false, refused: None }, decoder, given: None }
    }

    /// Enters the next frame. False if there is none.
    fn enter(&mut self) -> io::Result<bool> {
        while !self.input.from.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.input) {
                Ok(()) => {
                    self.given = Some(0);
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.input).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(self.fault(error)),
            }
        }
        Ok(false)
    }

    /// The cause of an error of the decoder: the file cannot be read, it ends, or its bytes are wrong.
    fn fault(&self, error: FrameDecoderError) -> io::Error {
        match self.input.refused {
            Some(error) => io::Error::from_raw_os_error(error),
            None if self.input.has_ended => io::Error::new(io::ErrorKind::UnexpectedEof, error.to_string()),
            None => {
                let what = match error {
                    FrameDecoderError::WindowSizeTooBig { requested, max } => {
                        format!("it needs a window of {}, and the limit is {}", size(requested), size(max))
                    }
                    error => error.to_string(),
                };
                io::Error::new(io::ErrorKind::InvalidData, what)
            }
        }
    }

    /// The end of a frame, all of which was delivered.
    fn leave(&mut self, given: u64) -> io::Result<()> {
        let (noted, found) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
        if noted.is_some() && noted != found {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum does not match"));
        }
        if self.within(given)? < self.decoder.content_size() {
            return Err(self.of_another_length(given));
        }
        self.given = None;
        Ok(())
    }

    /// Checks that a frame has no more bytes than it declares.
    fn within(&self, given: u64) -> io::Result<u64> {
        // 0 if it does not declare any.
        match self.decoder.content_size() {
            length if length > 0 && given > length => Err(self.of_another_length(given)),
            _ => Ok(given),
        }
    }

    fn of_another_length(&self, given: u64) -> io::Error {
        let what = format!("{} in a frame of {}", size(given), size(self.decoder.content_size()));
        io::Error::new(io::ErrorKind::InvalidData, what)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(given) = self.given else {
                match self.enter()? {
                    true => continue,
                    false => return Ok(0),
                }
            };
            if self.decoder.can_collect() > 0 {
                let read = self.decoder.read(into)?;
                self.given = Some(self.within(given + read as u64)?);
                return Ok(read);
            }
            if self.decoder.is_finished() {
                self.leave(given)?;
            } else if let Err(error) =
                self.decoder.decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
            {
                return Err(self.fault(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::bytes::decompress::tests::zstd;
    use std::io::Write;

    const WINDOW: u64 = 1 << 23;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Frames::new(bytes, WINDOW).read_to_end(&mut content).map(|_| content)
    }

    #[test]
    fn a_frame_whose_length_or_sum_is_another_is_damaged() {
        let good = zstd(b"a line\n");
        assert_eq!(read(&good).unwrap(), b"a line\n");
        let mut sum = good.clone();
        *sum.last_mut().unwrap() ^= 1;
        assert_eq!(read(&sum).unwrap_err().to_string(), "the checksum does not match");
        // A raw block of one byte in a frame that says that it has five.
        let short = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 5, 0x09, 0, 0, b'x'];
        assert_eq!(read(&short).unwrap_err().to_string(), "1 B in a frame of 5 B");
        // A block of 300 times `x` in one that says 256, with a window of 1 KiB.
        let long = [0x28, 0xb5, 0x2f, 0xfd, 0x40, 0, 0, 0, 0x63, 0x09, 0, b'x'];
        assert_eq!(read(&long).unwrap_err().to_string(), "300 B in a frame of 256 B");
        let garbage = [&good[..], b"not a frame"].concat();
        assert_eq!(read(&garbage).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_frame_to_skip_that_is_cut_off_is_incomplete() {
        let skipped = [0x53, 0x2a, 0x4d, 0x18, 9, 0, 0, 0, 1, 2, 3];
        assert_eq!(read(&skipped).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(read(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(5))
            }
        }
        let begin = &zstd(&[b'x'; 1_000])[..9];
        let mut frames = Frames::new(io::BufReader::new(begin.chain(Broken)), WINDOW);
        let error = frames.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "{error}");
    }

    #[test]
    fn every_level_of_the_c_library_is_read() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut line = || format!("{} {}\n", random.u32(..), "word ".repeat(random.usize(..30)));
        let content: String = (0..40_000).map(|_| line()).collect();
        for level in [-5, 1, 3, 9, 15, 19] {
            let mut encoder = zstd::Encoder::new(Vec::new(), level).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(content.as_bytes()).unwrap();
            let compressed = encoder.finish().unwrap();
            assert!(read(&compressed).unwrap() == content.as_bytes(), "level {level}");
        }
    }
}
