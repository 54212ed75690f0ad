//! Checked settings: plain data with every default filled. This is where the defaults are, and nowhere else.
//!
//! Paths and globs are absolute. Nothing here reads a file, the environment or the command line.
// long: the table of all settings

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::destination::{Destination, SecretAt};
use super::server::Server;
use super::value::{GIB, MIB};
use super::word::Word;
use crate::supervise::ProcessorKind;

/// The name of the group that exists from the creation of a store.
pub const DEFAULT_GROUP: &str = "default";
/// The data dir where none is named, beside the configuration or in the working directory.
pub const DEFAULT_DATA_DIR: &str = "spillq-data";
/// Bytes that all groups together may have leased and read ahead: a row of the memory budget. Batches of groups that ask for
/// more are made smaller.
pub const LEASED_BYTES_MAX: u64 = 12 * MIB;
/// Groups, `[[follow]]` sections and globs in one section at most: each group costs a reading buffer and up to
/// 4,096 ack ranges in every manifest, each glob a match per directory entry.
pub const SECTIONS_MAX: usize = 64;
/// Addresses, and names of them, at most: each is a socket, or a comparison with every request.
pub(super) const LISTEN_MAX: usize = 8;
/// Variables of one command at most: each is copied into every start of it.
pub(super) const ENV_MAX: usize = 64;
/// Batches of one group in flight at most.
pub const IN_FLIGHT_MAX: u32 = 64;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the log is.
    pub data_dir: PathBuf,
    /// Lines that wait for so long with nothing leased mean that the processor is never called.
    pub stall_after: Duration,
    /// A commit that takes so long means that the disk hangs: the process ends with status 4.
    pub stuck_after: Duration,
    /// What is read.
    pub follow: Vec<Follow>,
    /// The newest part of the log in memory.
    pub window: Window,
    /// Limits of the log on disk.
    pub disk: Disk,
    /// Where the service listens.
    pub http: Http,
    /// Where the service runs.
    pub service: Service,
    /// Who consumes the log. Never empty, names are unique.
    pub groups: Vec<Group>,
    /// Who gets the batches: at most one a group.
    pub processors: Vec<Processor>,
}

/// A set of globs whose files are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Absolute globs; `*` and `?` do not match `/`, `**` does. [`super::STDIN`] is standard input.
    pub include: Vec<String>,
    /// Globs, over the whole path like `include`, of files to leave out.
    pub exclude: Vec<String>,
    /// Where files begin that exist at the very first start.
    pub from: Start,
    /// Longer lines are cut into marked parts.
    pub max_line_bytes: u64,
    /// How long a file that was renamed away stays quiet before its last line without a newline is taken.
    pub rotate_wait: Duration,
    /// Symbolic links are followed as long as they end below this folder; none are without it.
    pub symlinks: Option<PathBuf>,
}

/// The newest part of the log in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its size at most.
    pub bytes: u64,
}

/// Limits of the log on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Reading pauses when the log takes so much.
    pub limit: u64,
    /// Reading pauses when the file system has less free.
    pub min_free: u64,
    /// Set aside, and given back when an open, an ack or a roll would otherwise fail.
    pub reserve: u64,
    /// What happens at `limit`.
    pub when_full: WhenFull,
    /// What a group does at a damaged block.
    pub on_damage: OnDamage,
    /// What of settled lines stays.
    pub keep: Keep,
}

/// How long lines stay that every group has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Until they are so old; with zero they go at once.
    Age(Duration),
    /// While they take so much.
    Bytes(u64),
}

/// Where the service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The socket, always, and addresses.
    pub listen: Vec<Listen>,
    /// Whether an address may be another than of this host alone.
    pub remote: bool,
    /// Names by which requests may ask for the addresses, besides the addresses themselves and `localhost`.
    pub hosts: Vec<String>,
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

/// Where the service runs: how people type commands about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// What stands before `spillq` in the commands that `doctor` suggests, such as `runuser -u spillq --`.
    pub command_prefix: String,
    /// The same while the service is stopped; empty for the same.
    pub stopped_prefix: String,
    /// The command that starts the service again; empty for the one that was typed.
    pub start_command: String,
}

