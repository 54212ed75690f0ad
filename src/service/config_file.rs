//! Watches the configuration file: returns its content when it may have changed, once that is stable.
//!
//! File events are only a hint; the file is also checked every [`LOOK`]. Whether an editor renames a new file over the old
//! one, writes in place, or a link of a mounted folder is replaced makes no difference: the file is read until two reads
//! in a row agree.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use crate::config::{Sources, read_text};

/// The content of the file, or why it cannot be read.
pub(super) type Content = Result<String, String>;

/// How often the file is checked without an event.
const LOOK: Duration = Duration::from_secs(10);
/// A content that does not change for this long is taken to be complete.
const SETTLE: Duration = Duration::from_millis(200);

/// Starts to watch the file of `sources`. Ends when the receiver is dropped.
pub(super) fn follow(sources: Sources) -> mpsc::Receiver<Content> {
    let (sender, receiver) = mpsc::channel(1);
    let Some(file) = sources.file.as_ref().map(|file| sources.working_dir.join(file)) else {
        return receiver;
    };
    let changed = Arc::new(Notify::new());
    let watcher = watch(&file, Arc::clone(&changed));
    tokio::spawn(async move {
        let _watcher = watcher;
        loop {
            tokio::select! {
                () = changed.notified() => {}
                () = sleep(LOOK) => {}
                () = sender.closed() => return,
            }
            if sender.send(stable(&sources).await).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads the file on a thread that may block.
pub(super) async fn read(sources: &Sources) -> Content {
    let sources = sources.clone();
    let read = tokio::task::spawn_blocking(move || {
        read_text(&sources).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            format!("{error}{}", cause.unwrap_or_default())
        })
    });
    read.await.unwrap_or_else(|error| Err(format!("the configuration could not be read: {error}")))
}

async fn stable(sources: &Sources) -> Content {
    let mut content = read(sources).await;
    // A file that is written all the time is read no more often than this.
    loop {
        sleep(SETTLE).await;
        let again = read(sources).await;
        if again == content {
            return content;
        }
        content = again;
    }
}

/// Watches the folder of the file, and the folder of its target if it is a link.
fn watch(file: &Path, changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let real = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let names = [file.file_name().map(OsStr::to_owned), real.file_name().map(OsStr::to_owned)];
    // Other files of the folder may be written all the time. Kubernetes replaces `..data` of a mounted folder.
    let is_about_it = move |path: &PathBuf| {
        let name = path.file_name();
        names.iter().any(|own| own.as_deref() == name)
            || name.is_none_or(|name| name.as_encoded_bytes().starts_with(b".."))
    };
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file causes an event too. An error may hide a change.
        let is_nothing = event.is_ok_and(|event| {
            let is_other = !event.need_rescan() && !event.paths.iter().any(&is_about_it);
            matches!(event.kind, EventKind::Access(_)) || is_other
        });
        if !is_nothing {
            changed.notify_one();
        }
    });
    let warn = |error: &notify::Error| {
        tracing::warn!(%error, "no file events for the configuration: it is checked every {LOOK:?}");
    };
    let mut watcher = watcher.inspect_err(warn).ok()?;
    let folders: BTreeSet<&Path> = [file, &real].into_iter().filter_map(Path::parent).collect();
    for folder in folders {
        // A file that cannot be watched is still checked.
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            warn(&error);
        }
    }
    Some(watcher)
}
