//! Makes a store of a backup: in a temporary folder, which gets its final name when the store is whole and synced.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::create::random_id;
use crate::disk::Disk;
use crate::disk::real::RealDisk;
use crate::error::{Context, Error, Result};
use crate::journal::{self, Journal};
use crate::lock::Lock;
use crate::manifest::State;
use crate::mark::{Mark, MarkFile};
use crate::view::View;
use crate::{retained, segment, spare};

/// The largest manifest: the limit of a record, and its frame.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024 + 9;

/// A restore that is under way. If it is dropped before [`Restore::finish`], nothing is left of it.
#[derive(Debug)]
pub struct Restore {
    target: PathBuf,
    folder: tempfile::TempDir,
    snapshot: Option<Snapshot>,
    /// Files that were not taken yet, with their sizes.
    left: BTreeMap<String, u64>,
}

impl Restore {
    /// Begins to restore into `target`, which must not exist, or be an empty folder.
    ///
    /// # Errors
    /// If it exists and is not empty, or cannot be created.
    pub fn begin(target: &Path) -> Result<Restore> {
        match fs::read_dir(target) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    let what =
                        "it exists and is not empty; a store is only restored into a new folder".to_owned();
                    return Err(invalid("restore into", target, what));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(Error::Io { attempted: "restore into", path: target.to_owned(), source });
            }
        }
        let parent = parent(target);
        let made = tempfile::Builder::new()
            .prefix(".spillq-restore-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&parent);
        let folder =
            made.map_err(|source| Error::Io { attempted: "make a folder in", path: parent, source })?;
        for name in [segment::FOLDER, retained::FOLDER, journal::FOLDER] {
            shared(folder.path()).make_folder(name).during("create", name)?;
        }
        Ok(Restore { target: target.to_owned(), folder, snapshot: None, left: BTreeMap::new() })
    }

    /// Takes one file, the manifest first. Its name must be one that the manifest has.
    ///
    /// # Errors
    /// If the manifest does not have the file, or has another size, and if it cannot be written.
    pub fn take(&mut self, name: &str, bytes: u64, content: &mut dyn Read) -> Result<()> {
        let refuse = |what: String| Err(invalid("restore", Path::new(name), what));
        if self.snapshot.is_none() {
            if name != Snapshot::MANIFEST || bytes > MANIFEST_BYTES_MAX {
                return refuse(format!("a backup begins with {}", Snapshot::MANIFEST));
            }
            let mut manifest = Vec::new();
            content.take(MANIFEST_BYTES_MAX).read_to_end(&mut manifest).during("read", Snapshot::MANIFEST)?;
            let snapshot = Snapshot::decode(&manifest)?;
            self.left = snapshot.sizes().into_iter().collect();
            self.snapshot = Some(snapshot);
            return Ok(());
        }
        let Some((known, size)) = self.left.remove_entry(name) else {
            return refuse("the manifest does not have this file, or it came twice".to_owned());
        };
        if size != bytes {
            return refuse(format!("it is {bytes} bytes long, and the manifest says {size}"));
        }
        let path = self.folder.path().join(known);
        let io = |attempted, source| Error::Io { attempted, path: path.clone(), source };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| io("create", error))?;
        let copied = io::copy(&mut content.take(size), &mut file).map_err(|error| io("write to", error))?;
        if copied != size {
            return refuse(format!("it ends after {copied} of {size} bytes"));
        }
        file.sync_all().map_err(|error| io("sync", error))
    }

    /// Makes it a store under its final name. Returns what [`View::verify`] finds in it: damage that was in the backup.
    ///
    /// # Errors
    /// If files are missing, or the store cannot be created.
    pub fn finish(self) -> Result<Vec<String>> {
        let Some(Snapshot { mut state }) = self.snapshot else {
            return Err(invalid("restore", &self.target, "the backup is empty".to_owned()));
        };
        if let Some(name) = self.left.keys().next() {
            let what = format!("{} files are missing in the backup, {name} first", self.left.len());
            return Err(invalid("restore", &self.target, what));
        }
        let dir = self.folder.path();
        let disk = shared(dir);
        drop(Lock::take(dir, true)?);
        state.begin_epoch(random_id());
        (state.journal, state.commit) = (state.journal + 1, state.commit + 1);
        let State { store, journal: number, commit, next_seq, .. } = state;
        if let Some(copy) = spare::encode(&state) {
            spare::write(disk.as_ref(), &copy)?;
        }
        let db = Journal::prepare(disk.as_ref(), number, 0).during("create", &journal::folder(number))?;
        drop(Journal::begin(disk.as_ref(), db, &state)?);
        for folder in [segment::FOLDER, retained::FOLDER] {
            disk.sync_dir(folder).during("sync", folder)?;
        }
        MarkFile::create(disk.as_ref(), Mark { store, journal: number, commit, next_seq })?;
        let findings = View::open(dir)?.verify(&mut |_| {});
        let io = |attempted, source| Error::Io { attempted, path: self.target.clone(), source };
        let made = self.folder.keep();
        fs::rename(&made, &self.target).map_err(|error| io("rename the restored store to", error))?;
        File::open(parent(&self.target))
            .and_then(|parent| parent.sync_all())
            .map_err(|error| io("sync the folder of", error))?;
        Ok(findings)
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn invalid(attempted: &'static str, path: &Path, what: String) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidData, what);
    Error::Io { attempted, path: path.to_owned(), source }
}

fn shared(dir: &Path) -> Arc<dyn Disk> {
    Arc::new(RealDisk::new(dir))
}