/// A consumer of the whole log with an ack state of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// 1 to 64 of `a-z`, `0-9`, `_` and `-`.
    pub name: String,
    /// Where it begins when it is new.
    pub start: Start,
    /// Whether a batch waits for the one before it.
    pub order: Order,
    /// Batches leased at once at most; 1 in strict order.
    pub in_flight: u32,
    /// A batch that takes longer is ended and leased again.
    pub timeout: Duration,
    /// How large a batch is.
    pub batch: BatchLimits,
    /// What follows a failure.
    pub retry: Retry,
    /// What becomes of a line that fails again and again without being blamed.
    pub stuck: Stuck,
    /// What it may leave behind.
    pub max_lag: MaxLag,
    /// Lines handed out in a second, all its processors together; 0 for as many as they take.
    pub rate: u64,
}

/// What a group may leave behind. Zero is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxLag {
    /// Lines.
    pub lines: u64,
    /// Age of the oldest.
    pub age: Duration,
    /// Bytes.
    pub bytes: u64,
    /// What happens at a bound.
    pub policy: LagPolicy,
}

/// What happens when a group leaves too much behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagPolicy {
    /// Reading pauses.
    Block,
    /// Its oldest lines are dropped for it.
    Drop,
}

impl Word for LagPolicy {
    const ALL: &'static [(&'static str, LagPolicy)] =
        &[("block", LagPolicy::Block), ("drop", LagPolicy::Drop)];
}

/// How large a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Lines at most.
    pub lines: u64,
    /// Bytes at most; a single longer line is a batch of its own.
    pub bytes: u64,
    /// How long a smaller batch waits for more lines.
    pub linger: Duration,
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The first back-off; it doubles from there.
    pub initial: Duration,
    /// The longest back-off.
    pub max: Duration,
    /// Failures of a line alone after which it can become a dead letter.
    pub attempts: u32,
    /// Rejected lines in a row after which the group stops instead of dead-lettering more.
    pub rejects: u32,
    /// How long a line has to fail before `stuck = "dead_letter"` gives up on it.
    pub give_up_after: Duration,
}

/// What becomes of a line that fails again and again without being blamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// It is retried for ever; in strict order nothing overtakes it.
    Hold,
    /// It becomes a dead letter after `retry.attempts` failures and `retry.give_up_after`.
    DeadLetter,
}

impl Word for Stuck {
    const ALL: &'static [(&'static str, Stuck)] =
        &[("hold", Stuck::Hold), ("dead_letter", Stuck::DeadLetter)];
}

/// Who gets the batches of a group.
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
    Http(Destination),
    /// Adds its lines to a stream of Redis.
    Redis(Stream),
    /// Copies its lines into a table of PostgreSQL.
    Postgres(Table),
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
    pub dump_signal: Option<DumpSignal>,
}

/// A file that lines are appended to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutFile {
    /// Where it is.
    pub path: PathBuf,
}

/// A signal that makes some programs print where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DumpSignal {
    Abrt,
    Hup,
    Int,
    Quit,
    Usr1,
    Usr2,
}

impl Word for DumpSignal {
    const ALL: &'static [(&'static str, DumpSignal)] = &[
        ("USR1", DumpSignal::Usr1),
        ("USR2", DumpSignal::Usr2),
        ("QUIT", DumpSignal::Quit),
        ("ABRT", DumpSignal::Abrt),
        ("HUP", DumpSignal::Hup),
        ("INT", DumpSignal::Int),
    ];
}

/// A stream of Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Where it is.
    pub server: Server,
    /// Where the password is.
    pub password: Option<SecretAt>,
    /// Certificates to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Its key.
    pub stream: String,
    /// About so many entries are kept; 0 for all.
    pub max_len: u64,
}

/// A table of PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Where it is.
    pub server: Server,
    /// Where the password is.
    pub password: Option<SecretAt>,
    /// Certificates to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Its name, perhaps with a schema before it.
    pub table: String,
}

/// From where something is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From the oldest that is there.
    Beginning,
    /// Only what comes from now on.
    End,
}

impl Word for Start {
    const ALL: &'static [(&'static str, Start)] = &[("beginning", Start::Beginning), ("end", Start::End)];
}

/// What happens when the log is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Reading pauses; the files wait.
    Pause,
    /// The oldest segment is dropped, whoever needs it.
    DropOldest,
}

impl Word for WhenFull {
    const ALL: &'static [(&'static str, WhenFull)] =
        &[("pause", WhenFull::Pause), ("drop_oldest", WhenFull::DropOldest)];
}

/// What a group does at a damaged block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// It stops there until the damage is repaired.
    Hold,
    /// It goes on behind it; the block counts as lost.
    Skip,
}

