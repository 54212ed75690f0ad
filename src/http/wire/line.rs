//! The JSON of a line and of a dead letter.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use spillq_storage::{Block, DeadCause, DeadLetter, Line, SourceId};

use crate::plain::{escape_path, rfc3339 as time};
use crate::queue::Status;
use crate::tail::SourceRecord;

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LineJson {
    pub seq: u64,
    pub source: String,
    pub offset: u64,
    /// When it was appended, RFC 3339.
    pub time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// If the bytes are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unterminated: bool,
}

/// A line of a lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeasedLineJson {
    #[serde(flatten)]
    pub line: LineJson,
    pub attempt: u32,
}

impl LineJson {
    /// A line of `block`.
    #[must_use]
    pub fn new(line: &Line<'_>, names: &SourceNames, block: &Block) -> LineJson {
        let bytes = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
        let text = std::str::from_utf8(bytes).ok();
        LineJson {
            seq: line.seq.0,
            source: names.name(line.source),
            offset: line.offset,
            time: time(block.append_time_ms()),
            text: text.map(str::to_owned),
            base64: text.is_none().then(|| STANDARD.encode(bytes)),
            part: line.flags.part().map(str::to_owned),
            unterminated: line.flags.is_unterminated(),
        }
    }
}

/// A dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterJson {
    pub seq: u64,
    /// `rejected`, `failed`, `died`, `parked`, or `unknown` for one that was written in format version 1.
    #[serde(default)]
    pub cause: String,
    pub attempts: u32,
    pub time: String,
    pub reason: String,
}

impl From<&DeadLetter> for DeadLetterJson {
    fn from(letter: &DeadLetter) -> DeadLetterJson {
        let cause = match letter.cause {
            DeadCause::Rejected => "rejected",
            DeadCause::Failed => "failed",
            DeadCause::Died => "died",
            DeadCause::Parked => "parked",
            DeadCause::Unknown => "unknown",
        };
        DeadLetterJson {
            seq: letter.seq.0,
            cause: cause.to_owned(),
            attempts: letter.attempts,
            time: time(letter.time_ms),
            reason: letter.reason.clone(),
        }
    }
}

/// Paths of sources, as their checkpoints have them.
fn paths<'a>(checkpoints: impl Iterator<Item = (SourceId, &'a [u8])>) -> BTreeMap<SourceId, String> {
    checkpoints
        .filter_map(|(id, bytes)| {
            let record = SourceRecord::decode(bytes).ok()?;
            Some((id, escape_path(record.path())))
        })
        .collect()
}

/// The names of a store's sources: their paths, or their numbers if they are forgotten.
#[derive(Clone, Debug)]
pub struct SourceNames(BTreeMap<SourceId, String>);

impl SourceNames {
    /// The sources that the log knows.
    #[must_use]
    pub fn of(state: &spillq_storage::State) -> SourceNames {
        SourceNames(paths(state.sources().iter().map(|(id, source)| (*id, source.checkpoint.as_slice()))))
    }

    /// The sources in the status of a running service.
    pub(crate) fn of_status(status: &Status) -> SourceNames {
        SourceNames(paths(status.sources.iter().map(|(id, bytes)| (*id, bytes.as_ref()))))
    }

    /// The name of one.
    fn name(&self, source: SourceId) -> String {
        self.0.get(&source).cloned().unwrap_or_else(|| source.to_string())
    }
}
