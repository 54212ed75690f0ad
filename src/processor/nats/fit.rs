//! Whether a stream can store lines once, by its configuration. Pure.

use async_nats::jetstream::stream::{Config, PersistenceMode, RetentionPolicy, StorageType};

/// What is wrong with a stream for the lines of `subject`: a part of a sentence, with what to change.
///
/// A message on another subject would shift the sequence that the stream is expected to end with, and one of another publisher would
/// hide the note.
pub(super) fn fits(stream: &Config, subject: &str) -> Result<(), String> {
    let subjects = stream.subjects.join(", ");
    let others =
        stream.mirror.is_some() || stream.sources.as_ref().is_some_and(|sources| !sources.is_empty());
    let wrong = if stream.subjects != [subject] {
        format!("takes the subjects {subjects}; it must take {subject} and no other")
    } else if stream.retention != RetentionPolicy::Limits {
        "removes what was consumed, and with it the note of what was written; set --retention limits"
            .to_owned()
    } else if stream.storage == StorageType::Memory {
        "keeps its messages in memory, so that a restart loses them; set --storage file".to_owned()
    } else if stream.max_messages_per_subject > 0 {
        "keeps only some messages of the subject; set --max-msgs-per-subject=-1".to_owned()
    } else if stream.no_ack {
        "acknowledges nothing; set --ack".to_owned()
    } else if stream.persist_mode == Some(PersistenceMode::Async) {
        "acknowledges before it stores; its persist mode must be the default".to_owned()
    } else if stream.sealed {
        "is sealed: nothing can be added".to_owned()
    } else if others || stream.subject_transform.is_some() {
        "gets messages of other streams, or renames subjects; it must have no mirror, source or transform"
            .to_owned()
    } else {
        return Ok(());
    };
    Err(format!("the stream {} {wrong}", stream.name))
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::stream::Source;

    use super::*;

    #[test]
    fn only_a_stream_with_one_subject_that_keeps_what_it_acknowledged_fits() {
        let good = || Config {
            name: "LINES".to_owned(),
            subjects: vec!["lines.fills".to_owned()],
            max_messages_per_subject: -1,
            ..Config::default()
        };
        assert_eq!(fits(&good(), "lines.fills"), Ok(()));
        let aged = Config { max_age: std::time::Duration::from_secs(3_600), max_bytes: 1 << 30, ..good() };
        assert_eq!(fits(&aged, "lines.fills"), Ok(()));
        let lists = |subjects: &[&str]| subjects.iter().map(|subject| (*subject).to_owned()).collect();
        for (stream, why) in [
            (Config { subjects: lists(&["lines.>"]), ..good() }, "takes the subjects lines.>;"),
            (Config { subjects: lists(&["lines.fills", "other"]), ..good() }, "lines.fills, other;"),
            (Config { subjects: Vec::new(), ..good() }, "must take lines.fills"),
            (Config { retention: RetentionPolicy::WorkQueue, ..good() }, "removes what was consumed"),
            (Config { retention: RetentionPolicy::Interest, ..good() }, "removes what was consumed"),
            (Config { storage: StorageType::Memory, ..good() }, "in memory"),
            (Config { max_messages_per_subject: 1, ..good() }, "some messages"),
            (Config { no_ack: true, ..good() }, "acknowledges nothing"),
            (Config { persist_mode: Some(PersistenceMode::Async), ..good() }, "before it stores"),
            (Config { sealed: true, ..good() }, "is sealed"),
            (Config { mirror: Some(Source::default()), ..good() }, "other streams"),
            (Config { sources: Some(vec![Source::default()]), ..good() }, "other streams"),
        ] {
            let wrong = fits(&stream, "lines.fills").unwrap_err();
            assert!(wrong.starts_with("the stream LINES ") && wrong.contains(why), "{wrong}");
        }
    }
}
