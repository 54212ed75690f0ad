//! A connection to a server: TCP or a unix socket, with TLS or without.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::server::{Server, ServerAddress};
use super::trouble::{Trouble, read_secret};
use super::trust::trust;
use crate::secret::Secret;

/// Bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Duplex for S {}

/// A connection.
pub(super) type Link = Box<dyn Duplex>;

/// Makes connections to one server.
pub(super) struct Dialer {
    pub(super) address: ServerAddress,
    tls: Option<Arc<ClientConfig>>,
    password: Option<Secret>,
}

impl Dialer {
    /// # Errors
    /// If the certificates to trust cannot be read, or there are none.
    pub(super) fn new(
        server: &Server,
        ca_file: Option<&Path>,
        password: Option<&Secret>,
    ) -> io::Result<Dialer> {
        let tls = match server.is_tls {
            true => Some(Arc::new(trust(ca_file, true, None)?)),
            false => None,
        };
        Ok(Dialer { address: server.address.clone(), tls, password: password.cloned() })
    }

    /// Whether [`encrypt`](Dialer::encrypt) speaks TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some() && matches!(self.address, ServerAddress::Tcp { .. })
    }

    /// Connects, without TLS. The caller bounds the time.
    pub(super) async fn connect(&self) -> Result<Link, Trouble> {
        Ok(match &self.address {
            ServerAddress::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(no_connection)?;
                stream.set_nodelay(true).map_err(no_connection)?;
                Box::new(stream)
            }
            ServerAddress::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(no_connection)?),
        })
    }

    /// Speaks TLS over `link` if configured. The server has to show that it is the host that was named.
    pub(super) async fn encrypt(&self, link: Link) -> Result<Link, Trouble> {
        let (Some(tls), ServerAddress::Tcp { host, .. }) = (&self.tls, &self.address) else {
            return Ok(link);
        };
        let name = ServerName::try_from(host.clone()).map_err(no_connection)?;
        match TlsConnector::from(Arc::clone(tls)).connect(name, link).await {
            Ok(encrypted) => Ok(Box::new(encrypted)),
            // A certificate that is not trusted, or no TLS at all: neither passes by itself.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Trouble::setup(format!("TLS: {error}")))
            }
            Err(error) => Err(no_connection(error)),
        }
    }

    /// The password, read again from where it is.
    pub(super) async fn password(&self) -> Result<Option<String>, Trouble> {
        match &self.password {
            Some(at) => read_secret(at).await.map(Some),
            None => Ok(None),
        }
    }
}

pub(super) fn no_connection(error: impl fmt::Display) -> Trouble {
    Trouble::server(format!("no connection: {error}"))
}
