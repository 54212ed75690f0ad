//! Which kinds of processors there are, and how each is made.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "postgres")]
use super::PostgresTable;
#[cfg(feature = "redis")]
use super::RedisStream;
#[cfg(any(feature = "redis", feature = "postgres"))]
use super::driver::Driver;
#[cfg(feature = "postgres")]
use super::postgres::Postgres;
#[cfg(feature = "redis")]
use super::redis::Redis;
use super::{AppendFile, Endpoint, Epoch, Exec, ExecStream, HttpPost, Input, Processor, Program, Stdout};

/// Which processor, and what it needs.
#[derive(Clone, Debug)]
pub enum Kind {
    /// See [`Exec`].
    Exec {
        /// The command and its surroundings.
        program: Program,
        /// In which form it gets the lines.
        input: Input,
        /// What the seqs of the batches belong to.
        epoch: Epoch,
    },
    /// See [`ExecStream`], and the fields of `Exec`.
    ExecStream {
        /// The command and its surroundings.
        program: Program,
        /// In which form it gets the lines.
        input: Input,
        /// What the seqs of the batches belong to.
        epoch: Epoch,
        /// The longest pause before it is started again.
        restart_max: Duration,
    },
    /// See [`HttpPost`].
    Http(Endpoint),
    /// Adds lines to a stream of Redis, each once.
    #[cfg(feature = "redis")]
    Redis(RedisStream),
    /// Copies lines into a table of PostgreSQL, each once.
    #[cfg(feature = "postgres")]
    Postgres(PostgresTable),
    /// See [`Stdout`].
    Stdout,
    /// See [`AppendFile`].
    File {
        /// The file to append to.
        path: PathBuf,
        /// What the seqs of the batches belong to.
        epoch: Epoch,
    },
}

impl Kind {
    /// Makes the processor. Nothing is run, opened or connected before the first batch.
    ///
    /// # Errors
    /// If a thread cannot be started, standard output is closed, or the certificates to trust cannot be read.
    pub fn build(self) -> io::Result<Box<dyn Processor>> {
        Ok(match self {
            Kind::Exec { program, input, epoch } => Box::new(Exec::new(program, input, epoch)),
            Kind::ExecStream { program, input, epoch, restart_max } => {
                Box::new(ExecStream::new(program, input, epoch, restart_max))
            }
            Kind::Http(destination) => Box::new(HttpPost::new(destination)?),
            #[cfg(feature = "redis")]
            Kind::Redis(stream) => Box::new(Driver::new(Redis::new(stream)?)),
            #[cfg(feature = "postgres")]
            Kind::Postgres(table) => Box::new(Driver::new(Postgres::new(table)?)),
            Kind::Stdout => Box::new(Stdout::new()?),
            Kind::File { path, epoch } => Box::new(AppendFile::new(path, epoch)?),
        })
    }
}
