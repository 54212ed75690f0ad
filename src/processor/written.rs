//! Which lines a destination was given, so that a batch that is delivered again adds only the rest, however it is cut.
//!
//! At most [`RANGES_MAX`] ranges are known. Beyond that the lowest is forgotten, and its lines count as not written: a line is
//! written twice rather than lost. As one batch is delivered at a time, the lines that can come again are those of the
//! latest batches, far above the lowest range.

use std::fmt;
use std::str::FromStr;

use spillq_storage::{Seq, SeqRange};

use super::{Batch, Piece};

/// In a strict group the lines of a destination are one range, and one more for each gap: lines that were lost or dead-lettered.
pub(super) const RANGES_MAX: usize = 128;
/// A batch of more ranges is bisected: all of it must be known until it is acked.
const BATCH_RANGES_MAX: usize = RANGES_MAX / 2;

/// Ranges of lines, rising, with gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written(Vec<SeqRange>);

impl Written {
    /// The lines of all `ranges`.
    pub(super) fn of(ranges: impl IntoIterator<Item = SeqRange>) -> Written {
        let mut written = Written::default();
        for range in ranges {
            written.add(range);
        }
        written
    }

    /// Notes that the lines of `range` are written.
    pub(super) fn add(&mut self, range: SeqRange) {
        let mut joined = range;
        self.0.retain(|known| {
            let touches = known.first <= joined.last.next() && joined.first <= known.last.next();
            if touches {
                joined.first = joined.first.min(known.first);
                joined.last = joined.last.max(known.last);
            }
            !touches
        });
        let at = self.0.partition_point(|known| known.first < joined.first);
        self.0.insert(at, joined);
        let excess = self.0.len().saturating_sub(RANGES_MAX);
        self.0.drain(..excess);
    }

    /// Forgets the lines of `range`.
    pub(super) fn remove(&mut self, range: SeqRange) {
        self.0 = self.0.iter().flat_map(|known| known.without(range)).collect();
    }

    /// The lines of `range` that are not written.
    pub(super) fn missing(&self, range: SeqRange) -> Vec<SeqRange> {
        let mut missing = Vec::new();
        let mut from = range.first;
        for known in self.0.iter().filter_map(|known| known.intersection(range)) {
            missing.extend(SeqRange::new(from, known.first.prev()));
            from = known.last.next();
        }
        missing.extend(SeqRange::new(from, range.last));
        missing
    }

    /// Forgets the lines from `from` on.
    pub(super) fn forget(&mut self, from: Seq) {
        self.remove(SeqRange { first: from, last: Seq(u64::MAX) });
    }

    /// The lines of `batch` that are not written.
    pub(super) fn rest(&self, batch: &Batch) -> Vec<Piece> {
        let rest = |piece: &Piece| -> Vec<Piece> {
            let missing = self.missing(piece.range());
            missing.into_iter().filter_map(|range| piece.within(range)).collect()
        };
        batch.pieces().iter().flat_map(rest).collect()
    }

    /// The ranges.
    pub(super) fn ranges(&self) -> &[SeqRange] {
        &self.0
    }

    /// The highest seq that is written; 0 if there is none.
    pub(super) fn last(&self) -> Seq {
        self.0.last().map(|range| range.last).unwrap_or_default()
    }
}

/// As servers store it: `1-200,205,207-9000`; empty if nothing is written.
impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            match range.lines() {
                1 => write!(f, "{}", range.first.0)?,
                _ => write!(f, "{}-{}", range.first.0, range.last.0)?,
            }
        }
        Ok(())
    }
}

impl FromStr for Written {
    type Err = String;

