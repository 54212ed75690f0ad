//! One load and its history: writers, the service, notes, and the judge.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use crate::line::{self, Place};
use crate::notes;
use crate::oracle::{self, Group, History, Observation};
use crate::peak::Peak;
use crate::phases::Phases;
use crate::places::Places;
use crate::recorded;
use crate::service::{Output, Program, Service, Status, wait_for};
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;
use crate::writer::{Pace, Writer, Writers};

/// Sockets, files of the store and pipes; also one for each followed file, which stays open for minutes after it was
/// read to its end. A leak soon exceeds both.
const DESCRIPTORS_MAX: u64 = 128;
/// Lines at the end of the log that are compared with the checkpoints.
const LAST_LINES: u64 = 20_000;

/// One load.
#[derive(Debug)]
pub struct Trial {
    program: Program,
    /// The paths of the load.
    pub places: Places,
    history: History,
    /// The phases that were hit.
    pub phases: Phases,
    writers: Option<Writers>,
    resting: Vec<Writer>,
    peak: Peak,
    memory_kib_max: u64,
    letters: BTreeMap<u64, String>,
}

/// A dead letter, as the program lists it.
#[derive(Deserialize)]
struct Letter {
    seq: u64,
    cause: String,
}

impl Trial {
    /// Makes the folders, the configuration and `sources` writers, which are at rest.
    pub fn new(program: &Program, places: Places, run: u64, sources: u32, pace: Pace) -> Result<Trial> {
        fs::create_dir_all(&places.logs).during("make the logs' folder")?;
        fs::create_dir_all(places.folder.join("notes")).during("make the notes' folder")?;
        let receiver = std::env::current_exe().during("find this program")?;
        let text = places.config(&receiver);
        fs::write(places.folder.join("spillq.toml"), text).during("write the configuration")?;
        let writer = |source| Writer::new(run, source, places.logs.clone(), pace);
        let resting: Vec<Writer> = (0..sources).map(writer).collect();
        let group = |name: &str, strict| Group { name: name.to_owned(), strict, ..Group::default() };
        Ok(Trial {
            program: program.clone(),
            history: History {
                groups: vec![group("strict", true), group("holes", false)],
                ..History::default()
            },
            places,
            phases: Phases::default(),
            writers: None,
            resting,
            peak: Peak::default(),
            memory_kib_max: program.memory_mib * 1024,
            letters: BTreeMap::new(),
        })
    }

    /// The dead letters of the strict group at the end, and the cause of each: without this there must be none.
    pub fn ends_with(&mut self, letters: BTreeMap<u64, String>) {
        self.letters = letters;
    }

    /// The dead letters of a group and their causes, of the running service or on disk.
    pub fn dead_letters(&self, group: &str) -> Result<BTreeMap<u64, String>> {
        let args = ["dead-letter", "list", "--group", group, "--json"];
        let listed = self.program.on(&self.places.data_dir, &args)?;
        if listed.code != 0 {
            return Err(Trouble::new(format!("I9 {args:?} ended with {}: {}", listed.code, listed.err)));
        }
        let read = |text| {
            let Letter { seq, cause } = serde_json::from_str(text).during("read a dead letter")?;
            Ok((seq, cause))
        };
        listed.out.lines().map(read).collect()
    }

    /// Makes a line of the strict group a dead letter, as an operator does. It is refused while the line is in flight: returns
    /// whether it was done.
    pub fn park(&mut self, seq: u64) -> Result<bool> {
        // It may be passed from now on, whenever the answer comes.
        self.strict().dead.insert(seq, notes::now_ns());
        let args = ["dead-letter", "park", &seq.to_string(), "--group", "strict"];
        let parked = self.program.on(&self.places.data_dir, &args)?;
        match parked {
            Output { code: 0, out, .. } if out.starts_with("1 ") => Ok(true),
            Output { code: 2, err, .. } if err.contains("is out with its processor") => {
                self.strict().dead.remove(&seq);
                Ok(false)
            }
            Output { code, out, err } => {
                Err(Trouble::new(format!("I9 {args:?} ended with {code}: {out}{err}")))
            }
        }
    }

    /// Lists the dead letters of the strict group, for what is judged from then on.
    pub fn note_dead(&mut self) -> Result<BTreeMap<u64, String>> {
        let letters = self.dead_letters("strict")?;
        for seq in letters.keys() {
            self.strict().dead.entry(*seq).or_default();
        }
        Ok(letters)
    }

    fn strict(&mut self) -> &mut Group {
        let at = self.history.groups.iter().position(|group| group.strict).unwrap_or_default();
        &mut self.history.groups[at]
    }

    /// Records the latest status of the service.
    pub fn observe(&mut self, status: &Status) {
        self.history.observed.push(observation(status));
        self.tell_writers(status);
    }

