//! What a group over some sources knows beside its state in the log: whose lines are its own, how many of them wait, and
//! which lines of others it has passed.
//!
//! Its own lines that wait are counted when it begins, from the headers of the blocks in the log; from then on each append
//! and each settled line changes the number. Until the first count is done, all lines that wait are an upper bound.
//!
//! Lines of other sources are settled with the batch around them. Those that no batch is around are *passed*: settled with the
//! next commit, or a second later. A crash before that does no harm.
//!
//! Bounds: [`PASSED_MAX`] ranges that are passed.

use std::time::Duration;

use spillq_storage::SeqRange;
use spillq_storage::state::AckSet;

use super::sources::Members;

/// Lines of other sources are settled with the next commit, or this much later.
pub(super) const PASSED_WAIT: Duration = Duration::from_secs(1);
/// Ranges that are passed: with each commit they become ranges of acks.
pub(super) const PASSED_MAX: usize = 64;
/// No lines above one that waits are passed if the group has this many ranges of acks.
pub(super) const RANGES_LEFT: usize = AckSet::RANGES_MAX / 4;
/// Bytes of others in a row that are passed above a line that waits. What is passed ends a batch, so less is left to the batch
/// around it; and more would keep a segment for one line.
pub(super) const STRETCH_BYTES: u64 = 8 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) members: Members,
    /// Its own lines that wait, or, while they are counted, by how much that number has changed since.
    pub(super) waiting: i64,
    pub(super) count: Count,
    /// Its own lines and their bytes, as far as they were seen in this run: for their average length.
    pub(super) seen: (u64, u64),
    /// Rising, with gaps between them.
    pub(super) passed: Vec<SeqRange>,
    /// The newest lines, as far as they are all of other sources, and their bytes.
    pub(super) stretch: Option<(SeqRange, u64)>,
    /// Rejected dead letters since the last ack.
    pub(super) rejected: u32,
}

/// How far its lines are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// They have to be.
    Wanted,
    /// A count has begun; another one has another number.
    Begun(u64),
    Known,
}

impl Share {
    /// Of a group whose own lines are those of `members`. How many wait is not known yet.
    pub(super) fn new(members: Members) -> Share {
        Share {
            members,
            waiting: 0,
            count: Count::Wanted,
            seen: (0, 0),
            passed: Vec::new(),
            stretch: None,
            rejected: 0,
        }
    }

    /// These lines are of other sources.
    pub(super) fn pass(&mut self, range: SeqRange) {
        let mut joined = range;
        self.passed.retain(|known| {
            let touches = known.first <= joined.last.next() && joined.first <= known.last.next();
            if touches {
                joined.first = joined.first.min(known.first);
                joined.last = joined.last.max(known.last);
            }
            !touches
        });
        let at = self.passed.partition_point(|known| known.first < joined.first);
        self.passed.insert(at, joined);
    }

    /// Own lines were seen, with their bytes.
    pub(super) fn see(&mut self, lines: u64, bytes: u64) {
        self.seen.0 += lines;
        self.seen.1 += bytes;
    }
}
