//! Power cuts of a block device, state by state: everything that is written to it is logged, and replayed up to any
//! flush, with any of what followed that flush, whole or torn.
//!
//! `qemu-storage-daemon` exports the device through FUSE with `blklogwrites` under it; a loop device on that carries
//! ext4 and the store. What `status` answered is kept with the place of the log by then: a state from that place on
//! must contain it. In one state of four the service also ingests the rest, and has every line in the end.
//!
//! With `--followed` the followed files are on the device, and lose what the cut takes. Settled segments are retained then, and
//! every state compares the log with the files.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::syncfs;

use crate::campaign::{Setup, Tally};
use crate::device::{self, Device};
use crate::left::{self, Seen};
use crate::oracle::{History, Observation};
use crate::places::Places;
use crate::service::tool;
use crate::shutdown::Neighbour;
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;
use crate::writer::Pace;

/// States of one recording.
const STATES_A_RECORDING: u64 = 250;
/// Runs of the service that are recorded, a kill between them.
const RUNS: u64 = 3;
const DISK_MIB: u64 = 300;
/// Of the other process: everything that it writes is logged and replayed.
const BREATH: Duration = Duration::from_millis(20);
/// The log of writes is sparse.
const LOG_BYTES: u64 = 8 << 30;
const SECTOR: u64 = 512;
/// Flags of an entry: it was a flush, or it has no data.
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
const PACE: Pace = Pace {
    burst_lines: 50,
    breath: Duration::from_millis(15),
    rotate_lines: 4_000,
    letters_max: 400,
    poison_one_in: 997,
};
/// Enough for files to have a resume point.
const LONG_FILES: Pace = Pace { rotate_lines: 8_000, ..PACE };
const ROOM: &str = "min_free = \"16MiB\"\nreserve = \"8MiB\"";
const KEEPING: &str = "min_free = \"16MiB\"\nreserve = \"8MiB\"\nkeep = \"24h\"";

/// What else is on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Only the store.
    Nothing,
    /// Another process writes to the same file system.
    Neighbour,
    /// The followed files.
    Followed,
}

/// Runs the campaign.
pub fn run(setup: &Setup, beside: Beside, tally: &mut Tally) {
    if let Some(why) = device::lacks() {
        return tally.skip(setup.count, &why);
    }
    let command = match beside {
        Beside::Nothing => "power",
        Beside::Neighbour => "power --busy",
        Beside::Followed => "power --followed",
    };
    let seen = setup.stores(command, STATES_A_RECORDING, tally, |folder, seed, states| {
        one(setup, beside, folder, seed, states)
    });
    let (flushes, seen): (Vec<usize>, Vec<Seen>) = seen.into_iter().unzip();
    let flushes: usize = flushes.iter().sum();
    println!(
        "{}, {command}, seed {}, of recordings with {}",
        counted(setup.count, "crash state"),
        setup.seed,
        counted(flushes as u64, "flush")
    );
    if beside == Beside::Followed {
        println!("In all states: {}", seen.into_iter().sum::<Seen>());
    }
}

/// One write, or a flush.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where on the device, in bytes.
    to: u64,
    bytes: u64,
    flags: u64,
    /// Where its data is in the log.
    from: u64,
}

impl Entry {
    /// ext4 itself does not come back without its superblock, the second KiB: a torn one tests nothing of the store.
    fn has_superblock(&self) -> bool {
        self.to < 2048 && self.to + self.bytes > 1024
    }
}

/// The log of writes, in the format of dm-log-writes: a sector that describes it, then entries of one sector each with
/// their data behind them.
struct Log {
    file: File,
    entries: Vec<Entry>,
    end: u64,
}

impl Log {
    fn open(path: &Path) -> Result<Log> {
        let file = File::open(path).during("open the log of writes")?;
        Ok(Log { file, entries: Vec::new(), end: SECTOR })
    }

    /// Continues to read; returns how many entries there are.
    fn read(&mut self) -> Result<usize> {
        loop {
            let mut header = [0; 32];
            self.file.read_exact_at(&mut header, self.end).during("read the log of writes")?;
            let mut words =
                header.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
            let (sector, sectors, flags) = (words.next(), words.next(), words.next());
            let (Some(sector), Some(sectors), Some(flags)) = (sector, sectors, flags) else {
                return Err(Trouble::new("an entry of the log of writes is short"));
            };
            if sectors == 0 && flags == 0 {
                return Ok(self.entries.len());
            }
            let from = self.end + SECTOR;
            let bytes = sectors * SECTOR;
            self.entries.push(Entry { to: sector * SECTOR, bytes, flags, from });
            self.end = if flags & DISCARD == 0 { from + bytes } else { from };
        }
    }

