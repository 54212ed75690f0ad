//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::plain::escape;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its line in the file, from 1; `None` if it is not from a line of the file.
    pub line: Option<usize>,
    /// The key, variable or option: `disk.limit`.
    pub key: String,
    /// The value as written, if it is short and cannot hold a secret.
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
        /// What the system reported.
        source: std::io::Error,
    },
    /// The settings cannot be used. Everything that is wrong with them is here.
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
