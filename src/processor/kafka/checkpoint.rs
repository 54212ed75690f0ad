//! The checkpoint: a record in partition 0 of a compacted topic, whose key is the owner and whose value is the note.
//!
//! It is read after the producer was initialised: that has ended the transaction of an earlier one. The end is the *high
//! watermark*. A reader of committed records alone would stop before the first transaction that is open, which may be of somebody
//! else, and miss a newer checkpoint behind it.

use std::time::Duration;

use krafka::admin::{ListOffsetsOptions, OffsetSpec};
use krafka::consumer::TopicPartition;
use krafka::consumer::{Consumer, ConsumerRecord, IsolationLevel};
use krafka::producer::Record;
use krafka::{CloseOptions, Kafka};
use tokio::time::Instant;

use super::errors::trouble;
use super::topics::ANSWER_WAIT;
use crate::plain::harmless;
use crate::processor::driver::Note;
use crate::processor::trouble::Trouble;
use crate::processor::written::Written;

/// Named explicitly: another number of partitions would move a key.
const PARTITION: i32 = 0;
/// The header that says which run of the service wrote a checkpoint.
const RUN: &str = "spillq-run";
const POLL_WAIT: Duration = Duration::from_millis(200);

/// A checkpoint that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) note: Note,
    pub(super) run: String,
}

/// The record that notes what is written.
pub(super) fn record(topic: &str, owner: &str, run: &str, written: &Written) -> Record {
    Record::new(topic, written.to_string())
        .key(owner.to_owned())
        .partition(PARTITION)
        .header(RUN, run.to_owned())
}

/// The checkpoint of `owner`; `None` if there is none. Reading may take as long as `wait`.
///
/// # Errors
/// Also if there is one of the same group and store before it was restored.
pub(super) async fn read(
    kafka: &Kafka,
    topic: &str,
    owner: &str,
    wait: Duration,
) -> Result<Option<Checkpoint>, Trouble> {
    let place = TopicPartition::new(topic, PARTITION);
    let what = format!("reading the checkpoint in {}", harmless(topic));
    let options = ListOffsetsOptions::default().timeout(ANSWER_WAIT);
    let end = kafka.admin().list_offsets([(place.clone(), OffsetSpec::Latest)], options).await;
    let mut end = end.map_err(|error| trouble(&what, &error))?;
    let end = end.remove(&place).ok_or_else(|| Trouble::server(format!("{what}: no offset")))?;
    let end = end.map_err(|error| trouble(&what, &error))?.offset;
    let consumer =
        kafka.consumer_without_group().isolation_level(IsolationLevel::ReadCommitted).build().await;
    let consumer = consumer.map_err(|error| trouble(&what, &error))?;
    let found = until(&consumer, (topic, end), owner, wait).await;
    // It holds nothing that could be lost.
    let closed = consumer.close_with(CloseOptions::new().timeout(ANSWER_WAIT)).await;
    if let Err(error) = closed {
        tracing::debug!("closing the reader of checkpoints: {error}");
    }
    found
}

async fn until(
    consumer: &Consumer,
    (topic, end): (&str, i64),
    owner: &str,
    wait: Duration,
) -> Result<Option<Checkpoint>, Trouble> {
    let what = format!("reading the checkpoint in {}", harmless(topic));
    let began = Instant::now();
    consumer.assign(topic, vec![PARTITION]).await.map_err(|error| trouble(&what, &error))?;
    consumer.seek_to_beginning(topic, PARTITION).await.map_err(|error| trouble(&what, &error))?;
    let mut newest = Newest { owner, checkpoint: None, other: None };
    loop {
        // It also passes what was aborted, and what compaction has removed.
        if consumer.position(topic, PARTITION).await.is_some_and(|position| position >= end) {
            return newest.found(topic);
        }
        if began.elapsed() > wait {
            return Err(Trouble::server(format!(
                "{what}: not at its end within {wait:?}; a transaction of another producer in this topic may be open"
            )));
        }
        for record in consumer.poll(POLL_WAIT).await.map_err(|error| trouble(&what, &error))? {
            newest.see(&record);
        }
    }
}

