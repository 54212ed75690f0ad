//! Poison lines among others, and receivers that hang.
//!
//! *poison*: a strict group whose receiver blames them, one by one or in a list, rightly or with numbers that are one too low, and an unordered
//! one whose receiver blames nothing. Exactly the poison lines of the strict group become dead letters, nothing overtakes,
//! and their neighbours are delivered no more often than the rules need. With every other seed there are outages.
//! *hang*: a receiver ignores SIGTERM, stops itself, or has forked a daemon in a new session; it is ended with every
//! process that it started, and its lines come again, through outages too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::campaign::{Setup, Tally};
use crate::notes::{self, Delivery};
use crate::outage::{Begins, Outage, Outages};
use crate::phases::Phases;
use crate::places::Places;
use crate::service::Status;
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;
use crate::writer::Pace;

const LINES: u64 = 3_000;
/// Lines of a batch in the trial's configuration.
const BATCH_LINES: u64 = 2_000;
/// Hangs of one store.
const HANGS_A_STORE: u64 = 5;
/// All at once, in one file: the seq of a line is its number plus one.
const PACE: Pace =
    Pace { burst_lines: LINES, breath: Duration::ZERO, rotate_lines: 0, letters_max: 100, poison_one_in: 0 };
/// Short, because a load is short.
const RETRY: &str = "retry = { initial = \"10ms\", max = \"100ms\", attempts = 4 }";
/// An `exec-stream` command that answers something odd is started again after a pause of a quarter of the time-out.
const RETRY_STREAM: &str = "timeout = \"2s\"\nretry = { initial = \"10ms\", max = \"100ms\", attempts = 4 }";
/// `retry.attempts` of `holes`.
const HOLES_ATTEMPTS: usize = 4;
/// An answer may be committed this much later, at most.
const COMMIT_MAX: Duration = Duration::from_secs(1);

/// How the receiver of the strict group blames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// `exec`, and exit status 65.
    Exit,
    /// `exec-stream`, and `NAK N`.
    Numbers,
    /// The same, counted from 0: for a line that is first in its batch it answers `NAK 0`, which blames the batch.
    FromZero,
    /// `exec-stream`, and a list of all poison lines of the batch.
    List,
}

impl Blame {
    const ALL: [Blame; 4] = [Blame::Exit, Blame::Numbers, Blame::FromZero, Blame::List];

    /// How often a line may be delivered that is not poison, `lines` being those of its largest delivery, and `bad` the poison
    /// lines that cost it deliveries: docs/contributing/torture.md derives it.
    fn deliveries_max(self, lines: u64, bad: u64) -> u64 {
        let bisections = bisections(lines);
        match self {
            Blame::Exit => 1 + bisections * bad,
            Blame::Numbers => 1 + bad,
            Blame::FromZero => 2 + bisections * bad,
            Blame::List => 2,
        }
    }
}

fn bisections(lines: u64) -> u64 {
    u64::from(lines.next_power_of_two().ilog2())
}

/// Runs `poison`.
pub fn run(setup: &Setup, tally: &mut Tally) {
    let seen = setup.stores("poison", 1, tally, |folder, seed, _| poison(setup, folder, seed));
    let phases: Phases = seen.iter().map(|seen| seen.phases).sum();
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let most = |of: fn(&Seen) -> u64| seen.iter().map(of).max().unwrap_or_default();
    println!(
        "{}, seed {}: {}, {} of them parked; {}; of a neighbour at most {} (strict), {} (holes); in holes {} waiting, and {} dead-lettered without being poison; hit: {phases}",
        counted(setup.count, "load"),
        setup.seed,
        counted(sum(|seen| seen.poison), "poison line"),
        sum(|seen| seen.parked),
        counted(sum(|seen| seen.outages), "outage"),
        counted(most(|seen| seen.most_strict), "delivery"),
        most(|seen| seen.most_holes),
        counted(sum(|seen| seen.waiting), "poison line"),
        counted(sum(|seen| seen.innocent), "line"),
    );
}

/// What a load saw.
struct Seen {
    phases: Phases,
    poison: u64,
    parked: u64,
    outages: u64,
    most_strict: u64,
    most_holes: u64,
    waiting: u64,
    innocent: u64,
}

