//! The shim: a small process between the service and a command. It makes sure that no process of the command is left.
//!
//! The service starts its own binary again as the shim, once per command. The shim adopts the processes that the
//! command leaves behind, because it is their subreaper. So the command has a living process, daemons that forked twice
//! included, exactly as long as the shim has children. The shim ends when it has none, and never before.
//!
//! It starts the process that becomes the command at once, and both wait for a batch: so all of that can be done while the
//! batch before is being processed.
//!
//! Its standard input is a socket to the service with three uses. The batch comes through it as a descriptor, with its
//! variables ([`Start`]). The report goes back through it. Its end of file means that the time-out passed or that the service is gone. Then the shim ends
//! all processes: SIGTERM, and SIGKILL after the grace period.
//!
//! The command and the shim each run in a separate process group. Ctrl-C in a terminal, or a SIGTERM to all
//! processes of a unit, reaches the service, which decides whether the batch may finish. The shim ignores such
//! signals; only SIGKILL ends it early. Then the command is killed with it, and the service looks for the rest.
//!
//! The shim must never write to standard output or standard error, which are the command's, and never hold a batch in memory.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, set_child_subreaper, set_parent_process_death_signal,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::Program;
use super::procs;
use super::report::Report;
use super::start::Start;

/// The hidden subcommand of the shim.
pub(super) const SHIM: &str = "__exec-shim";
/// The hidden subcommand that becomes the command: `set_parent_process_death_signal` must be called in the process of the
/// command, and between fork and exec that would be unsafe code.
const BECOME: &str = "__exec-become";
/// Instead of a umask: the inherited one stays.
const UMASK_STAYS: &str = "-";
/// How long processes that a command leaves running may take to end by themselves: `tee >(gzip)` in a shell ends a moment
/// after the shell. A command that starts longer work must wait for it, since an acked batch has to be done.
const LINGER: Duration = Duration::from_millis(100);
/// The conventional exit status if a command was found and cannot be run.
const EXIT_CANNOT_RUN: u8 = 126;
/// The conventional exit status if a command was not found.
const EXIT_NOT_FOUND: u8 = 127;
/// EX_OSERR of sysexits.h: the host is short of memory or processes just now. This does not refuse the group.
const EXIT_HOST: u8 = 71;

/// The arguments of the shim after [`SHIM`]. They do not include the variables of the command: those are in the
/// environment of the shim, which other users cannot read.
pub(super) fn args(program: &Program, umask: Option<u32>) -> Vec<OsString> {
    let grace = program.grace.as_millis().to_string();
    let umask = umask.map_or(UMASK_STAYS.to_owned(), |umask| format!("{umask:03o}"));
    let cwd = program.cwd.clone().unwrap_or_default();
    let command = program.command.iter().map(OsString::from);
    [grace.into(), umask.into(), cwd.into()].into_iter().chain(command).collect()
}

/// Runs the shim if `args` (with the program's name) ask for it, and returns the exit code. `None` if they do not. Call this
/// first in `main`, before there are threads.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    let subcommand = args.next()?;
    let number = |arg: Option<OsString>| arg?.to_str()?.parse::<u64>().ok();
    if subcommand == SHIM {
        let grace = Duration::from_millis(number(args.next()).unwrap_or_default());
        Some(supervise(grace, args.collect()))
    } else if subcommand == BECOME {
        let parent = number(args.next());
        let umask = args.next().and_then(|octal| u32::from_str_radix(octal.to_str()?, 8).ok());
        let cwd = args.next().filter(|cwd| !cwd.is_empty());
        Some(become_command(parent, umask, cwd, args.collect()))
    } else {
        None
    }
}

