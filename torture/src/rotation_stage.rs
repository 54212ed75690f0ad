//! One case of `logrotate`: writers at work, the service up or down, and logrotate in between.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::time::{ClockId, clock_gettime};

use crate::account::{self, Account, Kept};
use crate::campaign::Setup;
use crate::disk::{Kind, SmallDisk};
use crate::need;
use crate::recorded::{self, Recorded};
use crate::reopen::{Behaviour, Reopeners, signal};
use crate::rotation_case::{Case, Seen};
use crate::rotation_mode::Mode;
use crate::service::{Program, Service, Status, run, tool, wait_for};
use crate::trial::told;
use crate::trouble::{During, Result, Trouble};

/// Where Debian's package has it: PATH has no such folder for users.
pub const LOGROTATE: &str = "/usr/sbin/logrotate";
const SOURCES: u32 = 3;
/// Of the other device.
const DISK_MIB: u64 = 64;

/// The paths of a case.
struct Places {
    folder: PathBuf,
    data_dir: PathBuf,
    logs: PathBuf,
    olddir: PathBuf,
}

impl Places {
    fn config(&self) -> String {
        let Places { folder, data_dir, logs, olddir } = self;
        // Lines stay for the judge; a file that is gone is not waited for longer than the case needs.
        format!(
            r#"data_dir = {data_dir:?}
[disk]
min_free = "16MiB"
reserve = "8MiB"
keep = "24h"
[[follow]]
include = ["{logs}/w*.log*", "{olddir}/w*.log*"]
rotate_wait = "2s"
[[group]]
name = "record"
[[processor]]
group = "record"
kind = "file"
path = "{folder}/recorded"
"#,
            logs = logs.display(),
            olddir = olddir.display(),
            folder = folder.display(),
        )
    }
}

/// One running case.
pub struct Stage {
    program: Program,
    case: Case,
    seed: u64,
    rng: fastrand::Rng,
    places: Places,
    /// The other device.
    disk: Option<SmallDisk>,
    writers: Reopeners,
    /// None while it is down.
    service: Option<Service>,
    recorded: Recorded,
    rotations: u64,
    /// Lines of each writer before the last rotation.
    before: Vec<u64>,
    last_second: i64,
    kills: u64,
    stops: u64,
}

impl Stage {
    /// Makes the folders and the configurations, and starts the writers.
    pub fn new(setup: &Setup, folder: &Path, seed: u64, case: Case) -> Result<Stage> {
        let disk =
            case.mode.is_elsewhere().then(|| SmallDisk::new(folder, Kind::Ext4, DISK_MIB)).transpose()?;
        let olddir = disk.as_ref().map_or(folder.join("old"), |disk| disk.mount.join("old"));
        let places = Places {
            folder: folder.to_owned(),
            data_dir: folder.join("q"),
            logs: folder.join("logs"),
            olddir,
        };
        for path in [&places.logs, &places.olddir] {
            fs::create_dir_all(path).during("make a folder of followed files")?;
        }
        fs::write(folder.join("spillq.toml"), places.config()).during("write the configuration")?;
        let signals: Vec<String> =
            (0..SOURCES).map(|source| signal(folder, source).display().to_string()).collect();
        let is_root = need::root().is_none();
        let text = case.mode.config(&places.logs, &places.olddir, is_root, &signals);
        fs::write(folder.join("logrotate.conf"), text).during("write the configuration of logrotate")?;
        let behaviour = Behaviour {
            run: seed,
            may_be_late: case.writers_may_be_late(),
            in_parts: !case.mode.truncates(),
        };
        Ok(Stage {
            program: setup.program.clone(),
            case,
            seed,
            rng: fastrand::Rng::with_seed(seed),
            writers: Reopeners::start(behaviour, SOURCES, &places.logs, folder)?,
            recorded: Recorded::new(folder.join("recorded")),
            places,
            disk,
            service: None,
            rotations: 0,
            before: vec![0; SOURCES as usize],
            last_second: 0,
            kills: 0,
            stops: 0,
        })
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = self.program.service(&self.places.folder);
        command.args(more);
        command
    }

