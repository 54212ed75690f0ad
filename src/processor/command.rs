//! A command under its shim: started, told apart by how it ended, and ended whole.
//!
//! What `exec` and `exec-stream` share. Two commands of one launcher never run at once: the next start waits until
//! nothing of the former is alive, and fails when that takes too long.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Pid;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::doing::doing;
use super::dump::{Dump, Sent};
use super::oom::OomWatch;
use super::program::command_umask;
use super::report::{Report, describe};
use super::{Batch, Evidence, Program, procs, shim};
use crate::plain::harmless;
use crate::queue::OomKill;

/// Beyond the grace, a shim has so long to kill what is left and to end, before we do it ourselves.
const SHIM_SLACK: Duration = Duration::from_secs(2);
/// Then our own kills may take so long: a process in the middle of a disk write does not die at once.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// So many processes of a command that hangs are named in the evidence.
const PROCS_NAMED_MAX: usize = 8;
/// By the shell's convention the command cannot be run, or was not found.
const EXIT_REFUSED: [i32; 2] = [126, 127];
/// A variable with another value for each start of a command. Only where a shim was killed is it looked for.
const MARKER: &str = "SPILLQ_RUN";

/// A command, and the shim of its latest start until that is known to have ended.
#[derive(Debug)]
pub(super) struct Launcher {
    program: Program,
    running: Option<Running>,
    oom: OomWatch,
}

/// A shim, and how to find what it was to end, should it be killed.
#[derive(Debug)]
struct Running {
    child: Child,
    /// [`MARKER`] with the value of this start.
    marker: String,
}

/// How a start of a command went to its end.
pub(super) struct End {
    /// `ended with exit status 3`, `was killed by signal 9 (SIGKILL)`, `could not be run: ...`.
    pub(super) what: String,
    /// Its exit status, where it had one.
    pub(super) code: Option<i32>,
    /// The kernel killed it for want of memory.
    pub(super) oom: Option<OomKill>,
}

impl End {
    /// By the shell's convention it cannot be run, or was not found.
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

    /// Waits until nothing of the latest command is alive; to be called when its future was dropped and no other
    /// batch will follow. Takes at most the grace and 7 seconds.
    ///
    /// # Errors
    /// Names the processes that do not end. The command must not be run again while there are such.
    pub(super) async fn end(&mut self) -> Result<(), Evidence> {
        let Some(Running { child, marker }) = self.running.as_mut() else {
            return Ok(());
        };
        let left = match timeout(self.program.grace + SHIM_SLACK, child.wait()).await {
            Ok(Ok(status)) if status.code().is_some() => Vec::new(),
            // Somebody killed the shim: nobody adopted what the command had started.
            Ok(_) => kill_all(|| procs::started_with(marker)).await,
            // It hangs, or could not kill them.
            Err(_) => {
                let shim = pid_of(child);
                let left = match shim {
                    Some(shim) => kill_all(|| procs::descendants(shim)).await,
                    None => Vec::new(),
                };
                if left.is_empty() {
                    // Only now: a shim that is gone adopts nobody.
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
        Err(Evidence {
            summary: format!("{0} of an earlier batch does not end: {1}", self.program(), name_procs(&left)),
            tail: String::new(),
        })
    }

    /// Starts the shim with the command, whose standard input is `stdin`: it waits in the socket that is the shim's
    /// own. Closing the socket that is given back ends all of the command; its report is read from it. To be called
    /// after [`Launcher::end`].
    pub(super) fn start(
        &mut self,
        variables: &[(&str, String)],
        stdin: &OwnedFd,
        stdout: Stdio,
    ) -> io::Result<(UnixStream, &mut Child)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        send_fd(&ours, stdin)?;
        ours.set_nonblocking(true)?;
        let marker = format!("{:016x}", fastrand::u64(..));
        let child = Command::new(&self.program.shim)
            .arg0("spillq")
            .arg(shim::SHIM)
            .args(shim::args(&self.program, command_umask()))
            // They are for this process alone: a command that used them would speak in its name.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .envs(self.program.env.iter().map(|(name, value)| (name, value)))
            // Last: what the command relies on has its meaning whatever was set.
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env(MARKER, &marker)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(stdout)
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", self.program.shim.display())))?;
        let running = Running { child, marker: format!("{MARKER}={marker}") };
        Ok((UnixStream::from_std(ours)?, &mut self.running.insert(running).child))
    }

    /// To be called before each batch: what it is told of the end counts from here.
    pub(super) fn begin_batch(&mut self) {
        self.oom.begin();
    }

    /// The signal for a command that hangs on `batch`.
    pub(super) fn dump(&self, batch: &Batch) -> Option<Dump> {
        Dump::of(self.program.dump_signal, batch)
    }

    /// The process id of the shim that runs.
    pub(super) fn shim_pid(&self) -> Option<Pid> {
        pid_of(&self.running.as_ref()?.child)
    }

    /// Waits for the shim, whose `report` has come or never will, and says how the command ended.
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

/// Where a command hangs, when it was cut off: to be asked before it is told to end. Without a `shim` it has ended.
pub(super) fn cut_off(what: &str, since: Instant, shim: Option<Pid>, dumped: Option<&Sent>) -> String {
    let mut told = format!("{what} after {:.1} s", since.elapsed().as_secs_f64());
    if let Some(shim) = shim {
        told.push_str(&format!(": {}", name_procs(&procs::descendants(shim))));
    }
    if let Some(Sent { what, .. }) = dumped {
        told.push_str(&format!("; {what}"));
    }
    told
}

fn send_fd(to: &std::os::unix::net::UnixStream, fd: &OwnedFd) -> io::Result<()> {
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for a descriptor in a message"));
    }
    sendmsg(to, &[IoSlice::new(b"b")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id()?.cast_signed())
}

/// Kills what `look` shows until nothing of it is alive, for [`KILL_WAIT`] at most; gives back what is left.
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
