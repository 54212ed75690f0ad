//! The JSON of a line and of a dead letter.

use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Those of the section that follows its source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The labels of a source.
pub type Labels = Arc<dyn Fn(SourceId) -> BTreeMap<String, String> + Send + Sync>;

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
            labels: names.labels.as_ref().map(|labels| labels(line.source)).unwrap_or_default(),
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

/// What the lines of a store's sources are shown with: their paths, or their numbers if they are forgotten, and their labels.
pub struct SourceNames {
    paths: BTreeMap<SourceId, String>,
    labels: Option<Labels>,
}

impl SourceNames {
    /// The sources that the log knows, without labels: those are in a configuration.
    #[must_use]
    pub fn of(state: &spillq_storage::State) -> SourceNames {
        let paths = paths(state.sources().iter().map(|(id, source)| (*id, source.checkpoint.as_slice())));
        SourceNames { paths, labels: None }
    }

    /// The sources in the status of a running service.
    pub(crate) fn of_status(status: &Status) -> SourceNames {
        let paths = paths(status.sources.iter().map(|(id, bytes)| (*id, bytes.as_ref())));
        SourceNames { paths, labels: None }
    }

    /// The same with labels.
    #[must_use]
    pub fn with_labels(self, labels: Option<Labels>) -> SourceNames {
        SourceNames { labels, ..self }
    }

    /// The name of one.
    fn name(&self, source: SourceId) -> String {
        self.paths.get(&source).cloned().unwrap_or_else(|| source.to_string())
    }
}
