//! What the fuzz targets call. Behind the feature `fuzzing`, and not part of the public interface.
#![allow(missing_docs, clippy::missing_errors_doc)]

use std::fs::File;
use std::io;
use std::path::Path;

use spillq_storage::{NewBlock, SourceId};

use crate::tail::bytes::{Decompressor, Fault, Filler, Reader, Turn};
use crate::tail::known::{Location, Source, SourceRecord};
use crate::tail::pipes::pipe::Pipe;
use crate::tail::pipes::stream::InputStream;

const APPEND_BYTES: usize = 1 << 30;

/// The blocks made of bytes that come in pieces through a pipe. `held` gets the number of bytes that wait after each piece.
pub fn stream(
    nothing: File,
    pieces: &[&[u8]],
    line_max: usize,
    held: &mut dyn FnMut(usize),
) -> Vec<NewBlock> {
    let mut stream = InputStream::new(1, "stdin".into(), None, Pipe::Ready(nothing), line_max);
    stream.begin(SourceId(1), 0);
    let mut filler = Filler::begin(0, APPEND_BYTES);
    for piece in pieces {
        stream.take(piece, &mut filler);
        held(stream.held());
    }
    stream.end_line(&mut filler);
    filler.finish()
}

/// Reads files, one after the other, through one buffer.
#[derive(Debug, Default)]
pub struct Files(Reader);

impl Files {
    /// The blocks made of a file that grows by the pieces that `grow` adds, until it returns false. If `again` is set, the
    /// checkpoint is written and read back after each piece, and reading resumes from there.
    pub fn read(
        &mut self,
        file: &File,
        line_max: usize,
        again: bool,
        grow: &mut dyn FnMut() -> io::Result<bool>,
    ) -> io::Result<Vec<NewBlock>> {
        let at = Location { path: Path::new("/followed"), device: 1, inode: 1, mtime_ns: 0, follow: None };
        let mut source = Source::found(SourceId(1), at, 1, 0);
        let mut filler = Filler::begin(0, APPEND_BYTES);
        while grow()? {
            loop {
                match self.0.turn(&mut source, file, None, line_max, &mut filler)? {
                    Turn::More => {}
                    Turn::CaughtUp => break,
                    Turn::Changed => return Err(io::Error::other("it was taken for another file")),
                }
            }
            if again {
                let record = source.record().encode().map_err(io::Error::other)?;
                let record = SourceRecord::decode(&record).map_err(io::Error::other)?;
                source = Source::from_record(SourceId(1), record, 0);
            }
        }
        source.size = file.metadata()?.len();
        if !self.0.unterminated_end(&mut source, file, line_max, &mut filler)? {
            return Err(io::Error::other("its end was not read"));
        }
        Ok(filler.finish())
    }
}

/// The content of a compressed file.
#[derive(Debug)]
pub struct Compressed(Decompressor);

impl Compressed {
    pub fn open(file: &File) -> io::Result<Compressed> {
        Ok(Compressed(Decompressor::open(file.try_clone()?)?))
    }

    /// All of it, read in chunks of `chunk` bytes while `back` bytes before are retained; at most `limit` bytes. `held` gets the
    /// number of bytes in memory.
    pub fn read(
        &mut self,
        chunk: usize,
        back: u64,
        limit: usize,
        held: &mut dyn FnMut(usize),
    ) -> (Vec<u8>, Result<bool, (bool, io::Error)>) {
        let (mut all, mut buffer) = (Vec::new(), vec![0; chunk]);
        while all.len() < limit {
            self.0.keep_from((all.len() as u64).saturating_sub(back));
            match self.0.read_at(&mut buffer, all.len() as u64) {
                Ok(0) => return (all, Ok(true)),
                Ok(read) => all.extend(buffer.iter().take(read)),
                Err(error) => return (all, Err((Fault::of(&error) == Fault::Incomplete, error))),
            }
            held(self.0.kept().len());
        }
        (all, Ok(false))
    }

    /// How long it is, decompressed in steps of `budget` bytes up to `limit`, nothing of it being retained.
    pub fn forward(
        &mut self,
        budget: u64,
        limit: u64,
        held: &mut dyn FnMut(usize),
    ) -> io::Result<(u64, bool)> {
        loop {
            let done = self.0.forward(limit, budget)?;
            held(self.0.kept().len());
            if done {
                return Ok((self.0.end(), self.0.has_ended()));
            }
        }
    }

    #[must_use]
    pub fn start(&self) -> &[u8] {
        self.0.start()
    }
}

/// Whether a file that begins like this is decompressed.
#[must_use]
pub fn is_compressed(start: &[u8]) -> bool {
    crate::tail::bytes::decompress::is_compressed(start)
}

/// A checkpoint, decoded and encoded again.
#[must_use]
pub fn checkpoint_again(bytes: &[u8]) -> Option<Vec<u8>> {
    let record = SourceRecord::decode(bytes).ok()?;
    Some(record.encode().map(|bytes| bytes.to_vec()).unwrap_or_default())
}
