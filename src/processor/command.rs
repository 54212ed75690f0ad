//! A command under its shim: starts it, reports how it ended, and ends it with all its descendants.
//!
//! Shared by `exec` and `exec-stream`. Two commands of one launcher never run at once: the next start waits until no
//! process of the previous one is alive, and fails if that takes too long.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::doing::doing;
use super::dump::{Dump, Sent};
use super::oom::OomWatch;
use super::program::command_umask;
use super::report::{Report, describe};
use super::start::Start;
use super::{Batch, Evidence, Program, procs, shim};
use crate::plain::harmless;
use crate::queue::OomKill;

/// How long a shim has, after the grace period, to kill what is left and to end, before we do it ourselves.
const SHIM_SLACK: Duration = Duration::from_secs(2);
/// How long our own kills may take: a process in the middle of a disk write does not die at once.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// How many processes of a command that hangs are named in the evidence.
const PROCS_NAMED_MAX: usize = 8;
/// By the convention of shells: the command cannot be run, or was not found.
const EXIT_REFUSED: [i32; 2] = [126, 127];
/// A variable with another value for each start of a command. It is looked for only if a shim was killed.
const MARKER: &str = "SPILLQ_RUN";

/// A command, and the shim of its latest start until it is known to have ended.
#[derive(Debug)]
pub(super) struct Launcher {
    program: Program,
    running: Option<Running>,
    oom: OomWatch,
}

/// A shim, and how to find the processes that it should end, if it is killed.
#[derive(Debug)]
struct Running {
    child: Child,
    /// [`MARKER`] and its value for this start.
    marker: String,
}

/// A shim that waits for a batch, with the process that becomes the command. If it is dropped, both end.
#[derive(Debug)]
pub(super) struct Waiting {
    control: std::os::unix::net::UnixStream,
    child: Child,
    marker: String,
}

impl Waiting {
    /// Starts it. `stdout` is the command's.
    pub(super) fn start(program: &Program, stdout: Stdio) -> io::Result<Waiting> {
        let (control, theirs) = std::os::unix::net::UnixStream::pair()?;
        let marker = format!("{:016x}", fastrand::u64(..));
        let child = Command::new(&program.shim)
            .arg0("spillq")
            .arg(shim::SHIM)
            .args(shim::args(program, command_umask()))
            // They are for this process only: a command that used them would notify systemd in its place.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .envs(program.env.iter().map(|(name, value)| (name, value)))
            .env(MARKER, &marker)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(stdout)
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", program.shim.display())))?;
        Ok(Waiting { control, child, marker })
    }
}

/// How a command ended.
pub(super) struct End {
    /// `ended with exit status 3`, `was killed by signal 9 (SIGKILL)`, `could not be run: ...`.
    pub(super) what: String,
    /// Its exit status, if it had one.
    pub(super) code: Option<i32>,
    /// The kernel killed it because memory ran out.
    pub(super) oom: Option<OomKill>,
}

impl End {
    /// By the convention of shells: it cannot be run, or was not found.
    pub(super) fn is_refused(&self) -> bool {
        self.code.is_some_and(|code| EXIT_REFUSED.contains(&code))
    }
}

impl Launcher {
    pub(super) fn new(program: Program) -> Launcher {
        Launcher { program, running: None, oom: OomWatch::default() }
    }

    /// The program, for messages.
    pub(super) fn program(&self) -> String {
        harmless(self.program.command.first().map_or("", String::as_str))
    }

    /// The whole command, for people.
    pub(super) fn words(&self) -> String {
        harmless(&self.program.command.join(" "))
    }

    /// Waits until no process of the latest command is alive. Call it if its future was dropped and no other batch
    /// follows. Takes at most the grace period and 7 seconds.
    ///
    /// # Errors
    /// Names the processes that do not end. The command must not be run again while there are any.
    pub(super) async fn end(&mut self) -> Result<(), Evidence> {
        let Some(Running { child, marker }) = self.running.as_mut() else {
            return Ok(());
        };
        let left = match timeout(self.program.grace + SHIM_SLACK, child.wait()).await {
            Ok(Ok(status)) if status.code().is_some() => Vec::new(),
            // The shim was killed, so the processes that the command had started have another parent.
            Ok(_) => kill_all(|| procs::started_with(marker)).await,
            // The shim hangs, or could not kill them.
            Err(_) => {
                let shim = pid_of(child);
                let left = match shim {
                    Some(shim) => kill_all(|| procs::descendants(shim)).await,
                    None => Vec::new(),
                };
                if left.is_empty() {
                    // Not earlier: without the shim, orphans could not be found as its descendants.
                    let _ = child.start_kill();
                    let _ = timeout(KILL_WAIT, child.wait()).await;
                }
                left
            }
        };
        if left.is_empty() {
            self.running = None;
            return Ok(());
        }
        Err(Evidence::new(format!(
            "{0} of an earlier batch does not end: {1}",
            self.program(),
            name_procs(&left)
        )))
    }

