//! Wakes the tail from any thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Ends a wait.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    /// It has rung, and nobody has heard it yet: a second ring would tell nothing more. Files that are written to while they are
    /// read ring thousands of times a second.
    has_rung: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell(Arc::new(Inner { fd, has_rung: AtomicBool::new(false) })))
    }

    /// Rings. Several rings before a wait end one wait.
    pub(crate) fn ring(&self) {
        if !self.0.has_rung.swap(true, Ordering::AcqRel) {
            // It fails only after 2^64 rings without a wait: it has rung, then.
            let _ = rustix::io::write(&self.0.fd, &1_u64.to_ne_bytes());
        }
    }

    /// It was heard: the next ring ends another wait. Call this before looking at what it rang for.
    pub(crate) fn heard(&self) {
        // A swap, as the look comes after it: whoever rings at the same time either sees it, and rings, or is seen.
        self.0.has_rung.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}
