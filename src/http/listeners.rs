//! Where the service is asked: the socket in the data dir, and addresses of TCP that were opted in.
//!
//! One request a connection, and a bounded time for each: a slow or hostile client costs one of a few places, never the
//! owner. On TCP anybody may ask who reaches the address, so what changes something has no door there, and a request
//! must name the service by its address or by a name that the configuration lists: a page in somebody's browser,
//! whose name an attacker points at this address, is refused.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::refused::Refused;

/// Connections at once, of the socket: only who may open the data dir is there.
const SOCKET_CONNECTIONS_MAX: usize = 64;
/// Of all addresses together: each may hold an answer of some MiB in memory. The next ones wait in the kernel.
const TCP_CONNECTIONS_MAX: usize = 8;
/// From the connection to the end of the request's head.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// From the connection to the last byte of the answer, on TCP.
const TCP_WAIT: Duration = Duration::from_secs(30);
/// The same on the socket, where a request itself may take nearly as long.
const SOCKET_WAIT: Duration = Duration::from_secs(60);
/// Bytes of a request's head, and how many headers it may have.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// After an error of accept, which will mostly be a want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Addresses that are bound and not served yet.
#[derive(Debug, Default)]
pub struct Addresses {
    listeners: Vec<TcpListener>,
    hosts: Arc<[String]>,
}

impl Addresses {
    /// Binds them. `hosts` are names, besides addresses and `localhost`, by which requests may ask for them.
    ///
    /// # Errors
    /// The first address that cannot be bound; those before it are let go again.
    pub async fn bind(
        addresses: &[SocketAddr],
        hosts: &[String],
    ) -> Result<Addresses, (SocketAddr, io::Error)> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            let listener = TcpListener::bind(address).await.map_err(|error| (*address, error))?;
            let at = listener.local_addr().map_err(|error| (*address, error))?;
            tracing::info!("answers /metrics, /healthz, /v1/status and /v1/doctor on http://{at}");
            listeners.push(listener);
        }
        Ok(Addresses { listeners, hosts: hosts.into() })
    }

    /// Answers with what `router` has, to who asks by the right name. Ends when it is dropped.
    pub(super) async fn serve(self, router: Router) {
        let router = guarded(router, self.hosts);
        let places = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
        let mut doors = JoinSet::new();
        for listener in self.listeners {
            let (places, router) = (Arc::clone(&places), router.clone());
            doors.spawn(async move {
                let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
                admit(accept, router, places, TCP_WAIT).await;
            });
        }
        while doors.join_next().await.is_some() {}
    }
}

/// Answers on the socket. Ends when it is dropped.
pub(super) async fn serve_socket(listener: UnixListener, router: Router) {
    let places = Arc::new(Semaphore::new(SOCKET_CONNECTIONS_MAX));
    let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
    admit(accept, router, places, SOCKET_WAIT).await;
}

/// Lets clients in as long as there are places, each for one request and `wait` at most.
async fn admit<S, F>(accept: impl Fn() -> F, router: Router, places: Arc<Semaphore>, wait: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>>,
{
    // Ends those that are open when the service ends.
    let mut clients = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken; trying again");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        while clients.try_join_next().is_some() {}
        let answered = answer(stream, router.clone());
        clients.spawn(async move {
            match tokio::time::timeout(wait, answered).await {
                Ok(Ok(())) => {}
                // Who asks badly, or hangs up, is told by that; it is no state of the service.
                Ok(Err(error)) => tracing::debug!(%error, "a client was not answered"),
                Err(_) => tracing::debug!("a client was cut off after {wait:?}"),
            }
            drop(place);
        });
    }
}

/// One request of one client.
pub(super) async fn answer<S>(stream: S, router: Router) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT).keep_alive(false);
    http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await
}

/// Answers only who asks by an address, or one of these names.
pub(super) fn guarded(router: Router, hosts: Arc<[String]>) -> Router {
    router.layer(axum::middleware::from_fn_with_state(hosts, refuse_other_hosts))
}

async fn refuse_other_hosts(State(hosts): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    match other_host(request.headers(), &hosts) {
        None => next.run(request).await,
        Some(why) => Refused::new(StatusCode::FORBIDDEN, why).into_response(),
    }
}

/// Why a request is not meant for this service, if so.
fn other_host(headers: &HeaderMap, hosts: &[String]) -> Option<String> {
    let mut named = headers.get_all(HOST).iter();
    let (Some(host), None) = (named.next(), named.next()) else {
        return Some("a request needs one Host header".to_owned());
    };
    let host = host.to_str().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_ours = address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
    (!is_ours).then(|| {
        "this service is asked by its address, or by a name listed under hosts in [http] of its configuration"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_addresses_localhost_and_listed_names_are_answered() {
        let hosts = ["metrics.example".to_owned()];
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(value).unwrap());
            other_host(&headers, &hosts)
        };
        for ours in [
            "127.0.0.1",
            "127.0.0.1:9464",
            "[::1]:9464",
            "[::1]",
            "LocalHost:1",
            "metrics.EXAMPLE",
            "metrics.example:80",
        ] {
            assert_eq!(of(ours), None, "{ours}");
        }
        for other in [
            "evil.example",
            "evil.example:9464",
            "127.0.0.1.evil.example",
            "",
            ":9464",
            "localhost.evil.example",
            "metrics.example:80:80",
        ] {
            assert!(of(other).is_some(), "{other}");
        }
        let mut twice = HeaderMap::new();
        twice.append(HOST, HeaderValue::from_static("localhost"));
        twice.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(other_host(&twice, &hosts).is_some() && other_host(&HeaderMap::new(), &hosts).is_some());
    }
}