/// Numbers of poison lines: a few, pairs, from the first line on, or many.
fn chosen(rng: &mut fastrand::Rng, blame: Blame) -> BTreeSet<u64> {
    // A number that is too low may name the neighbour, which is innocent only if it is not poison.
    let side_by_side = blame != Blame::FromZero;
    let shape = rng.u8(..4);
    let count = if shape == 3 { rng.usize(20..50) } else { rng.usize(1..4) };
    let mut numbers: BTreeSet<u64> = (0..count).map(|_| rng.u64(2..LINES - 2)).collect();
    if shape == 2 {
        numbers.insert(0);
    }
    if side_by_side && (shape == 1 || (shape == 2 && rng.bool())) {
        numbers.extend(numbers.clone().iter().map(|number| number + 1));
    }
    if !side_by_side {
        let mut last = None;
        numbers.retain(|number| last.replace(*number).is_none_or(|last| last + 1 < *number));
    }
    numbers
}

/// Outages at random moments, some of which follow one another with the next delivery that succeeds.
fn outages(rng: &mut fastrand::Rng, count: usize) -> Vec<Outage> {
    let mut one = || Outage {
        begins: match rng.u8(..3) {
            0 => Begins::AtSuccess,
            _ => Begins::After(Duration::from_millis(rng.u64(..300))),
        },
        lasts: Duration::from_millis(rng.u64(20..500)),
    };
    (0..count).map(|_| one()).collect()
}

/// One load.
fn poison(setup: &Setup, folder: &Path, seed: u64) -> Result<Seen> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let blame = Blame::ALL[(seed / 2 % 4) as usize];
    let numbers = chosen(&mut rng, blame);
    let poison: BTreeSet<u64> = numbers.iter().map(|number| number + 1).collect();
    let word = match blame {
        Blame::Exit | Blame::Numbers => "reject",
        Blame::FromZero => "reject-from-zero",
        Blame::List => "list",
    };
    let places = Places {
        strict_options: if blame == Blame::Exit { RETRY } else { RETRY_STREAM },
        strict_stream: blame != Blame::Exit,
        strict_receiver: format!("\"--on-poison\", \"{word}\", \"--outages\", "),
        ..Places::below(folder)
    };
    let mut trial = Trial::new(&setup.program, places, seed, 1, PACE)?;
    trial.write(LINES, &numbers)?;
    // With every other seed all deliveries fail at times, which makes nothing a dead letter.
    let notes = trial.places.folder.join("notes");
    let has_outages = seed.is_multiple_of(2);
    // `holes` has one: an unordered group may give up a line that fails alone in several, while others pass in between.
    let plans = match has_outages {
        true => [outages(&mut rng, 6), outages(&mut rng, 1)],
        false => [Vec::new(), Vec::new()],
    };
    let [of_strict, of_holes] = plans;
    let mut outages = [
        Outages::new(&notes, "strict", of_strict).during("plan outages")?,
        Outages::new(&notes, "holes", of_holes).during("plan outages")?,
    ];
    // Of `holes`, as last listed: dead letters, and those that are not poison.
    let mut innocent = (0, 0);
    let mut parked = BTreeSet::new();
    let mut failed = None;
    let mut service = trial.start()?;
    let mut look = |status: &Status| -> Result<bool> {
        for outages in &mut outages {
            outages.step().during("begin or end an outage")?;
        }
        trial.observe(status);
        parked.extend(operate(&mut trial, status, &poison)?);
        let is_idle = |name: &str| status.group(name).is_some_and(|group| group.lag_lines == 0);
        // A line that fails without blame may wait for another one to pass, for ever: the campaign does not wait for poison.
        let (waiting, dead) =
            status.group("holes").map_or((LINES, 0), |group| (group.lag_lines, group.dead_letters));
        if waiting + dead > poison.len() as u64 && waiting <= poison.len() as u64 && innocent.0 != dead {
            let listed = trial.dead_letters("holes")?;
            innocent = (dead, listed.keys().filter(|seq| !poison.contains(seq)).count() as u64);
        }
        let only_poison_waits = waiting + dead == poison.len() as u64 + innocent.1;
        Ok(status.log.next_seq > LINES && is_idle("strict") && is_idle("record") && only_poison_waits)
    };
    service.wait("everything but poison is done", |status| match look(status) {
        Ok(is_done) => is_done,
        Err(trouble) => {
            failed = Some(trouble);
            true
        }
    })?;
    if let Some(trouble) = failed {
        return Err(trouble);
    }
    let last = trial.look(&service, false);
    trial.phases.add(last.as_ref());
    let code = service.stop()?;
    let holes = trial.dead_letters("holes")?;
    let read = |group: &str| notes::read(&notes, group).during("read the notes");
    let of_holes = read("holes")?;
    let wrongly = |(seq, cause): &(&u64, &String)| {
        *cause != "failed" || !(poison.contains(seq) || (has_outages && may_be_given_up(&of_holes, **seq)))
    };
    let more: Vec<_> = holes.iter().filter(wrongly).collect();
    if !more.is_empty() || code != 0 {
        return Err(Trouble::new(format!(
            "I9 exit {code}; dead letters of holes that are not poison, or have another cause than failed: {more:?}"
        )));
    }
    let innocent = holes.keys().filter(|seq| !poison.contains(seq)).count();
    let cause = |seq: &u64| if parked.contains(seq) { "parked" } else { "rejected" };
    trial.ends_with(poison.iter().map(|seq| (*seq, cause(seq).to_owned())).collect());
    // In an outage the number of deliveries is not bounded.
    let (most_strict, most_holes) = if has_outages {
        (0, 0)
    } else {
        let without_blame = |lines, _| 2 + bisections(lines);
        (
            tried(&read("strict")?, &poison, |lines, bad| blame.deliveries_max(lines, bad))?,
            tried(&of_holes, &poison, without_blame)?,
        )
    };
    let waiting = poison.len() + innocent - holes.len();
    let begun = outages.iter().map(Outages::count).sum();
    trial.finish()?;
    Ok(Seen {
        phases: trial.phases,
        poison: poison.len() as u64,
        parked: parked.len() as u64,
        outages: begun,
        most_strict,
        most_holes,
        waiting: waiting as u64,
        innocent: innocent as u64,
    })
}

