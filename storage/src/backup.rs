//! Backup and restore: a snapshot is the state after some commit, and how long each file was then.
//!
//! Files only grow, so their first bytes up to those lengths are that state, however late they are copied, as long as
//! none is removed meanwhile ([`crate::Log::hold_removal`]). What is restored gets a new journal, and names and sizes
//! out of the manifest alone: no path that an archive holds is ever used.

mod restore;

use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

pub use restore::Restore;

use crate::codec;
use crate::disk::real::RealDisk;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Error, Result};
use crate::loss::RetainedMark;
use crate::manifest::State;
use crate::retained;
use crate::segment::{self, Overlay};
use crate::view::View;

/// The name of the state in a backup; it comes first.
pub const MANIFEST: &str = "MANIFEST";

/// A moment of a log, to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub(crate) state: State,
}

/// A file of a backup.
pub struct BackupFile {
    /// `MANIFEST`, `segments/…` or `kept/…`.
    pub name: String,
    /// How many bytes belong to it.
    pub bytes: u64,
    /// Those bytes; an error where the file has fewer.
    pub content: Box<dyn Read>,
}

impl std::fmt::Debug for BackupFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupFile").field("name", &self.name).field("bytes", &self.bytes).finish()
    }
}

impl Snapshot {
    fn of(state: &State, retained: RetainedMark) -> Snapshot {
        let mut state = state.clone();
        state.retained = retained;
        Snapshot { state }
    }

    /// Its bytes, to be handed to another process.
    ///
    /// # Errors
    /// When the state is larger than any that a journal takes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        codec::encode(&self.state, &mut bytes).map_err(io::Error::other).during("encode", MANIFEST)?;
        Ok(bytes)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When they are not what [`Snapshot::encode`] made: [`Error::Io`].
    pub fn decode(bytes: &[u8]) -> Result<Snapshot> {
        let decoded = codec::decode::<State>(bytes);
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let (state, _) = decoded.map_err(invalid).during("read", MANIFEST)?;
        Ok(Snapshot { state })
    }

    /// How many lines its segments hold, those that are recorded as lost among them.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.state.next_seq.0 - self.state.first_seq().0
    }

    /// Names and sizes of the files behind the manifest.
    pub(crate) fn sizes(&self) -> Vec<(String, u64)> {
        let segments = self.state.segments.iter();
        let mut sizes: Vec<_> =
            segments.map(|segment| (segment::path(segment.first), segment.bytes)).collect();
        sizes.push((retained::path(self.state.retained.generation), self.state.retained.bytes));
        sizes
    }

    /// All files, the manifest first, out of the data dir `dir`. A stopped store needs its `view`: the newest lines
    /// may be in the journal only.
    pub fn files<'a>(
        &'a self,
        dir: &Path,
        view: Option<&'a View>,
    ) -> impl Iterator<Item = Result<BackupFile>> + 'a {
        let disk = RealDisk::new(dir);
        let manifest = self.encode().map(|bytes| BackupFile {
            name: MANIFEST.to_owned(),
            bytes: bytes.len() as u64,
            content: Box::new(Cursor::new(bytes)),
        });
        let files = self.sizes().into_iter().map(move |(name, bytes)| {
            let overlay = view.and_then(|view| view.overlay(&name)).unwrap_or_default();
            let file = match disk.open(&name, false) {
                Ok(file) => Some(file),
                Err(_) if overlay.at == 0 && overlay.bytes.len() as u64 == bytes => None,
                Err(error) => return Err(error).during("open", &name),
            };
            let content = Box::new(Part { file, overlay, at: 0, end: bytes });
            Ok(BackupFile { name, bytes, content })
        });
        std::iter::once(manifest).chain(files)
    }
}

/// The first bytes of a file, the end of them perhaps out of the journal.
struct Part {
    file: Option<Box<dyn DiskFile>>,
    overlay: Overlay,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = (self.end - self.at).min(buffer.len() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let read = self.overlay.read_at(self.file.as_deref(), buffer, self.at)?;
        if read == 0 {
            let what = format!("the file ends at byte {}, {} belong to it", self.at, self.end);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.at += read as u64;
        Ok(read)
    }
}

impl crate::Log {
    /// This moment. What is copied of it must not be removed meanwhile: [`crate::Log::hold_removal`].
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.state(), self.retained_mark())
    }
}

