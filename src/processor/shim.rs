//! The shim: the small process between the service and a command, which makes "ended whole" true.
//!
//! The service starts its own binary again as the shim, one a batch. The shim adopts whatever the command leaves
//! behind (it is their subreaper), so that as long as it has children something of the command is alive, daemons
//! that forked twice included, and once it has none nothing is. It ends when that is so, and never before.
//!
//! Its standard input is a socket to the service, which is three things: the batch comes through it as a descriptor,
//! the report goes back through it, and its end of file says that the service let go: the time-out passed, or the
//! service is gone, however it went. Then everything is ended: SIGTERM, and SIGKILL after the grace.
//!
//! The command runs in a process group of its own, and so does the shim: Ctrl-C in a terminal, or a SIGTERM to all
//! processes of a unit, reaches the service, which decides whether the batch may finish. The shim itself ignores
//! such signals; only SIGKILL ends it early. Then the command goes with it, and the service looks for the rest.
//!
//! It must never write to standard output or standard error, which are the command's, and never hold a batch in memory.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, set_child_subreaper, set_parent_process_death_signal,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::Program;
use super::procs;
use super::report::Report;

/// The hidden subcommand of the shim.
pub(super) const SHIM: &str = "__exec-shim";
/// The hidden subcommand of what becomes the command: `set_parent_process_death_signal` must be called by the
/// command's own process, and between fork and exec that would be unsafe code.
const BECOME: &str = "__exec-become";
/// In place of the umask: the one that is inherited stays.
const UMASK_STAYS: &str = "-";
/// What a command leaves running may end by itself for so long: `tee >(gzip)` in a shell is a moment behind the
/// shell. Who needs longer must wait for it, for a batch that is acked ought to be done.
const SETTLE: Duration = Duration::from_millis(100);
/// The exit status by convention for a command that was found and cannot be run.
const EXIT_CANNOT_RUN: u8 = 126;
/// The exit status by convention for a command that was not found.
const EXIT_NOT_FOUND: u8 = 127;
/// EX_OSERR of sysexits.h: the host has not got what it takes just now, memory or processes. No reason to refuse.
const EXIT_HOST: u8 = 71;

/// The arguments of the shim behind [`SHIM`]. Variables of the command are not among them: they are in the
/// environment of the shim, which other users cannot read.
pub(super) fn args(program: &Program, umask: Option<u32>) -> Vec<OsString> {
    let grace = program.grace.as_millis().to_string();
    let umask = umask.map_or(UMASK_STAYS.to_owned(), |umask| format!("{umask:03o}"));
    let cwd = program.cwd.clone().unwrap_or_default();
    let command = program.command.iter().map(OsString::from);
    [grace.into(), umask.into(), cwd.into()].into_iter().chain(command).collect()
}

/// Acts as the shim, if `args` (with the program's name) say so, until it is time to exit. `None` where they do
/// not. To be called first thing in `main`, before there are threads.
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

/// `command` is all that what becomes the command is told behind its parent.
fn supervise(grace: Duration, command: Vec<OsString>) -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let socket = UnixStream::from(socket);
    let report = match run(&socket, grace, &command) {
        Ok(report) => report,
        Err(error) => Report::Broken(error.to_string()),
    };
    // The service may have gone; the batch is then delivered again.
    let sent = report.send(&socket);
    if sent.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(socket: &UnixStream, grace: Duration, command: &[OsString]) -> io::Result<Report> {
    set_child_subreaper(Some(getpid()))?;
    let batch = receive_batch(socket)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // `block_on` stays on this thread: the command's death signal is tied to the thread that started it.
    runtime.block_on(async {
        // Signals with a handler do not end the shim, and are reset to their defaults for the command.
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
        let child = start(command, batch)?;
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
                // The service sends nothing after the batch: readable is the end.
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

/// Starts what becomes the command, reading the batch.
fn start(command: &[OsString], batch: OwnedFd) -> io::Result<std::process::Child> {
    Command::new("/proc/self/exe")
        .arg0("spillq")
        .arg(BECOME)
        .arg(getpid().as_raw_pid().to_string())
        .args(command)
        .stdin(Stdio::from(batch))
        .process_group(0)
        .spawn()
}

/// Turns this process into the command. Comes back only if that fails, with a reason on standard error, where it
/// becomes evidence.
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
    if let Some(umask) = umask {
        // Here and not in the shim: nothing that is ours may become readable by others.
        rustix::process::umask(Mode::from_bits_truncate(umask));
    }
    if let Some(cwd) = cwd
        && let Err(error) = std::env::set_current_dir(&cwd)
    {
        return fail(format!("cannot enter {}: {error}", cwd.display()), exit_code(&error));
    }
    let error = Command::new(program).args(args).exec();
    fail(format!("cannot run {}: {error}", program.display()), exit_code(&error))
}

/// The exit status for a command that did not come to run.
fn exit_code(error: &io::Error) -> u8 {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => EXIT_NOT_FOUND,
        Some(Errno::AGAIN | Errno::NOMEM | Errno::NFILE | Errno::MFILE | Errno::TXTBSY | Errno::IO) => {
            EXIT_HOST
        }
        _ => EXIT_CANNOT_RUN,
    }
}

/// What happens to the command and its descendants now.
enum Phase {
    /// The command runs and the service waits for it.
    Running,
    /// The command has ended; what it left may end by itself until then.
    Settling(Instant),
    /// All were told to end, and may until then.
    Terminating(Instant),
    /// All are killed, again and again until none is left.
    Killing,
}

struct Watch {
    command: Pid,
    ended: Option<ExitStatus>,
    phase: Phase,
    /// How many processes were still there when they were told to end after the command.
    left_behind: usize,
}

impl Watch {
    /// Buries the children that have ended. `false` once there are none: then nothing of the command is alive.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.command => {
                    self.ended = Some(ExitStatus::from_raw(status.as_raw()));
                    if matches!(self.phase, Phase::Running) {
                        self.phase = Phase::Settling(Instant::now() + SETTLE);
                    }
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return Ok(true),
                Err(Errno::CHILD) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Does what is due, and says when it must be called again.
    fn advance(&mut self, grace: Duration) -> Option<Instant> {
        let now = Instant::now();
        match self.phase {
            Phase::Settling(until) if until <= now => self.terminate(grace),
            Phase::Terminating(until) if until <= now => self.phase = Phase::Killing,
            _ => {}
        }
        match self.phase {
            Phase::Running => None,
            Phase::Settling(until) | Phase::Terminating(until) => Some(until),
            Phase::Killing => {
                procs::kill(|| procs::descendants(getpid()));
                Some(Instant::now() + procs::KILL_PAUSE)
            }
        }
    }

    /// Tells all to end.
    fn terminate(&mut self, grace: Duration) {
        if !matches!(self.phase, Phase::Running | Phase::Settling(_)) {
            return;
        }
        let all = procs::descendants(getpid());
        if self.ended.is_some() {
            self.left_behind = all.iter().filter(|proc| proc.is_alive()).count();
        }
        for proc in &all {
            // One that may not be signalled is waited for: the service says so when that takes too long. A stopped
            // one gets SIGTERM only once it goes on.
            let _ = proc.signal(Signal::TERM).and_then(|()| proc.signal(Signal::CONT));
        }
        self.phase = Phase::Terminating(Instant::now() + grace);
    }
}

/// The batch, from the service's first and only message.
fn receive_batch(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received =
        recvmsg(socket, &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let batch = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    match batch {
        Some(batch) if received.bytes == 1 => Ok(batch),
        _ => Err(io::Error::other("the service ended before it handed over the batch")),
    }
}
