//! Writes the result of a repair. docs/explanation/design.md has a table of its steps, and of a kill after each.

use std::io::ErrorKind;

use super::plan::{FilePlan, Piece, Plan};
use crate::disk::Disk;
use crate::error::{Context, Result};
use crate::journal::{self, Journal};
use crate::manifest::State;
use crate::mark::{self, Mark, MarkFile};
use crate::quarantine;
use crate::retained::survey::Survey;
use crate::segment;
use crate::spare;

/// Everything that is to be written.
pub(super) struct Intent {
    pub(super) state: State,
    pub(super) plan: Plan,
    pub(super) retained: Survey,
    /// Journals that cannot be opened.
    pub(super) damaged_journals: Vec<String>,
    pub(super) mark_is_damaged: bool,
}

/// Writes it; returns the names in `quarantine/`.
pub(super) fn apply(disk: &dyn Disk, intent: Intent) -> Result<Vec<String>> {
    let Intent { mut state, plan, retained, damaged_journals, mark_is_damaged } = intent;
    for folder in [quarantine::FOLDER, segment::FOLDER, journal::FOLDER] {
        disk.make_folder(folder).during("create", folder)?;
    }
    disk.sync_dir("").during("sync", "the data dir")?;
    let mut moved = Quarantine { disk, names: Vec::new() };
    let rewritten: Vec<_> =
        plan.files.iter().filter(|file| file.is_changed && !file.pieces.is_empty()).collect();
    for file in &rewritten {
        write(disk, file)?;
    }
    for old in plan.files.iter().filter(|file| file.is_damaged).filter_map(|file| file.old.as_ref()) {
        moved.link(old)?;
    }
    if let Some(old) = retained.file().filter(|_| !retained.findings.is_empty()) {
        moved.link(&old)?;
    }
    if mark_is_damaged && disk.exists(mark::PATH).during("look for", mark::PATH)? {
        moved.link(mark::PATH)?;
    }
    disk.sync_dir(quarantine::FOLDER).during("sync", quarantine::FOLDER)?;
    for file in &rewritten {
        let (temporary, name) = (temporary(file), segment::path(file.meta.first));
        disk.rename(&temporary, &name).during("rename", &temporary)?;
    }
    // Files without a readable block are in the quarantine now.
    for old in plan.files.iter().filter(|file| file.is_damaged && file.pieces.is_empty()) {
        if let Some(old) = &old.old {
            disk.remove_file(old).during("remove", old)?;
        }
    }
    disk.sync_dir(segment::FOLDER).during("sync", segment::FOLDER)?;
    state.retained =
        if retained.findings.is_empty() { retained.mark() } else { retained.write_anew(disk)? };

    let db = Journal::prepare(disk, state.journal, 0).during("create", &journal::folder(state.journal))?;
    let (store, number, commit, next_seq) = (state.store, state.journal, state.commit, state.next_seq);
    drop(Journal::begin(disk, db, &state)?);
    for folder in damaged_journals.iter().filter(|folder| is_journal(folder)) {
        moved.rename(folder)?;
    }
    disk.sync_dir(quarantine::FOLDER).during("sync", quarantine::FOLDER)?;
    disk.sync_dir(journal::FOLDER).during("sync", journal::FOLDER)?;
    MarkFile::create(disk, Mark { store, journal: number, commit, next_seq })?;
    if let Some(copy) = spare::encode(&state) {
        spare::write(disk, &copy)?;
    }
    Ok(moved.names)
}

fn is_journal(folder: &str) -> bool {
    folder.rsplit('/').next().and_then(journal::number_of).is_some()
}

fn temporary(file: &FilePlan) -> String {
    format!("{}/.tmp-{:020}", segment::FOLDER, file.meta.first.0)
}

/// Writes a segment's blocks under a temporary name, durably.
fn write(disk: &dyn Disk, file: &FilePlan) -> Result<()> {
    let name = temporary(file);
    let to = disk.create(&name).during("create", &name)?;
    let from = match &file.old {
        Some(old) => Some((disk.open(old, false).during("open", old)?, old)),
        None => None,
    };
    let mut len = 0;
    for piece in &file.pieces {
        let bytes = match (piece, &from) {
            (Piece::Own { at, bytes }, Some((from, old))) => {
                std::borrow::Cow::Owned(from.read_range(*at, *bytes).during("read", old)?)
            }
            (Piece::Journal(bytes), _) => std::borrow::Cow::Borrowed(bytes.as_slice()),
            (Piece::Own { .. }, None) => continue,
        };
        to.write_at(&bytes, len).during("write to", &name)?;
        len += bytes.len() as u64;
    }
    to.sync().during("sync", &name)
}

/// Moves things to `quarantine/`.
struct Quarantine<'a> {
    disk: &'a dyn Disk,
    names: Vec<String>,
}

impl Quarantine<'_> {
    /// Links a file that is about to be replaced. If an interrupted repair has linked it already, that name is used.
    fn link(&mut self, path: &str) -> Result<()> {
        for name in names(path) {
            match self.disk.link(path, &format!("{}/{name}", quarantine::FOLDER)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                other => {
                    self.names.push(name);
                    return other.during("quarantine", path);
                }
            }
        }
        Ok(())
    }

    fn rename(&mut self, path: &str) -> Result<()> {
        for name in names(path) {
            let to = format!("{}/{name}", quarantine::FOLDER);
            if !self.disk.exists(&to).during("look for", &to)? {
                self.names.push(name);
                return self.disk.rename(path, &to).during("quarantine", path);
            }
        }
        Ok(())
    }
}

/// `segments-00000000000000000041`, then the same with a number, for a name that an earlier repair used.
fn names(path: &str) -> impl Iterator<Item = String> {
    let base = path.replace('/', "-");
    (0_u64..).map(move |number| if number == 0 { base.clone() } else { format!("{base}.{number}") })
}
