//! The state of one group: what it has settled, what it has leased, and which lines failed. Pure.
//!
//! Part of the [manifest](crate::manifest). Failures and deaths are of lines that wait and were leased by themselves, and
//! are removed with the line. So there are at most as many as a group has single-line parts of failed batches, which its
//! batches and its acks above the floor bound.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};

use crate::acks::AckSet;
use crate::ids::{Seq, SeqRange};
use crate::ranges::without;

/// A change of a group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum GroupChange {
    /// Leases lines. What is counted depends on how the lease ends.
    Lease {
        /// Which lines.
        range: SeqRange,
    },
    /// Ends a lease without an ack. If no lease has this range, nothing changes.
    Return {
        /// The range of that lease.
        range: SeqRange,
        /// `Some` if the delivery failed: for how many milliseconds its line has been failing. If the range is one line,
        /// this is counted in [`GroupState::failures`]. `None` if the lines were not delivered, or were returned in time:
        /// nothing is counted.
        failed_for_ms: Option<u64>,
    },
    /// Acks lines.
    Ack {
        /// Which lines; some may be acked already.
        range: SeqRange,
    },
    /// Makes a line a dead letter. [`crate::Log::bury`] must have stored the letter before.
    Dead {
        /// Which line.
        seq: Seq,
    },
    /// Puts a dead letter back: the line waits again.
    Revive {
        /// Which line.
        seq: Seq,
    },
    /// Pauses the group (no new leases), or resumes it.
    Pause(bool),
    /// Settles lines that wait without processing them.
    Skip {
        /// Which lines; some may be settled already.
        range: SeqRange,
        /// Whether they count as dropped by a limit, not as skipped by an operator.
        dropped: bool,
    },
    /// Makes every line from here on wait again, without failures and deaths; ends all leases. Dead letters of these
    /// lines end too: opening settles those that a crash left.
    Again {
        /// The first of them; a segment must hold it.
        from: Seq,
    },
    /// Settles lines of which only some are the group's own: those of other sources in between are settled with them, and
    /// not counted.
    Some {
        /// Which lines; some may be settled already.
        range: SeqRange,
        /// How many of them are its own, and were not settled yet.
        lines: u64,
        /// What these count as.
        counts: Counts,
    },
}

/// What lines of a group count as when they are settled together with lines of other sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Counts {
    /// As acked.
    Acked,
    /// As skipped by an operator.
    Skipped,
    /// As dropped by a limit.
    Dropped,
}

/// The failed deliveries of a line that was delivered by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Failures {
    /// How many deliveries failed.
    pub times: u32,
    /// Milliseconds from the first of these failures to the last, without the time in which the process was down.
    pub for_ms: u64,
}

/// The state of a group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupState {
    pub(crate) name: String,
    pub(crate) paused: bool,
    pub(crate) acks: AckSet,
    pub(crate) revived: BTreeSet<Seq>,
    pub(crate) leases: Vec<SeqRange>,
    pub(crate) suspects: Vec<SeqRange>,
    pub(crate) failures: BTreeMap<Seq, Failures>,
    pub(crate) deaths: BTreeMap<Seq, u32>,
    pub(crate) acked_lines: u64,
    pub(crate) dead_lines: u64,
    pub(crate) skipped_lines: u64,
    pub(crate) dropped_lines: u64,
}

