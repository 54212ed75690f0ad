//! What is read of a request: who asks, its headers, and its body, all bounded.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::patience::Standing;
use crate::consumers::{Caller, Form, LeaseToken};

/// The largest request: a list of bad lines with their reasons.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// How long its body may take.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// Names of consumers and requests.
const NAME_BYTES_MAX: usize = 64;

pub(super) const LINES_TYPE: &str = "application/vnd.spillq.lines";
pub(super) const LEASE: HeaderName = HeaderName::from_static("spillq-lease");
const BIND: HeaderName = HeaderName::from_static("spillq-bind");

/// Who is at the other end of a connection: an extension of each of its requests.
#[derive(Clone, Debug)]
pub(in crate::http) enum Peer {
    /// The socket in the data dir.
    Owner,
    /// A unix socket for consumers. Leases can end with the connection.
    Unix {
        /// Numbers the connection.
        connection: u64,
        /// Whether leases do.
        standing: Standing,
    },
    /// An address.
    Tcp(Standing),
}

/// Who asks.
pub(super) struct Asker {
    pub(super) peer: Peer,
    bearer: Option<String>,
}

impl Asker {
    /// It has shown that it may ask.
    pub(super) fn is_known(&self) {
        if let Peer::Tcp(standing) = &self.peer {
            standing.is_known();
        }
    }

    pub(super) fn caller(&self) -> Caller<'_> {
        match self.peer {
            Peer::Owner => Caller::Owner,
            Peer::Unix { .. } | Peer::Tcp(_) => Caller::Bearer(self.bearer.as_deref()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Asker, ApiError> {
        let Some(peer) = parts.extensions.get::<Peer>().cloned() else {
            // Every listener sets it.
            return Err(ApiError::bad_request("the connection is unknown"));
        };
        let value = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = value.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        Ok(Asker { peer, bearer })
    }
}

/// The body of a request, bounded in size and time. `curl -d` sends it with another content type, and may.
pub(super) async fn body<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let bytes = whole(request.into_body()).await?;
    // A struct could also be an array of its fields.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte != b'{') {
        return Err(ApiError::bad_request("the body is not a JSON object"));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        ApiError::bad_request(format!("the body is not the JSON that this path takes: {error}"))
    })
}

/// Reads a short body before the request is answered. Some clients send it after the head, whatever the answer is by then, and
/// see a broken connection if nobody reads it.
pub(super) async fn with_body(request: Request, next: Next) -> Response {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_none_or(|length: usize| length > REQUEST_BYTES_MAX) {
        return next.run(request).await;
    }
    let (parts, unread) = request.into_parts();
    match whole(unread).await {
        Ok(bytes) => next.run(Request::from_parts(parts, bytes.into())).await,
        Err(error) => error.into_response(),
    }
}

async fn whole(body: Body) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(REQUEST_WAIT, axum::body::to_bytes(body, REQUEST_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            let error = format!("the body was cut off, or is longer than {REQUEST_BYTES_MAX} bytes");
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body", error, "send less at once"))
        }
        Err(_) => {
            let error = format!("the body did not arrive within {REQUEST_WAIT:?}");
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body", error, "send it at once"))
        }
    }
}

pub(super) fn form(headers: &HeaderMap) -> Form {
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepts.flat_map(|accept| accept.split(','));
    match types.any(|one| one.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(LINES_TYPE)) {
        true => Form::Lines,
        false => Form::Ndjson,
    }
}

/// The connection with which the lease ends, if the client asks for that.
pub(super) fn connection(headers: &HeaderMap, peer: &Peer) -> Result<Option<u64>, ApiError> {
    let Some(bind) = headers.get(BIND) else { return Ok(None) };
    match peer {
        _ if bind.as_bytes() != b"connection" => {
            Err(ApiError::bad_request("Spillq-Bind: the only value is \"connection\""))
        }
        Peer::Unix { connection, standing } => {
            standing.is_bound();
            Ok(Some(*connection))
        }
        Peer::Tcp(_) | Peer::Owner => Err(ApiError::bad_request(
            "Spillq-Bind: a lease ends with its connection only on a unix socket of [consumers], as proxies close others when they like",
        )),
    }
}

/// The token; `None` for a text that is none.
pub(super) fn token(headers: &HeaderMap) -> Result<Option<LeaseToken>, ApiError> {
    let Some(value) = headers.get(LEASE) else {
        return Err(ApiError::bad_request("the request has no Spillq-Lease header: it names the lease"));
    };
    Ok(value.to_str().ok().and_then(LeaseToken::parse))
}

pub(super) fn between(key: &str, value: Option<u64>, least: u64, most: u64) -> Result<Option<u64>, ApiError> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            let most = if most == u64::MAX { String::new() } else { format!(" to {most}") };
            Err(ApiError::bad_request(format!("{key} is {value}; it is a number from {least}{most}")))
        }
        value => Ok(value),
    }
}

pub(super) fn name(key: &str, value: String) -> Result<String, ApiError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte);
    match (1..=NAME_BYTES_MAX).contains(&value.len()) && value.bytes().all(is_plain) {
        true => Ok(value),
        false => {
            Err(ApiError::bad_request(format!("{key} is 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 . _ : @ -")))
        }
    }
}
