//! Posts each batch to a URL: a status of 2xx acks it.
//!
//! | status | outcome |
//! |---|---|
//! | 2xx | done; failed if its body is JSON that says `"errors": true`, or has a `partialSuccess` that rejects something |
//! | 400, 422 | rejected |
//! | 413 | too large: bisected; a single line is rejected |
//! | 401, 403, 404, 405, 407, 410, 421, 3xx | refused; a redirect is never followed |
//! | 5xx, 429, no connection | down, or later where `Retry-After` says when |
//! | all else, a reply cut off | failed, or later where `Retry-After` says when |
//!
//! Every request carries `Idempotency-Key`: the same for the same lines of a group, however often they come. The
//! server is not trusted: at most [`HEAD_BYTES_MAX`] of a reply's head and [`REPLY_BYTES_MAX`] of its body are read,
//! and the group's time-out ends what is slow, by dropping the future and with it the connection. 2xx counts once all
//! of the body was sent and the reply has come to its end. Connections are kept for the next batch; one on which the
//! server has said more than was asked is not.
//!
//! Secrets and the URL's query are in no message and no `Debug`. Its path is, and what the server says.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http_body_util::BodyExt;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use tokio::sync::watch;

use super::body::{Coding, Form, body};
use super::connections::Connections;
use super::evidence::{Tail, chain};
use super::refusal::refusal;
use super::trust::trust;
use super::upload::Upload;
use super::{Batch, Epoch, Evidence, Outcome, Processing, Processor, Secret};
use crate::plain::harmless;

/// Of a reply's status line and headers: hyper reads no more.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Of a reply's body: what follows is not read, and the connection closed.
const REPLY_BYTES_MAX: usize = 64 * 1024;
/// A host that is gone answers nothing: the connection is given up long before most time-outs of a group.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Servers commonly close a quiet connection after 60 s and more: it is not used beyond half of that.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// A worker posts one batch at a time.
const IDLE_CONNECTIONS_MAX: usize = 1;

/// Where batches go, and how.
#[derive(Clone)]
pub struct Destination {
    /// `http://` or `https://`, with path and query. The query is shown to nobody.
    pub url: String,
    /// What the lines become.
    pub form: Form,
    /// How the body is compressed.
    pub coding: Coding,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Further headers whose values are secrets.
    pub secret_headers: Vec<(String, Secret)>,
    /// Certificates (PEM) to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whose seqs the batches have: part of the key, so that two stores, or two groups, may feed one server.
    pub epoch: Epoch,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination").field("form", &self.form).finish_non_exhaustive()
    }
}

/// A destination that was understood.
struct Target {
    url: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    secret_headers: Vec<(HeaderName, Secret)>,
    form: Form,
    coding: Coding,
    /// The part of the key that is the same for all batches of a group.
    key: String,
}

/// Posts batches.
pub struct HttpPost {
    target: Arc<Target>,
    client: Client<HttpsConnector<HttpConnector>, Upload>,
    connections: Connections,
    interrupted: Option<Evidence>,
}

impl fmt::Debug for HttpPost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpPost").field(&self.target.place()).finish()
    }
}

impl Target {
    fn new(destination: &Destination) -> io::Result<Target> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| io::Error::other(format!("{what}: {error}"));
        let name = |name: &str| name.parse::<HeaderName>().map_err(|error| wrong(name, &error));
        let url: Uri = destination.url.parse().map_err(|error| wrong("the url", &error))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(wrong("the url", &"it begins with neither http:// nor https://"));
        }
        let header = |(header, value): &(String, String)| {
            Ok((
                name(header)?,
                value.parse().map_err(|error: hyper::header::InvalidHeaderValue| wrong(header, &error))?,
            ))
        };
        let secret = |(header, secret): &(String, Secret)| Ok((name(header)?, secret.clone()));
        Ok(Target {
            url,
            headers: destination.headers.iter().map(header).collect::<io::Result<_>>()?,
            secret_headers: destination.secret_headers.iter().map(secret).collect::<io::Result<_>>()?,
            form: destination.form.clone(),
            coding: destination.coding,
            key: destination.epoch.to_string(),
        })
    }

    /// Scheme, host and path: a query may hold what is nobody's business.
    fn place(&self) -> String {
        let authority = self.url.authority().map_or("", |authority| authority.as_str());
        harmless(&format!("{}://{authority}{}", self.url.scheme_str().unwrap_or("http"), self.url.path()))
    }
}

