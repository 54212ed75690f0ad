//! One integration crate for the service.
#![allow(unreachable_pub, reason = "nothing else uses this crate")]
#![warn(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used, reason = "helpers of tests may stop at the first surprise too")]

/// Alerts and a dashboard.
mod alerts;
/// Copies of a store, restored.
mod backup;
mod bench;
/// The service and the server that it delivers to, killed at random.
mod chaos;
/// What the built program prints, and how it ends.
mod cli;
/// Batches into a server like ClickHouse, with kills on both sides.
mod clickhouse;
/// Commands on a store: which store they find, and what they print of it.
mod commands;
/// Consumers that lease lines over HTTP.
mod consumers;
/// The process killed at any moment.
mod crash;
/// Dead letters, listed, shown and exported.
mod dead_letter;
/// Order, failure, blame and dead letters.
mod delivery;
/// Disks that fill up and lose power.
mod disk;
/// What doctor says, of each situation in which it was wrong once.
mod doctor;
/// Commands that are run for each batch, with real processes.
mod exec;
/// Stores and backups of an older format version.
mod format;
/// The four hypotheses of an incident, and that doctor distinguishes them.
mod incident;
/// Real files ingested, rotated and drained.
mod ingest;
/// Errors of the disk, and how the program ends.
mod io_error;
/// Lines into a topic of Apache Kafka, with kills on both sides.
#[cfg(feature = "kafka")]
mod kafka;
/// Groups that are moved, bounded, or left behind, and a log that may drop.
mod limits;
/// Supervision from outside: systemd, and a health check.
mod manager;
/// More files than are followed, and many that cannot be read.
mod many_files;
/// Messages on standard error.
mod messages;
/// Figures and addresses of a running service.
mod metrics;
/// Lines into NATS JetStream, one node and a cluster, with kills on both sides.
mod nats;
/// What comes with the program: configurations, unit file, package.
mod packaging;
/// Files that gzip and zstd compress.
mod packed;
/// Batches posted to servers, hostile ones too.
mod post;
/// Lines into tables of a real PostgreSQL.
mod postgres;
/// Servers of `tests/servers`.
mod receiver;
/// Lines to real receivers of logs: OpenSearch, VictoriaLogs.
mod receivers;
/// Lines into streams of a real Redis.
mod redis;
/// The configuration changed under a running service, and few descriptors.
mod reload;
/// Damage, and what a repair keeps.
mod repair;
/// Lines into objects of a bucket.
mod s3;
/// Batches made by hand.
#[path = "../../src/processor/sample.rs"]
mod sample;
/// What it starts, writes and connects to, and who can read that.
mod security;
/// Groups over some sources.
mod some_sources;
/// Followed files that are somewhere else.
mod source;
/// Commands that live on from batch to batch, with real Python.
mod stream;
/// Standard input and FIFOs, with real programs at their other end.
mod streams;
/// What they share: programs that are bounded, what is needed of the machine, the list of what was skipped.
mod support;
/// What a terminal must never be sent.
mod terminal;
/// Rules of the code base that a compiler cannot hold.
mod test_consumer;
mod tidy;
/// The live screen.
mod top;
