//! What the end of a stream says is stored, when a connection is made.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use tokio::task::JoinSet;

use super::chain::Chain;
use super::errors::fault;
use super::message::{self, Told};
use crate::processor::driver::Note;
use crate::processor::run::Run;
use crate::processor::server::NatsSubject;
use crate::processor::trouble::Trouble;
use crate::processor::written::Written;

/// How often the end of the stream is looked at while messages arrive late.
const LOOKS_MAX: usize = 5;

/// Messages that wait for their acknowledgement. More gain little over a network of milliseconds, and as many are sent one at a time
/// on each new connection.
pub(super) const IN_FLIGHT_MAX: usize = 256;

/// What a run of the service knows of its stream, over all connections.
pub(super) struct Memory {
    stream: String,
    subject: String,
    /// The group, the store and its epoch.
    pub(super) owner: String,
    /// Of this run of the service.
    pub(super) id: String,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What is stored: the messages that say so may be too old to be kept.
    written: Option<Written>,
    /// The number of the latest connection: at first that of the run, so that those of an earlier run are smaller, also of messages that
    /// were not looked at.
    connection: u64,
    /// Up to this sequence messages of an earlier run may be taken: they were on their way when this one began.
    late_until: u64,
}

/// The end of a stream.
pub(super) struct End {
    /// The sequence of its last message, whether that is still stored or not; 0 if it never had one.
    pub(super) last: u64,
    pub(super) note: Option<Note>,
    /// For the connection that has looked.
    pub(super) number: u64,
}

impl Memory {
    pub(super) fn new(to: &NatsSubject, owner: String) -> Memory {
        let (stream, subject) = (to.stream.clone(), to.subject.clone());
        let Run { number: connection, id } = Run::begin();
        Memory { stream, subject, owner, id, known: Mutex::new(Known { connection, ..Known::default() }) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is stored now, and returns it as the note that the last message carries.
    pub(super) fn keep(&self, written: &Written) -> Note {
        self.known().written = Some(written.clone());
        self.note(written)
    }

    fn note(&self, written: &Written) -> Note {
        Note { owner: self.owner.clone(), written: written.to_string() }
    }

    /// Looks at the end of the stream. What arrives meanwhile is seen too.
    pub(super) async fn look(&self, stream: &Stream) -> Result<End, Trouble> {
        let end =
            async || Ok::<_, Trouble>(stream.get_info().await.map_err(Trouble::server)?.state.last_sequence);
        let mut before = end().await?;
        for _ in 0..LOOKS_MAX {
            let told = self.last_told(stream).await?;
            let last = end().await?;
            if std::mem::replace(&mut before, last) != last {
                continue;
            }
            let Some((at, told)) = told else {
                let note = self.without_message(stream, last)?;
                return Ok(End { last, note, number: self.number(last, 0) });
            };
            let by = told.by.clone();
            if told.note.owner != self.owner {
                // The driver refuses it.
                return Ok(End { last, note: Some(told.note), number: self.number(last, by.number) });
            }
            self.refuse_a_copy(at, &by)?;
            let note = self.believed(stream, at, told).await?;
            return Ok(End { last, note: Some(note), number: self.number(last, by.number) });
        }
        Err(Trouble::server(format!("messages keep arriving in the stream {}", self.stream)))
    }

    /// The sequence of the last message that is still there, and what it says.
    async fn last_told(&self, stream: &Stream) -> Result<Option<(u64, Told)>, Trouble> {
        let message = match stream.get_last_raw_message_by_subject(&self.subject).await {
            Ok(message) => message,
            Err(error) => {
                return match error.kind() {
                    LastRawMessageErrorKind::NoMessageFound => Ok(None),
                    LastRawMessageErrorKind::JetStream(why) => Err(Trouble::new(fault(&why), why)),
                    _ => Err(Trouble::server(error)),
                };
            }
        };
        let told = message::told(&message.headers).ok_or_else(|| self.of_somebody_else(message.sequence))?;
        Ok(Some((message.sequence, told)))
    }

    fn of_somebody_else(&self, sequence: u64) -> Trouble {
        let (name, subject) = (&self.stream, &self.subject);
        Trouble::setup(format!(
            "somebody else publishes to {subject}: message {sequence} of the stream {name} is not from here; name a subject that nobody \
             else publishes to"
        ))
    }

    /// The note of a message, once those before it are as it expects.
    async fn believed(&self, stream: &Stream, at: u64, told: Told) -> Result<Note, Trouble> {
        let mut chain = Chain::new(at, told);
        while !chain.in_doubt().is_empty() {
            // All at once: one after the other takes too long over a network. No more than were in flight.
            let (first, last) = chain.in_doubt().into_inner();
            let from = first.max(last.saturating_sub(IN_FLIGHT_MAX as u64));
            let mut asked = JoinSet::new();
            for at in from..=last {
                let stream = stream.clone();
                asked.spawn(async move { (at, stream.get_raw_message(at).await) });
            }
            let mut answers = asked.join_all().await;
            answers.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
            for (at, answer) in answers {
                let told = match answer {
                    Ok(message) => {
                        Some(message::told(&message.headers).ok_or_else(|| self.of_somebody_else(at))?)
                    }
                    Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => None,
                    Err(error) => return Err(Trouble::server(error)),
                };
                chain.look_at(told);
            }
        }
        chain.note().map_err(Trouble::setup)
    }

    /// Refuses a message of another service, with a copy of the store: it has our owner.
    ///
    /// Those of an earlier run of this one may arrive late, but a connection has a greater number than every message before it.
    fn refuse_a_copy(&self, at: u64, by: &Run) -> Result<(), Trouble> {
        let (name, subject, known) = (&self.stream, &self.subject, self.known());
        let is_late = by.number < known.connection && at <= known.late_until;
        // Before the first message of this run, the last one is of an earlier run.
        if by.id == self.id || known.written.is_none() || is_late {
            return Ok(());
        }
        Err(Trouble::setup(format!(
            "another spillq with a copy of this data dir publishes to {subject}: message {at} of the stream {name} is its; stop one of \
             the two, and start the other again"
        )))
    }

    /// A number for a new connection to a stream that ends with the sequence `last`, and a message of the connection `before`.
    fn number(&self, last: u64, before: u64) -> u64 {
        let mut known = self.known();
        known.connection = known.connection.max(before) + 1;
        if known.written.is_none() {
            known.late_until = last + IN_FLIGHT_MAX as u64;
        }
        known.connection
    }

    /// What is known of a stream that has no message any more.
    fn without_message(&self, stream: &Stream, last: u64) -> Result<Option<Note>, Trouble> {
        let (name, subject) = (&self.stream, &self.subject);
        if last == 0 {
            return Ok(None);
        }
        let known = self.known().written.clone();
        if known.is_none() && stream.cached_info().config.max_age.is_zero() {
            return Err(Trouble::setup(format!(
                "the stream {name} had {last} messages and {subject} has none any more: with them, somebody removed the note of what \
                 was written; delete the stream and make it again, and lines that were not acked yet are published anew"
            )));
        }
        Ok(known.map(|written| self.note(&written)))
    }
}
