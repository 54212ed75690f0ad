//! Sets of seqs as lists of ranges. Pure.

use crate::ids::SeqRange;

/// What of `ranges` lies outside all `holes`.
pub(crate) fn without(ranges: Vec<SeqRange>, holes: impl IntoIterator<Item = SeqRange>) -> Vec<SeqRange> {
    let cut = |rest: Vec<SeqRange>, hole| rest.into_iter().flat_map(|range| range.without(hole)).collect();
    holes.into_iter().fold(ranges, cut)
}

/// The same seqs in order, without overlaps.
pub(crate) fn union(mut ranges: Vec<SeqRange>) -> Vec<SeqRange> {
    ranges.sort_unstable();
    let mut out: Vec<SeqRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.first <= last.last.next() => last.last = last.last.max(range.last),
            _ => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seq;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq(first), Seq(last)).unwrap()
    }

    #[test]
    fn ranges_are_joined_where_they_touch_and_cut_where_a_hole_is() {
        let joined = union(vec![range(7, 9), range(1, 3), range(4, 5), range(8, 12)]);
        assert_eq!(joined, [range(1, 5), range(7, 12)]);
        assert_eq!(
            without(joined, [range(2, 3), range(5, 8), range(12, 20)]),
            [range(1, 1), range(4, 4), range(9, 11)]
        );
    }
}
