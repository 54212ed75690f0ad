//! Whether the topics are there and can hold lines and checkpoints.

use std::time::Duration;

use krafka::admin::{AdminClient, ConfigResource, DescribeConfigsOptions, DescribeTopicsOptions};
use krafka::error::{ErrorCode, KrafkaError};

use super::errors::trouble;
use crate::plain::harmless;
use crate::processor::server::KafkaTopic;
use crate::processor::trouble::Trouble;

/// How long an answer may take.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// The longest record that every Kafka takes, unless the topic says otherwise.
const RECORD_BYTES: usize = 1_048_588;

/// What is known of the topics.
pub(super) struct Topics {
    /// The longest batch of records that the topic of the lines takes.
    pub(super) batch_bytes_max: usize,
}

/// Looks at both topics.
pub(super) async fn look(admin: &AdminClient, to: &KafkaTopic) -> Result<Topics, Trouble> {
    let options = DescribeTopicsOptions::default().timeout(ANSWER_WAIT);
    let names = [&to.topic, &to.checkpoint_topic];
    let found = admin.describe_topics(names, options).await;
    for (name, topic) in found.map_err(|error| trouble("asking for the topics", &error))? {
        if let Err(error) = topic {
            return Err(match error {
                KrafkaError::Broker { code: ErrorCode::UnknownTopicOrPartition, .. } => {
                    Trouble::setup(format!(
                        "there is no topic {}; docs/how-to/destinations/kafka.md has the command that makes it",
                        harmless(&name)
                    ))
                }
                error => trouble(&format!("asking for the topic {}", harmless(&name)), &error),
            });
        }
    }
    let policy = config(admin, &to.checkpoint_topic, "cleanup.policy").await?;
    if !policy.as_deref().unwrap_or_default().split(',').any(|policy| policy.trim() == "compact") {
        return Err(Trouble::setup(format!(
            "the topic {} removes old records, and with them the note of what was written; set cleanup.policy=compact",
            harmless(&to.checkpoint_topic)
        )));
    }
    let most = config(admin, &to.topic, "max.message.bytes").await?;
    let batch_bytes_max = most.and_then(|most| most.parse().ok()).unwrap_or(RECORD_BYTES);
    Ok(Topics { batch_bytes_max })
}

/// A setting of a topic.
async fn config(admin: &AdminClient, topic: &str, name: &str) -> Result<Option<String>, Trouble> {
    let resource = ConfigResource::topic(topic);
    let options = DescribeConfigsOptions::default().config_names(vec![name.to_owned()]).timeout(ANSWER_WAIT);
    let what = format!("asking for {name} of the topic {}", harmless(topic));
    let found = admin.describe_configs([resource.clone()], options).await;
    let mut found = found.map_err(|error| trouble(&what, &error))?;
    let entries = found.remove(&resource).unwrap_or(Ok(Vec::new()));
    let entries = entries.map_err(|error| trouble(&what, &error))?;
    Ok(entries.into_iter().find(|entry| entry.name == name).and_then(|entry| entry.value))
}
