//! Power cuts with the followed files on the device that is cut (`shutdown --followed`).
//!
//! A followed file may lose its end, all of it, or its last rename, or end in zeros: nobody syncs it but a `syncfs` at some
//! moment. Its writer cuts off what is torn, as a program does that cares for its files, and goes on behind what is left
//! with lines that it never wrote; what nobody cuts off is stored as it stands. What must hold: what was answered is there,
//! although its file may have lost it; every line that a file still has comes to be in the log; and a line is there
//! twice only where the service said that it rolled back, by no more than it said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::syncfs;

use crate::campaign::{Setup, Tally};
use crate::disk::{self, Kind, SmallDisk};
use crate::line;
use crate::notes;
use crate::phases::Phases;
use crate::places::Places;
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::writer::USUAL;

/// Cuts of one file system; then everything is worked off and judged.
const CUTS_A_STORE: u64 = 20;
const DISK_MIB: u64 = 1_500;
/// What the tail reads of a file at first, at most: so far up there may be no rung.
const FIRST_READ: u64 = 1 << 20;

/// What the cuts came to.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Lines that files have in the end.
    left: u64,
    /// Lines that the log had, and no file has any more.
    saved: u64,
    /// Lines that are in the log once more.
    again: u64,
    /// Times that the service rolled back.
    rolled_back: u64,
}

/// Runs the campaign.
pub fn run(setup: &Setup, kind: Kind, tally: &mut Tally) {
    if let Some(why) = disk::lacks(kind, &setup.work) {
        return tally.skip(setup.count, &why);
    }
    let variant = format!("--fs {kind:?} --followed").to_lowercase();
    let (mut phases, mut all) = (Phases::default(), Seen::default());
    for (seed, done) in (setup.seed..).zip((0..setup.count).step_by(CUTS_A_STORE as usize)) {
        let cuts = CUTS_A_STORE.min(setup.count - done);
        let name = format!("followed-{kind:?}-{seed}").to_lowercase();
        match setup.folder(&name).and_then(|folder| Ok((one(setup, kind, &folder, seed, cuts)?, folder))) {
            Ok(((hit, seen), folder)) => {
                phases = [phases, hit].into_iter().sum();
                let Seen { left, saved, again, rolled_back } = seen;
                all.left += left;
                all.saved += saved;
                all.again += again;
                all.rolled_back += rolled_back;
                tally.pass(cuts);
                // Nothing is left to look at.
                let _ = fs::remove_dir_all(folder);
            }
            Err(trouble) => {
                let repeat = format!("shutdown --count {cuts} --seed {seed} {variant}");
                tally.fail(&trouble, &setup.work.join(name), &repeat);
            }
        }
    }
    let Seen { left, saved, again, rolled_back } = all;
    println!(
        "{} power cuts, {variant}, seed {}: {left} lines are left in files, {saved} are in the log alone, {again} came twice, as {rolled_back} roll backs told; hit: {phases}",
        setup.count, setup.seed
    );
}

fn one(setup: &Setup, kind: Kind, folder: &Path, seed: u64, cuts: u64) -> Result<(Phases, Seen)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let disk = SmallDisk::new(folder, kind, DISK_MIB)?;
    let places =
        Places { data_dir: disk.mount.join("q"), logs: disk.mount.join("logs"), ..Places::below(folder) };
    let mut trial = Trial::new(&setup.program, places, seed, 3, USUAL)?;
    trial.lines_may_come_again();
    let mut told = Told { messages: folder.join("messages"), read: 0, bytes: 0, times: 0 };
    // Of each file at the path of a source after the last cut: how much of it was left.
    let mut left: Vec<(PathBuf, u64)> = Vec::new();
    for cut in 0..cuts {
        trial.work();
        let mut service = trial.start()?;
        let mut last = None;
        for is_last in [false, true] {
            let until = Instant::now() + Duration::from_millis(rng.u64(20..600));
            last = trial.watch(&mut service, until, &mut rng, |_| false)?.or(last);
            if !is_last {
                let mount = File::open(&disk.mount).during("open the file system")?;
                syncfs(&mount).during("sync the file system")?;
            }
        }
        trial.phases.add(last.as_ref());
        disk.cut()?;
        service.kill()?;
        // Their files are gone from under them.
        drop(trial.rest()?);
        disk.unmount()?;
        disk.mount()?;
        told.read(&left)?;
        mend(&trial.places.logs)?;
        left.clear();
        for writer in trial.resting() {
            left.push((writer.path(), writer.resume().during("go on after a power cut")?));
        }
        trial.judge().during(format!("after cut {}", cut + 1))?;
    }
    let seen = end(&mut trial, &mut told, &left).during("at the end")?;
    disk.unmount()?;
    Ok((trial.phases, seen))
}

/// Cuts off what is torn.
fn mend(logs: &Path) -> Result<()> {
    for path in files(logs)? {
        let bytes = fs::read(&path).during(path.display())?;
        let (end, _) = line::whole(&bytes);
        if end < bytes.len() as u64 {
            let file = File::options().write(true).open(&path).during(path.display())?;
            file.set_len(end).during(path.display())?;
        }
    }
    Ok(())
}

