//! The lines of a batch that a processor rejects while it has processed the others: a JSON list of `{"n":3,"reason":"…"}`, in
//! answers of `exec-stream` and in replies to `http`. `n` counts the lines of the batch from 1. The 64 KiB of an answer bound the
//! list.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Batch, Evidence, Outcome};
use crate::plain::harmless;
use crate::queue::Rejected;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct BadLine {
    pub(super) n: u64,
    #[serde(default)]
    pub(super) reason: String,
}

/// The outcome of a batch that is done except these lines; `who` answered. A number that no line has makes all of them
/// doubtful: it may count from 0. Then nothing is acked, and bisecting finds the lines.
pub(super) fn done_except(batch: &Batch, bad: &[BadLine], who: &str) -> Outcome {
    let mut rejected = BTreeMap::new();
    for BadLine { n, reason } in bad {
        let Some(seq) = n.checked_sub(1).and_then(|skip| batch.nth(skip)) else {
            let lines = batch.line_count();
            let what =
                format!("{who} says that line {n} of {} is bad, and that has {lines} lines", batch.named());
            return Outcome::Poison(Evidence::new(what));
        };
        let reason = format!("{who} says that line {seq} is bad: {}", harmless(reason));
        rejected.entry(seq).or_insert(reason);
    }
    if rejected.is_empty() {
        return Outcome::Done;
    }
    Outcome::DoneExcept(rejected.into_iter().map(|(seq, reason)| Rejected { seq, reason }).collect())
}
