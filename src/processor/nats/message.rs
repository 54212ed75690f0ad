//! A line as a message: the line is the payload, and headers say which line it is and what was written up to it.
//!
//! `Spillq-Written` makes every message the note of the lines that were given: of a batch that was cut off anywhere, the last
//! message of the subject says what is there ([`chain`](super::chain)). A message without a line, which has no `Spillq-Seq`,
//! carries a note only.

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use spillq_storage::{Line, Seq};

use crate::processor::driver::Note;
use crate::processor::run::Run;
use crate::processor::written::Written;

const OWNER: &str = "Spillq-Owner";
const CONNECTION: &str = "Spillq-Connection";
const ACKED: &str = "Spillq-Acked";
const WRITTEN: &str = "Spillq-Written";
const SEQ: &str = "Spillq-Seq";
const SOURCE: &str = "Spillq-Source";
const OFFSET: &str = "Spillq-Offset";
const PART: &str = "Spillq-Part";

/// What a message says of those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The connection that sent it.
    pub(super) by: Run,
    /// The sequence up to which the stream was known when the message was sent.
    pub(super) acked: u64,
    /// The line that it carries.
    pub(super) line: Option<Seq>,
    /// What is stored with it, if nothing of another connection came in between.
    pub(super) note: Note,
}

/// Who publishes, behind which message that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender<'a> {
    /// The group, the store and its epoch: the owner of the note.
    pub(super) owner: &'a str,
    pub(super) by: &'a Run,
    pub(super) acked: u64,
}

/// The message of a line. `written` is what is written with it.
pub(super) fn of_line(
    sender: Sender<'_>,
    line: &Line<'_>,
    source: &str,
    written: &Written,
) -> PublishMessage {
    let payload = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
    let message = of_note(sender, written)
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
pub(super) fn of_note(sender: Sender<'_>, written: &Written) -> PublishMessage {
    PublishMessage::build()
        .header(OWNER, sender.owner)
        .header(CONNECTION, sender.by.to_string().as_str())
        .header(ACKED, sender.acked.to_string().as_str())
        .header(WRITTEN, written.to_string().as_str())
}

/// What a message says; `None` if it is not one of spillq.
pub(super) fn told(headers: &HeaderMap) -> Option<Told> {
    let text = |name: &str| headers.get(name).map(|value| value.as_str());
    Some(Told {
        by: text(CONNECTION)?.parse().ok()?,
        acked: text(ACKED)?.parse().ok()?,
        line: text(SEQ).map(|seq| seq.parse().map(Seq)).transpose().ok()?,
        note: Note { owner: text(OWNER)?.to_owned(), written: text(WRITTEN)?.to_owned() },
    })
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
        let by = Run { number: 3, id: "a".to_owned() };
        let sender = Sender { owner: "1-07-0", by: &by, acked: 12 };
        let message =
            of_line(sender, &line, "/log/a\r\nSpillq-Owner: 2\u{1b}", &written).outbound_message("s");
        let headers = message.headers.unwrap();
        assert_eq!(&message.payload[..], b"a line");
        let note = Note { owner: "1-07-0".to_owned(), written: "1-4,7".to_owned() };
        assert_eq!(told(&headers), Some(Told { by: by.clone(), acked: 12, line: Some(Seq(7)), note }));
        let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        assert_eq!(text(SEQ).as_deref(), Some("7"));
        assert_eq!(text(OFFSET).as_deref(), Some("100"));
        assert_eq!(text(SOURCE).as_deref(), Some("/log/a\u{fffd}\u{fffd}Spillq-Owner: 2\u{fffd}"));
        assert_eq!(text(PART), None);
    }

    #[test]
    fn what_somebody_else_published_is_no_note() {
        assert_eq!(told(&HeaderMap::new()), None);
        let complete =
            [(OWNER, "1-07-0"), (CONNECTION, "3-a"), (ACKED, "12"), (WRITTEN, "1-4,7"), (SEQ, "7")];
        let with = |other: &str, value: &str| {
            let mut headers = HeaderMap::new();
            let rest = complete.iter().filter(|(name, _)| *name != other);
            rest.for_each(|(name, value)| headers.insert(*name, *value));
            if !value.is_empty() {
                headers.insert(other, value);
            }
            told(&headers)
        };
        assert_eq!(with("Other", "x").unwrap().line, Some(Seq(7)));
        assert_eq!(with(SEQ, "").unwrap().line, None);
        for (name, wrong) in [(CONNECTION, "a-3"), (CONNECTION, "3"), (ACKED, "x"), (SEQ, "-1")] {
            assert_eq!(with(name, wrong), None, "{name}: {wrong}");
        }
        for missing in [OWNER, CONNECTION, ACKED, WRITTEN] {
            assert_eq!(with(missing, ""), None, "{missing}");
        }
    }
}
