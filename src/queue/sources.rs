//! Which sources a group gets lines of: globs over the path at which a source was first followed.
//!
//! The owner decides it once for each source and group, when it first sees the source, and readers look it up. Of a source
//! that is not known any more every group gets the lines: twice rather than never.
//!
//! Bounds: [`GROUPS_MAX`] groups with globs, and an entry of some 30 bytes for each source that the log knows.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use globset::GlobSet;
use spillq_storage::state::SourceState;
use spillq_storage::{GroupId, SourceId};

use crate::globs;

/// Groups with globs: a bit for each. The configuration has no more groups.
const GROUPS_MAX: usize = 64;

/// Which sources a group gets lines of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceGlobs {
    /// Those whose first path one of these has; every source if there is none.
    pub include: Vec<String>,
    /// But not those whose first path one of these has.
    pub exclude: Vec<String>,
}

impl SourceGlobs {
    /// Whether every source is meant.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether a source that was first followed at `path` is meant.
    ///
    /// # Errors
    /// What is wrong with a glob.
    pub fn has(&self, path: &Path) -> Result<bool, String> {
        Filter::new(self).map(|filter| filter.has(path))
    }
}

/// The same, ready to match.
#[derive(Debug)]
struct Filter {
    include: Option<GlobSet>,
    exclude: globs::Excluded,
}

impl Filter {
    fn new(of: &SourceGlobs) -> Result<Filter, String> {
        let include = (!of.include.is_empty()).then(|| globs::set(&of.include)).transpose()?;
        Ok(Filter { include, exclude: globs::Excluded::new(&of.exclude)? })
    }

    fn has(&self, path: &Path) -> bool {
        self.include.as_ref().is_none_or(|include| include.is_match(path)) && !self.exclude.has(path)
    }
}

/// Where the checkpoint of a source says that it was first followed; `None` if it does not say so. The log does not know what
/// checkpoints mean.
pub type Origin = fn(&[u8]) -> Option<PathBuf>;

/// The groups of each source, as bits.
type Table = RwLock<HashMap<SourceId, u64>>;

/// Which sources belong to one group, for those who read its lines.
#[derive(Clone, Debug, Default)]
pub struct Members {
    table: Arc<Table>,
    bit: u64,
}

impl Members {
    /// The sources among these that globs name.
    ///
    /// # Errors
    /// What is wrong with a glob.
    pub(super) fn of(
        globs: &SourceGlobs,
        sources: &BTreeMap<SourceId, SourceState>,
        origin: Origin,
    ) -> Result<Members, String> {
        let filter = Filter::new(globs)?;
        let of = |source: &SourceState| Some(u64::from(filter.has(&origin(&source.checkpoint)?)));
        let table = sources.iter().filter_map(|(id, source)| Some((*id, of(source)?)));
        Ok(Members { table: Arc::new(RwLock::new(table.collect())), bit: 1 })
    }

    /// Whether lines of `source` are the group's own.
    #[must_use]
    pub fn has(&self, source: SourceId) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&source).is_none_or(|groups| groups & self.bit != 0)
    }
}

impl PartialEq for Members {
    fn eq(&self, other: &Members) -> bool {
        Arc::ptr_eq(&self.table, &other.table) && self.bit == other.bit
    }
}

impl Eq for Members {}

/// The sources of all groups with globs. Only the owner changes it.
#[derive(Debug)]
pub(super) struct Directory {
    origin: Origin,
    filters: Vec<(GroupId, SourceGlobs, Filter)>,
    table: Arc<Table>,
}

impl Directory {
    /// No group has globs.
    pub(super) fn new(origin: Origin) -> Directory {
        Directory { origin, filters: Vec::new(), table: Arc::default() }
    }

    /// These groups have these globs from now on. What was handed out before stays as it was.
    pub(super) fn set<'s>(
        &mut self,
        groups: impl Iterator<Item = (GroupId, &'s SourceGlobs)>,
        sources: &BTreeMap<SourceId, SourceState>,
    ) {
        let groups: Vec<(GroupId, &SourceGlobs)> = groups.filter(|(_, globs)| !globs.is_all()).collect();
        let is_same = groups.len() == self.filters.len()
            && groups.iter().zip(&self.filters).all(|(new, (id, globs, _))| new.0 == *id && new.1 == globs);
        if is_same {
            return;
        }
        // The configuration refuses wrong globs. A group with such would get every line.
        let filter = |(id, globs): (GroupId, &SourceGlobs)| {
            let filter = Filter::new(globs);
            let filter = filter.inspect_err(|what| tracing::error!("a glob of group {id:?}: {what}")).ok()?;
            Some((id, globs.clone(), filter))
        };
        self.filters = groups.into_iter().filter_map(filter).take(GROUPS_MAX).collect();
        self.table = Arc::default();
        self.learn(sources.iter().map(|(id, source)| (*id, source.checkpoint.as_slice())));
    }

    /// Who reads the lines of a group; `None` if it gets every line.
    pub(super) fn members(&self, group: GroupId) -> Option<Members> {
        let at = self.filters.iter().position(|(id, ..)| *id == group)?;
        Some(Members { table: Arc::clone(&self.table), bit: 1 << at })
    }

