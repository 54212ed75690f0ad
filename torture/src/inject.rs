//! A fault at each system call of a short run in turn: a SIGKILL on the way into it, or an error in its place.
//!
//! strace injects it (`-e inject=CALL:…:when=K`); it counts the calls of each thread separately. A run of 1,000 lines,
//! enough for a large commit, is traced once to find how many calls of each kind a thread makes; each of them is a case.
//! There are two stages: a store that is made, and one that a kill has left, which is recovered.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::campaign::{Setup, Tally};
use crate::need;
use crate::oracle::History;
use crate::places::Places;
use crate::service::tool;
use crate::trial::Trial;
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;
use crate::writer::Pace;

/// Calls that write, sync, or change a folder.
const CALLS: &[&str] = &[
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "fallocate",
    "ftruncate",
    "rename",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "linkat",
];
/// Calls that fail; not `write`, which goes to sockets and event descriptors, where such errors do not occur.
const FAILING: &[&str] = &[
    "pwrite64",
    "pwritev",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "fallocate",
    "ftruncate",
    "rename",
    "unlink",
    "unlinkat",
    "mkdir",
];
/// Lines of the run.
const LINES: u64 = 1_000;
const PACE: Pace = Pace {
    burst_lines: LINES,
    breath: std::time::Duration::ZERO,
    rotate_lines: 0,
    letters_max: 200,
    poison_one_in: 0,
};

/// What is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is gone.
    Kill,
    /// The call fails: EIO or ENOSPC.
    Error(&'static str),
}

#[derive(Clone, Debug)]
struct Case {
    recover: bool,
    call: &'static str,
    when: u64,
    fault: Fault,
}

impl Case {
    fn name(&self) -> String {
        let stage = if self.recover { "recover" } else { "create" };
        let fault = match self.fault {
            Fault::Kill => "KILL",
            Fault::Error(error) => error,
        };
        format!("{stage}:{}:{}:{fault}", self.call, self.when)
    }
}

/// Runs the campaign; `only` is the name of the one case to repeat.
pub fn run(setup: &Setup, faults: &[Fault], command: &str, only: Option<&str>, tally: &mut Tally) {
    if let Some(why) = need::tools(&["strace"]) {
        return tally.skip(setup.count, &why);
    }
    let ended = setup.folder(&command.replace([' ', '-'], "")).and_then(|folder| {
        let mut stages = [Stage::new(setup, &folder, false)?, Stage::new(setup, &folder, true)?];
        let mut cases = Vec::new();
        for stage in &mut stages {
            cases.extend(stage.cases(faults)?);
        }
        let all = cases.len();
        fastrand::Rng::with_seed(setup.seed).shuffle(&mut cases);
        if let Some(only) = only {
            cases.retain(|case| case.name() == only);
        }
        cases.truncate(usize::try_from(setup.count).unwrap_or(usize::MAX));
        println!("{} of {}, seed {}", cases.len(), counted(all as u64, "case"), setup.seed);
        Ok((folder, stages, cases))
    });
    let (folder, mut stages, cases) = match ended {
        Ok(prepared) => prepared,
        Err(trouble) => return tally.fail(&trouble, &setup.work, command),
    };
    let mut hit: BTreeMap<String, u64> = BTreeMap::new();
    for case in cases {
        let [create, recover] = &mut stages;
        let stage = if case.recover { recover } else { create };
        match stage.one(&case) {
            Ok(how) => {
                *hit.entry(how).or_default() += 1;
                tally.pass(1);
            }
            Err(trouble) => {
                // Later cases use the folder again.
                let kept = setup.work.join(format!("failed-{}", case.name().replace(':', "-")));
                let kept = fs::rename(&stage.trial.places.folder, &kept).map_or(folder.clone(), |()| kept);
                tally.fail(
                    &trouble,
                    &kept,
                    &format!("{command} --count 1 --seed {} --only {}", setup.seed, case.name()),
                );
            }
        }
    }
    for (how, count) in hit {
        println!("{count:6} {how}");
    }
    let _ = fs::remove_dir_all(folder);
}

/// A state with which cases begin.
struct Stage {
    recover: bool,
    trial: Trial,
    /// A copy of the folder at the beginning of the stage.
    template: PathBuf,
    history: History,
}

impl Stage {
    fn new(setup: &Setup, folder: &Path, recover: bool) -> Result<Stage> {
        let name = if recover { "recover" } else { "create" };
        let mut trial = Trial::new(&setup.program, Places::below(&folder.join(name)), setup.seed, 1, PACE)?;
        let write = |trial: &mut Trial, lines| {
            trial.resting().iter_mut().try_for_each(|writer| writer.write(lines, false)).during("write lines")
        };
        if recover {
            write(&mut trial, LINES / 2)?;
            let mut service = trial.start()?;
            service.wait("half the lines are done", |status| {
                status.groups.iter().all(|group| group.lag_lines == 0) && status.log.next_seq > LINES / 2
            })?;
            trial.look(&service, true);
            service.kill()?;
            trial.judge()?;
            write(&mut trial, LINES / 2)?;
        } else {
            write(&mut trial, LINES)?;
        }
        let template = folder.join(format!("{name}-template"));
        copy(&trial.places.folder, &template)?;
        let history = trial.history();
        Ok(Stage { recover, trial, template, history })
    }

