//! How connections are made: directly, or through a proxy by CONNECT.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

/// Bounds connecting: a host that is down answers nothing, and most time-outs of groups are longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the host of a URL.
#[derive(Clone, Debug)]
pub(super) enum Route {
    Direct(HttpConnector),
    Through(Tunnel<HttpConnector>),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Route {
    /// Through the proxy of this URL, if there is one.
    ///
    /// # Errors
    /// If it is not a URL.
    pub(super) fn new(proxy: Option<&str>) -> io::Result<Route> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let Some(proxy) = proxy else { return Ok(Route::Direct(connector)) };
        let proxy: Uri = proxy.parse().map_err(|error| io::Error::other(format!("the proxy: {error}")))?;
        Ok(Route::Through(Tunnel::new(proxy, connector)))
    }
}

impl Service<Uri> for Route {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Route::Direct(direct) => direct.poll_ready(context).map_err(Into::into),
            Route::Through(tunnel) => tunnel.poll_ready(context).map_err(Into::into),
        }
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        match self {
            Route::Direct(direct) => {
                let connecting = direct.call(to);
                Box::pin(async { connecting.await.map_err(Into::into) })
            }
            Route::Through(tunnel) => {
                let connecting = tunnel.call(with_port(to));
                // The connector bounds the way to the proxy; a proxy may wait for a server that is down.
                Box::pin(async {
                    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                        Ok(connected) => connected.map_err(Into::into),
                        Err(_) => {
                            Err(format!("the proxy made no connection within {CONNECT_TIMEOUT:?}").into())
                        }
                    }
                })
            }
        }
    }
}

/// A tunnel takes 443 for every URL without a port.
fn with_port(to: Uri) -> Uri {
    match (to.port(), to.scheme_str(), to.host()) {
        (None, Some("http"), Some(host)) => {
            let made =
                Uri::builder().scheme("http").authority(format!("{host}:80")).path_and_query("/").build();
            made.unwrap_or(to)
        }
        _ => to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_port_has_that_of_its_scheme() {
        for (url, port) in [
            ("http://a/in?x", Some(80)),
            ("http://[::1]/", Some(80)),
            ("http://a:8080/", Some(8080)),
            ("https://a/", None),
        ] {
            assert_eq!(with_port(url.parse().unwrap()).port_u16(), port, "{url}");
        }
    }
}
