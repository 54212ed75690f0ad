//! Lines that kill: the receiver of a line kills the service, or only itself, every time.
//!
//! The campaign starts the service again each time, and also kills it at random moments. Bisecting must find the line that
//! kills the service. After `retry.attempts` deaths alone it is held or a dead letter, so the number of deaths is bounded. A
//! line that kills only its command is held, and never becomes a dead letter by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::campaign::{Setup, Tally};
use crate::notes::{self, Delivery};
use crate::phases::Phases;
use crate::places::Places;
use crate::service::{PATIENCE, Status};
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;
use crate::writer::Pace;

const LINES: u64 = 3_000;
const PACE: Pace =
    Pace { burst_lines: LINES, breath: Duration::ZERO, rotate_lines: 0, letters_max: 100, poison_one_in: 0 };
/// `retry.attempts` of the strict group.
const ATTEMPTS: u64 = 3;
const HOLD: &str = "retry = { initial = \"10ms\", max = \"100ms\", attempts = 3 }";
const GIVE_UP: &str =
    "retry = { initial = \"10ms\", max = \"100ms\", attempts = 3 }\nstuck = \"dead_letter\"";
/// Random kills: fewer than attempts, so that they alone hold no line.
const KILLS_MAX: u64 = ATTEMPTS - 1;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// What the line kills, and what must become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It kills the service, and is held until it is parked.
    ServiceHold,
    /// It kills the service, and becomes a dead letter.
    ServiceGiveUp,
    /// It kills its command: held until it is parked, however often it fails.
    Command,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Command, Kind::ServiceHold, Kind::ServiceGiveUp];
}

/// Runs `killer`.
pub fn run(setup: &Setup, tally: &mut Tally) {
    let seen = setup.stores("killer", 1, tally, |folder, seed, _| killer(setup, folder, seed));
    let phases: Phases = seen.iter().map(|seen| seen.phases).sum();
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    println!(
        "{}, seed {}: {} that kill; {} by them, {} at random; {} parked, {} given up; hit: {phases}",
        counted(setup.count, "load"),
        setup.seed,
        counted(sum(|seen| seen.lines), "line"),
        counted(sum(|seen| seen.deaths), "death"),
        counted(sum(|seen| seen.kills), "kill"),
        sum(|seen| seen.parked),
        sum(|seen| seen.lines - seen.parked),
    );
}

struct Seen {
    phases: Phases,
    lines: u64,
    deaths: u64,
    kills: u64,
    parked: u64,
}

/// One or two lines anywhere, adjacent ones too.
fn chosen(rng: &mut fastrand::Rng) -> BTreeSet<u64> {
    let first = match rng.u8(..4) {
        0 => 0,
        1 => LINES - 1,
        _ => rng.u64(..LINES),
    };
    let second = match rng.u8(..4) {
        0 => (first + 1) % LINES,
        1 => rng.u64(..LINES),
        _ => first,
    };
    [first, second].into()
}

/// One load.
fn killer(setup: &Setup, folder: &Path, seed: u64) -> Result<Seen> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let kind = Kind::ALL[(seed % 3) as usize];
    let numbers = chosen(&mut rng);
    let killers: BTreeSet<u64> = numbers.iter().map(|number| number + 1).collect();
    let word = if kind == Kind::Command { "kill-command" } else { "kill-service" };
    let places = Places {
        strict_options: if kind == Kind::ServiceGiveUp { GIVE_UP } else { HOLD },
        strict_stream: rng.bool(),
        strict_receiver: format!("\"--on-poison\", \"{word}\", "),
        ..Places::below(folder)
    };
    let mut trial = Trial::new(&setup.program, places, seed, 1, PACE)?;
    trial.write(LINES, &numbers)?;
    let notes = trial.places.folder.join("notes");
    let mut parked = BTreeSet::new();
    let (mut deaths, mut kills) = (0, 0);
    let kills_max = rng.u64(..=KILLS_MAX);
    let pause = |rng: &mut fastrand::Rng| Instant::now() + Duration::from_millis(rng.u64(20..1_500));
    let mut next_kill = pause(&mut rng);
    let mut service = trial.start()?;
    let until = Instant::now() + PATIENCE;
    let (mut last, mut has_store) = (None, false);
    loop {
        let died = service.ended()?;
        let is_due = kills < kills_max && Instant::now() >= next_kill;
        if let Some(status) = died {
            by_sigkill(status, kind)?;
            deaths += 1;
        } else if is_due {
            kills += 1;
            next_kill = pause(&mut rng);
        }
        if died.is_some() || is_due {
            // The service may have died already.
            service.kill()?;
            // A service that never answered may have made no store yet.
            has_store |= last.is_some();
            trial.phases.add(last.take().as_ref());
            if has_store {
                trial.note_dead()?;
            }
            trial.judge().during(format!("after death {deaths} and kill {kills}"))?;
            bounded(deaths, &notes::read(&notes, "strict").during("read the notes")?, &killers)?;
            service = trial.start()?;
        }
        if let Some(status) = trial.look(&service, last.is_none()) {
            let strict = status.group("strict");
            if status.log.next_seq > LINES && strict.is_some_and(|group| group.lag_lines == 0) {
                break;
            }
            if let Some(head) = held(&status, kind, &killers)? {
                parked.extend(trial.park(head)?.then_some(head));
            }
            last = Some(status);
        }
        if Instant::now() > until {
            return Err(Trouble::new(format!(
                "I8 not within {PATIENCE:?}: everything before and after the lines that kill is done ({deaths} deaths)"
            )));
        }
        std::thread::sleep(LOOK);
    }
    let last = trial.look(&service, false);
    trial.phases.add(last.as_ref());
    service.stop_cleanly()?;
    let cause = if kind == Kind::ServiceGiveUp { "died" } else { "parked" };
    trial.ends_with(killers.iter().map(|seq| (*seq, cause.to_owned())).collect::<BTreeMap<_, _>>());
    trial.finish()?;
    let deliveries = notes::read(&notes, "strict").during("read the notes")?;
    found_out(kind, &deliveries, &killers)?;
    let (lines, parked) = (killers.len() as u64, parked.len() as u64);
    Ok(Seen { phases: trial.phases, lines, deaths, kills, parked })
}

