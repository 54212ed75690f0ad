//! The push API of Grafana Loki, as JSON. Pure.
//!
//! The labels of a line are those of its `[[follow]]` section; where it is from is structured metadata, as a label with many values is
//! slow in Loki. Loki drops a line whose labels, time and text are those of another. So the time has the seq in its
//! nanoseconds: lines that are equal stay, and one that is sent twice is there once.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;
use spillq_storage::Line;

use super::super::input::{Appended, Origin, text_or_base64};

/// Loki takes no stream without a label.
const WITHOUT_LABELS: (&str, &str) = ("job", "spillq");

#[derive(Serialize)]
struct Metadata<'a> {
    filename: &'a str,
    seq: &'a str,
    offset: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<&'a str>,
}

/// Writes lines into a body.
pub(super) struct Streams<W> {
    out: W,
    /// The labels of the stream that is open.
    open: Option<Arc<BTreeMap<String, String>>>,
}

impl<W: Write> Streams<W> {
    pub(super) fn new(out: W) -> Streams<W> {
        Streams { out, open: None }
    }

    pub(super) fn line(&mut self, line: &Line<'_>, origin: &Origin, appended: &Appended) -> io::Result<()> {
        if self.open.as_ref() == Some(&origin.labels) {
            self.out.write_all(b",")?;
        } else {
            let before: &[u8] = if self.open.is_some() { b"]}," } else { br#"{"streams":["# };
            self.out.write_all(before)?;
            self.out.write_all(br#"{"stream":"#)?;
            if origin.labels.is_empty() {
                serde_json::to_writer(&mut self.out, &BTreeMap::from([WITHOUT_LABELS]))?;
            } else {
                serde_json::to_writer(&mut self.out, &*origin.labels)?;
            }
            self.out.write_all(br#","values":["#)?;
            self.open = Some(Arc::clone(&origin.labels));
        }
        let text = text_or_base64(line);
        let lossy = String::from_utf8_lossy(line.bytes);
        let (filename, seq, offset) = (origin.source.text(), line.seq.0.to_string(), line.offset.to_string());
        let metadata = Metadata {
            filename: &filename,
            seq: &seq,
            offset: &offset,
            part: line.flags.part(),
            base64: text.as_ref().err().map(String::as_str),
        };
        let shown = text.as_ref().copied().unwrap_or_else(|_| lossy.trim_end_matches('\n'));
        serde_json::to_writer(&mut self.out, &(time_ns(line, appended).to_string(), shown, metadata))?;
        Ok(())
    }

    pub(super) fn end(mut self) -> io::Result<()> {
        self.out.write_all(if self.open.is_some() { b"]}]}" } else { br#"{"streams":[]}"# })
    }
}

/// When a line was appended, in nanoseconds, different from that of any line near it. In the order of the lines, but where their seqs pass
/// a multiple of a million within a millisecond.
pub(super) fn time_ns(line: &Line<'_>, appended: &Appended) -> u64 {
    appended.ms.saturating_mul(1_000_000).saturating_add(line.seq.0 % 1_000_000)
}
