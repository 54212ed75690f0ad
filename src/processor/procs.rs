//! The table of processes: descendants, and signals that reach exactly the process that was meant.
//!
//! It reads all of `/proc/*/stat`, about 10 µs per process, so it is for rare paths only: ending what a command left
//! behind, and reporting where a command hangs. It never signals by pid alone: a pid may be another process by the time the
//! signal is sent.

use std::fs;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Kills are repeated until every process that is seen was killed, at most this many times in a row. A command that forks
/// faster is killed again after [`KILL_PAUSE`].
const KILL_ROUNDS_MAX: usize = 16;
/// The time between two looks at processes that are being killed: not noticeable, and much longer than a look takes.
pub(super) const KILL_PAUSE: Duration = Duration::from_millis(10);

/// One process, at the time when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proc {
    pub(super) pid: Pid,
    parent: i32,
    /// The name of its program, at most 15 bytes. Not safe to print: the program can choose it.
    pub(super) name: String,
    /// `R`, `S`, `D`, `T`, `Z`, ... as in proc(5).
    pub(super) state: char,
    /// In clock ticks since boot. It identifies the process together with the pid.
    start: u64,
}

impl Proc {
    /// The process that has `pid` now; `None` if there is none, or it cannot be read.
    fn read(pid: Pid) -> Option<Proc> {
        let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
        Proc::parse(pid, &String::from_utf8_lossy(&stat))
    }

    /// `stat` is `pid (name) state parent ...`; the name may contain anything, parentheses included.
    fn parse(pid: Pid, stat: &str) -> Option<Proc> {
        let (before, after) = stat.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let mut fields = after.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        // The start time is field 22, the parent is field 4.
        let start = fields.nth(17)?.parse().ok()?;
        Some(Proc { pid, parent, name: name.to_owned(), state, start })
    }

    /// Whether it can still run: a zombie only waits to be reaped by its parent.
    pub(super) fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// Whether it has a handler for `signal`. `false` if that cannot be read.
    pub(super) fn catches(&self, signal: Signal) -> bool {
        let status = fs::read(format!("/proc/{}/status", self.pid.as_raw_pid())).unwrap_or_default();
        self.is_alive() && caught_in(&String::from_utf8_lossy(&status), signal)
    }

    /// Where in the kernel it waits, if the kernel shows that.
    pub(super) fn waits_in(&self) -> Option<String> {
        let place = fs::read_to_string(format!("/proc/{}/wchan", self.pid.as_raw_pid())).ok()?;
        let place: String = place.chars().filter(char::is_ascii_graphic).take(64).collect();
        (!place.is_empty() && place != "0").then_some(place)
    }

    /// Sends `signal` to exactly this process. It is not an error if it has ended meanwhile.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let pidfd = match pidfd_open(self.pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(()),
            other => other?,
        };
        // The descriptor refers to one process for ever; only now can it be checked which.
        match Proc::read(self.pid) {
            Some(now) if now.start == self.start => {}
            _ => return Ok(()),
        }
        match pidfd_send_signal(&pidfd, signal) {
            Err(Errno::SRCH) => Ok(()),
            other => other,
        }
    }
}

/// `SigCgt` of proc(5): the mask of signals with a handler, in hexadecimal.
fn caught_in(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
}

/// Whether the table of processes can be read.
pub(super) fn can_look() -> bool {
    fs::exists("/proc/self/stat").unwrap_or(false)
}

/// All processes.
fn all() -> impl Iterator<Item = Proc> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter_map(Proc::read)
}

/// All descendants of `root`, without `root`.
pub(super) fn descendants(root: Pid) -> Vec<Proc> {
    let mut others: Vec<Proc> = all().collect();
    let mut found: Vec<Proc> = Vec::new();
    let mut parents = vec![root.as_raw_pid()];
    while let Some(parent) = parents.pop() {
        for child in others.extract_if(.., |proc| proc.parent == parent) {
            parents.push(child.pid.as_raw_pid());
            found.push(child);
        }
    }
    found
}

/// All processes that were started with `variable` (`NAME=value`) in their environment, as far as we may read it. This
/// finds processes whose ancestors are gone.
pub(super) fn started_with(variable: &str) -> Vec<Proc> {
    let has_it = |proc: &Proc| {
        fs::read(format!("/proc/{}/environ", proc.pid.as_raw_pid()))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes()))
    };
    all().filter(has_it).collect()
}

/// Sends SIGKILL to the processes of `look()` that still run, until no new ones are seen. Returns those that were seen running.
/// Look again afterwards: a kill takes a moment, and is refused for a process of another user.
pub(super) fn kill(look: impl Fn() -> Vec<Proc>) -> Vec<Proc> {
    let mut killed: Vec<Proc> = Vec::new();
    for _ in 0..KILL_ROUNDS_MAX {
        let is_known =
            |proc: &Proc| killed.iter().any(|known| (known.pid, known.start) == (proc.pid, proc.start));
        let fresh: Vec<Proc> = look().into_iter().filter(|proc| proc.is_alive() && !is_known(proc)).collect();
        if fresh.is_empty() {
            break;
        }
        for proc in &fresh {
            // Refused for a process of another user: the caller sees that it still runs.
            let _ = proc.signal(Signal::KILL);
        }
        killed.extend(fresh);
    }
    killed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_parentheses_and_blanks() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        let proc = Proc::parse(Pid::from_raw(42).unwrap(), stat).unwrap();
        assert_eq!((proc.name.as_str(), proc.state, proc.parent, proc.start), ("a) b (c", 'S', 7, 98765));
    }

    #[test]
    fn a_handler_is_known_by_its_bit() {
        let status = "Name:\tSigCgt: x\nSigIgn:\t0000000000000200\nSigCgt:\t0000000000000a00\n";
        for (signal, expected) in [(Signal::USR1, true), (Signal::USR2, true), (Signal::HUP, false)] {
            let bit = 1_u64 << (signal.as_raw() - 1);
            assert_eq!(0xa00 & bit != 0, expected);
            assert_eq!(caught_in(status, signal), expected, "{signal:?}");
        }
        assert!(!caught_in("", Signal::USR1) && !caught_in("SigCgt:\tx\n", Signal::USR1));
        assert!(can_look());
    }

    #[test]
    fn a_child_is_among_the_descendants_and_can_be_signalled() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let own = rustix::process::getpid();
        let found = descendants(own).into_iter().find(|proc| proc.pid.as_raw_pid() == child.id() as i32);
        found.unwrap().signal(Signal::KILL).unwrap();
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_signal_never_reaches_another_process_with_the_same_pid() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let mut proc = Proc::read(pid).unwrap();
        proc.start += 1;
        proc.signal(Signal::KILL).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
