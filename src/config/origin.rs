//! Where settings came from.

use std::collections::BTreeMap;
use std::fmt;

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
