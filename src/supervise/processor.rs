//! The processor of a group, as verdicts need it.

use std::fmt;

use super::program::ProgramFile;

/// The kind of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessorKind {
    /// A command, started for each batch.
    Exec,
    /// A command that keeps running.
    ExecStream,
    /// A URL.
    Http,
    /// A Redis stream.
    Redis,
    /// A PostgreSQL table.
    Postgres,
    /// A subject of NATS JetStream.
    Nats,
    /// A topic of Kafka.
    Kafka,
    /// Objects in a bucket.
    S3,
    /// Standard output.
    Stdout,
    /// A file.
    File,
    /// The processor of an embedding program.
    Own,
}

impl ProcessorKind {
    /// Whether a command processes the lines: it has no reason to fail, while a destination may be down.
    #[must_use]
    pub fn is_command(self) -> bool {
        matches!(self, ProcessorKind::Exec | ProcessorKind::ExecStream)
    }

    /// Its name in the configuration; empty for [`ProcessorKind::Own`].
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            ProcessorKind::Exec => "exec",
            ProcessorKind::ExecStream => "exec-stream",
            ProcessorKind::Http => "http",
            ProcessorKind::Redis => "redis",
            ProcessorKind::Postgres => "postgres",
            ProcessorKind::Nats => "nats",
            ProcessorKind::Kafka => "kafka",
            ProcessorKind::S3 => "s3",
            ProcessorKind::Stdout => "stdout",
            ProcessorKind::File => "file",
            ProcessorKind::Own => "",
        }
    }
}

/// The processor of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessorName {
    /// Its kind.
    pub kind: ProcessorKind,
    /// What it works on: a command, a URL, a path; for an embedding program, its name.
    pub about: String,
    /// The program of a command.
    pub program: Option<ProgramFile>,
}

impl fmt::Display for ProcessorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ProcessorKind::Own => f.write_str(&self.about),
            kind @ ProcessorKind::Stdout => f.write_str(kind.word()),
            kind => write!(f, "{} {}", kind.word(), self.about),
        }
    }
}
