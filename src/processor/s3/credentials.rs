//! Credentials: from files or variables, or from the machine or the container that spillq runs in.
//!
//! The addresses and variables are those of AWS: the metadata of an instance (IMDSv2, with a token), and the endpoint of a
//! container. Both are asked directly, over HTTP, without a proxy.

use std::env;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::{Method, Request};
use rusty_s3::Credentials;
use serde::Deserialize;

use super::super::client::{Client, client};
use super::super::connections::Connections;
use super::super::evidence::chain;
use super::super::server::S3Prefix;
use super::super::trouble::{Trouble, read_secret};
use super::super::trust::trust;
use crate::secret::Secret;

const INSTANCE: &str = "http://169.254.169.254";
const CONTAINER: &str = "http://169.254.170.2";
/// How long a token for metadata is valid: for one look.
const TOKEN_SECONDS: &str = "60";
/// Credentials are renewed so long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);
/// A document of credentials has less than 2 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The service is on this machine, or there is none.
const WAIT: Duration = Duration::from_secs(2);

/// Credentials, and until when they are used.
pub(super) struct Held {
    pub(super) credentials: Credentials,
    pub(super) until: Option<SystemTime>,
}

/// The credentials as they are now.
pub(super) async fn credentials(to: &S3Prefix) -> Result<Held, Trouble> {
    let (Some(key), Some(secret)) = (&to.access_key_id, &to.secret_access_key) else {
        return of_machine(&Asked::of(|name| env::var(name).ok())).await;
    };
    let (key, secret) = (read_secret(key).await?, read_secret(secret).await?);
    let credentials = match &to.session_token {
        Some(token) => Credentials::new_with_token(key, secret, read_secret(token).await?),
        None => Credentials::new(key, secret),
    };
    Ok(Held { credentials, until: None })
}

/// Who is asked.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Container { url: String, token: Option<Secret> },
    Instance { endpoint: String },
}

impl Asked {
    /// As these variables say.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Asked {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let relative = set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| CONTAINER.to_owned() + &path);
        if let Some(url) = relative.or_else(|| set("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
            let file = set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(|path| Secret::File(path.into()));
            let name = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
            let token = file.or_else(|| set(name).map(|_| Secret::Variable(name.to_owned())));
            return Asked::Container { url, token };
        }
        let endpoint = set("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| INSTANCE.to_owned());
        Asked::Instance { endpoint: endpoint.trim_end_matches('/').to_owned() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

async fn of_machine(asked: &Asked) -> Result<Held, Trouble> {
    let direct = client(trust(None, false, None).map_err(Trouble::setup)?, None, &Connections::default());
    let direct = direct.map_err(Trouble::setup)?;
    let text = match asked {
        Asked::Container { url, token } => {
            let token = match token {
                Some(at) => Some((AUTHORIZATION, read_secret(at).await?)),
                None => None,
            };
            ask(&direct, Method::GET, url, token).await?
        }
        Asked::Instance { endpoint } => {
            let lives = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
            let url = format!("{endpoint}/latest/api/token");
            let token = ask(&direct, Method::PUT, &url, Some((lives, TOKEN_SECONDS.to_owned()))).await?;
            let header = || Some((HeaderName::from_static("x-aws-ec2-metadata-token"), token.clone()));
            let url = format!("{endpoint}/latest/meta-data/iam/security-credentials/");
            let role = ask(&direct, Method::GET, &url, header()).await?;
            let role = role.lines().next().unwrap_or_default();
            ask(&direct, Method::GET, &format!("{url}{role}"), header()).await?
        }
    };
    held(&text)
}

fn held(text: &str) -> Result<Held, Trouble> {
    // The text of the error may have some of it.
    let document: Document = serde_json::from_str(text)
        .map_err(|_| Trouble::server("this machine answered something else than credentials"))?;
    let until = humantime::parse_rfc3339(&document.expiration)
        .map_err(|_| Trouble::server("this machine gave credentials without a time of expiration"))?;
    let Document { access_key_id, secret_access_key, token, .. } = document;
    let credentials = Credentials::new_with_token(access_key_id, secret_access_key, token);
    Ok(Held { credentials, until: until.checked_sub(RENEW_BEFORE) })
}

async fn ask(
    direct: &Client<Full<Bytes>>,
    method: Method,
    url: &str,
    header: Option<(HeaderName, String)>,
) -> Result<String, Trouble> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().map_err(Trouble::setup)?;
    if let Some((name, value)) = header {
        let value = HeaderValue::try_from(value).map_err(|_| Trouble::server("a token is not one"))?;
        request.headers_mut().insert(name, value);
    }
    // Whoever knows the path of a container's credentials can have them.
    let place = url.split('/').take(3).collect::<Vec<_>>().join("/");
    let text = |why: String| {
        format!(
            "no credentials: access_key_id and secret_access_key are not set, and this machine was asked at {place}: {why}"
        )
    };
    let nothing = |why: String| Trouble::server(text(why));
    let asked = tokio::time::timeout(WAIT, direct.request(request)).await;
    let answer = asked.map_err(|_| nothing(format!("no answer within {WAIT:?}")))?;
    let answer = answer.map_err(|error| nothing(chain(&error)))?;
    if answer.status().is_client_error() {
        // The machine has no role.
        return Err(Trouble::setup(text(format!("it answered {}", answer.status()))));
    }
    if !answer.status().is_success() {
        return Err(nothing(format!("it answered {}", answer.status())));
    }
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
    let body =
        tokio::time::timeout(WAIT, body).await.map_err(|_| nothing("the answer has no end".to_owned()))?;
    let body = body.map_err(|error| nothing(error.to_string()))?;
    String::from_utf8(body.to_bytes().to_vec()).map_err(|_| nothing("it answered bytes".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_say_who_is_asked() {
        let asked = |set: &[(&str, &str)]| {
            Asked::of(|name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(asked(&[]), Asked::Instance { endpoint: INSTANCE.to_owned() });
        assert_eq!(
            asked(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://[::1]:1/")]),
            Asked::Instance { endpoint: "http://[::1]:1".to_owned() }
        );
        assert_eq!(
            asked(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")]),
            Asked::Container { url: "http://169.254.170.2/v2/x".to_owned(), token: None }
        );
        assert_eq!(
            asked(&[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/run/token"),
            ]),
            Asked::Container {
                url: "http://169.254.170.23/v1/credentials".to_owned(),
                token: Some(Secret::File("/run/token".into()))
            }
        );
    }

    #[test]
    fn a_document_is_read_and_no_part_of_a_wrong_one_is_shown() {
        let text = r#"{"Code":"Success","AccessKeyId":"AK","SecretAccessKey":"hunter2","Token":"t","Expiration":"2026-12-01T12:00:00Z"}"#;
        let Ok(found) = held(text) else { panic!() };
        assert_eq!((found.credentials.key(), found.credentials.token()), ("AK", Some("t")));
        assert_eq!(found.until, humantime::parse_rfc3339("2026-12-01T11:55:00Z").ok());
        for wrong in [&text[..60], &text.replace("2026-12-01", "soon"), "hunter2"] {
            let Err(trouble) = held(wrong) else { panic!("{wrong}") };
            assert!(!trouble.why.contains("hunter2"), "{}", trouble.why);
        }
    }
}