/// Acts as an operator: parks a poison line at which the strict group stops because everything so far was rejected. Returns
/// the line.
fn operate(trial: &mut Trial, status: &Status, poison: &BTreeSet<u64>) -> Result<Option<u64>> {
    let Some(group) = status.group("strict") else { return Ok(None) };
    let head = group.ack_floor + 1;
    let is_poison = poison.contains(&head);
    match group.state.as_str() {
        "refused" if !is_poison => Err(Trouble::new(format!(
            "I9 strict is refused at line {head}, which is not poison: {:?}",
            group.reason
        ))),
        "refused" => Ok(trial.park(head)?.then_some(head)),
        // A group in an outage may be blocked, and an outage ends.
        _ => Ok(None),
    }
}

/// Whether an unordered group may have given up a line that is not poison: it failed alone `retry.attempts` times, and
/// another line was done since the first of them. In one outage this needs a delivery that began in it and is answered after
/// one that began later.
fn may_be_given_up(deliveries: &[Delivery], seq: u64) -> bool {
    let alone = deliveries.iter().filter(|delivery| delivery.first == seq && delivery.last == seq);
    let failed: Vec<u64> =
        alone.filter_map(|delivery| delivery.answered.filter(|(_, done)| !done).map(|(at, _)| at)).collect();
    let (Some(first), Some(last)) = (failed.first(), failed.last()) else { return false };
    let until = last + COMMIT_MAX.as_nanos() as u64;
    let passed = |delivery: &Delivery| {
        delivery.answered.is_some_and(|(at, done)| done && (*first..=until).contains(&at))
    };
    failed.len() >= HOLES_ATTEMPTS && deliveries.iter().any(passed)
}