/// The service died in the way the line kills it, and in no other.
fn by_sigkill(status: ExitStatus, kind: Kind) -> Result<()> {
    if status.signal() == Some(Signal::KILL.as_raw()) && kind != Kind::Command {
        return Ok(());
    }
    Err(Trouble::new(format!("the service ended by itself with {status}")))
}

/// The line that holds the strict group and is to be parked. By the ack floor, everything before it is done.
fn held(status: &Status, kind: Kind, killers: &BTreeSet<u64>) -> Result<Option<u64>> {
    let Some(group) = status.group("strict").filter(|group| group.state == "blocked") else {
        return Ok(None);
    };
    let head = group.ack_floor + 1;
    let by_it = group.reason.as_deref() == Some(&format!("held by line {head}"));
    if by_it && killers.contains(&head) && kind != Kind::ServiceGiveUp {
        return Ok(Some(head));
    }
    Err(Trouble::new(format!(
        "I3 the acks reach {}, and strict is blocked: {:?}; the lines that kill are {killers:?}",
        group.ack_floor, group.reason
    )))
}

/// Each line that kills the service does so once at each bisection of its batch, and then alone for each attempt: those are
/// its deaths at most.
fn bounded(deaths: u64, deliveries: &[Delivery], killers: &BTreeSet<u64>) -> Result<()> {
    let largest = |seq: u64| {
        let with = deliveries.iter().filter(|delivery| (delivery.first..=delivery.last).contains(&seq));
        with.map(|delivery| delivery.last - delivery.first + 1).max().unwrap_or(1)
    };
    let of_one = |seq: &u64| u64::from(largest(*seq).next_power_of_two().ilog2()) + ATTEMPTS;
    let most: u64 = killers.iter().map(of_one).sum();
    if deaths <= most {
        return Ok(());
    }
    Err(Trouble::new(format!("I8 {deaths} deaths by {killers:?}, but {most} are enough to find them")))
}

/// A line that kills the service was delivered alone exactly once for each attempt; one that kills its command more than
/// once, or it would not be known to be held.
fn found_out(kind: Kind, deliveries: &[Delivery], killers: &BTreeSet<u64>) -> Result<()> {
    for seq in killers {
        let alone = |delivery: &&Delivery| delivery.first == *seq && delivery.last == *seq;
        let times = deliveries.iter().filter(alone).count() as u64;
        let is_right = if kind == Kind::Command { times > 1 } else { times <= ATTEMPTS && times > 0 };
        if !is_right {
            return Err(Trouble::new(format!(
                "I8 line {seq}, which kills, was delivered alone {times} times"
            )));
        }
        let was_done = |delivery: &Delivery| delivery.answered.is_some_and(|(_, done)| done);
        let with_it = |delivery: &&Delivery| (delivery.first..=delivery.last).contains(seq);
        if deliveries.iter().filter(with_it).any(was_done) {
            return Err(Trouble::new(format!("line {seq} should kill, but was processed")));
        }
    }
    Ok(())
}
