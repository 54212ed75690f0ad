//! An advisory lock on LOCK, so that one process at a time has a store open. The file has the pid, for the error message.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

const NAME: &str = "LOCK";
/// A view of a store takes less time, except to verify or inspect a large one, which is then reported as the user. What a
/// killed process leaves is gone sooner, too.
const SHORT_WAIT: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Held until it is dropped; the kernel releases it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, exclusively to `write`, otherwise shared. A shared lock does not change the file.
    pub(crate) fn take(dir: &Path, write: bool) -> Result<Lock> {
        let path = dir.join(NAME);
        let io = |attempted, source| Error::Io { attempted, path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(write)
            .create(write)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| io("open", source))?;
        let until = Instant::now() + SHORT_WAIT;
        loop {
            let locked = if write { file.try_lock() } else { file.try_lock_shared() };
            match locked {
                Ok(()) => break,
                // Shared locks end soon: `status` in a loop must not keep the service from starting.
                Err(TryLockError::WouldBlock)
                    if write && Instant::now() < until && file.try_lock_shared().is_ok() =>
                {
                    file.unlock().map_err(|source| io("unlock", source))?;
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    file.rewind()
                        .and_then(|()| file.read_to_string(&mut pid))
                        .map_err(|source| io("read", source))?;
                    // A process that was killed between fork and exec of a command leaves the lock to the child until
                    // that has executed the command.
                    if Instant::now() < until && !is_alive(pid.trim()) {
                        std::thread::sleep(LOOK_AGAIN);
                        continue;
                    }
                    return Err(Error::InUse { path: dir.to_owned(), pid: pid.trim().to_owned() });
                }
                Err(TryLockError::Error(source)) => return Err(io("lock", source)),
            }
        }
        if write {
            let pid = format!("{}\n", std::process::id());
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| file.write_all(pid.as_bytes()))
                .map_err(|source| io("write the pid to", source))?;
        }
        Ok(Lock { _file: file })
    }
}

/// Whether a process runs. A zombie does not.
fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A child that has inherited a lock with that pid in it.
    fn held(dir: &Path, pid: u32, seconds: &str) -> Child {
        let lock = Lock::take(dir, true).unwrap();
        std::fs::write(dir.join(NAME), format!("{pid}\n")).unwrap();
        Command::new("sleep").arg(seconds).stdin(lock._file).spawn().unwrap()
    }

    /// Found by killing services: one that was killed between fork and exec of a command left its lock to the child. The
    /// next start was refused with status 2, after which systemd does not try again.
    #[test]
    fn a_lock_that_a_killed_process_left_to_its_child_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut killed = Command::new("true").spawn().unwrap();
        killed.wait().unwrap();
        let mut child = held(dir.path(), killed.id(), "0.3");
        let taken = Lock::take(dir.path(), true);
        child.wait().unwrap();
        assert!(taken.is_ok(), "{taken:?}");
    }

    #[test]
    fn a_lock_of_a_process_that_runs_is_refused_and_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = held(dir.path(), std::process::id(), "60");
        let taken = Lock::take(dir.path(), true);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(taken, Err(Error::InUse { pid, .. }) if pid == std::process::id().to_string()));
    }
}
