//! Posts each batch to a URL: a status of 2xx acks it.
//!
//! | status | outcome |
//! |---|---|
//! | 2xx, 422 with a JSON body `{"bad": [{"n": 3, "reason": "…"}]}` | done, except these lines of the batch, counted from 1 |
//! | 2xx | done; failed if its body is JSON that says `"errors": true`, or has a `partialSuccess` that rejects something. The formats [`elasticsearch`] and [`otlp`] read their own replies |
//! | 400, 422 | rejected |
//! | 413 | too large: bisected; a single line is rejected |
//! | 401, 403, 404, 405, 407, 410, 421, 3xx | refused; a redirect is never followed |
//! | 5xx, 429, no connection | down, or later if there is `Retry-After` |
//! | anything else, a reply that is cut off | failed, or later if there is `Retry-After` |
//!
//! Every request has an `Idempotency-Key`: the same for the same lines of a group, however often they are delivered. The
//! server is not trusted. At most [`HEAD_BYTES_MAX`](super::client::HEAD_BYTES_MAX) of a reply's head and [`REPLY_BYTES_MAX`] of its body are read, and the
//! group's time-out ends what is slow, by dropping the future and with it the connection. A 2xx counts once the whole body
//! was sent and the reply is complete. Connections are kept for the next batch, unless the server has sent more than the reply.
//!
//! Secrets and the URL's query are in no message and no `Debug`. Messages have the URL's path and what the server says.

mod body;
mod elasticsearch;
mod endpoint;
mod form;
mod json_lines;
mod loki;
mod otlp;
pub(crate) mod placeholders;
mod refusal;
mod request;
mod upload;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http_body_util::BodyExt;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Response, StatusCode};
use tokio::sync::watch;

use self::elasticsearch::Judged;
pub use self::endpoint::Endpoint;
pub use self::form::{Coding, Content, Form};
use self::json_lines::joined;
use self::refusal::refusal;
use self::request::{Made, Target, ToSend, Unmade};
use self::upload::Upload;
use super::bad_lines::{BadLine, Listed, done_except, listed};
use super::client::{Client, client};
use super::connections::Connections;
use super::evidence::{Tail, chain};
use super::trust::{Identity, trust};
use super::{Batch, Epoch, Evidence, Outcome, Paths, Processing, Processor};

/// How much is read of a reply's body. After that the connection is closed.
const REPLY_BYTES_MAX: usize = 64 * 1024;
/// Posts batches.
pub struct HttpPost {
    target: Arc<Target>,
    client: Client<Upload>,
    connections: Connections,
    interrupted: Option<Evidence>,
}

impl fmt::Debug for HttpPost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpPost").field(&self.target.place).finish()
    }
}

impl HttpPost {
    /// Will post to `endpoint`. Nothing is connected before the first batch. The seqs of the batches belong to `epoch`, which
    /// is part of the key, so that two stores or groups may post to one server.
    ///
    /// # Errors
    /// If the URL, a header or the proxy is not valid, or a certificate cannot be read, or there are none to trust.
    pub fn new(endpoint: &Endpoint, paths: Paths, epoch: Epoch) -> io::Result<HttpPost> {
        let target = Target::new(endpoint, paths, epoch)?;
        let identity = match (&endpoint.cert_file, &endpoint.key_file) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            _ => None,
        };
        let tls = trust(endpoint.ca_file.as_deref(), target.is_tls, identity)?;
        let connections = Connections::default();
        let client = client(tls, endpoint.proxy.as_deref(), &connections)?;
        Ok(HttpPost { target: Arc::new(target), client, connections, interrupted: None })
    }

    async fn run(&mut self, batch: &Batch) -> Outcome {
        self.interrupted = None;
        let what = format!("POST of {} to {}", batch.named(), self.target.place);
        let evidence = |how: String, tail: String| Evidence { summary: format!("{what} {how}"), tail };
        let (copy, target) = (batch.clone(), Arc::clone(&self.target));
        let made = tokio::task::spawn_blocking(move || target.make(&copy)).await;
        let not_made = |why: String| evidence(format!("was not made: {why}"), String::new());
        let ToSend { request, left, batch, bad } =
            match made.unwrap_or_else(|error| Err(Unmade::Other(error.to_string()))) {
                Ok(Made::Request(to_send)) => *to_send,
                Ok(Made::Outcome(outcome)) => return outcome,
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
        let except = |bad: &[BadLine]| done_except(&batch, bad, &self.target.place);
        let asked = Asked { form: self.target.encoder.form, lines: batch.line_count(), except: &except };
        let outcome = outcome(response, &mut watch.left, &evidence, &asked).await;
        watch.interrupted = None;
        joined(outcome, bad)
    }
}