    fn start(&mut self) -> Result<()> {
        if self.service.is_none() {
            let messages = self.places.folder.join("messages");
            self.service = Some(Service::start(self.command(&[]), &self.places.data_dir, &messages)?);
        }
        Ok(())
    }

    /// How often something is done.
    pub fn rounds(&mut self) -> u64 {
        self.rng.u64(2..=4)
    }

    /// A rotation while the service runs.
    pub fn rotate_running(&mut self) -> Result<()> {
        self.start()?;
        self.write_on()?;
        if self.case.mode.deletes() || self.case.mode.moves() || self.rng.bool() {
            self.all_seen()?;
        }
        self.rotate()
    }

    /// A rotation while it runs, perhaps; then it stops or is killed, and files are rotated once or twice meanwhile.
    pub fn rotate_stopped(&mut self) -> Result<()> {
        self.start()?;
        self.write_on()?;
        if self.rng.bool() {
            self.all_seen()?;
            self.rotate()?;
            self.write_on()?;
        }
        if self.case.mode.moves() || self.rng.bool() {
            self.all_seen()?;
        }
        self.down()?;
        let rotations = if self.case.mode.moves() { 1 } else { self.rng.u64(1..=2) };
        for _ in 0..rotations {
            self.write_on()?;
            self.rotate()?;
        }
        self.write_on()
    }

    fn down(&mut self) -> Result<()> {
        let Some(service) = self.service.take() else { return Ok(()) };
        // One that does not answer yet may die by SIGTERM as well.
        if self.rng.bool() || service.status().is_none() {
            self.kills += 1;
            return service.kill();
        }
        self.stops += 1;
        service.stop_cleanly()
    }

    /// Waits until `is_so`, while the writers and the service run.
    fn wait(&mut self, what: &str, mut is_so: impl FnMut(&mut Stage) -> Result<bool>) -> Result<()> {
        let found = wait_for(|| match self.is_well().and_then(|()| is_so(self)) {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(trouble) => Some(Err(trouble)),
        });
        found.unwrap_or_else(|| Err(Trouble::new(format!("I8 never: {what}"))))
    }

    fn is_well(&mut self) -> Result<()> {
        if self.writers.has_failed() {
            return Err(Trouble::new("a writer ended by itself"));
        }
        match self.service.as_mut().map(Service::ended).transpose()?.flatten() {
            Some(status) => Err(Trouble::new(format!("the service ended by itself with {status}"))),
            None => Ok(()),
        }
    }

    /// The first line of each writer after the last rotation, once it writes to the next file.
    fn first_lines(&self) -> Option<Vec<u64>> {
        if self.case.mode.truncates() {
            Some(self.before.clone())
        } else {
            self.writers.opened(self.rotations)
        }
    }

    /// Each writer has opened its file again, and writes some lines.
    fn write_on(&mut self) -> Result<()> {
        let more = self.rng.u64(1..40);
        self.wait("writers write to the files after the rotation", |stage| {
            let lines = stage.writers.lines();
            let first = stage.first_lines();
            Ok(first.is_some_and(|first| first.iter().zip(lines).all(|(first, lines)| lines >= first + more)))
        })
    }

    /// The service has read a line of the file that each writer has open.
    fn all_seen(&mut self) -> Result<()> {
        self.start()?;
        self.wait("a line of each file is recorded", |stage| {
            stage.recorded.read()?;
            let recorded = &stage.recorded.next;
            let is_there =
                |(source, first): (u32, &u64)| recorded.get(&source).is_some_and(|next| next > first);
            Ok(stage.first_lines().is_some_and(|first| (0..).zip(&first).all(is_there)))
        })
    }

