//! Requests to a bucket: signed, sent, and their answers judged.

use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode};
use rusty_s3::actions::{ListObjectsV2, ListObjectsV2Response, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};

use super::super::client::{Client, client};
use super::super::connections::Connections;
use super::super::evidence::chain;
use super::super::run::Run;
use super::super::server::{S3Place, S3Prefix};
use super::super::trouble::{Fault, Trouble};
use super::super::trust::{is_untrusted, trust};
use super::objects::About;
use crate::plain::{beginning, harmless};

/// What is read of an answer: a list of a thousand keys is a tenth of it.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long the signature of a request is valid: clocks differ by less.
const VALID: Duration = Duration::from_secs(15 * 60);
/// How much is shown of what the server says: a sentence.
const SAID_BYTES_MAX: usize = 512;

/// A bucket, and how to reach it.
pub(super) struct Requests {
    bucket: Bucket,
    client: Client<Full<Bytes>>,
    connections: Connections,
}

/// An answer that is not a failure of the server or of the setup.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// Whether an object was stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put {
    Stored,
    /// One with this key is there already.
    Exists,
}

impl Requests {
    pub(super) fn new(to: &S3Prefix) -> io::Result<Requests> {
        let wrong = |error: &dyn std::fmt::Display| io::Error::other(format!("the url: {error}"));
        let S3Place { endpoint, bucket, .. } = to.place().map_err(|error| wrong(&error))?;
        let style = if to.is_in_host { UrlStyle::VirtualHost } else { UrlStyle::Path };
        let tls = trust(to.ca_file.as_deref(), endpoint.starts_with("https://"), None)?;
        let endpoint = endpoint.parse().map_err(|error| wrong(&error))?;
        let bucket = Bucket::new(endpoint, style, bucket, to.region.clone());
        let connections = Connections::default();
        let client = client(tls, to.proxy.as_deref(), &connections)?;
        Ok(Requests { bucket: bucket.map_err(|error| wrong(&error))?, client, connections })
    }

    /// Closes connections with all that was not sent yet.
    pub(super) fn end(&self) {
        self.connections.end();
    }

    /// Stores an object, if none has its key.
    pub(super) async fn put(
        &self,
        credentials: &Credentials,
        key: &str,
        about: Option<(&str, &Run, u64)>,
        body: Vec<u8>,
    ) -> Result<Put, Trouble> {
        let mut action = self.bucket.put_object(Some(credentials), key);
        let mut headers = vec![
            ("content-type", "application/zstd".to_owned()),
            ("if-none-match", "*".to_owned()),
            // The server compares it with what arrives.
            ("x-amz-checksum-crc32c", STANDARD.encode(crc32c::crc32c(&body).to_be_bytes())),
        ];
        if let Some((owner, run, last)) = about {
            headers.push((About::LAST, last.to_string()));
            headers.push((About::OWNER, owner.to_owned()));
            headers.push((About::RUN, run.to_string()));
        }
        for (name, value) in &headers {
            action.headers_mut().insert(*name, value.clone());
        }
        let answer = self.send(Method::PUT, &action, &headers, body.into()).await?;
        match answer.status {
            StatusCode::PRECONDITION_FAILED => Ok(Put::Exists),
            _ if answer.status.is_success() => Ok(Put::Stored),
            _ => Err(answer.trouble()),
        }
    }

    /// What an object says of itself; `None` if it is not there.
    pub(super) async fn about(&self, credentials: &Credentials, key: &str) -> Result<Option<About>, Trouble> {
        let action = self.bucket.head_object(Some(credentials), key);
        let answer = self.send(Method::HEAD, &action, &[], Bytes::new()).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !answer.status.is_success() {
            return Err(answer.trouble());
        }
        let header = |name: &str| Some(answer.headers.get(name)?.to_str().ok()?.to_owned());
        let about = About::of(header).ok_or_else(|| {
            Trouble::setup(format!("the object {} is not from here; remove it", harmless(key)))
        })?;
        Ok(Some(about))
    }

