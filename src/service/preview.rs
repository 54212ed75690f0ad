//! Checks settings against the files that exist now: for `config check`, and before a start that would be useless.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::{Kind, Settings};
use crate::http::ConsumerSockets;
use crate::plain::{counted, escape_path};
use crate::queue::GroupSettings;
use crate::secret::Secret;
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
    found.extend(without_lines(settings, &files));
    found.extend(unusable_sockets(settings));
    for processor in &settings.processors {
        if let Some(why) = command_missing(&processor.kind) {
            found.push(format!("the command of group {} cannot be run: {why}", processor.group));
        }
    }
    Ok(found)
}

/// Groups over some sources that get no lines of the files that are followed now, and files whose lines no group gets.
///
/// # Errors
/// As [`preview`].
pub(super) fn preview_of_groups(settings: &Settings) -> Result<Vec<String>, TailError> {
    if settings.groups.iter().all(|group| group.sources.is_all()) {
        return Ok(Vec::new());
    }
    let globs = tail::preview(&settings.follow, &super::build::never(settings))?;
    Ok(without_lines(settings, &globs.into_iter().flat_map(|glob| glob.paths).collect()))
}

fn without_lines(settings: &Settings, files: &BTreeSet<PathBuf>) -> Vec<String> {
    if files.is_empty() || settings.groups.is_empty() {
        return Vec::new();
    }
    let gets = |group: &GroupSettings, path: &PathBuf| group.sources.has(path).unwrap_or(true);
    let empty = settings.groups.iter().filter(|group| !files.iter().any(|path| gets(group, path)));
    let empty = empty.map(|group| {
        let files = counted(files.len() as u64, "file");
        format!(
            "group {} gets the lines of none of the {files} that are followed: see its include and exclude",
            group.name
        )
    });
    let lost: Vec<_> =
        files.iter().filter(|path| !settings.groups.iter().any(|group| gets(group, path))).collect();
    let lost = lost.first().map(|first| {
        let all = counted(lost.len() as u64, "followed file");
        format!(
            "no group gets the lines of {all}, such as {}: see include and exclude of the groups",
            escape_path(first)
        )
    });
    empty.chain(lost).collect()
}

/// What keeps consumers from being served. Variables are those of the service, which are not known here.
fn unusable_sockets(settings: &Settings) -> Vec<String> {
    let consumers = &settings.consumers;
    let folder = |path: &&Path| path.parent().is_some_and(|folder| !folder.is_dir());
    let unix = consumers.unix();
    let mut found: Vec<String> = unix
        .iter()
        .map(PathBuf::as_path)
        .filter(folder)
        .map(|path| format!("the socket {} cannot be made: its folder does not exist", escape_path(path)))
        .collect();
    if let Some(group) = consumers.socket_group.as_deref().filter(|_| !unix.is_empty()) {
        found.extend(
            ConsumerSockets::group(group).err().map(|error| format!("consumers.socket_group: {error}")),
        );
    }
    let tokens = settings.groups.iter().filter_map(|group| group.token.as_ref()).chain(&consumers.token);
    let files = tokens.filter(|token| matches!(token, Secret::File(_)));
    found.extend(
        files.filter_map(|token| token.read().err()).map(|error| format!("a token of consumers: {error}")),
    );
    found
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
