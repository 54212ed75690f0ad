//! A server, and where in it lines go: plain data, as the configuration holds it.

use std::fmt;
use std::path::PathBuf;

use crate::plain::harmless;
use crate::secret::Secret;

/// A server, and the user and database to connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// As it was written, without a password.
    pub url: String,
    /// Where it listens.
    pub address: ServerAddress,
    /// Over TLS; for TCP only.
    pub is_tls: bool,
    /// The user.
    pub user: Option<String>,
    /// The database, by number or name.
    pub database: Option<String>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// A name or an address, and a port.
    Tcp {
        /// Without the brackets of an IPv6 address.
        host: String,
        /// From 1.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// A stream of Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisStream {
    /// Where it is. The database is a number.
    pub server: Server,
    /// Where the password is.
    pub password: Option<Secret>,
    /// Certificates (PEM) to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Its key.
    pub stream: String,
    /// About how many entries are kept; 0 for all.
    pub max_len: u64,
}

/// A table of PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostgresTable {
    /// Where it is. Without a database it is the one named like the user.
    pub server: Server,
    /// Where the password is.
    pub password: Option<Secret>,
    /// Certificates (PEM) to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Its name, perhaps with a schema before it.
    pub table: String,
}

/// A subject of NATS, which a stream of JetStream stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatsSubject {
    /// Nodes of one cluster, all over TLS or none, with one user.
    pub servers: Vec<Server>,
    /// Where the password is.
    pub password: Option<Secret>,
    /// Where the credentials are: a JWT and the seed of an nkey, as `nsc` writes them.
    pub credentials: Option<Secret>,
    /// Certificates (PEM) to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The stream.
    pub stream: String,
    /// Its subject.
    pub subject: String,
}

/// A topic of Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaTopic {
    /// `HOST:PORT` of brokers; one that answers is enough.
    pub brokers: Vec<String>,
    /// The topic.
    pub topic: String,
    /// The compacted topic of what was written.
    pub checkpoint_topic: String,
    /// Over TLS.
    pub is_tls: bool,
    /// How the password is proved.
    pub sasl: Sasl,
    /// The user.
    pub user: Option<String>,
    /// Where the password is.
    pub password: Option<Secret>,
    /// Certificates (PEM) to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// A certificate of our own (PEM), and its key.
    pub cert_file: Option<PathBuf>,
    /// The key of that certificate (PEM).
    pub key_file: Option<PathBuf>,
}

/// How a password is proved to Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sasl {
    /// It is sent.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    #[default]
    ScramSha512,
}

/// A part of a bucket of S3, or of what speaks its protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Prefix {
    /// As it was written: `https://HOST/BUCKET/PREFIX`, or `https://BUCKET.HOST/PREFIX` if the bucket is in the host.
    pub url: String,
    /// Whether the name of the bucket is part of the host.
    pub is_in_host: bool,
    /// The region.
    pub region: String,
    /// What keys end with.
    pub suffix: String,
    /// Where the access key is. Without it the machine is asked for credentials.
    pub access_key_id: Option<Secret>,
    /// Where its secret is.
    pub secret_access_key: Option<Secret>,
    /// Where the token of temporary credentials is.
    pub session_token: Option<Secret>,
    /// Certificates (PEM) to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// `http://HOST:PORT` of a proxy to connect through.
    pub proxy: Option<String>,
}

/// The parts of the URL of a [`S3Prefix`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Place {
    /// Scheme, host and port of the service.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// What keys begin with, without a slash at its ends; empty for none.
    pub prefix: String,
}

impl S3Prefix {
    /// The parts of its URL.
    ///
    /// # Errors
    /// What is wrong with it, as a part of a sentence.
    pub fn place(&self) -> Result<S3Place, String> {
        let expected = match self.is_in_host {
            true => "expected https://BUCKET.HOST/PREFIX",
            false => "expected https://HOST/BUCKET/PREFIX",
        };
        let is_plain =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:[]".contains(&byte));
        let (scheme, rest) = self.url.split_once("://").ok_or(expected)?;
        if !matches!(scheme, "http" | "https") || !is_plain(rest) {
            return Err(format!("{expected}, of letters, digits and . _ -"));
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/');
        let (host, bucket, prefix) = match self.is_in_host {
            true => {
                let (bucket, host) = host.split_once('.').ok_or(expected)?;
                (host, bucket, path)
            }
            false => {
                let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
                (host, bucket, prefix)
            }
        };
        let has_empty = !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | ".."));
        if host.is_empty() || bucket.is_empty() || bucket.contains([':', '[', ']']) || has_empty {
            return Err(expected.to_owned());
        }
        Ok(S3Place {
            endpoint: format!("{scheme}://{host}"),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

/// The URLs of several servers, as they are written in one key.
#[must_use]
pub fn urls(servers: &[Server]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl Default for ServerAddress {
    fn default() -> ServerAddress {
        ServerAddress::Unix(PathBuf::new())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerAddress::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            ServerAddress::Tcp { host, port } => write!(f, "{}:{port}", harmless(host)),
            ServerAddress::Unix(path) => f.write_str(&harmless(&path.to_string_lossy())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_in_the_path_or_in_the_host() {
        let place = |url: &str, is_in_host| {
            S3Prefix { url: url.to_owned(), is_in_host, ..S3Prefix::default() }.place()
        };
        let parts = |endpoint: &str, bucket: &str, prefix: &str| {
            let [endpoint, bucket, prefix] = [endpoint, bucket, prefix].map(str::to_owned);
            Ok(S3Place { endpoint, bucket, prefix })
        };
        assert_eq!(place("https://s3.example/logs/a/b", false), parts("https://s3.example", "logs", "a/b"));
        assert_eq!(place("http://[::1]:9000/logs/", false), parts("http://[::1]:9000", "logs", ""));
        assert_eq!(place("https://logs.s3.example/a/", true), parts("https://s3.example", "logs", "a"));
        for (url, is_in_host) in [
            ("s3://logs/a", false),
            ("https://s3.example", false),
            ("https://s3.example/", false),
            ("https:///logs", false),
            ("https://me:hunter2@s3.example/logs", false),
            ("https://s3.example/logs/a?versionId=1", false),
            ("https://s3.example/logs/a//b", false),
            ("https://s3.example/logs/../b", false),
            ("https://localhost/a", true),
        ] {
            let wrong = place(url, is_in_host).unwrap_err();
            assert!(wrong.starts_with("expected https://") && !wrong.contains("hunter2"), "{url}: {wrong}");
        }
    }
}
