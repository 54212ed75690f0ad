//! Publishes each line to a subject of NATS that a stream of JetStream stores, once.
//!
//! Every message is a note of what was given up to it ([`message`]), and is published with the condition that the stream ends with the
//! message before it: a compare-and-set. A connection begins with the last message of the stream, which says what is stored ([`end`]).
//!
//! **A window.** Up to [`IN_FLIGHT_MAX`] messages are in flight without a wait in between. Where one is not taken, the server refuses all
//! behind it, as long as nobody else adds to the stream. But messages of an earlier connection may still arrive, from the buffers of a
//! server that stood still; if one comes in between, the condition of a later message of the window is true again by chance. So
//! a new connection first sends one message at a time, until the stream is longer than any late message can expect it to be; and what
//! a message says is only believed if those before it are of its connection ([`chain`]). What remains: if a line is parked
//! or excluded while messages are late, so that a new connection publishes the lines behind it earlier than the old one had,
//! one of these can be stored twice.
//!
//! The condition is about the stream, not about the subject: of a replicated stream, server 2.9.10 takes one message of a subject at a time
//! that has a condition on the subject. So the stream stores no other subject ([`fit`]). No `Nats-Msg-Id` is sent: within the server's
//! window for duplicates a line that is asked for again would be acknowledged and stored nowhere.

mod chain;
mod end;
mod errors;
mod fit;
mod message;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use async_nats::jetstream::context::{ContextBuilder, PublishAckFuture, PublishError};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{Context, publish::PublishAck};
use async_nats::{ConnectOptions, Event, ServerAddr};
use rustls::ClientConfig;
use spillq_storage::{Seq, SeqRange};
use tokio::sync::watch;

use self::end::{End, IN_FLIGHT_MAX, Memory};
use self::errors::{connecting, looking, publishing, said};
use self::message::Sender;
use super::driver::{Called, Destination, Doing, Driver, Lines, Note};
use super::run::Run;
use super::server::NatsSubject;
use super::trouble::{Trouble, read_secret};
use super::trust::trust;
use super::written::Written;
use super::{Epoch, Paths, Processor};
use crate::plain::harmless;

/// Bytes of messages that wait for their acknowledgement: what a slow server makes us keep.
const IN_FLIGHT_BYTES_MAX: usize = 4 << 20;
/// How long an acknowledgement may take. A server that is stopped or without a leader answers nothing.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// How long any other answer may take: less than a connection may.
const ASK_WAIT: Duration = Duration::from_secs(4);
/// Of one server of several.
const CONNECT_WAIT: Duration = Duration::from_secs(3);

impl NatsSubject {
    /// The processor that publishes lines to this subject, each once. It connects at the first batch. The seqs of the lines belong
    /// to `epoch`.
    ///
    /// # Errors
    /// If the certificates to trust cannot be read, or there are none.
    pub fn processor(self, epoch: Epoch, paths: Paths) -> io::Result<Box<dyn Processor>> {
        Ok(Box::new(Driver::new(Nats::new(self, epoch)?, paths)))
    }
}

/// Publishes lines.
struct Nats {
    to: NatsSubject,
    memory: Memory,
    tls: Option<ClientConfig>,
}

/// A connection, and what is known of the stream.
struct Session {
    context: Context,
    by: Run,
    /// Why nothing more can be expected of the connection.
    over: watch::Receiver<Option<Trouble>>,
    /// The sequence of its last message, whether that is still stored or not; 0 if it never had one.
    last: u64,
    /// From this sequence on no message of an earlier connection can be taken any more.
    alone_from: u64,
    note: Option<Note>,
}

/// A message that was sent.
struct Sent {
    ack: PublishAckFuture,
    line: Option<Seq>,
    sequence: u64,
    bytes: usize,
}

impl Nats {
    fn new(to: NatsSubject, epoch: Epoch) -> io::Result<Nats> {
        let is_tls = to.servers.iter().any(|server| server.is_tls);
        let tls = is_tls.then(|| trust(to.ca_file.as_deref(), true, None)).transpose()?;
        let memory = Memory::new(&to, epoch.to_string());
        Ok(Nats { to, memory, tls })
    }

