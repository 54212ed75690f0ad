//! Lines and receivers that go wrong: poison lines among others, and receivers that hang.
//!
//! *poison*: exactly the poison lines become dead letters, and their neighbours are tried at most as often as halving
//! a batch takes. *hang*: a receiver ignores SIGTERM, stops itself, or has forked a daemon with a session of its own;
//! it is ended with all that it started, and its lines come again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::campaign::{Setup, Tally};
use crate::line;
use crate::notes::{self, Delivery};
use crate::phases::Phases;
use crate::places::Places;
use crate::receive::OUTAGE;
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::writer::Pace;

const LINES: u64 = 3_000;
/// Between those that follow while a line waits: many times what a batch of one line takes.
const ANOTHER_LINE: Duration = Duration::from_millis(300);
/// Lines of a batch in the trial's configuration.
const BATCH_LINES: u64 = 2_000;
/// Hangs of one store.
const HANGS_A_STORE: u64 = 5;

fn pace(poison_one_in: u64) -> Pace {
    Pace { burst_lines: LINES, breath: Duration::ZERO, rotate_lines: 0, letters_max: 100, poison_one_in }
}

/// Runs `poison`.
pub fn run(setup: &Setup, tally: &mut Tally) {
    let seen = setup.stores("poison", 1, tally, |folder, seed, _| poison(setup, folder, seed));
    let phases: Phases = seen.iter().map(|(hit, ..)| *hit).sum();
    let letters: u64 = seen.iter().map(|(_, dead, _)| dead).sum();
    let most = seen.iter().map(|(.., most)| *most).max().unwrap_or_default();
    println!(
        "{} loads, seed {}: {letters} dead letters; at most {most} deliveries of a neighbour; hit: {phases}",
        setup.count, setup.seed
    );
}

#[derive(Deserialize)]
struct Letter {
    seq: u64,
}

/// One load; gives what it hit, the dead letters, and how often a neighbour was delivered at most.
fn poison(setup: &Setup, folder: &Path, seed: u64) -> Result<(Phases, u64, u64)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut trial = Trial::new(&setup.program, Places::below(folder), seed, 1, pace(rng.u64(150..2_500)))?;
    for writer in trial.resting() {
        writer.write(LINES, false).during("write lines")?;
    }
    let mut service = trial.start()?;
    // With every other seed everything fails for a while, which makes nothing a dead letter.
    let outage = trial.places.folder.join("notes").join(OUTAGE);
    let is_down = seed.is_multiple_of(2);
    if is_down {
        fs::write(&outage, "").during("begin an outage")?;
        let until = Instant::now() + Duration::from_millis(rng.u64(500..5_000));
        trial.watch(&mut service, until, &mut rng, |_| false)?;
        fs::remove_file(&outage).during("end an outage")?;
    }
    // What is left at the end and fails cannot be told from an outage until another line passes: so others follow.
    // Not faster than groups are done with them.
    let mut written = LINES;
    let mut next = Instant::now();
    let mut failed = None;
    service.wait("everything is settled", |status| {
        let settled = status.groups.iter().all(|group| group.lag_lines == 0);
        if status.log.next_seq > written && !settled && Instant::now() >= next {
            next = Instant::now() + ANOTHER_LINE;
            failed = trial.resting().iter_mut().find_map(|writer| writer.write(1, false).err());
            written += 1;
        }
        status.log.next_seq > written && settled
    })?;
    if let Some(error) = failed {
        return Err(error).during("write a line more");
    }
    let last = trial.look(&service, false);
    trial.phases.add(last.as_ref());
    let code = service.stop()?;
    let listed =
        setup.program.on(&trial.places.data_dir, &["dead-letter", "list", "--group", "holes", "--json"])?;
    let dead: std::result::Result<BTreeSet<u64>, _> = listed
        .out
        .lines()
        .map(|text| serde_json::from_str::<Letter>(text).map(|letter| letter.seq))
        .collect();
    let dead = dead.during("read the dead letters")?;
    // One source and one file: the seq of a line is its number plus one.
    let text = fs::read_to_string(trial.places.logs.join("w0.log")).during("read what was written")?;
    let poison: BTreeSet<u64> = text
        .lines()
        .filter_map(|text| line::parse(text).ok())
        .filter(|line| line.poison)
        .map(|line| line.number + 1)
        .collect();
    if dead != poison || code != 0 {
        let (more, less): (Vec<_>, Vec<_>) =
            (dead.difference(&poison).collect(), poison.difference(&dead).collect());
        return Err(Trouble::new(format!(
            "I9 exit {code}; dead letters that are no poison: {more:?}; poison that is no dead letter: {less:?}"
        )));
    }
    let deliveries = notes::read(&trial.places.folder.join("notes"), "holes").during("read the notes")?;
    // In an outage everybody is tried as often as it takes.
    let most = if is_down { 0 } else { tried(&deliveries, &poison)? };
    trial.finish()?;
    Ok((trial.phases, dead.len() as u64, most))
}

