//! Posts each batch to a URL: a status of 2xx acks it.
//!
//! | status | outcome |
//! |---|---|
//! | 2xx, 422 with a JSON body `{"bad": [{"n": 3, "reason": "…"}]}` | done, except these lines of the batch, counted from 1 |
//! | 2xx | done; failed if its body is JSON that says `"errors": true`, or has a `partialSuccess` that rejects something |
//! | 400, 422 | rejected |
//! | 413 | too large: bisected; a single line is rejected |
//! | 401, 403, 404, 405, 407, 410, 421, 3xx | refused; a redirect is never followed |
//! | 5xx, 429, no connection | down, or later if there is `Retry-After` |
//! | anything else, a reply that is cut off | failed, or later if there is `Retry-After` |
//!
//! Every request has an `Idempotency-Key`: the same for the same lines of a group, however often they are delivered. The
//! server is not trusted. At most [`HEAD_BYTES_MAX`] of a reply's head and [`REPLY_BYTES_MAX`] of its body are read, and the
//! group's time-out ends what is slow, by dropping the future and with it the connection. A 2xx counts once the whole body
//! was sent and the reply is complete. Connections are kept for the next batch, unless the server has sent more than the reply.
//!
//! Secrets and the URL's query are in no message and no `Debug`. Messages have the URL's path and what the server says.

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

use super::bad_lines::{BadLine, Listed, done_except, listed};
use super::body::{Coding, Form, body};
use super::connections::Connections;
use super::evidence::{Tail, chain};
use super::refusal::refusal;
use super::trust::trust;
use super::upload::Upload;
use super::{Batch, Epoch, Evidence, Outcome, Paths, Processing, Processor, Url};
use crate::plain::harmless;
use crate::secret::Secret;

/// How much is read of a reply's status line and headers.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How much is read of a reply's body. After that the connection is closed.
const REPLY_BYTES_MAX: usize = 64 * 1024;
/// Bounds connecting: a host that is down answers nothing, and most time-outs of groups are longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept: servers commonly close one after 60 s or more.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// One, because a worker posts one batch at a time.
const IDLE_CONNECTIONS_MAX: usize = 1;

/// Where batches go, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://` or `https://`, with path and query, without a user.
    pub url: Url,
    /// The form of the body.
    pub form: Form,
    /// How the body is compressed.
    pub coding: Coding,
    /// More headers, name and value.
    pub headers: Vec<(String, String)>,
    /// More headers, name and where the value is.
    pub secret_headers: Vec<(String, Secret)>,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// An endpoint after it was checked.
struct Target {
    url: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    secret_headers: Vec<(HeaderName, Secret)>,
    form: Form,
    coding: Coding,
    paths: Paths,
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
    fn new(endpoint: &Endpoint, paths: Paths, epoch: Epoch) -> io::Result<Target> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| io::Error::other(format!("{what}: {error}"));
        let name = |name: &str| name.parse::<HeaderName>().map_err(|error| wrong(name, &error));
        let url: Uri = endpoint.url.whole().parse().map_err(|error| wrong("the url", &error))?;
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
            headers: endpoint.headers.iter().map(header).collect::<io::Result<_>>()?,
            secret_headers: endpoint.secret_headers.iter().map(secret).collect::<io::Result<_>>()?,
            form: endpoint.form,
            coding: endpoint.coding,
            paths,
            key: epoch.to_string(),
        })
    }

    /// Scheme, host and path, without the query: that may have secrets.
    fn place(&self) -> String {
        let authority = self.url.authority().map_or("", |authority| authority.as_str());
        harmless(&format!("{}://{authority}{}", self.url.scheme_str().unwrap_or("http"), self.url.path()))
    }
}