/// The newest checkpoint of an owner, as far as the topic was read.
struct Newest<'o> {
    owner: &'o str,
    checkpoint: Option<Checkpoint>,
    /// One of the same group and store, with another number of restores.
    other: Option<String>,
}

impl Newest<'_> {
    fn see(&mut self, record: &ConsumerRecord) {
        let text =
            |bytes: Option<&[u8]>| bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::to_owned);
        let Some(key) = text(record.key.as_deref()) else { return };
        let value = text(record.value.as_deref());
        if key == self.owner {
            let header = record.headers.iter().find(|(name, _)| name.as_ref() as &str == RUN);
            let run = text(header.and_then(|(_, value)| value.as_deref())).unwrap_or_default();
            self.checkpoint = value.map(|written| Checkpoint { note: Note { owner: key, written }, run });
        } else if is_restored(&key, self.owner) {
            self.other = value.map(|_| key);
        }
    }

    fn found(self, topic: &str) -> Result<Option<Checkpoint>, Trouble> {
        match (self.checkpoint, self.other) {
            (None, Some(other)) => Err(Trouble::setup(format!(
                "this store was restored, and {} has a checkpoint of it from before: the owner is {}, this is {}; name other topics, or \
                 remove that checkpoint",
                harmless(topic),
                harmless(&other),
                self.owner
            ))),
            (checkpoint, _) => Ok(checkpoint),
        }
    }
}

/// Whether two owners are the same group and store, with another number of restores: `GROUP-STORE-NUMBER`.
fn is_restored(one: &str, other: &str) -> bool {
    let store = |owner: &str| owner.rsplit_once('-').map(|(store, _)| store.to_owned());
    one != other && store(one).is_some() && store(one) == store(other)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(key: &str, value: Option<&str>, run: &str) -> ConsumerRecord {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let mut record = ConsumerRecord::new("checkpoints", 0, 0, Some(bytes(key)), value.map(bytes));
        record.headers.push((RUN.to_owned(), Some(bytes(run))));
        record
    }

    #[test]
    fn the_newest_checkpoint_counts_and_one_from_before_a_restore_is_refused() {
        let found = |records: &[ConsumerRecord]| {
            let mut newest = Newest { owner: "1-07-1", checkpoint: None, other: None };
            records.iter().for_each(|record| newest.see(record));
            newest.found("checkpoints")
        };
        let checkpoint = |written: &str, run: &str| {
            let note = Note { owner: "1-07-1".to_owned(), written: written.to_owned() };
            Ok(Some(Checkpoint { note, run: run.to_owned() }))
        };
        assert_eq!(found(&[]), Ok(None));
        let (old, new) = (record("1-07-1", Some("1-200"), "a"), record("1-07-1", Some("1-300"), "b"));
        assert_eq!(found(&[old.clone(), new.clone()]), checkpoint("1-300", "b"));
        assert_eq!(found(&[old.clone(), record("1-07-1", None, "b")]), Ok(None), "it was removed");
        let before = record("1-07-0", Some("1-900"), "a");
        let told = found(std::slice::from_ref(&before)).unwrap_err();
        assert!(told.why.contains("the owner is 1-07-0, this is 1-07-1"), "{}", told.why);
        assert_eq!(found(&[before.clone(), record("1-07-0", None, "a")]), Ok(None), "somebody removed it");
        // Written since: the operator has removed what was there, and put it back.
        assert_eq!(found(&[before, old]), checkpoint("1-200", "a"));
        // Of another group, or of another store.
        assert_eq!(found(&[record("2-07-0", Some("1"), "a"), record("1-08-0", Some("1"), "a")]), Ok(None));
    }
}
