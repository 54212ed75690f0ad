//! The limit on the size of files (`ulimit -f`, `LimitFSIZE=`): a write that would exceed it is an error that is reported.
//!
//! By default the kernel ends a process that exceeds it with SIGXFSZ, which leaves no message.

use std::error::Error;
use std::io::{self, ErrorKind};

use rustix::process::{Resource, Signal, getrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// From now on a write that would exceed the limit returns EFBIG. To be called before anything is written. Commands that are
/// started later have the default behaviour, as `exec` removes handlers.
///
/// # Errors
/// When the system has no descriptors left.
pub fn survive() -> io::Result<()> {
    // A handler, because ignoring a signal is `unsafe`. It remains installed after the runtime and the stream are dropped.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _within = runtime.enter();
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

/// Whether an error, or one of its causes, is that a file would become too large.
#[must_use]
pub fn is_too_large(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::FileTooLarge) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The error as text, with what to change if a file would become too large.
#[must_use]
pub fn explained(error: &io::Error) -> String {
    if error.kind() != ErrorKind::FileTooLarge {
        return error.to_string();
    }
    format!("{error}: {}", reason(getrlimit(Resource::Fsize).current))
}

/// What to change if a file would become too large.
#[must_use]
pub fn hint() -> String {
    let limit_bytes = getrlimit(Resource::Fsize).current;
    let raise = if limit_bytes.is_some() { "raise " } else { "" };
    format!("{raise}{}", reason(limit_bytes))
}

fn reason(limit_bytes: Option<u64>) -> String {
    limit_bytes.map_or_else(|| "the file system takes no larger file".to_owned(), limit)
}

fn limit(bytes: u64) -> String {
    let size = bytesize::ByteSize(bytes);
    format!("the limit on file size of this process, {size} (ulimit -f, LimitFSIZE=)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_large_is_distinguished_from_other_errors() {
        let too_large = io::Error::from_raw_os_error(rustix::io::Errno::FBIG.raw_os_error());
        assert!(is_too_large(&too_large));
        let full = io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        assert!(!is_too_large(&full));
        assert_eq!(explained(&full), full.to_string());
        let path = "segments/1".into();
        let of_store = spillq_storage::Error::Io { attempted: "write", path, source: too_large };
        assert!(is_too_large(&of_store), "it is a cause of the error");
        assert_eq!(
            reason(Some(32 << 20)),
            "the limit on file size of this process, 32.0 MiB (ulimit -f, LimitFSIZE=)"
        );
        assert_eq!(reason(None), "the file system takes no larger file");
    }
}
