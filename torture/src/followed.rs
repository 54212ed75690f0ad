//! Power cuts with the followed files on the device that is cut (`shutdown --followed`).
//!
//! A followed file may lose its end, all of it, or its last rename, or end in zeros: only a `syncfs` at some moment syncs it.
//! Its writer cuts off what is torn, as a careful program does, and continues after what is left with lines that it has not
//! written before. What is not cut off is stored as it is. What must hold: what was answered is in the log, although its file
//! may have lost it; every line that a file still has gets into the log; and a line is there twice only if the service reported
//! a roll back, and within the bytes that it reported.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::syncfs;

use crate::campaign::{Setup, Tally};
use crate::disk::{self, Kind, SmallDisk};
use crate::left::{self, FIRST_READ, Left, Seen};
use crate::line;
use crate::notes;
use crate::phases::Phases;
use crate::places::Places;
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::words::{counted, is_or_are, was_or_were};
use crate::writer::USUAL;

/// Cuts of one file system; then everything is finished and judged.
const CUTS_A_STORE: u64 = 20;
const DISK_MIB: u64 = 1_500;

/// Runs the campaign.
pub fn run(setup: &Setup, kind: Kind, tally: &mut Tally) {
    if let Some(why) = disk::lacks(kind, &setup.work) {
        return tally.skip(setup.count, &why);
    }
    let command = format!("shutdown --fs {kind:?} --followed").to_lowercase();
    let seen = setup
        .stores(&command, CUTS_A_STORE, tally, |folder, seed, cuts| one(setup, kind, folder, seed, cuts));
    let (phases, seen): (Vec<Phases>, Vec<Seen>) = seen.into_iter().unzip();
    println!(
        "{} power cuts, {command}, seed {}: {}; hit: {}",
        setup.count,
        setup.seed,
        seen.into_iter().sum::<Seen>(),
        phases.into_iter().sum::<Phases>()
    );
}

fn one(setup: &Setup, kind: Kind, folder: &Path, seed: u64, cuts: u64) -> Result<(Phases, Seen)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let disk = SmallDisk::new(folder, kind, DISK_MIB)?;
    let places =
        Places { data_dir: disk.mount.join("q"), logs: disk.mount.join("logs"), ..Places::below(folder) };
    let mut trial = Trial::new(&setup.program, places, seed, 3, USUAL)?;
    trial.lines_may_come_again();
    let mut reported = RolledBack { messages: folder.join("messages"), read: 0, bytes: 0, times: 0 };
    // For each file at the path of a source after the last cut: how much of it was left.
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
        reported.read(&left)?;
        left::mend(&trial.places.logs)?;
        left.clear();
        for writer in trial.resting() {
            left.push((writer.path(), writer.resume().during("continue after a power cut")?));
        }
        trial.judge().during(format!("after cut {}", cut + 1))?;
    }
    let seen = end(&mut trial, &mut reported, &left).during("at the end")?;
    disk.unmount()?;
    Ok((trial.phases, seen))
}

/// The service's messages about files that were rolled back.
struct RolledBack {
    messages: PathBuf,
    /// Bytes of the messages.
    read: usize,
    /// Bytes of followed files that may be read again.
    bytes: u64,
    times: u64,
}

impl RolledBack {
    /// Continues to read; `left` has how much was left of files when the service was started for these messages. A file that
    /// lost everything that could identify it is a new one.
    fn read(&mut self, left: &[(PathBuf, u64)]) -> Result<()> {
        let text = fs::read_to_string(&self.messages).during("read the messages")?;
        let mut named = BTreeSet::new();
        for line in text.get(self.read..).unwrap_or_default().lines() {
            if let Some((path, bytes)) = left::rolled_back(line)? {
                named.insert(PathBuf::from(path));
                self.bytes += bytes;
                self.times += 1;
            }
        }
        self.read = text.len();
        let new = left.iter().filter(|(path, bytes)| *bytes < FIRST_READ && !named.contains(path));
        self.bytes += new.map(|(_, bytes)| bytes).sum::<u64>();
        Ok(())
    }
}

/// Lets the service read what is left of all files, and judges what the log has.
fn end(trial: &mut Trial, reported: &mut RolledBack, left: &[(PathBuf, u64)]) -> Result<Seen> {
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    // Of each line that a file has: its bytes.
    let mut in_files: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    for Left { path, end, lines } in left::look(&trial.places.logs)? {
        in_files.extend(lines.iter().map(|(place, bytes)| ((place.source, place.number), *bytes)));
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
        ends.iter().all(read) && ["strict", "record", "some"].into_iter().all(idle)
    })?;
    trial.look(&service, true);
    service.stop_cleanly()?;
    trial.phases.clean_stop += 1;
    trial.judge()?;
    reported.read(left)?;
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
            "I2 line {number} of w{source} is in its file, but not in the log"
        )));
    }
    let again = stored.iter().map(|(line, count)| (line, count - 1)).filter(|(_, again)| *again > 0);
    let (lines, bytes) = again.fold((0, 0), |(lines, bytes), (line, again)| {
        (lines + again, bytes + again * in_files.get(line).copied().unwrap_or_default())
    });
    if bytes > reported.bytes {
        return Err(Trouble::new(format!(
            "I4 {} of {} {} in the log twice, and {} {} reported to be read again",
            counted(lines, "line"),
            counted(bytes, "byte"),
            is_or_are(lines),
            counted(reported.bytes, "byte"),
            was_or_were(reported.bytes)
        )));
    }
    for (file, of) in [("recorded", None), ("of-some", Some(0))] {
        let text = fs::read_to_string(trial.places.folder.join(file)).during("read what was recorded")?;
        let recorded: Vec<(u32, u64)> = text
            .lines()
            .filter_map(|text| line::parse(text).ok())
            .map(|line| (line.source, line.number))
            .collect();
        let done: Vec<(u32, u64)> =
            by_seq.values().filter(|(source, _)| of.is_none_or(|of| of == *source)).copied().collect();
        if recorded != done {
            return Err(Trouble::new(format!(
                "I1 {file}: {}; done by the strict group: {}, or in another order",
                counted(recorded.len() as u64, "line"),
                done.len()
            )));
        }
    }
    let known: BTreeSet<(u32, u64)> = stored.keys().copied().collect();
    let saved = known.iter().filter(|line| !in_files.contains_key(line)).count() as u64;
    Ok(Seen { left: in_files.len() as u64, saved, again: lines, rolled_back: reported.times })
}
