//! What to follow, and how.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Time between two scans by default: how long a line waits if no event reports it. With 10,000 files it takes about 2 % of
/// one core.
pub const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// `max_line_bytes` by default.
const MAX_LINE_BYTES: usize = 8 * 1_024 * 1_024;
/// `rotate_wait` by default: writers that were asked to reopen their log have done so by then.
const ROTATE_WAIT: Duration = Duration::from_secs(60);

/// Where a file is first read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// Its beginning.
    #[default]
    Beginning,
    /// Its end, for files that exist at the first start of the store; others from their beginning.
    End,
}

/// The include that names standard input. A file of that name is `./-`.
pub const STDIN: &str = "-";

/// One `[[follow]]` section: globs, and how the files are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Absolute globs; `*` and `?` do not match `/`, `**` does. [`STDIN`] is standard input.
    pub include: Vec<String>,
    /// Globs for names or whole paths that are left out.
    pub exclude: Vec<String>,
    /// Where files are first read from.
    pub from: From,
    /// Longer lines are cut into marked parts of this size; at most
    /// [`BlockBuilder::LINE_BYTES_MAX`](spillq_storage::BlockBuilder::LINE_BYTES_MAX).
    pub max_line_bytes: usize,
    /// How long a rotated or deleted file must be quiet before its source ends.
    pub rotate_wait: Duration,
    /// Names and values that every line of these files gets.
    pub labels: BTreeMap<String, String>,
    /// Symbolic links are followed if they end below this folder; without it, none are.
    pub symlinks: Option<PathBuf>,
}

impl Follow {
    /// Whether standard input is followed.
    pub(crate) fn has_input(&self) -> bool {
        self.include.iter().any(|include| include == STDIN)
    }

    /// The includes that name files.
    pub(crate) fn globs(&self) -> impl Iterator<Item = &String> {
        self.include.iter().filter(|glob| *glob != STDIN)
    }

    /// These globs with the defaults.
    #[must_use]
    pub fn new(include: Vec<String>) -> Follow {
        Follow {
            include,
            exclude: Vec::new(),
            from: From::Beginning,
            max_line_bytes: MAX_LINE_BYTES,
            rotate_wait: ROTATE_WAIT,
            labels: BTreeMap::new(),
            symlinks: None,
        }
    }
}

/// What to follow, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The sections. A file that two of them name belongs to the first.
    pub follows: Vec<Follow>,
    /// Files and folders that are never followed: the data dir, the log, outputs.
    pub never: Vec<PathBuf>,
    /// Time between two scans.
    pub scan_interval: Duration,
    /// Read to the end, then end.
    pub once: bool,
    /// The store was just created; see [`From::End`].
    pub first_start: bool,
}
