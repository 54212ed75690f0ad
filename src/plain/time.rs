//! Times in wall-clock time.

use std::time::{Duration, UNIX_EPOCH};

/// Milliseconds since 1970 as RFC 3339.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}
