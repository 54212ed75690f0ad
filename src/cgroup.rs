//! The memory cgroup of this process: how often the kernel killed in it for want of memory, and what its limit is.
//!
//! Commands that this process starts are in it too, as long as they do not move.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Of both versions: a limit that is none, rounded to pages.
const NO_LIMIT: u64 = 1 << 60;

/// A cgroup, and how often the kernel killed in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomCount {
    /// The file that says so.
    pub file: String,
    /// OOM kills since the cgroup was made.
    pub kills: u64,
}

impl OomCount {
    /// Of the cgroup that this process is in; `None` where the kernel does not tell.
    #[must_use]
    pub fn of_self() -> Option<OomCount> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        files(&groups).into_iter().find_map(|file| OomCount::read(&file))
    }

    /// Of a file that was noted earlier.
    #[must_use]
    pub fn read(file: &str) -> Option<OomCount> {
        let kills = kills_in(&fs::read_to_string(file).ok()?)?;
        Some(OomCount { file: file.to_owned(), kills })
    }

    /// The limit on memory of that cgroup, or of the cgroup around it that has the lowest; `None` without one.
    #[must_use]
    pub fn limit_bytes(&self) -> Option<u64> {
        let limit = |folder: &Path| {
            let text = ["memory.max", "memory.limit_in_bytes"].iter().find_map(|name| {
                // The topmost has none, and neither has a folder that is no cgroup.
                fs::read_to_string(folder.join(name)).ok()
            });
            // Without a limit: the word `max`, or a number of many digits.
            text?.trim().parse().ok().filter(|bytes: &u64| *bytes < NO_LIMIT)
        };
        Path::new(&self.file).ancestors().skip(1).filter_map(limit).min()
    }
}

/// What of the memory is this process's own; `None` where the kernel does not tell.
#[must_use]
pub fn own_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kib.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Where the counters of `/proc/self/cgroup` can be: v2 first. In a container the path is often not visible and the
/// own cgroup is mounted at the root.
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
    fn the_limit_that_counts_is_the_lowest_of_those_around() {
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
