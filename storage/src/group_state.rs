//! One group in the log: what it has settled, what is out, and how often what failed. Pure.
//!
//! Part of the [manifest](crate::manifest), and bounded as told there. Failures and deaths hold lines that wait and
//! were leased by themselves, and go with the line: at most as many as a group has parts of batches that were cut down
//! to one line, which its batches and acks above the floor bound.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use crate::acks::AckSet;
use crate::ids::{Seq, SeqRange};
use crate::ranges::without;

/// One thing that a group does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum GroupChange {
    /// Lines are lent to a processor. Nothing is counted: what counts is how the lease ends.
    Lease {
        /// Which lines.
        range: SeqRange,
    },
    /// A lease ended without an ack. A range of which no lease is out changes nothing.
    Return {
        /// The range of that lease.
        range: SeqRange,
        /// The delivery failed, and its line, if it was one, has been failing for this many milliseconds: counted in
        /// [`GroupState::failures`]. `None`: it was never delivered, or taken back in time; nothing is counted.
        failed_for_ms: Option<u64>,
    },
    /// Lines are done with.
    Ack {
        /// Which lines; what of it was acked before does no harm.
        range: SeqRange,
    },
    /// A line is set aside. It stands in `kept/` already.
    Dead {
        /// Which line.
        seq: Seq,
    },
    /// A dead letter is to be delivered again.
    Revive {
        /// Which line.
        seq: Seq,
    },
    /// No new leases, or again.
    Pause(bool),
    /// Lines that wait are settled although nobody processed them: counted as skipped, or as dropped.
    Skip {
        /// Which lines; what of it was settled before does no harm.
        range: SeqRange,
        /// A limit did it, not an operator.
        dropped: bool,
    },
    /// Every line from here on waits again, with no attempts against it; all leases end. Letters of dead lines from
    /// here on end with this: opening settles those that a crash left.
    Again {
        /// The first of them; a segment must hold it.
        from: Seq,
    },
}

/// A lease that was made durable and not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Leased {
    /// The lines that are lent.
    pub range: SeqRange,
}