    /// Does what an entry did, for the sectors that are `kept`.
    fn apply(&self, entry: &Entry, image: &File, mut kept: impl FnMut() -> bool) -> Result<()> {
        let mut sector = [0; SECTOR as usize];
        for at in (0..entry.bytes).step_by(SECTOR as usize).filter(|_| kept()) {
            if entry.flags & DISCARD == 0 {
                self.file.read_exact_at(&mut sector, entry.from + at).during("read the log of writes")?;
            }
            image.write_all_at(&sector, entry.to + at).during("replay a write")?;
        }
        Ok(())
    }
}

/// The device: its writes go to an image, and to a log of them.
fn logging(folder: &Path) -> Result<Device> {
    let [image, log] = ["image", "writes"].map(|name| folder.join(name));
    File::create(&log).and_then(|file| file.set_len(LOG_BYTES)).during("make the log of writes")?;
    let drive = |node: &str, path: &Path| format!("driver=file,node-name={node},filename={}", path.display());
    let both = "driver=blklogwrites,node-name=out,file=data,log=log".to_owned();
    Device::start(folder, DISK_MIB, &[drive("data", &image), drive("log", &log), both])
}

/// Records, and replays `states`; returns the flushes, and the results for the followed files.
fn one(setup: &Setup, beside: Beside, folder: &Path, seed: u64, states: u64) -> Result<(usize, Seen)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let [image, base, mount] = ["image", "base", "disk"].map(|name| folder.join(name));
    device::image(&image, DISK_MIB)?;
    copy(&image, &base)?;
    let mut places = Places { data_dir: mount.join("q"), room: ROOM, ..Places::below(folder) };
    let mut pace = PACE;
    if beside == Beside::Followed {
        (places.logs, places.room, pace) = (mount.join("logs"), KEEPING, LONG_FILES);
    }
    let mut trial = Trial::new(&setup.program, places, seed, 3, pace)?;
    let (mut log, promises) = record(&mut trial, beside, folder, &mut rng)?;
    log.read()?;
    let flushes: Vec<usize> = (0..log.entries.len()).filter(|at| is_flush(&log, *at)).collect();
    let mut chosen: Vec<usize> = (0..states).filter_map(|_| rng.choice(&flushes).copied()).collect();
    chosen.sort_unstable();
    let current = File::options().write(true).open(&base).during("open the image to replay on")?;
    let mut at = 0;
    let mut all = Vec::new();
    for (number, flush) in chosen.iter().enumerate() {
        while at <= *flush {
            if let Some(entry) = log.entries.get(at) {
                log.apply(entry, &current, || true)?;
            }
            at += 1;
        }
        copy(&base, &image)?;
        let torn = File::options().write(true).open(&image).during("open the image of a state")?;
        let epoch = log.entries.iter().skip(at).take_while(|entry| entry.flags & FLUSH == 0);
        // None of what followed, some of it, or some of it and that torn.
        let how = rng.u8(..4);
        for entry in epoch.filter(|_| how > 0 && rng.bool()).collect::<Vec<_>>() {
            let whole = how < 3 || entry.has_superblock();
            log.apply(entry, &torn, || whole || rng.bool())?;
        }
        drop(torn);
        let promise =
            promises.iter().take_while(|(place, _)| *place <= at).last().map(|(_, seen)| seen.clone());
        tool("mount", &["-o", "loop", &image.display().to_string(), &mount.display().to_string()])?;
        let mounted = Mounted(&mount);
        let goes_on = rng.u8(..4) == 0;
        state(setup, &mut trial, promise, beside, goes_on)
            .and_then(|seen| mounted.unmount().map(|()| all.push(seen)))
            .during(format!("state {number}: {at} writes, and variant {how} of what followed"))?;
    }
    Ok((flushes.len(), all.into_iter().sum()))
}

fn is_flush(log: &Log, at: usize) -> bool {
    log.entries.get(at).is_some_and(|entry| entry.flags & FLUSH != 0)
}

