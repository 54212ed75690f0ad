//! Entry points for the fuzz target of requests. Behind the feature `fuzzing`; not part of the contract.
#![allow(missing_docs, clippy::missing_errors_doc)]

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};

use super::listeners::{answer, guarded};
use super::server::{Api, routers};

/// What a service serves on its socket and its addresses.
#[derive(Clone, Debug)]
pub struct Routers {
    socket: Router,
    address: Router,
}

impl Routers {
    #[must_use]
    pub fn new(api: &Api, hosts: &[String]) -> Routers {
        let (socket, address) = routers(api);
        Routers { socket, address: guarded(address, hosts.into()) }
    }

    /// One connection to the socket, or to an address.
    pub async fn answer<S>(&self, stream: S, is_socket: bool) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = if is_socket { &self.socket } else { &self.address };
        answer(stream, router.clone()).await
    }
}
