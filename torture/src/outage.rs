//! Outages: receivers that fail without blame for a while, one outage after the other.
//!
//! The campaign *outage* is lines at a modest pace for one strict group, and outages that come as soon as one delivery
//! has succeeded since the previous one, or a while later. Nothing may be overtaken, nothing become a dead letter, and an
//! outage costs one delivery per back-off.
//!
//! An outage of a group is a file among its notes. Another file asks the receiver for the first delivery that succeeds:
//! the receiver makes it the outage, or removes it.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::campaign::{Setup, Tally};
use crate::notes::{self, Delivery};
use crate::phases::Phases;
use crate::places::Places;
use crate::service::PATIENCE;
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;
use crate::writer::Pace;

/// Loads at once: they wait most of the time.
const AT_ONCE: usize = 4;
/// About 60 lines a second: a batch every 80 milliseconds.
const PACE: Pace = Pace {
    burst_lines: 5,
    breath: Duration::from_millis(40),
    rotate_lines: 0,
    letters_max: 100,
    poison_one_in: 0,
};
const RETRY: &str = "retry = { initial = \"50ms\", max = \"800ms\" }";
const INITIAL: Duration = Duration::from_millis(50);
const MAX: Duration = Duration::from_millis(800);
/// The service counts whole milliseconds: what it notes as now may be one early, and so may the end of a back-off be.
const TOLERANCE: Duration = Duration::from_millis(2);
/// Between two checks of the outages, and two questions to the service.
const LOOK: Duration = Duration::from_millis(5);
const ASK: Duration = Duration::from_millis(100);

/// When an outage begins.
#[derive(Clone, Copy, Debug)]
pub enum Begins {
    /// This long after the previous one ended, whatever happened since.
    After(Duration),
    /// As soon as a delivery has succeeded since the previous one.
    AtSuccess,
    /// This long after that.
    AfterSuccess(Duration),
}

/// One outage.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// When it begins.
    pub begins: Begins,
    /// For how long receivers fail.
    pub lasts: Duration,
}

/// Outages of a group, one after the other; [`Outages::step`] makes them begin and end.
#[derive(Debug)]
pub struct Outages {
    notes: PathBuf,
    group: String,
    plan: VecDeque<Outage>,
    state: State,
    begun: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The next begins at this time.
    Up(Instant),
    /// A delivery has to succeed first: the next begins with it, or this long after it.
    AwaitsSuccess(Option<Duration>),
    /// Until this time.
    Down(Instant),
    Over,
}

fn on(notes: &Path, group: &str) -> PathBuf {
    notes.join(format!("{group}.outage"))
}

/// Becomes the outage with the first delivery that succeeds.
fn next(notes: &Path, group: &str) -> PathBuf {
    notes.join(format!("{group}.outage-next"))
}

/// Is there until a delivery has succeeded.
fn awaited(notes: &Path, group: &str) -> PathBuf {
    notes.join(format!("{group}.awaited"))
}

/// Whether receivers of the group are to fail.
pub fn is_on(notes: &Path, group: &str) -> bool {
    on(notes, group).exists()
}

/// A receiver has processed a batch.
pub fn succeeded(notes: &Path, group: &str) -> io::Result<()> {
    let unless_absent = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    unless_absent(fs::rename(next(notes, group), on(notes, group)))?;
    unless_absent(fs::remove_file(awaited(notes, group)))
}

impl Outages {
    /// The outages of `plan`, in that order; the folder of the notes must exist.
    pub fn new(notes: &Path, group: &str, plan: Vec<Outage>) -> io::Result<Outages> {
        let (notes, group) = (notes.to_owned(), group.to_owned());
        let mut outages = Outages { notes, group, plan: plan.into(), state: State::Over, begun: 0 };
        outages.state = outages.wait_for_next()?;
        Ok(outages)
    }

    /// What must happen before the next begins.
    fn wait_for_next(&self) -> io::Result<State> {
        Ok(match self.plan.front().map(|outage| outage.begins) {
            None => State::Over,
            Some(Begins::After(wait)) => State::Up(Instant::now() + wait),
            Some(Begins::AtSuccess) => {
                fs::write(next(&self.notes, &self.group), "")?;
                State::AwaitsSuccess(None)
            }
            Some(Begins::AfterSuccess(wait)) => {
                fs::write(awaited(&self.notes, &self.group), "")?;
                State::AwaitsSuccess(Some(wait))
            }
        })
    }

