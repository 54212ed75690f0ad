//! What the kernel reports about this process. What it does not report is missing, never zero.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Linux counts the times of processes in this unit, `USER_HZ`, whatever the rate of its clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Process {
    pub start_seconds: Option<f64>,
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<f64>,
    pub peak_bytes: Option<f64>,
    pub threads: Option<f64>,
    pub open_files: Option<f64>,
    pub limit_files: Option<f64>,
}

impl Process {
    /// The current values.
    #[must_use]
    pub fn of_self() -> Process {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let kib = |key| field(&status, key).map(|kib| kib * 1024.0);
        let time = |at| stat_field(&stat, at).map(|ticked| ticked / TICKS_PER_SECOND);
        let booted = field(&boot, "btime");
        Process {
            start_seconds: booted.zip(time(22)).map(|(booted, since)| booted + since),
            cpu_seconds: time(14).zip(time(15)).map(|(user, system)| user + system),
            resident_bytes: kib("VmRSS:"),
            peak_bytes: kib("VmHWM:"),
            threads: field(&status, "Threads:"),
            open_files: fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64),
            limit_files: getrlimit(Resource::Nofile).current.map(|limit| limit as f64),
        }
    }
}

/// The bytes that this process has had written to disks. Not in every container, and not for every user.
#[must_use]
pub fn written_bytes() -> Option<f64> {
    field(&fs::read_to_string("/proc/self/io").ok()?, "write_bytes:")
}

/// The number behind `key` at the beginning of a line.
fn field(text: &str, key: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Field `at` of `/proc/self/stat`, from 1. The second, the name, is in brackets and may hold anything.
fn stat_field(stat: &str, at: usize) -> Option<f64> {
    let behind_name = stat.rsplit_once(')')?.1;
    behind_name.split_whitespace().nth(at.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_reports_all_values() {
        let one = Process::of_self();
        let is_there = |value: Option<f64>| value.is_some_and(|value| value > 0.0);
        assert!(is_there(one.start_seconds) && is_there(one.threads) && is_there(one.open_files), "{one:?}");
        assert!(is_there(one.resident_bytes) && one.peak_bytes >= one.resident_bytes, "{one:?}");
        assert!(one.cpu_seconds.is_some(), "{one:?}");
        let hostile = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 42 43 0";
        assert_eq!((stat_field(hostile, 14), stat_field(hostile, 15)), (Some(42.0), Some(43.0)));
    }
}
