//! Sends lines to a topic of Kafka, each once for a reader of committed records.
//!
//! A batch is a transaction: its lines, and the [`checkpoint`], which says what is written. A session begins by initialising the
//! producer, which fences an earlier one and ends its transaction, and then reads the checkpoint. After any doubt the session is
//! dropped, and the next one finds out. So every session has a client of its own: after an outage a client can forget its
//! brokers.
//!
//! A record that is too long is found before it is sent: what a transaction says of it afterwards names no record.

mod checkpoint;
mod errors;
mod topics;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use krafka::auth::{AuthConfig, TlsConfig};
use krafka::error::KrafkaError;
use krafka::producer::{Record, TransactionalProducer};
use krafka::{CloseOptions, Compression, Kafka as Client};
use spillq_storage::{Line, Seq, SeqRange, SourceId};

use self::checkpoint::Checkpoint;
use self::errors::trouble;
use self::topics::ANSWER_WAIT;
use super::driver::{Called, Destination, Doing, Driver, Lines, Note};
use super::run::Run;
use super::server::{KafkaTopic, Sasl};
use super::trouble::{Fault, Trouble, read_secret};
use super::written::Written;
use super::{Epoch, Paths, Processor};
use crate::plain::harmless;

const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long a record may wait for its acknowledgement, with repeats. More than an answer takes, less than a transaction.
const DELIVERY_WAIT: Duration = Duration::from_secs(20);
/// Brokers take no longer transactions, unless they are told.
const TRANSACTION_MAX: Duration = Duration::from_secs(15 * 60);
/// Of this the half is for reading the checkpoint.
const READ_MAX: Duration = Duration::from_secs(60);
/// How long a client that is dropped may take to end.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Records that were not sent yet. The rest waits.
const BUFFER_BYTES: usize = 4 << 20;
/// Records that are sent together to one partition.
const BATCH_BYTES: usize = 256 << 10;
/// What a record takes beside its line, key and headers, and a batch beside its records.
const OVERHEAD_BYTES: usize = 256;
/// `transaction.version` from which on a late request of an earlier transaction is refused by the broker.
const TRANSACTION_VERSION: i16 = 2;

impl KafkaTopic {
    /// The processor that sends lines to this topic, each once. It connects at the first batch. The seqs of the lines belong to
    /// `epoch`; `timeout` is that of the group.
    ///
    /// # Errors
    /// None now.
    pub fn processor(self, epoch: Epoch, timeout: Duration, paths: Paths) -> io::Result<Box<dyn Processor>> {
        Ok(Box::new(Driver::new(Kafka::new(self, epoch, timeout), paths)))
    }
}

/// Sends lines.
struct Kafka {
    to: KafkaTopic,
    owner: String,
    /// Of this run of the service: nothing arrives late here, so its number does not matter.
    run: String,
    transaction_timeout: Duration,
    /// How long reading the checkpoint may take: transactions of others end within a minute, unless they are broken. Less than a
    /// batch may take, so that the reason is reported.
    read_wait: Duration,
    /// Whether a checkpoint is of this run.
    has_stored: Mutex<bool>,
}

/// A producer, and what the checkpoint says.
struct Session {
    producer: Option<TransactionalProducer>,
    note: Option<Note>,
    batch_bytes_max: usize,
}

impl Drop for Session {
    fn drop(&mut self) {
        let (Some(producer), Ok(runtime)) = (self.producer.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        // Without that it goes on sending, under an epoch that is over.
        runtime.spawn(async move {
            if let Err(error) = producer.close_with(CloseOptions::new().timeout(CLOSE_WAIT)).await {
                tracing::debug!("closing a producer: {error}");
            }
        });
    }
}

impl Kafka {
    fn new(to: KafkaTopic, epoch: Epoch, timeout: Duration) -> Kafka {
        let transaction_timeout = (timeout.max(DELIVERY_WAIT) + ANSWER_WAIT).min(TRANSACTION_MAX);
        let run = Run::begin().id;
        Kafka {
            to,
            owner: epoch.to_string(),
            run,
            transaction_timeout,
            read_wait: timeout.min(READ_MAX) / 2,
            has_stored: Mutex::new(false),
        }
    }

