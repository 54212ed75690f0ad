//! Globs over whole paths, as `[[follow]]` and `[[group]]` have them: `*` stops at a slash, `**` does not.

use std::path::Path;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// One glob over a whole path.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn over_path(glob: &str) -> Result<Glob, String> {
    GlobBuilder::new(glob).literal_separator(true).build().map_err(|error| error.kind().to_string())
}

/// Excluded paths: a glob with a slash applies to the whole path, one without to the name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Excluded(GlobSet);

impl Excluded {
    /// Of these globs.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn new(globs: &[String]) -> Result<Excluded, String> {
        set(globs).map(Excluded)
    }

    /// Whether one of them has this path.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.0.is_match(path) || path.file_name().is_some_and(|name| self.0.is_match(name))
    }
}

/// A set of globs over whole paths.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn set(globs: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(over_path(glob)?);
    }
    set.build().map_err(|error| error.kind().to_string())
}
