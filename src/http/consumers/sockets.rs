//! The sockets of `[consumers]`: unix sockets and addresses that serve the API of consumers and nothing else.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::listeners::{HEAD_BYTES_MAX, HEADERS_MAX, admit, other_host};
use super::error::ApiError;
use super::patience::{Patience, Standing};
use super::request::Peer;
use super::routes::{no_route, router};
use crate::consumers::Coordinator;

/// Connections of all unix sockets together: those that wait for lines, those that have leases and are idle, and some more that
/// are answered and closed.
const CONNECTIONS_MAX: usize = 512;
/// The same of all addresses, which do not take the places of the others.
const TCP_CONNECTIONS_MAX: usize = 512;

/// Why a socket cannot be bound.
#[derive(Debug)]
pub struct CannotBind {
    /// As it is configured.
    pub socket: String,
    /// What was found.
    pub error: io::Error,
    /// The next step.
    pub hint: String,
}

/// Sockets that are bound and not served yet.
#[derive(Debug, Default)]
pub struct ConsumerSockets {
    unix: Vec<(Removed, UnixListener)>,
    tcp: Vec<TcpListener>,
    hosts: Arc<[String]>,
}

impl ConsumerSockets {
    /// Binds them. The unix sockets get this mode, and this group of the system.
    ///
    /// # Errors
    /// The first that cannot be bound; those before it are closed.
    pub async fn bind(
        unix: &[PathBuf],
        tcp: &[SocketAddr],
        (mode, group): (u32, Option<&str>),
        hosts: &[String],
    ) -> Result<ConsumerSockets, CannotBind> {
        let mut sockets = ConsumerSockets { hosts: hosts.into(), ..ConsumerSockets::default() };
        for path in unix {
            let fail = |(error, hint): (io::Error, &str)| CannotBind {
                socket: path.display().to_string(),
                error,
                hint: hint.to_owned(),
            };
            sockets.unix.push(bind_unix(path, mode, group).map_err(fail)?);
            tracing::info!("serving consumers on {}", path.display());
        }
        for address in tcp {
            let fail = |error| CannotBind {
                socket: address.to_string(),
                error,
                hint: "listen under [consumers] names it".to_owned(),
            };
            let listener = TcpListener::bind(address).await.map_err(fail)?;
            tracing::info!("serving consumers on http://{}", listener.local_addr().map_err(fail)?);
            sockets.tcp.push(listener);
        }
        Ok(sockets)
    }

    /// Serves consumers, until it is dropped.
    pub async fn serve(self, coordinator: Arc<Coordinator>) {
        let api = router(Arc::clone(&coordinator)).fallback(no_route);
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let numbers = Arc::new(AtomicU64::new(0));
        let mut listening = JoinSet::new();
        for (removed, listener) in self.unix {
            let (connections, api, coordinator, numbers) =
                (Arc::clone(&connections), api.clone(), Arc::clone(&coordinator), Arc::clone(&numbers));
            listening.spawn(async move {
                let _removed = removed;
                let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
                let serve = |stream| {
                    let connection = numbers.fetch_add(1, Ordering::Relaxed);
                    let standing = Standing::default().known();
                    let peer = Peer::Unix { connection, standing: standing.clone() };
                    coordinator.connected(connection);
                    let gone = Disconnected { coordinator: Arc::clone(&coordinator), connection };
                    let answered =
                        answer_all(Patience::new(stream, standing), api.clone().layer(Extension(peer)));
                    async move {
                        answered.await;
                        drop(gone);
                    }
                };
                admit(accept, connections, serve).await;
            });
        }
        let hosts = Arc::clone(&self.hosts);
        let guarded = api.layer(from_fn_with_state(hosts, refuse_other_hosts));
        let tcp_connections = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
        for listener in self.tcp {
            let (connections, api) = (Arc::clone(&tcp_connections), guarded.clone());
            listening.spawn(async move {
                let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
                let serve = |stream| {
                    let standing = Standing::default();
                    let api = api.clone().layer(Extension(Peer::Tcp(standing.clone())));
                    answer_all(Patience::new(stream, standing), api)
                };
                admit(accept, connections, serve).await;
            });
        }
        while listening.join_next().await.is_some() {}
    }
}

