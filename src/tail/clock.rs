//! The time, which the tail is given as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Both clocks, in milliseconds: one that runs on while the host sleeps, for waits, and wall-clock time, for display.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) boot_ms: u64,
    pub(crate) wall_ms: u64,
}

pub(crate) fn now() -> Now {
    // Runs on while the host sleeps, unlike Instant.
    let boot = clock_gettime(ClockId::Boottime);
    let boot_ms = boot.tv_sec as u64 * 1_000 + boot.tv_nsec as u64 / 1_000_000;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { boot_ms, wall_ms: wall.as_millis() as u64 }
}
