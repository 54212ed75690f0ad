//! The globs of a `[[follow]]`: which files they name, and which folders a scan lists for them. Pure.

use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobMatcher};

use crate::globs::{Excluded, over_path};
use crate::tail::error::TailError;
use crate::tail::settings::Follow;

/// Folders behind `**` that are walked: deeper ones are more likely a loop than logs.
pub(crate) const DEPTH_MAX: usize = 32;

/// One `[[follow]]` with its globs ready to match.
#[derive(Debug)]
pub(crate) struct Globs {
    pub(crate) follow: Follow,
    pub(crate) includes: Vec<Include>,
    exclude: Excluded,
}

/// One glob: a fixed folder, and a pattern for each level below it.
#[derive(Debug)]
pub(crate) struct Include {
    pub(crate) root: PathBuf,
    /// For the levels before `**`; the last is the file's own name.
    levels: Vec<GlobMatcher>,
    /// Any depth behind the levels.
    any_depth: bool,
    pub(crate) whole: GlobMatcher,
    /// The file's own name has no wildcard: anything but a file there is reported.
    pub(crate) literal_name: bool,
    /// Nothing of it is a wildcard: a FIFO there is meant. A FIFO that a wildcard matches may belong to another reader, and
    /// reading from it would take the bytes away.
    pub(crate) literal: bool,
}

impl Globs {
    pub(crate) fn new(follow: Follow) -> Result<Globs, TailError> {
        let includes = follow.globs().map(|glob| Include::new(glob)).collect::<Result<_, _>>()?;
        Ok(Globs { includes, exclude: excluded(&follow.exclude)?, follow })
    }

    /// An exclude applies to the name, or, with a slash in it, to the whole path.
    pub(crate) fn is_excluded(&self, path: &Path) -> bool {
        self.exclude.has(path)
    }
}

impl Include {
    fn new(glob: &str) -> Result<Include, TailError> {
        let wrong = |found: &str| TailError::Glob { glob: glob.to_owned(), found: found.to_owned() };
        let path = Path::new(glob);
        if !path.is_absolute() {
            return Err(TailError::Relative(glob.to_owned()));
        }
        let mut parts: Vec<&str> = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(part) => parts.extend(part.to_str()),
                Component::RootDir => {}
                _ => return Err(wrong("`..` is not supported in a glob")),
            }
        }
        if parts.is_empty() || glob.ends_with('/') {
            return Err(wrong("names a folder, not files"));
        }
        // An alternative with a slash in it spans levels: from there on no folder is skipped.
        let braces = glob.find('{').is_some_and(|open| glob[open..].contains('/'));
        let last = parts.len() - 1;
        let fixed = parts.iter().take(last).take_while(|part| !is_wild(part)).count();
        let mut root = PathBuf::from("/");
        root.extend(parts.iter().take(fixed));
        let below = parts.get(fixed..).unwrap_or_default();
        let spans = |part: &&&str| part.contains("**") || braces && part.contains(['{', '}', ',']);
        let any_depth = below.iter().any(|part| spans(&part));
        let levels = below
            .iter()
            .take_while(|part| !spans(part))
            .map(|part| Ok(literal_separator(part, glob)?.compile_matcher()))
            .collect::<Result<_, TailError>>()?;
        let clean = format!("/{}", parts.join("/"));
        Ok(Include {
            root,
            levels,
            any_depth,
            whole: literal_separator(&clean, glob)?.compile_matcher(),
            literal_name: parts.last().is_some_and(|name| !is_wild(name)),
            literal: is_literal(glob),
        })
    }

    /// Whether the glob names a file at `depth` below the root that a walk found. The folders above were matched on the way, so
    /// the last part alone decides: an idle scan spends its time here.
    pub(crate) fn names(&self, depth: usize, path: &Path) -> bool {
        match self.levels.last() {
            Some(last) if !self.any_depth => {
                depth + 1 == self.levels.len() && path.file_name().is_some_and(|name| last.is_match(name))
            }
            _ => self.whole.is_match(path),
        }
    }

    /// Whether the folder `path`, at `depth` below the root, can hold files that the glob names.
    pub(crate) fn descends(&self, depth: usize, path: &Path) -> bool {
        match self.levels.get(depth) {
            // The last level is the file's own name, not a folder's.
            Some(level) => {
                (self.any_depth || depth + 1 < self.levels.len())
                    && path.file_name().is_some_and(|name| level.is_match(name))
            }
            None => self.any_depth && depth < self.levels.len() + DEPTH_MAX,
        }
    }

    /// Whether nothing but its depth keeps a folder at `depth` from being walked.
    pub(crate) fn is_too_deep(&self, depth: usize) -> bool {
        self.any_depth && depth >= self.levels.len() + DEPTH_MAX
    }
}

fn is_wild(part: &str) -> bool {
    part.contains(['*', '?', '[', '{', '\\'])
}

/// Whether it names one path: a single character in brackets matches itself, as in the folder of a configuration that globs
/// are relative to.
fn is_literal(glob: &str) -> bool {
    let mut rest = glob;
    while let Some(at) = rest.find(['*', '?', '[', '{', '\\']) {
        let mut chars = rest.get(at..).unwrap_or_default().chars();
        if (chars.next(), chars.next().is_some(), chars.next()) != (Some('['), true, Some(']')) {
            return false;
        }
        rest = chars.as_str();
    }
    true
}

fn literal_separator(pattern: &str, glob: &str) -> Result<Glob, TailError> {
    over_path(pattern).map_err(|found| TailError::Glob { glob: glob.to_owned(), found })
}

fn excluded(globs: &[String]) -> Result<Excluded, TailError> {
    Excluded::new(globs).map_err(|found| TailError::Glob { glob: globs.join(", "), found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_globs_are_refused() {
        for glob in ["relative/*", "/a/[", "/a/../b", "/a/"] {
            assert!(Include::new(glob).is_err(), "{glob}");
        }
    }
}
