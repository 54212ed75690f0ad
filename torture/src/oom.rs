//! The out-of-memory killer: the service and its children share a memory cgroup with a process that takes memory until
//! the kernel must kill, at any moment. The service and its children have a high `oom_score_adj`, so the largest of them is
//! chosen: the service.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::campaign::{Setup, Tally};
use crate::cgroup::MemoryGroup;
use crate::need;
use crate::phases::Phases;
use crate::places::Places;
use crate::service::wait_for;
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;
use crate::writer::USUAL;

/// Kills of one store.
const KILLS_A_STORE: u64 = 25;
/// Of the cgroup: above the limit of the service.
const LIMIT_BYTES: u64 = 160 << 20;

/// Takes memory until it is killed.
pub fn hog() -> std::io::Result<u8> {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    while (taken.len() as u64) << 20 < 2 * LIMIT_BYTES {
        taken.push(vec![1; 1 << 20]);
    }
    // Held until the campaign ends it.
    loop {
        std::thread::sleep(Duration::from_secs(taken.len() as u64));
    }
}

/// Ended when it is dropped.
struct Hog(Child);

impl Drop for Hog {
    fn drop(&mut self) {
        // The kernel may have killed it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the campaign.
pub fn run(setup: &Setup, tally: &mut Tally) {
    if let Some(why) = need::root().or_else(MemoryGroup::lacks) {
        return tally.skip(setup.count, &why);
    }
    let seen =
        setup.stores("oom", KILLS_A_STORE, tally, |folder, seed, kills| one(setup, folder, seed, kills));
    let phases: Phases = seen.into_iter().sum();
    println!("{} out-of-memory kills, seed {}; hit: {phases}", setup.count, setup.seed);
}

fn one(setup: &Setup, folder: &Path, seed: u64, kills: u64) -> Result<Phases> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let group = MemoryGroup::new(&format!("torture-{}-{seed}", std::process::id()), LIMIT_BYTES)?;
    let mut trial = Trial::new(&setup.program, Places::below(folder), seed, 3, USUAL)?;
    trial.work();
    let mut hog = Command::new(std::env::current_exe().during("find this program")?);
    hog.arg("hog");
    for kill in 0..kills {
        let before = group.kills()?;
        let mut service = trial.start_as(group.wrap(&trial.command(), 1000))?;
        let until = Instant::now() + Duration::from_millis(rng.u64(..600));
        let last = trial.watch(&mut service, until, &mut rng, |_| false)?;
        trial.phases.add(last.as_ref());
        let hog = Hog(group.wrap(&hog, 0).spawn().during("start what takes memory")?);
        let ended = wait_for(|| service.ended().ok().flatten());
        drop(hog);
        let killed = group.kills()? - before;
        if killed == 0 || ended.is_none_or(|status| status.code().is_some()) {
            return Err(Trouble::new(format!(
                "kill {}: {} killed, the service: {ended:?}",
                kill + 1,
                counted(killed, "process")
            )));
        }
        trial.judge().during(format!("after kill {}", kill + 1))?;
        if rng.u8(..4) == 0 && last.is_some() {
            trial.judge_disk().during(format!("on disk, after kill {}", kill + 1))?;
        }
    }
    trial.finish().during("at the end")?;
    Ok(trial.phases)
}