    /// A page of the list of objects, as `change` asks for it.
    pub(super) async fn list<'a>(
        &'a self,
        credentials: &'a Credentials,
        change: impl FnOnce(&mut ListObjectsV2<'a>),
    ) -> Result<ListObjectsV2Response, Trouble> {
        let mut action = self.bucket.list_objects_v2(Some(credentials));
        change(&mut action);
        let answer = self.send(Method::GET, &action, &[], Bytes::new()).await?;
        if !answer.status.is_success() {
            return Err(answer.trouble());
        }
        let text = std::str::from_utf8(&answer.body).map_err(Trouble::server)?;
        ListObjectsV2::parse_response(text)
            .map_err(|error| Trouble::server(format!("the list of objects cannot be read: {error}")))
    }

    async fn send<'a>(
        &self,
        method: Method,
        action: &impl S3Action<'a>,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<Answer, Trouble> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        // It has the signature: it is in no message.
        *request.uri_mut() =
            action.sign(VALID).as_str().parse().map_err(|_| Trouble::setup("the url is not one"))?;
        for (name, value) in headers {
            let value = HeaderValue::try_from(value).map_err(Trouble::setup)?;
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        let asked = self.client.request(request).await;
        let (head, body) = asked
            .map_err(|error| {
                let fault = if is_untrusted(&error) { Fault::Setup } else { Fault::Server };
                Trouble::new(fault, chain(&error))
            })?
            .into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Trouble::server(format!("the answer was cut off: {error}")))?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }
}

impl Answer {
    /// What a status means that is not expected.
    fn trouble(&self) -> Trouble {
        let (code, message) = said(&String::from_utf8_lossy(&self.body));
        let said = beginning(format!("{} {code} {message}", self.status), SAID_BYTES_MAX);
        Trouble::new(fault(self.status, &code), said.trim_end())
    }
}

fn fault(status: StatusCode, code: &str) -> Fault {
    match (status.as_u16(), code) {
        // Temporary credentials are read again.
        (_, "ExpiredToken" | "RequestTimeout" | "OperationAborted" | "ConditionalRequestConflict") => {
            Fault::Server
        }
        (413, _) | (_, "EntityTooLarge") => Fault::Size,
        (409 | 408 | 429 | 500 | 502..=599, _) => Fault::Server,
        // No rights, no such bucket, another region, no conditional writes.
        _ => Fault::Setup,
    }
}

/// The code and the message of an error, which is XML: `<Error><Code>NoSuchBucket</Code><Message>…`.
fn said(body: &str) -> (String, String) {
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
    };
    (element("Code").unwrap_or_default(), element("Message").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_of_the_server_the_setup_or_the_size() {
        let error = |code: &str| {
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no\u{1b}</Message></Error>")
        };
        for (status, code, expected) in [
            (403, "AccessDenied", Fault::Setup),
            (403, "SignatureDoesNotMatch", Fault::Setup),
            (403, "RequestTimeTooSkewed", Fault::Setup),
            (404, "NoSuchBucket", Fault::Setup),
            (301, "PermanentRedirect", Fault::Setup),
            (501, "NotImplemented", Fault::Setup),
            (400, "BadDigest", Fault::Setup),
            (400, "ExpiredToken", Fault::Server),
            (400, "RequestTimeout", Fault::Server),
            (409, "ConditionalRequestConflict", Fault::Server),
            (429, "TooManyRequests", Fault::Server),
            (500, "InternalError", Fault::Server),
            (503, "SlowDown", Fault::Server),
            (400, "EntityTooLarge", Fault::Size),
            (413, "", Fault::Size),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer { status, headers: HeaderMap::new(), body: error(code).into() };
            let trouble = answer.trouble();
            assert_eq!(trouble.fault, expected, "{status} {code}");
            assert!(trouble.why.contains(code) && trouble.why.ends_with("no?"), "{}", trouble.why);
        }
        assert_eq!(said("<html>"), (String::new(), String::new()));
    }
}
