//! The client of commands that ask a running service, over its socket or one of its addresses.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::socket::{address, has_proc};
use super::wire::ErrorJson;

/// Longer than the server takes for anything.
const ANSWER_WAIT: Duration = Duration::from_secs(40);
/// Status with 10,000 sources, or a thousand lines.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The service answered that it will not.
    #[error("{0}")]
    Refused(String),
    /// What should say where it is does not.
    #[error("{0}")]
    NoUrl(String),
    /// It did not answer as it should.
    #[error("the service does not answer: {0}")]
    NoAnswer(String),
}

/// A running service.
#[derive(Debug)]
pub struct Client {
    door: Door,
    runtime: tokio::runtime::Runtime,
}

/// How it is reached.
#[derive(Debug)]
enum Door {
    /// The socket, as long as the folder that it is in is open.
    Socket { socket: PathBuf, _folder: File },
    /// An address, `host:port`.
    Tcp(String),
}

/// A connection, whatever it goes over.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Client {
    /// The service on this data dir; `None` where none listens.
    #[must_use]
    pub fn connect(data_dir: &Path) -> Option<Client> {
        let folder = File::open(data_dir).ok()?;
        let socket = address(&folder, data_dir);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let stream = runtime.block_on(UnixStream::connect(&socket)).ok()?;
        // A child that a killed service had forked and that is not a command yet holds the socket for a moment:
        // it accepts, and answers nothing. No pid is one of another pid namespace.
        let listener = stream.peer_cred().ok()?.pid().filter(|pid| *pid > 0);
        let is_gone = |pid| has_proc() && !Path::new(&format!("/proc/{pid}")).exists();
        if listener.is_some_and(is_gone) {
            return None;
        }
        Some(Client { door: Door::Socket { socket, _folder: folder }, runtime })
    }

    /// The service at `http://HOST[:PORT]`, one of the addresses in its configuration. Nothing is sent yet.
    ///
    /// # Errors
    /// When that is no such URL, or the system has no runtime to give.
    pub fn at(url: &str) -> Result<Client, ClientError> {
        let wrong =
            |why: &str| ClientError::NoUrl(format!("{url}: {why}; write it as http://127.0.0.1:9464"));
        let uri: hyper::Uri = url.parse().map_err(|_| wrong("not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("not http"));
        }
        if !matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("/")) {
            return Err(wrong("only the address is wanted, no path"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("no host"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("there are no users here"));
        }
        let door = Door::Tcp(format!("{host}:{}", uri.port_u16().unwrap_or(80)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| ClientError::NoAnswer(error.to_string()))?;
        Ok(Client { door, runtime })
    }

    /// Asks for something.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask("GET", path, Bytes::new())
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Why there is no answer, or what the service refused.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::NoAnswer(error.to_string()))?;
        self.ask("POST", path, Bytes::from(body))
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: Bytes) -> Result<T, ClientError> {
        let asked = async { tokio::time::timeout(ANSWER_WAIT, self.send(method, path, body)).await };
        let (status, body) = self
            .runtime
            .block_on(asked)
            .map_err(|_| ClientError::NoAnswer(format!("nothing within {ANSWER_WAIT:?}")))?
            .map_err(|error| ClientError::NoAnswer(error.to_string()))?;
        if !status.is_success() {
            let error = serde_json::from_slice::<ErrorJson>(&body).map(|json| json.error);
            return Err(ClientError::Refused(error.unwrap_or_else(|_| format!("status {status}"))));
        }
        serde_json::from_slice(&body).map_err(|error| ClientError::NoAnswer(error.to_string()))
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Result<(hyper::StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let (stream, host): (Box<dyn Stream>, &str) = match &self.door {
            Door::Socket { socket, .. } => (Box::new(UnixStream::connect(socket).await?), "spillq"),
            Door::Tcp(address) => (Box::new(TcpStream::connect(address).await?), address),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        connection.abort();
        Ok((status, body))
    }
}
