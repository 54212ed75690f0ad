//! Checks settings against the files that exist now: for `config check`, and before a start that would be useless.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::{Kind, Settings};
use crate::plain::counted;
use crate::supervise::ProgramFile;
use crate::tail::{self, TailError};

/// What would not work now, a sentence each. It may work when the service starts.
///
/// # Errors
/// When no start would work: a glob is not valid.
pub fn preview(settings: &Settings) -> Result<Vec<String>, TailError> {
    let mut found = Vec::new();
    let mut files = BTreeSet::new();
    for glob in tail::preview(&settings.follow, &super::build::never(settings))? {
        files.extend(glob.paths);
        if glob.files == 0 && glob.refused.is_empty() {
            found.push(format!("include {:?} matches no file yet", glob.include));
        }
        // A file that two globs name is one problem.
        let new: Vec<_> = glob.refused.into_iter().filter(|one| !found.contains(one)).collect();
        found.extend(new);
    }
    for group in settings.groups.iter().filter(|group| !group.sources.include.is_empty()) {
        let is_own = |path: &PathBuf| group.sources.has(path).unwrap_or(true);
        if !files.is_empty() && !files.iter().any(is_own) {
            found.push(format!(
                "group {} gets the lines of none of the {} that are followed: see its include and exclude",
                group.name,
                counted(files.len() as u64, "file")
            ));
        }
    }
    for processor in &settings.processors {
        if let Some(why) = command_missing(&processor.kind) {
            found.push(format!("the command of group {} cannot be run: {why}", processor.group));
        }
    }
    Ok(found)
}

/// Why the command of a processor cannot be run, as far as its file shows.
#[must_use]
pub fn command_missing(kind: &Kind) -> Option<String> {
    program_file(kind)?.missing()
}

/// The program of a command.
pub(super) fn program_file(kind: &Kind) -> Option<ProgramFile> {
    match kind {
        Kind::Exec(to) | Kind::ExecStream(to) => Some(ProgramFile {
            program: to.command.first()?.to_string_lossy().into_owned(),
            path: to.env.get("PATH").cloned(),
            cwd: to.cwd.clone(),
        }),
        _ => None,
    }
}
