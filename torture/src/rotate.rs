//! Rotation of every kind under the real service, with kills in between: partial lines, rename, copy-truncate, truncate,
//! delete, re-create on the same inode, gzip.
//!
//! Steps that destroy lines are done when all of them are in the log, so that nothing may be missing in the end. The other
//! steps are done at any time, also while the service is down. Files that cannot be distinguished
//! (`docs/explanation/tail.md`) are not made: lines are unique, and a copy is compressed only after it was read.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::campaign::{Setup, Tally};
use crate::need;
use crate::phases::Phases;
use crate::places::Places;
use crate::service::{Service, tool};
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;
use crate::writer::{Pace, Writer};

/// Steps of one store; then everything is finished and judged.
const STEPS_A_STORE: u64 = 150;
const SOURCES: u32 = 3;
/// A file that was never seen is ordered by its time, so two are never written in one tick of the kernel's clock.
const TICK: Duration = Duration::from_millis(12);
const PACE: Pace =
    Pace { burst_lines: 0, breath: Duration::ZERO, rotate_lines: 0, letters_max: 400, poison_one_in: 9_973 };

/// How often each step was done.
#[derive(Clone, Copy, Debug, Default)]
struct Steps {
    written: u64,
    half_lines: u64,
    renamed: u64,
    copied: u64,
    truncated: u64,
    deleted: u64,
    same_inode: u64,
    compressed: u64,
    kills: u64,
    while_down: u64,
}

impl Steps {
    fn sum(&mut self, other: &Steps) {
        let Steps { written, half_lines, renamed, copied, truncated, .. } = other;
        self.written += written;
        self.half_lines += half_lines;
        self.renamed += renamed;
        self.copied += copied;
        self.truncated += truncated;
        let Steps { deleted, same_inode, compressed, kills, while_down, .. } = other;
        self.deleted += deleted;
        self.same_inode += same_inode;
        self.compressed += compressed;
        self.kills += kills;
        self.while_down += while_down;
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Steps { written, half_lines, renamed, copied, truncated, .. } = self;
        let Steps { deleted, same_inode, compressed, kills, while_down, .. } = self;
        write!(
            f,
            "{}, {half_lines} of them ended in half a line; {} renamed, {copied} copied and truncated, {truncated} truncated, {deleted} deleted, {same_inode} made again on the same inode, {compressed} compressed; {}, {} while it was down",
            counted(*written, "burst"),
            counted(*renamed, "file"),
            counted(*kills, "kill"),
            counted(*while_down, "step")
        )
    }
}

/// Runs the campaign.
pub fn run(setup: &Setup, tally: &mut Tally) {
    if let Some(why) = need::tools(&["gzip", "cp"]) {
        return tally.skip(setup.count, &why);
    }
    let seen =
        setup.stores("rotate", STEPS_A_STORE, tally, |folder, seed, count| one(setup, folder, seed, count));
    let phases: Phases = seen.iter().map(|(_, hit, _)| *hit).sum();
    let lines: u64 = seen.iter().map(|(.., lines)| lines).sum();
    let mut steps = Steps::default();
    seen.iter().for_each(|(did, ..)| steps.sum(did));
    let (count, lines) = (counted(setup.count, "step"), counted(lines, "line"));
    println!("{count}, seed {}, {lines}: {steps}; hit: {phases}", setup.seed);
}

fn one(setup: &Setup, folder: &Path, seed: u64, count: u64) -> Result<(Steps, Phases, u64)> {
    let trial = Trial::new(&setup.program, Places::below(folder), seed, SOURCES, PACE)?;
    let mut stage = Stage {
        trial,
        service: None,
        rng: fastrand::Rng::with_seed(seed),
        owed: vec![Vec::new(); SOURCES as usize],
        rotated: Vec::new(),
        steps: Steps::default(),
    };
    for step in 0..count {
        stage.step().during(format!("step {}", step + 1))?;
        std::thread::sleep(TICK);
    }
    for source in 0..SOURCES as usize {
        stage.pay(source)?;
    }
    stage.kill()?;
    let Stage { mut trial, steps, .. } = stage;
    let (lines, _) = trial.finish().during("at the end")?;
    Ok((steps, trial.phases, lines))
}

/// A file that was rotated away, not compressed.
struct Rotated {
    path: PathBuf,
    is_copy: bool,
}

struct Stage {
    trial: Trial,
    /// None while it is down.
    service: Option<Service>,
    rng: fastrand::Rng,
    /// Of each source: the rest of its last line.
    owed: Vec<Vec<u8>>,
    rotated: Vec<Rotated>,
    steps: Steps,
}

impl Stage {
    fn step(&mut self) -> Result<()> {
        let source = self.rng.usize(..SOURCES as usize);
        self.steps.while_down += u64::from(self.service.is_none());
        match self.rng.u8(..24) {
            0..=8 => self.write(source),
            9..=11 => self.rename(source),
            12..=13 => self.copy_and_truncate(source),
            14 => self.truncate(source),
            15 => self.delete(source),
            16 => self.make_again(source),
            17..=19 => self.pack(),
            20..=21 => self.kill(),
            _ => self.look(),
        }
    }

    fn writer(&mut self, source: usize) -> Result<&mut Writer> {
        self.trial.resting().get_mut(source).ok_or_else(|| Trouble::new("there is no such writer"))
    }

    fn path(&mut self, source: usize) -> Result<PathBuf> {
        self.writer(source).map(|writer| writer.path())
    }

