//! Appends each batch to a file, so that the file holds every line exactly once, over any number of crashes.
//!
//! Delivery is at least once. The sidecar `<path>.spillq` (`sidecar.rs`) makes it exactly once: it records up to which length
//! the file is good, and which lines that part has. The order is: note the intent, write the batch at that length, sync the
//! file, write and sync the sidecar; then the batch is done. After a crash the file is truncated to that length, and a
//! batch that is delivered again adds only the lines that are missing, however it is cut. Two syncs per batch.
//!
//! Lines are in the order in which they were delivered: seq order in a strict group. A group must not have two
//! batches in flight for one file. With `order = "none"` a batch may have at most 64 gaps; with more it is bisected. A seek
//! backwards adds no line that is in the file; `group seek --again` removes the lines from the sidecar first.
//!
//! Other programs may rename the file (a new one is started), empty it, replace it or append to it. After a crash,
//! bytes of unknown origin are moved to `<path>.spillq-aside`; bytes that are not ours must never be destroyed. If a crash and a
//! rename coincide, the old file may end with a part of a batch that is written again, whole, to the new one.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use spillq_storage::Seq;

use super::blocking::Blocking;
use super::sidecar::{Intent, Record, Sidecar, open_private, path_of};
use super::written::{Written, has_too_many_gaps};
use super::{Batch, Epoch, Evidence, Forgetting, Outcome, Processing, Processor};
use crate::file_limit::explained;

/// How many bytes before the good length are compared to see whether it is still the same file.
const CHECKED_BYTES_MAX: u64 = 4 * 1024;
/// Bytes of unknown origin are copied in pieces of this size.
const COPY_BYTES: usize = 64 * 1024;

/// A file as a destination.
#[derive(Debug)]
pub struct AppendFile {
    path: PathBuf,
    thread: Blocking<Appender>,
}

impl AppendFile {
    /// Will append to the file at `path`, created with mode 0600 if it is missing; its folder must exist. Nothing is opened
    /// before the first batch. The seqs of the batches belong to `epoch`: lines of another epoch in the file count as other
    /// lines.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn new(path: PathBuf, epoch: Epoch) -> io::Result<AppendFile> {
        AppendFile::of(Appender {
            path,
            epoch,
            open: None,
            #[cfg(test)]
            stop_at: None,
        })
    }

    fn of(appender: Appender) -> io::Result<AppendFile> {
        Ok(AppendFile { path: appender.path.clone(), thread: Blocking::start("file", appender)? })
    }

    async fn append(&mut self, batch: &Batch) -> Outcome {
        let evidence =
            |what: String| Evidence::new(format!("{} could not be appended to: {what}", self.path.display()));
        if has_too_many_gaps(batch) {
            return Outcome::TooLarge(evidence(format!("too many gaps in lines {}", batch.range())));
        }
        let copy = batch.clone();
        let appended = self.thread.call(move |appender| appender.append(&copy)).await;
        let error = match appended {
            Ok(Ok(())) => return Outcome::Done,
            Ok(Err(error)) | Err(error) => error,
        };
        match error.kind() {
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidData
            // No line is at fault, and it does not pass by itself.
            | ErrorKind::FileTooLarge => Outcome::Refused(evidence(explained(&error))),
            _ => Outcome::Failed(evidence(error.to_string())),
        }
    }
}

impl Processor for AppendFile {
    fn name(&self) -> String {
        format!("file {}", self.about())
    }

    fn about(&self) -> String {
        self.path.display().to_string()
    }

    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a> {
        Box::pin(self.append(batch))
    }

    fn keeps_note(&self) -> bool {
        true
    }

    fn forget(&mut self, from: Seq) -> Forgetting<'_> {
        Box::pin(async move {
            let forgotten = self.thread.call(move |appender| appender.forget(from)).await;
            forgotten
                .and_then(|forgotten| forgotten)
                .map_err(|error| Evidence::new(format!("{}: {error}", path_of(&self.path).display())))
        })
    }
}

/// The steps between which a crash must do no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Intended,
    HalfWritten,
    Written,
    Synced,
    Committed,
}

#[derive(Debug)]
struct Appender {
    path: PathBuf,
    epoch: Epoch,
    /// Closed after every error: from then on only what is on disk counts.
    open: Option<Open>,
    #[cfg(test)]
    stop_at: Option<Step>,
}

#[derive(Debug)]
struct Open {
    file: File,
    sidecar: Sidecar,
    record: Record,
}

