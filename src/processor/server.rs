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
