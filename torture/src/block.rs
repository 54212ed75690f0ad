//! Errors of the block device: sectors that cannot be written or read, and flushes that fail, under each file of the store,
//! at any moment.
//!
//! After a failed write the page is clean and shows what the disk does not have; an injected error of a system call does not
//! have this effect. Half of the starts that follow have that cache, the others read the disk. Only sectors of files are bad:
//! ext4 is trusted. If it gives up all the same, as it does when a flush of its journal fails, it is read-only
//! (`errors=remount-ro`) until it is mounted again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bad_disk::{BadDisk, Fault, Request};
use crate::campaign::{Setup, Tally};
use crate::device::{self, Device};
use crate::need;
use crate::places::Places;
use crate::service::{Output, Program, Service, tool};
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;
use crate::writer::USUAL;

/// Faults of one store; then everything is finished and judged.
const FAULTS_A_STORE: u64 = 20;
/// Size of the file system: all lines of a store fit.
const DISK_MIB: u64 = 600;
/// A fault that was not hit by then is removed, and does not count.
const REACH_MAX: Duration = Duration::from_secs(4);
/// A service that continues with a fault does so for this long: time for a rotation, which syncs everything written.
const FAULT_MAX: Duration = Duration::from_secs(4);
/// With more faults than this that were not hit, for each that counts, the campaign has failed.
const MISSES_MAX: u64 = 10;
/// The exit status of the program when the store failed.
const STORE_FAILED: i32 = 3;
const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

/// The files of a store, by which faults are listed.
const FILES: &[&str] = &["journal/", "segments/", "kept/", "MARK", ""];

/// Runs the campaign.
pub fn run(setup: &Setup, tally: &mut Tally) {
    if let Some(why) = device::lacks().or_else(|| need::tools(&["filefrag"])) {
        return tally.skip(setup.count, &why);
    }
    let seen = setup.stores("io-error --block", FAULTS_A_STORE, tally, |folder, seed, faults| {
        one(setup, folder, seed, faults)
    });
    let mut hit: BTreeMap<String, u64> = BTreeMap::new();
    for (what, count) in seen.into_iter().flatten() {
        *hit.entry(what).or_default() += count;
    }
    println!("{} block errors, seed {}", setup.count, setup.seed);
    hit.iter().for_each(|(what, count)| println!("{count:6} {what}"));
}

/// One store, with `faults` faults that are hit. Returns the results of these and of the others.
fn one(setup: &Setup, folder: &Path, seed: u64, faults: u64) -> Result<BTreeMap<String, u64>> {
    let (image, socket) = (folder.join("image"), folder.join("nbd"));
    device::image(&image, DISK_MIB)?;
    let disk = BadDisk::serve(&image, &socket)?;
    let drive = format!("driver=nbd,node-name=out,server.type=unix,server.path={}", socket.display());
    let device = Device::start(folder, DISK_MIB, &[drive])?;
    let places = Places { data_dir: device.mount.join("q"), ..Places::below(folder) };
    let mut trial = Trial::new(&setup.program, places, seed, 3, USUAL)?;
    let with_processors = fs::read_to_string(folder.join("spillq.toml")).during("read the configuration")?;
    let without = with_processors.split("[[processor]]").next().unwrap_or_default();
    fs::write(folder.join("ingest-only.toml"), without).during("write a configuration")?;
    trial.work();
    let rng = fastrand::Rng::with_seed(seed);
    let mut bench = Bench { program: &setup.program, disk, device, trial, rng, cache_lies: false };
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let (mut met, mut missed) = (0, 0);
    while met < faults {
        let (what, hits) = bench.one().during(format!("after {} faults", met + missed))?;
        *seen.entry(what).or_default() += 1;
        *(if hits > 0 { &mut met } else { &mut missed }) += 1;
        if missed > MISSES_MAX * faults {
            return Err(Trouble::new(format!("{} not hit: {seen:?}", counted(missed, "fault"))));
        }
    }
    bench.heal(true)?;
    bench.trial.finish().during("at the end")?;
    Ok(seen)
}

/// A load on a disk that may be bad.
struct Bench<'p> {
    program: &'p Program,
    trial: Trial,
    disk: BadDisk,
    device: Device,
    rng: fastrand::Rng,
    /// The page cache may show what the disk does not have, and the next sync may report an earlier failure.
    cache_lies: bool,
}

