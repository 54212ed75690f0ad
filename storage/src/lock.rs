//! One process at a time has a store open: an advisory lock on LOCK, which holds the pid for the message.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

const NAME: &str = "LOCK";
/// A look at a store takes less, but for `verify` and `inspect` of a large one, which are then told as the user.
const LOOKERS_WAIT: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Held as long as it lives; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, for writing or only for looking. A look leaves no trace.
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
        let until = Instant::now() + LOOKERS_WAIT;
        loop {
            let locked = if write { file.try_lock() } else { file.try_lock_shared() };
            match locked {
                Ok(()) => break,
                // Those who only look are soon gone: `status` in a loop must not keep the service from starting.
                Err(TryLockError::WouldBlock)
                    if write && Instant::now() < until && file.try_lock_shared().is_ok() =>
                {
                    file.unlock().map_err(|source| io("unlock", source))?;
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    file.read_to_string(&mut pid).map_err(|source| io("read", source))?;
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