/// Runs the load on the device; returns the log and the answers, each with the number of writes logged by then.
fn record(
    trial: &mut Trial,
    beside: Beside,
    folder: &Path,
    rng: &mut fastrand::Rng,
) -> Result<(Log, Vec<(usize, Observation)>)> {
    let device = logging(folder)?;
    let mut log = Log::open(&folder.join("writes"))?;
    let mut promises = Vec::new();
    fs::create_dir_all(&trial.places.logs).during("make the logs' folder")?;
    trial.work();
    let neighbour =
        (beside == Beside::Neighbour).then(|| Neighbour::start(device.mount.join("neighbour"), BREATH));
    for _ in 0..RUNS {
        let service = trial.start()?;
        let until = Instant::now() + Duration::from_millis(rng.u64(1_000..3_000));
        while Instant::now() < until {
            if trial.look(&service, false).is_some()
                && let Some(seen) = trial.history().observed.pop()
            {
                promises.push((log.read()?, seen));
            }
            std::thread::sleep(Duration::from_millis(rng.u64(1..20)));
            // At times the followed files are written to the device, as the kernel does within half a minute.
            if beside == Beside::Followed && rng.u8(..20) == 0 {
                syncfs(File::open(&device.mount).during("open the file system")?)
                    .during("sync the file system")?;
            }
        }
        service.kill()?;
        trial.judge()?;
    }
    if let Some(error) = trial.rest()?.pop() {
        return Err(error).during("write a followed file");
    }
    neighbour.map_or(Ok(()), Neighbour::end)?;
    drop(device);
    if promises.is_empty() {
        return Err(Trouble::new("the service never answered while it was recorded"));
    }
    Ok((log, promises))
}

/// Judges one mounted state; returns the results for the followed files if they are on it.
fn state(
    setup: &Setup,
    trial: &mut Trial,
    promise: Option<Observation>,
    beside: Beside,
    goes_on: bool,
) -> Result<Seen> {
    if !trial.places.data_dir.join("MARK").exists() {
        return match promise {
            Some(seen) => Err(Trouble::new(format!(
                "I1 next seq {} was answered, but there is no store",
                seen.next_seq
            ))),
            None => Ok(Seen::default()),
        };
    }
    trial.forget(History { observed: promise.into_iter().collect(), ..History::default() });
    trial.judge_disk()?;
    let seen = match beside {
        Beside::Followed => go_on_with_what_is_left(setup, trial)?,
        _ if goes_on => go_on(setup, trial).map(|()| Seen::default())?,
        _ => Seen::default(),
    };
    let verified = setup.program.on(&trial.places.data_dir, &["verify"])?;
    if verified.code != 0 {
        return Err(Trouble::new(format!("I9 verify ended with {}: {}", verified.code, verified.out)));
    }
    trial.judge().map(|()| seen)
}

/// Ingests everything that the followed files have; returns the messages.
fn take_in(setup: &Setup, trial: &Trial) -> Result<String> {
    let config = trial.places.folder.join("taking-in.toml");
    let Places { logs, room, .. } = &trial.places;
    let text = format!("[disk]\n{room}\n[[follow]]\ninclude = [\"{}/w*.log*\"]\n", logs.display());
    fs::write(&config, text).during("write a configuration")?;
    let config = config.display().to_string();
    let ended = setup.program.on(&trial.places.data_dir, &["run", "--once", "--config", &config])?;
    match ended.code {
        0 => Ok(ended.err),
        code => Err(Trouble::new(format!("I9 it ended with {code}: {}", ended.err))),
    }
}

/// The followed files lost nothing: all their lines get into the log, each once.
fn go_on(setup: &Setup, trial: &mut Trial) -> Result<()> {
    take_in(setup, trial)?;
    trial.judge_disk()?;
    let total: u64 = trial.resting().iter().map(|writer| writer.lines()).sum();
    match trial.history().observed.last().map(|seen| seen.next_seq) {
        Some(next) if next == total + 1 => Ok(()),
        next => {
            Err(Trouble::new(format!("I4 written: {}, but next seq is {next:?}", counted(total, "line"))))
        }
    }
}

/// The followed files lost what the cut took.
fn go_on_with_what_is_left(setup: &Setup, trial: &mut Trial) -> Result<Seen> {
    let Places { data_dir, logs, .. } = trial.places.clone();
    left::mend(&logs)?;
    let before = left::logged(&setup.program, &data_dir)?;
    let said = take_in(setup, trial)?;
    let after = left::logged(&setup.program, &data_dir)?;
    left::judge(&before, &after, &left::look(&logs)?, &said)
}

/// Unmounted when it is dropped, at the latest.
struct Mounted<'p>(&'p Path);

impl Mounted<'_> {
    fn unmount(&self) -> Result<()> {
        tool("umount", &[&self.0.display().to_string()]).map(drop)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Done already if all succeeded.
        let _ = Command::new("umount").arg(self.0).stderr(Stdio::null()).status();
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    tool("cp", &["--sparse=always", &from.display().to_string(), &to.display().to_string()]).map(drop)
}
