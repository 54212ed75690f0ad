//! Two clocks. The clock for deadlines never jumps, and continues while the host sleeps. Wall-clock time is for display
//! and for the age of lines only.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the host booted, on the clock for deadlines.
#[must_use]
pub fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000
        + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000_000
}

/// Milliseconds since 1970, in wall-clock time.
#[must_use]
pub fn wall_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A duration in milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
