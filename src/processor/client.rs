//! The client of HTTP/1.1 that processors share: TLS, a proxy, one connection that is kept.

use std::io;
use std::time::Duration;

use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::rt::TokioTimer;
use rustls::ClientConfig;

use super::connections::Connections;
use super::route::Route;

/// How much is read of a reply's status line and headers.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long an idle connection is kept: servers commonly close one after 60 s or more.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// One, because a worker posts one batch at a time.
const IDLE_CONNECTIONS_MAX: usize = 1;

pub(super) type Client<B> = legacy::Client<HttpsConnector<Route>, B>;

/// Connects to nothing yet. Its connections are tasks of `connections`.
///
/// # Errors
/// If the proxy is not a URL.
pub(super) fn client<B>(
    tls: ClientConfig,
    proxy: Option<&str>,
    connections: &Connections,
) -> io::Result<Client<B>>
where
    B: Body + Send,
    B::Data: Send,
{
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(Route::new(proxy)?);
    Ok(legacy::Client::builder(connections.clone())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .http1_max_buf_size(HEAD_BYTES_MAX)
        .build(connector))
}