    fn from_str(text: &str) -> Result<Written, String> {
        let mut written = Written::default();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = match (first.parse(), last.parse()) {
                (Ok(first), Ok(last)) => SeqRange::new(Seq(first), Seq(last)),
                _ => None,
            };
            // Rising, with a gap before each: only we write it, and only in this way.
            let rises = |range: &SeqRange| written.0.is_empty() || written.last().next() < range.first;
            match range.filter(rises) {
                Some(range) if written.0.len() < RANGES_MAX => written.0.push(range),
                _ => return Err(format!("not the lines that are written: {part:?}")),
            }
        }
        Ok(written)
    }
}

/// Whether `batch` has more gaps than a note can hold until it is acked.
pub(super) fn has_too_many_gaps(batch: &Batch) -> bool {
    let mut gaps = 0;
    let mut next = batch.range().first;
    for piece in batch.pieces() {
        gaps += usize::from(piece.covers().first > next);
        next = piece.covers().last.next();
    }
    gaps >= BATCH_RANGES_MAX
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::sample;
    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq(first), Seq(last)).unwrap()
    }

    /// Each line of a group over some sources between two of others made a range, so that a batch had at most 63 lines.
    #[test]
    fn lines_of_other_sources_in_between_make_no_ranges() {
        let block = sample::block(1, &[&b"x"[..]; 400]);
        let every_second: Vec<(u64, u64)> = (1..200).map(|nth| (2 * nth, 2 * nth)).collect();
        let pieces = sample::pieces(&block, &every_second, |block, range| {
            let covers = SeqRange { first: range.first, last: range.last.next() };
            Some(Piece::new(block, range)?.covering(covers))
        });
        let batch = Batch::new("g".into(), 1, pieces).unwrap();
        assert!(!has_too_many_gaps(&batch));
        let mut written = Written::default();
        batch.pieces().iter().take(50).for_each(|piece| written.add(piece.covers()));
        assert_eq!(written.ranges(), [range(2, 101)]);
        assert_eq!(written.rest(&batch).len(), 149);
        let alone = sample::pieces(&block, &every_second, Piece::new);
        assert!(has_too_many_gaps(&Batch::new("g".into(), 1, alone).unwrap()));
    }

    #[test]
    fn ranges_behave_like_a_set_of_seqs() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut written, mut model) = (Written::default(), BTreeSet::new());
        for _ in 0..2_000 {
            let first = random.u64(1..200);
            let picked = range(first, first + random.u64(0..8));
            let missing: Vec<u64> =
                written.missing(picked).into_iter().flat_map(|range| range.first.0..=range.last.0).collect();
            let expected: Vec<u64> =
                (picked.first.0..=picked.last.0).filter(|seq| !model.contains(seq)).collect();
            assert_eq!(missing, expected);
            written.add(picked);
            model.extend(picked.first.0..=picked.last.0);
            assert!(written.ranges().windows(2).all(|two| two[0].last.next() < two[1].first));
            let first = random.u64(1..200);
            let picked = range(first, first + random.u64(0..20));
            written.remove(picked);
            model.retain(|seq| !picked.contains(Seq(*seq)));
        }
    }

    #[test]
    fn what_servers_store_is_parsed_and_nothing_else_is() {
        for text in ["", "7", "1-200,205,207-9000"] {
            assert_eq!(text.parse::<Written>().unwrap().to_string(), text);
        }
        let most = Written::of((1..=RANGES_MAX as u64).map(|i| range(2 * i, 2 * i)));
        assert_eq!(most.to_string().parse(), Ok(most.clone()));
        let one_more = format!("{most},900");
        for text in ["x", "1-", "5-4", "1-3,4", "7,1", "1,,2", " 1", "-1", &one_more] {
            assert!(text.parse::<Written>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_lowest_range_is_forgotten_first_and_counts_as_not_written() {
        let written = Written::of((1..=RANGES_MAX as u64 + 1).map(|i| range(2 * i, 2 * i)));
        assert_eq!(written.ranges().len(), RANGES_MAX);
        assert_eq!(written.missing(range(2, 2)), [range(2, 2)]);
        assert_eq!(written.missing(range(4, 4)), []);
    }
}