    /// Writes some lines; the last may be half a line.
    fn write(&mut self, source: usize) -> Result<()> {
        let (lines, is_half) = (self.rng.u64(1..400), self.rng.bool());
        let path = self.path(source)?;
        let mut bytes = self.owed.get_mut(source).map(std::mem::take).unwrap_or_default();
        self.writer(source)?.burst(lines, &mut bytes);
        let end = bytes.len().saturating_sub(1);
        let last = bytes.iter().take(end).rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = if is_half { bytes.split_off(self.rng.usize(last..=end)) } else { Vec::new() };
        self.steps.written += 1;
        self.steps.half_lines += u64::from(!rest.is_empty());
        if let Some(owed) = self.owed.get_mut(source) {
            *owed = rest;
        }
        append(&path, &bytes)
    }

    /// The last line gets its end.
    fn pay(&mut self, source: usize) -> Result<()> {
        let path = self.path(source)?;
        match self.owed.get_mut(source).map(std::mem::take) {
            Some(rest) if !rest.is_empty() => append(&path, &rest),
            _ => Ok(()),
        }
    }

    /// Renamed away; its writer, which has it open, ends its last line after that.
    fn rename(&mut self, source: usize) -> Result<()> {
        let path = self.path(source)?;
        let Ok(file) = OpenOptions::new().append(true).open(&path) else { return Ok(()) };
        let rest = self.owed.get_mut(source).map(std::mem::take).unwrap_or_default();
        let to = self.writer(source)?.begin_file();
        fs::rename(&path, &to).during("rename a followed file")?;
        if !rest.is_empty() {
            std::thread::sleep(Duration::from_millis(self.rng.u64(..100)));
            (&file).write_all(&rest).during("end a line of a file that was renamed")?;
        }
        self.rotated.push(Rotated { path: to, is_copy: false });
        self.steps.renamed += 1;
        Ok(())
    }

    fn copy_and_truncate(&mut self, source: usize) -> Result<()> {
        self.pay(source)?;
        let path = self.path(source)?;
        if fs::metadata(&path).map_or(0, |meta| meta.len()) == 0 {
            return Ok(());
        }
        let to = self.writer(source)?.begin_file();
        fs::copy(&path, &to).during("copy a followed file")?;
        File::options().write(true).truncate(true).open(&path).during("truncate a followed file")?;
        self.rotated.push(Rotated { path: to, is_copy: true });
        self.steps.copied += 1;
        Ok(())
    }

    fn truncate(&mut self, source: usize) -> Result<()> {
        self.all_read()?;
        let path = self.path(source)?;
        let Ok(file) = OpenOptions::new().write(true).open(&path) else { return Ok(()) };
        file.set_len(0).during("truncate a followed file")?;
        self.writer(source)?.begin_file();
        self.steps.truncated += 1;
        Ok(())
    }

    /// The file, and those that were rotated away.
    fn delete(&mut self, source: usize) -> Result<()> {
        self.all_read()?;
        let path = self.path(source)?;
        let gone: Vec<Rotated> = self.rotated.drain(..).collect();
        for Rotated { path, .. } in gone {
            fs::remove_file(path).during("delete a rotated file")?;
            self.steps.deleted += 1;
        }
        if path.exists() {
            fs::remove_file(&path).during("delete a followed file")?;
            self.writer(source)?.begin_file();
            self.steps.deleted += 1;
        }
        Ok(())
    }

    /// Deleted while the service is down, so that the next file may get its inode.
    fn make_again(&mut self, source: usize) -> Result<()> {
        self.all_read()?;
        let path = self.path(source)?;
        let Ok(before) = fs::metadata(&path) else { return Ok(()) };
        self.kill()?;
        fs::remove_file(&path).during("delete a followed file")?;
        self.writer(source)?.begin_file();
        self.write(source)?;
        let after = fs::metadata(&path).during("look at a file made again")?;
        self.steps.deleted += 1;
        self.steps.same_inode += u64::from(after.ino() == before.ino());
        Ok(())
    }

    fn pack(&mut self) -> Result<()> {
        if self.rotated.is_empty() {
            return Ok(());
        }
        let at = self.rng.usize(..self.rotated.len());
        let Rotated { path, is_copy } = self.rotated.swap_remove(at);
        if is_copy {
            self.all_read()?;
        }
        tool("gzip", &[&path.display().to_string()])?;
        self.steps.compressed += 1;
        Ok(())
    }

    fn start(&mut self) -> Result<&mut Service> {
        let service = match self.service.take() {
            Some(service) => service,
            None => self.trial.start()?,
        };
        Ok(self.service.insert(service))
    }

    /// Everything written is in the log afterwards, whether the service runs or not.
    fn all_read(&mut self) -> Result<()> {
        for source in 0..SOURCES as usize {
            self.pay(source)?;
        }
        let total: u64 = self.trial.resting().iter().map(Writer::lines).sum();
        let service = self.start()?;
        service.wait("all lines are in the log", |status| status.log.next_seq > total).map(drop)
    }

    fn kill(&mut self) -> Result<()> {
        let Some(service) = self.service.take() else { return Ok(()) };
        let last = self.trial.look(&service, false);
        self.trial.phases.add(last.as_ref());
        service.kill()?;
        self.steps.kills += 1;
        self.trial.judge()?;
        if last.is_some() && self.rng.u8(..3) == 0 { self.trial.judge_disk() } else { Ok(()) }
    }

    /// The service runs for a while.
    fn look(&mut self) -> Result<()> {
        let until = Instant::now() + Duration::from_millis(self.rng.u64(20..600));
        self.start()?;
        let Some(mut service) = self.service.take() else { return Ok(()) };
        self.trial.watch(&mut service, until, &mut self.rng, |_| false)?;
        self.service = Some(service);
        Ok(())
    }
}

fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path).during("open a followed file")?;
    file.write_all(bytes).during("write a followed file")
}
