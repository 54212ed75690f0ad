//! The phases that were hit, summed over all runs of the service.
//!
//! Seen from outside: a run of the service counts in its status since it started, and the last status before a fault
//! shows what it had done by then.

use std::fmt;
use std::iter::Sum;

use crate::service::Status;
use crate::words::counted;

/// Counts of what happened before, or during, a fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Runs that had made a commit.
    pub append: u64,
    /// Commits that referenced their lines.
    pub large: u64,
    /// Journals that were rotated.
    pub rotate: u64,
    /// Runs whose segments were written back: a rotation syncs them.
    pub write_back: u64,
    /// Lines copied out of a segment that is removed.
    pub relocate: u64,
    /// Segments removed.
    pub remove: u64,
    /// Faults before the service answered for the first time: while it recovered.
    pub recover: u64,
    /// Faults during, or after, a clean stop.
    pub clean_stop: u64,
}

impl Phases {
    /// Adds a run that a fault ended; `last` is its last status.
    pub fn add(&mut self, last: Option<&Status>) {
        let Some(Status { log, .. }) = last else {
            self.recover += 1;
            return;
        };
        self.append += u64::from(log.commits > 0);
        self.large += log.large_commits;
        self.rotate += log.rotations;
        self.write_back += u64::from(log.rotations > 0);
        self.relocate += log.lines_relocated;
        self.remove += log.segments_removed;
    }

    /// Those that were never hit.
    pub fn missed(&self) -> Vec<&'static str> {
        let all = [
            ("append", self.append),
            ("large commit", self.large),
            ("rotate", self.rotate),
            ("write back", self.write_back),
            ("relocate", self.relocate),
            ("remove", self.remove),
            ("recover", self.recover),
            ("clean stop", self.clean_stop),
        ];
        all.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }
}

/// Those of several trials.
impl Sum for Phases {
    fn sum<I: Iterator<Item = Phases>>(all: I) -> Phases {
        all.fold(Phases::default(), |sum, other| Phases {
            append: sum.append + other.append,
            large: sum.large + other.large,
            rotate: sum.rotate + other.rotate,
            write_back: sum.write_back + other.write_back,
            relocate: sum.relocate + other.relocate,
            remove: sum.remove + other.remove,
            recover: sum.recover + other.recover,
            clean_stop: sum.clean_stop + other.clean_stop,
        })
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Phases { append, large, rotate, write_back, relocate, remove, recover, clean_stop } = self;
        write!(
            f,
            "append {append}, large commit {large}, rotate {rotate}, write back {write_back}, relocate {}, remove {}, recover {recover}, clean stop {clean_stop}",
            counted(*relocate, "line"),
            counted(*remove, "segment")
        )
    }
}
