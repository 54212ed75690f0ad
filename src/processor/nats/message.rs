//! A line as a message: the line is the payload, and headers say which line it is and what was written up to it.
//!
//! `Spillq-Written` makes every message the note of the lines that were given: of a batch that was cut off anywhere, the last
//! message of the subject says what is there. A message without a line, which has no `Spillq-Seq`, carries a note only.

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use spillq_storage::Line;

use crate::processor::driver::Note;
use crate::processor::written::Written;

const OWNER: &str = "Spillq-Owner";
const RUN: &str = "Spillq-Run";
const WRITTEN: &str = "Spillq-Written";
const SEQ: &str = "Spillq-Seq";
const SOURCE: &str = "Spillq-Source";
const OFFSET: &str = "Spillq-Offset";
const PART: &str = "Spillq-Part";

/// Who publishes.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    /// The group, the store and its epoch: the owner of the note.
    pub(super) owner: String,
    /// Another one in each run of the service, to tell two services with a copy of one store from each other.
    pub(super) run: String,
}

/// The message of a line. `written` is what is written with it.
pub(super) fn of_line(by: &Publisher, line: &Line<'_>, source: &str, written: &Written) -> PublishMessage {
    let payload = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
    let message = of_note(by, written)
        .payload(Bytes::copy_from_slice(payload))
        .header(SEQ, line.seq.0.to_string().as_str())
        .header(SOURCE, harmless(source).as_str())
        .header(OFFSET, line.offset.to_string().as_str());
    match line.flags.part() {
        Some(part) => message.header(PART, part),
        None => message,
    }
}

/// A message without a line.
pub(super) fn of_note(by: &Publisher, written: &Written) -> PublishMessage {
    let message = PublishMessage::build().header(OWNER, by.owner.as_str()).header(RUN, by.run.as_str());
    message.header(WRITTEN, written.to_string().as_str())
}

/// The run of the service that published a message.
pub(super) fn run_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(RUN).map(|run| run.as_str())
}

/// What a message says; `None` if it is not one of spillq.
pub(super) fn note_of(headers: &HeaderMap) -> Option<Note> {
    let text = |name: &str| Some(headers.get(name)?.as_str().to_owned());
    Some(Note { owner: text(OWNER)?, written: text(WRITTEN)? })
}

/// Control characters would end a header.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use spillq_storage::{Seq, SeqRange};

    use super::super::super::sample;
    use super::*;

    #[test]
    fn a_message_is_a_note_whatever_the_path_contains() {
        let written = Written::of([SeqRange { first: Seq(1), last: Seq(4) }, SeqRange::one(Seq(7))]);
        let block = sample::block(7, &[b"a line"]);
        let line = block.lines().next().unwrap();
        let by = Publisher { owner: "1-07-0".to_owned(), run: "a".to_owned() };
        let message = of_line(&by, &line, "/log/a\r\nSpillq-Owner: 2\u{1b}", &written).outbound_message("s");
        let headers = message.headers.unwrap();
        assert_eq!(&message.payload[..], b"a line");
        assert_eq!(note_of(&headers), Some(Note { owner: "1-07-0".to_owned(), written: "1-4,7".to_owned() }));
        let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        assert_eq!(text(SEQ).as_deref(), Some("7"));
        assert_eq!(text(OFFSET).as_deref(), Some("100"));
        assert_eq!(text(SOURCE).as_deref(), Some("/log/a\u{fffd}\u{fffd}Spillq-Owner: 2\u{fffd}"));
        assert_eq!(text(PART), None);
    }

    #[test]
    fn what_somebody_else_published_is_no_note() {
        assert_eq!(note_of(&HeaderMap::new()), None);
        let mut headers = HeaderMap::new();
        headers.insert(OWNER, "1-07-0");
        assert_eq!(note_of(&headers), None);
    }
}
