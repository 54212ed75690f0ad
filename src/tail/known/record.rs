//! The checkpoint of a source as bytes: a version byte, then bincode.
//!
//! A record is at most 16 KiB, of which the two paths can take half. A longer one, an unknown version and trailing bytes
//! are refused. Line bytes are never in it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bincode::{Decode, Encode};
use bytes::Bytes;
use thiserror::Error;

use crate::plain::size;
use crate::tail::known::{Fingerprint, Form, ResumePoints, Whole};

const VERSION: u8 = 1;
/// Version of the record of a compressed file, which has two more fields.
const VERSION_COMPRESSED: u8 = 2;
/// The longest record: twice PATH_MAX and the resume points, and some more.
const RECORD_BYTES_MAX: usize = 16 * 1_024;

/// The longest path of a finished source that is stored whole: twice 40,000 of them are 40 MiB of the 64 MiB that a manifest
/// may have.
const NAME_BYTES_MAX: usize = 512;
/// What stands for the beginning of a longer one.
const CUT: &str = "…";

/// The path; if it is too long, its end behind an ellipsis.
fn name_of(path: &Path) -> Vec<u8> {
    let path = path.as_os_str().as_bytes();
    if path.len() <= NAME_BYTES_MAX {
        return path.to_vec();
    }
    let sign = CUT.as_bytes();
    let end = path.get(path.len() - (NAME_BYTES_MAX - sign.len())..).unwrap_or_default();
    [sign, end].concat()
}

fn codec() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>()
}

/// What the log stores of a source: its identity, and how far its lines are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRecord {
    pub(crate) path: Vec<u8>,
    pub(crate) rotated_from: Option<Vec<u8>>,
    pub(crate) inode: u64,
    pub(crate) fingerprint: Fingerprint,
    /// The end of the last line stored.
    pub offset: u64,
    pub(crate) resume_points: ResumePoints,
    pub(crate) compressed: Option<(Form, Whole)>,
    pub(crate) in_part: bool,
    pub(crate) unterminated: bool,
    /// The file was gone and read to its end.
    pub(crate) finished: bool,
}

/// Why a checkpoint cannot be read. Nothing was changed; the source is then unknown, and read from its beginning.
#[derive(Debug, Error)]
pub enum RecordError {
    /// No bytes at all.
    #[error("read a source record: found no bytes")]
    Empty,
    /// Longer than any record.
    #[error("read a source record: {}, the longest is {}", size(*.0 as u64), size(RECORD_BYTES_MAX as u64))]
    TooLong(usize),
    /// Written by a later version.
    #[error("read a source record: version {0}, this program reads up to version {VERSION_COMPRESSED}")]
    Version(u8),
    /// The fields cannot be decoded.
    #[error("read a source record: {0}")]
    Codec(String),
    /// Bytes behind the last field.
    #[error("read a source record: {} after its end", size(*.0 as u64))]
    Trailing(usize),
    /// The resume points do not rise, or are too many.
    #[error("read a source record: its resume points do not rise, or are too many")]
    ResumePoints,
}

#[derive(Encode, Decode)]
struct Wire {
    path: Vec<u8>,
    rotated_from: Option<Vec<u8>>,
    inode: u64,
    fingerprint: Fingerprint,
    offset: u64,
    resume_points: Vec<(u64, u32)>,
    flags: u8,
}

const IN_PART: u8 = 1;
const UNTERMINATED: u8 = 2;
const FINISHED: u8 = 4;

impl SourceRecord {
    /// What is stored of a source that will never be read again, while a stored line names it: its names and where it ended, at
    /// most twice [`NAME_BYTES_MAX`] and some 20 bytes.
    pub(crate) fn of_finished(path: &Path, rotated_from: Option<&Path>, offset: u64) -> SourceRecord {
        let rotated_from = rotated_from.map(name_of);
        SourceRecord { path: name_of(path), rotated_from, offset, finished: true, ..SourceRecord::default() }
    }

    /// Where the file was last seen. Not always UTF-8.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// The path that the file had before it was renamed or copied away.
    #[must_use]
    pub fn rotated_from(&self) -> Option<&Path> {
        self.rotated_from.as_deref().map(|path| Path::new(OsStr::from_bytes(path)))
    }

    /// The path that it was first seen at; `None` if that is not known, or only its end is stored.
    #[must_use]
    pub fn first_path(&self) -> Option<&Path> {
        let first = self.rotated_from().unwrap_or(self.path());
        let bytes = first.as_os_str().as_bytes();
        (!bytes.is_empty() && !bytes.starts_with(CUT.as_bytes())).then_some(first)
    }

