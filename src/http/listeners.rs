//! The listeners: the socket in the data dir, and the TCP addresses that are configured.
//!
//! Each connection serves one request in a bounded time: a slow or hostile client costs one of a few connections, never the
//! owner. Everyone who can reach a TCP address may send requests, so those that change something are not served there. A
//! request must name the service by its address or by a name in the configuration: this refuses a page in a browser
//! whose host name an attacker points at this address (DNS rebinding).

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

/// How many connections the socket serves at once. Its clients may open the data dir, and are trusted.
const SOCKET_CONNECTIONS_MAX: usize = 64;
/// How many connections all addresses together serve at once: each may have an answer of some MiB in memory. Others wait in
/// the kernel.
const TCP_CONNECTIONS_MAX: usize = 8;
/// How long the head of a request may take.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// How long a connection over TCP may take, up to the last byte of the answer.
const TCP_WAIT: Duration = Duration::from_secs(30);
/// The same for the socket, where a request may take longer.
const SOCKET_WAIT: Duration = Duration::from_secs(60);
/// The size of a request's head.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How many headers a request may have.
pub(super) const HEADERS_MAX: usize = 64;
/// The pause after an error of accept(2), mostly that there are too few descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Addresses that are bound and not served yet.
#[derive(Debug, Default)]
pub struct Addresses {
    listeners: Vec<TcpListener>,
    hosts: Arc<[String]>,
}

impl Addresses {
    /// Binds them. `hosts` are the names, in addition to addresses and `localhost`, that requests may have as host.
    ///
    /// # Errors
    /// The first address that cannot be bound; those before it are closed.
    pub async fn bind(
        addresses: &[SocketAddr],
        hosts: &[String],
    ) -> Result<Addresses, (SocketAddr, io::Error)> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            let listener = TcpListener::bind(address).await.map_err(|error| (*address, error))?;
            let at = listener.local_addr().map_err(|error| (*address, error))?;
            tracing::info!("serving /metrics, /healthz, /v1/status and /v1/doctor on http://{at}");
            listeners.push(listener);
        }
        Ok(Addresses { listeners, hosts: hosts.into() })
    }

    /// Serves `router` to requests with a valid host, until it is dropped.
    pub(super) async fn serve(self, router: Router) {
        let router = guarded(router, self.hosts);
        let connections = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
        let mut listening = JoinSet::new();
        for listener in self.listeners {
            let (connections, router) = (Arc::clone(&connections), router.clone());
            listening.spawn(async move {
                let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
                admit(accept, connections, |stream| answer_within(TCP_WAIT, stream, router.clone())).await;
            });
        }
        while listening.join_next().await.is_some() {}
    }
}

/// Serves `router` on the socket, until it is dropped.
pub(super) async fn serve_socket(listener: UnixListener, router: Router) {
    let connections = Arc::new(Semaphore::new(SOCKET_CONNECTIONS_MAX));
    let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
    admit(accept, connections, |stream| answer_within(SOCKET_WAIT, stream, router.clone())).await;
}

/// Accepts connections while there are permits, and serves each.
pub(super) async fn admit<S, F, G>(
    accept: impl Fn() -> F,
    connections: Arc<Semaphore>,
    serve: impl Fn(S) -> G,
) where
    F: Future<Output = io::Result<S>>,
    G: Future<Output = ()> + Send + 'static,
{
    // When the service ends, this closes the open ones.
    let mut clients = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let stream = match accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; trying again");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        while clients.try_join_next().is_some() {}
        let served = serve(stream);
        clients.spawn(async move {
            served.await;
            drop(permit);
        });
    }
}

/// Serves one request of one client, in a bounded time.
async fn answer_within<S>(wait: Duration, stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match tokio::time::timeout(wait, answer(stream, router)).await {
        Ok(Ok(())) => {}
        // A bad request, or a client that has gone: this says nothing about the service.
        Ok(Err(error)) => tracing::debug!(%error, "a client was not answered"),
        Err(_) => tracing::debug!("a client was cut off after {wait:?}"),
    }
}

/// Serves one request of one client.
pub(super) async fn answer<S>(stream: S, router: Router) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT).keep_alive(false);
    http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await
}

/// Serves only requests whose host is an address, or one of these names.
pub(super) fn guarded(router: Router, hosts: Arc<[String]>) -> Router {
    router.layer(axum::middleware::from_fn_with_state(hosts, refuse_other_hosts))
}

async fn refuse_other_hosts(State(hosts): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    match other_host(request.headers(), &hosts) {
        None => next.run(request).await,
        Some(why) => Refused::new(StatusCode::FORBIDDEN, why).into_response(),
    }
}

/// Why a request is not meant for this service, if it is not.
pub(super) fn other_host(headers: &HeaderMap, hosts: &[String]) -> Option<String> {
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
        "the host of the request is neither an address, nor localhost, nor listed in http.hosts of the configuration"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_addresses_localhost_and_listed_names_are_served() {
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
