//! A batch as the body of a request, in memory, compressed if wanted.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::GzEncoder;

use super::Batch;
use super::input::{Input, Paths, chunks, write_ndjson};

/// The level of zstd for bodies: as the log's blocks, faster than networks are.
const ZSTD_LEVEL: i32 = 1;

/// What the lines of a batch become.
#[derive(Clone)]
pub enum Form {
    /// The bytes as they stood in their files.
    Lines,
    /// One object a line, as [`Input::Ndjson`] has them.
    Ndjson(Paths),
    /// The same objects in one array.
    Json(Paths),
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

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.content_type())
    }
}

impl Form {
    pub(super) fn content_type(&self) -> &'static str {
        match self {
            Form::Lines => "text/plain",
            Form::Ndjson(_) => "application/x-ndjson",
            Form::Json(_) => "application/json",
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

/// The body for a batch. Takes about a second for 16 MiB at worst: not for a thread of the runtime.
pub(super) fn body(batch: &Batch, form: &Form, coding: Coding) -> io::Result<Bytes> {
    let plain = match form {
        Form::Lines => chunks(batch, &Input::Lines)?,
        Form::Ndjson(paths) => chunks(batch, &Input::Ndjson(paths.clone()))?,
        Form::Json(paths) => vec![array(batch, paths)?],
    };
    match coding {
        Coding::Identity => Ok(match <[Bytes; 1]>::try_from(plain) {
            Ok([one]) => one,
            Err(several) => several.concat().into(),
        }),
        Coding::Gzip => {
            let mut out = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            plain.iter().try_for_each(|chunk| out.write_all(chunk))?;
            Ok(out.finish()?.into())
        }
        Coding::Zstd => {
            let mut out = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
            plain.iter().try_for_each(|chunk| out.write_all(chunk))?;
            Ok(out.finish()?.into())
        }
    }
}

/// Objects hold no newline but the one behind each, so those become the commas of the array.
fn array(batch: &Batch, paths: &Paths) -> io::Result<Bytes> {
    let mut out = b"[".to_vec();
    write_ndjson(batch, paths, &mut out)?;
    if let Some(last) = out.last_mut() {
        *last = b']';
    }
    out.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b',');
    out.push(b'\n');
    Ok(out.into())
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
        assert_eq!(body(&batch, &Form::Lines, Coding::Identity).unwrap(), &b"a \"b\"\\n\n\xff\n"[..]);
        let json = body(&batch, &Form::Json(paths.clone()), Coding::Identity).unwrap();
        let array: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (array.len(), &array[0]["text"], &array[1]["base64"]),
            (2, &"a \"b\"\\n".into(), &"/w==".into())
        );
        let plain = body(&batch, &Form::Ndjson(paths.clone()), Coding::Identity).unwrap();
        assert_eq!(plain.iter().filter(|byte| **byte == b'\n').count(), 2);
        let zstd = body(&batch, &Form::Ndjson(paths.clone()), Coding::Zstd).unwrap();
        assert_eq!(zstd::decode_all(&zstd[..]).unwrap(), plain);
        let gzip = body(&batch, &Form::Ndjson(paths), Coding::Gzip).unwrap();
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, plain);
    }
}