impl HttpPost {
    /// Will post to `destination`. Nothing is connected before the first batch.
    ///
    /// # Errors
    /// When the URL or a header is none, or the certificates to trust cannot be read, or there are none.
    pub fn new(destination: Destination) -> io::Result<HttpPost> {
        let target = Target::new(&destination)?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust(destination.ca_file.as_deref(), target.url.scheme_str() == Some("https"))?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let connections = Connections::default();
        let client = Client::builder(connections.clone())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        Ok(HttpPost { target: Arc::new(target), client, connections, interrupted: None })
    }

    async fn run(&mut self, batch: &Batch) -> Outcome {
        self.interrupted = None;
        let what = format!("POST of {} to {}", batch.named(), self.target.place());
        let evidence = |how: String, tail: String| Evidence { summary: format!("{what} {how}"), tail };
        let (copy, target) = (batch.clone(), Arc::clone(&self.target));
        let made = tokio::task::spawn_blocking(move || request(&target, &copy)).await;
        let (request, left) = match made {
            Ok(Ok(made)) => made,
            Ok(Err(Unmade::Secret(why))) => {
                return Outcome::Refused(evidence(format!("was not made: {why}"), String::new()));
            }
            Ok(Err(Unmade::Other(why))) => {
                return Outcome::Failed(evidence(format!("was not made: {why}"), String::new()));
            }
            Err(error) => return Outcome::Failed(evidence(format!("was not made: {error}"), String::new())),
        };
        let mut watch = Watch {
            status: None,
            left,
            since: Instant::now(),
            connections: &self.connections,
            interrupted: Some(&mut self.interrupted),
        };
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => {
                watch.interrupted = None;
                let evidence = evidence(format!("got no reply: {}", chain(&error)), String::new());
                return if error.is_connect() { Outcome::Down(evidence) } else { Outcome::Failed(evidence) };
            }
        };
        watch.status = Some(response.status());
        let outcome = outcome(response, &mut watch.left, &evidence).await;
        watch.interrupted = None;
        outcome
    }
}

/// What a reply says of the batch, once all of it has come. `left`: of the body that is being sent.
pub(super) async fn outcome(
    response: Response<hyper::body::Incoming>,
    left: &mut watch::Receiver<u64>,
    evidence: &(dyn Fn(String, String) -> Evidence + Sync),
) -> Outcome {
    let (status, wait) = (response.status(), retry_after(&response, SystemTime::now()));
    let read = read(response).await;
    // A server may answer while it takes in the rest, and may not be believed where it does not.
    let had_all = !status.is_success() || left.wait_for(|left| *left == 0).await.is_ok();
    match read {
        Ok((tail, Some(refusal))) if had_all && status.is_success() => {
            Outcome::Failed(evidence(format!("was answered {status}, and the reply says {refusal}"), tail))
        }
        Ok((tail, _)) if had_all => judge(status, wait, evidence(format!("was answered {status}"), tail)),
        Ok((tail, _)) => Outcome::Failed(evidence(
            format!("was answered {status} by a server that had closed before it was given all lines"),
            tail,
        )),
        // It is not known whether the server was done: the key lets it tell.
        Err((tail, why)) => {
            Outcome::Failed(evidence(format!("was answered {status}, then cut off: {why}"), tail))
        }
    }
}

impl Processor for HttpPost {
    fn name(&self) -> String {
        format!("http {}", self.about())
    }

    fn about(&self) -> String {
        self.target.place()
    }

    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a> {
        Box::pin(self.run(batch))
    }

    fn interrupted(&mut self) -> Option<Evidence> {
        self.interrupted.take()
    }
}