/// What failed of the deliveries of one line alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Failures {
    /// How many of them failed.
    pub times: u32,
    /// How long the line had been failing at the last of them, in milliseconds since its first failure alone; time in
    /// which the process was down does not count.
    pub for_ms: u64,
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
    /// Lines that wait, and whose deliveries alone failed.
    pub failures: BTreeMap<Seq, Failures>,
    /// Lines that wait: during how many deliveries of the line alone the process died.
    pub deaths: BTreeMap<Seq, u32>,
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
            failures: BTreeMap::new(),
            deaths: BTreeMap::new(),
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

    /// Deliveries of the line alone that ended in a failure or in the death of the process.
    #[must_use]
    pub fn attempts(&self, seq: Seq) -> u32 {
        let failures = self.failures.get(&seq).map_or(0, |failures| failures.times);
        failures.saturating_add(self.deaths.get(&seq).copied().unwrap_or_default())
    }

    /// Makes one change: the fold of which the log consists, for one group. Public for models of what uses the log.
    pub fn apply(&mut self, change: &GroupChange) {
        match change {
            GroupChange::Lease { range } => {
                self.clear_suspects(*range);
                self.leases.push(Leased { range: *range });
            }
            GroupChange::Return { range, failed_for_ms } => {
                // A lease that ended otherwise counts nothing: its line may be settled, and would stay in here.
                let was_out = self.leases.iter().any(|leased| leased.range == *range);
                self.leases.retain(|leased| leased.range != *range);
                if let Some(for_ms) = failed_for_ms.filter(|_| was_out && range.lines() == 1) {
                    let failures = self.failures.entry(range.first).or_default();
                    *failures = Failures { times: failures.times.saturating_add(1), for_ms };
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
                self.failures.remove(seq);
                self.deaths.remove(seq);
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
        self.failures.retain(|seq, _| *seq < from);
        self.deaths.retain(|seq, _| *seq < from);
        self.leases.clear();
        let again = SeqRange { first: from, last: Seq(u64::MAX) };
        self.clear_suspects(again);
    }

    pub(crate) fn settle(&mut self, range: SeqRange) {
        self.acks.insert(range);
        self.revived.retain(|seq| !range.contains(*seq));
        self.failures.retain(|seq, _| !range.contains(*seq));
        self.deaths.retain(|seq, _| !range.contains(*seq));
        self.leases.retain(|leased| leased.range.intersection(range).is_none());
        self.clear_suspects(range);
    }

    fn clear_suspects(&mut self, range: SeqRange) {
        self.suspects = without(std::mem::take(&mut self.suspects), [range]);
    }

    /// A new run of the process: what was out is suspect, and comes again in halves. The run before died with it: a line
    /// that was out alone may be why.
    pub fn begin_run(&mut self) {
        let leases = std::mem::take(&mut self.leases);
        let is_only = leases.len() == 1;
        for leased in leases {
            let SeqRange { first, last } = leased.range;
            // With others in flight nobody knows which of them it was.
            if is_only && first == last {
                let deaths = self.deaths.entry(first).or_default();
                *deaths = deaths.saturating_add(1);
            }
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
        group.apply(&GroupChange::Lease { range: range(1, 4) });
        group.begin_run();
        assert_eq!(group.suspects, [range(1, 2), range(3, 4)]);
        group.apply(&GroupChange::Lease { range: range(1, 2) });
        assert_eq!(group.suspects, [range(3, 4)]);
        group.begin_run();
        assert_eq!(group.suspects, [range(1, 1), range(2, 2), range(3, 4)]);
        assert!(group.deaths.is_empty(), "nothing was out alone");
        for deaths in 1..=3 {
            group.apply(&GroupChange::Lease { range: range(1, 1) });
            assert_eq!(group.attempts(Seq(1)), deaths - 1, "a lease counts nothing");
            group.begin_run();
            assert_eq!(group.deaths, BTreeMap::from([(Seq(1), deaths)]));
            assert_eq!(group.suspects, [range(1, 1), range(2, 2), range(3, 4)]);
        }
        group.apply(&GroupChange::Ack { range: range(1, 3) });
        assert_eq!(group.suspects, [range(4, 4)]);
        assert!(group.deaths.is_empty());
        assert_eq!((group.acked_lines, group.lag_lines(Seq(5))), (3, 1));
    }

    #[test]
    fn a_line_alone_counts_its_failures_and_deaths_until_it_is_settled() {
        let mut group = GroupState::empty("default", Seq(0));
        let lend = |group: &mut GroupState, range| group.apply(&GroupChange::Lease { range });
        let give_back = |group: &mut GroupState, range, failed_for_ms| {
            group.apply(&GroupChange::Return { range, failed_for_ms });
        };
        lend(&mut group, range(1, 2));
        give_back(&mut group, range(1, 2), Some(5));
        lend(&mut group, range(1, 1));
        give_back(&mut group, range(1, 1), None);
        assert!(group.failures.is_empty(), "neither two lines nor an untried one");
        for (times, for_ms) in [(1, 0), (2, 250), (3, 900)] {
            lend(&mut group, range(1, 1));
            give_back(&mut group, range(1, 1), Some(for_ms));
            assert_eq!(group.failures, BTreeMap::from([(Seq(1), Failures { times, for_ms })]));
        }
        lend(&mut group, range(1, 1));
        group.begin_run();
        assert_eq!((group.attempts(Seq(1)), group.attempts(Seq(2))), (4, 0));
        give_back(&mut group, range(1, 1), Some(7));
        assert_eq!(group.attempts(Seq(1)), 4, "its lease ended with the run");
        let settled = [
            GroupChange::Ack { range: range(1, 1) },
            GroupChange::Dead { seq: Seq(1) },
            GroupChange::Skip { range: range(1, 1), dropped: true },
            GroupChange::Revive { seq: Seq(1) },
            GroupChange::Again { from: Seq(1) },
        ];
        for change in settled {
            let mut group = group.clone();
            group.apply(&change);
            assert!(group.failures.is_empty() && group.deaths.is_empty(), "{change:?}");
        }
        group.deaths.insert(Seq(1), u32::MAX);
        assert_eq!(group.attempts(Seq(1)), u32::MAX);
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
        group.apply(&GroupChange::Lease { range: range(42, 42) });
        group.begin_run();
        group.apply(&GroupChange::Lease { range: range(43, 43) });
        group.apply(&GroupChange::Again { from: Seq(31) });
        assert_eq!((group.acks.floor(), group.acks.ranges(), group.lag_lines(Seq(61))), (Seq(30), 0, 30));
        assert!(group.leases.is_empty() && group.deaths.is_empty());
        assert_eq!((group.acked_lines, group.skipped_lines), (51, 0), "what was acked was acked");
    }

    #[test]
    fn lines_that_are_passed_over_are_counted_apart_and_once() {
        let mut group = GroupState::empty("default", Seq(0));
        group.apply(&GroupChange::Ack { range: range(3, 4) });
        group.apply(&GroupChange::Lease { range: range(5, 9) });
        group.apply(&GroupChange::Skip { range: range(1, 6), dropped: false });
        group.apply(&GroupChange::Skip { range: range(1, 7), dropped: true });
        assert_eq!((group.acked_lines, group.skipped_lines, group.dropped_lines), (2, 4, 1));
        assert_eq!((group.acks.floor(), group.leases.len()), (Seq(7), 0), "a lease of such lines is over");
    }
}
