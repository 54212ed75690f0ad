//! Follows the configuration file: says what is in it when it may be another, once that has settled.
//!
//! File events are a hint, as everywhere; every [`LOOK`] it looks by itself. An editor that renames a file over the
//! other, one that writes in place, and a mounted folder whose link is exchanged are the same to it: it reads, waits, and
//! reads again until nothing has changed.

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

/// Between two looks where no event tells.
const LOOK: Duration = Duration::from_secs(10);
/// What does not change for so long is whole, as far as that can be known.
const SETTLE: Duration = Duration::from_millis(200);

/// Begins to follow the file of `sources`. Ends when the receiver is dropped.
pub(super) fn follow(sources: Sources) -> mpsc::Receiver<Content> {
    let (tell, told) = mpsc::channel(1);
    let Some(file) = sources.file.as_ref().map(|file| sources.working_dir.join(file)) else { return told };
    let changed = Arc::new(Notify::new());
    let watcher = watch(&file, Arc::clone(&changed));
    tokio::spawn(async move {
        let _watcher = watcher;
        loop {
            tokio::select! {
                () = changed.notified() => {}
                () = sleep(LOOK) => {}
                () = tell.closed() => return,
            }
            if tell.send(settled(&sources).await).await.is_err() {
                return;
            }
        }
    });
    told
}

/// Reads the file, beside the threads of the runtime.
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

async fn settled(sources: &Sources) -> Content {
    let mut content = read(sources).await;
    // However often it is written: it is looked at no faster than it settles.
    loop {
        sleep(SETTLE).await;
        let again = read(sources).await;
        if again == content {
            return content;
        }
        content = again;
    }
}

/// Watches the folder of the file, and that of the file that it leads to.
fn watch(file: &Path, changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let real = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let names = [file.file_name().map(OsStr::to_owned), real.file_name().map(OsStr::to_owned)];
    // Others may write beside it all the time. `..data` is what a mounted folder of Kubernetes exchanges.
    let is_about_it = move |path: &PathBuf| {
        let name = path.file_name();
        names.iter().any(|own| own.as_deref() == name)
            || name.is_none_or(|name| name.as_encoded_bytes().starts_with(b".."))
    };
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is an event too. An error may have hidden anything.
        let is_nothing = event.is_ok_and(|event| {
            let is_other = !event.need_rescan() && !event.paths.iter().any(&is_about_it);
            matches!(event.kind, EventKind::Access(_)) || is_other
        });
        if !is_nothing {
            changed.notify_one();
        }
    });
    let tell = |error: &notify::Error| {
        tracing::warn!(%error, "no file events for the configuration: it is looked at every {LOOK:?}");
    };
    let mut watcher = watcher.inspect_err(tell).ok()?;
    let folders: BTreeSet<&Path> = [file, &real].into_iter().filter_map(Path::parent).collect();
    for folder in folders {
        // What cannot be watched is looked at.
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tell(&error);
        }
    }
    Some(watcher)
}