/// Notes how far an exchange was when it is dropped before its end, and closes its connection.
struct Watch<'a> {
    status: Option<StatusCode>,
    left: watch::Receiver<u64>,
    since: Instant,
    connections: &'a Connections,
    /// `None` once it has ended.
    interrupted: Option<&'a mut Option<Evidence>>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(interrupted) = self.interrupted.take() {
            self.connections.end();
            let seconds = self.since.elapsed().as_secs_f64();
            let left = *self.left.borrow();
            let summary = match self.status {
                Some(status) => format!("the reply, {status}, had no end after {seconds:.1} s"),
                None if left > 0 => format!("{left} bytes were still to be sent after {seconds:.1} s"),
                None => format!("all was sent, and no reply came within {seconds:.1} s"),
            };
            *interrupted = Some(Evidence { summary, tail: String::new() });
        }
    }
}

/// Why there is no request.
enum Unmade {
    /// The configuration's fault.
    Secret(String),
    Other(String),
}

/// The request for a batch, and how much of its body is left to send.
fn request(target: &Target, batch: &Batch) -> Result<(Request<Upload>, watch::Receiver<u64>), Unmade> {
    let body = body(batch, &target.form, target.coding).map_err(|error| Unmade::Other(error.to_string()))?;
    let (body, left) = Upload::new(body);
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.url.clone();
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("spillq/", env!("CARGO_PKG_VERSION"))));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(target.form.content_type()));
    for (name, value) in &target.headers {
        headers.insert(name, value.clone());
    }
    for (name, secret) in &target.secret_headers {
        let mut value = HeaderValue::try_from(secret.read().map_err(Unmade::Secret)?)
            .map_err(|_| Unmade::Secret(format!("the secret for {name} cannot be the value of a header")))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    // Last: nobody replaces what says what the body is.
    if let Some(coding) = target.coding.name() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    let key = HeaderValue::try_from(key(target, batch)).map_err(|error| Unmade::Other(error.to_string()))?;
    headers.insert(HeaderName::from_static("idempotency-key"), key);
    Ok((request, left))
}

/// The same for the same lines of a group, and for no others: a lease is read without a gap, but for lines that are
/// lost and never come again.
fn key(target: &Target, batch: &Batch) -> String {
    let range = batch.range();
    format!("{}-{}-{}-{}", batch.group(), target.key, range.first, range.last)
}

fn judge(status: StatusCode, wait: Option<Duration>, evidence: Evidence) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Done,
        400 | 422 => Outcome::Poison(evidence),
        413 => Outcome::TooLarge(evidence),
        401 | 403 | 404 | 405 | 407 | 410 | 421 | 300..=399 => Outcome::Refused(evidence),
        _ => match wait {
            Some(wait) => Outcome::Later(wait, evidence),
            None if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Outcome::Down(evidence)
            }
            None => Outcome::Failed(evidence),
        },
    }
}

/// Reads the body, up to its bound: the end of that, and what a reply of JSON says was not taken. With an error, what was
/// found.
async fn read(
    response: Response<hyper::body::Incoming>,
) -> Result<(String, Option<String>), (String, String)> {
    let (mut body, mut tail, mut text) = (response.into_body(), Tail::default(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| (tail.text(), chain(&error)))?;
        if let Some(data) = frame.data_ref() {
            tail.push(data);
            text.extend_from_slice(data);
        }
        if text.len() > REPLY_BYTES_MAX {
            break;
        }
    }
    Ok((tail.text(), refusal(&text)))
}

/// How long the server asks to wait: seconds, or a date.
fn retry_after<B>(response: &Response<B>, now: SystemTime) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_outcome() {
        for status in 200..=599 {
            let outcome = judge(StatusCode::from_u16(status).unwrap(), None, Evidence::default());
            let as_expected = match status {
                200..=299 => outcome == Outcome::Done,
                400 | 422 => matches!(outcome, Outcome::Poison(_)),
                413 => matches!(outcome, Outcome::TooLarge(_)),
                300..=399 | 401 | 403 | 404 | 405 | 407 | 410 | 421 => matches!(outcome, Outcome::Refused(_)),
                429 | 500..=599 => matches!(outcome, Outcome::Down(_)),
                _ => matches!(outcome, Outcome::Failed(_)),
            };
            assert!(as_expected, "{status}: {outcome:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, wait) in [
            ("7", Some(Duration::from_secs(7))),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(Duration::from_secs(10))),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(Duration::ZERO)),
            ("soon", None),
            ("-1", None),
        ] {
            let response = Response::builder().header("retry-after", text).body(()).unwrap();
            assert_eq!(retry_after(&response, now), wait, "{text}");
        }
    }
}
