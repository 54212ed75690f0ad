//! The settings of a processor of kind `http`. Of a secret only its place is read.

use std::path::Path;

use super::paths;
use super::server::is_this_host;
use crate::processor::{Url, placeholders};
use crate::secret::Secret;

/// Headers whose values are usually secrets, which `config show` would print.
const SECRET_NAMES: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "x-clickhouse-key"];
/// The names of others end with these.
const SECRET_ENDS: [&str; 4] = ["api-key", "token", "secret", "password"];
/// Headers that spillq sets: about the body and the connection.
const OWN_NAMES: [&str; 6] =
    ["content-length", "transfer-encoding", "content-encoding", "connection", "host", "idempotency-key"];

/// Whether a URL goes to another host without TLS.
pub(super) fn is_plain_url_to_another_host(url: &Url) -> bool {
    let authority = url.whole().strip_prefix("http://").and_then(|rest| rest.split(['/', '?', '#']).next());
    authority.is_some_and(is_another_host)
}

/// Whether `HOST` or `HOST:PORT` is another host than this one.
pub(super) fn is_another_host(authority: &str) -> bool {
    let port = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    let name = port.map_or(authority, |(name, _)| name);
    !is_this_host(name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name))
}

/// The host of `HOST:PORT`, with a port from 1 on; `None` if it is written in another way.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = authority.rsplit_once(':')?;
    port.parse::<u16>().ok().filter(|port| *port > 0)?;
    Some(host).filter(|host| !host.is_empty())
}

pub(super) fn url(written: &str) -> Result<Url, String> {
    if written.contains(Url::HIDDEN) {
        return Err("the query is missing: `spillq config show` leaves it out; write it".to_owned());
    }
    let rest = written.strip_prefix("http://").or_else(|| written.strip_prefix("https://"));
    let rest = rest.ok_or("expected http:// or https://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("contains a user, which would be shown; use secret_headers".to_owned());
    }
    if authority.is_empty() || !written.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("not a URL; it needs a host, and spaces are written %20".to_owned());
    }
    let (before, query) = written.split_once('?').unwrap_or((written, ""));
    placeholders::check(before, false)?;
    placeholders::check(query, true)?;
    Ok(Url::new(written.to_owned()))
}

/// Whether it names a bucket depends on another key: [`check`](super::check).
pub(super) fn bucket_url(written: &str) -> Result<String, String> {
    if !written.starts_with("https://") && !written.starts_with("http://")
        || written.contains(['@', '?', '#'])
    {
        return Err("expected https://HOST/BUCKET/PREFIX, without a user or a query".to_owned());
    }
    Ok(written.trim_end_matches('/').to_owned())
}

/// `HOST:PORT`.
pub(super) fn broker(written: &str) -> Result<String, String> {
    let is_plain =
        |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte));
    match host_of(written) {
        Some(host) if is_plain(host) => Ok(written.to_owned()),
        _ => Err("expected HOST:PORT, such as \"localhost:9092\"".to_owned()),
    }
}

/// As Kafka allows it.
pub(super) fn topic(written: &str) -> Result<String, String> {
    let is_plain = written.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_plain && written.len() <= 249 && !matches!(written, "." | "..") {
        return Ok(written.to_owned());
    }
    Err("not the name of a topic: up to 249 letters, digits and . _ -".to_owned())
}

pub(super) fn region(written: &str) -> Result<String, String> {
    let is_name =
        written.len() <= 64 && written.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_name { Ok(written.to_owned()) } else { Err("not a region, such as \"eu-central-1\"".to_owned()) }
}

/// A key has at most 1,024 bytes.
pub(super) fn suffix(written: &str) -> Result<String, String> {
    let is_plain = written.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let is_number = written.starts_with(|first: char| first.is_ascii_digit());
    if is_plain && !is_number && written.len() <= 64 {
        return Ok(written.to_owned());
    }
    Err("not the end of a key, such as \".log.zst\": letters, digits and . _ -, no digit first".to_owned())
}

/// `http://HOST:PORT`. What is said to a proxy is not encrypted, so it gets no user.
pub(super) fn proxy(written: &str) -> Result<String, String> {
    let expected = "expected http://HOST:PORT";
    let authority = written.strip_prefix("http://").ok_or(expected)?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let is_plain =
        |host: &str| !host.contains(['/', '?', '#', '@']) && host.bytes().all(|byte| byte.is_ascii_graphic());
    match host_of(authority) {
        Some(host) if is_plain(host) => Ok(format!("http://{authority}")),
        _ => Err(expected.to_owned()),
    }
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

pub(super) fn header(written: &str) -> Result<(String, String), String> {
    let (name, value) = split(written)?;
    let lower = name.to_ascii_lowercase();
    if SECRET_NAMES.contains(&lower.as_str()) || SECRET_ENDS.iter().any(|end| lower.ends_with(end)) {
        return Err("contains a secret, which would be shown; use secret_headers".to_owned());
    }
    if !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err("not the value of a header".to_owned());
    }
    placeholders::check(value, true)?;
    Ok((name, value.to_owned()))
}

pub(super) fn secret_header(folder: &Path, written: &str) -> Result<(String, Secret), String> {
    let (name, at) = split(written)?;
    let at = secret_at(folder, at).map_err(
        |_| "does not say where the secret is; write \"Name: file:PATH\" or \"Name: env:VARIABLE\"",
    )?;
    Ok((name, at))
}

