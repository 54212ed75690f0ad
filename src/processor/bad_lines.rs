//! The lines of a batch that a processor rejects while it has processed the others: a JSON list of `{"n":3,"reason":"…"}`, in
//! answers of `exec-stream` and in replies to `http`. `n` counts the lines of the batch from 1. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess};

use super::top_level::{Fields, read};
use super::{Batch, Evidence, Outcome};
use crate::plain::{beginning, harmless};
use crate::queue::Rejected;

/// Lines in one list: each is read and copied when it becomes a dead letter, and nothing else is committed meanwhile. A batch
/// with more is bisected.
pub(super) const BAD_LINES_MAX: usize = 256;
/// How much of a reason counts: a sentence.
const REASON_BYTES_MAX: usize = 1_024;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct BadLine {
    pub(super) n: u64,
    #[serde(default)]
    pub(super) reason: Option<String>,
}

/// What a body of JSON says of bad lines.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// It is no object, or has no `bad`.
    Nothing,
    Lines(Vec<BadLine>),
    /// It has `bad`, and that is no such list, or was cut off. So it is not known which lines are done.
    Unreadable(String),
}

/// Reads `{"bad": [...]}`, with other fields beside it.
pub(super) fn listed(body: &[u8]) -> Listed {
    #[derive(Deserialize)]
    struct Reply {
        bad: Vec<BadLine>,
    }
    match serde_json::from_slice::<Reply>(body) {
        Ok(Reply { bad }) => Listed::Lines(bad),
        Err(error) => {
            let mut has_bad = HasBad(false);
            read(body, &mut has_bad);
            if has_bad.0 { Listed::Unreadable(error.to_string()) } else { Listed::Nothing }
        }
    }
}

/// The outcome of a batch that is done except these lines; `who` answered. A number that no line has makes all of them
/// doubtful: it may count from 0. Then nothing is acked, and bisecting finds the lines.
pub(super) fn done_except(batch: &Batch, bad: &[BadLine], who: &str) -> Outcome {
    let poison = |what: String| Outcome::Poison(Evidence::new(format!("{who} {what}")));
    if bad.len() > BAD_LINES_MAX {
        let (count, named) = (bad.len(), batch.named());
        return poison(format!(
            "says that {count} of {named} are bad; at most {BAD_LINES_MAX} can be named at once"
        ));
    }
    let mut rejected = BTreeMap::new();
    for BadLine { n, reason } in bad {
        let Some(seq) = n.checked_sub(1).and_then(|skip| batch.nth(skip)) else {
            let (lines, named) = (batch.line_count(), batch.named());
            return poison(format!("says that line {n} of {named} is bad, and that has {lines} lines"));
        };
        // On one line: what follows a newline would be shown as output of the command.
        let reason = harmless(reason.as_deref().unwrap_or_default()).replace(['\n', '\t'], " ");
        let reason = beginning(reason, REASON_BYTES_MAX);
        rejected.entry(seq).or_insert_with(|| format!("{who} says that line {seq} is bad: {reason}"));
    }
    if rejected.is_empty() {
        return Outcome::Done;
    }
    Outcome::DoneExcept(rejected.into_iter().map(|(seq, reason)| Rejected { seq, reason }).collect())
}

struct HasBad(bool);

impl Fields for HasBad {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        self.0 |= key == "bad";
        map.next_value::<IgnoredAny>().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_cannot_be_read_is_not_no_list() {
        let line = |n, reason: Option<&str>| BadLine { n, reason: reason.map(str::to_owned) };
        let lines = |lines: &[BadLine]| Listed::Lines(lines.to_vec());
        assert_eq!(
            listed(br#"{"took":3,"bad":[{"n":3,"reason":"x","code":7}]}"#),
            lines(&[line(3, Some("x"))])
        );
        assert_eq!(
            listed(br#"{"bad":[{"n":3,"reason":null},{"n":4}]}"#),
            lines(&[line(3, None), line(4, None)])
        );
        assert_eq!(listed(br#"{"bad":[]}"#), lines(&[]));
        for nothing in ["", "ok", "[]", "{}", "{\"ok\":true", r#"{"x":{"bad":[]}}"#, "\"bad\""] {
            assert_eq!(listed(nothing.as_bytes()), Listed::Nothing, "{nothing}");
        }
        for unreadable in [
            r#"{"bad":[{"n":"3"}]}"#,
            r#"{"bad":[3]}"#,
            r#"{"bad":null}"#,
            r#"{"bad":[{"n":3.5}]}"#,
            r#"{"bad":[{"n":-1}]}"#,
            r#"{"bad":[{"n":1},{"n":2"#,
            r#"{"ok":1,"bad":"none"}"#,
        ] {
            assert!(matches!(listed(unreadable.as_bytes()), Listed::Unreadable(_)), "{unreadable}");
        }
    }
}
