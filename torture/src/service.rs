//! The program under test: the real binary, as a service and as a command, and its output.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::trouble::{During, Result, Trouble};

/// The bound of every wait, also for a slow machine under load.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Between two checks.
const LOOK: Duration = Duration::from_millis(10);
/// The bound of an answer: the service may be dying.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// The answer to `status`, as far as it is judged.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The log.
    pub log: Log,
    /// The followed files.
    pub sources: Vec<Source>,
    /// The groups.
    pub groups: Vec<Group>,
    /// What opening found.
    pub findings: Vec<String>,
    /// What was lost.
    pub losses: Losses,
}

/// Of the log.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Log {
    pub first_seq: u64,
    pub next_seq: u64,
    pub full: Option<String>,
    pub runs: u64,
    pub commits: u64,
    /// Those that reference their lines.
    pub large_commits: u64,
    pub rotations: u64,
    pub segments_removed: u64,
    pub lines_relocated: u64,
}

/// Of a followed file.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Source {
    pub path: String,
    pub offset: u64,
    pub state: String,
}

/// Of a group.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Group {
    pub group: String,
    pub state: String,
    pub reason: Option<String>,
    pub ack_floor: u64,
    pub lag_lines: u64,
    pub leased: u64,
    pub dead_letters: u64,
}

/// Of what was lost.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Losses {
    pub lost_lines: u64,
    pub destroyed_unread_bytes: u64,
    pub rolled_back: u64,
    pub dropped_lines: u64,
}

impl Status {
    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.group == name)
    }
}

/// The built program.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// How much memory it may use.
    pub memory_mib: u64,
}

/// The result of a command.
#[derive(Debug)]
pub struct Output {
    /// Its exit status; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A line that `inspect` shows.
#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Shown {
    pub seq: u64,
    pub source: String,
    pub offset: u64,
    /// `None` if it is not UTF-8.
    pub text: Option<String>,
    /// It has no newline.
    #[serde(default)]
    pub unterminated: bool,
}

impl Program {
    /// A command of it, without the variables of this process.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SPILLQ_"))
        {
            command.env_remove(name);
        }
        command.args(args).stdin(Stdio::null());
        command
    }

    /// The service, with the configuration of this folder.
    pub fn service(&self, folder: &Path) -> Command {
        let mut command = self.command(&["--log", "warn", "run", "--allow-volatile", "--config"]);
        command.arg(folder.join("spillq.toml")).current_dir(folder);
        command
    }

    /// Runs a command on a data dir to its end; one that does not end is a hang.
    pub fn on(&self, data_dir: &Path, args: &[&str]) -> Result<Output> {
        let mut command = self.command(args);
        command.arg("--data-dir").arg(data_dir);
        run(command)
    }

    /// The status of a stopped store.
    pub fn status_on_disk(&self, data_dir: &Path) -> Result<Status> {
        let output = self.on(data_dir, &["status", "--json"])?;
        if output.code != 0 {
            return Err(Trouble::new(format!("status ended with {}: {}", output.code, output.err)));
        }
        serde_json::from_str(&output.out).during("read the status on disk")
    }

    /// Lines of a stopped store, from `from` on, at most `limit`.
    pub fn inspect(&self, data_dir: &Path, from: u64, limit: u64) -> Result<Vec<Shown>> {
        let args = ["inspect", "--json", "--from", &from.to_string(), "--limit", &limit.to_string()];
        let shown = self.on(data_dir, &args)?;
        if shown.code != 0 {
            return Err(Trouble::new(format!("I9 inspect ended with {}: {}", shown.code, shown.err)));
        }
        let read = |line| serde_json::from_str(line).during("read what inspect shows");
        shown.out.lines().map(read).collect()
    }
}

