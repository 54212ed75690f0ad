//! One process at a time has a store open: an advisory lock on LOCK, which holds the pid for the message.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Result};

const NAME: &str = "LOCK";

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
        let locked = if write { file.try_lock() } else { file.try_lock_shared() };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(|source| io("read", source))?;
                return Err(Error::InUse { path: dir.to_owned(), pid: pid.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock", source)),
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
