//! Lines that are sent as the JSON that they are: those that are not an object are rejected before anything is sent. Pure.
//!
//! A receiver that gets them among others refuses the whole request, or answers 200 and drops them.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use spillq_storage::SeqRange;

use super::super::bad_lines::BAD_LINES_MAX;
use super::super::{Batch, Evidence, Outcome, Piece};
use super::form::Form;
use crate::queue::Rejected;

/// A batch whose lines can be sent, and the lines that were left out of it.
pub(super) struct Split {
    /// `None` if no line can be sent.
    pub(super) rest: Option<Batch>,
    pub(super) bad: Vec<Rejected>,
}

/// Leaves out the lines of `batch` that are not JSON objects.
///
/// # Errors
/// If there are too many for one list: what to answer in place of sending anything.
pub(super) fn split(batch: &Batch, form: Form) -> Result<Split, Outcome> {
    let mut bad = Vec::new();
    for line in batch.lines() {
        if let Err(why) = object(line.bytes, form) {
            bad.push(Rejected {
                seq: line.seq,
                reason: format!("line {} is not a JSON object: {why}", line.seq),
            });
        }
        if bad.len() > BAD_LINES_MAX {
            let named = batch.named();
            return Err(Outcome::Poison(Evidence::new(format!(
                "more than {BAD_LINES_MAX} of {named} are not JSON objects"
            ))));
        }
    }
    if bad.is_empty() {
        return Ok(Split { rest: Some(batch.clone()), bad });
    }
    let good = |piece: &Piece| -> Vec<Piece> {
        let mut ranges = vec![piece.range()];
        for Rejected { seq, .. } in &bad {
            ranges = ranges.iter().flat_map(|range| range.without(SeqRange::one(*seq))).collect();
        }
        ranges.into_iter().filter_map(|range| piece.within(range)).collect()
    };
    let rest = batch.with_pieces(batch.pieces().iter().flat_map(good).collect());
    Ok(Split { rest, bad })
}

/// The outcome of a batch whose `bad` lines were left out, and of the others.
pub(super) fn joined(outcome: Outcome, bad: Vec<Rejected>) -> Outcome {
    let mut all = match outcome {
        Outcome::Done if bad.is_empty() => return Outcome::Done,
        Outcome::Done => Vec::new(),
        Outcome::DoneExcept(rejected) => rejected,
        // All lines are delivered again, and these are found again.
        outcome => return outcome,
    };
    all.extend(bad);
    all.sort_by_key(|rejected| rejected.seq);
    Outcome::DoneExcept(all)
}

/// Whether a line is a JSON object, as deep as it can be read where it is read.
fn object(line: &[u8], form: Form) -> Result<(), String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    let told = |error: serde_json::Error| error.to_string();
    if !text.trim_ascii_start().starts_with('{') {
        return Err("it does not begin with {".to_owned());
    }
    match form {
        Form::Otlp => serde_json::from_str::<Map<String, Value>>(text).map(drop).map_err(told),
        _ => serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(told),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spillq_storage::Seq;

    use super::super::super::sample;
    use super::*;

    #[test]
    fn lines_that_are_no_objects_are_left_out() {
        let lines: [&[u8]; 6] =
            [b"{\"a\":1}", b"[1]", b" {\"b\": {}}\r", b"{\"a\":1} {}", b"{\"a\":\"\xff\"}", b"{\"c\":0"];
        let block = sample::block(10, &lines);
        let pieces = sample::pieces(&block, &[(10, 13), (14, 15)], Piece::new);
        let batch = Batch::new(Arc::from("g"), 1, pieces).unwrap();
        let Ok(Split { rest, bad }) = split(&batch, Form::Lines) else { panic!() };
        let seqs: Vec<Seq> = bad.iter().map(|rejected| rejected.seq).collect();
        assert_eq!(seqs, [11, 13, 14, 15].map(Seq));
        assert!(
            bad[0].reason.starts_with("line 11 is not a JSON object: it does not begin with {"),
            "{bad:?}"
        );
        let sent: Vec<Seq> = rest.unwrap().lines().map(|line| line.seq).collect();
        assert_eq!(sent, [10, 12].map(Seq));
        let joined_seqs = |outcome| match joined(outcome, bad.clone()) {
            Outcome::DoneExcept(all) => all.iter().map(|one| one.seq.0).collect::<Vec<u64>>(),
            other => panic!("{other:?}"),
        };
        let other = Rejected { seq: Seq(12), reason: String::new() };
        assert_eq!(joined_seqs(Outcome::Done), [11, 13, 14, 15]);
        assert_eq!(joined_seqs(Outcome::DoneExcept(vec![other])), [11, 12, 13, 14, 15]);
        let down = Outcome::Down(Evidence::default());
        assert_eq!(joined(down.clone(), bad), down);
    }

    #[test]
    fn what_is_nested_deeper_than_it_can_be_read_is_bad() {
        let deep = format!("{}{}", "{\"a\":".repeat(200), "1".to_owned() + &"}".repeat(200));
        assert_eq!(object(deep.as_bytes(), Form::Lines), Ok(()));
        assert!(object(deep.as_bytes(), Form::Otlp).unwrap_err().contains("recursion"));
    }

    #[test]
    fn of_too_many_nothing_is_sent() {
        let lines = vec![&b"no"[..]; BAD_LINES_MAX + 1];
        let block = sample::block(1, &lines);
        let whole = |last| {
            let pieces = sample::pieces(&block, &[(1, last)], Piece::new);
            split(&Batch::new(Arc::from("g"), 1, pieces).unwrap(), Form::Lines)
        };
        assert!(matches!(whole(BAD_LINES_MAX as u64 + 1), Err(Outcome::Poison(_))));
        let Ok(Split { rest: None, bad }) = whole(BAD_LINES_MAX as u64) else { panic!() };
        assert_eq!(bad.len(), BAD_LINES_MAX);
    }
}
