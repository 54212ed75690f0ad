//! Identifies the current boot of the host.

use std::fs;

/// The id of the current boot.
pub(super) fn boot_id() -> String {
    // If it cannot be read, all boots look the same, and only the counters of cgroups decide.
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