/// How often a neighbour of poison was delivered at most. Each may be delivered with its whole batch once, with the whole
/// once more, as a receiver that blames no line may be in an outage, and then at every halving: of 2,000 lines eleven.
fn tried(deliveries: &[Delivery], poison: &BTreeSet<u64>) -> Result<u64> {
    // Of each line: deliveries, and the lines of the largest.
    let mut tried: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for Delivery { first, last, .. } in deliveries {
        for seq in (*first..=*last).filter(|seq| !poison.contains(seq)) {
            let (count, batch) = tried.entry(seq).or_default();
            (*count, *batch) = (*count + 1, (*batch).max(last - first + 1));
        }
    }
    let bound = |batch: u64| 2 + u64::from(batch.next_power_of_two().ilog2());
    match tried.iter().find(|(_, (count, batch))| *count > bound(*batch)) {
        Some((seq, (count, batch))) => Err(Trouble::new(format!(
            "I8 line {seq}, a neighbour of poison in a batch of {batch}, was delivered {count} times, at most {} are needed",
            bound(*batch)
        ))),
        None => Ok(tried.values().map(|(count, _)| *count).max().unwrap_or_default()),
    }
}

/// Runs `hang`.
pub fn hang(setup: &Setup, tally: &mut Tally) {
    let seen = setup
        .stores("hang", HANGS_A_STORE, tally, |folder, seed, hangs| hangs_of(setup, folder, seed, hangs));
    let phases: Phases = seen.iter().map(|(hit, _)| *hit).sum();
    let hung: u64 = seen.iter().map(|(_, hung)| hung).sum();
    println!("{hung} processes hung, seed {}; hit: {phases}", setup.seed);
}

fn hangs_of(setup: &Setup, folder: &Path, seed: u64, hangs: u64) -> Result<(Phases, u64)> {
    let options = "timeout = \"1s\"";
    let receiver = format!("\"--hangs\", \"{hangs}\", ");
    let places = Places { strict_options: options, strict_receiver: receiver, ..Places::below(folder) };
    let mut trial = Trial::new(&setup.program, places, seed, 1, pace(0))?;
    // A batch each.
    for _ in 0..hangs {
        for writer in trial.resting() {
            writer.write(BATCH_LINES, false).during("write lines")?;
        }
    }
    trial.finish()?;
    let text = fs::read_to_string(trial.places.folder.join("notes/hung")).during("read who hung")?;
    let pids: BTreeSet<&str> = text.lines().collect();
    let alive: Vec<&&str> = pids.iter().filter(|pid| is_alive(pid)).collect();
    if !alive.is_empty() {
        return Err(Trouble::new(format!("I6 these hung and outlived their time-out: {alive:?}")));
    }
    // Who hangs, and the daemon that it forked.
    if (pids.len() as u64) < 2 * hangs {
        return Err(Trouble::new(format!("{hangs} receivers should have hung, and {} did", pids.len() / 2)));
    }
    Ok((trial.phases, pids.len() as u64))
}

/// A zombie whose parent has not looked yet is not.
fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}
