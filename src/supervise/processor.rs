//! Which processor a group has: what verdicts decide by.

use std::fmt;

use super::program::ProgramFile;

/// The kind of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessorKind {
    /// A command, started for each batch.
    Exec,
    /// A command that lives on.
    ExecStream,
    /// A URL.
    Http,
    /// A stream of Redis.
    Redis,
    /// A table of PostgreSQL.
    Postgres,
    /// Standard output.
    Stdout,
    /// A file.
    File,
    /// One that a program brought along.
    Own,
}

impl ProcessorKind {
    /// Whether a command processes the lines: it has no reason to fail, unlike a destination that may be down.
    #[must_use]
    pub fn is_command(self) -> bool {
        matches!(self, ProcessorKind::Exec | ProcessorKind::ExecStream)
    }
}

/// The processor of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessorName {
    /// Its kind.
    pub kind: ProcessorKind,
    /// What it works on: a command, a URL, a path; of a program's own processor, its name.
    pub about: String,
    /// The program of a command, to be looked for.
    pub program: Option<ProgramFile>,
}

impl fmt::Display for ProcessorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.kind {
            ProcessorKind::Exec => "exec",
            ProcessorKind::ExecStream => "exec-stream",
            ProcessorKind::Http => "http",
            ProcessorKind::Redis => "redis",
            ProcessorKind::Postgres => "postgres",
            ProcessorKind::Stdout => return f.write_str("stdout"),
            ProcessorKind::File => "file",
            ProcessorKind::Own => return f.write_str(&self.about),
        };
        write!(f, "{word} {}", self.about)
    }
}
