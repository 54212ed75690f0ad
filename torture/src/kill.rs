//! Random kills: SIGKILL at any moment while lines are ingested, delivered and acked, journals are rotated, and while the
//! service recovers from the previous kill, or stops.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::campaign::{Setup, Tally};
use crate::peak::Peak;
use crate::phases::Phases;
use crate::places::Places;
use crate::service::Status;
use crate::trial::Trial;
use crate::trouble::{During, Result};
use crate::words::counted;
use crate::writer::USUAL;

/// Kills of one store; then everything is finished and judged, and the next seed begins with an empty one.
const KILLS_A_STORE: u64 = 50;
/// The longest wait for a rare phase.
const RARE_MAX: Duration = Duration::from_secs(60);
const SOURCES: u32 = 3;

/// Runs the campaign.
pub fn run(setup: &Setup, tally: &mut Tally) {
    let seen =
        setup.stores("kill", KILLS_A_STORE, tally, |folder, seed, kills| one(setup, folder, seed, kills));
    let phases: Phases = seen.iter().map(|(hit, ..)| *hit).sum();
    let lines: u64 = seen.iter().map(|(.., lines)| lines).sum();
    let mut peak = Peak::default();
    seen.iter().for_each(|(_, most, _)| peak.max(most));
    println!(
        "{}, seed {}, {}; hit: {phases}",
        counted(setup.count, "kill"),
        setup.seed,
        counted(lines, "line")
    );
    let Peak { memory_kib, descriptors, opening } = peak;
    println!(
        "at most {} MiB resident, {}, opened within {opening:.2?}",
        memory_kib / 1024,
        counted(descriptors, "descriptor")
    );
    let missed = phases.missed();
    if !missed.is_empty() {
        println!("never hit: {}", missed.join(", "));
        if setup.count >= 100 {
            let repeat = format!("kill --count {} --seed {}", setup.count, setup.seed);
            tally.fail(&"a hundred kills must hit every phase", &setup.work, &repeat);
        }
    }
}

/// One store, killed `kills` times.
fn one(setup: &Setup, folder: &Path, seed: u64, kills: u64) -> Result<(Phases, Peak, u64)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut trial = Trial::new(&setup.program, Places::below(folder), seed, SOURCES, USUAL)?;
    trial.work();
    for kill in 0..kills {
        let mut service = trial.start()?;
        // About when a segment is removed or a journal is rotated; early, during recovery; or after a while.
        let (for_removal, for_rotation) = (kill % 16 == 15, kill % 8 == 7);
        let early = rng.u8(..4) == 0;
        let wait = if early { rng.u64(5..80) } else { rng.u64(150..600) };
        let wait = if for_rotation { RARE_MAX } else { Duration::from_millis(wait) };
        let last = trial.watch(&mut service, Instant::now() + wait, &mut rng, |Status { log, .. }| {
            let removed = log.segments_removed > 0 && log.lines_relocated > 0;
            (for_removal && removed) || (for_rotation && !for_removal && log.rotations > 0)
        })?;
        trial.phases.add(last.as_ref());
        if last.is_some() && rng.u8(..8) == 0 {
            service.terminate()?;
            std::thread::sleep(Duration::from_millis(rng.u64(..40)));
            trial.phases.clean_stop += 1;
        }
        service.kill()?;
        trial.judge().during(format!("after kill {}", kill + 1))?;
        if rng.u8(..4) == 0 && last.is_some() {
            trial.judge_disk().during(format!("on disk, after kill {}", kill + 1))?;
        }
    }
    let (lines, peak) = trial.finish().during("at the end")?;
    Ok((trial.phases, peak, lines))
}
