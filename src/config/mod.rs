//! The configuration: what was written, checked, with every default filled.
//!
//! Two stages. As written: a TOML file whose unknown keys are refused, and `SPILLQ_...` variables. Checked:
//! [`Settings`], plain data. All problems are found in one go, each with its line, key, value and what is
//! expected. Precedence: command line, environment, file, default.
//!
//! **Variables.** A setting outside the repeated sections (`[[follow]]`, `[[group]]`, `[[processor]]`) that is no
//! list can be overridden by `SPILLQ_` and its key in capitals, with `_` for the dot: `disk.limit` by
//! `SPILLQ_DISK_LIMIT`, `data_dir` by `SPILLQ_DATA_DIR`. Relative paths in variables are relative to the
//! working directory; an empty variable counts as not set.
//!
//! This is the only module that reads configuration; it never creates, opens or looks up what the settings name.

mod again;
mod check;
mod destination;
mod paths;
mod processor;
mod read;
mod scalar;
mod server;
mod settings;
mod show;
mod value;
mod written;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::plain::escape;

pub use again::{Again, Change, load_again};
pub use destination::{Compression, Destination, Format, SecretAt, Url};
pub use server::{Place, Server};
pub use settings::{
    BatchLimits, DEFAULT_DATA_DIR, DEFAULT_GROUP, Disk, DumpSignal, Follow, GIB, Group, Http, IN_FLIGHT_MAX,
    Input, KIB, Keep, Kind, LEASED_BYTES_MAX, LagPolicy, Listen, MIB, MaxLag, OnDamage, Order, Processor,
    Retry, SECTIONS_MAX, STDIN, Service, Settings, Start, Stream, Stuck, Surroundings, Table, WhenFull,
    Window, Word,
};
pub use show::{as_json, as_toml};
pub use value::{duration_text, parse_duration, parse_size, size_text};

/// The documented configuration file, every key with its default.
pub const DOCUMENTED: &str = include_str!("../../config/spillq.toml");
/// A longer configuration file is a mistake, a log for example.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file; without one the defaults hold.
    pub file: Option<PathBuf>,
    /// The working directory, absolute: what is not in the file is relative to it.
    pub working_dir: PathBuf,
    /// The variables that begin with `SPILLQ_`, see [`environment`].
    pub environment: BTreeMap<String, String>,
    /// What the command line says.
    pub overrides: Overrides,
}

/// What the command line says; it wins over all else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--follow`: instead of the file's `[[follow]]` sections.
    pub follow: Vec<String>,
    /// `--from`, for everything that is followed.
    pub from: Option<Start>,
    /// `--group`: the one that `command` serves; added where the file does not name it.
    pub group: Option<String>,
    /// `-- COMMAND ARG...`: instead of the processor that the file gives the group.
    pub command: Vec<OsString>,
}

/// Checked settings, and where they came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Where each came from that is not a default.
    pub origins: Origins,
    /// What is odd but works, one sentence each.
    pub warnings: Vec<String>,
    /// The content of the file.
    pub text: String,
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
    fn set(&mut self, path: String, origin: Origin) {
        self.0.insert(path, origin);
    }

    /// Where the setting of that path came from.
    #[must_use]
    pub fn of(&self, path: &str) -> Origin {
        self.0.get(path).cloned().unwrap_or(Origin::Default)
    }

    fn line(&self, path: &str) -> Option<usize> {
        match self.0.get(path) {
            Some(Origin::File(line)) => Some(*line),
            _ => None,
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its line in the file, from 1; `None` where it is not from a line of the file.
    pub line: Option<usize>,
    /// The key, variable or option: `disk.limit`.
    pub key: String,
    /// The value as written, where there is a short one.
    pub value: Option<String>,
    /// What is wrong with it, and what is expected.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        let Problem { key, value, expected, .. } = self;
        let value = value.as_ref().map(|value| format!(" = {value}")).unwrap_or_default();
        f.write_str(&escape(&format!("{key}{value}: {expected}")))
    }
}