impl Word for OnDamage {
    const ALL: &'static [(&'static str, OnDamage)] = &[("hold", OnDamage::Hold), ("skip", OnDamage::Skip)];
}

/// A socket of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// The unix socket in the data dir: for everything.
    Unix,
    /// An address: for what only reads.
    Tcp(SocketAddr),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Unix => f.write_str("unix"),
            Listen::Tcp(address) => address.fmt(f),
        }
    }
}

/// Whether a batch waits for the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It does: lines are processed in seq order.
    Strict,
    /// It does not: several are in flight.
    None,
}

impl Word for Order {
    const ALL: &'static [(&'static str, Order)] = &[("strict", Order::Strict), ("none", Order::None)];
}

/// In what form a command gets its lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// As they are in their files.
    #[default]
    Lines,
    /// One JSON object a line, with seq, source, offset and attempt.
    Ndjson,
}

impl Word for Input {
    const ALL: &'static [(&'static str, Input)] = &[("lines", Input::Lines), ("ndjson", Input::Ndjson)];
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
            window: Window { bytes: 8 * MIB },
            disk: Disk {
                limit: 50 * GIB,
                min_free: 256 * MIB,
                reserve: 64 * MIB,
                when_full: WhenFull::Pause,
                on_damage: OnDamage::Hold,
                keep: Keep::Age(Duration::ZERO),
            },
            http: Http { listen: vec![Listen::Unix], remote: false, hosts: Vec::new() },
            service: Service::default(),
            groups: vec![Group::default_with(DEFAULT_GROUP)],
            processors: Vec::new(),
        }
    }

    /// The group of that name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The processor of that group.
    #[must_use]
    pub fn processor(&self, group: &str) -> Option<&Processor> {
        self.processors.iter().find(|processor| processor.group == group)
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
            ProcessorKind::Http => Kind::Http(Destination::default()),
            ProcessorKind::Redis => Kind::Redis(Stream::default()),
            ProcessorKind::Postgres => Kind::Postgres(Table::default()),
            ProcessorKind::Stdout | ProcessorKind::Own => Kind::Stdout,
            ProcessorKind::File => Kind::File(OutFile::default()),
        }
    }

    /// The word in `kind`.
    #[must_use]
    pub fn word(&self) -> ProcessorKind {
        match self {
            Kind::Exec(_) => ProcessorKind::Exec,
            Kind::ExecStream(_) => ProcessorKind::ExecStream,
            Kind::Http(_) => ProcessorKind::Http,
            Kind::Redis(_) => ProcessorKind::Redis,
            Kind::Postgres(_) => ProcessorKind::Postgres,
            Kind::Stdout => ProcessorKind::Stdout,
            Kind::File(_) => ProcessorKind::File,
        }
    }
}

impl Word for ProcessorKind {
    const ALL: &'static [(&'static str, ProcessorKind)] = &[
        ("exec", ProcessorKind::Exec),
        ("exec-stream", ProcessorKind::ExecStream),
        ("http", ProcessorKind::Http),
        ("redis", ProcessorKind::Redis),
        ("postgres", ProcessorKind::Postgres),
        ("stdout", ProcessorKind::Stdout),
        ("file", ProcessorKind::File),
    ];
}

impl Follow {
    /// The defaults, for these absolute globs.
    #[must_use]
    pub fn default_with(include: Vec<String>) -> Follow {
        Follow {
            include,
            exclude: Vec::new(),
            from: Start::Beginning,
            max_line_bytes: 8 * MIB,
            rotate_wait: Duration::from_secs(60),
            symlinks: None,
        }
    }
}

impl Group {
    /// The defaults, for a group of that name.
    #[must_use]
    pub fn default_with(name: &str) -> Group {
        Group {
            name: name.to_owned(),
            start: Start::Beginning,
            order: Order::Strict,
            in_flight: 1,
            timeout: Duration::from_secs(30),
            batch: BatchLimits { lines: 10_000, bytes: 4 * MIB, linger: Duration::ZERO },
            retry: Retry {
                initial: Duration::from_millis(200),
                max: Duration::from_secs(30),
                attempts: 8,
                rejects: 100,
                give_up_after: Duration::from_secs(600),
            },
            stuck: Stuck::Hold,
            max_lag: MaxLag { lines: 0, age: Duration::ZERO, bytes: 0, policy: LagPolicy::Block },
            rate: 0,
        }
    }
}