    /// Starts the command with this standard input and these variables, in the shim that `waits` for them if there is one.
    /// Closing the returned socket ends the command; the report is read from it. Call this after [`Launcher::end`].
    pub(super) fn start(
        &mut self,
        waits: Option<Waiting>,
        stdout: Stdio,
        variables: &[(&str, String)],
        stdin: OwnedFd,
    ) -> io::Result<(UnixStream, &mut Child)> {
        let start = Start::new(stdin, variables);
        // One that was killed meanwhile is replaced.
        let ready = waits.filter(|waits| start.send(&waits.control).is_ok());
        let is_sent = ready.is_some();
        let Waiting { control, child, marker } = match ready {
            Some(ready) => ready,
            None => Waiting::start(&self.program, stdout)?,
        };
        let running = self.running.insert(Running { child, marker: format!("{MARKER}={marker}") });
        // From here on an error leaves a shim that ends, and is waited for.
        control.set_nonblocking(true)?;
        let control = UnixStream::from_std(control)?;
        if !is_sent {
            start.send(&control)?;
        }
        Ok((control, &mut running.child))
    }

    /// Call it before each batch: OOM kills are counted from here.
    pub(super) fn begin_batch(&mut self) {
        self.oom.begin();
    }

    /// The signal to send if the command hangs on `batch`.
    pub(super) fn dump(&self, batch: &Batch) -> Option<Dump> {
        Dump::of(self.program.dump_signal, batch)
    }

    /// The process id of the shim that runs.
    pub(super) fn shim_pid(&self) -> Option<Pid> {
        pid_of(&self.running.as_ref()?.child)
    }

    /// Waits for the shim, whose `report` has come or never will, and returns how the command ended.
    pub(super) async fn bury(&mut self, report: Option<Report>) -> io::Result<End> {
        let shim_status = match self.running.as_mut() {
            Some(running) => running.child.wait().await?,
            None => ExitStatus::default(),
        };
        let program = self.program();
        let (mut what, code, status) = match report {
            Some(Report::Ended { status, left_behind }) => {
                if left_behind > 0 {
                    tracing::warn!(
                        command = program,
                        processes = left_behind,
                        "the command left processes running, which were ended; it should wait for them"
                    );
                }
                let status = ExitStatus::from_raw(status);
                (describe(status), status.code(), status)
            }
            Some(Report::Broken(ref why)) => {
                (format!("could not be run: {why}"), None, ExitStatus::default())
            }
            None => (format!("was lost: its shim {}", describe(shim_status)), None, shim_status),
        };
        let oom = self.oom.ended(status);
        if oom.is_some() {
            what.push_str(", by the kernel for want of memory,");
        }
        if report.is_some() {
            self.running = None;
        } else if let Err(evidence) = self.end().await {
            tracing::warn!(command = program, "{}", evidence.summary);
        }
        Ok(End { what, code, oom })
    }
}

/// Where a command hangs that is cut off. Call it before the command is ended. Without a `shim` it has ended by itself.
pub(super) fn cut_off(what: &str, since: Instant, shim: Option<Pid>, dumped: Option<&Sent>) -> String {
    let mut text = format!("{what} after {:.1} s", since.elapsed().as_secs_f64());
    if let Some(shim) = shim {
        text.push_str(&format!(": {}", name_procs(&procs::descendants(shim))));
    }
    if let Some(Sent { what, .. }) = dumped {
        text.push_str(&format!("; {what}"));
    }
    text
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id()?.cast_signed())
}

/// Kills the processes that `look` returns until none is alive, for at most [`KILL_WAIT`]. Returns those that are left.
async fn kill_all(look: impl Fn() -> Vec<procs::Proc>) -> Vec<procs::Proc> {
    let until = Instant::now() + KILL_WAIT;
    loop {
        let left = procs::kill(&look);
        if left.is_empty() || Instant::now() >= until {
            return left;
        }
        sleep(procs::KILL_PAUSE).await;
    }
}

/// `123 sh (S, in wait4 at do_wait), 124 psql (S, in poll at do_poll, connected to 10.0.0.5:5432)`.
fn name_procs(procs: &[procs::Proc]) -> String {
    if procs.is_empty() {
        return "no process was seen".to_owned();
    }
    let mut named: Vec<String> = procs
        .iter()
        .take(PROCS_NAMED_MAX)
        .map(|proc| {
            let name = harmless(&proc.name).replace('\n', "?");
            format!("{} {name} ({})", proc.pid.as_raw_pid(), doing(proc))
        })
        .collect();
    if procs.len() > PROCS_NAMED_MAX {
        named.push(format!("and {} more", procs.len() - PROCS_NAMED_MAX));
    }
    named.join(", ")
}
