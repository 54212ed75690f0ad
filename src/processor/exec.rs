//! Runs a command for each batch: exit status 0 acks it.
//!
//! One process a batch, through the shim (`shim.rs`), which costs a few milliseconds. The batch is complete before
//! the command starts; its standard output is ours, its standard error passes through to ours, and the last
//! [`EVIDENCE_BYTES_MAX`](super::EVIDENCE_BYTES_MAX) bytes of it are kept as evidence.
//!
//! Dropping the future ends the command with all its descendants: SIGTERM, and SIGKILL after the grace. Two
//! commands never run at once: the next batch waits until the shim of the former has ended, and fails when that
//! takes too long. It must never act on a process that the command did not start.
//!
//! Not covered: what a command hands to somebody else (a service manager, a container runtime, `at`), processes
//! of another user that we may not signal (waited for, never overlapped), and descendants of the command, not the
//! command itself, when somebody kills the shim with SIGKILL and the service too, or they dropped the environment.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::evidence::{Tail, harmless};
use super::input::{Input, memfd};
use super::passthrough::Passthrough;
use super::report::{REPORT_BYTES_MAX, Report, describe};
use super::{Batch, Evidence, Outcome, Processing, Processor, procs, shim};

/// Beyond the grace, a shim has so long to kill what is left and to end, before we do it ourselves.
const SHIM_SLACK: Duration = Duration::from_secs(2);
/// Then our own kills may take so long: a process in the middle of a disk write does not die at once.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Once all processes of a command have ended, what stands in the pipe of its standard error is read for so long:
/// the end of file comes at once, unless a process that we do not know of holds the pipe.
const STDERR_DRAIN: Duration = Duration::from_millis(100);
/// A pipe holds 64 KiB; so much is taken from it at once.
const STDERR_CHUNK_BYTES: usize = 8 * 1024;
/// So many processes of a command that hangs are named in the evidence.
const PROCS_NAMED_MAX: usize = 8;
/// EX_DATAERR of sysexits.h: the command says that the lines are at fault.
const EXIT_POISON: i32 = 65;
/// By the shell's convention the command cannot be run, or was not found.
const EXIT_REFUSED: [i32; 2] = [126, 127];
/// A variable with another value for each start of a command. Only where a shim was killed is it looked for.
const MARKER: &str = "SPILLQ_RUN";

/// A command that is run for each batch.
#[derive(Debug)]
pub struct Exec {
    command: Vec<String>,
    input: Input,
    shim: PathBuf,
    grace: Duration,
    passthrough: Passthrough,
    /// The shim of the latest batch, until it is known to have ended.
    running: Option<Running>,
    interrupted: Option<Evidence>,
}

/// A shim, and how to find what it was to end, should it be killed.
#[derive(Debug)]
struct Running {
    child: Child,
    /// [`MARKER`] with the value of this start.
    marker: String,
}

impl Exec {
    /// The shim's binary where the service's own is it, whatever became of the file meanwhile.
    pub const OWN_BINARY: &str = "/proc/self/exe";

    /// Will run `command`, its arguments behind it, found as the shell finds it and in our working directory.
    /// `shim` is a binary whose `main` begins with [`shim::main`]; `grace` is the time between SIGTERM and SIGKILL
    /// for what must end.
    #[must_use]
    pub fn new(command: Vec<String>, input: Input, shim: PathBuf, grace: Duration) -> Exec {
        Exec {
            command,
            input,
            shim,
            grace,
            passthrough: Passthrough::to_stderr(),
            running: None,
            interrupted: None,
        }
    }