    /// Does what is due; to be called every few milliseconds.
    pub fn step(&mut self) -> io::Result<()> {
        let (notes, group) = (&self.notes, &self.group);
        self.state = match self.state {
            State::Up(at) if Instant::now() >= at => {
                fs::write(on(notes, group), "")?;
                self.begun()
            }
            State::AwaitsSuccess(None) if is_on(notes, group) => self.begun(),
            State::AwaitsSuccess(Some(wait)) if !awaited(notes, group).exists() => {
                State::Up(Instant::now() + wait)
            }
            State::Down(until) if Instant::now() >= until => {
                // What follows is asked for before the end, so that no delivery is missed.
                let then = self.wait_for_next()?;
                fs::remove_file(on(notes, group))?;
                then
            }
            state => state,
        };
        Ok(())
    }

    fn begun(&mut self) -> State {
        self.begun += 1;
        let lasts = self.plan.pop_front().map_or(Duration::ZERO, |outage| outage.lasts);
        State::Down(Instant::now() + lasts)
    }

    /// How many have begun.
    pub fn count(&self) -> u64 {
        self.begun
    }

    /// Whether all outages are over.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }
}

/// Runs `outage`: loads with `outages` outages each.
pub fn run(setup: &Setup, outages: u64, tally: &mut Tally) {
    let command = format!("outage --outages {outages}");
    let seen =
        setup.stores_at_once(&command, AT_ONCE, tally, |folder, seed| one(setup, folder, seed, outages));
    let phases: Phases = seen.iter().map(|seen| seen.phases).sum();
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    println!(
        "{}, {}, seed {}, {}; {} of {} failed, at most {} in a row; hit: {phases}",
        counted(setup.count, "load"),
        counted(sum(|seen| seen.outages), "outage"),
        setup.seed,
        counted(sum(|seen| seen.lines), "line"),
        sum(|seen| seen.failed),
        counted(sum(|seen| seen.deliveries), "delivery"),
        seen.iter().map(|seen| seen.in_a_row).max().unwrap_or_default()
    );
}

struct Seen {
    phases: Phases,
    outages: u64,
    lines: u64,
    deliveries: u64,
    failed: u64,
    in_a_row: u64,
}

/// One load with all its outages.
fn one(setup: &Setup, folder: &Path, seed: u64, count: u64) -> Result<Seen> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let strict_receiver = "\"--outages\", ".to_owned();
    let places = Places { strict_options: RETRY, strict_receiver, ..Places::below(folder) };
    let mut trial = Trial::new(&setup.program, places, seed, 1, PACE)?;
    let plan = (0..count).map(|_| Outage {
        begins: match rng.bool() {
            true => Begins::AtSuccess,
            false => Begins::AfterSuccess(Duration::from_millis(rng.u64(..1_500))),
        },
        lasts: Duration::from_millis(rng.u64(500..=3_500)),
    });
    let plan: Vec<Outage> = plan.collect();
    let lasts: Duration = plan.iter().map(|outage| outage.lasts).sum();
    let notes = trial.places.folder.join("notes");
    let mut outages = Outages::new(&notes, "strict", plan).during("plan outages")?;
    trial.work();
    let mut service = trial.start()?;
    // Each is longer than planned by the back-off in which it ends, and by delays of a loaded machine.
    let until = Instant::now() + lasts + PATIENCE;
    let (mut has_opened, mut looked) = (false, Instant::now());
    while !outages.is_over() {
        outages.step().during("begin or end an outage")?;
        if !has_opened || looked.elapsed() > ASK {
            looked = Instant::now();
            has_opened |= trial.look(&service, !has_opened).is_some();
        }
        if let Some(status) = service.ended()? {
            return Err(Trouble::new(format!("the service ended by itself with {status}")));
        }
        if Instant::now() > until {
            return Err(Trouble::new("I8 after an outage no delivery succeeded"));
        }
        std::thread::sleep(LOOK);
    }
    if let Some(error) = trial.rest()?.pop() {
        return Err(error).during("write a followed file");
    }
    // Before it is stopped: a start begins with the first back-off again.
    service.wait("the last outage is over for the strict group", |status| {
        status.group("strict").is_some_and(|group| group.lag_lines == 0)
    })?;
    let last = trial.look(&service, false);
    trial.phases.add(last.as_ref());
    service.stop_cleanly()?;
    let (lines, _) = trial.finish()?;
    let deliveries = notes::read(&notes, "strict").during("read the notes")?;
    let failed: Vec<bool> =
        deliveries.iter().map(|delivery| delivery.answered.is_some_and(|(_, done)| !done)).collect();
    let mut in_a_row = 0;
    let most = failed.iter().map(|failed| {
        in_a_row = if *failed { in_a_row + 1 } else { 0 };
        in_a_row
    });
    let in_a_row = most.max().unwrap_or_default();
    let failures = failed.iter().filter(|failed| **failed).count() as u64;
    if failures < count {
        return Err(Trouble::new(format!(
            "{count} outages should have failed a delivery each: {failures} did"
        )));
    }
    if let Some(what) = too_early(&deliveries) {
        return Err(Trouble::new(what));
    }
    let (phases, deliveries) = (trial.phases, deliveries.len() as u64);
    Ok(Seen { phases, outages: count, lines, deliveries, failed: failures, in_a_row })
}

