//! Which segment can be removed, and which of its lines must be retained. Pure.

use crate::ids::{Seq, SeqRange};
use crate::manifest::State;
use crate::ranges::union;

/// Live lines are relocated if at most one line of the segment in this many is live.
const RELOCATE_ONE_IN: u64 = 20;

/// The oldest segment, which may be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    /// Its name.
    pub(crate) segment: Seq,
    /// The first segment after that.
    pub(crate) next: Seq,
    /// Lines that some group still needs, to be relocated first.
    pub(crate) live: Vec<SeqRange>,
}

/// The oldest segment, if it may be removed. The newest may not. Without groups none may: nothing has acked the lines.
pub(crate) fn oldest(state: &State) -> Option<Removal> {
    removal(state, state.oldest_segment()?)
}

/// The bytes of the oldest segments that may all be removed, counted until they are more than `most`.
pub(crate) fn settled_bytes(state: &State, most: u64) -> u64 {
    let mut bytes = 0;
    for (segment, next) in state.segments.iter().zip(state.segments.iter().skip(1)) {
        let range = SeqRange { first: segment.first, last: next.first.prev() };
        if bytes > most || removal(state, range).is_none() {
            break;
        }
        bytes += segment.bytes;
    }
    bytes
}

fn removal(state: &State, range: SeqRange) -> Option<Removal> {
    if state.groups.is_empty() {
        return None;
    }
    let allowed = range.lines() / RELOCATE_ONE_IN;
    let mut live = Vec::new();
    for group in state.groups.values() {
        let mut lines = 0;
        for gap in group.acks.gaps(range) {
            lines += gap.lines();
            if lines > allowed {
                return None;
            }
            live.push(gap);
        }
    }
    let live = union(live);
    let lines: u64 = live.iter().map(|range| range.lines()).sum();
    (lines <= allowed).then_some(Removal { segment: range.first, next: range.last.next(), live })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{Changes, Placed};
    use crate::group_state::GroupChange;
    use crate::ids::{GroupId, StoreId};

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq(first), Seq(last)).unwrap()
    }

    /// Three segments of 100 lines each, and two groups.
    fn state() -> State {
        let mut state = State::new(StoreId(1));
        let blocks = [1, 101, 201].map(|first| Placed {
            first: Seq(first),
            lines: 100,
            raw_bytes: 1,
            bytes: 1,
            new_segment: true,
            reference: None,
        });
        let add_groups = vec![("a".to_owned(), Seq(0)), ("b".to_owned(), Seq(0))];
        state.apply(2, &Changes { blocks: blocks.to_vec(), add_groups, ..Changes::default() });
        state
    }

    fn ack(state: &mut State, group: u32, range: SeqRange) {
        let groups = vec![(GroupId(group), GroupChange::Ack { range })];
        state.apply(state.commit + 1, &Changes { groups, ..Changes::default() });
    }

    #[test]
    fn a_segment_is_removed_when_every_group_has_acked_it() {
        let mut state = state();
        ack(&mut state, 1, range(1, 150));
        assert_eq!(oldest(&state), None);
        ack(&mut state, 2, range(1, 100));
        assert_eq!(oldest(&state), Some(Removal { segment: Seq(1), next: Seq(101), live: vec![] }));
    }

    #[test]
    fn at_most_one_live_line_in_twenty_is_relocated() {
        let mut state = state();
        ack(&mut state, 1, range(4, 100));
        ack(&mut state, 2, range(1, 97));
        assert_eq!(oldest(&state), None, "six lines are live");
        ack(&mut state, 2, range(98, 98));
        assert_eq!(oldest(&state).unwrap().live, [range(1, 3), range(99, 100)]);
    }

    #[test]
    fn the_newest_segment_stays() {
        let mut state = state();
        ack(&mut state, 1, range(1, 300));
        ack(&mut state, 2, range(1, 300));
        for next in [101, 201] {
            let removal = oldest(&state).unwrap();
            assert_eq!(removal.next, Seq(next));
            state.apply(9, &Changes { first_segment: Some(removal.next), ..Changes::default() });
        }
        assert_eq!(oldest(&state), None);
    }
}
