//! What settings are read from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::tail::From;

/// The variables that override settings begin with this.
pub(super) const VARIABLE_PREFIX: &str = "SPILLQ_";

/// What settings are read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file; without one the defaults apply.
    pub file: Option<PathBuf>,
    /// The working directory, absolute: paths outside of the file are relative to it.
    pub working_dir: PathBuf,
    /// The variables that begin with `SPILLQ_`, see [`environment`].
    pub environment: BTreeMap<String, String>,
    /// The command line.
    pub overrides: Overrides,
}

/// The settings on the command line, which override all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--follow`: replaces the `[[follow]]` sections of the file.
    pub follow: Vec<String>,
    /// `--from`, for everything that is followed.
    pub from: Option<From>,
    /// `--group`: the one that `command` serves; added if the file does not name it.
    pub group: Option<String>,
    /// `-- COMMAND ARG...`: replaces the processor that the file gives the group.
    pub command: Vec<OsString>,
}

/// The `SPILLQ_...` variables of this process. Bytes that are not UTF-8 are replaced; the check of the setting then
/// refuses them.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
        .collect()
}
