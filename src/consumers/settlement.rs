//! What a consumer says of the lines of its lease, and the verdict that it stands for. Pure.

use std::fmt;

use spillq_storage::{Seq, SeqRange};

use crate::queue::{FailureKind, Own, Rejected, Verdict};

/// Bad lines in one settlement, as in the lists of other processors.
const BAD_LINES_MAX: usize = 256;
/// Ranges of lines in one settlement.
const RANGES_MAX: usize = 1_024;

/// What became of the lines of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// All are done, except these, which become dead letters.
    Done(Vec<Rejected>),
    /// Those up to this one are done; the rest stays leased.
    Through(Seq),
    /// These are done; the rest stays leased. Not in a group in strict order.
    Ranges(Vec<SeqRange>),
    /// They failed, and are delivered again.
    Failed {
        /// For people.
        reason: String,
        /// The destination is not ready before: no attempt is counted.
        delay_ms: Option<u64>,
    },
    /// These are bad, and nothing is said of the others.
    Bad(Vec<Rejected>),
    /// They were not processed: they are delivered again at once, and nothing is counted.
    Released,
}

/// Why a settlement does not fit its lease. Nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// This line is not one of the lease that is left.
    NotLeased(Seq),
    /// Lines are not in rising order, or a range is empty.
    Order,
    /// Too many bad lines or ranges.
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The bound.
        most: usize,
    },
    /// No line is named.
    Empty,
    /// The group is in strict order: lines are acked from the first on.
    Strict,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::NotLeased(seq) => write!(f, "line {seq} is not leased by this token"),
            Wrong::Order => f.write_str("the lines are not in rising order"),
            Wrong::TooMany { what, most } => write!(f, "there are more than {most} {what}"),
            Wrong::Empty => f.write_str("no line is named"),
            Wrong::Strict => f.write_str("the group is in strict order, which has no ranges"),
        }
    }
}

impl Settlement {
    /// The same, with the name of the consumer before the reason of a failure.
    pub(super) fn said_by(self, consumer: &str) -> Settlement {
        match self {
            Settlement::Failed { reason, delay_ms } => {
                Settlement::Failed { reason: format!("consumer {consumer}: {reason}"), delay_ms }
            }
            other => other,
        }
    }

    /// The verdict on a lease of `range`, of which `left` is not acked, and `own` are lines of its group.
    pub(super) fn verdict(
        self,
        range: SeqRange,
        (left, own): (&[SeqRange], &Own),
        strict: bool,
    ) -> Result<Verdict, Wrong> {
        let is_left = |seq: Seq| own.has(seq) && left.iter().any(|left| left.contains(seq));
        let check_bad = |bad: &[Rejected]| {
            if bad.len() > BAD_LINES_MAX {
                return Err(Wrong::TooMany { what: "bad lines", most: BAD_LINES_MAX });
            }
            if !bad.is_sorted_by(|one, next| one.seq < next.seq) {
                return Err(Wrong::Order);
            }
            bad.iter().find(|line| !is_left(line.seq)).map_or(Ok(()), |line| Err(Wrong::NotLeased(line.seq)))
        };
        match self {
            Settlement::Done(rejected) => {
                check_bad(&rejected)?;
                match rejected.is_empty() {
                    true => Ok(Verdict::Done),
                    false => Ok(Verdict::DoneExcept { rejected, by_seq: true }),
                }
            }
            Settlement::Through(seq) => match range.contains(seq) {
                true => Ok(Verdict::DonePart(vec![SeqRange { first: range.first, last: seq }])),
                false => Err(Wrong::NotLeased(seq)),
            },
            Settlement::Ranges(_) if strict => Err(Wrong::Strict),
            Settlement::Ranges(ranges) => {
                if ranges.is_empty() {
                    return Err(Wrong::Empty);
                }
                if ranges.len() > RANGES_MAX {
                    return Err(Wrong::TooMany { what: "ranges", most: RANGES_MAX });
                }
                if !ranges.is_sorted_by(|one, next| one.last < next.first) {
                    return Err(Wrong::Order);
                }
                let outside = ranges.iter().flat_map(|part| part.without(range)).next();
                outside.map_or(Ok(Verdict::DonePart(ranges)), |outside| Err(Wrong::NotLeased(outside.first)))
            }
            Settlement::Failed { reason, delay_ms } => {
                let kind = delay_ms.map_or(FailureKind::Failed, FailureKind::Later);
                Ok(failed(kind, reason))
            }
            Settlement::Bad(mut rejected) => {
                check_bad(&rejected)?;
                if rejected.is_empty() {
                    return Err(Wrong::Empty);
                }
                let Rejected { seq, reason } = rejected.swap_remove(0);
                Ok(failed(FailureKind::BadSeq(seq), reason))
            }
            Settlement::Released => Ok(Verdict::Released),
        }
    }
}

