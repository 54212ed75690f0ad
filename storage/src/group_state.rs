//! One group in the log: what it has settled, what is out, and how often what failed. Pure.
//!
//! Part of the [manifest](crate::manifest), and bounded as told there.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use crate::acks::AckSet;
use crate::commit::GroupChange;
use crate::ids::{Seq, SeqRange};

/// A lease that was made durable and not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Leased {
    /// The lines that are lent.
    pub range: SeqRange,
    /// Whether a failure is charged to the line: only ever where it is one.
    pub alone: bool,
}

/// A group and what it has done.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupState {
    /// Its name in the configuration.
    pub name: String,
    /// It gets no new leases.
    pub paused: bool,
    /// What it has acked or set aside as dead.
    pub acks: AckSet,
    /// Dead letters put back: to be delivered although `acks` holds them.
    pub revived: std::collections::BTreeSet<Seq>,
    /// Leases out in this run of the process.
    pub leases: Vec<Leased>,
    /// Leases that an earlier run took with it when it died: delivered again in parts, to find the line that
    /// kills, if one does.
    pub suspects: Vec<SeqRange>,
    /// Deliveries of lines alone that are neither acked nor dead.
    pub attempts: BTreeMap<Seq, u32>,
    /// Lines acked since it was created.
    pub acked_lines: u64,
    /// Lines ever set aside as dead.
    pub dead_lines: u64,
    /// Lines that an operator passed over.
    pub skipped_lines: u64,
    /// Lines that a limit passed over.
    pub dropped_lines: u64,
}

impl GroupState {
    /// A group that has acked everything up to `floor`, and nothing else.
    #[must_use]
    pub fn empty(name: &str, floor: Seq) -> GroupState {
        GroupState {
            name: name.to_owned(),
            paused: false,
            acks: AckSet::with_floor(floor),
            revived: std::collections::BTreeSet::new(),
            leases: Vec::new(),
            suspects: Vec::new(),
            attempts: BTreeMap::new(),
            acked_lines: 0,
            dead_lines: 0,
            skipped_lines: 0,
            dropped_lines: 0,
        }
    }

    /// Lines of the log before `next` that it has not acked.
    #[must_use]
    pub fn lag_lines(&self, next: Seq) -> u64 {
        let above = next.prev().0.saturating_sub(self.acks.floor().0);
        above.saturating_sub(self.acks.lines_above()) + self.revived.len() as u64
    }

    pub(crate) fn apply(&mut self, change: &GroupChange) {
        match change {
            GroupChange::Lease { range, alone } => {
                self.suspects = self.suspects.iter().flat_map(|suspect| suspect.without(*range)).collect();
                self.leases.push(Leased { range: *range, alone: *alone });
                if *alone && range.lines() == 1 {
                    *self.attempts.entry(range.first).or_default() += 1;
                }
            }
            GroupChange::Return { range, untried } => {
                let charged = self.leases.iter().any(|leased| leased.range == *range && leased.alone);
                self.leases.retain(|leased| leased.range != *range);
                if let Some(attempts) = self.attempts.get_mut(&range.first).filter(|_| charged && *untried) {
                    *attempts = attempts.saturating_sub(1);
                }
            }
            GroupChange::Ack { range } => {
                self.acked_lines += self.waiting(*range);
                self.settle(*range);
            }
            GroupChange::Dead { seq } => {
                self.dead_lines += 1;
                self.settle(SeqRange::one(*seq));
            }
            GroupChange::Revive { seq } => {
                self.revived.insert(*seq);
                self.attempts.remove(seq);
            }
            GroupChange::Pause(paused) => self.paused = *paused,
            GroupChange::Skip { range, dropped } => {
                let lines = self.waiting(*range);
                *(if *dropped { &mut self.dropped_lines } else { &mut self.skipped_lines }) += lines;
                self.settle(*range);
            }
            GroupChange::Again { from } => self.again(*from),
        }
    }

    /// Lines of `range` that are neither acked nor dead.
    #[must_use]
    pub fn waiting(&self, range: SeqRange) -> u64 {
        let revived = self.revived.range(range.first..=range.last).count() as u64;
        self.acks.gaps(range).map(SeqRange::lines).sum::<u64>() + revived
    }

    fn again(&mut self, from: Seq) {
        self.acks.cut(from);
        self.revived.retain(|seq| *seq < from);
        self.attempts.retain(|seq, _| *seq < from);
        self.leases.clear();
        let again = SeqRange { first: from, last: Seq(u64::MAX) };
        self.suspects = self.suspects.iter().flat_map(|suspect| suspect.without(again)).collect();
    }

