//! A command and its environment: what is run, in which folder, with which variables, and with which umask.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;

/// What `exec` and `exec-stream` run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program and its arguments. A program without a slash is looked up in the `PATH` that it is given.
    pub command: Vec<String>,
    /// A binary whose `main` begins with [`shim::main`](super::shim::main).
    pub shim: PathBuf,
    /// The time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Its working directory; `None` for ours.
    pub cwd: Option<PathBuf>,
    /// Variables in addition to ours. They may hold secrets, and are never shown.
    pub env: Vec<(String, String)>,
    /// Sent shortly before the time-out to those of its processes that catch it, so that they can report where they hang.
    pub dump_signal: Option<Signal>,
}

impl Program {
    /// Runs `command` in our working directory, with our variables.
    #[must_use]
    pub fn new(command: Vec<String>, shim: PathBuf, grace: Duration) -> Program {
        Program { command, shim, grace, cwd: None, env: Vec::new(), dump_signal: None }
    }
}

/// The umask of commands. One for the process, as the umask itself is.
static UMASK: OnceLock<u32> = OnceLock::new();

/// Sets the umask for commands that are started from now on. Without this call they inherit ours. Only the first call
/// counts.
pub fn set_command_umask(umask: u32) {
    UMASK.get_or_init(|| umask);
}

/// The umask that was set.
pub(super) fn command_umask() -> Option<u32> {
    UMASK.get().copied()
}