    /// Sources with their checkpoints, before a line of them can be read. The first checkpoint decides.
    pub(super) fn learn<'c>(&self, sources: impl Iterator<Item = (SourceId, &'c [u8])>) {
        if self.filters.is_empty() {
            return;
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        for (source, checkpoint) in sources {
            if table.contains_key(&source) {
                continue;
            }
            if let Some(path) = (self.origin)(checkpoint) {
                table.insert(source, self.groups_of(&path));
            }
        }
    }

    fn groups_of(&self, path: &Path) -> u64 {
        let of = self.filters.iter().enumerate().filter(|(_, (.., filter))| filter.has(path));
        of.fold(0, |groups, (at, _)| groups | 1 << at)
    }

    /// Forgets sources that the log has forgotten, once they are more than those that it knows.
    pub(super) fn prune(&self, sources: &BTreeMap<SourceId, SourceState>) {
        if self.filters.is_empty() {
            return;
        }
        let is_large = |known: usize| known > 2 * sources.len() + 1_024;
        if is_large(self.table.read().unwrap_or_else(PoisonError::into_inner).len()) {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            table.retain(|source, _| sources.contains_key(source));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn path_is_checkpoint(checkpoint: &[u8]) -> Option<PathBuf> {
        Some(PathBuf::from(OsStr::from_bytes(checkpoint)))
    }

    fn globs(include: &[&str], exclude: &[&str]) -> SourceGlobs {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        SourceGlobs { include: owned(include), exclude: owned(exclude) }
    }

    fn known(paths: &[(u64, &str)]) -> BTreeMap<SourceId, SourceState> {
        let state = |path: &str| SourceState {
            checkpoint: path.as_bytes().to_vec(),
            last_seq: spillq_storage::Seq(1),
            forgotten: false,
        };
        paths.iter().map(|(id, path)| (SourceId(*id), state(path))).collect()
    }

    #[test]
    fn a_group_has_the_sources_that_its_globs_name() {
        let of = globs(&["/srv/*/log/*.log", "/var/**/mail*"], &["**/debug.log"]);
        for (path, expected) in [
            ("/srv/a/log/x.log", true),
            ("/srv/a/b/log/x.log", false),
            ("/srv/a/log/debug.log", false),
            ("/var/log/old/mail.1", true),
            ("/var/log/kern.log", false),
        ] {
            assert_eq!(of.has(Path::new(path)), Ok(expected), "{path}");
        }
        assert_eq!(globs(&[], &["**/debug.log"]).has(Path::new("/a/b")), Ok(true));
        assert!(globs(&["/a/["], &[]).has(Path::new("/a")).is_err());
    }

    #[test]
    fn each_group_has_its_own_sources_and_unknown_ones_belong_to_all() {
        let sources = known(&[(1, "/a/x.log"), (2, "/b/x.log"), (3, "/c/x.log")]);
        let (a, b, all) = (globs(&["/a/*"], &[]), globs(&["/b/*", "/c/*"], &[]), globs(&[], &[]));
        let mut directory = Directory::new(path_is_checkpoint);
        let groups = [(GroupId(1), &a), (GroupId(2), &all), (GroupId(3), &b)];
        directory.set(groups.into_iter(), &sources);
        assert!(directory.members(GroupId(2)).is_none(), "it gets every line");
        let has = |group, source| directory.members(GroupId(group)).unwrap().has(SourceId(source));
        assert_eq!([1, 2, 3].map(|source| has(1, source)), [true, false, false]);
        assert_eq!([1, 2, 3].map(|source| has(3, source)), [false, true, true]);
        assert!(has(1, 9) && has(3, 9), "a source that nobody knows");
        directory.learn([(SourceId(9), &b"/a/new.log"[..]), (SourceId(1), b"/b/renamed.log")].into_iter());
        assert!(has(1, 9) && !has(3, 9));
        assert!(has(1, 1) && !has(3, 1), "the first path decides");
    }

    #[test]
    fn new_globs_do_not_change_what_was_handed_out() {
        let sources = known(&[(1, "/a/x.log")]);
        let mut directory = Directory::new(path_is_checkpoint);
        directory.set([(GroupId(1), &globs(&["/a/*"], &[]))].into_iter(), &sources);
        let before = directory.members(GroupId(1)).unwrap();
        directory.set([(GroupId(1), &globs(&["/b/*"], &[]))].into_iter(), &sources);
        assert!(before.has(SourceId(1)));
        assert!(!directory.members(GroupId(1)).unwrap().has(SourceId(1)));
    }

    #[test]
    fn sources_that_the_log_has_forgotten_are_forgotten() {
        let mut directory = Directory::new(path_is_checkpoint);
        directory.set([(GroupId(1), &globs(&["/a/*"], &[]))].into_iter(), &BTreeMap::new());
        let sources = known(&[(5_000, "/b/x")]);
        directory.learn((1..=5_000).map(|id| (SourceId(id), &b"/b/x"[..])));
        directory.prune(&sources);
        let members = directory.members(GroupId(1)).unwrap();
        assert!(!members.has(SourceId(5_000)) && members.has(SourceId(1)), "it is unknown now");
    }
}