/// Runs a command to its end, and returns its output; one that does not end within [`PATIENCE`] is a hang.
pub fn run(mut command: Command) -> Result<Output> {
    let name = format!("{command:?}");
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().during(format!("start {name}"))?;
    let reader = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // A pipe of a process that was killed ends early.
            let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let out = reader(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let err = reader(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let ended = wait_for(|| child.try_wait().ok().flatten());
    if ended.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
    let (out, err) = (text(out), text(err));
    match ended {
        Some(status) => Ok(Output { code: status.code().unwrap_or(-1), out, err }),
        None => Err(Trouble::new(format!("I8 {name} hung for {PATIENCE:?}; it had printed: {err}"))),
    }
}

/// Runs a tool of the system, which must succeed.
pub fn tool(program: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let output = run(command)?;
    match output.code {
        0 => Ok(output.out),
        code => Err(Trouble::new(format!("{program} {args:?} ended with {code}: {}", output.err))),
    }
}

/// Checks repeatedly, for [`PATIENCE`] at most.
pub fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// A running service; killed when it is dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    data_dir: PathBuf,
    started: Instant,
}

impl Service {
    /// Starts a command that is `spillq run`, or a wrapper that runs it. Its messages are appended to `messages`.
    pub fn start(mut command: Command, data_dir: &Path, messages: &Path) -> Result<Service> {
        let log = File::options().create(true).append(true).open(messages).during("open the messages")?;
        command.stderr(log);
        let child = command.spawn().during(format!("start {command:?}"))?;
        Ok(Service { child, data_dir: data_dir.to_owned(), started: Instant::now() })
    }

    /// Since it was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its status, if it answers.
    pub fn status(&self) -> Option<Status> {
        let body = ask(&self.data_dir, "/v1/status").ok()?;
        serde_json::from_slice(&body).ok()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().during("look at the service")
    }

    /// Waits for a status.
    pub fn wait(&mut self, what: &str, mut is_so: impl FnMut(&Status) -> bool) -> Result<Status> {
        let mut last = None;
        let mut early = None;
        let found = wait_for(|| {
            if let Ok(Some(status)) = self.child.try_wait() {
                early = Some(status);
                return Some(None);
            }
            last = self.status();
            last.clone().filter(|status| is_so(status)).map(Some)
        });
        match (found.flatten(), early) {
            (Some(status), _) => Ok(status),
            (None, Some(status)) => {
                Err(Trouble::new(format!("the service ended with {status} while waiting for: {what}")))
            }
            (None, None) => {
                Err(Trouble::new(format!("I8 not within {PATIENCE:?}: {what}; the last status was {last:?}")))
            }
        }
    }

    /// SIGKILL, as the out-of-memory killer does it. The service may have ended before.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().during("kill the service")?;
        self.child.wait().during("wait for the service").map(drop)
    }

    /// Asks it to stop.
    pub fn terminate(&self) -> Result<()> {
        kill_process(self.pid(), Signal::TERM).during("SIGTERM")
    }

    /// A clean stop by SIGTERM; returns the exit status.
    pub fn stop(mut self) -> Result<i32> {
        self.terminate()?;
        self.exit_code()
    }

    /// A clean stop by SIGTERM, which has to end with 0.
    pub fn stop_cleanly(self) -> Result<()> {
        match self.stop()? {
            0 => Ok(()),
            code => Err(Trouble::new(format!("I9 a clean stop ended with {code}"))),
        }
    }

    /// Waits for its end; returns the exit status.
    pub fn exit_code(&mut self) -> Result<i32> {
        let ended = wait_for(|| self.child.try_wait().ok().flatten());
        let ended = ended.ok_or_else(|| Trouble::new(format!("I8 no end within {PATIENCE:?}")))?;
        Ok(ended.code().unwrap_or(-1))
    }

    /// A number of `/proc/PID/status`, such as `VmHWM`, in KiB.
    pub fn proc_kib(&self, field: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> Option<u64> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.child.id())).ok()?.count() as u64)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The campaign may have ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on the socket of a data dir, however long its path; returns the body of the answer.
fn ask(data_dir: &Path, path: &str) -> std::io::Result<Vec<u8>> {
    let folder = File::open(data_dir)?;
    let socket = format!("/proc/self/fd/{}/spillq.sock", folder.as_raw_fd());
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.set_write_timeout(Some(ANSWER_WAIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: spillq\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.map_or(0, |end| end + 4));
    if head.starts_with(b"HTTP/1.1 200 ") {
        Ok(body.to_vec())
    } else {
        Err(std::io::ErrorKind::InvalidData.into())
    }
}