impl View {
    /// What the store says.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.state(), self.retained_mark())
    }
}

pub(crate) fn invalid(attempted: &'static str, path: &Path, what: String) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidData, what);
    Error::Io { attempted, path: path.to_owned(), source }
}

pub(crate) fn shared(dir: &Path) -> Arc<dyn Disk> {
    Arc::new(RealDisk::new(dir))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::{GroupId, Seq, SeqRange, SourceId};
    use crate::{BlockBuilder, Commit, DiskOptions, GroupChange, Log, Options};

    fn options() -> Options {
        let disk = DiskOptions { reserve_bytes: 0, min_free_bytes: 0, ..DiskOptions::default() };
        Options { segment_bytes: 2_000, disk, ..Options::default() }
    }

    fn append(log: &mut Log, from: u64) {
        for number in from..from + 50 {
            let mut builder = BlockBuilder::new();
            let line = format!("line {number:094}\n");
            builder.push_whole(SourceId(1), number * 100, line.as_bytes(), 1);
            let checkpoints = vec![(SourceId(1), Bytes::copy_from_slice(&[number as u8]))];
            log.commit(&Commit { blocks: vec![builder.build(1)], checkpoints, ..Commit::default() }).unwrap();
        }
    }

    #[test]
    fn a_snapshot_outlives_what_is_acked_while_removal_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, target) = (folder.path().join("q"), folder.path().join("restored"));
        let mut log = Log::open_or_create(&dir, options()).unwrap();
        log.commit(&Commit { add_groups: vec![("a".to_owned(), Seq(0))], ..Commit::default() }).unwrap();
        append(&mut log, 0);
        log.hold_removal(true);
        let snapshot = Snapshot::decode(&log.snapshot().encode().unwrap()).unwrap();
        let ack = (GroupId(1), GroupChange::Ack { range: SeqRange { first: Seq(1), last: Seq(50) } });
        log.commit(&Commit { groups: vec![ack], ..Commit::default() }).unwrap();
        append(&mut log, 50);
        while log.maintain(0).unwrap() {}
        assert_eq!(log.counters().segments_removed, 0);

        let mut restore = Restore::begin(&target).unwrap();
        for file in snapshot.files(&dir, None) {
            let mut file = file.unwrap();
            restore.take(&file.name, file.bytes, &mut file.content).unwrap();
        }
        assert_eq!(restore.finish().unwrap(), [""; 0]);
        let restored = Log::open(&target, options()).unwrap();
        let state = restored.state();
        assert_eq!(
            (state.next_seq, state.first_seq(), state.groups[&GroupId(1)].lag_lines(state.next_seq)),
            (Seq(51), Seq(1), 50)
        );
        assert!(state.run > 1_000_000 && state.epoch() > 0);

        log.hold_removal(false);
        while log.maintain(0).unwrap() {}
        assert!(log.counters().segments_removed > 0);
    }

    #[test]
    fn a_restore_takes_what_the_manifest_says_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("q");
        let mut log = Log::open_or_create(&dir, options()).unwrap();
        append(&mut log, 0);
        let snapshot = log.snapshot();
        let manifest = snapshot.encode().unwrap();
        let begin = || {
            let mut restore = Restore::begin(&folder.path().join("new")).unwrap();
            restore.take(MANIFEST, manifest.len() as u64, &mut manifest.as_slice()).unwrap();
            restore
        };
        let first = snapshot.sizes().remove(0);
        let content = vec![0; first.1 as usize];
        for (name, bytes) in [("../q/LOCK", 4), ("/etc/passwd", 4), (&first.0, first.1 - 1), (MANIFEST, 4)] {
            let mut content = content.get(..bytes as usize).unwrap();
            assert!(begin().take(name, bytes, &mut content).is_err(), "{name}");
        }
        let mut short = content.get(1..).unwrap();
        assert!(begin().take(&first.0, first.1, &mut short).is_err(), "shorter than it says");
        assert!(begin().finish().is_err(), "files are missing");
        let mut flipped = manifest.clone();
        if let Some(byte) = flipped.last_mut() {
            *byte ^= 1;
        }
        let mut restore = Restore::begin(&folder.path().join("new")).unwrap();
        assert!(restore.take(MANIFEST, flipped.len() as u64, &mut flipped.as_slice()).is_err());
        drop(restore);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }
}
