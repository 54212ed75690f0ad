//! Full disks: another process takes the last byte of the file system while lines are ingested and delivered and journals are
//! rotated. Only ingestion pauses; the service is killed and opens on the full disk; it resumes by itself.
//!
//! With an even seed the filler takes the free space once. With an odd one it continues, and so takes the reserve too, as soon
//! as that is released: a start may then report that there is too little space, and must succeed once there is enough.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::fstatvfs;

use crate::campaign::{Setup, Tally};
use crate::disk::{self, Kind, SmallDisk};
use crate::phases::Phases;
use crate::places::Places;
use crate::service::{Service, Status};
use crate::trial::Trial;
use crate::trouble::{During, Result};
use crate::writer::{Pace, USUAL};

const DISK_MIB: u64 = 400;
/// The exit status without free space.
const NO_SPACE: i32 = 1;
const PACE: Pace = Pace { poison_one_in: 0, ..USUAL };

/// Runs the campaign.
pub fn run(setup: &Setup, tally: &mut Tally) {
    if let Some(why) = disk::lacks(Kind::Ext4, &setup.work) {
        return tally.skip(setup.count, &why);
    }
    let phases: Phases =
        setup.stores("full", 1, tally, |folder, seed, _| one(setup, folder, seed)).into_iter().sum();
    println!("{} full disks, seed {}; hit: {phases}", setup.count, setup.seed);
}

/// Takes every free byte, as another user would.
fn fill(path: &Path, is_greedy: bool) -> Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path).during("open the filler")?;
    let space = fstatvfs(&file).during("look at the disk")?;
    let mut left = if is_greedy { u64::MAX } else { space.f_bfree * space.f_frsize };
    for piece in [&[1; 1 << 20][..], &[1; 4096], &[1; 512]] {
        while left >= piece.len() as u64 && (&file).write_all(piece).is_ok() {
            left -= piece.len() as u64;
        }
    }
    Ok(())
}

/// Waits for a status of the service; returns whether it runs. A service that may end does so with [`NO_SPACE`].
fn wait_if_alive(
    trial: &Trial,
    service: &mut Service,
    may_end: bool,
    what: &str,
    is_so: impl Fn(&Status) -> bool,
) -> Result<bool> {
    // Without new lines nothing shows that the disk is full.
    let waited = service.wait(what, |status| {
        trial.tell_writers(status);
        is_so(status)
    });
    match service.ended()?.map(|status| status.code()) {
        Some(Some(NO_SPACE)) if may_end => Ok(false),
        _ => waited.map(|_| true),
    }
}

fn one(setup: &Setup, folder: &Path, seed: u64) -> Result<Phases> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let disk = SmallDisk::new(folder, Kind::Ext4, DISK_MIB)?;
    // More is to stay free than the reserve releases: lines never take its space.
    let room = "min_free = \"24MiB\"\nreserve = \"64MiB\"";
    let places = Places { data_dir: disk.mount.join("q"), room, ..Places::below(folder) };
    let mut trial = Trial::new(&setup.program, places, seed, 3, PACE)?;
    trial.work();
    let filler = disk.mount.join("filler");
    let mut service = trial.start()?;
    service.wait("it is ready", |_| true)?;
    let until = Instant::now() + Duration::from_millis(rng.u64(..2_000));
    let last = trial.watch(&mut service, until, &mut rng, |_| false)?;
    trial.phases.add(last.as_ref());
    let is_greedy = !seed.is_multiple_of(2);
    fill(&filler, is_greedy)?;
    let idle =
        |status: &Status| status.log.full.is_some() && status.groups.iter().all(|group| group.lag_lines == 0);
    let paused = wait_if_alive(
        &trial,
        &mut service,
        is_greedy,
        "ingestion pauses, and what is stored is delivered",
        idle,
    )?;
    if paused {
        trial.look(&service, false);
    }
    service.kill()?;
    trial.judge()?;
    // A reserve that was released while the service ran is in use, and not a reserve any more: what is left of it is not
    // taken. One that is still held must be enough for opening.
    if trial.places.data_dir.join("RESERVE").exists() {
        fill(&filler, false)?;
    }
    let mut service = trial.start()?;
    let opened =
        wait_if_alive(&trial, &mut service, is_greedy, "it opens on the full disk, and waits", idle)?;
    if opened {
        trial.look(&service, true);
    }
    fs::remove_file(&filler).during("remove the filler")?;
    if !opened {
        trial.judge()?;
        service = trial.start()?;
    }
    service.wait("it resumes by itself", |status| status.log.full.is_none())?;
    trial.look(&service, false);
    service.kill()?;
    trial.judge()?;
    trial.finish()?;
    disk.unmount()?;
    Ok(trial.phases)
}