    /// The record's bytes.
    ///
    /// # Errors
    /// If it would be longer than a record may be, which a path within PATH_MAX cannot make it.
    pub(crate) fn encode(&self) -> Result<Bytes, RecordError> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let wire = Wire {
            path: self.path.clone(),
            rotated_from: self.rotated_from.clone(),
            inode: self.inode,
            fingerprint: self.fingerprint,
            offset: self.offset,
            resume_points: self.resume_points.pairs().collect(),
            flags: flag(self.in_part, IN_PART)
                | flag(self.unterminated, UNTERMINATED)
                | flag(self.finished, FINISHED),
        };
        let mut out = vec![if self.compressed.is_some() { VERSION_COMPRESSED } else { VERSION }];
        let failed = |error: bincode::error::EncodeError| RecordError::Codec(error.to_string());
        bincode::encode_into_std_write(&wire, &mut out, codec()).map_err(failed)?;
        if let Some(compressed) = self.compressed {
            bincode::encode_into_std_write(compressed, &mut out, codec()).map_err(failed)?;
        }
        if out.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLong(out.len()));
        }
        debug_assert_eq!(SourceRecord::decode(&out).ok().as_ref(), Some(self));
        Ok(Bytes::from(out))
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// What is wrong with the bytes; they may come from a damaged disk.
    pub fn decode(bytes: &[u8]) -> Result<SourceRecord, RecordError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLong(bytes.len()));
        }
        let (version, fields) = bytes.split_first().ok_or(RecordError::Empty)?;
        let failed = |error: bincode::error::DecodeError| RecordError::Codec(error.to_string());
        let (wire, compressed, read) = match *version {
            VERSION => {
                let (wire, read): (Wire, usize) =
                    bincode::decode_from_slice(fields, codec()).map_err(failed)?;
                (wire, None, read)
            }
            VERSION_COMPRESSED => {
                let ((wire, compressed), read): ((Wire, _), usize) =
                    bincode::decode_from_slice(fields, codec()).map_err(failed)?;
                (wire, Some(compressed), read)
            }
            other => return Err(RecordError::Version(other)),
        };
        if read != fields.len() {
            return Err(RecordError::Trailing(fields.len() - read));
        }
        if wire.flags & !(IN_PART | UNTERMINATED | FINISHED) != 0 {
            return Err(RecordError::Codec(format!("unknown flags {:#04x}", wire.flags)));
        }
        Ok(SourceRecord {
            path: wire.path,
            rotated_from: wire.rotated_from,
            inode: wire.inode,
            fingerprint: wire.fingerprint,
            offset: wire.offset,
            resume_points: ResumePoints::from_pairs(&wire.resume_points).ok_or(RecordError::ResumePoints)?,
            compressed,
            in_part: wire.flags & IN_PART != 0,
            unterminated: wire.flags & UNTERMINATED != 0,
            finished: wire.flags & FINISHED != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SourceRecord {
        let mut resume_points = ResumePoints::default();
        resume_points.add(10, b"0123456789");
        resume_points.add(5_000_000_000, b"end");
        SourceRecord {
            path: b"/var/log/\xff\n.log".to_vec(),
            rotated_from: Some(b"/var/log/a.log".to_vec()),
            inode: 77,
            fingerprint: Fingerprint::of(b"0123456789"),
            offset: 5_000_000_000,
            resume_points,
            compressed: None,
            in_part: true,
            unterminated: false,
            finished: true,
        }
    }

    fn compressed() -> SourceRecord {
        let form = Form { size: 1_000, end: 9 };
        SourceRecord { compressed: Some((form, Whole { size: 1 << 40, crc: 7, end: 8 })), ..sample() }
    }

    #[test]
    fn a_record_is_read_back() {
        let bytes = sample().encode().unwrap();
        let record = SourceRecord::decode(&bytes).unwrap();
        assert_eq!(record, sample());
        assert_eq!(record.path().as_os_str().as_bytes(), b"/var/log/\xff\n.log");
        assert_eq!(SourceRecord::decode(&compressed().encode().unwrap()).unwrap(), compressed());
    }

    #[test]
    fn trailing_bytes_cuts_and_versions_are_refused() {
        let good = sample().encode().unwrap();
        for good in [&good, &compressed().encode().unwrap()] {
            for len in 0..good.len() {
                assert!(SourceRecord::decode(&good[..len]).is_err(), "{len} bytes");
            }
        }
        let mut bad = good.to_vec();
        bad.push(0);
        assert!(matches!(SourceRecord::decode(&bad), Err(RecordError::Trailing(1))));
        bad[0] = 9;
        assert!(matches!(SourceRecord::decode(&bad), Err(RecordError::Version(9))));
        assert!(matches!(SourceRecord::decode(&[1; 20_000]), Err(RecordError::TooLong(_))));
    }

    #[test]
    fn a_record_with_the_longest_paths_fits() {
        let record =
            SourceRecord { path: vec![b'a'; 4_096], rotated_from: Some(vec![b'b'; 4_096]), ..sample() };
        assert_eq!(SourceRecord::decode(&record.encode().unwrap()).unwrap(), record);
    }

    #[test]
    fn of_a_finished_source_only_bounded_names_and_the_end_are_left() {
        let (now, first) = (Path::new("/var/log/a.log.1"), Path::new("/var/log/a.log"));
        let short = SourceRecord::of_finished(now, Some(first), 77);
        let short = SourceRecord::decode(&short.encode().unwrap()).unwrap();
        assert_eq!((short.path(), short.offset, short.finished), (now, 77, true));
        assert_eq!(short.first_path(), Some(first));
        assert_eq!(SourceRecord::of_finished(now, None, 77).first_path(), Some(now));
        let long = format!("/{}/end.log", "x".repeat(4_000));
        let bytes = SourceRecord::of_finished(Path::new(&long), Some(Path::new(&long)), u64::MAX);
        let bytes = bytes.encode().unwrap();
        assert!(bytes.len() <= 2 * NAME_BYTES_MAX + 28, "{} bytes", bytes.len());
        let record = SourceRecord::decode(&bytes).unwrap();
        let name = record.path().to_str().unwrap();
        assert!(name.starts_with("…x") && name.ends_with("/end.log"), "{name}");
        assert_eq!(record.first_path(), None, "only its end is known");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(0_u8.., 0..300)) {
            let _ = SourceRecord::decode(&bytes);
        }
    }
}