/// How often a neighbour of poison was delivered at most. `bound` gets the lines of its largest delivery, and how many
/// poison lines cost it deliveries: those before it that shared one with it, and the next after it.
fn tried(deliveries: &[Delivery], poison: &BTreeSet<u64>, bound: impl Fn(u64, u64) -> u64) -> Result<u64> {
    // Of each line: deliveries, the lines of the largest, and the poison that was in one of them.
    let mut tried: BTreeMap<u64, (u64, u64, BTreeSet<u64>)> = BTreeMap::new();
    for Delivery { first, last, .. } in deliveries {
        for seq in (*first..=*last).filter(|seq| !poison.contains(seq)) {
            let (count, batch, bad) = tried.entry(seq).or_default();
            (*count, *batch) = (*count + 1, (*batch).max(last - first + 1));
            bad.extend(poison.range(first..=last));
        }
    }
    let bad = |seq: u64, bad: &BTreeSet<u64>| {
        bad.range(..seq).count() as u64 + u64::from(bad.range(seq..).next().is_some())
    };
    let is_over = |seq: u64, (count, batch, with): &(u64, u64, BTreeSet<u64>)| {
        let most = bound(*batch, bad(seq, with));
        (*count > most).then_some(most)
    };
    match tried.iter().find_map(|(seq, of_it)| Some((seq, of_it, is_over(*seq, of_it)?))) {
        Some((seq, (count, batch, _), most)) => Err(Trouble::new(format!(
            "I8 line {seq}, a neighbour of poison in a batch of {batch}, was delivered {count} times, at most {most} are needed"
        ))),
        None => Ok(tried.values().map(|(count, ..)| *count).max().unwrap_or_default()),
    }
}

/// Runs `hang`.
pub fn hang(setup: &Setup, tally: &mut Tally) {
    let seen = setup
        .stores("hang", HANGS_A_STORE, tally, |folder, seed, hangs| hangs_of(setup, folder, seed, hangs));
    let phases: Phases = seen.iter().map(|(hit, ..)| *hit).sum();
    let hung: u64 = seen.iter().map(|(_, hung, _)| hung).sum();
    let outages: u64 = seen.iter().map(|(.., outages)| outages).sum();
    println!(
        "{} hung, {}, seed {}; hit: {phases}",
        counted(hung, "process"),
        counted(outages, "outage"),
        setup.seed
    );
}

fn hangs_of(setup: &Setup, folder: &Path, seed: u64, hangs: u64) -> Result<(Phases, u64, u64)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let options = "timeout = \"1s\"\nretry = { initial = \"10ms\", max = \"100ms\", attempts = 4 }";
    let receiver = format!("\"--hangs\", \"{hangs}\", \"--outages\", ");
    let places = Places { strict_options: options, strict_receiver: receiver, ..Places::below(folder) };
    let mut trial = Trial::new(&setup.program, places, seed, 1, PACE)?;
    // One batch each.
    for _ in 0..hangs {
        for writer in trial.resting() {
            writer.write(BATCH_LINES, false).during("write lines")?;
        }
    }
    let notes = trial.places.folder.join("notes");
    let count = rng.usize(1..5);
    let mut outages = Outages::new(&notes, "strict", outages(&mut rng, count)).during("plan outages")?;
    let mut failed = None;
    let mut service = trial.start()?;
    let total = hangs * BATCH_LINES;
    service.wait("those that hang are ended, and everything is done", |status| {
        failed = outages.step().err();
        trial.observe(status);
        let is_done = status.group("strict").is_some_and(|group| group.lag_lines == 0);
        failed.is_some() || (status.log.next_seq > total && is_done)
    })?;
    if let Some(error) = failed {
        return Err(error).during("begin or end an outage");
    }
    let last = trial.look(&service, false);
    trial.phases.add(last.as_ref());
    service.stop_cleanly()?;
    trial.finish()?;
    let text = fs::read_to_string(notes.join("hung")).during("read who hung")?;
    let pids: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    let alive: Vec<&&str> = pids.iter().filter(|pid| is_alive(pid)).collect();
    if !alive.is_empty() {
        return Err(Trouble::new(format!("I6 these receivers outlived their time-out: {alive:?}")));
    }
    // The receiver that hangs, and the daemon that it forked.
    if (pids.len() as u64) < 2 * hangs {
        return Err(Trouble::new(format!("{hangs} receivers should have hung, {} did", pids.len() / 2)));
    }
    Ok((trial.phases, pids.len() as u64, outages.count()))
}

/// A zombie that was not reaped yet is not alive.
fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}
