//! Checked settings: plain data with every default filled. Where a part of the service decides by a setting, the setting
//! has the type of that part, and its default.
//!
//! Paths and globs are absolute. Nothing here reads a file, the environment or the command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use spillq_storage::DiskOptions;

use super::value::MIB;
use crate::processor::{Endpoint, KafkaTopic, NatsSubject, PostgresTable, RedisStream, S3Prefix};
use crate::queue::{GroupSettings, WhenFull};
use crate::secret::Secret;
use crate::supervise::ProcessorKind;
use crate::tail::Follow;

/// The name of the group that exists from the creation of a store.
pub const DEFAULT_GROUP: &str = "default";
/// The data dir if none is named, next to the configuration or in the working directory.
pub const DEFAULT_DATA_DIR: &str = "spillq-data";
/// Bytes that all groups together may have leased and read ahead: a row of the memory budget. Batches of groups that ask
/// for more are lowered.
pub const LEASED_BYTES_MAX: u64 = 12 * MIB;
/// Groups, `[[follow]]` sections and globs in one section at most: each group costs a reading buffer and up to
/// 4,096 ack ranges in every manifest, each glob a match per directory entry.
pub const SECTIONS_MAX: usize = 64;
/// Addresses, and names of them, at most: each is a socket, or a comparison with every request.
pub(super) const LISTEN_MAX: usize = 8;
/// Variables of one command at most: each is copied into every start of it.
pub(super) const ENV_MAX: usize = 64;
/// Batches of one group in flight at most.
pub const IN_FLIGHT_MAX: u64 = 64;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the log is.
    pub data_dir: PathBuf,
    /// Lines that wait for this long with nothing leased mean that the processor is never called.
    pub stall_after: Duration,
    /// A commit that takes this long means that the disk hangs: the process ends with status 4.
    pub stuck_after: Duration,
    /// What is read.
    pub follow: Vec<Follow>,
    /// Bytes of the newest part of the log in memory.
    pub window_bytes: usize,
    /// Limits of the log on disk.
    pub disk: DiskOptions,
    /// What happens at the limit.
    pub when_full: WhenFull,
    /// Whether groups skip damaged blocks, or stop at them.
    pub skip_damage: bool,
    /// Where the service listens.
    pub http: Http,
    /// Where consumers lease lines.
    pub consumers: Consumers,
    /// How people run commands about the service.
    pub service: Service,
    /// The consumers of the log. Never empty, names are unique.
    pub groups: Vec<GroupSettings>,
    /// What gets the batches: at most one per group.
    pub processors: Vec<Processor>,
}

/// Where the service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The socket, always, and addresses.
    pub listen: Vec<Listen>,
    /// Whether an address may be another one than of this host.
    pub remote: bool,
    /// Names that requests to the addresses may use, in addition to the addresses themselves and `localhost`.
    pub hosts: Vec<String>,
}

/// A socket of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// The unix socket in the data dir: for everything.
    Unix,
    /// An address: for what only reads.
    Tcp(SocketAddr),
}

/// Where consumers lease lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumers {
    /// Sockets and addresses; none by default.
    pub listen: Vec<ConsumerSocket>,
    /// Whether an address may be another one than of this host.
    pub remote: bool,
    /// The mode of the sockets.
    pub socket_mode: u32,
    /// The group of the system that owns them; that of the service if not given.
    pub socket_group: Option<String>,
    /// The bearer token of all groups that have none of their own.
    pub token: Option<Secret>,
}

/// A socket for consumers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerSocket {
    /// A unix socket.
    Unix(PathBuf),
    /// An address.
    Tcp(SocketAddr),
}

/// How people run commands about the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The prefix of `spillq` in the commands that `doctor` suggests, such as `runuser -u spillq --`.
    pub command_prefix: String,
    /// The same while the service is stopped; empty if it is the same.
    pub stopped_prefix: String,
    /// The command that starts the service again; empty for the one that was typed.
    pub start_command: String,
}

/// What gets the batches of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Its group.
    pub group: String,
    /// What it does with them.
    pub kind: Kind,
}

/// What a processor does with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pipes it to a command that is started for it.
    Exec(Command),
    /// Pipes it to a command that keeps running, and answers.
    ExecStream(Command),
    /// Posts it to a URL.
    Http(Endpoint),
    /// Adds its lines to a stream of Redis.
    Redis(RedisStream),
    /// Copies its lines into a table of PostgreSQL.
    Postgres(PostgresTable),
    /// Publishes its lines to a subject of NATS JetStream.
    Nats(NatsSubject),
    /// Sends its lines to a topic of Kafka.
    Kafka(KafkaTopic),
    /// Stores its lines as objects in a bucket.
    S3(S3Prefix),
    /// Writes its lines to standard output, as they are in their files.
    Stdout,
    /// Appends its lines to a file, as they are in their files.
    File(OutFile),
}