    fn sender<'a>(&'a self, by: &'a Run, acked: u64) -> Sender<'a> {
        Sender { owner: &self.memory.owner, by, acked }
    }

    /// How to connect. Secrets are read again each time.
    async fn options(&self) -> Result<ConnectOptions, Trouble> {
        let mut options = ConnectOptions::new()
            .name("spillq")
            .connection_timeout(CONNECT_WAIT)
            .request_timeout(Some(ASK_WAIT))
            // A connection that is lost is not used any more. Its task ends after some tries.
            .max_reconnects(2 * self.to.servers.len());
        if let Some(tls) = &self.tls {
            options = options.require_tls(true).tls_client_config(tls.clone());
        }
        if let Some(at) = &self.to.credentials {
            options = options.credentials(&read_secret(at).await?).map_err(|error| {
                // The text of the error may have some of it.
                tracing::debug!(kind = ?error.kind(), "credentials");
                Trouble::setup(format!("{at} has no credentials of NATS: a JWT and the seed of an nkey"))
            })?;
        }
        let user = self.to.servers.iter().find_map(|server| server.user.clone());
        match (user, &self.to.password) {
            (Some(user), Some(at)) => Ok(options.user_and_password(user, read_secret(at).await?)),
            (None, Some(at)) => Ok(options.token(read_secret(at).await?)),
            _ => Ok(options),
        }
    }

    /// Sends a message behind the one with the sequence `last`, which becomes its own.
    async fn publish(
        &self,
        session: &Session,
        last: &mut u64,
        message: PublishMessage,
        (line, bytes): (Option<Seq>, usize),
    ) -> Result<Sent, Trouble> {
        let message = message.expected_last_sequence(*last).expected_stream(&self.to.stream);
        let sent = session.context.send_publish(self.to.subject.clone(), message);
        let ack = session.unless_over(sent).await?.map_err(|error| publishing(&error, line))?;
        *last += 1;
        Ok(Sent { ack, line, sequence: *last, bytes })
    }

    /// Waits for an acknowledgement.
    async fn stored(&self, session: &Session, sent: Sent) -> Result<(), Trouble> {
        let Sent { ack, line, sequence, .. } = sent;
        let ack: Result<PublishAck, PublishError> = session.unless_over(ack.into_future()).await?;
        let ack = ack.map_err(|error| publishing(&error, line))?;
        if ack.stream == self.to.stream && ack.sequence == sequence && !ack.duplicate {
            return Ok(());
        }
        Err(Trouble::server(format!(
            "message {sequence} of the stream {} was acknowledged as message {} of the stream {}",
            self.to.stream,
            ack.sequence,
            harmless(&ack.stream)
        )))
    }
}

impl Session {
    /// The result, unless the connection is lost before, or the server denies something.
    async fn unless_over<F: Future>(&self, work: F) -> Result<F::Output, Trouble> {
        unless_over(&self.over, work).await
    }
}

async fn unless_over<F: Future>(
    over: &watch::Receiver<Option<Trouble>>,
    work: F,
) -> Result<F::Output, Trouble> {
    let mut over = over.clone();
    tokio::select! {
        biased;
        trouble = over.wait_for(Option::is_some) => {
            Err(trouble.ok().and_then(|trouble| trouble.clone()).unwrap_or_else(|| Trouble::server("the connection has ended")))
        }
        done = work => Ok(done),
    }
}

impl Destination for Nats {
    type Session = Session;

    const KIND: &'static str = "nats";
    const VERB: &'static str = "publishing";

    fn about(&self) -> String {
        let servers: Vec<String> = self.to.servers.iter().map(|server| server.address.to_string()).collect();
        format!("{} on {}", harmless(&self.to.subject), servers.join(","))
    }