    fn has_stored(&self) -> MutexGuard<'_, bool> {
        self.has_stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// TLS and who we are. Secrets are read again each time.
    async fn security(&self) -> Result<AuthConfig, Trouble> {
        let path = |path: &std::path::Path| path.display().to_string();
        let mut tls = TlsConfig::new();
        if let Some(ca_file) = &self.to.ca_file {
            tls = tls.with_ca_cert(path(ca_file));
        }
        if let (Some(certificate), Some(key)) = (&self.to.cert_file, &self.to.key_file) {
            tls = tls.with_client_cert(path(certificate), path(key));
        }
        let security = match (&self.to.user, &self.to.password) {
            (Some(user), Some(at)) => {
                let password = read_secret(at).await?;
                match self.to.sasl {
                    Sasl::Plain => AuthConfig::sasl_plain(user, password),
                    Sasl::ScramSha256 => AuthConfig::sasl_scram_sha256(user, password),
                    Sasl::ScramSha512 => AuthConfig::sasl_scram_sha512(user, password),
                }
            }
            _ => AuthConfig::plaintext(),
        };
        Ok(if self.to.is_tls { security.with_tls(tls) } else { security })
    }

    async fn client(&self) -> Result<Client, Trouble> {
        let client = Client::builder(self.to.brokers.join(","))
            .client_id("spillq")
            .security(self.security().await?)
            .request_timeout(ANSWER_WAIT)
            .connect_timeout(CONNECT_WAIT)
            .allow_auto_create_topics(false);
        client.connect().await.map_err(|error| trouble("connecting", &error))
    }

    /// A producer that has fenced any earlier one. Initialising it can fall back to an older protocol if a broker is slow.
    async fn producer(
        &self,
        client: &Client,
        batch_bytes_max: usize,
    ) -> Result<TransactionalProducer, Trouble> {
        let features = client.admin().describe_features(Default::default()).await;
        let features = features.map_err(|error| trouble("asking for the features of the cluster", &error))?;
        if features.finalized_epoch.is_none() {
            return Err(Trouble::server("the broker does not know the features of the cluster yet"));
        }
        let level = features.finalized.iter().find(|feature| feature.name == "transaction.version");
        let is_v2 = level.is_some_and(|level| level.max_version_level >= TRANSACTION_VERSION);
        let producer = client
            .producer()
            .batch_size(BATCH_BYTES.min(batch_bytes_max / 2))
            .buffer_memory(BUFFER_BYTES)
            .delivery_timeout(DELIVERY_WAIT)
            .compression(Compression::Lz4)
            .max_block(ANSWER_WAIT)
            .transaction_timeout(self.transaction_timeout)
            .metrics_push(false)
            .build_transactional(self.transactional_id())
            .await;
        let producer = producer.map_err(|error| trouble("initialising the producer", &error))?;
        if is_v2 && !producer.transaction_version().is_v2() {
            let session = Session { producer: Some(producer), note: None, batch_bytes_max };
            drop(session);
            return Err(Trouble::server(
                "the producer was initialised with an older protocol than the cluster has",
            ));
        }
        Ok(producer)
    }

    fn transactional_id(&self) -> String {
        format!("spillq-{}", self.owner)
    }

    /// The record of a line: the key is its source, so that a source keeps its order in one partition.
    fn record(&self, line: &Line<'_>, names: &BTreeMap<SourceId, String>) -> Record {
        let value = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
        let source = names.get(&line.source).map_or("", String::as_str);
        let record = Record::new(self.to.topic.clone(), Bytes::copy_from_slice(value))
            .key(source.to_owned())
            .header("spillq-seq", line.seq.0.to_string())
            .header("spillq-offset", line.offset.to_string());
        match line.flags.part() {
            Some(part) => record.header("spillq-part", part),
            None => record,
        }
    }