    /// Waits until nothing of the latest command is alive; to be called when its future was dropped and no other
    /// batch will follow. Takes at most the grace and 7 seconds.
    ///
    /// # Errors
    /// Names the processes that do not end. The command must not be run again while there are such.
    pub async fn end(&mut self) -> Result<(), Evidence> {
        let Some(Running { child, marker }) = self.running.as_mut() else {
            return Ok(());
        };
        let left = match timeout(self.grace + SHIM_SLACK, child.wait()).await {
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

    fn program(&self) -> String {
        harmless(self.command.first().map_or("", String::as_str))
    }

    async fn run(&mut self, batch: &Batch) -> Outcome {
        self.interrupted = None;
        if let Err(evidence) = self.end().await {
            return Outcome::Failed(evidence);
        }
        match self.attempt(batch).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(Evidence {
                summary: format!("{} could not be started on {}: {error}", self.program(), lines(batch)),
                tail: String::new(),
            }),
        }
    }

    async fn attempt(&mut self, batch: &Batch) -> io::Result<Outcome> {
        let (copy, input) = (batch.clone(), self.input.clone());
        let (stdin, bytes) =
            tokio::task::spawn_blocking(move || memfd(&copy, &input)).await.map_err(io::Error::other)??;
        let marker = format!("{:016x}", fastrand::u64(..));
        let (control, child) = self.start(batch, stdin, bytes, &marker)?;
        let program = self.program();
        let marker = format!("{MARKER}={marker}");
        let Running { child, .. } = self.running.insert(Running { child, marker });
        let stderr = child.stderr.take();
        let mut watch = Watch {
            shim: pid_of(child),
            what: format!("{program} was cut off on {}", lines(batch)),
            since: Instant::now(),
            tail: Tail::default(),
            finished: false,
            interrupted: &mut self.interrupted,
            control,
        };
        let report = watch.until_report(stderr, &self.passthrough).await;
        // It has ended or is about to: the report is the last thing that it does.
        let shim_status = child.wait().await?;
        watch.finished = true;
        let tail = watch.tail.text();
        drop(watch);
        if report.is_some() {
            self.running = None;
        } else if let Err(evidence) = self.end().await {
            tracing::warn!(command = program, "{}", evidence.summary);
        }
        Ok(self.judge(batch, report, shim_status, tail))
    }

    /// Starts the shim. The batch waits for it in the socket that is its standard input.
    fn start(
        &self,
        batch: &Batch,
        stdin: OwnedFd,
        bytes: u64,
        marker: &str,
    ) -> io::Result<(UnixStream, Child)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        send_fd(&ours, &stdin)?;
        ours.set_nonblocking(true)?;
        let range = batch.range();
        let child = Command::new(&self.shim)
            .arg0("spillq")
            .arg(shim::SHIM)
            .arg(self.grace.as_millis().to_string())
            .args(self.command.iter().map(OsStr::new))
            .env("SPILLQ_LINES", batch.line_count().to_string())
            .env("SPILLQ_BYTES", bytes.to_string())
            .env("SPILLQ_FIRST_SEQ", range.first.to_string())
            .env("SPILLQ_LAST_SEQ", range.last.to_string())
            .env("SPILLQ_GROUP", batch.group())
            .env("SPILLQ_ATTEMPT", batch.attempt().to_string())
            .env(MARKER, marker)
            // They are for this process alone: a command that used them would speak in its name.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::inherit())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", self.shim.display())))?;
        Ok((UnixStream::from_std(ours)?, child))
    }

    fn judge(&self, batch: &Batch, report: Option<Report>, shim_status: ExitStatus, tail: String) -> Outcome {
        let program = self.program();
        let evidence = |what: String| Evidence {
            summary: format!("{program} {what} on {}", lines(batch)),
            tail: tail.clone(),
        };
        let (status, left_behind) = match report {
            Some(Report::Ended { status, left_behind }) => (ExitStatus::from_raw(status), left_behind),
            Some(Report::Broken(why)) => {
                return Outcome::Failed(evidence(format!("could not be run: {why}")));
            }
            None => {
                return Outcome::Failed(evidence(format!("was lost: its shim {}", describe(shim_status))));
            }
        };
        if left_behind > 0 {
            tracing::warn!(
                command = program,
                processes = left_behind,
                "the command left processes running, which were ended; it should wait for them"
            );
        }
        match status.code() {
            Some(0) => Outcome::Done,
            Some(EXIT_POISON) => Outcome::Poison(evidence(describe(status))),
            Some(code) if EXIT_REFUSED.contains(&code) => Outcome::Refused(evidence(describe(status))),
            _ => Outcome::Failed(evidence(describe(status))),
        }
    }
}