/// A command, and how it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments; never empty.
    pub command: Vec<OsString>,
    /// How lines are passed to it.
    pub input: Input,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Variables that it gets in addition to those of spillq. They may hold secrets: their values are never shown.
    pub env: BTreeMap<String, String>,
    /// Sent to it shortly before its time-out, so that it can report where it hangs.
    pub dump_signal: Option<Signal>,
}

/// How lines are passed to a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// As they are in their files.
    #[default]
    Lines,
    /// One JSON object per line, with seq, source, offset and attempt.
    Ndjson,
}

/// A file that lines are appended to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutFile {
    /// Where it is.
    pub path: PathBuf,
}

impl Settings {
    /// The defaults, with the data dir under `base`: nothing is followed, one group waits for a processor.
    #[must_use]
    pub fn default_with(base: &Path) -> Settings {
        Settings {
            data_dir: base.join(DEFAULT_DATA_DIR),
            stall_after: Duration::from_secs(60),
            stuck_after: Duration::from_secs(120),
            follow: Vec::new(),
            window_bytes: 8 << 20,
            disk: DiskOptions::default(),
            when_full: WhenFull::default(),
            skip_damage: false,
            http: Http { listen: vec![Listen::Unix], remote: false, hosts: Vec::new() },
            consumers: Consumers {
                listen: Vec::new(),
                remote: false,
                socket_mode: 0o660,
                socket_group: None,
                token: None,
            },
            service: Service::default(),
            groups: vec![GroupSettings::named(DEFAULT_GROUP)],
            processors: Vec::new(),
        }
    }

    /// The group of that name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&GroupSettings> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The processor of that group.
    #[must_use]
    pub fn processor(&self, group: &str) -> Option<&Processor> {
        self.processors.iter().find(|processor| processor.group == group)
    }
}

impl Http {
    /// The addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |listen: &Listen| match listen {
            Listen::Unix => None,
            Listen::Tcp(address) => Some(*address),
        };
        self.listen.iter().filter_map(address).collect()
    }
}

impl Consumers {
    /// The paths of its unix sockets.
    #[must_use]
    pub fn unix(&self) -> Vec<PathBuf> {
        let path = |socket: &ConsumerSocket| match socket {
            ConsumerSocket::Unix(path) => Some(path.clone()),
            ConsumerSocket::Tcp(_) => None,
        };
        self.listen.iter().filter_map(path).collect()
    }

    /// Its addresses.
    #[must_use]
    pub fn tcp(&self) -> Vec<SocketAddr> {
        let address = |socket: &ConsumerSocket| match socket {
            ConsumerSocket::Unix(_) => None,
            ConsumerSocket::Tcp(address) => Some(*address),
        };
        self.listen.iter().filter_map(address).collect()
    }
}

impl fmt::Display for ConsumerSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConsumerSocket::Unix(path) => write!(f, "unix:{}", path.display()),
            ConsumerSocket::Tcp(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Unix => f.write_str("unix"),
            Listen::Tcp(address) => address.fmt(f),
        }
    }
}

impl Processor {
    /// The defaults of a processor of that kind. What has to be set is empty.
    pub(super) fn default_of(kind: ProcessorKind) -> Processor {
        Processor { group: DEFAULT_GROUP.to_owned(), kind: Kind::default_of(kind) }
    }
}

impl Kind {
    pub(super) fn default_of(kind: ProcessorKind) -> Kind {
        match kind {
            ProcessorKind::Exec => Kind::Exec(Command::default()),
            ProcessorKind::ExecStream => Kind::ExecStream(Command::default()),
            ProcessorKind::Http => Kind::Http(Endpoint::default()),
            ProcessorKind::Redis => Kind::Redis(RedisStream::default()),
            ProcessorKind::Postgres => Kind::Postgres(PostgresTable::default()),
            ProcessorKind::Nats => Kind::Nats(NatsSubject::default()),
            ProcessorKind::Kafka => Kind::Kafka(KafkaTopic::default()),
            ProcessorKind::S3 => Kind::S3(S3Prefix {
                region: "us-east-1".to_owned(),
                suffix: ".log.zst".to_owned(),
                ..S3Prefix::default()
            }),
            ProcessorKind::Stdout | ProcessorKind::Own => Kind::Stdout,
            ProcessorKind::File => Kind::File(OutFile::default()),
        }
    }

    /// The file that it writes, if it writes one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Kind::File(to) => Some(&to.path),
            _ => None,
        }
    }

    /// Which kind it is, without its settings.
    #[must_use]
    pub fn of(&self) -> ProcessorKind {
        match self {
            Kind::Exec(_) => ProcessorKind::Exec,
            Kind::ExecStream(_) => ProcessorKind::ExecStream,
            Kind::Http(_) => ProcessorKind::Http,
            Kind::Redis(_) => ProcessorKind::Redis,
            Kind::Postgres(_) => ProcessorKind::Postgres,
            Kind::Nats(_) => ProcessorKind::Nats,
            Kind::Kafka(_) => ProcessorKind::Kafka,
            Kind::S3(_) => ProcessorKind::S3,
            Kind::Stdout => ProcessorKind::Stdout,
            Kind::File(_) => ProcessorKind::File,
        }
    }
}
