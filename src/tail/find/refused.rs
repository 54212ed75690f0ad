//! Files and folders that cannot be followed: at most 100 with the reason, and the number of all.
//!
//! A glob may match half a million links, or files without permission. Those that are not named take 8 bytes each.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::path::{Path, PathBuf};

use crate::unreadable::{Unreadable, WhyUnreadable};

/// As many as are named with the reason: more than a person reads.
const NAMED_MAX: usize = 100;

/// What one scan could not follow.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    named: BTreeMap<PathBuf, Unreadable>,
    /// Hashes of the other paths: several globs may find the same one.
    others: Vec<u64>,
}

impl Refused {
    /// Adds one. `found` is called only if it is going to be named.
    pub(crate) fn add(&mut self, path: &Path, why: WhyUnreadable, found: impl FnOnce() -> String) {
        if self.named.len() < NAMED_MAX || self.named.contains_key(path) {
            self.named.entry(path.to_owned()).or_insert_with(|| Unreadable { why, found: found() });
        } else {
            self.others.push(hash(path));
        }
    }

    /// Adds those of another part of the same scan.
    pub(crate) fn extend(&mut self, other: Refused) {
        for (path, Unreadable { why, found }) in other.named {
            self.add(&path, why, || found);
        }
        self.others.extend(other.others);
    }

    /// The scan is over: each counts once.
    pub(crate) fn close(&mut self) {
        self.others.sort_unstable();
        self.others.dedup();
        self.others.shrink_to_fit();
    }

    /// Those with a reason, by path.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&PathBuf, &Unreadable)> {
        self.named.iter()
    }

    /// How many there are beyond those that are named.
    pub(crate) fn unnamed(&self) -> usize {
        self.others.len()
    }

    /// How many there are.
    pub(crate) fn files(&self) -> usize {
        self.named.len() + self.others.len()
    }

    /// Those named here that `before` did not have. If there are more than can be named, it is not known which are new.
    pub(crate) fn new_since<'a>(
        &'a self,
        before: &'a Refused,
    ) -> impl Iterator<Item = (&'a PathBuf, &'a Unreadable)> {
        let is_known = |path: &PathBuf, why: &Unreadable| {
            !before.others.is_empty() || before.named.get(path) == Some(why)
        };
        self.named.iter().filter(move |(path, why)| !is_known(path, why))
    }
}

/// The same for the same value as long as the process runs: what stands for a file of which there may be millions.
pub(crate) fn hash(value: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::new().hash_one(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(paths: impl Iterator<Item = usize>) -> Refused {
        let mut refused = Refused::default();
        for nth in paths {
            refused.add(Path::new(&format!("/{nth}")), WhyUnreadable::System, || "why".to_owned());
        }
        refused.close();
        refused
    }

    #[test]
    fn many_are_counted_and_few_are_named() {
        let many = refused((0..1_000).chain(0..1_000));
        assert_eq!((many.files(), many.unnamed(), many.named().count()), (1_000, 900, NAMED_MAX));
        let few = refused(0..7);
        assert_eq!((few.files(), few.unnamed()), (7, 0));
        assert_eq!(refused(0..9).new_since(&few).count(), 2);
        assert_eq!(refused(500..700).new_since(&many).count(), 0, "they may have been there");
        let mut both = refused(0..60);
        both.extend(refused(50..200));
        both.close();
        assert_eq!(both.files(), 200);
    }
}