    /// Starts the writers.
    pub fn work(&mut self) {
        self.writers = Some(Writers::start(std::mem::take(&mut self.resting)));
    }

    /// Lets the writers end, and returns them with their errors.
    pub fn rest(&mut self) -> Result<Vec<std::io::Error>> {
        let Some(writers) = self.writers.take() else { return Ok(Vec::new()) };
        let (resting, results): (Vec<_>, Vec<_>) = writers.stop()?.into_iter().unzip();
        self.resting = resting;
        Ok(results.into_iter().filter_map(std::result::Result::err).collect())
    }

    /// The writers, while they rest.
    pub fn resting(&mut self) -> &mut [Writer] {
        &mut self.resting
    }

    /// Writes `lines` lines of each writer at once; those with these numbers are poison.
    pub fn write(&mut self, lines: u64, poison: &BTreeSet<u64>) -> Result<()> {
        for writer in &mut self.resting {
            writer.poison(poison.clone());
            writer.write(lines, false).during("write lines")?;
        }
        Ok(())
    }

    /// The history so far, to return to when the folder is restored.
    pub fn history(&self) -> History {
        self.history.clone()
    }

    /// Followed files may lose what was read of them.
    pub fn lines_may_come_again(&mut self) {
        self.history.files_lose_lines = true;
    }

    /// Forgets what came since then.
    pub fn forget(&mut self, history: History) {
        self.history = history;
    }

    /// Starts the service.
    pub fn start(&self) -> Result<Service> {
        self.start_as(self.command())
    }

    /// Starts it by this command.
    pub fn start_as(&self, mut command: Command) -> Result<Service> {
        command.current_dir(&self.places.folder);
        Service::start(command, &self.places.data_dir, &self.places.folder.join("messages"))
    }

    /// The command of the service, for wrappers.
    pub fn command(&self) -> Command {
        self.program.service(&self.places.folder)
    }

    /// Checks the service repeatedly until `until`, or until a status is `enough`; returns the last status.
    pub fn watch(
        &mut self,
        service: &mut Service,
        until: Instant,
        rng: &mut fastrand::Rng,
        enough: impl Fn(&Status) -> bool,
    ) -> Result<Option<Status>> {
        let mut last: Option<Status> = None;
        while Instant::now() < until && !last.as_ref().is_some_and(&enough) {
            if let Some(status) = self.look(service, last.is_none()) {
                last = Some(status);
            }
            if let Some(status) = service.ended()? {
                return Err(Trouble::new(format!("the service ended by itself with {status}")));
            }
            std::thread::sleep(Duration::from_millis(rng.u64(1..20)));
        }
        Ok(last)
    }

    /// Asks once, and records the answer.
    pub fn look(&mut self, service: &Service, is_first: bool) -> Option<Status> {
        let status = service.status()?;
        if is_first {
            self.peak.opening = self.peak.opening.max(service.age());
        }
        self.peak.memory_kib = self.peak.memory_kib.max(service.proc_kib("VmHWM").unwrap_or_default());
        self.peak.descriptors = self.peak.descriptors.max(service.descriptors().unwrap_or_default());
        self.observe(&status);
        Some(status)
    }

    /// Lets the writers continue after what is acked.
    pub fn tell_writers(&self, status: &Status) {
        if let (Some(writers), Some(slowest)) =
            (&self.writers, status.groups.iter().map(|group| group.ack_floor).min())
        {
            writers.acked(slowest);
        }
    }

    /// Judges the history after a fault. The service must be dead; its receivers must die with it.
    pub fn judge(&mut self) -> Result<()> {
        self.gather()?;
        told(oracle::judge(&self.history))
    }

    /// Judges the store on disk while the service is dead: the checkpoint of each source is the end of its last line.
    pub fn judge_disk(&mut self) -> Result<()> {
        let status = self.program.status_on_disk(&self.places.data_dir)?;
        self.history.observed.push(observation(&status));
        // Of lines below the first segment some may be left and others gone.
        let from = status.log.next_seq.saturating_sub(LAST_LINES).max(status.log.first_seq);
        let shown = self.program.inspect(&self.places.data_dir, from, LAST_LINES)?;
        let mut broken = Vec::new();
        let mut ends: BTreeMap<String, u64> = BTreeMap::new();
        let mut next: BTreeMap<u32, u64> = BTreeMap::new();
        for shown in shown {
            let line = shown.text.unwrap_or_default();
            match line::parse(&line) {
                Ok(place) if place.offset == shown.offset => {
                    let expected = next.insert(place.source, place.number + 1);
                    if let Some(expected) = expected.filter(|expected| *expected != place.number) {
                        let Place { source, number, .. } = place;
                        broken.push(format!(
                            "I2 seq {}: line {number} of w{source}, not {expected}",
                            shown.seq
                        ));
                    }
                    ends.insert(shown.source, shown.offset + line.len() as u64 + 1);
                }
                Ok(place) => broken.push(format!(
                    "I5 seq {}: offset {}, but it is {}",
                    shown.seq, shown.offset, place.offset
                )),
                Err(what) => broken.push(format!("I4 seq {}: {what}", shown.seq)),
            }
        }
        // A path may have had several files, one after the other.
        for (path, end) in ends {
            let of_it = status.sources.iter().filter(|source| source.path == path);
            let offsets: Vec<u64> = of_it.map(|source| source.offset).collect();
            if !offsets.is_empty() && !offsets.contains(&end) {
                broken.push(format!("I5 {path}: checkpoint {offsets:?}, its last line ends at {end}"));
            }
        }
        told(broken)
    }

