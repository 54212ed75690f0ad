//! The unix socket in the data dir: binds it, and creates it again if it is removed.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use tokio::net::UnixListener;

use super::listeners::serve_socket;

/// The socket's name in the data dir.
pub const SOCKET: &str = "spillq.sock";
/// How often to check that the socket's file exists: cleaners of old files run once a day.
const SOCKET_LOOK: Duration = Duration::from_secs(2);

/// The address of the socket of a data dir, valid while `folder` is open. The address of a unix socket has at most 107
/// bytes: a path through the open folder always fits. Without /proc the path of the data dir has to fit.
pub(super) fn address(folder: &File, data_dir: &Path) -> PathBuf {
    if has_proc() {
        PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
    } else {
        data_dir.join(SOCKET)
    }
}

/// Whether /proc is mounted.
pub(super) fn has_proc() -> bool {
    Path::new("/proc/self/fd").exists()
}

/// Binds it. An existing socket belongs to a dead process.
///
/// # Errors
/// Those of the file system.
pub(super) fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let folder = File::open(data_dir)?;
    match fs::remove_file(data_dir.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(address(&folder, data_dir))
}

/// Serves the socket, and a new one when a cleaner of old files has removed it.
pub(super) async fn serve_made_again(data_dir: &Path, mut listener: UnixListener, router: Router) {
    let socket = data_dir.join(SOCKET);
    loop {
        tokio::select! {
            () = serve_socket(listener, router.clone()) => return,
            () = is_gone(&socket) => {}
        }
        listener = loop {
            match bind(data_dir) {
                Ok(listener) => break listener,
                Err(error) => {
                    tracing::warn!(%error, socket = %socket.display(), "the socket was removed and cannot be created again; commands cannot reach the service");
                    tokio::time::sleep(SOCKET_LOOK).await;
                }
            }
        };
        tracing::warn!(socket = %socket.display(), "the socket was removed, and was created again; exclude it from cleaning up old files");
    }
}

/// Ends when the file that exists now is gone. If the data dir hangs, only this waits.
async fn is_gone(socket: &Path) {
    let inode = || async {
        let socket = socket.to_owned();
        let look = move || fs::symlink_metadata(socket).map(|found| found.ino()).ok();
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    };
    let ours = inode().await;
    while ours.is_some() && inode().await == ours {
        tokio::time::sleep(SOCKET_LOOK).await;
    }
}
