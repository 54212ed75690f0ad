//! Load for minutes and hours: lines are ingested, delivered and acked all the time, files are renamed away and deleted after
//! they were read, segments are removed, and occasionally the service is killed. Memory, descriptors and disk stay flat: the
//! peaks of the second half of the time are not much above those of the first.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::campaign::{Setup, Tally};
use crate::phases::Phases;
use crate::places::Places;
use crate::service::{Service, Status};
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;
use crate::writer::Pace;

/// Runs of the service between two kills, of the whole time.
const RUNS: u32 = 8;
/// Between two checks.
const LOOK: Duration = Duration::from_millis(250);
const SOURCES: u32 = 3;
/// Some 2 MB a second in all, which a loaded machine keeps up with.
const PACE: Pace = Pace {
    burst_lines: 60,
    breath: Duration::from_millis(20),
    rotate_lines: 20_000,
    letters_max: 400,
    poison_one_in: 9_973,
};

/// The peaks in one half of the time.
#[derive(Clone, Copy, Debug, Default)]
struct Most {
    memory_kib: u64,
    descriptors: u64,
    disk_kib: u64,
}

impl Most {
    fn max(&mut self, other: Most) {
        self.memory_kib = self.memory_kib.max(other.memory_kib);
        self.descriptors = self.descriptors.max(other.descriptors);
        self.disk_kib = self.disk_kib.max(other.disk_kib);
    }
}

/// Runs the campaign: `setup.count` minutes are its cases.
pub fn run(setup: &Setup, tally: &mut Tally) {
    let name = format!("soak-{}", setup.seed);
    match setup.folder(&name).and_then(|folder| Ok((one(setup, &folder)?, folder))) {
        Ok((said, folder)) => {
            println!("{}, seed {}, {said}", counted(setup.count, "minute"), setup.seed);
            tally.pass(setup.count);
            // Nothing is left to inspect.
            let _ = fs::remove_dir_all(folder);
        }
        Err(trouble) => {
            let repeat = format!("soak --minutes {} --seed {}", setup.count, setup.seed);
            tally.fail(&trouble, &setup.work.join(name), &repeat);
        }
    }
}

fn one(setup: &Setup, folder: &Path) -> Result<String> {
    let mut rng = fastrand::Rng::with_seed(setup.seed);
    let mut trial = Trial::new(&setup.program, Places::below(folder), setup.seed, SOURCES, PACE)?;
    let whole = Duration::from_secs(60 * setup.count);
    let began = Instant::now();
    let mut halves = [Most::default(); 2];
    let mut kills = 0;
    trial.work();
    while began.elapsed() < whole {
        let mut service = trial.start()?;
        let until = (Instant::now() + whole.mul_f64(rng.f64() * 2.0 / f64::from(RUNS))).min(began + whole);
        let mut last = None;
        while Instant::now() < until {
            if let Some(status) = trial.look(&service, last.is_none()) {
                let half = usize::from(began.elapsed() * 2 >= whole);
                if let Some(half) = halves.get_mut(half) {
                    half.max(taken(&service, &trial.places.data_dir)?);
                }
                tidy(&trial.places.logs, &status)?;
                last = Some(status);
            }
            if let Some(status) = service.ended()? {
                return Err(Trouble::new(format!("the service ended by itself with {status}")));
            }
            std::thread::sleep(LOOK);
        }
        trial.phases.add(last.as_ref());
        service.kill()?;
        kills += 1;
        trial.judge().during(format!("after kill {kills}"))?;
        if last.is_some() {
            trial.judge_disk().during(format!("on disk, after kill {kills}"))?;
        }
    }
    let (lines, _) = trial.finish().during("at the end")?;
    let [first, second] = halves;
    flat("KiB of memory", first.memory_kib, second.memory_kib, 8 << 10)?;
    flat("descriptors", first.descriptors, second.descriptors, 16)?;
    // A segment and a journal more, by chance.
    flat("KiB of disk", first.disk_kib, second.disk_kib, 48 << 10)?;
    let phases: &Phases = &trial.phases;
    let of = |most: Most| {
        let Most { memory_kib, descriptors, disk_kib } = most;
        format!(
            "{} MiB resident, {}, {} MiB of disk",
            memory_kib >> 10,
            counted(descriptors, "descriptor"),
            disk_kib >> 10
        )
    };
    Ok(format!(
        "{}, {}; hit: {phases}\nfirst half: at most {}\nsecond half: at most {}",
        counted(lines, "line"),
        counted(kills, "kill"),
        of(first),
        of(second)
    ))
}

/// The second half of the time may use a fifth more, and an allowance for chance.
fn flat(what: &str, first: u64, second: u64, chance: u64) -> Result<()> {
    if first == 0 || second == 0 {
        return Err(Trouble::new(format!("I8 {what} were never measured in one half of the time")));
    }
    if second > first + first / 5 + chance {
        return Err(Trouble::new(format!(
            "I8 not flat: {first} {what} at most in the first half, {second} in the second"
        )));
    }
    Ok(())
}

fn taken(service: &Service, data_dir: &Path) -> Result<Most> {
    Ok(Most {
        memory_kib: service.proc_kib("VmRSS").unwrap_or_default(),
        descriptors: service.descriptors().unwrap_or_default(),
        disk_kib: blocks(data_dir)? / 2,
    })
}

/// Blocks of 512 bytes below a folder. Files that vanish meanwhile count as none.
fn blocks(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    let Ok(entries) = fs::read_dir(folder) else { return Ok(0) };
    for entry in entries {
        let path = entry.during(folder.display())?.path();
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => sum += blocks(&path)?,
            Ok(meta) => sum += meta.blocks(),
            Err(_gone) => {}
        }
    }
    Ok(sum)
}

/// Deletes files that were rotated away and are in the log to their end, which is what a rotation does after a while.
fn tidy(logs: &Path, status: &Status) -> Result<()> {
    let read: BTreeMap<&str, u64> =
        status.sources.iter().map(|source| (source.path.as_str(), source.offset)).collect();
    for entry in fs::read_dir(logs).during(logs.display())? {
        let path = entry.during(logs.display())?.path();
        // A file that is written is never of this name.
        let is_rotated = path.extension().is_none_or(|end| end != "log");
        // The writer may rename it a moment after this.
        let Ok(meta) = fs::metadata(&path) else { continue };
        if is_rotated && read.get(path.display().to_string().as_str()) == Some(&meta.len()) {
            fs::remove_file(&path).during("delete a rotated file")?;
        }
    }
    Ok(())
}