    fn reset(&mut self) -> Result<()> {
        let folder = &self.trial.places.folder;
        if folder.exists() {
            fs::remove_dir_all(folder).during("empty the folder")?;
        }
        copy(&self.template, folder)?;
        self.trial.forget(self.history.clone());
        Ok(())
    }

    /// Runs `run --once` under strace; returns its exit status and what strace saw.
    fn traced(&mut self, options: &[String]) -> Result<(i32, String)> {
        let trace = self.trial.places.folder.join("trace");
        let run = self.trial.command();
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-q", "-s", "0", "-e", "signal=none", "-o"]).arg(&trace);
        command.args(options).arg("--").arg(run.get_program()).args(run.get_args()).arg("--once");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SPILLQ_"))
        {
            command.env_remove(name);
        }
        let code = self.trial.start_as(command)?.exit_code()?;
        let text = fs::read(&trace).during("read what strace saw")?;
        Ok((code, String::from_utf8_lossy(&text).into_owned()))
    }

    /// All cases of this stage, found in a run without a fault.
    fn cases(&mut self, faults: &[Fault]) -> Result<Vec<Case>> {
        self.reset()?;
        let (code, text) = self.traced(&["-e".to_owned(), format!("trace={}", CALLS.join(","))])?;
        if code != 0 {
            return Err(Trouble::new(format!("without a fault the run ended with {code}")));
        }
        // The largest number of each call in one thread.
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.contains(" resumed>")) {
            let mut words = line.split_whitespace();
            let (Some(thread), Some(call)) = (words.next(), words.next()) else { continue };
            let call = call.split('(').next().unwrap_or_default();
            if let Some(call) = CALLS.iter().find(|name| **name == call) {
                *counts.entry((call, thread)).or_default() += 1;
            }
        }
        let mut cases = Vec::new();
        for call in CALLS {
            let most = counts.iter().filter(|((name, _), _)| name == call).map(|(_, count)| *count).max();
            for (fault, when) in
                faults.iter().flat_map(|fault| (1..=most.unwrap_or_default()).map(move |when| (fault, when)))
            {
                if *fault == Fault::Kill || FAILING.contains(call) {
                    cases.push(Case { recover: self.recover, call, when, fault: *fault });
                }
            }
        }
        Ok(cases)
    }

    /// One fault, and then a run without one to the end. Returns what was hit.
    fn one(&mut self, case: &Case) -> Result<String> {
        self.reset()?;
        let how = match case.fault {
            Fault::Kill => "signal=KILL".to_owned(),
            Fault::Error(error) => format!("error={error}"),
        };
        let call = case.call;
        let inject = format!("inject={call}:{how}:when={}", case.when);
        let (code, text) =
            self.traced(&["-e".to_owned(), format!("trace={call}"), "-e".to_owned(), inject])?;
        let injected: Vec<&str> = match case.fault {
            // The call that never returned.
            Fault::Kill => {
                text.lines().filter(|line| line.ends_with("= ?") || line.contains("<unfin")).collect()
            }
            Fault::Error(_) => text.lines().filter(|line| line.contains("(INJECTED)")).collect(),
        };
        // A thread may have made fewer calls this time.
        let place = if injected.is_empty() { "not reached".to_owned() } else { self.place(&injected) };
        self.trial.judge().during(case.name())?;
        let must_end = case.fault == Fault::Error("EIO") && injected.iter().any(|line| is_vital(call, line));
        if must_end && code == 0 {
            return Err(Trouble::new(format!(
                "I9 {}: exit status 0 after {}",
                case.name(),
                injected.join("; ")
            )));
        }
        self.trial.finish().during(case.name())?;
        let fault =
            if case.fault == Fault::Kill { "killed".to_owned() } else { format!("{how}, exit {code}") };
        Ok(format!("{call} {fault}: {place}"))
    }

    /// Which file of the store it was, as text.
    fn place(&self, lines: &[&str]) -> String {
        let root = self.trial.places.data_dir.display().to_string();
        let of = |line: &&str| {
            let (_, rest) = line.split_once(&root)?;
            let name: String = rest.chars().take_while(|c| !matches!(c, '>' | '"')).collect();
            // Random names, and sled's files below them.
            if name.contains("/.tmp-copy-") {
                return Some("/journal/.tmp-copy-*".to_owned());
            }
            Some(name.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect::<String>())
        };
        lines.iter().find_map(of).unwrap_or_else(|| "elsewhere".to_owned())
    }
}

/// Whether the store cannot be trusted after this has failed: a write or sync of the journal, or MARK.
fn is_vital(call: &str, line: &str) -> bool {
    let syncs = matches!(call, "fsync" | "fdatasync" | "pwrite64");
    syncs && (line.contains("/journal/0") || line.contains("/MARK")) && !line.contains("/.tmp-copy")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    tool("cp", &["-a", "--reflink=auto", "--sparse=auto", &from, &to]).map(drop)
}
