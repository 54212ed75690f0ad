//! All sources, by id, by path and by inode. Never reads a file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use spillq_storage::SourceId;

use crate::tail::known::{Presence, Source};

/// Sources at once. The log's manifest is sized for as many.
pub const SOURCES_MAX: usize = 10_000;

/// All sources, by id (oldest first), by path and by inode.
#[derive(Debug, Default)]
pub(crate) struct Table {
    sources: BTreeMap<SourceId, Box<Source>>,
    paths: HashMap<Arc<Path>, SourceId>,
    inodes: BTreeSet<(u64, SourceId)>,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// How many no follow names now.
    pub(crate) fn inactive(&self) -> usize {
        self.iter().filter(|source| source.presence == Presence::Inactive).count()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.sources.values().map(Box::as_ref)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        self.sources.values_mut().map(Box::as_mut)
    }

    pub(crate) fn get(&self, id: SourceId) -> Option<&Source> {
        self.sources.get(&id).map(Box::as_ref)
    }

    /// The path and the inode are changed by [`Table::place`] alone.
    pub(crate) fn get_mut(&mut self, id: SourceId) -> Option<&mut Source> {
        self.sources.get_mut(&id).map(Box::as_mut)
    }

    /// The inodes of sources that are active.
    pub(crate) fn inodes(&self) -> HashSet<u64> {
        let is_read =
            |id: &SourceId| self.get(*id).is_some_and(|source| source.presence != Presence::Inactive);
        self.inodes.iter().filter(|(_, id)| is_read(id)).map(|entry| entry.0).collect()
    }

    /// The newest source of a path.
    pub(crate) fn at(&self, path: &Path) -> Option<SourceId> {
        self.paths.get(path).copied()
    }

    pub(crate) fn with_inode(&self, inode: u64) -> impl Iterator<Item = SourceId> + '_ {
        self.inodes.range((inode, SourceId(0))..=(inode, SourceId(u64::MAX))).map(|entry| entry.1)
    }

    pub(crate) fn insert(&mut self, source: Source) {
        // If two name the same path, the later one is there now: the earlier was renamed away.
        let newest = self.paths.entry(Arc::clone(&source.path)).or_insert(source.id);
        *newest = (*newest).max(source.id);
        self.inodes.insert((source.inode, source.id));
        self.sources.insert(source.id, Box::new(source));
    }

    pub(crate) fn remove(&mut self, id: SourceId) -> Option<Box<Source>> {
        let source = self.sources.remove(&id)?;
        self.unname(&source.path, id);
        self.inodes.remove(&(source.inode, id));
        Some(source)
    }

    /// Moves a source to another path and inode.
    pub(crate) fn place(&mut self, id: SourceId, path: &Path, device: u64, inode: u64) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        self.inodes.remove(&(source.inode, id));
        self.inodes.insert((inode, id));
        (source.device, source.inode) = (device, inode);
        let old = std::mem::replace(&mut source.path, Arc::from(path));
        let new = Arc::clone(&source.path);
        self.unname(&old, id);
        self.paths.insert(new, id);
    }

    /// The path no longer leads to this source.
    fn unname(&mut self, path: &Path, id: SourceId) {
        if self.paths.get(path) == Some(&id) {
            self.paths.remove(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::known::source::Location;

    #[test]
    fn a_path_leads_to_its_newest_source() {
        let mut table = Table::default();
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        let at = Location { path: a, device: 5, inode: 50, mtime_ns: 0, follow: None };
        table.insert(Source::found(SourceId(1), at, 1, 0));
        table.insert(Source::found(SourceId(2), Location { inode: 51, ..at }, 1, 0));
        assert_eq!(table.at(a), Some(SourceId(2)));
        table.place(SourceId(1), b, 5, 50);
        assert_eq!((table.at(a), table.at(b)), (Some(SourceId(2)), Some(SourceId(1))));
        assert_eq!(table.with_inode(50).collect::<Vec<_>>(), [SourceId(1)]);
        table.remove(SourceId(2));
        assert_eq!(table.at(a), None);
    }
}
