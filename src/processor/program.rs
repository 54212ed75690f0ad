//! A command and its surroundings: what is run, where, with which variables, and with which umask.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;

/// What `exec` and `exec-stream` run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program and its arguments. Without a slash it is looked up in the `PATH` that it gets itself.
    pub command: Vec<String>,
    /// A binary whose `main` begins with [`shim::main`](super::shim::main).
    pub shim: PathBuf,
    /// The time between SIGTERM and SIGKILL for what must end.
    pub grace: Duration,
    /// Its working directory; `None` for ours.
    pub cwd: Option<PathBuf>,
    /// Variables that it gets in addition to ours. They may hold secrets: never shown.
    pub env: Vec<(String, String)>,
    /// Sent to those of its processes that catch it shortly before the time-out ends them, so that they can report
    /// where they hang.
    pub dump_signal: Option<Signal>,
}

impl Program {
    /// Runs `command` in our working directory, with our variables.
    #[must_use]
    pub fn new(command: Vec<String>, shim: PathBuf, grace: Duration) -> Program {
        Program { command, shim, grace, cwd: None, env: Vec::new(), dump_signal: None }
    }
}

/// The umask of commands. A property of the process, as the umask itself is.
static UMASK: OnceLock<u32> = OnceLock::new();

/// From now on commands are started with this umask, whatever ours is. Without this call they inherit ours. Only the
/// first call counts.
pub fn set_command_umask(umask: u32) {
    UMASK.get_or_init(|| umask);
}

/// What was set.
pub(super) fn command_umask() -> Option<u32> {
    UMASK.get().copied()
}
