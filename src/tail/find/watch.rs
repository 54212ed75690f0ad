//! inotify, as a hint: which path changed, or that some name did.
//!
//! Where all folders are watched, on file systems that report every change, scans can be rare ([`Watch::sees`]).
//!
//! The channel holds 1,024 hints; more are dropped, and the next scan finds what they were about. At most 4,096 folders are
//! watched; changes in the others are found by scans. An error here only means that a change is found later.

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use rustix::fs::statfs;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::tail::bell::Bell;

/// Hints that wait for the worker: more than it takes between two turns, and little memory.
const HINTS_MAX: usize = 1_024;
/// Half of what old kernels allow a user in inotify watches.
const FOLDERS_MAX: usize = 4_096;

/// File systems of which every write through a path is an event, by their magic numbers: ext, xfs, btrfs, f2fs, zfs and
/// tmpfs. Not those that another host or another layer can write to.
const REPORTING: [u64; 6] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0x0102_1994];

/// Watches folders and passes hints on.
pub(crate) struct Watch {
    watcher: Option<RecommendedWatcher>,
    folders: HashMap<PathBuf, Watched>,
    names_changed: Arc<AtomicBool>,
    /// Names that were removed or moved away: if one was a folder's, its watch is gone, whatever is there now.
    gone: Arc<Mutex<Gone>>,
    has_warned: bool,
    /// Paths that may have changed; an empty one only wakes the worker.
    pub(crate) hints: Receiver<PathBuf>,
}

struct Watched {
    /// A folder made again under the same name needs a new watch.
    inode: u64,
    /// It is on a file system that reports every change.
    reports: bool,
}

#[derive(Debug, Default)]
struct Gone {
    names: HashSet<PathBuf>,
    /// There were more than [`HINTS_MAX`].
    too_many: bool,
}

impl Gone {
    fn add(&mut self, names: &[PathBuf]) {
        if self.names.len() + names.len() > HINTS_MAX {
            *self = Gone { names: HashSet::new(), too_many: true };
        } else if !self.too_many {
            self.names.extend(names.iter().cloned());
        }
    }
}

/// Wakes the worker, with a path as the reason.
#[derive(Clone, Debug)]
pub(crate) struct Wake(SyncSender<PathBuf>, Bell);

impl Wake {
    /// Wakes the worker. If the channel is full, it is awake.
    pub(crate) fn wake(&self) {
        self.hint(PathBuf::new());
    }

    /// False if it has too much to look at already.
    fn hint(&self, path: PathBuf) -> bool {
        let sent = self.0.try_send(path).is_ok();
        self.1.ring();
        sent
    }
}

impl Watch {
    /// A watch on nothing yet, and what wakes the worker.
    pub(crate) fn new(bell: Bell) -> (Watch, Wake) {
        let (sender, hints) = sync_channel(HINTS_MAX);
        let names_changed = Arc::new(AtomicBool::new(false));
        let wake = Wake(sender, bell);
        let gone = Arc::<Mutex<Gone>>::default();
        let (flag, sender, removed) = (Arc::clone(&names_changed), wake.clone(), Arc::clone(&gone));
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else {
                // The kernel's queue overflowed, or a watch broke.
                flag.store(true, Ordering::Release);
                sender.wake();
                return;
            };
            // The tail's opening and reading are events too: passing them on would wake it for ever.
            let names = match event.kind {
                EventKind::Access(_) => return,
                EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_) | ModifyKind::Any) => {
                    event.need_rescan()
                }
                _ => true,
            };
            if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) {
                removed.lock().unwrap_or_else(PoisonError::into_inner).add(&event.paths);
            }
            if names {
                flag.store(true, Ordering::Release);
            }
            for path in event.paths {
                if !sender.hint(path) {
                    flag.store(true, Ordering::Release);
                }
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "no file events: changes are found by scans alone"))
            .ok();
        let watch = Watch { watcher, folders: HashMap::new(), names_changed, gone, has_warned: false, hints };
        (watch, wake)
    }

    /// Whether a name changed, or hints were dropped, since the last call.
    pub(crate) fn take_names_changed(&self) -> bool {
        self.names_changed.swap(false, Ordering::AcqRel)
    }

    /// Whether every change of a file in these folders is an event.
    pub(crate) fn sees(&self, folders: &HashMap<PathBuf, u64>) -> bool {
        // Of a folder with two names, events have one of them only.
        let distinct: HashSet<u64> = folders.values().copied().collect();
        distinct.len() == folders.len()
            && self.folders.len() == folders.len()
            && self.folders.values().all(|watched| watched.reports)
    }

    /// Watches exactly these folders. True if there are new ones: changes in them before that are for a scan.
    pub(crate) fn set(&mut self, folders: &HashMap<PathBuf, u64>) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let gone = std::mem::take(&mut *self.gone.lock().unwrap_or_else(PoisonError::into_inner));
        self.folders.retain(|folder, watched| {
            // A folder that was made again may have the inode of the one before.
            let is_same = folders.get(folder) == Some(&watched.inode);
            let keep = is_same && !gone.too_many && !gone.names.contains(folder);
            if !keep {
                // A folder that was removed took its watch along.
                let _ = watcher.unwatch(folder);
            }
            keep
        });
        let mut added = false;
        for (folder, inode) in folders {
            if self.folders.contains_key(folder) || self.folders.len() >= FOLDERS_MAX {
                continue;
            }
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    let watched = Watched { inode: *inode, reports: reports(folder) };
                    self.folders.insert(folder.clone(), watched);
                    added = true;
                }
                Err(error) if !std::mem::replace(&mut self.has_warned, true) => {
                    tracing::warn!(path = %folder.display(), %error, "no file events here: changes are found by scans alone");
                }
                Err(_) => {}
            }
        }
        added
    }
}

fn reports(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| REPORTING.contains(&(found.f_type as u64)))
}
