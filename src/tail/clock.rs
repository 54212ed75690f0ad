//! The time, which the tail is given as an argument.

use crate::queue::{now_ms, wall_ms};

/// Both clocks, in milliseconds: one that runs on while the host sleeps, for waits, and wall-clock time, for display.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) boot_ms: u64,
    pub(crate) wall_ms: u64,
}

pub(crate) fn now() -> Now {
    Now { boot_ms: now_ms(), wall_ms: wall_ms() }
}
