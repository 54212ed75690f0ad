//! What is followed: the sections with their globs ready to match, and what is never followed.

use std::fs;
use std::path::{Path, PathBuf};

use spillq_storage::BlockBuilder;

use crate::tail::bytes::Way;
use crate::tail::error::TailError;
use crate::tail::find::{Globs, Include};
use crate::tail::settings::{Follow, From};

/// Sections: a source names its own in 16 bits.
const FOLLOWS_MAX: usize = 1_000;

/// A glob with its section, and the number of that.
pub(crate) type OfSection<'a> = (u16, &'a Globs, &'a Include);

/// Sections that were checked, to be followed by a tail that runs.
#[derive(Debug)]
pub struct Follows {
    sections: Vec<Globs>,
    pub(super) never: Vec<PathBuf>,
}

impl Follows {
    /// Checks them; `never` as in [`crate::tail::Settings`].
    ///
    /// # Errors
    /// If they do not make sense.
    pub fn new(follows: Vec<Follow>, never: &[PathBuf]) -> Result<Follows, TailError> {
        check(&follows)?;
        Follows::of_globs(follows, never)
    }

    /// The same, of which only the globs are checked.
    pub(crate) fn of_globs(follows: Vec<Follow>, never: &[PathBuf]) -> Result<Follows, TailError> {
        let sections = follows.into_iter().map(Globs::new).collect::<Result<_, _>>()?;
        let mut never = never.to_vec();
        // The same under the name that a walk from the real folder finds.
        never.extend(never.clone().iter().filter_map(|path| fs::canonicalize(path).ok()));
        Ok(Follows { sections, never })
    }

    /// Which section names a file, if one does.
    pub(crate) fn names(&self, path: &Path) -> Option<u16> {
        let at = self.sections.iter().position(|globs| {
            !globs.is_excluded(path) && globs.includes.iter().any(|include| include.whole.is_match(path))
        })?;
        (!self.is_never(path)).then_some(at as u16)
    }

    /// The section of a source by the path under which it is followed, whether or not it is there still.
    #[must_use]
    pub fn section_of(&self, path: &Path) -> Option<&Follow> {
        // Standard input is the only source whose name is no path.
        if !path.is_absolute() {
            return self.of_input();
        }
        self.get(self.names(path)?)
    }

    pub(crate) fn is_never(&self, path: &Path) -> bool {
        self.never.iter().any(|never| path.starts_with(never))
    }

    /// All globs in their order.
    pub(crate) fn includes(&self) -> impl Iterator<Item = OfSection<'_>> {
        let sections = self.sections.iter().zip(0..);
        sections.flat_map(|(globs, number)| globs.includes.iter().map(move |one| (number, globs, one)))
    }

    /// How a file is opened that a walk found, for the section that names it.
    pub(crate) fn way<'a>(&'a self, section: Option<u16>, path: &Path) -> Way<'a> {
        if let Some(root) = section.and_then(|at| self.get(at)?.symlinks.as_deref()) {
            return Way::Links(root);
        }
        let roots = self.includes().map(|(.., include)| include.root.as_path());
        // A path of a record that no glob names any more is opened without any link.
        let root = roots.filter(|root| path.starts_with(root)).max_by_key(|root| root.as_os_str().len());
        Way::Straight(root.unwrap_or(Path::new("/")))
    }

    /// The section that follows standard input, if one does.
    pub(crate) fn of_input(&self) -> Option<&Follow> {
        self.sections.iter().map(|globs| &globs.follow).find(|follow| follow.has_input())
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
        self.sections.get(usize::from(section)).map(|globs| &globs.follow)
    }
}

fn check(follows: &[Follow]) -> Result<(), TailError> {
    if follows.len() > FOLLOWS_MAX {
        return Err(TailError::Follows(follows.len()));
    }
    let max = BlockBuilder::LINE_BYTES_MAX;
    match follows.iter().map(|follow| follow.max_line_bytes).find(|found| !(1..=max).contains(found)) {
        Some(found) => Err(TailError::LineBytes { found, max }),
        None => Ok(()),
    }
}
