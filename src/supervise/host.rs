//! Which boot of the host this is.

use std::fs;

/// This boot of the host.
pub(super) fn boot_id() -> String {
    // Where it cannot be read all boots look alike, and the counters of cgroups decide alone.
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
