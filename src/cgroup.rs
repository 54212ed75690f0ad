//! The memory cgroup of this process: its out-of-memory kills, and its limit.
//!
//! Commands that this process starts are in the same cgroup, unless they move.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Both versions of cgroups report a number above this, or the word `max`, if there is no limit.
const NO_LIMIT: u64 = 1 << 60;

/// The out-of-memory kills of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomCount {
    /// The file with the counter.
    pub file: String,
    /// OOM kills since the cgroup was created.
    pub kills: u64,
}

impl OomCount {
    /// The kills in the cgroup of this process; `None` if the kernel does not report them.
    #[must_use]
    pub fn of_self() -> Option<OomCount> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        files(&groups).into_iter().find_map(|file| OomCount::read(&file))
    }

    /// The kills by a file that was recorded earlier.
    #[must_use]
    pub fn read(file: &str) -> Option<OomCount> {
        let kills = kills_in(&fs::read_to_string(file).ok()?)?;
        Some(OomCount { file: file.to_owned(), kills })
    }

    /// The lowest memory limit of that cgroup and those around it; `None` without a limit.
    #[must_use]
    pub fn limit_bytes(&self) -> Option<u64> {
        let limit = |folder: &Path| {
            let text = ["memory.max", "memory.limit_in_bytes"].iter().find_map(|name| {
                // The root cgroup has no limit file.
                fs::read_to_string(folder.join(name)).ok()
            });
            text?.trim().parse().ok().filter(|bytes: &u64| *bytes < NO_LIMIT)
        };
        Path::new(&self.file).ancestors().skip(1).filter_map(limit).min()
    }
}

/// The resident memory of this process; `None` if the kernel does not report it.
#[must_use]
pub fn own_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kib.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Where the counters of the cgroups in `/proc/self/cgroup` can be: version 2 first. In a container the path is often not
/// visible, and the container's cgroup is mounted at the root.
fn files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(kinds), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let path = path.trim_end_matches('/');
        if kinds.is_empty() {
            for path in [path, ""] {
                files.push(format!("/sys/fs/cgroup{path}/memory.events"));
                files.push(format!("/sys/fs/cgroup/unified{path}/memory.events"));
            }
        } else if kinds.split(',').any(|kind| kind == "memory") {
            for path in [path, ""] {
                files.push(format!("/sys/fs/cgroup/memory{path}/memory.oom_control"));
            }
        }
    }
    files
}

fn kills_in(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_counters_are_found_and_read() {
        assert_eq!(files("0::/a/b\n").first().unwrap(), "/sys/fs/cgroup/a/b/memory.events");
        assert_eq!(
            files("8:pids:/x\n4:memory:/x\n").first().unwrap(),
            "/sys/fs/cgroup/memory/x/memory.oom_control"
        );
        assert_eq!(kills_in("low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"), Some(4));
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn the_lowest_limit_of_the_cgroups_around_counts() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let count = OomCount { file: inner.join("memory.events").display().to_string(), kills: 0 };
        assert_eq!(count.limit_bytes(), None);
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(count.limit_bytes(), None);
        fs::write(folder.path().join("a/memory.max"), "1048576\n").unwrap();
        assert_eq!(count.limit_bytes(), Some(1 << 20));
        fs::write(inner.join("memory.max"), "2097152\n").unwrap();
        assert_eq!(count.limit_bytes(), Some(1 << 20), "the one around is lower");
        fs::remove_file(inner.join("memory.max")).unwrap();
        fs::write(inner.join("memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(count.limit_bytes(), Some(1 << 20));
        assert!(own_bytes().unwrap() > 0);
    }
}