    fn called(&self) -> Called {
        Called {
            target: format!("the subject {}", self.to.subject),
            note: format!("the last message in the stream {}", self.to.stream),
            remedy: "name another stream and subject, or delete the stream and make it again",
        }
    }

    fn owner(&self) -> &str {
        &self.memory.owner
    }

    async fn connect(&self) -> Result<Session, Trouble> {
        let (say, over) = watch::channel(None);
        let options = self.options().await?.event_callback(move |event| {
            let trouble = match event {
                Event::Disconnected | Event::Closed => Some(Trouble::server("the connection was lost")),
                Event::ServerError(error) => said(&error.to_string()),
                _ => None,
            };
            // The first says why.
            say.send_if_modified(|known| {
                let is_new = known.is_none() && trouble.is_some();
                if is_new {
                    *known = trouble;
                }
                is_new
            });
            std::future::ready(())
        });
        let servers = self.to.servers.iter().map(|server| {
            let scheme = if server.is_tls { "tls" } else { "nats" };
            format!("{scheme}://{}", server.address).parse::<ServerAddr>()
        });
        let servers = servers.collect::<Result<Vec<_>, _>>().map_err(Trouble::setup)?;
        let client = options.connect(servers).await.map_err(|error| connecting(&error))?;
        let context = ContextBuilder::new().timeout(ASK_WAIT).ack_timeout(ACK_WAIT);
        // More than are ever sent: waiting here would hide what becomes of them.
        let context =
            context.max_ack_inflight(2 * IN_FLIGHT_MAX).backpressure_on_inflight(true).build(client);
        let stream = unless_over(&over, context.get_stream(&self.to.stream)).await?;
        let stream = stream.map_err(|error| looking(&error, &self.to.stream))?;
        fit::fits(&stream.cached_info().config, &self.to.subject).map_err(Trouble::setup)?;
        let End { last, note, number } = unless_over(&over, self.memory.look(&stream)).await??;
        let by = Run { number, id: self.memory.id.clone() };
        Ok(Session { context, by, over, last, alone_from: last + IN_FLIGHT_MAX as u64, note })
    }

    fn is_open(&self, session: &Session) -> bool {
        session.over.borrow().is_none()
    }

    /// Read when the connection was made; the server compares the sequence with every message.
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
        doing.begin("publishing");
        let (mut end, mut sent, mut bytes) = (session.last, VecDeque::<Sent>::new(), 0);
        for piece in lines.pieces {
            for line in piece.lines() {
                let most = if end < session.alone_from { 1 } else { IN_FLIGHT_MAX };
                while sent.len() >= most || bytes >= IN_FLIGHT_BYTES_MAX {
                    let Some(first) = sent.pop_front() else { break };
                    bytes -= first.bytes;
                    self.stored(session, first).await?;
                }
                written.add(piece.covered_by(line.seq));
                let source = lines.names.get(&line.source).map_or("", String::as_str);
                let acked = sent.front().map_or(end, |first| first.sequence - 1);
                let message = message::of_line(self.sender(&session.by, acked), &line, source, &written);
                let of_line = (Some(line.seq), line.bytes.len());
                sent.push_back(self.publish(session, &mut end, message, of_line).await?);
                bytes += line.bytes.len();
            }
        }
        doing.begin("waiting for the acknowledgements");
        for one in sent {
            self.stored(session, one).await?;
        }
        self.is_now(session, end, &written);
        Ok(written)
    }

    /// A message without a line: consumers see it.
    async fn renote(&self, session: &mut Session, _: Seq, written: &Written) -> Result<(), Trouble> {
        let mut end = session.last;
        let message = message::of_note(self.sender(&session.by, end), written);
        let sent = self.publish(session, &mut end, message, (None, 0)).await?;
        self.stored(session, sent).await?;
        self.is_now(session, end, written);
        Ok(())
    }
}

impl Nats {
    /// All of it is acknowledged.
    fn is_now(&self, session: &mut Session, last: u64, written: &Written) {
        session.last = last;
        session.note = Some(self.memory.keep(written));
    }
}