    /// Commits records and the checkpoint in one transaction.
    async fn commit(
        &self,
        session: &mut Session,
        records: impl Iterator<Item = Record>,
        written: &Written,
        doing: Option<&mut Doing>,
    ) -> Result<(), Trouble> {
        let gone = || Trouble::server("the producer is closed");
        let producer = session.producer.as_ref().ok_or_else(gone)?;
        let failed = |error: KrafkaError| trouble("the transaction", &error);
        producer.begin().map_err(failed)?;
        let checkpoint = checkpoint::record(&self.to.checkpoint_topic, &self.owner, &self.run, written);
        for record in records.chain([checkpoint]) {
            // Its acknowledgement is not needed: a record that fails keeps the transaction from committing.
            drop(producer.enqueue(record).await.map_err(failed)?);
        }
        if let Some(doing) = doing {
            doing.begin("committing");
        }
        producer.commit().await.map_err(failed)?;
        *self.has_stored() = true;
        session.note = Some(Note { owner: self.owner.clone(), written: written.to_string() });
        Ok(())
    }
}

impl Destination for Kafka {
    type Session = Session;

    const KIND: &'static str = "kafka";
    const VERB: &'static str = "sending";
    /// Initialising waits for the end of an earlier transaction, and reading for those of others.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

    fn about(&self) -> String {
        format!("{} on {}", harmless(&self.to.topic), harmless(&self.to.brokers.join(",")))
    }

    fn called(&self) -> Called {
        Called {
            target: format!("the topic {}", self.to.topic),
            note: format!("a checkpoint in {}", self.to.checkpoint_topic),
            remedy: "name other topics",
        }
    }

    fn owner(&self) -> &str {
        &self.owner
    }

    async fn connect(&self) -> Result<Session, Trouble> {
        let client = self.client().await?;
        let topics::Topics { batch_bytes_max } = topics::look(&client.admin(), &self.to).await?;
        let producer = self.producer(&client, batch_bytes_max).await?;
        let mut session = Session { producer: Some(producer), note: None, batch_bytes_max };
        let found = checkpoint::read(&client, &self.to.checkpoint_topic, &self.owner, self.read_wait).await?;
        let Some(Checkpoint { note, run }) = found else { return Ok(session) };
        if run != self.run && *self.has_stored() {
            return Err(Trouble::setup(format!(
                "another spillq with a copy of this data dir sends to {}: the newest checkpoint in {} is its; stop one of the two, and \
                 start the other again",
                harmless(&self.to.topic),
                harmless(&self.to.checkpoint_topic)
            )));
        }
        session.note = Some(note);
        Ok(session)
    }

    /// Read when the connection was made: a commit of anybody else fences this producer.
    async fn note(&self, session: &mut Session, _: SeqRange) -> Result<Option<Note>, Trouble> {
        Ok(session.note.clone())
    }

    async fn write(
        &self,
        session: &mut Session,
        lines: &Lines<'_>,
        mut written: Written,
        doing: &mut Doing,
    ) -> Result<Written, Trouble> {
        // A transaction without records cannot be committed.
        if lines.pieces.is_empty() {
            return Ok(written);
        }
        doing.begin("sending");
        let all = || lines.pieces.iter().flat_map(|piece| piece.lines());
        for line in all() {
            let bytes = self.record(&line, lines.names).estimated_size() + OVERHEAD_BYTES;
            if bytes > session.batch_bytes_max {
                let why = format!(
                    "its record is longer than the topic takes (max.message.bytes={})",
                    session.batch_bytes_max
                );
                return Err(Trouble::new(Fault::Line(line.seq), why));
            }
        }
        lines.pieces.iter().for_each(|piece| written.add(piece.covers()));
        let records = all().map(|line| self.record(&line, lines.names));
        self.commit(session, records, &written, Some(doing)).await?;
        Ok(written)
    }

    async fn renote(&self, session: &mut Session, _: Seq, written: &Written) -> Result<(), Trouble> {
        self.commit(session, std::iter::empty(), written, None).await
    }
}
