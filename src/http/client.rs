//! The client that commands use to ask a running service, over its socket or one of its addresses.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::http::response::Parts;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::socket;
use super::wire::ErrorJson;

/// Longer than the server may take for any request.
const ANSWER_WAIT: Duration = Duration::from_secs(40);
/// Enough for a status with 10,000 sources, or a thousand lines.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a request failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The service refused the request.
    #[error("{0}")]
    Refused(String),
    /// The URL is not one of a service.
    #[error("{0}")]
    NoUrl(String),
    /// The service did not answer, or not as expected.
    #[error("the service does not answer: {0}")]
    NoAnswer(String),
}

/// A running service.
#[derive(Debug)]
pub struct Client {
    address: Address,
    runtime: tokio::runtime::Runtime,
}

/// Where it listens.
#[derive(Debug)]
enum Address {
    /// The socket; its path is valid while the folder is open.
    Socket { socket: PathBuf, _folder: File },
    /// `host:port`.
    Tcp(String),
}

/// An answer.
#[derive(Debug)]
pub struct Answered {
    parts: Parts,
    /// Its body.
    pub body: Bytes,
}

impl Answered {
    /// Whether it has no content, on purpose.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.status == hyper::StatusCode::NO_CONTENT
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.parts.status.as_u16()
    }

    /// A header; empty if there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A header that is a number; 0 if there is none.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.header(name).parse().unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`] if it is another.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| ClientError::NoAnswer(error.to_string()))
    }
}

/// A connection of either kind.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

impl Client {
    /// The service on this data dir; `None` if none listens.
    #[must_use]
    pub fn connect(data_dir: &Path) -> Option<Client> {
        let folder = File::open(data_dir).ok()?;
        let socket = socket::address(&folder, data_dir);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let stream = runtime.block_on(UnixStream::connect(&socket)).ok()?;
        // If a service was killed just after it forked, the child has the socket for a moment until it becomes a command: it
        // accepts, and never answers. A service in another pid namespace has no pid here.
        let listener = stream.peer_cred().ok()?.pid().filter(|pid| *pid > 0);
        let is_gone = |pid| socket::has_proc() && !Path::new(&format!("/proc/{pid}")).exists();
        if listener.is_some_and(is_gone) {
            return None;
        }
        Some(Client { address: Address::Socket { socket, _folder: folder }, runtime })
    }

    /// The service at `http://HOST[:PORT]`, one of the addresses in its configuration. Nothing is sent yet.
    ///
    /// # Errors
    /// If that is not such a URL, or the runtime cannot be started.
    pub fn at(url: &str) -> Result<Client, ClientError> {
        let wrong =
            |why: &str| ClientError::NoUrl(format!("{url}: {why}; write it as http://127.0.0.1:9464"));
        let uri: hyper::Uri = url.parse().map_err(|_| wrong("not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("not http"));
        }
        if !matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("/")) {
            return Err(wrong("give only the address, without a path"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("no host"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("give it without a user"));
        }
        let address = Address::Tcp(format!("{host}:{}", uri.port_u16().unwrap_or(80)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| ClientError::NoAnswer(error.to_string()))?;
        Ok(Client { address, runtime })
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask("GET", path, Bytes::new())
    }

    /// Sends a POST request.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::NoAnswer(error.to_string()))?;
        self.ask("POST", path, Bytes::from(body))
    }

    /// Sends a request with these headers, and returns the whole answer, a refusal too.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<Answered, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::NoAnswer(error.to_string()))?;
        self.answered(method, path, headers, Bytes::from(body), true)
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: Bytes) -> Result<T, ClientError> {
        self.answered(method, path, &[], body, false)?.json()
    }

    fn answered(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        is_whole: bool,
    ) -> Result<Answered, ClientError> {
        let asked = async { tokio::time::timeout(ANSWER_WAIT, self.send(method, path, headers, body)).await };
        let (parts, body) = self
            .runtime
            .block_on(asked)
            .map_err(|_| ClientError::NoAnswer(format!("nothing within {ANSWER_WAIT:?}")))?
            .map_err(|error| ClientError::NoAnswer(error.to_string()))?;
        if !parts.status.is_success() && !is_whole {
            let error = serde_json::from_slice::<ErrorJson>(&body).map(|json| json.error);
            return Err(ClientError::Refused(error.unwrap_or_else(|_| format!("status {}", parts.status))));
        }
        Ok(Answered { parts, body })
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(Parts, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let (stream, host): (Box<dyn Duplex>, &str) = match &self.address {
            Address::Socket { socket, .. } => (Box::new(UnixStream::connect(socket).await?), "spillq"),
            Address::Tcp(address) => (Box::new(TcpStream::connect(address).await?), address),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .header("content-type", "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = sender.send_request(request.body(Full::new(body))?).await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        connection.abort();
        Ok((parts, body))
    }
}
