//! What is followed: the settings, and the globs ready to match.

use std::path::{Path, PathBuf};

use spillq_storage::BlockBuilder;

use crate::tail::bytes::open::Way;
use crate::tail::error::TailError;
use crate::tail::find::walk::Discover;
use crate::tail::settings::{Follow, From};

/// Sections: a source names its own in 16 bits.
const FOLLOWS_MAX: usize = 1_000;

/// Sections that were checked, to be followed by a tail that runs.
#[derive(Debug)]
pub struct Follows {
    follows: Vec<Follow>,
    discover: Discover,
}

impl Follows {
    /// Checks them; `never` as in [`crate::tail::Settings`].
    ///
    /// # Errors
    /// If they do not make sense.
    pub fn new(follows: Vec<Follow>, never: &[PathBuf]) -> Result<Follows, TailError> {
        check(&follows)?;
        let of = |one: &Follow| (one.include.clone(), one.exclude.clone(), one.symlinks.clone());
        let globs: Vec<_> = follows.iter().map(of).collect();
        let globs = globs.iter().map(|(include, exclude, symlinks)| {
            (include.as_slice(), exclude.as_slice(), symlinks.as_deref())
        });
        let discover = Discover::new(globs, never)?;
        Ok(Follows { follows, discover })
    }

    pub(crate) fn discover(&self) -> &Discover {
        &self.discover
    }

    /// Which section names a file, if one does.
    pub(crate) fn names(&self, path: &Path) -> Option<u16> {
        self.discover.names(path)
    }

    /// How a file is opened that a walk found, for the section that names it.
    pub(crate) fn way<'a>(&'a self, section: Option<u16>, path: &Path) -> Way<'a> {
        self.discover.way(section, path)
    }

    /// The section that follows standard input, if one does.
    pub(crate) fn of_input(&self) -> Option<&Follow> {
        self.follows.iter().find(|follow| follow.reads_input())
    }

    pub(crate) fn line_max(&self, section: u16) -> usize {
        self.get(section).map_or(1, |follow| follow.max_line_bytes)
    }

    pub(crate) fn rotate_wait_ms(&self, section: u16) -> u64 {
        self.get(section).map_or(0, |follow| follow.rotate_wait.as_millis() as u64)
    }

    pub(crate) fn begins_at_end(&self, section: Option<u16>) -> bool {
        section.and_then(|section| self.get(section)).is_some_and(|follow| follow.from == From::End)
    }

    fn get(&self, section: u16) -> Option<&Follow> {
        self.follows.get(usize::from(section))
    }
}

fn check(follows: &[Follow]) -> Result<(), TailError> {
    if follows.len() > FOLLOWS_MAX {
        return Err(TailError::Follows(follows.len()));
    }
    for follow in follows {
        if !(1..=BlockBuilder::LINE_BYTES_MAX).contains(&follow.max_line_bytes) {
            return Err(TailError::LineBytes {
                found: follow.max_line_bytes,
                max: BlockBuilder::LINE_BYTES_MAX,
            });
        }
    }
    Ok(())
}
