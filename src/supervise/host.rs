//! What the kernel says of this process's surroundings: its boot, and how often it killed for want of memory here.

use std::fs;

use serde::{Deserialize, Serialize};

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
    pub(super) fn of_self() -> Option<OomCount> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        files(&groups).into_iter().find_map(|file| OomCount::read(&file))
    }

    /// Of a file that was noted earlier.
    pub(super) fn read(file: &str) -> Option<OomCount> {
        let kills = kills_in(&fs::read_to_string(file).ok()?)?;
        Some(OomCount { file: file.to_owned(), kills })
    }
}

/// This boot of the host.
pub(super) fn boot_id() -> String {
    // Where it cannot be read all boots look alike, and the counters of cgroups decide alone.
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
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
}
