//! Clocks that jump by up to a day, either way, under a running service: no lease ends early, and one whose receiver
//! hangs still ends.
//!
//! libfaketime changes the wall-clock time of the service; the monotonic clock, which time-outs use, stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::campaign::{Setup, Tally};
use crate::phases::Phases;
use crate::places::Places;
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;
use crate::writer::Pace;

/// Jumps under one run of the service.
const JUMPS_A_STORE: u64 = 20;
/// Of the wall-clock time, in seconds.
const JUMP_MAX: i64 = 86_400;
/// Where Debian's package has it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const PACE: Pace = Pace {
    burst_lines: 50,
    breath: Duration::from_millis(20),
    rotate_lines: 3_000,
    letters_max: 100,
    poison_one_in: 0,
};

/// Runs the campaign.
pub fn run(setup: &Setup, tally: &mut Tally) {
    if !Path::new(LIBRARY).exists() {
        return tally.skip(setup.count, &format!("it needs libfaketime: {LIBRARY}"));
    }
    let seen =
        setup.stores("clock", JUMPS_A_STORE, tally, |folder, seed, jumps| one(setup, folder, seed, jumps));
    let phases: Phases = seen.into_iter().sum();
    println!("{} of the clock, seed {}; hit: {phases}", counted(setup.count, "jump"), setup.seed);
}

fn one(setup: &Setup, folder: &Path, seed: u64, jumps: u64) -> Result<Phases> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let places = Places {
        // Long enough for a loaded machine, and short for a hang.
        strict_options: "timeout = \"15s\"",
        strict_receiver: "\"--hangs\", \"1\", ".to_owned(),
        ..Places::below(folder)
    };
    let mut trial = Trial::new(&setup.program, places, seed, 2, PACE)?;
    let time: PathBuf = folder.join("time");
    let set = |offset: i64| fs::write(&time, format!("{offset:+}")).during("set the clock");
    set(0)?;
    let mut command = trial.command();
    command.env("LD_PRELOAD", LIBRARY).env("FAKETIME_TIMESTAMP_FILE", &time);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    trial.work();
    let mut service = trial.start_as(command)?;
    service.wait("it is ready", |_| true)?;
    let mut last = None;
    for _ in 0..jumps {
        set(rng.i64(-JUMP_MAX..=JUMP_MAX))?;
        let until = Instant::now() + Duration::from_millis(rng.u64(20..500));
        last = trial.watch(&mut service, until, &mut rng, |_| false)?;
    }
    trial.phases.add(last.as_ref());
    service.wait("the batch whose receiver hangs came again", |status| {
        status.group("strict").is_some_and(|group| group.ack_floor > 0)
    })?;
    service.stop_cleanly()?;
    trial.judge()?;
    let early =
        trial.history().groups.into_iter().filter(|group| group.strict).flat_map(|group| group.deliveries);
    let early: Vec<_> = early.filter(|delivery| delivery.attempt > 1 && delivery.first > 1).collect();
    if let Some(delivery) = early.first() {
        let (first, attempt) = (delivery.first, delivery.attempt);
        return Err(Trouble::new(format!(
            "I6 nothing failed, but the batch from {first} came as attempt {attempt}"
        )));
    }
    trial.finish()?;
    Ok(trial.phases)
}