/// A failed delivery.
pub(super) fn failed(kind: FailureKind, summary: String) -> Verdict {
    Verdict::Failed { kind, summary, tail: String::new(), timed_out: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq(first), Seq(last)).unwrap()
    }

    fn bad(seqs: &[u64]) -> Vec<Rejected> {
        seqs.iter().map(|seq| Rejected { seq: Seq(*seq), reason: "bad".to_owned() }).collect()
    }

    /// Of a lease of 10-20, of which 14-15 were acked.
    fn verdict(settlement: Settlement) -> Result<Verdict, Wrong> {
        settlement.verdict(range(10, 20), (&[range(10, 13), range(16, 20)], &Own::default()), false)
    }

    #[test]
    fn every_settlement_has_its_verdict() {
        assert_eq!(verdict(Settlement::Done(vec![])), Ok(Verdict::Done));
        assert_eq!(
            verdict(Settlement::Done(bad(&[10, 20]))),
            Ok(Verdict::DoneExcept { rejected: bad(&[10, 20]), by_seq: true })
        );
        assert_eq!(verdict(Settlement::Through(Seq(14))), Ok(Verdict::DonePart(vec![range(10, 14)])));
        let parts = vec![range(10, 11), range(14, 17)];
        assert_eq!(verdict(Settlement::Ranges(parts.clone())), Ok(Verdict::DonePart(parts)));
        assert_eq!(
            verdict(Settlement::Bad(bad(&[11, 12]))),
            Ok(failed(FailureKind::BadSeq(Seq(11)), "bad".into()))
        );
        assert_eq!(verdict(Settlement::Released), Ok(Verdict::Released));
        let fails = |delay_ms| verdict(Settlement::Failed { reason: "db down".to_owned(), delay_ms });
        assert_eq!(fails(None), Ok(failed(FailureKind::Failed, "db down".into())));
        assert_eq!(fails(Some(5_000)), Ok(failed(FailureKind::Later(5_000), "db down".into())));
    }

    #[test]
    fn what_does_not_fit_the_lease_changes_nothing() {
        for (settlement, wrong) in [
            (Settlement::Done(bad(&[9])), Wrong::NotLeased(Seq(9))),
            (Settlement::Done(bad(&[14])), Wrong::NotLeased(Seq(14))),
            (Settlement::Done(bad(&[12, 11])), Wrong::Order),
            (Settlement::Done(bad(&[11, 11])), Wrong::Order),
            (Settlement::Done(bad(&[10; 257])), Wrong::TooMany { what: "bad lines", most: 256 }),
            (Settlement::Through(Seq(9)), Wrong::NotLeased(Seq(9))),
            (Settlement::Through(Seq(21)), Wrong::NotLeased(Seq(21))),
            (Settlement::Ranges(vec![]), Wrong::Empty),
            (Settlement::Ranges(vec![range(9, 11)]), Wrong::NotLeased(Seq(9))),
            (Settlement::Ranges(vec![range(19, 22)]), Wrong::NotLeased(Seq(21))),
            (Settlement::Ranges(vec![range(10, 12), range(12, 13)]), Wrong::Order),
            (Settlement::Bad(vec![]), Wrong::Empty),
        ] {
            assert_eq!(verdict(settlement.clone()), Err(wrong), "{settlement:?}");
        }
        let strict = Settlement::Ranges(vec![range(10, 11)]).verdict(
            range(10, 20),
            (&[range(10, 20)], &Own::default()),
            true,
        );
        assert_eq!(strict, Err(Wrong::Strict));
        let own = Own::of(&[range(10, 11), range(20, 20)]);
        let other = Settlement::Done(bad(&[12])).verdict(range(10, 20), (&[range(10, 20)], &own), false);
        assert_eq!(other, Err(Wrong::NotLeased(Seq(12))), "a line of another source");
    }
}
