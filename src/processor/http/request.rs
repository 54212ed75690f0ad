//! The request for a batch.

use std::io;

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use tokio::sync::watch;

use super::super::{Batch, Epoch, Paths};
use super::body::Encoder;
use super::endpoint::Endpoint;
use super::form::Content;
use super::json_lines::{Split, split};
use super::placeholders::Template;
use super::upload::Upload;
use crate::plain::harmless;
use crate::processor::Outcome;
use crate::queue::Rejected;
use crate::secret::Secret;

/// An endpoint after it was checked.
pub(super) struct Target {
    /// With its placeholders, which are in the query alone.
    url: Template,
    /// Scheme, host and path, without the query: that may have secrets.
    pub(super) place: String,
    pub(super) is_tls: bool,
    headers: Vec<(HeaderName, Template)>,
    secret_headers: Vec<(HeaderName, Secret)>,
    pub(super) encoder: Encoder,
}

/// What there is to do for a batch.
pub(super) enum Made {
    Request(Box<ToSend>),
    /// Nothing: this is what became of it.
    Outcome(Outcome),
}

/// A request, ready to be sent.
pub(super) struct ToSend {
    pub(super) request: Request<Upload>,
    /// How much of its body is left to send.
    pub(super) left: watch::Receiver<u64>,
    /// Its lines.
    pub(super) batch: Batch,
    /// Lines that were left out of it.
    pub(super) bad: Vec<Rejected>,
}

/// Why a request could not be made.
pub(super) enum Unmade {
    /// The configuration's fault.
    Secret(String),
    Other(String),
}

impl Target {
    pub(super) fn new(endpoint: &Endpoint, paths: Paths, epoch: Epoch) -> io::Result<Target> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| io::Error::other(format!("{what}: {error}"));
        let name = |name: &str| name.parse::<HeaderName>().map_err(|error| wrong(name, &error));
        let whole = endpoint.url.whole();
        let url: Uri = whole.parse().map_err(|error| wrong("the url", &error))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(wrong("the url", &"it begins with neither http:// nor https://"));
        }
        let header = |(header, value): &(String, String)| {
            value.parse::<HeaderValue>().map_err(|error| wrong(header, &error))?;
            Ok((name(header)?, Template::new(value)))
        };
        let secret = |(header, secret): &(String, Secret)| Ok((name(header)?, secret.clone()));
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let scheme = url.scheme_str().unwrap_or("http");
        Ok(Target {
            url: Template::new(whole),
            place: harmless(&format!("{scheme}://{authority}{}", url.path())),
            is_tls: scheme == "https",
            headers: endpoint.headers.iter().map(header).collect::<io::Result<_>>()?,
            secret_headers: endpoint.secret_headers.iter().map(secret).collect::<io::Result<_>>()?,
            encoder: Encoder {
                form: endpoint.form,
                content: endpoint.content,
                coding: endpoint.coding,
                paths,
                owner: epoch.to_string(),
            },
        })
    }

    /// The request for a batch. Blocks for as long as its body takes to be made.
    pub(super) fn make(&self, batch: &Batch) -> Result<Made, Unmade> {
        let Split { rest, bad } = match self.encoder.content {
            Content::Json => match split(batch, self.encoder.form) {
                Ok(split) => split,
                Err(outcome) => return Ok(Made::Outcome(outcome)),
            },
            Content::Message => Split { rest: Some(batch.clone()), bad: Vec::new() },
        };
        let Some(rest) = rest else { return Ok(Made::Outcome(Outcome::DoneExcept(bad))) };
        let (request, left) = self.request(&rest)?;
        Ok(Made::Request(Box::new(ToSend { request, left, batch: rest, bad })))
    }

    fn request(&self, batch: &Batch) -> Result<(Request<Upload>, watch::Receiver<u64>), Unmade> {
        let other = |error: &dyn std::fmt::Display| Unmade::Other(error.to_string());
        let body = self.encoder.body(batch).map_err(|error| other(&error))?;
        let (body, left) = Upload::new(body);
        let (range, key) = (batch.range(), self.key(batch));
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.filled(range, &key).parse::<Uri>().map_err(|error| other(&error))?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("spillq/", env!("CARGO_PKG_VERSION"))));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.encoder.form.content_type()));
        for (name, value) in &self.headers {
            let value = HeaderValue::try_from(value.filled(range, &key)).map_err(|error| other(&error))?;
            headers.insert(name, value);
        }
        for (name, secret) in &self.secret_headers {
            let mut value = HeaderValue::try_from(secret.read().map_err(Unmade::Secret)?).map_err(|_| {
                Unmade::Secret(format!("the secret for {name} cannot be the value of a header"))
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        // Last, so that the configuration cannot replace what describes the body.
        if let Some(coding) = self.encoder.coding.name() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        let key = HeaderValue::try_from(key).map_err(|error| other(&error))?;
        headers.insert(HeaderName::from_static("idempotency-key"), key);
        Ok((request, left))
    }

    /// The same for the same lines of a group, and for no others: the only gaps in a lease are lines that are lost, which are
    /// never delivered again, and lines that can never be sent.
    fn key(&self, batch: &Batch) -> String {
        let range = batch.range();
        format!("{}-{}-{}-{}", batch.group(), self.encoder.owner, range.first, range.last)
    }
}
