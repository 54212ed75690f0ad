//! Symbolic links to files that are followed anyway.
//!
//! With `app.log -> app-2026-01-01.log` in a folder and a glob that matches both, the link is another name of a followed
//! file. It needs no permission to be followed, because it is not: the file is read under its own name. Only the place
//! that the link leads to is looked up, once in each scan; nothing is opened through it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::tail::bytes::leads_below;
use crate::tail::find::{Follows, Globs, Include};

/// The real paths of the fixed folders of all globs, in the order of the globs; `None` for one that is not there.
#[derive(Debug)]
pub(crate) struct RealRoots(Vec<Option<PathBuf>>);

impl RealRoots {
    /// Resolves the fixed folders: one of them may be reached through a link itself.
    pub(crate) fn of(follows: &Follows) -> RealRoots {
        RealRoots(follows.includes().map(|(.., include)| fs::canonicalize(&include.root).ok()).collect())
    }

    /// Whether the globs find the target of a link without the link, or another section may follow the link.
    pub(crate) fn find_without(&self, link: &Path, follows: &Follows) -> bool {
        let (Ok(real), Ok(target)) = (fs::canonicalize(link), fs::metadata(link)) else {
            return false;
        };
        follows.includes().zip(&self.0).any(|((_, globs, include), root)| {
            let below = root.as_ref().and_then(|root| real.strip_prefix(root).ok());
            let is_found = below.is_some_and(|below| {
                let path = include.root.join(below);
                let is_meant = match target.is_dir() {
                    true => include.walks(below),
                    false => include.whole.is_match(&path) && !globs.is_excluded(&path),
                };
                let is_read = target.is_dir() || target.is_file() || include.literal;
                is_meant && is_read && !follows.is_never(&path)
            });
            is_found || may_follow(globs, include, link)
        })
    }
}

/// Whether this section follows the link itself, as its `symlinks` allows.
fn may_follow(globs: &Globs, include: &Include, link: &Path) -> bool {
    let is_named = || include.whole.is_match(link) && !globs.is_excluded(link);
    globs.follow.symlinks.as_deref().is_some_and(|root| is_named() && leads_below(root, link).is_some())
}

impl Include {
    /// Whether a scan lists this folder, given from the fixed folder on.
    fn walks(&self, below: &Path) -> bool {
        let mut folder = self.root.clone();
        below.components().enumerate().all(|(depth, part)| {
            folder.push(part);
            self.descends(depth, &folder)
        })
    }
}
