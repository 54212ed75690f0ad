//! Power cuts: the file system under the store is shut down without flushing its journal, and mounted again.
//!
//! The followed files are on another disk, which keeps its power: only the log is tested. With `--busy` another
//! process writes to the same file system.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::campaign::{Setup, Tally};
use crate::disk::{self, Kind, SmallDisk};
use crate::phases::Phases;
use crate::places::Places;
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;
use crate::writer::USUAL;

/// Cuts of one file system; then everything is finished and judged.
const CUTS_A_STORE: u64 = 40;
/// Size of the file system: all lines of a store fit several times.
const DISK_MIB: u64 = 1_500;
/// Of the other process.
const BREATH: Duration = Duration::from_millis(2);
/// The bytes that the other process keeps dirty.
const NEIGHBOUR_BYTES: usize = 32 << 20;

/// Variants.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Which file system.
    pub kind: Kind,
    /// Another process writes to it too.
    pub busy: bool,
}

/// Runs the campaign.
pub fn run(setup: &Setup, how: How, tally: &mut Tally) {
    if let Some(why) = disk::lacks(how.kind, &setup.work) {
        return tally.skip(setup.count, &why);
    }
    let busy = if how.busy { " --busy" } else { "" };
    let command = format!("shutdown --fs {:?}{busy}", how.kind).to_lowercase();
    let seen =
        setup.stores(&command, CUTS_A_STORE, tally, |folder, seed, cuts| one(setup, how, folder, seed, cuts));
    let phases: Phases = seen.iter().map(|(hit, _)| *hit).sum();
    let lines: u64 = seen.iter().map(|(_, lines)| lines).sum();
    println!(
        "{}, {command}, seed {}, {}; hit: {phases}",
        counted(setup.count, "power cut"),
        setup.seed,
        counted(lines, "line")
    );
}

fn one(setup: &Setup, how: How, folder: &Path, seed: u64, cuts: u64) -> Result<(Phases, u64)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let disk = SmallDisk::new(folder, how.kind, DISK_MIB)?;
    let places = Places { data_dir: disk.mount.join("q"), ..Places::below(folder) };
    let mut trial = Trial::new(&setup.program, places, seed, 3, USUAL)?;
    trial.work();
    for cut in 0..cuts {
        let mut service = trial.start()?;
        let neighbour = how.busy.then(|| Neighbour::start(disk.mount.join("neighbour"), BREATH));
        let for_rotation = cut % 8 == 7;
        let wait = if for_rotation { 6_000 } else { rng.u64(20..500) };
        let until = Instant::now() + Duration::from_millis(wait);
        let last =
            trial.watch(&mut service, until, &mut rng, |status| for_rotation && status.log.rotations > 0)?;
        trial.phases.add(last.as_ref());
        disk.cut()?;
        service.kill()?;
        neighbour.map_or(Ok(()), Neighbour::end)?;
        disk.unmount()?;
        disk.mount()?;
        trial.judge().during(format!("after cut {}", cut + 1))?;
        if last.is_some() && rng.u8(..4) == 0 {
            trial.judge_disk().during(format!("on disk, after cut {}", cut + 1))?;
        }
    }
    let (lines, _) = trial.finish().during("at the end")?;
    disk.unmount()?;
    Ok((trial.phases, lines))
}

/// Keeps pages of a file dirty, and syncs occasionally.
pub struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Neighbour {
    /// Starts it, with this pause between two writes of 256 KiB.
    pub fn start(path: PathBuf, breath: Duration) -> Neighbour {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let piece = vec![7; 256 * 1024];
            // Until the power fails under it.
            let work = || -> std::io::Result<()> {
                let mut file = File::create(&path)?;
                let mut pieces = 0;
                while !stopped.load(Ordering::Relaxed) {
                    file.write_all(&piece)?;
                    pieces += 1;
                    if pieces % 16 == 0 {
                        file.sync_data()?;
                    }
                    if pieces * piece.len() >= NEIGHBOUR_BYTES {
                        file.rewind()?;
                        pieces = 0;
                    }
                    thread::sleep(breath);
                }
                Ok(())
            };
            // It ends with an error when the file system has been shut down, which is the point.
            let _ = work();
        });
        Neighbour { stop, thread }
    }

    /// Lets it end.
    pub fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Trouble::new("the neighbour panicked"))
    }
}
