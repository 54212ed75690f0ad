//! inotify, as a hint: which path changed, or that some name did.
//!
//! The channel holds 1,024 hints; more are dropped, and the next scan finds what they were about. At most 4,096 folders are
//! watched; changes in the others are found by scans. An error here only means that a change is found later.

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::tail::bell::Bell;

/// Hints that wait for the worker: more than it takes between two turns, and little memory.
const HINTS_MAX: usize = 1_024;
/// Half of what old kernels allow a user in inotify watches.
const FOLDERS_MAX: usize = 4_096;

/// Watches folders and passes hints on.
pub(crate) struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// With their inodes: a folder made again under the same name needs a new watch.
    folders: HashMap<PathBuf, u64>,
    names_changed: Arc<AtomicBool>,
    has_warned: bool,
    /// Paths that may have changed; an empty one only wakes the worker.
    pub(crate) hints: Receiver<PathBuf>,
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
        let (flag, sender) = (Arc::clone(&names_changed), wake.clone());
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
        let watch = Watch { watcher, folders: HashMap::new(), names_changed, has_warned: false, hints };
        (watch, wake)
    }

    /// Whether a name changed, or hints were dropped, since the last call.
    pub(crate) fn take_names_changed(&self) -> bool {
        self.names_changed.swap(false, Ordering::AcqRel)
    }

    /// Watches exactly these folders. True if there are new ones: changes in them before that are for a scan.
    pub(crate) fn set(&mut self, folders: &HashMap<PathBuf, u64>) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        self.folders.retain(|folder, inode| {
            let keep = folders.get(folder) == Some(inode);
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
                    self.folders.insert(folder.clone(), *inode);
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
