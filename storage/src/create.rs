//! The folders of a store: how they are made and cleaned up, and how a folder that is not a store is detected.

use std::io;
use std::path::Path;

use crate::disk::Disk;
use crate::error::{Context, Error, Result};
use crate::ids::StoreId;
use crate::journal;
use crate::manifest::State;
use crate::recover::CREATING;
use crate::retained::Retained;
use crate::segment;

/// What a data dir may contain before it is a store.
const OWN_NAMES: [&str; 4] = ["LOCK", "spillq.sock", "EVENTS", "lost+found"];

/// Makes the folders of a new store. Until MARK exists, CREATING shows that the store had no lines yet.
pub(crate) fn create(disk: &dyn Disk) -> Result<State> {
    disk.create(CREATING).during("create", CREATING)?.sync().during("sync", CREATING)?;
    disk.sync_dir("").during("sync", "the data dir")?;
    for folder in [journal::FOLDER, segment::FOLDER] {
        disk.remove_folder(folder).during("remove", folder)?;
        disk.make_folder(folder).during("create", folder)?;
    }
    Retained::create(disk)?;
    disk.sync_dir("").during("sync", "the data dir")?;
    Ok(State::new(StoreId(random_id())))
}

/// A random number: the keys of the standard library's hash come from the operating system.
pub(crate) fn random_id() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// Removes what earlier runs left in `journal/`: unfinished journals, copies and old journals.
pub(crate) fn remove_other_journals(disk: &dyn Disk, current: u64) -> Result<()> {
    for name in disk.list(journal::FOLDER).during("list", journal::FOLDER)? {
        let path = format!("{}/{name}", journal::FOLDER);
        match journal::number_of(&name) {
            Some(number) if number == current => {}
            Some(_) => remove_journal(disk, &path)?,
            None => disk.remove_folder(&path).during("remove", &path)?,
        }
    }
    Ok(())
}

pub(crate) fn remove_journal(disk: &dyn Disk, folder: &str) -> Result<()> {
    // Renamed first, so that a crash does not leave half a journal under a name that is read.
    let trash = format!("{}/.trash-{}", journal::FOLDER, folder.rsplit('/').next().unwrap_or_default());
    disk.remove_folder(&trash).during("remove", &trash)?;
    disk.rename(folder, &trash).during("rename", folder)?;
    disk.sync_dir(journal::FOLDER).during("sync", journal::FOLDER)?;
    disk.remove_folder(&trash).during("remove", &trash)
}

/// Refuses a folder that holds something other than a store.
pub(crate) fn refuse_foreign(dir: &Path) -> Result<()> {
    let io = |source| Error::Io { attempted: "list", path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if is_nothing(&error) => return Ok(()),
        entries => entries.map_err(io)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
    }
    let ours = names.iter().any(|name| ["MARK", CREATING, journal::FOLDER].contains(&name.as_str()));
    let foreign: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !OWN_NAMES.contains(name)).take(5).collect();
    if ours || foreign.is_empty() {
        return Ok(());
    }
    Err(Error::NotAStore { path: dir.to_owned(), found: foreign.join(", ") })
}

/// Refuses a folder without a store.
pub(crate) fn refuse_absent(dir: &Path) -> Result<()> {
    refuse_foreign(dir)?;
    if holds(dir, "MARK")? || holds(dir, journal::FOLDER)? {
        return Ok(());
    }
    Err(Error::Missing { path: dir.to_owned() })
}

/// Whether `dir` has an entry of that name. An error of the disk is returned: it is neither yes nor no.
pub(crate) fn holds(dir: &Path, name: &str) -> Result<bool> {
    let path = dir.join(name);
    match path.try_exists() {
        Err(error) if is_nothing(&error) => Ok(false),
        exists => exists.map_err(|source| Error::Io { attempted: "look for", path, source }),
    }
}

/// The path does not exist, or a part of it is a file.
fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