/// A delivery that began before the back-off of the previous failure was over; the back-off doubles with every failure in a row.
fn too_early(deliveries: &[Delivery]) -> Option<String> {
    let mut in_a_row = 0;
    deliveries.iter().zip(deliveries.iter().skip(1)).find_map(|(failed, next)| {
        let (at_ns, done) = failed.answered?;
        if done {
            in_a_row = 0;
            return None;
        }
        let backoff = INITIAL.saturating_mul(1 << in_a_row.min(16)).min(MAX);
        in_a_row += 1;
        let waited = Duration::from_nanos(next.begun_ns.saturating_sub(at_ns));
        (waited + TOLERANCE < backoff).then(|| {
            format!(
                "I8 lines {}-{} came {waited:?} after failure {in_a_row} in a row, of lines {}-{}: the back-off is {backoff:?}",
                next.first, next.last, failed.first, failed.last
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(begun_ms: u64, answered_ms: u64, done: bool) -> Delivery {
        Delivery {
            begun_ns: begun_ms * 1_000_000,
            answered: Some((answered_ms * 1_000_000, done)),
            ..Delivery::default()
        }
    }

    #[test]
    fn a_back_off_that_is_cut_short_or_does_not_double_is_found() {
        let mut sound = vec![
            delivery(0, 10, false),
            delivery(60, 70, false),
            delivery(170, 180, false),
            delivery(390, 400, true),
            delivery(401, 410, false),
            delivery(460, 470, true),
        ];
        assert_eq!(too_early(&sound), None);
        sound[2].begun_ns = 150 * 1_000_000;
        assert!(
            too_early(&sound).is_some_and(|what| what.contains("failure 2 in a row")),
            "it did not double"
        );
        sound.remove(2);
        sound[1].begun_ns = 50 * 1_000_000;
        assert!(too_early(&sound).is_some(), "it was cut short");
    }

    #[test]
    fn the_longest_back_off_bounds_the_doublings() {
        let row: Vec<Delivery> = (0..10).map(|n| delivery(n * 810, n * 810 + 10, false)).collect();
        assert_eq!(too_early(&row), None);
    }

    #[test]
    fn one_outage_follows_the_other_with_the_first_success() {
        let notes = std::env::temp_dir().join(format!("torture-outages-{}", std::process::id()));
        fs::create_dir_all(&notes).unwrap();
        let outage = |begins| Outage { begins, lasts: Duration::ZERO };
        let plan = vec![
            outage(Begins::After(Duration::ZERO)),
            outage(Begins::AtSuccess),
            outage(Begins::AfterSuccess(Duration::ZERO)),
        ];
        let mut outages = Outages::new(&notes, "g", plan).unwrap();
        outages.step().unwrap();
        assert!(is_on(&notes, "g"), "the first outage begins at once");
        outages.step().unwrap();
        outages.step().unwrap();
        assert!(!is_on(&notes, "g"), "the next waits for a success");
        succeeded(&notes, "g").unwrap();
        assert!(is_on(&notes, "g"), "the success begins it, without a call of step");
        outages.step().unwrap();
        outages.step().unwrap();
        outages.step().unwrap();
        assert!(!is_on(&notes, "g") && !outages.is_over());
        succeeded(&notes, "g").unwrap();
        assert!(!is_on(&notes, "g"), "the last begins a while after it");
        for _ in 0..3 {
            outages.step().unwrap();
        }
        assert!(outages.is_over());
        fs::remove_dir_all(&notes).unwrap();
    }
}