/// `file:PATH` or `env:VARIABLE`.
pub(super) fn secret_at(folder: &Path, written: &str) -> Result<Secret, String> {
    if let Some(path) = written.strip_prefix("file:").filter(|path| !path.is_empty()) {
        paths::path(folder, path).map(Secret::File)
    } else if let Some(name) = written.strip_prefix("env:").filter(|name| !name.is_empty()) {
        Ok(Secret::Variable(name.to_owned()))
    } else {
        Err("does not say where the secret is; write \"file:PATH\" or \"env:VARIABLE\"".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::load_text;
    use super::super::{Kind, Sources, as_json, as_toml};
    use super::*;

    #[test]
    fn a_secret_in_a_url_or_a_header_is_shown_nowhere() {
        let text =
            |url: &str, headers: &str| format!("[[processor]]\nkind = \"http\"\nurl = {url:?}\n{headers}\n");
        let good = load_text(
            &text("https://ch.example/in?password=hunter2&query=INSERT", "headers = [\"X-Database: fills\"]"),
            Path::new("/etc/spillq"),
            &Sources::default(),
        )
        .unwrap();
        for shown in [as_toml(&good), as_json(&good).to_string(), format!("{:?}", good.settings)] {
            assert!(
                shown.contains("https://ch.example/in?\u{2026}") && !shown.contains("hunter2"),
                "{shown}"
            );
        }
        let secret = "secret_headers = [\"Authorization: env:TOKEN\"]";
        for (url, warnings) in [
            ("https://ch/", 0),
            ("http://localhost:8123/", 0),
            ("http://127.0.0.1/", 0),
            ("http://[::1]:1?q", 0),
            ("http://[::1]", 0),
            ("http://[::2]", 1),
            ("http://ch:8123/", 1),
            ("http://127.evil.example/", 1),
            ("http://localhost.example", 1),
        ] {
            let loaded =
                load_text(&text(url, secret), Path::new("/etc/spillq"), &Sources::default()).unwrap();
            assert_eq!(loaded.warnings.len(), warnings, "{url}: {:?}", loaded.warnings);
        }
        let Kind::Http(to) = &good.settings.processors[0].kind else { panic!("{:?}", good.settings) };
        assert!(to.url.whole().ends_with("?password=hunter2&query=INSERT"));
        for (url, headers) in [
            ("htp://ch.example/?password=hunter2", ""),
            ("http://user:hunter2@ch.example/", ""),
            ("https://ch.example/?\u{2026}hunter2", ""),
            ("https://a/", "headers = [\"Authorization: Bearer hunter2\"]"),
            ("https://a/", "headers = [\"X-My-Token: hunter2\"]"),
            ("https://a/", "secret_headers = [\"Authorization: hunter2\"]"),
            ("https://a/", "secret_headers = \"Authorization: hunter2\""),
            ("https://a/", "ulr = \"https://a/?password=hunter2\""),
        ] {
            let problems =
                load_text(&text(url, headers), Path::new("/etc/spillq"), &Sources::default()).unwrap_err();
            let told: String = problems.iter().map(ToString::to_string).collect();
            assert!(!told.is_empty() && !told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_where_it_is_written() {
        let load = |more: &str| {
            let text = format!("[[processor]]\nkind = \"http\"\n{more}\n");
            load_text(&text, Path::new("/etc/spillq"), &Sources::default())
        };
        let url = "url = \"https://a/_bulk?token={key}&n={first_seq}-{last_seq}\"";
        let certificate = "cert_file = \"a.pem\"\nkey_file = \"a.key\"";
        for good in [
            format!("{url}\n{certificate}\nproxy = \"http://proxy:3128/\""),
            format!("{url}\nformat = \"lines\"\nbody = \"json\"\nheaders = [\"X-Range: {{first_seq}}\"]"),
            format!("{url}\nformat = \"otlp\"\nbody = \"message\"\nproxy = \"http://[::1]:3128\""),
        ] {
            let loaded = load(&good).unwrap();
            assert_eq!(loaded.warnings, Vec::<String>::new());
            let again = load_text(
                &as_toml(&loaded).replace("?\u{2026}", "?token={key}&n={first_seq}-{last_seq}"),
                Path::new("/"),
                &Sources::default(),
            );
            assert_eq!(again.unwrap().settings.processors, loaded.settings.processors, "{good}");
        }
        for (more, expected) in [
            ("url = \"https://a/{key}/in\"".to_owned(), "{key} belongs in the query"),
            ("url = \"https://a/in?i={index}\"".to_owned(), "{index} is not a placeholder"),
            (format!("{url}\nheaders = [\"X-Index: {{index}}\"]"), "{index} is not a placeholder"),
            (format!("{url}\nbody = \"json\""), "has an object around each line"),
            (format!("{url}\nformat = \"json\"\nbody = \"json\""), "has an object around each line"),
            (format!("{url}\ncert_file = \"a.pem\""), "goes with key_file, which is not set"),
            (format!("{url}\nkey_file = \"a.key\""), "goes with cert_file, which is not set"),
            (format!("url = \"http://localhost/\"\n{certificate}"), "only TLS shows a certificate"),
            (format!("{url}\nproxy = \"https://proxy:3128\""), "expected http://HOST:PORT"),
            (format!("{url}\nproxy = \"http://proxy\""), "expected http://HOST:PORT"),
            (format!("{url}\nproxy = \"http://me:hunter2@proxy:3128\""), "expected http://HOST:PORT"),
            (format!("{url}\nproxy = \"http://proxy:3128/path\""), "expected http://HOST:PORT"),
        ] {
            let problems = load(&more).unwrap_err();
            let told: String = problems.iter().map(ToString::to_string).collect();
            assert!(told.contains(expected) && !told.contains("hunter2"), "{more}: {told}");
        }
    }
}
