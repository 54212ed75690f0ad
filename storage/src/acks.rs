//! What a group has acked: a floor, and ranges above it. Pure.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use crate::ids::{Seq, SeqRange};

/// A set of seqs: all up to the floor, and ranges above it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct AckSet {
    floor: Seq,
    /// From the first seq of a range to its last. Between two ranges at least one seq is missing.
    above: BTreeMap<u64, u64>,
}

impl AckSet {
    /// The most ranges above the floor that a user of the log should let a group have: it then leases the lines between
    /// them before others. The log itself does not refuse more; each takes some 16 bytes in memory and in the manifest.
    pub const RANGES_MAX: usize = 4_096;

    /// A set that holds everything up to `floor`.
    pub(crate) fn with_floor(floor: Seq) -> AckSet {
        AckSet { floor, above: BTreeMap::new() }
    }

    /// Everything up to here is in the set.
    #[must_use]
    pub fn floor(&self) -> Seq {
        self.floor
    }

    /// The highest seq in the set.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.above.values().next_back().map_or(self.floor, |last| Seq(*last))
    }

    /// How many ranges are above the floor.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.above.len()
    }

    /// How many seqs above the floor are in the set.
    #[must_use]
    pub fn lines_above(&self) -> u64 {
        self.above.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether `seq` is in the set.
    #[must_use]
    pub fn contains(&self, seq: Seq) -> bool {
        seq <= self.floor || self.above.range(..=seq.0).next_back().is_some_and(|(_, last)| seq.0 <= *last)
    }

    /// Adds a range, parts of which may be in the set already.
    pub(crate) fn insert(&mut self, range: SeqRange) {
        let (mut first, mut last) = (range.first.0, range.last.0);
        if last <= self.floor.0 {
            return;
        }
        // Joins every range that touches the new one, also the one that ends right before it.
        while let Some((&near_first, &near_last)) = self.above.range(..=last.saturating_add(1)).next_back() {
            if near_last.saturating_add(1) < first {
                break;
            }
            self.above.remove(&near_first);
            first = first.min(near_first);
            last = last.max(near_last);
        }
        if first <= self.floor.0.saturating_add(1) {
            self.floor = Seq(last);
        } else {
            self.above.insert(first, last);
        }
    }

    /// Removes `from` and all seqs after it.
    pub(crate) fn cut(&mut self, from: Seq) {
        self.above.split_off(&from.0);
        if let Some(mut last) = self.above.last_entry() {
            let cut = (*last.get()).min(from.prev().0);
            last.insert(cut);
        }
        self.floor = self.floor.min(from.prev());
    }

    /// The first range of seqs within `from..=to` that are not in the set.
    #[must_use]
    pub fn gap(&self, from: Seq, to: Seq) -> Option<SeqRange> {
        let mut first = from.max(self.floor.next());
        if let Some((_, &last)) = self.above.range(..=first.0).next_back()
            && first.0 <= last
        {
            first = Seq(last).next();
        }
        let last = match self.above.range(first.0..).next() {
            Some((&next_first, _)) => to.min(Seq(next_first).prev()),
            None => to,
        };
        SeqRange::new(first, last)
    }

    /// All ranges within `range` that are not in the set, in order.
    pub fn gaps(&self, range: SeqRange) -> impl Iterator<Item = SeqRange> {
        let mut rest = Some(range);
        std::iter::from_fn(move || {
            let gap = rest.and_then(|rest| self.gap(rest.first, rest.last))?;
            // There is no seq after the last one.
            rest = SeqRange::new(gap.last.next(), range.last).filter(|_| gap.last < range.last);
            Some(gap)
        })
    }

    /// The seq in `range` that is not in the set and comes after `skip` others that are not; the last one if there are
    /// not that many.
    #[must_use]
    pub fn nth_outside(&self, range: SeqRange, mut skip: u64) -> Option<Seq> {
        let mut last = None;
        for gap in self.gaps(range) {
            if skip < gap.lines() {
                return Some(gap.first.plus(skip));
            }
            skip -= gap.lines();
            last = Some(gap.last);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq(first), Seq(last)).unwrap()
    }

    #[test]
    fn the_floor_rises_when_the_gap_above_it_is_acked() {
        let mut acks = AckSet::default();
        acks.insert(range(4, 6));
        acks.insert(range(8, 9));
        assert_eq!((acks.floor(), acks.ranges(), acks.lines_above()), (Seq(0), 2, 5));
        assert_eq!(acks.gap(Seq(1), Seq(20)), Some(range(1, 3)));
        assert_eq!(acks.gap(Seq(5), Seq(20)), Some(range(7, 7)));
        acks.insert(range(1, 3));
        assert_eq!((acks.floor(), acks.ranges()), (Seq(6), 1));
        acks.insert(range(7, 7));
        assert_eq!((acks.floor(), acks.ranges()), (Seq(9), 0));
        assert_eq!(acks.gap(Seq(1), Seq(9)), None);
    }

    proptest! {
        #[test]
        fn a_cut_removes_all_seqs_from_there_on_and_no_others(
            inserts in proptest::collection::vec((1u64..60, 0u64..12), 0..20), from in 1u64..80,
        ) {
            let mut acks = AckSet::default();
            inserts.iter().for_each(|(first, more)| acks.insert(range(*first, first + more)));
            let before = acks.clone();
            acks.cut(Seq(from));
            for seq in 1..90 {
                prop_assert_eq!(acks.contains(Seq(seq)), seq < from && before.contains(Seq(seq)), "seq {}", seq);
            }
            let mut again = AckSet::default();
            let all = (1..from).filter(|seq| before.contains(Seq(*seq)));
            all.for_each(|seq| again.insert(SeqRange::one(Seq(seq))));
            prop_assert_eq!(acks, again);
        }

        #[test]
        fn it_behaves_as_a_set(inserts in proptest::collection::vec((1u64..60, 0u64..12), 0..40)) {
            let (mut acks, mut model) = (AckSet::default(), BTreeSet::new());
            for (first, more) in inserts {
                acks.insert(range(first, first + more));
                model.extend(first..=first + more);
                for seq in 1..80 {
                    prop_assert_eq!(acks.contains(Seq(seq)), model.contains(&seq), "seq {}", seq);
                }
                let gaps: BTreeSet<u64> =
                    acks.gaps(range(1, 79)).flat_map(|gap| gap.first.0..=gap.last.0).collect();
                let expected: BTreeSet<u64> = (1..80).filter(|seq| !model.contains(seq)).collect();
                for skip in 0..90 {
                    let nth = expected.iter().nth(skip).or(expected.last()).map(|seq| Seq(*seq));
                    prop_assert_eq!(acks.nth_outside(range(1, 79), skip as u64), nth);
                }
                prop_assert_eq!(gaps, expected);
                prop_assert_eq!(acks.floor().0 + acks.lines_above(), model.len() as u64);
            }
        }
    }
}
