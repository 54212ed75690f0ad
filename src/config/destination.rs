//! The keys of a processor of kind `http`. Of a secret only its place is read.

use std::path::Path;

use super::paths;
use super::scalar::{text, word};
use super::settings::{Compression, Destination, Format, SecretAt};
use super::written::{Reader, Section};

/// Its keys, which belong nowhere else.
pub(super) const KEYS: [&str; 6] = ["url", "format", "compression", "headers", "secret_headers", "ca_file"];
/// Headers whose values are secrets as a rule: they would show in `config show`.
const SECRET_NAMES: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "x-api-key", "x-auth-token", "x-clickhouse-key"];
/// Headers that say how long the body is, what it is and what may happen on the connection.
const OWN_NAMES: [&str; 6] =
    ["content-length", "transfer-encoding", "content-encoding", "connection", "host", "idempotency-key"];

pub(super) fn destination<'a>(
    reader: &mut Reader<'a>,
    section: &mut Section<'a>,
    folder: &Path,
) -> Destination {
    let mut to = Destination {
        url: String::new(),
        format: Format::Ndjson,
        compression: Compression::None,
        headers: Vec::new(),
        secret_headers: Vec::new(),
        ca_file: None,
    };
    if !reader.get(section, "url", &mut to.url, text(url)) {
        reader.missing(section, "url", "names no destination; write it as url = \"https://host/path\"");
    }
    reader.get(section, "format", &mut to.format, word);
    reader.get(section, "compression", &mut to.compression, word);
    reader.list(section, "headers", &mut to.headers, header);
    reader.list(section, "secret_headers", &mut to.secret_headers, |written| secret_header(folder, written));
    reader.get(section, "ca_file", &mut to.ca_file, text(|written| paths::path(folder, written).map(Some)));
    to
}

fn url(written: &str) -> Result<String, String> {
    let rest = written.strip_prefix("http://").or_else(|| written.strip_prefix("https://"));
    let rest = rest.ok_or("expected http:// or https://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("has a user in it, which would show; use secret_headers".to_owned());
    }
    if authority.is_empty() || !written.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("not a URL; names a host, and spaces are written %20".to_owned());
    }
    Ok(written.to_owned())
}

fn split(written: &str) -> Result<(String, &str), String> {
    let (name, value) = written.split_once(':').ok_or("not a header; write it as \"Name: value\"")?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err("not the name of a header".to_owned());
    }
    if OWN_NAMES.contains(&name.to_ascii_lowercase().as_str()) {
        return Err("is set by spillq itself".to_owned());
    }
    Ok((name.to_owned(), value.trim()))
}

fn header(written: &str) -> Result<(String, String), String> {
    let (name, value) = split(written)?;
    if SECRET_NAMES.contains(&name.to_ascii_lowercase().as_str()) {
        return Err("holds a secret, which would show; use secret_headers".to_owned());
    }
    if !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err("not the value of a header".to_owned());
    }
    Ok((name, value.to_owned()))
}

fn secret_header(folder: &Path, written: &str) -> Result<(String, SecretAt), String> {
    let (name, at) = split(written)?;
    let at = if let Some(path) = at.strip_prefix("file:").filter(|path| !path.is_empty()) {
        SecretAt::File(paths::path(folder, path)?)
    } else if let Some(name) = at.strip_prefix("env:").filter(|name| !name.is_empty()) {
        SecretAt::Env(name.to_owned())
    } else {
        return Err(
            "says not where the secret is; write \"Name: file:PATH\" or \"Name: env:VARIABLE\"".to_owned()
        );
    };
    Ok((name, at))
}