fn files(logs: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(logs).during("list the followed files")?;
    entries.map(|entry| Ok(entry.during("list the followed files")?.path())).collect()
}

/// What the service said of files that it found rolled back.
struct Told {
    messages: PathBuf,
    /// Bytes of the messages.
    read: usize,
    /// Bytes of followed files that may be read again.
    bytes: u64,
    times: u64,
}

impl Told {
    /// Reads on; `left` says how much was left of files when the service was started for these messages. A file that
    /// lost all that the service could know it by is a new one.
    fn read(&mut self, left: &[(PathBuf, u64)]) -> Result<()> {
        let text = fs::read_to_string(&self.messages).during("read the messages")?;
        let new: Vec<&str> = text
            .get(self.read..)
            .into_iter()
            .flat_map(str::lines)
            .filter(|line| line.contains("rolled back"))
            .collect();
        self.read = text.len();
        for line in &new {
            let number = |key: &str| {
                line.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
            };
            let (Some(from), Some(to)) = (number("from="), number("to=")) else {
                return Err(Trouble::new(format!("a roll back does not say from where: {line}")));
            };
            self.bytes += from.saturating_sub(to);
            self.times += 1;
        }
        for (path, bytes) in left.iter().filter(|(_, bytes)| *bytes < FIRST_READ) {
            let name = path.display().to_string();
            if !new.iter().any(|line| line.contains(&name)) {
                self.bytes += bytes;
            }
        }
        Ok(())
    }
}

/// Lets the service read what is left of all files, and judges what the log has.
fn end(trial: &mut Trial, told: &mut Told, left: &[(PathBuf, u64)]) -> Result<Seen> {
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    // Of each line that a file has: its bytes.
    let mut in_files: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    for path in files(&trial.places.logs)? {
        let bytes = fs::read(&path).during(path.display())?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            // The last may be half a line.
            if let Ok(place) = line::parse(String::from_utf8_lossy(line).trim_end_matches('\n')) {
                in_files.insert((place.source, place.number), line.len() as u64);
            }
        }
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
        if end > 0 {
            ends.insert(path.display().to_string(), end);
        }
    }
    let mut service = trial.start()?;
    service.wait("all that is left is in the log and done", |status| {
        let read = |(path, end): (&String, &u64)| {
            status.sources.iter().any(|source| source.path == *path && source.offset >= *end)
        };
        let idle = |name: &str| status.group(name).is_some_and(|group| group.lag_lines == 0);
        ends.iter().all(read) && idle("strict") && idle("record")
    })?;
    trial.look(&service, true);
    match service.stop()? {
        0 => trial.phases.clean_stop += 1,
        code => return Err(Trouble::new(format!("I9 a clean stop ended with {code}"))),
    }
    trial.judge()?;
    told.read(left)?;
    let deliveries = notes::read(&trial.places.folder.join("notes"), "strict").during("read the notes")?;
    let done = deliveries.iter().filter(|delivery| delivery.answered.is_some_and(|(_, done)| done));
    let mut by_seq: BTreeMap<u64, (u32, u64)> = BTreeMap::new();
    for run in done.flat_map(|delivery| &delivery.runs) {
        by_seq.extend((0..run.count).map(|at| (run.seq + at, (run.source, run.number + at))));
    }
    let mut stored: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    for line in by_seq.values() {
        *stored.entry(*line).or_default() += 1;
    }
    if let Some((source, number)) = in_files.keys().find(|line| !stored.contains_key(line)) {
        return Err(Trouble::new(format!(
            "I2 line {number} of w{source} is in its file, and not in the log"
        )));
    }
    let again = stored.iter().map(|(line, count)| (line, count - 1)).filter(|(_, again)| *again > 0);
    let (lines, bytes) = again.fold((0, 0), |(lines, bytes), (line, again)| {
        (lines + again, bytes + again * in_files.get(line).copied().unwrap_or_default())
    });
    if bytes > told.bytes {
        return Err(Trouble::new(format!(
            "I4 {lines} lines of {bytes} bytes are in the log twice, and {} bytes were told to be read again",
            told.bytes
        )));
    }
    let text = fs::read_to_string(trial.places.folder.join("recorded")).during("read what was recorded")?;
    let recorded: Vec<(u32, u64)> = text
        .lines()
        .filter_map(|text| line::parse(text).ok())
        .map(|line| (line.source, line.number))
        .collect();
    if !recorded.iter().eq(by_seq.values()) {
        return Err(Trouble::new(format!(
            "I1 {} lines are recorded, {} were done by the other group, or in another order",
            recorded.len(),
            by_seq.len()
        )));
    }
    let known: BTreeSet<(u32, u64)> = stored.keys().copied().collect();
    let saved = known.iter().filter(|line| !in_files.contains_key(line)).count() as u64;
    Ok(Seen { left: in_files.len() as u64, saved, again: lines, rolled_back: told.times })
}
