//! Other follows while the tail runs, and sources that no follow names.
//!
//! A source *is inactive* while neither its path nor the one that it was rotated from is named: its file is closed and not
//! read, and its checkpoint stays in the log, over restarts too. When it is named again it goes on at its offset, after
//! the same look at its content as after a restart. It is never finished for not being found; only where the table is
//! full, and its file is gone, it makes room.

use std::path::Path;

use crate::tail::find::follows::Follows;
use crate::tail::known::source::{Ending, Source};
use crate::tail::worker::Worker;

impl Worker {
    /// These follows from now on. What they name is looked for by the next scan.
    pub(crate) fn refollow(&mut self, Follows { follows, discover }: Follows) {
        (self.follows, self.discover) = (follows, discover);
        self.settle_follows();
        self.scan_wanted = true;
    }

    /// Each source belongs to the follow that names it, or is inactive.
    pub(crate) fn settle_follows(&mut self) {
        let (discover, mut closed) = (&self.discover, 0);
        for source in self.table.iter_mut() {
            let own = discover.names(&source.path);
            let former = || source.rotated_from.as_deref().and_then(|path| discover.names(path));
            match own.or_else(former) {
                Some(follow) => {
                    source.follow = follow;
                    source.outside = own.is_none();
                    source.inactive = false;
                }
                None => closed += usize::from(rest(source)),
            }
        }
        self.open = self.open.saturating_sub(closed);
        let table = &self.table;
        self.endings.retain(|(id, _)| table.get(*id).is_some_and(|source| !source.inactive));
    }

    /// Files are left out: what is inactive and is gone makes room for them.
    pub(crate) fn end_inactive(&mut self) {
        let is_gone = |path: &Path| {
            std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        let gone = self.table.iter().filter(|source| source.inactive && is_gone(&source.path));
        let gone: Vec<_> = gone.map(|source| (source.id, Ending::Finished)).collect();
        self.endings.extend(gone);
    }
}

/// As its checkpoint says, and nothing more is known of it. True where its file was open.
fn rest(source: &mut Source) -> bool {
    if source.inactive {
        return false;
    }
    source.inactive = true;
    source.looked = false;
    source.device = 0;
    (source.size, source.searched, source.mtime_ns) = (source.offset, source.offset, 0);
    (source.seen, source.missed, source.replaced, source.gone_ms) = (0, 0, 0, None);
    source.error = None;
    source.file.take().is_some()
}
