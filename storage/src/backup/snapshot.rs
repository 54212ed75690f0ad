//! A snapshot: the state after some commit, and how long each file was then.

use std::io::{self, Cursor, Read};
use std::path::Path;

use crate::codec;
use crate::disk::real::RealDisk;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Result};
use crate::loss::RetainedMark;
use crate::manifest::State;
use crate::retained;
use crate::segment::{self, Overlay};
use crate::view::View;

/// A moment of a log, to be copied. [`crate::Log::snapshot`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub(crate) state: State,
}

/// A file of a backup.
pub struct BackupFile {
    /// [`Snapshot::MANIFEST`], `segments/…` or `kept/…`.
    pub name: String,
    /// How many bytes belong to the snapshot.
    pub bytes: u64,
    /// Those bytes; an error if the file has fewer.
    pub content: Box<dyn Read>,
}

impl std::fmt::Debug for BackupFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupFile").field("name", &self.name).field("bytes", &self.bytes).finish()
    }
}

impl Snapshot {
    /// The name of the state in a backup, which begins with it.
    pub const MANIFEST: &str = "MANIFEST";

    fn of(state: &State, retained: RetainedMark) -> Snapshot {
        let mut state = state.clone();
        state.retained = retained;
        Snapshot { state }
    }

    /// Its bytes, for another process.
    ///
    /// # Errors
    /// If the state is larger than a record may be.
    pub fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(&self.state).map_err(io::Error::other).during("encode", Snapshot::MANIFEST)
    }

    /// The snapshot that [`Snapshot::encode`] made bytes of.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<Snapshot> {
        let decoded = codec::decode::<State>(bytes);
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let (state, _) = decoded.map_err(invalid).during("read", Snapshot::MANIFEST)?;
        Ok(Snapshot { state })
    }

    /// How many lines its segments hold, including those that are recorded as lost.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.state.next_seq.0 - self.state.first_seq().0
    }

    /// Names and sizes of the files after the manifest.
    pub(crate) fn sizes(&self) -> Vec<(String, u64)> {
        let segments = self.state.segments.iter();
        let mut sizes: Vec<_> =
            segments.map(|segment| (segment::path(segment.first), segment.bytes)).collect();
        sizes.push((retained::path(self.state.retained.generation), self.state.retained.bytes));
        sizes
    }

    /// All files from the data dir `dir`, the manifest first. A store that is not open needs its `view`: the newest lines
    /// may be in the journal only.
    pub fn files<'a>(
        &'a self,
        dir: &Path,
        view: Option<&'a View>,
    ) -> impl Iterator<Item = Result<BackupFile>> + 'a {
        let disk = RealDisk::new(dir);
        let manifest = self.encode().map(|bytes| BackupFile {
            name: Snapshot::MANIFEST.to_owned(),
            bytes: bytes.len() as u64,
            content: Box::new(Cursor::new(bytes)),
        });
        let files = self.sizes().into_iter().map(move |(name, bytes)| {
            let overlay = view.and_then(|view| view.overlay(&name)).unwrap_or_default();
            let file = match disk.open(&name, false) {
                Ok(file) => Some(file),
                Err(_) if overlay.needed(bytes) == 0 => None,
                Err(error) => return Err(error).during("open", &name),
            };
            let content = Box::new(Part { file, overlay, at: 0, end: bytes });
            Ok(BackupFile { name, bytes, content })
        });
        std::iter::once(manifest).chain(files)
    }
}

/// The first bytes of a file, some of which may be in the journal only.
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
    /// This moment. Call [`crate::Log::hold_removal`] before, so that no file of it is removed while it is copied.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.state(), self.retained_mark())
    }
}

impl View {
    /// The state of the store.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.state(), self.retained_mark())
    }
}
