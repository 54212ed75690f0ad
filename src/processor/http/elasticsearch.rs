//! The `_bulk` API of Elasticsearch and of those that speak it: a request, and what a reply says of each line. Pure.
//!
//! A line is created under an id of its own, so that it is there once in its index: a repeat is answered with 409. The fields
//! are those of the Elastic Common Schema.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use spillq_storage::Line;

use super::super::bad_lines::BadLine;
use super::super::input::{Appended, Origin, text_or_base64};
use super::form::Content;
use crate::plain::{beginning, harmless};

/// How much of a reply is read: 201 or 409 for each line, with the index and the shard. A longer one makes the batch smaller.
pub(super) const REPLY_BYTES_MAX: usize = 8 << 20;

/// How much is shown of what a reply says of one line: a sentence.
pub(super) const SAID_BYTES_MAX: usize = 512;

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: &'a str,
    message: &'a str,
    log: Log,
    event: Event,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Own::is_empty")]
    spillq: Own<'a>,
}

#[derive(Serialize)]
struct Log {
    file: File,
    offset: u64,
}

#[derive(Serialize)]
struct File {
    path: String,
}

#[derive(Serialize)]
struct Event {
    sequence: u64,
}

/// What the schema has no field for.
#[derive(Serialize)]
struct Own<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<&'a str>,
}

impl Own<'_> {
    fn is_empty(&self) -> bool {
        self.part.is_none() && self.base64.is_none()
    }
}

/// Writes the action and the document of a line. `owner` is the group, the store and its epoch.
pub(super) fn write(
    line: &Line<'_>,
    (origin, appended): (&Origin, &Appended),
    (content, owner): (Content, &str),
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, r#"{{"create":{{"_id":"{owner}-{}"}}}}"#, line.seq)?;
    if content == Content::Json {
        out.write_all(line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes))?;
        return out.write_all(b"\n");
    }
    let text = text_or_base64(line);
    let lossy = String::from_utf8_lossy(line.bytes);
    let document = Document {
        timestamp: &appended.text,
        message: text.as_ref().copied().unwrap_or_else(|_| lossy.trim_end_matches('\n')),
        log: Log { file: File { path: origin.source.text() }, offset: line.offset },
        event: Event { sequence: line.seq.0 },
        labels: &origin.labels,
        spillq: Own { part: line.flags.part(), base64: text.as_ref().err().map(String::as_str) },
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// Every line is in the index, except these, which it refuses.
    Done(Vec<BadLine>),
    /// Some lines could not be stored now.
    Again(String),
    /// Some lines were refused for a reason that is not theirs.
    Refused(String),
    /// It is not known what became of them.
    Unclear(String),
}

#[derive(Deserialize)]
struct Reply {
    errors: bool,
    #[serde(default)]
    items: Vec<Action>,
}

#[derive(Deserialize)]
struct Action {
    create: Item,
}

#[derive(Deserialize)]
struct Item {
    status: u16,
    #[serde(default)]
    error: Option<Cause>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Cause {
    Told {
        #[serde(rename = "type", default)]
        kind: String,
        #[serde(default)]
        reason: Option<String>,
    },
    Text(String),
}

/// Types of errors that a document is the reason for. Others with the same status are about the index.
const OF_DOCUMENT: [&str; 8] = [
    "document_parsing_exception",
    "illegal_argument_exception",
    "json_parse_exception",
    "mapper_exception",
    "mapper_parsing_exception",
    "parsing_exception",
    "strict_dynamic_mapping_exception",
    "x_content_parse_exception",
];

impl Item {
    fn is_of_document(&self) -> bool {
        matches!(&self.error, Some(Cause::Told { kind, .. }) if OF_DOCUMENT.contains(&kind.as_str()))
    }

