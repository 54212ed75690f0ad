//! The sidecar of a destination file: a small file that records how much of it is ours and which lines it has.
//!
//! It has two records, written in turn, each synced before the batch is done: if one is torn, the other counts. After them
//! comes the intent, which is written before a batch and not synced. After a kill it distinguishes a batch that we wrote in
//! part from what another program appended. After a power cut it may be missing, and nothing relies on it.
//!
//! A record is at most [`SLOT_BYTES`] long, little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic `SPQF` |
//! | 4 | version, 2 |
//! | 8 | generation: the higher of two valid records counts |
//! | 8, 8, 4 | store id, number of the epoch, group id: what the seqs belong to |
//! | 8 | length of the file up to which it is good |
//! | 4, 4 | how many bytes before that length are covered by the next field, and their CRC32C |
//! | 4 | ranges |
//! | 16 each | ranges of lines in the file: first seq 8, last seq 8 |
//! | 4 | CRC32C of all before |
//!
//! An intent is magic `SPQI`, version 4, generation 8, length before the batch 8, bytes of the batch 8, CRC32C 4.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Buf;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use spillq_storage::{GroupId, Seq, SeqRange, StoreId};

use super::Epoch;
use super::written::{RANGES_MAX, Written};

const RECORD_MAGIC: [u8; 4] = *b"SPQF";
const INTENT_MAGIC: [u8; 4] = *b"SPQI";
const VERSION: u32 = 2;
/// One page of most file systems: writing one record does not touch the other.
const SLOT_BYTES: usize = 4096;
const INTENT_AT: u64 = 2 * SLOT_BYTES as u64;
const INTENT_BYTES: usize = 36;
/// The lock is tried for 200 ms: starting a process takes a few.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const SIDECAR_BYTES: usize = 3 * SLOT_BYTES;
const _: () = assert!(56 + 16 * RANGES_MAX + 4 <= SLOT_BYTES, "a record fits in its slot");

/// What is known for sure of a destination file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) generation: u64,
    /// What the seqs belong to.
    pub(super) epoch: Epoch,
    /// The file is good up to here.
    pub(super) length: u64,
    /// How many bytes before `length` the checksum covers.
    pub(super) checked_bytes: u32,
    /// Their CRC32C, which shows whether it is still the same file.
    pub(super) checked_crc: u32,
    /// The lines that the file has up to `length`.
    pub(super) written: Written,
}

/// The batch that is about to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Intent {
    /// The generation of the record before the batch.
    pub(super) generation: u64,
    /// The length of the file before the batch.
    pub(super) length: u64,
    /// The number of bytes of the batch.
    pub(super) bytes: u64,
}

/// An open sidecar, locked: no other spillq writes to the file.
#[derive(Debug)]
pub(super) struct Sidecar {
    file: File,
}

/// Where the sidecar of `path` is.
pub(super) fn path_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".spillq");
    PathBuf::from(name)
}

impl Sidecar {
    /// Opens the sidecar at `path` and reads it. If there is none, creates one with the record `first`.
    ///
    /// # Errors
    /// [`ErrorKind::ResourceBusy`] if another process has locked it, [`ErrorKind::InvalidData`] if it is damaged.
    pub(super) fn open(path: &Path, first: Record) -> io::Result<(Sidecar, Record, Option<Intent>)> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create(path, &first)?;
                OpenOptions::new().read(true).write(true).open(path)?
            }
            other => other?,
        };
        lock(&file, path)?;
        let sidecar = Sidecar { file };
        let slot = |i: u64| decode_record(&sidecar.read(i * SLOT_BYTES as u64, SLOT_BYTES)?);
        let record = match (slot(0), slot(1)) {
            (Some(a), Some(b)) if a.generation > b.generation => a,
            (Some(a), None) => a,
            (_, Some(b)) => b,
            (None, None) => {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    format!(
                        "{} is damaged: neither of its records matches its checksum; if you remove it, spillq \
                         continues at the end of the file, and lines of the last batch may be there twice",
                        path.display()
                    ),
                ));
            }
        };
        let intent = sidecar
            .read(INTENT_AT, INTENT_BYTES)
            .and_then(|bytes| decode_intent(&bytes))
            .filter(|intent| intent.generation == record.generation && intent.length == record.length);
        Ok((sidecar, record, intent))
    }

    /// Makes `record` the one that counts. Durable when it returns; after an error either one may count.
    pub(super) fn commit(&self, record: &Record) -> io::Result<()> {
        let at = record.generation % 2 * SLOT_BYTES as u64;
        self.file.write_all_at(&encode_record(record), at)?;
        self.file.sync_data()
    }

    /// Notes the batch that is about to be written. The note survives a kill, and perhaps a power cut.
    pub(super) fn intend(&self, intent: Intent) -> io::Result<()> {
        self.file.write_all_at(&encode_intent(intent), INTENT_AT)
    }

    fn read(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }
}

/// Takes the lock. We may still hold it for a moment: a child process shares our descriptors until it becomes another
/// program.
fn lock(file: &File, path: &Path) -> io::Result<()> {
    for _ in 0..LOCK_TRIES {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
            other => return Ok(other?),
        }
    }
    Err(io::Error::new(
        ErrorKind::ResourceBusy,
        format!("another process writes to it: {} is locked", path.display()),
    ))
}