    /// One forced rotation of all files.
    fn rotate(&mut self) -> Result<()> {
        if self.case.mode.is_dated() {
            let last = self.last_second;
            self.wait("the next second", |_| Ok(second() > last))?;
        }
        let path = |name: &str| self.places.folder.join(name).display().to_string();
        tool(LOGROTATE, &["-f", "-s", &path("logrotate.state"), &path("logrotate.conf")])?;
        (self.last_second, self.rotations) = (second(), self.rotations + 1);
        self.before = self.writers.lines();
        let expected =
            if self.case.mode == Mode::RotateZero { 0 } else { self.rotations * u64::from(SOURCES) };
        let files = self.rotated()?.len() as u64;
        if files != expected {
            return Err(Trouble::new(format!(
                "logrotate left {files} rotated files, {expected} were expected"
            )));
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for folder in [&self.places.logs, &self.places.olddir] {
            for entry in fs::read_dir(folder).during("list followed files")? {
                files.push(entry.during("list followed files")?.path());
            }
        }
        Ok(files)
    }

    fn rotated(&self) -> Result<Vec<PathBuf>> {
        let mut files = self.files()?;
        files.retain(|path| path.extension().is_none_or(|end| end != "log"));
        Ok(files)
    }

    /// The lines in files, once nothing writes or rotates any more.
    fn kept(&self) -> Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for path in self.files()? {
            let name = path.display().to_string();
            let text = match path.extension() {
                Some(end) if end == "gz" => tool("gzip", &["-dc", &name])?,
                _ => fs::read_to_string(&path).during(&name)?,
            };
            kept.extend(recorded::lines(&text));
        }
        Ok(kept)
    }

    /// Everything in files is recorded, and no file is waited for any more.
    fn settle(&mut self, kept: &[Kept]) -> Result<Status> {
        let ends = recorded::ends(kept);
        self.wait("everything in files is recorded", |stage| {
            stage.recorded.read()?;
            let next = &stage.recorded.next;
            Ok(ends.iter().all(|(source, end)| next.get(source).is_some_and(|next| next >= end)))
        })?;
        let Some(service) = self.service.as_mut() else { return Err(Trouble::new("the service is down")) };
        service.wait("no file is read or waited for", |status| {
            status.sources.iter().all(|source| source.state == "caught_up")
                && status.groups.iter().all(|group| group.lag_lines == 0)
        })
    }

    /// Lets the service read what there is, and once more with `--once`, which ends when nothing is left to decide.
    pub fn end(mut self) -> Result<Seen> {
        self.write_on()?;
        self.start()?;
        let sent = self.writers.end()?;
        let kept = self.kept()?;
        let status = self.settle(&kept)?;
        let Some(service) = self.service.take() else { return Err(Trouble::new("the service is down")) };
        service.stop_cleanly()?;
        let again = run(self.command(&["--once"]))?;
        if again.code != 0 {
            return Err(Trouble::new(format!("I9 `run --once` ended with {}: {}", again.code, again.err)));
        }
        let losses = &status.losses;
        if losses.lost_lines + losses.dropped_lines > 0 {
            return Err(Trouble::new(format!("I9 losses of the log: {losses:?}")));
        }
        let messages = fs::read_to_string(self.places.folder.join("messages")).during("read the messages")?;
        let (sum, broken) = account::judge(&Account {
            run: self.seed,
            sent,
            kept,
            stored: recorded::stored(&self.program, &self.places.data_dir)?,
            recorded: self.recorded.text()?,
            counted: recorded::counted(&(messages + &again.err))?,
            loss: self.case.loss(),
            may_lose_sight: self.case.may_lose_sight(),
            rotations: self.rotations,
        });
        told(broken)?;
        if let Some(disk) = &self.disk {
            disk.unmount()?;
        }
        let Stage { case, rotations, kills, stops, writers, .. } = self;
        Ok(Seen { case, rotations, late: writers.late(), kills, stops, sum })
    }
}

/// The second that logrotate sees: the clock of `time`, which is up to a tick late.
fn second() -> i64 {
    clock_gettime(ClockId::RealtimeCoarse).tv_sec
}