async fn refuse_other_hosts(State(hosts): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    match other_host(request.headers(), &hosts) {
        None => next.run(request).await,
        Some(why) => {
            let next = "name the service by an address, or list its name in hosts under [http]";
            ApiError::new(StatusCode::FORBIDDEN, "host", why, next).into_response()
        }
    }
}

/// The file of a socket, which is removed with it.
#[derive(Debug)]
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // If somebody removed it before, it is gone as well.
        let _ = fs::remove_file(&self.0);
    }
}

/// Reports the end of a connection, however it ends.
struct Disconnected {
    coordinator: Arc<Coordinator>,
    connection: u64,
}

impl Drop for Disconnected {
    fn drop(&mut self) {
        self.coordinator.disconnected(self.connection);
    }
}

/// Serves the requests of one client, one after the other.
async fn answer_all<S>(stream: Patience<S>, api: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None).keep_alive(true);
    http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(api)).await {
        // A bad request, or a client that has gone: this says nothing about the service.
        tracing::debug!(%error, "a consumer's connection ended");
    }
}

/// Binds a socket for the users of a group. One that a dead process left is removed.
fn bind_unix(
    path: &Path,
    mode: u32,
    group: Option<&str>,
) -> Result<(Removed, UnixListener), (io::Error, &'static str)> {
    let gid = group
        .map(group_id)
        .transpose()
        .map_err(|error| (error, "socket_group names a group in /etc/group, or a number"))?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err((error, "the folder of the socket must exist, and be readable")),
        Ok(found) if !found.file_type().is_socket() => {
            let error = io::Error::new(io::ErrorKind::AlreadyExists, "a file that is not a socket exists");
            return Err((error, "remove it, or choose another path"));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err((io::ErrorKind::AddrInUse.into(), "another process serves it: choose another path"));
        }
        Ok(_) => {
            fs::remove_file(path).map_err(|error| (error, "remove the socket, which a dead process left"))?
        }
    }
    let listener = UnixListener::bind(path).map_err(|error| {
        (error, "the folder of the socket must exist, and be writable by the user of the service")
    })?;
    let removed = Removed(path.to_owned());
    if let Some(gid) = gid {
        chown(path, None, Some(gid))
            .map_err(|error| (error, "the user of the service must be root or a member of socket_group"))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| (error, "see socket_mode"))?;
    Ok((removed, listener))
}

impl ConsumerSockets {
    /// The number of a group of the system that is to own the sockets.
    ///
    /// # Errors
    /// If there is no such group.
    pub fn group(name: &str) -> io::Result<u32> {
        group_id(name)
    }
}

/// The number of a group of the system.
fn group_id(group: &str) -> io::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("there is no group {group}"));
    group_in(&fs::read_to_string(OsStr::new("/etc/group"))?, group).ok_or_else(unknown)
}

/// The number of a group in a text of the form of group(5).
fn group_in(text: &str, group: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_their_whole_name() {
        let text = "root:x:0:\napp:x:1007:ann,bob\nbroken\napps:x:8:\n";
        let found = ["app", "root", "ap", "broken", ""].map(|group| group_in(text, group));
        assert_eq!(found, [Some(1007), Some(0), None, None, None]);
        assert_eq!(group_id("42").unwrap(), 42);
    }

    #[tokio::test]
    async fn a_socket_that_a_dead_process_left_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let first = bind_unix(&path, 0o660, None).unwrap();
        assert_eq!(mode(&path), 0o660);
        let (error, _) = bind_unix(&path, 0o660, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let again = bind_unix(&path, 0o600, None).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(again);
        assert!(!path.exists(), "it goes with its listener");
        fs::write(&path, "mine").unwrap();
        let (error, _) = bind_unix(&path, 0o660, None).unwrap_err();
        assert_eq!(
            (error.kind(), fs::read(&path).unwrap()),
            (io::ErrorKind::AlreadyExists, b"mine".to_vec())
        );
        assert!(bind_unix(&dir.path().join("none/s"), 0o660, None).is_err());
        let other = dir.path().join("other");
        assert!(bind_unix(&other, 0o660, Some("no such group")).is_err() && !other.exists());
    }
}