/// What a reply is the reply to.
pub(super) struct Asked<'a> {
    pub(super) form: Form,
    pub(super) lines: u64,
    /// The outcome if these lines are bad and the others are done.
    pub(super) except: &'a (dyn Fn(&[BadLine]) -> Outcome + Sync),
}

/// What a reply means for the batch, once it is complete. `left` is how much of the request's body is left to send.
pub(super) async fn outcome(
    response: Response<hyper::body::Incoming>,
    left: &mut watch::Receiver<u64>,
    evidence: &(dyn Fn(String, String) -> Evidence + Sync),
    asked: &Asked<'_>,
) -> Outcome {
    let (status, wait) = (response.status(), retry_after(&response, SystemTime::now()));
    let is_json = is_json(&response);
    let most = match asked.form {
        Form::Elasticsearch => elasticsearch::REPLY_BYTES_MAX,
        _ => REPLY_BYTES_MAX,
    };
    let is_protobuf = asked.form == Form::Otlp && !is_json;
    let read = read(response, most).await;
    let text = read.as_ref().map_or(&[][..], |(text, _)| text);
    let is_success = status.is_success();
    let listed = if asked.form == Form::Elasticsearch {
        Listed::Nothing
    } else if is_json && (is_success || status == StatusCode::UNPROCESSABLE_ENTITY) {
        listed(text)
    } else {
        Listed::Nothing
    };
    let names_lines = matches!(&listed, Listed::Lines(lines) if !lines.is_empty());
    // A server may answer before it has read the whole body. An answer that acks counts only if it reads the rest.
    let had_all = !(is_success || names_lines) || left.wait_for(|left| *left == 0).await.is_ok();
    match read {
        Ok((text, tail)) if had_all && is_success && asked.form == Form::Elasticsearch => {
            of_bulk(&text, tail, status, evidence, asked)
        }
        Ok((text, tail)) if had_all && is_success && is_protobuf => match otlp::rejected(&text) {
            Ok(None) => Outcome::Done,
            // Which they are it does not say: bisecting finds them.
            Ok(Some(why)) => Outcome::Poison(evidence(
                format!("was answered {status}, and the reply {why}"),
                String::new(),
            )),
            Err(why) => {
                Outcome::Failed(evidence(format!("was answered {status}, and the reply {why}"), tail))
            }
        },
        Ok((text, tail)) if had_all => match (refusal(&text).filter(|_| is_success), listed) {
            (Some(refusal), _) => Outcome::Failed(evidence(
                format!("was answered {status}, and the reply says {refusal}"),
                tail,
            )),
            (None, Listed::Lines(lines)) if names_lines => (asked.except)(&lines),
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

/// What the reply of a `_bulk` API means.
fn of_bulk(
    text: &[u8],
    tail: String,
    status: StatusCode,
    evidence: &(dyn Fn(String, String) -> Evidence + Sync),
    asked: &Asked<'_>,
) -> Outcome {
    let told = |why: String, tail| evidence(format!("was answered {status}, and the reply {why}"), tail);
    if text.len() > elasticsearch::REPLY_BYTES_MAX {
        let most = elasticsearch::REPLY_BYTES_MAX;
        return Outcome::TooLarge(told(format!("is longer than {most} bytes; make batches smaller"), tail));
    }
    match elasticsearch::judge(text, asked.lines) {
        Judged::Done(bad) if bad.is_empty() => Outcome::Done,
        Judged::Done(bad) => (asked.except)(&bad),
        Judged::Again(why) => Outcome::Down(told(why, String::new())),
        Judged::Refused(why) => Outcome::Refused(told(why, String::new())),
        Judged::Unclear(why) => Outcome::Failed(told(why, tail)),
    }
}

impl Processor for HttpPost {
    fn name(&self) -> String {
        format!("http {}", self.about())
    }

    fn about(&self) -> String {
        self.target.place.clone()
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
async fn read(
    response: Response<hyper::body::Incoming>,
    most: usize,
) -> Result<(Vec<u8>, String), (String, String)> {
    let (mut body, mut tail, mut text) = (response.into_body(), Tail::default(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| (tail.text(), chain(&error)))?;
        if let Some(data) = frame.data_ref() {
            tail.push(data);
            text.extend_from_slice(data);
        }
        if text.len() > most {
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