    fn gather(&mut self) -> Result<()> {
        let folder = self.places.folder.join("notes");
        for group in &mut self.history.groups {
            // A receiver that outlives its service would have a batch that may be leased again.
            let path = notes::lock_path(&folder, &group.name);
            if path.exists() {
                let lock = File::open(&path).during("open a receiver's lock")?;
                let free = || flock(&lock, FlockOperation::NonBlockingLockExclusive).ok();
                wait_for(free).ok_or_else(|| {
                    Trouble::new(format!("I6 a receiver of group {} outlives the service", group.name))
                })?;
            }
            group.deliveries = notes::read(&folder, &group.name).during("read the notes")?;
        }
        self.history.intents = match &self.writers {
            Some(writers) => writers.intents(),
            None => (0..).zip(self.resting.iter().map(Writer::lines)).collect(),
        };
        Ok(())
    }

    /// Lets the writers end and the service finish the rest, stops it cleanly, and judges everything. Returns the lines.
    pub fn finish(&mut self) -> Result<(u64, Peak)> {
        if let Some(error) = self.rest()?.pop() {
            return Err(error).during("write a followed file");
        }
        let written: BTreeMap<u32, u64> = (0..).zip(self.resting.iter().map(Writer::lines)).collect();
        let total: u64 = written.values().sum();
        let mut service = self.start()?;
        let last = service.wait("everything is in the log and done", |status| {
            let idle = |name: &str| status.group(name).is_some_and(|group| group.lag_lines == 0);
            status.log.next_seq > total && ["strict", "record", "some"].into_iter().all(idle)
        })?;
        let mut broken = Vec::new();
        if last.log.next_seq != total + 1 {
            let (lines, next) = (counted(total, "line"), last.log.next_seq);
            broken.push(format!("I4 written: {lines}, but next seq is {next}"));
        }
        let losses = &last.losses;
        if losses.lost_lines + losses.destroyed_unread_bytes + losses.rolled_back + losses.dropped_lines > 0 {
            broken.push(format!("I9 losses without damage: {losses:?}"));
        }
        self.look(&service, true);
        self.phases.add(Some(&last));
        match service.stop()? {
            0 => self.phases.clean_stop += 1,
            code => broken.push(format!("I9 a clean stop ended with {code}")),
        }
        self.judge_disk()?;
        let letters = self.note_dead()?;
        if letters != self.letters {
            broken.push(format!(
                "I9 the dead letters of strict are {letters:?}, but should be {:?}",
                self.letters
            ));
        }
        self.gather()?;
        broken.extend(oracle::judge_end(&self.history, &["strict"]));
        broken.extend(recorded::judge(&self.places.folder.join("recorded"), &written)?);
        let first = written.into_iter().filter(|(source, _)| *source == 0).collect();
        broken.extend(recorded::judge(&self.places.folder.join("of-some"), &first)?);
        let verified = self.program.on(&self.places.data_dir, &["verify"])?;
        if verified.code != 0 {
            broken.push(format!("I9 verify ended with {}: {}", verified.code, verified.out));
        }
        let followed = fs::read_dir(&self.places.logs).during("list the followed files")?.count() as u64;
        broken.extend(self.peak.beyond(self.memory_kib_max, DESCRIPTORS_MAX + followed));
        told(broken).map(|()| (total, self.peak))
    }
}

fn observation(status: &Status) -> Observation {
    Observation {
        at_ns: notes::now_ns(),
        run: status.log.runs,
        first_seq: status.log.first_seq,
        next_seq: status.log.next_seq,
        ack_floors: status.groups.iter().map(|group| (group.group.clone(), group.ack_floor)).collect(),
        findings: status.findings.clone(),
    }
}

/// At most a screenful: the first breaches matter most.
pub fn told(mut broken: Vec<String>) -> Result<()> {
    let count = broken.len();
    broken.truncate(20);
    if broken.is_empty() {
        Ok(())
    } else {
        Err(Trouble::new(format!("{}\n  {}", counted(count as u64, "breach"), broken.join("\n  "))))
    }
}
