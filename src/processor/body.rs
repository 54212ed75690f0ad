//! A batch as the body of a request, in memory, compressed if configured.

use std::io::{self, BufWriter, Write};

use bytes::Bytes;
use flate2::write::GzEncoder;

use super::Batch;
use super::input::{Input, Paths, chunks, write_ndjson};

/// The level of zstd for bodies, as for the blocks of the log: faster than networks.
const ZSTD_LEVEL: i32 = 1;

/// The buffer that joins objects into larger writes.
const BUFFER_BYTES: usize = 64 * 1024;

/// What the lines of a batch become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// One object per line, as in [`Input::Ndjson`].
    #[default]
    Ndjson,
    /// The same objects in one array.
    Json,
    /// The bytes as they were in their files.
    Lines,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    #[default]
    Identity,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Form {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::Lines => "text/plain",
            Form::Ndjson => "application/x-ndjson",
            Form::Json => "application/json",
        }
    }
}

impl Coding {
    /// The value of Content-Encoding.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Coding::Identity => None,
            Coding::Gzip => Some("gzip"),
            Coding::Zstd => Some("zstd"),
        }
    }
}

/// The body for a batch, in chunks. Lines that are not compressed are not copied. May take a second for 16 MiB: not for a
/// thread of the runtime.
pub(super) fn body(batch: &Batch, form: Form, paths: &Paths, coding: Coding) -> io::Result<Vec<Bytes>> {
    let whole = match coding {
        Coding::Identity => match form {
            Form::Lines => return chunks(batch, &Input::Lines),
            Form::Ndjson => return chunks(batch, &Input::Ndjson(paths.clone())),
            Form::Json => write(batch, form, paths, Vec::new())?,
        },
        Coding::Gzip => {
            write(batch, form, paths, GzEncoder::new(Vec::new(), flate2::Compression::fast()))?.finish()?
        }
        Coding::Zstd => write(batch, form, paths, zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?)?.finish()?,
    };
    Ok(vec![whole.into()])
}

fn write<W: Write>(batch: &Batch, form: Form, paths: &Paths, mut out: W) -> io::Result<W> {
    // Objects are written in small parts, which would make compressors slow.
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, &mut out);
    match form {
        Form::Lines => batch.pieces().iter().try_for_each(|piece| buffered.write_all(piece.bytes()))?,
        Form::Ndjson => write_ndjson(batch, paths, &mut buffered)?,
        Form::Json => {
            write_ndjson(batch, paths, Commas { out: &mut buffered, between: b"[" })?;
            buffered.write_all(b"]\n")?;
        }
    }
    buffered.flush()?;
    drop(buffered);
    Ok(out)
}

/// Makes an array of objects. The only newline of an object is at its end.
struct Commas<W> {
    out: W,
    /// The bytes before the next object.
    between: &'static [u8],
}

impl<W: Write> Write for Commas<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.out.write_all(std::mem::take(&mut self.between))?;
            self.out.write_all(line.strip_suffix(b"\n").unwrap_or(line))?;
            if line.ends_with(b"\n") {
                self.between = b",";
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use super::super::{Piece, sample};
    use super::*;

    #[test]
    fn every_form_and_coding_holds_the_lines() {
        let block = sample::block(10, &[b"a \"b\"\\n", b"\xff"]);
        let pieces = sample::pieces(&block, &[(10, 10), (11, 11)], Piece::new);
        let batch = Batch::new(Arc::from("g"), 1, pieces).unwrap();
        let paths: Paths = Arc::new(|_| None);
        let body = |batch: &Batch, form, coding| body(batch, form, &paths, coding).unwrap().concat();
        assert_eq!(body(&batch, Form::Lines, Coding::Identity), &b"a \"b\"\\n\n\xff\n"[..]);
        let json = body(&batch, Form::Json, Coding::Identity);
        let array: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (array.len(), &array[0]["text"], &array[1]["base64"]),
            (2, &"a \"b\"\\n".into(), &"/w==".into())
        );
        let plain = body(&batch, Form::Ndjson, Coding::Identity);
        assert_eq!(plain.iter().filter(|byte| **byte == b'\n').count(), 2);
        let zstd = body(&batch, Form::Ndjson, Coding::Zstd);
        assert_eq!(zstd::decode_all(&zstd[..]).unwrap(), plain);
        let gzip = body(&batch, Form::Ndjson, Coding::Gzip);
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, plain);
    }
}