    fn said(&self) -> String {
        let text = match &self.error {
            Some(Cause::Told { kind, reason }) => {
                format!("{kind}: {}", reason.as_deref().unwrap_or_default())
            }
            Some(Cause::Text(text)) => text.clone(),
            None => String::new(),
        };
        beginning(harmless(&format!("{} {text}", self.status)), SAID_BYTES_MAX)
    }
}

/// What a reply of 200 says of `lines` lines.
pub(super) fn judge(reply: &[u8], lines: u64) -> Judged {
    let Reply { errors, items } = match serde_json::from_slice(reply) {
        Ok(reply) => reply,
        Err(error) => return Judged::Unclear(format!("is not a reply of _bulk: {error}")),
    };
    if !errors {
        return Judged::Done(Vec::new());
    }
    if items.len() as u64 != lines {
        return Judged::Unclear(format!("says what became of {} of {lines} lines", items.len()));
    }
    let (mut bad, mut again) = (Vec::new(), None);
    for (n, Action { create }) in (1..).zip(&items) {
        match create.status {
            // 409: it was created before.
            200..=299 | 409 => {}
            429 | 500.. => again = again.or_else(|| Some(format!("says of line {n}: {}", create.said()))),
            400 if create.is_of_document() => bad.push(BadLine { n, reason: Some(create.said()) }),
            // No such index, no rights, an index that is read-only or closed, too many shards.
            _ => return Judged::Refused(format!("says of line {n}: {}", create.said())),
        }
    }
    // The bad lines are found again when the others can be stored.
    again.map_or(Judged::Done(bad), Judged::Again)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_reply_is_judged() {
        let item = |status: u16| match status {
            400 => r#"{"create":{"status":400,"error":{"type":"mapper_parsing_exception"}}}"#.to_owned(),
            _ => format!(r#"{{"create":{{"_index":"lines","status":{status}}}}}"#),
        };
        let reply = |statuses: &[u16]| {
            let items: Vec<String> = statuses.iter().map(|status| item(*status)).collect();
            format!(r#"{{"took":3,"errors":true,"items":[{}]}}"#, items.join(","))
        };
        let judged = |statuses: &[u16]| judge(reply(statuses).as_bytes(), statuses.len() as u64);
        assert_eq!(judged(&[201, 409, 200]), Judged::Done(Vec::new()));
        let Judged::Done(bad) = judged(&[201, 400, 409, 400]) else { panic!() };
        assert_eq!(bad.iter().map(|bad| bad.n).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(judged(&[201, 429, 400]), Judged::Again("says of line 2: 429 ".to_owned()));
        assert_eq!(judged(&[503]), Judged::Again("says of line 1: 503 ".to_owned()));
        for status in [401, 403, 404] {
            assert_eq!(judged(&[429, status]), Judged::Refused(format!("says of line 2: {status} ")));
        }
    }

    #[test]
    fn the_reason_is_passed_on_whatever_its_form() {
        let reply = br#"{"errors":true,"items":[
            {"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"failed to parse [n]\u001b[31m","x":{}}}},
            {"create":{"status":201}},
            {"create":{"status":400,"error":{"type":"parsing_exception","reason":null}}}]}"#;
        let Judged::Done(bad) = judge(reply, 3) else { panic!() };
        let reasons: Vec<&str> = bad.iter().filter_map(|bad| bad.reason.as_deref()).collect();
        assert_eq!(
            reasons,
            ["400 mapper_parsing_exception: failed to parse [n]?[31m", "400 parsing_exception: "]
        );
    }

    #[test]
    fn a_fault_of_the_index_is_not_one_of_the_line() {
        for error in [
            r#"{"type":"index_closed_exception","reason":"closed"}"#,
            r#"{"type":"validation_exception"}"#,
            "\"no\"",
        ] {
            let reply =
                format!(r#"{{"errors":true,"items":[{{"create":{{"status":400,"error":{error}}}}}]}}"#);
            assert!(matches!(judge(reply.as_bytes(), 1), Judged::Refused(_)), "{error}");
        }
    }

    #[test]
    fn a_reply_that_is_not_of_bulk_acks_nothing() {
        for reply in [
            "",
            "ok",
            "{}",
            r#"{"errors":"false","items":[]}"#,
            r#"{"errors":true}"#,
            r#"{"errors":true,"items":[{"create":{"status":201}}]}"#,
            r#"{"errors":true,"items":[{"index":{"status":201}},{"index":{"status":201}}]}"#,
            r#"{"errors":true,"items":[{"create":{"status":201}},{"cre"#,
        ] {
            assert!(matches!(judge(reply.as_bytes(), 2), Judged::Unclear(_)), "{reply}");
        }
        // With filter_path, or from a server that has nothing to say.
        assert_eq!(judge(br#"{"errors":false}"#, 2), Judged::Done(Vec::new()));
    }
}
