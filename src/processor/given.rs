//! What the note of a destination said in this run of the process, and what it has lost of that since.
//!
//! After a failover to a replica that was behind, lines and their note are gone together: the note says less than before.

use spillq_storage::{Seq, SeqRange};

use super::written::{RANGES_MAX, Written};

/// What the note said last, and what it has lost since [`take_lost`](Given::take_lost).
#[derive(Debug, Default)]
pub(super) struct Given {
    written: Written,
    lost: Vec<SeqRange>,
}

impl Given {
    /// The note says this now. What it said before and no longer says is lost.
    pub(super) fn is_now(&mut self, written: &Written) {
        self.lost.extend(lost(&self.written, written));
        self.written.clone_from(written);
    }

    /// Lines from `from` on are being removed from the note. They do not count as lost, whether an answer comes or not.
    pub(super) fn forget(&mut self, from: Seq) {
        self.written.forget(from);
    }

    /// What was lost since the last call.
    pub(super) fn take_lost(&mut self) -> Vec<SeqRange> {
        std::mem::take(&mut self.lost)
    }
}

/// Lines that were `given` and are not in the note `now`.
fn lost(given: &Written, now: &Written) -> Vec<SeqRange> {
    // When there are too many ranges, the lowest are forgotten. They are not lost.
    let lowest = now.ranges().first().filter(|_| now.ranges().len() == RANGES_MAX).map(|range| range.first);
    let known = SeqRange { first: lowest.unwrap_or_default(), last: Seq(u64::MAX) };
    let given = given.ranges().iter().filter_map(|range| range.intersection(known));
    given.flat_map(|range| now.missing(range)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq(first), Seq(last)).unwrap()
    }

    #[test]
    fn what_was_given_and_is_not_written_any_more_is_lost() {
        let given: Written = "1-200,205,207-900".parse().unwrap();
        let lost = |now: &str| lost(&given, &now.parse().unwrap());
        assert_eq!(lost("1-200,205,207-950"), []);
        assert_eq!(lost("1-200,205,207-880"), [range(881, 900)]);
        assert_eq!(lost("1-150"), [range(151, 200), range(205, 205), range(207, 900)]);
        assert_eq!(lost(""), given.ranges());
        let most = Written::of((1..=RANGES_MAX as u64).map(|i| range(2 * i, 2 * i)));
        let mut more = most.clone();
        more.add(range(1_000, 1_000));
        assert_eq!(super::lost(&most, &more), [], "the lowest was forgotten");
    }

    #[test]
    fn a_loss_is_returned_once_and_what_was_removed_is_not_a_loss() {
        let mut given = Given::default();
        given.is_now(&"1-9".parse().unwrap());
        given.is_now(&"1-7".parse().unwrap());
        assert_eq!(given.take_lost(), [range(8, 9)]);
        given.forget(Seq(5));
        given.is_now(&"1-4".parse().unwrap());
        assert_eq!(given.take_lost(), []);
    }
}
