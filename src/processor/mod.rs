//! Processors: what batches are delivered to, and what a processor can answer.

mod bad_lines;
mod batch;
mod blocking;
mod client;
mod command;
mod connections;
mod contract;
mod doing;
#[cfg(feature = "notes")]
mod driver;
#[cfg(all(test, feature = "notes"))]
mod driver_model;
mod dump;
mod epoch;
mod evidence;
mod exec;
mod feed;
mod file;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "notes")]
mod given;
mod http;
mod input;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(any(feature = "redis", feature = "postgres"))]
mod link;
#[cfg(feature = "nats")]
mod nats;
mod oom;
#[cfg(feature = "notes")]
mod outage;
mod pace;
mod passthrough;
#[cfg(feature = "postgres")]
mod postgres;
mod procs;
mod program;
#[cfg(feature = "redis")]
mod redis;
mod reply;
mod report;
mod route;
#[cfg(any(feature = "nats", feature = "kafka", feature = "s3"))]
mod run;
#[cfg(feature = "s3")]
mod s3;
#[cfg(test)]
mod sample;
mod server;
pub mod shim;
mod sidecar;
mod start;
mod stderr;
mod stdout;
mod stream;
mod top_level;
#[cfg(feature = "notes")]
mod trouble;
mod trust;
mod url;
mod worker;
mod written;

pub use batch::{Batch, Piece};
pub use contract::{EVIDENCE_BYTES_MAX, Evidence, Forgetting, Outcome, Prepare, Processing, Processor};
pub use epoch::Epoch;
pub use exec::Exec;
pub(crate) use feed::{Feed, Read};
pub use file::AppendFile;
pub(crate) use http::placeholders;
pub use http::{Coding, Content, Endpoint, Form, HttpPost};
pub(crate) use input::chunks;
pub use input::{Input, Named, Paths};
pub use pace::Pace;
pub use passthrough::SAID_BY_COMMAND;
pub use program::{Program, set_command_umask};
pub use server::{
    KafkaTopic, NatsSubject, PostgresTable, RedisStream, S3Place, S3Prefix, Sasl, Server, ServerAddress, urls,
};
pub use stdout::Stdout;
pub use stream::ExecStream;
pub(crate) use stream::header;
pub use url::Url;
pub use worker::{DeliverySettings, Limits, Orders, Worker};
