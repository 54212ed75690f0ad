//! Which lines of a lease are its group's own: all, or in a group over some sources those of its sources. Pure.

use std::sync::Arc;

use spillq_storage::{Seq, SeqRange};

/// The lines of a lease that are the group's own. Cheap to clone: 16 bytes for each range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own(Option<Arc<[SeqRange]>>);

/// Which lines of an offer were read, and are to be leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All up to this one.
    UpTo(Seq),
    /// Those of the group's sources.
    Own {
        /// Which; at least one.
        own: Own,
        /// All others up to here are of other sources.
        to: Seq,
    },
}

impl Own {
    /// These ranges, in rising order and without overlaps.
    #[must_use]
    pub fn of(ranges: &[SeqRange]) -> Own {
        let mut joined: Vec<SeqRange> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if last.last.next() == range.first => last.last = range.last,
                _ => joined.push(*range),
            }
        }
        Own(Some(joined.into()))
    }

    /// Whether all lines are its own.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Those that touch `range`; `None` if all lines are its own.
    fn among(&self, range: SeqRange) -> Option<impl DoubleEndedIterator<Item = SeqRange>> {
        let own = self.0.as_deref()?;
        let from = own.partition_point(|own| own.last < range.first);
        let to = own.partition_point(|own| own.first <= range.last);
        let touching = own.get(from..to).unwrap_or_default().iter();
        Some(touching.filter_map(move |own| own.intersection(range)))
    }

    /// Its own lines in `range`, in rising order.
    #[must_use]
    pub fn ranges(&self, range: SeqRange) -> Vec<SeqRange> {
        self.among(range).map_or_else(|| vec![range], Iterator::collect)
    }

    /// How many lines of `range` are its own.
    #[must_use]
    pub fn count(&self, range: SeqRange) -> u64 {
        self.among(range).map_or(range.lines(), |own| own.map(SeqRange::lines).sum())
    }

    /// Whether the line is its own.
    #[must_use]
    pub fn has(&self, seq: Seq) -> bool {
        self.count(SeqRange::one(seq)) > 0
    }

    /// From its first own line in `range` to its last; `None` if there is none.
    #[must_use]
    pub fn span(&self, range: SeqRange) -> Option<SeqRange> {
        let Some(mut own) = self.among(range) else { return Some(range) };
        let first = own.next()?;
        Some(SeqRange { first: first.first, last: own.next_back().unwrap_or(first).last })
    }

    /// From its first own line to its last.
    pub(super) fn whole(&self) -> Option<SeqRange> {
        let own = self.0.as_deref()?;
        Some(SeqRange { first: own.first()?.first, last: own.last()?.last })
    }

    /// The last line of the first half of its own lines in `range`.
    #[must_use]
    pub(super) fn middle(&self, range: SeqRange) -> Seq {
        let mut skip = self.count(range).saturating_sub(1) / 2;
        let Some(own) = self.among(range) else { return range.first.plus(skip) };
        for own in own {
            if skip < own.lines() {
                return own.first.plus(skip);
            }
            skip -= own.lines();
        }
        range.first
    }
}

impl From<Seq> for Taken {
    fn from(last: Seq) -> Taken {
        Taken::UpTo(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq(first), Seq(last)).unwrap()
    }

    #[test]
    fn own_lines_are_counted_found_and_halved() {
        let own = Own::of(&[range(3, 4), range(5, 5), range(9, 9), range(20, 29)]);
        for first in 1..32 {
            for last in first..32 {
                let mine: Vec<u64> =
                    (first..=last).filter(|seq| matches!(seq, 3..=5 | 9 | 20..=29)).collect();
                let of = range(first, last);
                assert_eq!(own.count(of), mine.len() as u64, "{of}");
                let span = mine.first().zip(mine.last()).map(|(first, last)| range(*first, *last));
                assert_eq!(own.span(of), span, "{of}");
                if let Some(middle) = mine.get(mine.len().saturating_sub(1) / 2) {
                    assert_eq!(own.middle(of).0, *middle, "{of}");
                }
                let all = Own::default();
                assert_eq!((all.count(of), all.span(of)), (of.lines(), Some(of)));
                assert_eq!(all.middle(of).0, first + (last - first) / 2);
            }
        }
        assert_eq!(own.whole(), Some(range(3, 29)));
        assert!(own.has(Seq(9)) && !own.has(Seq(10)) && Own::default().has(Seq(10)));
    }
}