impl GroupState {
    /// A group that has acked everything up to `floor`.
    #[must_use]
    pub fn empty(name: &str, floor: Seq) -> GroupState {
        GroupState {
            name: name.to_owned(),
            paused: false,
            acks: AckSet::with_floor(floor),
            revived: BTreeSet::new(),
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

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it gets no new leases.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// What it has settled: lines acked, dead-lettered, skipped or dropped.
    pub fn acks(&self) -> &AckSet {
        &self.acks
    }

    /// Dead letters that were put back: they wait, although [`GroupState::acks`] holds them.
    pub fn revived(&self) -> &BTreeSet<Seq> {
        &self.revived
    }

    /// The leases of this run of the process.
    pub fn leases(&self) -> &[SeqRange] {
        &self.leases
    }

    /// Leases that were in flight when an earlier run of the process died. They are delivered again in halves, to find
    /// the line that kills the process, if one does.
    pub fn suspects(&self) -> &[SeqRange] {
        &self.suspects
    }

    /// The failures of lines that wait.
    pub fn failures(&self) -> &BTreeMap<Seq, Failures> {
        &self.failures
    }

    /// Lines that wait: how often the process died while the line was delivered by itself.
    pub fn deaths(&self) -> &BTreeMap<Seq, u32> {
        &self.deaths
    }

    /// Lines acked since it was created.
    pub fn acked_lines(&self) -> u64 {
        self.acked_lines
    }

    /// Lines dead-lettered since it was created.
    pub fn dead_lines(&self) -> u64 {
        self.dead_lines
    }

    /// Lines that an operator skipped.
    pub fn skipped_lines(&self) -> u64 {
        self.skipped_lines
    }

    /// Lines that a limit dropped.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped_lines
    }

    /// How many lines before `next` wait for it.
    #[must_use]
    pub fn lag_lines(&self, next: Seq) -> u64 {
        let above = next.prev().0.saturating_sub(self.acks.floor().0);
        above.saturating_sub(self.acks.lines_above()) + self.revived.len() as u64
    }

    /// Deliveries of the line by itself that failed, or during which the process died.
    #[must_use]
    pub fn attempts(&self, seq: Seq) -> u32 {
        let failures = self.failures.get(&seq).map_or(0, |failures| failures.times);
        failures.saturating_add(self.deaths.get(&seq).copied().unwrap_or_default())
    }

    /// Applies one change, as [`crate::Log::commit`] does. Public for tests of what uses the log.
    pub fn apply(&mut self, change: &GroupChange) {
        match change {
            GroupChange::Lease { range } => {
                self.clear_suspects(*range);
                self.leases.push(*range);
            }
            GroupChange::Return { range, failed_for_ms } => {
                // Without a lease nothing is counted: the line may be settled, and its entry would never be removed.
                let was_leased = self.leases.contains(range);
                self.leases.retain(|leased| leased != range);
                if let Some(for_ms) = failed_for_ms.filter(|_| was_leased && range.lines() == 1) {
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
            GroupChange::Some { range, lines, counts } => {
                *match counts {
                    Counts::Acked => &mut self.acked_lines,
                    Counts::Skipped => &mut self.skipped_lines,
                    Counts::Dropped => &mut self.dropped_lines,
                } += lines;
                self.settle(*range);
            }
        }
    }

    /// How many lines of `range` wait.
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
        self.leases.retain(|leased| leased.intersection(range).is_none());
        self.clear_suspects(range);
    }

    fn clear_suspects(&mut self, range: SeqRange) {
        self.suspects = without(std::mem::take(&mut self.suspects), [range]);
    }

    /// Begins a new run of the process: leases of the run before become suspects, in halves. If there was one lease, of
    /// one line, this counts as a death of that line.
    pub fn begin_run(&mut self) {
        let leases = std::mem::take(&mut self.leases);
        let is_only = leases.len() == 1;
        for SeqRange { first, last } in leases {
            // With several leases, the cause is not known.
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
    fn a_lease_in_flight_at_a_crash_is_halved_until_it_is_one_line() {
        let mut group = GroupState::empty("default", Seq(0));
        group.apply(&GroupChange::Lease { range: range(1, 4) });
        group.begin_run();
        assert_eq!(group.suspects, [range(1, 2), range(3, 4)]);
        group.apply(&GroupChange::Lease { range: range(1, 2) });
        assert_eq!(group.suspects, [range(3, 4)]);
        group.begin_run();
        assert_eq!(group.suspects, [range(1, 1), range(2, 2), range(3, 4)]);
        assert!(group.deaths.is_empty(), "no line was leased by itself");
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
    fn failures_and_deaths_of_a_single_line_lease_count_until_the_line_is_settled() {
        let mut group = GroupState::empty("default", Seq(0));
        let lease = |group: &mut GroupState, range| group.apply(&GroupChange::Lease { range });
        let release = |group: &mut GroupState, range, failed_for_ms| {
            group.apply(&GroupChange::Return { range, failed_for_ms });
        };
        lease(&mut group, range(1, 2));
        release(&mut group, range(1, 2), Some(5));
        lease(&mut group, range(1, 1));
        release(&mut group, range(1, 1), None);
        assert!(group.failures.is_empty(), "neither two lines nor an undelivered one count");
        for (times, for_ms) in [(1, 0), (2, 250), (3, 900)] {
            lease(&mut group, range(1, 1));
            release(&mut group, range(1, 1), Some(for_ms));
            assert_eq!(group.failures, BTreeMap::from([(Seq(1), Failures { times, for_ms })]));
        }
        lease(&mut group, range(1, 1));
        group.begin_run();
        assert_eq!((group.attempts(Seq(1)), group.attempts(Seq(2))), (4, 0));
        release(&mut group, range(1, 1), Some(7));
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
    fn a_revived_dead_letter_waits_until_it_is_acked() {
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
    fn a_seek_backwards_makes_lines_wait_again_without_attempts() {
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
        assert_eq!((group.acked_lines, group.skipped_lines), (51, 0), "the counts of what was acked stay");
    }

    #[test]
    fn of_lines_that_are_settled_with_those_of_other_sources_only_its_own_count() {
        let mut group = GroupState::empty("default", Seq(0));
        group.apply(&GroupChange::Lease { range: range(2, 8) });
        let some = |range, lines, counts| GroupChange::Some { range, lines, counts };
        group.apply(&some(range(1, 9), 3, Counts::Acked));
        assert_eq!((group.acks.floor(), group.acked_lines, group.leases.len()), (Seq(9), 3, 0));
        group.apply(&some(range(20, 29), 0, Counts::Acked));
        group.apply(&some(range(10, 19), 2, Counts::Dropped));
        group.apply(&some(range(30, 30), 1, Counts::Skipped));
        assert_eq!((group.acks.floor(), group.acks.ranges()), (Seq(30), 0));
        assert_eq!((group.acked_lines, group.skipped_lines, group.dropped_lines), (3, 1, 2));
    }

    #[test]
    fn skipped_and_dropped_lines_are_counted_separately_and_once() {
        let mut group = GroupState::empty("default", Seq(0));
        group.apply(&GroupChange::Ack { range: range(3, 4) });
        group.apply(&GroupChange::Lease { range: range(5, 9) });
        group.apply(&GroupChange::Skip { range: range(1, 6), dropped: false });
        group.apply(&GroupChange::Skip { range: range(1, 7), dropped: true });
        assert_eq!((group.acked_lines, group.skipped_lines, group.dropped_lines), (2, 4, 1));
        assert_eq!((group.acks.floor(), group.leases.len()), (Seq(7), 0), "the lease of skipped lines ended");
    }
}