impl Appender {
    /// Appends those lines of `batch` that the file does not have. They are durable when it returns.
    fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let mut open = self.opened()?;
        let pieces = open.record.written.rest(batch);
        let bytes: u64 = pieces.iter().map(|piece| piece.bytes().len() as u64).sum();
        if bytes > 0 {
            let record = &mut open.record;
            open.sidecar.intend(Intent { generation: record.generation, length: record.length, bytes })?;
            self.at(Step::Intended)?;
            let half = record.length + bytes / 2;
            for piece in &pieces {
                let mut rest: &[u8] = piece.bytes();
                if record.length < half && record.length + rest.len() as u64 > half {
                    let (before, after) = rest.split_at((half - record.length) as usize);
                    open.file.write_all_at(before, record.length)?;
                    self.at(Step::HalfWritten)?;
                    record.length = half;
                    rest = after;
                }
                open.file.write_all_at(rest, record.length)?;
                record.length += rest.len() as u64;
                record.written.add(piece.covers());
            }
            self.at(Step::Written)?;
            open.file.sync_data()?;
            self.at(Step::Synced)?;
            open.commit()?;
            self.at(Step::Committed)?;
        }
        self.open = Some(open);
        Ok(())
    }

    /// Removes the lines from `from` on from the sidecar.
    fn forget(&mut self, from: Seq) -> io::Result<()> {
        let mut open = self.opened()?;
        open.record.written.forget(from);
        open.commit()?;
        self.open = Some(open);
        Ok(())
    }

    /// The file, at a length that is known to be good.
    fn opened(&mut self) -> io::Result<Open> {
        let mut open = match self.open.take() {
            Some(open) if open.is_current(&self.path) => open,
            old => {
                // First: the old sidecar holds the lock.
                drop(old);
                Open::new(&self.path, self.epoch)?
            }
        };
        open.accept_foreign(&self.path)?;
        Ok(open)
    }

    #[cfg(test)]
    fn at(&mut self, step: Step) -> io::Result<()> {
        if self.stop_at == Some(step) {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests stop here")]
    fn at(&mut self, _: Step) -> io::Result<()> {
        Ok(())
    }
}

impl Open {
    /// Opens the file and its sidecar, and sets the file to a length that is known to be good.
    fn new(path: &Path, epoch: Epoch) -> io::Result<Open> {
        let file = open_private(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let mut first = Record { generation: 1, epoch, length: metadata.len(), ..Record::default() };
        first.check(&file)?;
        let (sidecar, record, intent) = Sidecar::open(&path_of(path), first)?;
        let mut open = Open { file, sidecar, record };
        open.recover(path, intent)?;
        if open.record.epoch != epoch {
            tracing::warn!(
                path = %path.display(),
                "the file has lines of another store or group, or of this one before it was restored: they stay, and do not \
                 count as ours; after a restore, lines that were acked after the backup are appended again"
            );
            open.record.epoch = epoch;
            open.record.written = Written::default();
        }
        // The record may not have been durable, and the file may be new: now both are durable.
        open.file.sync_all()?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        open.commit()?;
        Ok(open)
    }

    fn recover(&mut self, path: &Path, intent: Option<Intent>) -> io::Result<()> {
        let found = self.file.metadata()?.len();
        let good = self.record.length;
        if !self.record.matches(&self.file, found)? {
            tracing::warn!(
                path = %path.display(),
                found_bytes = found,
                expected_bytes = good,
                last_seq = self.record.written.last().0,
                "the file was emptied, replaced or renamed: appending the lines after last_seq at its end"
            );
            self.record.length = found;
        } else if found > good {
            let ours = intent.is_some_and(|intent| found - good <= intent.bytes);
            if ours {
                tracing::info!(path = %path.display(), bytes = found - good, "truncating the file by a batch that was written in part");
            } else {
                let moved_to = self.move_unknown(path, good)?;
                tracing::warn!(
                    path = %path.display(),
                    bytes = found - good,
                    moved_to = %moved_to.display(),
                    "the file ends with bytes of unknown origin, which were moved to another file"
                );
            }
            self.file.set_len(good)?;
        }
        Ok(())
    }

    /// Copies what is after `good` to the end of a file in the same folder. Durable when it returns.
    fn move_unknown(&self, path: &Path, good: u64) -> io::Result<PathBuf> {
        let mut name = path.as_os_str().to_owned();
        name.push(".spillq-aside");
        let copy_path = PathBuf::from(name);
        let copy = open_private(&copy_path)?;
        let mut to = copy.metadata()?.len();
        let mut from = good;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let read = self.file.read_at(&mut buffer, from)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            copy.write_all_at(bytes, to)?;
            from += read as u64;
            to += read as u64;
        }
        copy.sync_all()?;
        Ok(copy_path)
    }

    /// Whether the path still leads to this file, with everything that we wrote.
    fn is_current(&self, path: &Path) -> bool {
        let (Ok(ours), Ok(theirs)) = (self.file.metadata(), fs::metadata(path)) else {
            return false;
        };
        (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) && ours.len() >= self.record.length
    }

    /// Between two batches, bytes after ours were appended by another program: they stay.
    fn accept_foreign(&mut self, path: &Path) -> io::Result<()> {
        let found = self.file.metadata()?.len();
        if found > self.record.length {
            tracing::warn!(
                path = %path.display(),
                bytes = found - self.record.length,
                "another program appended to the file: continuing after its bytes"
            );
            self.record.length = found;
            self.commit()?;
        }
        Ok(())
    }

    /// Makes the current record durable.
    fn commit(&mut self) -> io::Result<()> {
        self.record.generation += 1;
        self.record.check(&self.file)?;
        self.sidecar.commit(&self.record)
    }
}

impl Record {
    /// Computes the checksum of the end of the good part.
    fn check(&mut self, file: &File) -> io::Result<()> {
        let bytes = self.length.min(CHECKED_BYTES_MAX);
        self.checked_bytes = bytes as u32;
        self.checked_crc = crc_before(file, self.length, bytes)?;
        Ok(())
    }

    /// Whether `file`, `found` bytes long, has the good part.
    fn matches(&self, file: &File, found: u64) -> io::Result<bool> {
        let bytes = u64::from(self.checked_bytes);
        Ok(found >= self.length
            && bytes <= self.length
            && crc_before(file, self.length, bytes)? == self.checked_crc)
    }
}

fn crc_before(file: &File, end: u64, bytes: u64) -> io::Result<u32> {
    let mut buffer = vec![0; bytes as usize];
    file.read_exact_at(&mut buffer, end - bytes)?;
    Ok(crc32c::crc32c(&buffer))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