impl Processor for Exec {
    fn name(&self) -> String {
        format!("exec {}", harmless(&self.command.join(" ")))
    }

    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a> {
        Box::pin(self.run(batch))
    }

    fn interrupted(&mut self) -> Option<Evidence> {
        self.interrupted.take()
    }
}

/// Watches a command. Dropped before it is finished, it notes where the command hangs, and then lets go of it:
/// `control` closes, and the shim ends all of it.
struct Watch<'a> {
    shim: Option<Pid>,
    what: String,
    since: Instant,
    tail: Tail,
    finished: bool,
    interrupted: &'a mut Option<Evidence>,
    control: UnixStream,
}

impl Watch<'_> {
    /// Reads the shim's report, and standard error meanwhile.
    async fn until_report(
        &mut self,
        mut stderr: Option<impl AsyncRead + Unpin>,
        passthrough: &Passthrough,
    ) -> Option<Report> {
        let mut text = Vec::new();
        let mut buffer = vec![0; STDERR_CHUNK_BYTES];
        {
            let mut control = (&mut self.control).take(REPORT_BYTES_MAX);
            let report = control.read_to_end(&mut text);
            tokio::pin!(report);
            loop {
                tokio::select! {
                    read = read_some(&mut stderr, &mut buffer), if stderr.is_some() => match read {
                        Some(chunk) => {
                            self.tail.push(chunk);
                            passthrough.show(chunk);
                        }
                        None => stderr = None,
                    },
                    // An error is the end too: then the report is missing, or cut.
                    _ = &mut report => break,
                }
            }
        }
        let drain = async {
            while let Some(chunk) = read_some(&mut stderr, &mut buffer).await {
                self.tail.push(chunk);
                passthrough.show(chunk);
            }
        };
        let _ = timeout(STDERR_DRAIN, drain).await;
        Report::parse(&text)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let procs = self.shim.map(procs::descendants).unwrap_or_default();
        *self.interrupted = Some(Evidence {
            summary: format!(
                "{} after {:.1} s: {}",
                self.what,
                self.since.elapsed().as_secs_f64(),
                name_procs(&procs)
            ),
            tail: self.tail.text(),
        });
    }
}

/// The next bytes; `None` at the end, after an error, and where there is no stream.
async fn read_some<'b>(from: &mut Option<impl AsyncRead + Unpin>, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let read = from.as_mut()?.read(buffer).await.ok()?;
    buffer.get(..read).filter(|chunk| !chunk.is_empty())
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

/// `line 7`, `lines 10-20`.
fn lines(batch: &Batch) -> String {
    let range = batch.range();
    format!("line{} {range}", if range.lines() == 1 { "" } else { "s" })
}

/// `123 sh (S, do_wait), 124 sleep (S, hrtimer_nanosleep)`.
fn name_procs(procs: &[procs::Proc]) -> String {
    if procs.is_empty() {
        return "no process was seen".to_owned();
    }
    let mut named: Vec<String> = procs
        .iter()
        .take(PROCS_NAMED_MAX)
        .map(|proc| {
            let waits = proc.waits_in().map_or(String::new(), |place| format!(", in {place}"));
            let name = harmless(&proc.name).replace('\n', "?");
            format!("{} {name} ({}{waits})", proc.pid.as_raw_pid(), proc.state)
        })
        .collect();
    if procs.len() > PROCS_NAMED_MAX {
        named.push(format!("and {} more", procs.len() - PROCS_NAMED_MAX));
    }
    named.join(", ")
}
