//! The out-of-memory killer: the service and its children share a memory cgroup with a process that takes memory until
//! something has to go, at any moment. The service and its children offer themselves (`oom_score_adj`), so the largest
//! of them is chosen: the service.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::campaign::{Setup, Tally};
use crate::need;
use crate::phases::Phases;
use crate::places::Places;
use crate::service::wait_for;
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::writer::Pace;

/// Kills of one store.
const KILLS_A_STORE: u64 = 25;
/// Of the cgroup: above what the service promises to stay below.
const LIMIT_BYTES: u64 = 160 << 20;
const PACE: Pace = Pace {
    burst_lines: 100,
    breath: Duration::from_millis(10),
    rotate_lines: 6_000,
    letters_max: 400,
    poison_one_in: 9_973,
};

/// A memory cgroup of version 1 or 2.
struct MemoryGroup {
    folder: PathBuf,
    kills: &'static str,
}

impl MemoryGroup {
    /// Where one can be made here.
    fn place() -> std::result::Result<(PathBuf, &'static str, &'static str), String> {
        let one = Path::new("/sys/fs/cgroup/memory");
        if one.join("memory.limit_in_bytes").exists() {
            return Ok((one.to_owned(), "memory.limit_in_bytes", "memory.oom_control"));
        }
        let two = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_to_string(two.join("cgroup.subtree_control")).unwrap_or_default();
        if controllers.split_whitespace().any(|name| name == "memory") {
            return Ok((two.to_owned(), "memory.max", "memory.events"));
        }
        Err("it needs a memory cgroup, of version 1, or enabled for children in version 2".to_owned())
    }

    fn new(name: &str) -> Result<MemoryGroup> {
        let (root, limit, kills) = MemoryGroup::place().map_err(Trouble::new)?;
        let folder = root.join(name);
        fs::create_dir_all(&folder).during("make a cgroup")?;
        fs::write(folder.join(limit), LIMIT_BYTES.to_string()).during("limit a cgroup")?;
        Ok(MemoryGroup { folder, kills })
    }

    /// Processes that the kernel has killed in it.
    fn kills(&self) -> Result<u64> {
        let text = fs::read_to_string(self.folder.join(self.kills)).during("read a cgroup's kills")?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| Trouble::new("the cgroup does not count kills"))
    }

    /// The command, run in it, with this inclination to be killed.
    fn wrap(&self, inner: &Command, inclined: u32) -> Command {
        let mut command = Command::new("sh");
        let script = format!("echo {inclined} > /proc/self/oom_score_adj && echo $$ > \"$0\" && exec \"$@\"");
        let procs = self.folder.join("cgroup.procs").display().to_string();
        command.args(["-c", &script, &procs]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Empty as soon as the kernel has reaped everything in it.
        let _ = wait_for(|| fs::remove_dir(&self.folder).ok());
    }
}

/// Takes memory until it is killed.
pub fn hog() -> std::io::Result<u8> {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    while (taken.len() as u64) << 20 < 2 * LIMIT_BYTES {
        taken.push(vec![1; 1 << 20]);
    }
    // Held until the driver ends it.
    loop {
        std::thread::sleep(Duration::from_secs(taken.len() as u64));
    }
}

/// Ended with its owner.
struct Hog(Child);

impl Drop for Hog {
    fn drop(&mut self) {
        // Gone already where the kernel found no other way.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the campaign.
pub fn run(setup: &Setup, tally: &mut Tally) {
    if let Some(why) = need::root().or_else(|| MemoryGroup::place().err()) {
        return tally.skip(setup.count, &why);
    }
    let mut phases = Phases::default();
    for (seed, done) in (setup.seed..).zip((0..setup.count).step_by(KILLS_A_STORE as usize)) {
        let kills = KILLS_A_STORE.min(setup.count - done);
        let name = format!("oom-{seed}");
        match setup.folder(&name).and_then(|folder| Ok((one(setup, &folder, seed, kills)?, folder))) {
            Ok((hit, folder)) => {
                phases.sum(&hit);
                tally.pass(kills);
                // Nothing is left to look at.
                let _ = fs::remove_dir_all(folder);
            }
            Err(trouble) => {
                tally.fail(&trouble, &setup.work.join(name), &format!("oom --count {kills} --seed {seed}"));
            }
        }
    }
    println!("{} out-of-memory kills, seed {}; hit: {phases}", setup.count, setup.seed);
}

fn one(setup: &Setup, folder: &Path, seed: u64, kills: u64) -> Result<Phases> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let group = MemoryGroup::new(&format!("torture-{}-{seed}", std::process::id()))?;
    let mut trial = Trial::new(&setup.program, Places::below(folder), seed, 3, PACE)?;
    trial.work();
    let mut hog = Command::new(std::env::current_exe().during("find this program")?);
    hog.arg("hog");
    for kill in 0..kills {
        let before = group.kills()?;
        let mut service = trial.start_as(group.wrap(&trial.command(), 1000))?;
        let until = Instant::now() + Duration::from_millis(rng.u64(..600));
        let last = trial.watch(&mut service, until, &mut rng, |_| false)?;
        trial.phases.add(last.as_ref());
        let hog = Hog(group.wrap(&hog, 0).spawn().during("start what takes memory")?);
        let ended = wait_for(|| service.ended().ok().flatten());
        drop(hog);
        let killed = group.kills()? - before;
        if killed == 0 || ended.is_none_or(|status| status.code().is_some()) {
            return Err(Trouble::new(format!(
                "kill {}: {killed} processes killed, the service: {ended:?}",
                kill + 1
            )));
        }
        trial.judge().during(format!("after kill {}", kill + 1))?;
        if rng.u8(..4) == 0 && last.is_some() {
            trial.judge_disk().during(format!("on disk, after kill {}", kill + 1))?;
        }
    }
    trial.finish().during("at the end")?;
    Ok(trial.phases)
}
