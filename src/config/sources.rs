//! What settings are read from, and where each came from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
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

/// Where one setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// This line of the file.
    File(usize),
    /// This variable.
    Environment(String),
    /// This option.
    CommandLine(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(line) => write!(f, "file, line {line}"),
            Origin::Environment(variable) => write!(f, "environment, {variable}"),
            Origin::CommandLine(option) => write!(f, "command line, {option}"),
        }
    }
}

/// Where each setting came from, by path: `disk.limit`, `group[0].batch.lines`.
#[derive(Clone, Debug, Default)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    pub(super) fn set(&mut self, path: String, origin: Origin) {
        self.0.insert(path, origin);
    }

    /// Where the setting of that path came from.
    #[must_use]
    pub fn of(&self, path: &str) -> Origin {
        self.0.get(path).cloned().unwrap_or(Origin::Default)
    }

    /// The line of the file that the setting of that path came from.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        match self.0.get(path) {
            Some(Origin::File(line)) => Some(*line),
            _ => None,
        }
    }
}