/// `command` is the arguments of [`BECOME`] after the parent's pid.
fn supervise(grace: Duration, command: Vec<OsString>) -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let socket = UnixStream::from(socket);
    let report = match run(&socket, grace, &command) {
        Ok(report) => report,
        Err(error) => Report::Broken(error.to_string()),
    };
    // If the service is gone, the batch is delivered again.
    let sent = report.send(&socket);
    if sent.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(socket: &UnixStream, grace: Duration, command: &[OsString]) -> io::Result<Report> {
    set_child_subreaper(Some(getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // `block_on` stays on this thread: the command's death signal is tied to the thread that started it.
    runtime.block_on(async {
        // Signals with a handler do not end the shim, and have their defaults in the command.
        let mut ignored = Vec::new();
        for kind in [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
            SignalKind::alarm(),
        ] {
            ignored.push(signal(kind)?);
        }
        let mut children = signal(SignalKind::child())?;
        let (mut child, waits) = become_later(command)?;
        // If the service ends meanwhile, the other process does too: its socket is closed.
        let start = Start::receive(socket)?;
        if start.send(&waits).is_err() {
            // It was killed while it waited, so nothing of the command has run.
            let (again, waits) = become_later(command)?;
            start.send(&waits)?;
            child = again;
        }
        // The batch is the command's alone: whoever writes to it must notice when the command closes it.
        drop((start, waits));
        let mut watch =
            Watch { command: Pid::from_child(&child), ended: None, phase: Phase::Running, left_behind: 0 };
        socket.set_nonblocking(true)?;
        let lifeline = tokio::net::UnixStream::from_std(socket.try_clone()?)?;
        let mut held = true;
        while watch.reap()? {
            let deadline = watch.advance(grace);
            tokio::select! {
                _ = children.recv() => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
                // The service sends nothing after the batch: if the socket is readable, it is the end of file.
                _ = lifeline.readable(), if held => {
                    held = false;
                    watch.terminate(grace);
                }
            }
        }
        socket.set_nonblocking(false)?;
        Ok(match watch.ended {
            Some(status) => Report::Ended { status: status.into_raw(), left_behind: watch.left_behind },
            None => Report::Broken("the command was not among the children of its shim".to_owned()),
        })
    })
}

/// Starts the process that becomes the command when it gets a batch through its standard input. Returns the other end of
/// that.
fn become_later(command: &[OsString]) -> io::Result<(std::process::Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new("/proc/self/exe")
        .arg0("spillq")
        .arg(BECOME)
        .arg(getpid().as_raw_pid().to_string())
        .args(command)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .process_group(0)
        .spawn()?;
    Ok((child, ours))
}

/// Waits for a batch, and turns this process into the command. Returns only if that fails; the reason is then on standard
/// error, which becomes evidence.
fn become_command(
    parent: Option<u64>,
    umask: Option<u32>,
    cwd: Option<OsString>,
    command: Vec<OsString>,
) -> ExitCode {
    let fail = |what: String, code: u8| {
        eprintln!("spillq: {what}");
        ExitCode::from(code)
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return fail(format!("cannot tie the command to its shim: {error}"), EXIT_HOST);
    }
    // If the shim ended before that call, no signal will come.
    if getppid().map(|pid| pid.as_raw_pid().unsigned_abs().into()) != parent {
        return fail("the shim is gone".to_owned(), EXIT_HOST);
    }
    let Some((program, args)) = command.split_first() else {
        return fail("no command is given".to_owned(), EXIT_NOT_FOUND);
    };
    // Without a batch the service, or the shim, has ended: nobody reads why.
    let Ok((stdin, variables)) = from_standard_input().map(Start::into_parts) else {
        return ExitCode::FAILURE;
    };
    if let Err(error) = rustix::stdio::dup2_stdin(&stdin) {
        return fail(format!("cannot pass the batch to the command: {error}"), EXIT_HOST);
    }
    if let Some(umask) = umask {
        // Here and not in the shim, whose files must stay unreadable by others.
        rustix::process::umask(Mode::from_bits_truncate(umask));
    }
    if let Some(cwd) = cwd
        && let Err(error) = std::env::set_current_dir(&cwd)
    {
        return fail(format!("cannot enter {}: {error}", cwd.display()), exit_code(&error));
    }
    let error = Command::new(program).args(args).envs(variables).exec();
    fail(format!("cannot run {}: {error}", program.display()), exit_code(&error))
}

/// The exit status if the command could not be run.
fn exit_code(error: &io::Error) -> u8 {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => EXIT_NOT_FOUND,
        Some(Errno::AGAIN | Errno::NOMEM | Errno::NFILE | Errno::MFILE | Errno::TXTBSY | Errno::IO) => {
            EXIT_HOST
        }
        _ => EXIT_CANNOT_RUN,
    }
}

/// What is happening to the command and its descendants.
enum Phase {
    /// The command runs and the service waits for it.
    Running,
    /// The command has ended; the processes that it left may end by themselves until then.
    Lingering(Instant),
    /// All were sent SIGTERM, and have until then to end.
    Terminating(Instant),
    /// All are killed, repeatedly until none is left.
    Killing,
}

struct Watch {
    command: Pid,
    ended: Option<ExitStatus>,
    phase: Phase,
    /// How many processes were left when SIGTERM was sent after the end of the command.
    left_behind: usize,
}

impl Watch {
    /// Reaps the children that have ended. `false` if there are none left: then no process of the command is alive.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.command => {
                    self.ended = Some(ExitStatus::from_raw(status.as_raw()));
                    if matches!(self.phase, Phase::Running) {
                        self.phase = Phase::Lingering(Instant::now() + LINGER);
                    }
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return Ok(true),
                Err(Errno::CHILD) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Does what is due, and returns when it must be called again.
    fn advance(&mut self, grace: Duration) -> Option<Instant> {
        let now = Instant::now();
        match self.phase {
            Phase::Lingering(until) if until <= now => self.terminate(grace),
            Phase::Terminating(until) if until <= now => self.phase = Phase::Killing,
            _ => {}
        }
        match self.phase {
            Phase::Running => None,
            Phase::Lingering(until) | Phase::Terminating(until) => Some(until),
            Phase::Killing => {
                procs::kill(|| procs::descendants(getpid()));
                Some(Instant::now() + procs::KILL_PAUSE)
            }
        }
    }

    /// Sends SIGTERM to all.
    fn terminate(&mut self, grace: Duration) {
        if !matches!(self.phase, Phase::Running | Phase::Lingering(_)) {
            return;
        }
        let all = procs::descendants(getpid());
        if self.ended.is_some() {
            self.left_behind = all.iter().filter(|proc| proc.is_alive()).count();
        }
        for proc in &all {
            // A process that we may not signal is waited for; the service reports it if that takes too long. A stopped
            // process gets SIGTERM only once it continues.
            let _ = proc.signal(Signal::TERM).and_then(|()| proc.signal(Signal::CONT));
        }
        self.phase = Phase::Terminating(Instant::now() + grace);
    }
}

/// What comes through the socket that is the standard input.
fn from_standard_input() -> io::Result<Start> {
    Start::receive(&UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}
