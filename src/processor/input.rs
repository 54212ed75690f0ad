//! The standard input of a command: a whole batch in a memfd, complete before the command starts.
//!
//! Unlike with a pipe, a command may read nothing or read slowly, and a batch of any size is there to its last byte. It costs
//! the batch's bytes once more while the command runs. It is sealed: a batch cannot change while it is read.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::Serialize;
use spillq_storage::{Line, SourceId};

use super::{Batch, Piece};
use crate::plain::rfc3339;

/// The buffer that joins objects into larger writes.
const BUFFER_BYTES: usize = 64 * 1024;

/// What is known of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Its path, for one line of text.
    pub path: String,
    /// The labels of the section that follows it.
    pub labels: Arc<BTreeMap<String, String>>,
}

/// Returns what is known of a source, if its path is.
pub type Paths = Arc<dyn Fn(SourceId) -> Option<Named> + Send + Sync>;

/// In which form a command gets the lines of a batch.
#[derive(Clone, Default)]
pub enum Input {
    /// The lines themselves, byte for byte as they were in their files.
    #[default]
    Lines,
    /// One JSON object per line, with `seq`, `source` (the path that the closure returns, or the source's number),
    /// `offset`, `time` (when it was appended), `attempt`, `labels` if its source has some, and `text`, or `base64` if the bytes are not UTF-8, both without the newline. A line
    /// without a newline has `unterminated`: true, and a part of a line that was cut has `part`: first, middle or
    /// last.
    Ndjson(Paths),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Input::Lines => "Lines",
            Input::Ndjson(_) => "Ndjson",
        })
    }
}

/// Writes the batch to a memfd and rewinds it. Returns the number of bytes too. Blocks for about as long as a copy of the bytes
/// takes.
pub(super) fn memfd(batch: &Batch, input: &Input) -> io::Result<(OwnedFd, u64)> {
    match input {
        Input::Lines => memfd_of(batch.pieces()),
        Input::Ndjson(paths) => memfd_with(&|file| {
            let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
            write_ndjson(batch, paths, &mut out)?;
            out.flush()
        }),
    }
}

/// The same of lines that are passed as they are, before they are leased.
pub(super) fn memfd_of(pieces: &[Piece]) -> io::Result<(OwnedFd, u64)> {
    memfd_with(&|file| {
        // Pieces of groups over some sources can be single lines. Large ones are not copied.
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        pieces.iter().try_for_each(|piece| out.write_all(piece.bytes()))?;
        out.flush()
    })
}

fn memfd_with(write: &dyn Fn(&File) -> io::Result<()>) -> io::Result<(OwnedFd, u64)> {
    let fd = memfd_create("spillq-batch", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    write(&file)?;
    let bytes = file.stream_position()?;
    file.rewind()?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok((file.into(), bytes))
}

/// The batch in the form of `input`, in memory: lines as references, objects as a copy.
pub(crate) fn chunks(batch: &Batch, input: &Input) -> io::Result<Vec<Bytes>> {
    match input {
        Input::Lines => Ok(batch.pieces().iter().map(|piece| piece.bytes().clone()).collect()),
        Input::Ndjson(paths) => {
            let mut objects = Vec::new();
            write_ndjson(batch, paths, &mut objects)?;
            Ok(vec![objects.into()])
        }
    }
}

/// Where a line is from: the path of its source, or its number if the path is not known.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Source {
    Path(String),
    Id(u64),
}

impl Source {
    /// For destinations that take text alone.
    pub(super) fn text(&self) -> String {
        match self {
            Source::Path(path) => path.clone(),
            Source::Id(id) => id.to_string(),
        }
    }
}

/// A source, as objects show it.
pub(super) struct Origin {
    pub(super) id: SourceId,
    pub(super) source: Source,
    pub(super) labels: Arc<BTreeMap<String, String>>,
}

/// When a line was appended.
pub(super) struct Appended {
    /// In milliseconds since 1970.
    pub(super) ms: u64,
    /// The same as people and JSON write it.
    pub(super) text: String,
}

/// Calls `each` with every line of a batch. Lines of one source mostly follow each other: its path is looked up once for all of them.
pub(super) fn each_line(
    batch: &Batch,
    paths: &Paths,
    mut each: impl FnMut(&Line<'_>, &Origin, &Appended) -> io::Result<()>,
) -> io::Result<()> {
    let mut known: Option<Origin> = None;
    for piece in batch.pieces() {
        let ms = piece.append_time_ms();
        let appended = Appended { ms, text: rfc3339(ms) };
        for line in piece.lines() {
            let origin = match known.take() {
                Some(origin) if origin.id == line.source => origin,
                _ => {
                    let (source, labels) = match paths(line.source) {
                        Some(Named { path, labels }) => (Source::Path(path), labels),
                        None => (Source::Id(line.source.0), Arc::default()),
                    };
                    Origin { id: line.source, source, labels }
                }
            };
            each(&line, &origin, &appended)?;
            known = Some(origin);
        }
    }
    Ok(())
}

/// Writes the lines of `pieces`, each with a newline at its end, also those that had none in their file.
pub(super) fn write_terminated(pieces: &[Piece], out: &mut impl Write) -> io::Result<()> {
    for piece in pieces {
        if piece.lines().all(|line| line.bytes.ends_with(b"\n")) {
            out.write_all(piece.bytes())?;
            continue;
        }
        for line in piece.lines() {
            out.write_all(line.bytes)?;
            if !line.bytes.ends_with(b"\n") {
                out.write_all(b"\n")?;
            }
        }
    }
    Ok(())
}

/// The text of a line without its newline, or its bytes in base64 if they are not UTF-8.
pub(super) fn text_or_base64<'l>(line: &Line<'l>) -> Result<&'l str, String> {
    let bytes = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
    std::str::from_utf8(bytes).map_err(|_| STANDARD.encode(bytes))
}

#[derive(Serialize)]
struct Object<'a> {
    seq: u64,
    source: &'a Source,
    offset: u64,
    time: &'a str,
    attempt: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unterminated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<&'a str>,
}

pub(super) fn write_ndjson(batch: &Batch, paths: &Paths, mut out: impl Write) -> io::Result<()> {
    each_line(batch, paths, |line, origin, appended| {
        let text = text_or_base64(line);
        let object = Object {
            seq: line.seq.0,
            source: &origin.source,
            offset: line.offset,
            time: &appended.text,
            attempt: batch.attempt(),
            labels: &origin.labels,
            part: line.flags.part(),
            unterminated: line.flags.is_unterminated(),
            text: text.as_ref().ok().copied(),
            base64: text.as_ref().err().map(String::as_str),
        };
        serde_json::to_writer(&mut out, &object)?;
        out.write_all(b"\n")
    })
}
