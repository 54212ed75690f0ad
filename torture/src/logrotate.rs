//! Debian's logrotate under the real service, in each mode, while the service runs and while it is stopped. Writers of 100
//! lines a second continue all the time. In the end every line that is in a file is stored once and in order, and the
//! others are counted as far as possible.
//!
//! A `postrotate` script signals the writers to reopen their files, as it does daemons. Some do so late: their lines land in
//! a file that was renamed away, compressed or deleted. Cases that cannot be decided by `docs/explanation/tail.md` are left out:
//!
//! - Lines in a deleted file that the service does not have open cannot be read. So the service has read from the file that a
//!   writer has open before a mode deletes it; and while the service is stopped no writer is late in these modes.
//! - The name of a file in an `olddir` does not show its place in the order. So the service has seen each file before it
//!   stops, and there is one rotation until it is started again.
//! - A copy without a truncation is another file with equal content (`copy`). `shred` and `mail` delete as `rotate 0` does.
//! - A file that was compressed after its source was finished is new. So the globs name the rotated files as well.
//!
//! Lines are written in two parts, except in files that are truncated: there each half would become a line, with any reader.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::account::Sum;
use crate::campaign::{Setup, Tally};
use crate::disk::{self, Kind};
use crate::need;
use crate::rotation_case::{Case, Seen, all_cases};
use crate::rotation_stage::{LOGROTATE, Stage};
use crate::trouble::{During, Result};
use crate::words::counted;

/// Cases wait most of the time.
const AT_ONCE: usize = 6;

/// Runs the campaign.
pub fn run(setup: &Setup, tally: &mut Tally) {
    let lacks = need::tools(&[LOGROTATE, "gzip"]).or_else(|| disk::lacks_mounts(Kind::Ext4, &setup.work));
    if let Some(why) = lacks {
        return tally.skip(setup.count, &why);
    }
    let seen = setup.stores_at_once("logrotate", AT_ONCE, tally, |folder, seed| one(setup, folder, seed));
    let mut hits: BTreeMap<String, u64> = all_cases().map(|case| (case.to_string(), 0)).collect();
    let mut did = Did::default();
    for one in &seen {
        *hits.entry(one.case.to_string()).or_default() += one.rotations;
        did.add(one);
    }
    println!("{}, seed {}: {did}", counted(setup.count, "case"), setup.seed);
    for (case, rotations) in &hits {
        println!("  {case}: {}", counted(*rotations, "rotation"));
    }
    // A case that failed is reported elsewhere.
    let has_all = seen.len() as u64 == setup.count && setup.count >= hits.len() as u64;
    if has_all && hits.values().any(|rotations| *rotations == 0) {
        let repeat = format!("logrotate --count {} --seed {}", setup.count, setup.seed);
        tally.fail(&"every mode must be hit, running and stopped", &setup.work, &repeat);
    }
}

/// What all of them did.
#[derive(Default)]
struct Did {
    late: u64,
    kills: u64,
    stops: u64,
    sum: Sum,
}

impl Did {
    fn add(&mut self, seen: &Seen) {
        let Seen { late, kills, stops, sum, .. } = seen;
        self.late += late;
        self.kills += kills;
        self.stops += stops;
        self.sum.stored += sum.stored;
        self.sum.saved += sum.saved;
        self.sum.missing += sum.missing;
        self.sum.counted_bytes += sum.counted_bytes;
        self.sum.lost_sight += sum.lost_sight;
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Did { late, kills, stops, sum } = self;
        let Sum { stored, saved, missing, counted_bytes, lost_sight } = sum;
        write!(
            f,
            "{} stored, {saved} of them not in a file any more; late writers: {late}; {}, {}; {} destroyed unread, counted as {} and {}",
            counted(*stored, "line"),
            counted(*kills, "kill"),
            counted(*stops, "stop"),
            counted(*missing, "line"),
            counted(*counted_bytes, "byte"),
            counted(*lost_sight, "file")
        )
    }
}

fn one(setup: &Setup, folder: &Path, seed: u64) -> Result<Seen> {
    let case = Case::of(seed);
    let mut stage = Stage::new(setup, folder, seed, case)?;
    for round in 0..stage.rounds() {
        let done = if case.is_running { stage.rotate_running() } else { stage.rotate_stopped() };
        done.during(format!("{case}, round {}", round + 1))?;
    }
    stage.end().during(format!("{case}, at the end"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation_mode::Mode;

    #[test]
    fn seeds_that_follow_one_another_hit_each_mode_and_then_each_case() {
        let modes = Mode::ALL.len() as u64;
        for seed in [0, 1, 17, 1_000_003] {
            for mode in Mode::ALL {
                assert_eq!((seed..seed + modes).filter(|seed| Case::of(*seed).mode == mode).count(), 1);
            }
            for case in all_cases() {
                assert_eq!((seed..seed + 2 * modes).filter(|seed| Case::of(*seed) == case).count(), 1);
            }
        }
    }
}
