//! Full disks: somebody else takes the last byte of the file system while lines come in, are handed out, and journals
//! roll. Taking in pauses and nothing else; the service is killed and opens on the full disk; it goes on by itself.
//!
//! With an even seed the filler takes what is free, once. With an odd one it goes on, and so takes the reserve, too, as
//! soon as that is given back: a start may then say that there is no room, and has to succeed once there is.

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
/// The exit status of a disk without room.
const NO_ROOM: i32 = 1;
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

/// Takes every byte that is left, as a user who is not spillq would.
fn fill(path: &Path, is_greedy: bool) -> Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path).during("open the filler")?;
    let room = fstatvfs(&file).during("look at the disk")?;
    let mut left = if is_greedy { u64::MAX } else { room.f_bfree * room.f_frsize };
    for piece in [&[1; 1 << 20][..], &[1; 4096], &[1; 512]] {
        while left >= piece.len() as u64 && (&file).write_all(piece).is_ok() {
            left -= piece.len() as u64;
        }
    }
    Ok(())
}

/// Waits for what the service says; says whether it lives. One that may end does so with the status for no room.
fn settle(
    trial: &Trial,
    service: &mut Service,
    may_end: bool,
    what: &str,
    is_so: impl Fn(&Status) -> bool,
) -> Result<bool> {
    // Without lines that come in nobody learns that there is no room.
    let waited = service.wait(what, |status| {
        trial.tell_writers(status);
        is_so(status)
    });
    match service.ended()?.map(|status| status.code()) {
        Some(Some(NO_ROOM)) if may_end => Ok(false),
        _ => waited.map(|_| true),
    }
}

fn one(setup: &Setup, folder: &Path, seed: u64) -> Result<Phases> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let disk = SmallDisk::new(folder, Kind::Ext4, DISK_MIB)?;
    // More is to stay free than the reserve gives back: lines never take its room.
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
    let paused =
        settle(&trial, &mut service, is_greedy, "taking in pauses, and what is there is worked off", idle)?;
    if paused {
        trial.look(&service, false);
    }
    service.kill()?;
    trial.judge()?;
    // A reserve that was given back while it ran is in use, and no reserve any more: what is left of it is not
    // taken. One that is still held has to do for opening.
    if trial.places.data_dir.join("RESERVE").exists() {
        fill(&filler, false)?;
    }
    let mut service = trial.start()?;
    let opened = settle(&trial, &mut service, is_greedy, "it opens on the full disk, and waits", idle)?;
    if opened {
        trial.look(&service, true);
    }
    fs::remove_file(&filler).during("remove the filler")?;
    if !opened {
        trial.judge()?;
        service = trial.start()?;
    }
    service.wait("it goes on by itself", |status| status.log.full.is_none())?;
    trial.look(&service, false);
    service.kill()?;
    trial.judge()?;
    trial.finish()?;
    disk.unmount()?;
    Ok(trial.phases)
}