/// Creates a sidecar that is either whole or missing.
fn create(path: &Path, first: &Record) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".spillq-")
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    let mut bytes = encode_record(first);
    bytes.resize(SIDECAR_BYTES, 0);
    if first.generation % 2 == 1 {
        bytes.rotate_right(SLOT_BYTES);
    }
    file.write_all(&bytes)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        // Another process was faster; the lock decides.
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {}
        other => {
            other.map_err(|error| error.error)?;
        }
    }
    File::open(folder)?.sync_all()
}

/// Opens a file, and creates it with mode 0600 if it is missing.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // Opening a FIFO would wait for its reader. What is not a regular file is refused afterwards.
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
}

pub(super) fn encode_record(record: &Record) -> Vec<u8> {
    let mut out = RECORD_MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&record.generation.to_le_bytes());
    out.extend_from_slice(&record.epoch.store.0.to_le_bytes());
    out.extend_from_slice(&record.epoch.number.to_le_bytes());
    out.extend_from_slice(&record.epoch.group.0.to_le_bytes());
    out.extend_from_slice(&record.length.to_le_bytes());
    out.extend_from_slice(&record.checked_bytes.to_le_bytes());
    out.extend_from_slice(&record.checked_crc.to_le_bytes());
    out.extend_from_slice(&(record.written.ranges().len() as u32).to_le_bytes());
    for range in record.written.ranges() {
        out.extend_from_slice(&range.first.0.to_le_bytes());
        out.extend_from_slice(&range.last.0.to_le_bytes());
    }
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    debug_assert_eq!(decode_record(&out).as_ref(), Some(record));
    out
}

pub(super) fn decode_record(bytes: &[u8]) -> Option<Record> {
    let mut rest = bytes;
    if rest.split_off(..4)? != RECORD_MAGIC || rest.try_get_u32_le().ok()? != VERSION {
        return None;
    }
    let generation = rest.try_get_u64_le().ok()?;
    let epoch = Epoch {
        store: StoreId(rest.try_get_u64_le().ok()?),
        number: rest.try_get_u64_le().ok()?,
        group: GroupId(rest.try_get_u32_le().ok()?),
    };
    let length = rest.try_get_u64_le().ok()?;
    let checked_bytes = rest.try_get_u32_le().ok()?;
    let checked_crc = rest.try_get_u32_le().ok()?;
    let count = rest.try_get_u32_le().ok()? as usize;
    if count > RANGES_MAX {
        return None;
    }
    let mut ranges = Vec::with_capacity(count);
    for _ in 0..count {
        let (first, last) = (rest.try_get_u64_le().ok()?, rest.try_get_u64_le().ok()?);
        ranges.push(SeqRange::new(Seq(first), Seq(last))?);
    }
    let covered = bytes.get(..bytes.len() - rest.len())?;
    (rest.try_get_u32_le().ok()? == crc32c::crc32c(covered)).then(|| Record {
        generation,
        epoch,
        length,
        checked_bytes,
        checked_crc,
        written: Written::of(ranges),
    })
}

pub(super) fn encode_intent(intent: Intent) -> Vec<u8> {
    let mut out = INTENT_MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    for number in [intent.generation, intent.length, intent.bytes] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

pub(super) fn decode_intent(bytes: &[u8]) -> Option<Intent> {
    let mut rest = bytes;
    if rest.split_off(..4)? != INTENT_MAGIC || rest.try_get_u32_le().ok()? != VERSION {
        return None;
    }
    let intent = Intent {
        generation: rest.try_get_u64_le().ok()?,
        length: rest.try_get_u64_le().ok()?,
        bytes: rest.try_get_u64_le().ok()?,
    };
    let covered = bytes.get(..bytes.len() - rest.len())?;
    (rest.try_get_u32_le().ok()? == crc32c::crc32c(covered)).then_some(intent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(generation: u64) -> Record {
        Record {
            generation,
            length: 100 * generation,
            written: Written::of([SeqRange::new(Seq(1), Seq(generation)).unwrap()]),
            ..Record::default()
        }
    }

    #[test]
    fn the_latest_whole_record_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.spillq");
        let open = || Sidecar::open(&path, record(1));
        assert_eq!(open().unwrap().1, record(1));
        for generation in 2..6 {
            open().unwrap().0.commit(&record(generation)).unwrap();
            assert_eq!(open().unwrap().1, record(generation));
        }
        // Generation 5 is in the second slot, generation 4 in the first.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[SLOT_BYTES + 30] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(open().unwrap().1, record(4));
        bytes[30] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(open().unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn an_intent_counts_for_the_record_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.spillq");
        let open = || Sidecar::open(&path, record(1)).unwrap();
        let intent = Intent { generation: 1, length: 100, bytes: 7 };
        open().0.intend(intent).unwrap();
        assert_eq!(open().2, Some(intent));
        open().0.commit(&record(2)).unwrap();
        assert_eq!(open().2, None);
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.spillq");
        let _held = Sidecar::open(&path, record(1)).unwrap();
        assert_eq!(Sidecar::open(&path, record(1)).unwrap_err().kind(), ErrorKind::ResourceBusy);
    }

    #[test]
    fn a_full_record_fits_and_is_read() {
        let full = Record {
            written: Written::of((1..=RANGES_MAX as u64).map(|i| SeqRange::one(Seq(2 * i)))),
            ..record(9)
        };
        let bytes = encode_record(&full);
        assert!(bytes.len() <= SLOT_BYTES);
        assert_eq!(decode_record(&bytes), Some(full));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_record(&bad), None, "bit {bit}");
        }
    }
}
