//! Where batches go, and how: the settings.

use std::path::PathBuf;

use super::form::{Coding, Content, Form};
use crate::processor::Url;
use crate::secret::Secret;

/// Where batches go, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://` or `https://`, with path and query, without a user. The query may have placeholders: `{first_seq}`,
    /// `{last_seq}`, `{key}`.
    pub url: Url,
    /// The form of the body.
    pub form: Form,
    /// What a line is.
    pub content: Content,
    /// How the body is compressed.
    pub coding: Coding,
    /// More headers, name and value, which may have placeholders.
    pub headers: Vec<(String, String)>,
    /// More headers, name and where the value is.
    pub secret_headers: Vec<(String, Secret)>,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A certificate of our own (PEM), with those that lead to its authority, and its key.
    pub cert_file: Option<PathBuf>,
    /// The key of that certificate (PEM).
    pub key_file: Option<PathBuf>,
    /// `http://HOST:PORT` of a proxy to connect through.
    pub proxy: Option<String>,
}