    pub(crate) fn settle(&mut self, range: SeqRange) {
        self.acks.insert(range);
        self.revived.retain(|seq| !range.contains(*seq));
        self.attempts.retain(|seq, _| !range.contains(*seq));
        self.leases.retain(|leased| leased.range.intersection(range).is_none());
        self.suspects = self.suspects.iter().flat_map(|suspect| suspect.without(range)).collect();
    }

    /// A new run of the process: what was out is suspect, and comes again in halves.
    pub(crate) fn begin_run(&mut self) {
        for leased in std::mem::take(&mut self.leases) {
            let SeqRange { first, last } = leased.range;
            let middle = Seq(first.0 + (last.0 - first.0) / 2);
            self.suspects.extend(SeqRange::new(first, middle));
            self.suspects.extend(SeqRange::new(middle.next(), last));
        }
        self.suspects.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq(first), Seq(last)).unwrap()
    }

    #[test]
    fn a_lease_that_a_crash_took_comes_back_in_halves_until_it_is_one_line() {
        let mut group = GroupState::empty("default", Seq(0));
        group.apply(&GroupChange::Lease { range: range(1, 4), alone: false });
        group.begin_run();
        assert_eq!(group.suspects, [range(1, 2), range(3, 4)]);
        group.apply(&GroupChange::Lease { range: range(1, 2), alone: false });
        assert_eq!(group.suspects, [range(3, 4)]);
        group.begin_run();
        assert_eq!(group.suspects, [range(1, 1), range(2, 2), range(3, 4)]);
        for tries in 1..=3 {
            group.apply(&GroupChange::Lease { range: range(1, 1), alone: true });
            group.begin_run();
            assert_eq!(group.attempts.get(&Seq(1)), Some(&tries));
        }
        group.apply(&GroupChange::Ack { range: range(1, 3) });
        assert_eq!(group.suspects, [range(4, 4)]);
        assert!(group.attempts.is_empty());
        assert_eq!((group.acked_lines, group.lag_lines(Seq(5))), (3, 1));
    }

    #[test]
    fn a_revived_dead_letter_waits_again_until_it_is_acked() {
        let mut group = GroupState::empty("default", Seq(0));
        group.apply(&GroupChange::Ack { range: range(1, 4) });
        group.apply(&GroupChange::Dead { seq: Seq(5) });
        assert_eq!((group.lag_lines(Seq(6)), group.dead_lines), (0, 1));
        group.apply(&GroupChange::Revive { seq: Seq(5) });
        assert_eq!(group.lag_lines(Seq(6)), 1);
        group.apply(&GroupChange::Ack { range: range(5, 5) });
        assert_eq!((group.lag_lines(Seq(6)), group.acked_lines), (0, 5));
    }

    #[test]
    fn a_seek_backwards_makes_lines_wait_again_with_no_attempts_against_them() {
        let mut group = GroupState::empty("default", Seq(0));
        group.apply(&GroupChange::Ack { range: range(1, 40) });
        group.apply(&GroupChange::Dead { seq: Seq(41) });
        group.apply(&GroupChange::Ack { range: range(50, 60) });
        group.apply(&GroupChange::Lease { range: range(42, 42), alone: true });
        group.apply(&GroupChange::Again { from: Seq(31) });
        assert_eq!((group.acks.floor(), group.acks.ranges(), group.lag_lines(Seq(61))), (Seq(30), 0, 30));
        assert!(group.leases.is_empty() && group.attempts.is_empty());
        assert_eq!((group.acked_lines, group.skipped_lines), (51, 0), "what was acked was acked");
    }

    #[test]
    fn lines_that_are_passed_over_are_counted_apart_and_once() {
        let mut group = GroupState::empty("default", Seq(0));
        group.apply(&GroupChange::Ack { range: range(3, 4) });
        group.apply(&GroupChange::Lease { range: range(5, 9), alone: false });
        group.apply(&GroupChange::Skip { range: range(1, 6), dropped: false });
        group.apply(&GroupChange::Skip { range: range(1, 7), dropped: true });
        assert_eq!((group.acked_lines, group.skipped_lines, group.dropped_lines), (2, 4, 1));
        assert_eq!((group.acks.floor(), group.leases.len()), (Seq(7), 0), "a lease of such lines is over");
    }
}