impl Bench<'_> {
    /// One fault, after which the disk is healthy again. Returns the result, and how often the fault was hit.
    fn one(&mut self) -> Result<(String, u64)> {
        let file = *self.rng.choice(FILES).unwrap_or(&"");
        let (what, ended) = match self.rng.u8(..8) {
            0 => self.at_work(Request::Flush, file).during("a flush fails")?,
            1..=4 => self.at_work(Request::Write, file).during(format!("bad to write: {file}"))?,
            _ => self.at_rest(file).during(format!("bad to read: {file}"))?,
        };
        let hits = self.disk.hits();
        // While the disk is bad, a start that continues reports it as a finding.
        let mut history = self.trial.history();
        let is_of_it = |finding: &String| finding.contains("Input/output error");
        history.observed.iter_mut().for_each(|seen| seen.findings.retain(|finding| !is_of_it(finding)));
        self.trial.forget(history);
        let remount = self.rng.bool();
        self.heal(remount)?;
        self.trial.judge()?;
        if hits > 0 && self.rng.u8(..4) == 0 {
            self.trial.judge_disk()?;
        }
        let what =
            if hits == 0 { format!("{what}: not hit, not counted") } else { format!("{what}: {ended}") };
        Ok((what, hits))
    }

    /// A running service hits the fault, or one that starts.
    fn at_work(&mut self, request: Request, file: &str) -> Result<(String, String)> {
        let mut service = if self.rng.u8(..4) > 0 { Some(self.start()?) } else { None };
        if let Some(service) = &mut service {
            let until = Instant::now() + Duration::from_millis(self.rng.u64(50..1_000));
            self.trial.watch(service, until, &mut self.rng, |_| false)?;
        }
        let places = if request == Request::Flush { Vec::new() } else { self.sectors(file)? };
        let times = if self.rng.bool() { u64::MAX } else { self.rng.u64(1..4) };
        let when = if service.is_some() { "at work" } else { "at a start" };
        let often = if times == u64::MAX { "for good" } else { "for a moment" };
        let name = if request == Request::Flush { "flush".to_owned() } else { format!("write {file:10}") };
        self.disk.fails(Fault { request, places, times });
        let service = match service {
            Some(service) => service,
            None => self.trial.start()?,
        };
        let ended = self.with_fault(service)?;
        // Every commit flushes, and is in the journal.
        let must_end = request == Request::Flush || file == "journal/";
        if must_end && self.disk.hits() > 0 && ended.starts_with("it continued") {
            return Err(Trouble::new(format!("I9 {ended}")));
        }
        self.cache_lies = true;
        Ok((format!("{name} {often} {when}"), ended))
    }

    /// A stopped store cannot be read in places: `verify`, `inspect`, and either a start or `repair`.
    fn at_rest(&mut self, file: &str) -> Result<(String, String)> {
        let service = self.start()?;
        self.watch_and_kill(service)?;
        if self.rng.bool() {
            // A backlog that only the segments have, to be read with the fault: each start begins a new journal.
            for _ in 0..2 {
                let mut command = self.program.command(&["--log", "warn", "run", "--config"]);
                command.arg(self.trial.places.folder.join("ingest-only.toml"));
                let service = self.trial.start_as(command)?;
                self.watch_and_kill(service)?;
            }
        }
        self.trial.judge()?;
        let whole = self.inspect()?;
        if whole.code != 0 {
            return Err(Trouble::new(format!(
                "inspect of a sound store ended with {}: {}",
                whole.code, whole.err
            )));
        }
        let data_dir = self.trial.places.data_dir.clone();
        let copy = data_dir.with_file_name("copy");
        let repairs = self.rng.u8(..3) == 0;
        if repairs {
            tool("cp", &["-a", &data_dir.display().to_string(), &copy.display().to_string()])?;
        }
        self.device.remount()?;
        let places = self.sectors(file)?;
        self.disk.fails(Fault { request: Request::Read, places, times: u64::MAX });
        let verified = self.looks(&whole)?;
        let ended = if repairs {
            let repaired = self.repairs(&whole, &copy)?;
            fs::remove_dir_all(&data_dir).during("remove what was repaired")?;
            fs::rename(&copy, &data_dir).during("put the store back")?;
            repaired
        } else {
            let service = self.trial.start()?;
            self.with_fault(service)?
        };
        Ok((format!("read  {file:10}"), format!("verify ended with {verified}, {ended}")))
    }

    fn watch_and_kill(&mut self, mut service: Service) -> Result<()> {
        let until = Instant::now() + Duration::from_millis(self.rng.u64(100..800));
        self.trial.watch(&mut service, until, &mut self.rng, |_| false)?;
        service.kill()
    }

    /// `verify` calls nothing sound that is not, and `inspect` shows nothing that is not there.
    fn looks(&self, whole: &Output) -> Result<i32> {
        let verified = self.ask(&["verify"])?;
        let shown = self.inspect()?;
        let sound = (verified.code, shown.code) == (0, 0) && shown.out == whole.out;
        let reported = verified.code == STORE_FAILED
            && (verified.out.clone() + &verified.err).contains("Input/output error");
        if !(sound || reported) || !whole.out.starts_with(&shown.out) {
            let Output { code, out, err } = verified;
            return Err(Trouble::new(format!(
                "I9 verify ended with {code}: {out}{err}, and inspect with {}: {}",
                shown.code, shown.err
            )));
        }
        Ok(verified.code)
    }

    /// After a repair every line is as it was, or named as lost; what a healthy disk could still read is in quarantine.
    fn repairs(&self, whole: &Output, copy: &Path) -> Result<String> {
        let repaired = self.ask(&["repair", "--json"])?;
        self.heal_disk()?;
        let data_dir = &self.trial.places.data_dir;
        if repaired.code == STORE_FAILED {
            let shown = self.inspect()?;
            return match shown.out == whole.out && self.ask(&["verify"])?.code == 0 {
                true => Ok("repair refused".to_owned()),
                false => Err(Trouble::new("I9 repair ended with 3, but the store has changed")),
            };
        }
        let report: serde_json::Value =
            serde_json::from_str(&repaired.out).during("read what repair says")?;
        for name in files(copy)?.iter().filter_map(|path| path.strip_prefix(copy).ok()) {
            let quarantined = data_dir.join("quarantine").join(name.display().to_string().replace('/', "-"));
            if quarantined.exists() && fs::read(&quarantined).ok() != fs::read(copy.join(name)).ok() {
                return Err(Trouble::new(format!("I9 {} is not what it was in quarantine", name.display())));
            }
        }
        if self.ask(&["verify"])?.code != 0 {
            return Err(Trouble::new(format!("I9 repaired, but verify fails: {}", repaired.out)));
        }
        let lost = report.get("lost_lines").and_then(serde_json::Value::as_u64).unwrap_or_default();
        let shown = self.inspect()?;
        let before: BTreeSet<&str> = whole.out.lines().collect();
        let missing = before.len().saturating_sub(shown.out.lines().count()) as u64;
        // A dead letter is in another file: it is not lost with its segment, but `inspect` does not show it any more.
        let status = self.program.status_on_disk(data_dir)?;
        let letters: u64 = status.groups.iter().map(|group| group.dead_letters).sum();
        if shown.code != 0 || missing > lost + letters || !shown.out.lines().all(|line| before.contains(line))
        {
            let Output { code, err, .. } = shown;
            return Err(Trouble::new(format!(
                "I9 repaired, inspect ended with {code}: {err}{} gone: {}",
                counted(missing, "line"),
                repaired.out
            )));
        }
        Ok(if lost > 0 { "repaired with a named loss" } else { "repaired without a loss" }.to_owned())
    }

    /// On a healthy disk the service starts. Shortly after a fault the kernel may report it once more.
    fn start(&mut self) -> Result<Service> {
        for _ in 0..2 {
            let mut service = self.trial.start()?;
            let ready = service.wait("it starts on a disk that is healthy again", |_| true);
            match service.ended()?.and_then(|status| status.code()) {
                Some(STORE_FAILED) if self.cache_lies => self.cache_lies = false,
                _ => {
                    ready?;
                    self.trial.look(&service, true);
                    return Ok(service);
                }
            }
        }
        Err(Trouble::new("I9 it does not start on a disk that is healthy again"))
    }

    /// Watches a service with a fault: it ends with the status of a failed store, or continues. Returns which.
    fn with_fault(&mut self, mut service: Service) -> Result<String> {
        let (begun, mut met, mut is_blocked) = (Instant::now(), None, false);
        while met.map_or(begun.elapsed() < REACH_MAX, |met: Instant| met.elapsed() < FAULT_MAX) {
            if self.disk.hits() > 0 {
                met.get_or_insert_with(Instant::now);
            }
            if let Some(status) = self.trial.look(&service, false) {
                is_blocked = status.groups.iter().any(|group| group.state.starts_with("blocked"));
            }
            if let Some(status) = service.ended()? {
                return match status.code() {
                    Some(STORE_FAILED) => Ok("it ended".to_owned()),
                    _ => Err(Trouble::new(format!("I9 it ended with {status}"))),
                };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let continued =
            if is_blocked { "it continued, a group was blocked" } else { "it continued" }.to_owned();
        if self.rng.bool() {
            service.kill()?;
            return Ok(continued);
        }
        match service.stop()? {
            0 => Ok(continued),
            STORE_FAILED => Ok("it ended at the stop".to_owned()),
            code => Err(Trouble::new(format!("I9 a stop ended with {code}"))),
        }
    }

    /// Makes the disk healthy; with `remount` the page cache is what the disk has. A file system that gave up is mounted again.
    fn heal(&mut self, remount: bool) -> Result<()> {
        self.disk.heal();
        let probe = self.device.mount.join("probe");
        let lives = || File::create(&probe).and_then(|file| file.sync_all());
        if remount || lives().is_err() {
            self.heal_disk()?;
            self.cache_lies = false;
        }
        Ok(())
    }

    fn heal_disk(&self) -> Result<()> {
        self.disk.heal();
        self.device.remount()
    }

    fn ask(&self, args: &[&str]) -> Result<Output> {
        self.program.on(&self.trial.places.data_dir, args)
    }

    fn inspect(&self) -> Result<Output> {
        self.ask(&["inspect", "--json", "--limit", "100000000"])
    }

    /// The place of a file of the store whose name begins with `file`, or of the rest of it from somewhere on. Mostly the newest
    /// file, which is in use.
    fn sectors(&mut self, file: &str) -> Result<Vec<Range<u64>>> {
        let data_dir = &self.trial.places.data_dir;
        let begins = |path: &&PathBuf| {
            path.strip_prefix(data_dir).is_ok_and(|name| name.display().to_string().starts_with(file))
        };
        // The service continues meanwhile: a file may be gone.
        let all = files(data_dir)?;
        let named: Vec<&PathBuf> = all.iter().filter(begins).collect();
        let newest = named.last().copied().filter(|_| self.rng.u8(..4) > 0);
        let Some(path) = newest.or_else(|| self.rng.choice(&named).copied()) else { return Ok(Vec::new()) };
        let printed =
            tool("filefrag", &["-v", "-s", "-b512", &path.display().to_string()]).unwrap_or_default();
        let mut places: Vec<Range<u64>> = printed.lines().filter_map(extent).collect();
        if self.rng.bool() {
            let bytes: u64 = places.iter().map(|place| place.end - place.start).sum();
            let mut skipped = self.rng.u64(..=bytes / PAGE) * PAGE;
            for place in &mut places {
                let here = skipped.min(place.end - place.start);
                place.start += here;
                skipped -= here;
            }
        }
        places.retain(|place| !place.is_empty());
        Ok(places)
    }
}

/// The place of an extent, as `filefrag` prints it: `0: 0.. 8191: 24578.. 32769: 8192: unwritten`. `None` if there is none yet.
fn extent(line: &str) -> Option<Range<u64>> {
    let mut parts = line.split(':').map(str::trim);
    let (_, _, physical, sectors) = (
        parts.next()?.parse::<u64>().ok()?,
        parts.next()?,
        parts.next()?,
        parts.next()?.parse::<u64>().ok()?,
    );
    let first: u64 = physical.split("..").next()?.trim().parse().ok()?;
    let is_known = !line.contains("delalloc") && !line.contains("unknown");
    is_known.then(|| first * SECTOR..(first + sectors) * SECTOR)
}

/// All files of a store, sorted; files that vanish meanwhile are left out.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}
