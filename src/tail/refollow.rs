//! Other follows while the tail runs, and sources that no follow names.
//!
//! A source *rests* while neither its path nor the one that it was rotated from is named: its file is closed and not
//! read, and its checkpoint stays in the log, over restarts too. When it is named again it goes on at its offset, after
//! the same look at its content as after a restart. It is never finished for not being found; only where the table is
//! full, and its file is gone, it makes room.

use std::path::Path;

use super::Follow;
use super::discover::Discover;
use super::error::TailError;
use super::source::Source;
use super::worker::{Ending, Worker};

/// Follows that make sense, to be taken by a tail that runs.
#[derive(Debug)]
pub struct Follows {
    pub(super) follows: Vec<Follow>,
    pub(super) discover: Discover,
}

impl Follows {
    /// Checks them; `never` as in [`super::Settings`].
    ///
    /// # Errors
    /// When they do not make sense.
    pub fn new(follows: Vec<Follow>, never: &[std::path::PathBuf]) -> Result<Follows, TailError> {
        super::check(&follows)?;
        let of = |one: &Follow| (one.include.clone(), one.exclude.clone(), one.symlinks.clone());
        let globs: Vec<_> = follows.iter().map(of).collect();
        let globs = globs.iter().map(|(include, exclude, symlinks)| {
            (include.as_slice(), exclude.as_slice(), symlinks.as_deref())
        });
        let discover = Discover::new(globs, never)?;
        Ok(Follows { follows, discover })
    }
}

impl Worker {
    /// These follows from now on. What they name is looked for by the next sweep.
    pub(crate) fn refollow(&mut self, Follows { follows, discover }: Follows) {
        (self.follows, self.discover) = (follows, discover);
        self.settle_follows();
        self.sweep_wanted = true;
    }

    /// Each source belongs to the follow that names it, or rests.
    pub(crate) fn settle_follows(&mut self) {
        let (discover, mut closed) = (&self.discover, 0);
        for source in self.table.iter_mut() {
            let own = discover.names(&source.path);
            let former = || source.rotated_from.as_deref().and_then(|path| discover.names(path));
            match own.or_else(former) {
                Some(follow) => {
                    source.follow = follow;
                    source.outside = own.is_none();
                    source.resting = false;
                }
                None => closed += usize::from(rest(source)),
            }
        }
        self.open = self.open.saturating_sub(closed);
        let table = &self.table;
        self.endings.retain(|(id, _)| table.get(*id).is_some_and(|source| !source.resting));
    }

    /// Files are left out: what rests and is gone makes room for them.
    pub(crate) fn let_resting_go(&mut self) {
        let is_gone = |path: &Path| {
            std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        let gone = self.table.iter().filter(|source| source.resting && is_gone(&source.path));
        let gone: Vec<_> = gone.map(|source| (source.id, Ending::Finished)).collect();
        self.endings.extend(gone);
    }
}

/// As its checkpoint says, and nothing more is known of it. True where its file was open.
fn rest(source: &mut Source) -> bool {
    if source.resting {
        return false;
    }
    source.resting = true;
    source.looked = false;
    source.device = 0;
    (source.size, source.scanned, source.mtime_ns) = (source.offset, source.offset, 0);
    (source.seen, source.missed, source.displaced, source.gone_ms) = (0, 0, 0, None);
    source.error = None;
    source.file.take().is_some()
}
