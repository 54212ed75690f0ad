//! Checkpoints for `repair` and `adopt`: made again from the stored lines of a source, or moved to another path.
//!
//! A file is identified by the 256 bytes before its offset and its first bytes. If they are not stored, no checkpoint is
//! made.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;
use spillq_storage::SourceId;
use spillq_storage::repair::SourceEnd;

use crate::tail::bytes::{Candidate, Check, Decompressor, form_of, is_compressed, read_up_to};
use crate::tail::known::{
    FINGERPRINT_BYTES, Fingerprint, Likeness, RESUME_POINT_BYTES, Source, SourceRecord, crc_before,
};

/// Extends the checkpoint of a source to the end of its stored lines; `None` if it covers them.
///
/// # Errors
/// Why it cannot be made: the file is then read again.
pub fn remake(end: &SourceEnd, known: Option<&[u8]>) -> Result<Option<Vec<u8>>, String> {
    let mut record = match known.map(SourceRecord::decode) {
        Some(Ok(record)) => record,
        Some(Err(error)) => return Err(error.to_string()),
        // Its path is not known any more. The file is identified by its content, as a copy is.
        None if end.start.is_empty() => return Err("its first line is not stored any more".to_owned()),
        None => SourceRecord { fingerprint: Fingerprint::of(&end.start), ..SourceRecord::default() },
    };
    if record.offset >= end.end {
        return Ok(None);
    }
    if end.before.is_empty() {
        return Err("the bytes before the end of its stored lines are not stored any more".to_owned());
    }
    record.offset = end.end;
    record.resume_points.add(end.end, &end.before);
    record.in_part = matches!(end.flags.part(), Some("first" | "middle"));
    record.unterminated = end.flags.is_unterminated();
    record.encode().map(|bytes| Some(bytes.to_vec())).map_err(|error| error.to_string())
}

/// The checkpoint of a source whose file is now at `path`: the same content, with another path or inode.
///
/// # Errors
/// If the file cannot be read, or does not contain what was read of the source.
pub fn adopt(checkpoint: &[u8], path: &Path) -> Result<Bytes, String> {
    let mut record = SourceRecord::decode(checkpoint).map_err(|error| error.to_string())?;
    let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let meta = path.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let file = File::open(&path).map_err(failed)?;
    let start = read_up_to(&file, 0, FINGERPRINT_BYTES).map_err(failed)?;
    let is_it = match is_compressed(&start) {
        true => adopt_compressed(&mut record, &file).map_err(failed)?,
        false => adopt_plain(&mut record, &file, &start).map_err(failed)?,
    };
    if !is_it {
        let offset = record.offset;
        return Err(format!(
            "{} does not begin as the source does, or does not hold before byte {offset} what was read of it",
            path.display()
        ));
    }
    record.path = path.as_os_str().as_bytes().to_vec();
    record.inode = meta.ino();
    record.finished = false;
    record.encode().map_err(|error| error.to_string())
}

/// Whether the file contains what was read of the source.
fn adopt_plain(record: &mut SourceRecord, file: &File, start: &[u8]) -> io::Result<bool> {
    record.compressed = None;
    let from = record.offset.saturating_sub(RESUME_POINT_BYTES as u64);
    let before = read_up_to(file, from, (record.offset - from) as usize)?;
    let is_equal = record.resume_points.crc_at(record.offset).is_none_or(|crc| crc == crc_before(&before));
    let is_there = before.len() as u64 == record.offset - from;
    Ok(record.fingerprint.compare(start) == Likeness::Equal && is_there && is_equal)
}

/// The same for the content of a compressed file. Checks all of it.
fn adopt_compressed(record: &mut SourceRecord, file: &File) -> io::Result<bool> {
    let source = Source::from_record(SourceId(0), record.clone(), 0);
    let form = form_of(file, file.metadata()?.len())?;
    let candidates = vec![Candidate::new(&source, None)];
    let mut check = Check::new(form, 0, 0, Decompressor::open(file.try_clone()?)?, candidates);
    while !check.turn(u64::MAX)? {}
    record.compressed = check.whole().map(|whole| (form, whole));
    let begins_alike = record.fingerprint.compare(check.start()) == Likeness::Equal;
    Ok(begins_alike && check.candidates.iter().all(|candidate| candidate.matches(record.offset)))
}