/// Why there are no settings.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read; nothing was checked.
    #[error("cannot read the configuration {}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The settings are not usable. All that is wrong with them is here.
    #[error("{}: {}", whose(.file), counted(.problems.len()))]
    Problems {
        /// The file, if there is one.
        file: Option<PathBuf>,
        /// In the order of the file, at least one.
        problems: Vec<Problem>,
    },
}

fn whose(file: &Option<PathBuf>) -> String {
    file.as_ref().map_or_else(|| "the settings".to_owned(), |file| file.display().to_string())
}

fn counted(problems: usize) -> String {
    format!("{problems} {}", if problems == 1 { "problem" } else { "problems" })
}

/// The `SPILLQ_...` variables of this process. Bytes that are not UTF-8 are replaced, and then refused by the
/// setting's own check.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(written::VARIABLE_PREFIX))
        .collect()
}

/// Reads and checks the settings.
///
/// # Errors
/// [`ConfigError::Read`] when the file cannot be read, [`ConfigError::Problems`] with all that is wrong.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    load_from(&read_text(sources)?, sources)
}

/// The content of the configuration file; empty without one.
///
/// # Errors
/// [`ConfigError::Read`] when it cannot be read.
pub fn read_text(sources: &Sources) -> Result<String, ConfigError> {
    let Some(file) = &sources.file else { return Ok(String::new()) };
    read_file(&sources.working_dir.join(file))
        .map_err(|source| ConfigError::Read { file: file.clone(), source })
}

/// What [`load`] does with a file whose content is `text`, for the fuzz target.
///
/// # Errors
/// [`ConfigError::Problems`].
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn load_given(text: &str, sources: &Sources) -> Result<Loaded, ConfigError> {
    load_from(text, sources)
}

/// Checks the settings, where `text` is the content of the file.
fn load_from(text: &str, sources: &Sources) -> Result<Loaded, ConfigError> {
    let folder = sources.file.as_ref().map_or_else(
        || sources.working_dir.clone(),
        |file| {
            let whole = paths::normal(&sources.working_dir.join(file));
            whole.parent().map_or_else(|| whole.clone(), Path::to_path_buf)
        },
    );
    load_text(text, &folder, sources).map_err(|mut problems| {
        // What is in no line comes last; the sort keeps the order of discovery within a line.
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        ConfigError::Problems { file: sources.file.clone(), problems }
    })
}

fn read_file(file: &Path) -> std::io::Result<String> {
    let bytes = std::fs::metadata(file)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!(
            "{bytes} bytes where at most {FILE_BYTES_MAX} make sense"
        )));
    }
    std::fs::read_to_string(file)
}

fn load_text(text: &str, folder: &Path, sources: &Sources) -> Result<Loaded, Vec<Problem>> {
    let (table, syntax) = toml::de::DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        return Err(syntax.iter().map(|error| syntax_problem(text, error)).collect());
    }
    let mut reader = written::Reader::new(text, &sources.environment);
    let bases = read::Bases { folder, working_dir: &sources.working_dir };
    let mut settings = read::settings(&mut reader, table.get_ref(), bases);
    read::overrides(&mut reader, &mut settings, &sources.overrides, &sources.working_dir);
    let mut warnings = reader.suspicious_variables();
    let (mut problems, origins) = (reader.problems, reader.origins);
    problems.extend(check::problems(&settings, &origins));
    if !problems.is_empty() {
        return Err(problems);
    }
    warnings.extend(check::fit_leases(&mut settings, &origins));
    warnings.extend(check::open_secrets(&settings));
    warnings.extend(check::tiny_min_free(&settings));
    Ok(Loaded { settings, origins, warnings, text: text.to_owned() })
}

fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    let at = error.span().map_or(0, |span| span.start);
    let (line, column) = written::line_and_column(text, at);
    Problem {
        line: Some(line),
        key: format!("column {column}"),
        value: None,
        expected: format!("not TOML: {}", error.message().replace('\n', ", ")),
    }
}

#[cfg(test)]
mod tests;
