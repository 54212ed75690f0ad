//! Full disks: somebody else takes the last byte of the file system while lines come in, are handed out, and journals
//! roll. Taking in pauses and nothing else; the service is killed and opens on the full disk; it goes on by itself.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::campaign::{Setup, Tally};
use crate::disk::{self, Kind, SmallDisk};
use crate::phases::Phases;
use crate::places::Places;
use crate::trial::Trial;
use crate::trouble::{During, Result};
use crate::writer::Pace;

const DISK_MIB: u64 = 400;
const PACE: Pace = Pace {
    burst_lines: 100,
    breath: Duration::from_millis(10),
    rotate_lines: 6_000,
    letters_max: 400,
    poison_one_in: 0,
};

/// Runs the campaign.
pub fn run(setup: &Setup, tally: &mut Tally) {
    if let Some(why) = disk::lacks(Kind::Ext4, &setup.work) {
        return tally.skip(setup.count, &why);
    }
    let mut phases = Phases::default();
    for seed in setup.seed..setup.seed + setup.count {
        let folder = setup.folder(&format!("full-{seed}"));
        match folder.and_then(|folder| Ok((one(setup, &folder, seed)?, folder))) {
            Ok((hit, folder)) => {
                phases.sum(&hit);
                tally.pass(1);
                // Nothing is left to look at.
                let _ = fs::remove_dir_all(folder);
            }
            Err(trouble) => {
                let folder = setup.work.join(format!("full-{seed}"));
                tally.fail(&trouble, &folder, &format!("full --count 1 --seed {seed}"));
            }
        }
    }
    println!("{} full disks, seed {}; hit: {phases}", setup.count, setup.seed);
}

/// Takes every byte that is left, as a user who is not spillq would.
fn fill(path: &Path) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path).during("open the filler")?;
    for piece in [&[1; 1 << 20][..], &[1; 4096], &[1; 512]] {
        while file.write_all(piece).is_ok() {}
    }
    Ok(())
}

fn one(setup: &Setup, folder: &Path, seed: u64) -> Result<Phases> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let disk = SmallDisk::new(folder, Kind::Ext4, DISK_MIB)?;
    // More is to stay free than the reserve gives back: lines never take its room.
    let room = "min_free = \"96MiB\"\nreserve = \"64MiB\"";
    let places = Places { data_dir: disk.mount.join("q"), room, ..Places::below(folder) };
    let mut trial = Trial::new(&setup.program, places, seed, 3, PACE)?;
    trial.work();
    let filler = disk.mount.join("filler");
    let mut service = trial.start()?;
    service.wait("it is ready", |_| true)?;
    let until = Instant::now() + Duration::from_millis(rng.u64(..2_000));
    let last = trial.watch(&mut service, until, &mut rng, |_| false)?;
    trial.phases.add(last.as_ref());
    fill(&filler)?;
    let idle = |status: &crate::service::Status| {
        status.log.full.is_some() && status.groups.iter().all(|group| group.lag_lines == 0)
    };
    service.wait("taking in pauses, and what is there is worked off", idle)?;
    trial.look(&service, false);
    service.kill()?;
    trial.judge()?;
    // A reserve that was given back while it ran is in use, and no reserve any more: what is left of it is not
    // taken. One that is still held has to do for opening.
    if trial.places.data_dir.join("RESERVE").exists() {
        fill(&filler)?;
    }
    let mut service = trial.start()?;
    service.wait("it opens on the full disk, and waits", idle)?;
    trial.look(&service, true);
    fs::remove_file(&filler).during("remove the filler")?;
    service.wait("it goes on by itself", |status| status.log.full.is_none())?;
    trial.look(&service, false);
    service.kill()?;
    trial.judge()?;
    trial.finish()?;
    disk.unmount()?;
    Ok(trial.phases)
}