impl HttpPost {
    /// Will post to `endpoint`. Nothing is connected before the first batch. The seqs of the batches belong to `epoch`, which
    /// is part of the key, so that two stores or groups may post to one server.
    ///
    /// # Errors
    /// If the URL or a header is not valid, or the certificates to trust cannot be read, or there are none.
    pub fn new(endpoint: &Endpoint, paths: Paths, epoch: Epoch) -> io::Result<HttpPost> {
        let target = Target::new(endpoint, paths, epoch)?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust(endpoint.ca_file.as_deref(), target.url.scheme_str() == Some("https"))?)
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
        let not_made = |why: String| evidence(format!("was not made: {why}"), String::new());
        let (request, left) = match made.unwrap_or_else(|error| Err(Unmade::Other(error.to_string()))) {
            Ok(made) => made,
            Err(Unmade::Secret(why)) => return Outcome::Refused(not_made(why)),
            Err(Unmade::Other(why)) => return Outcome::Failed(not_made(why)),
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
        let except = |bad: &[BadLine]| done_except(batch, bad, &self.target.place());
        let outcome = outcome(response, &mut watch.left, &evidence, &except).await;
        watch.interrupted = None;
        outcome
    }
}

/// What a reply means for the batch, once it is complete. `left` is how much of the request's body is left to send.
pub(super) async fn outcome(
    response: Response<hyper::body::Incoming>,
    left: &mut watch::Receiver<u64>,
    evidence: &(dyn Fn(String, String) -> Evidence + Sync),
    except: &(dyn Fn(&[BadLine]) -> Outcome + Sync),
) -> Outcome {
    let (status, wait) = (response.status(), retry_after(&response, SystemTime::now()));
    let is_json = is_json(&response);
    let read = read(response).await;
    let text = read.as_ref().map_or(&[][..], |(text, _)| text);
    let is_success = status.is_success();
    let listed = if is_json && (is_success || status == StatusCode::UNPROCESSABLE_ENTITY) {
        listed(text)
    } else {
        Listed::Nothing
    };
    let names_lines = matches!(&listed, Listed::Lines(lines) if !lines.is_empty());
    // A server may answer before it has read the whole body. An answer that acks counts only if it reads the rest.
    let had_all = !(is_success || names_lines) || left.wait_for(|left| *left == 0).await.is_ok();
    match read {
        Ok((text, tail)) if had_all => match (refusal(&text).filter(|_| is_success), listed) {
            (Some(refusal), _) => Outcome::Failed(evidence(
                format!("was answered {status}, and the reply says {refusal}"),
                tail,
            )),
            (None, Listed::Lines(lines)) if names_lines => except(&lines),
            (None, Listed::Unreadable(why)) => {
                let how = format!("was answered {status}, and its list of bad lines cannot be read: {why}");
                Outcome::Poison(evidence(how, tail))
            }
            (None, _) => judge(status, wait, evidence(format!("was answered {status}"), tail)),
        },
        Ok((_, tail)) => Outcome::Failed(evidence(
            format!(
                "was answered {status} by a server that closed the connection before all lines were sent"
            ),
            tail,
        )),
        // It is not known whether the server was done: the key lets it recognize the repeat.
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

/// If it is dropped before the end of an exchange, it notes how far that was, and closes the connection.
struct Watch<'a> {
    status: Option<StatusCode>,
    left: watch::Receiver<u64>,
    since: Instant,
    connections: &'a Connections,
    /// `None` once the exchange has ended.
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
            *interrupted = Some(Evidence::new(summary));
        }
    }
}

/// Why a request could not be made.
enum Unmade {
    /// The configuration's fault.
    Secret(String),
    Other(String),
}

/// The request for a batch, and how much of its body is left to send.
fn request(target: &Target, batch: &Batch) -> Result<(Request<Upload>, watch::Receiver<u64>), Unmade> {
    let body = body(batch, target.form, &target.paths, target.coding)
        .map_err(|error| Unmade::Other(error.to_string()))?;
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
    // Last, so that the configuration cannot replace what describes the body.
    if let Some(coding) = target.coding.name() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    let key = HeaderValue::try_from(key(target, batch)).map_err(|error| Unmade::Other(error.to_string()))?;
    headers.insert(HeaderName::from_static("idempotency-key"), key);
    Ok((request, left))
}

/// The same for the same lines of a group, and for no others: the only gaps in a lease are lines that are lost, which are never
/// delivered again.
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

fn is_json<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Reads the body up to its bound. Returns what was read, and its end for people. An error has what was read before it.
async fn read(response: Response<hyper::body::Incoming>) -> Result<(Vec<u8>, String), (String, String)> {
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
    Ok((text, tail.text()))
}

/// How long the server asks to wait, given as seconds or a date.
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
