//! Whether the kernel killed a command because memory ran out: SIGKILL, and a count of OOM kills that has risen meanwhile.
//!
//! Commands share the memory cgroup of this process. Its count is read twice per batch.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::Signal;

use crate::cgroup::{OomCount, own_bytes};
use crate::queue::OomKill;

/// By the convention of shells: what a shell waited for was killed by SIGKILL.
const EXIT_KILLED: i32 = 128 + 9;

/// The count of the cgroup at earlier times.
#[derive(Debug, Default)]
pub(super) struct OomWatch {
    /// At the first batch; `None` if the kernel does not show it.
    first: Option<OomCount>,
    has_looked: bool,
    /// At the latest batch.
    before: u64,
}

impl OomWatch {
    /// A command starts, or a long-lived one gets a batch.
    pub(super) fn begin(&mut self) {
        if !self.has_looked {
            self.has_looked = true;
            self.first = OomCount::of_self();
        }
        let now = self.first.as_ref().and_then(|first| OomCount::read(&first.file));
        self.before = now.map_or(u64::MAX, |now| now.kills);
    }

    /// What is known of the kill, if the kernel has killed since [`OomWatch::begin`] and the command ended as if it was
    /// killed. Call it only for an end that we did not cause.
    pub(super) fn ended(&self, status: ExitStatus) -> Option<OomKill> {
        let is_kill = status.signal() == Some(Signal::KILL.as_raw()) || status.code() == Some(EXIT_KILLED);
        let first = self.first.as_ref().filter(|_| is_kill)?;
        // The kernel increments the count before it kills.
        let kills = OomCount::read(&first.file)?.kills;
        (kills > self.before).then(|| OomKill {
            kills: kills.saturating_sub(first.kills),
            limit_bytes: first.limit_bytes(),
            own_bytes: own_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_a_kill_while_the_count_rises_is_for_want_of_memory() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.events");
        let count = |kills: u64| fs::write(&file, format!("oom 9\noom_kill {kills}\n")).unwrap();
        fs::write(folder.path().join("memory.max"), "4096\n").unwrap();
        let (killed, by_shell) = (ExitStatus::from_raw(9), ExitStatus::from_raw(137 << 8));
        let others = [0, 3 << 8, 1 << 8, 15, 11].map(ExitStatus::from_raw);
        count(5);
        let file_name = file.display().to_string();
        let first = OomCount::read(&file_name);
        let mut watch = OomWatch { first, has_looked: true, before: 0 };
        watch.begin();
        assert_eq!(watch.ended(killed), None, "another process killed it");
        count(6);
        let kill = watch.ended(killed).unwrap();
        assert_eq!((kill.kills, kill.limit_bytes), (1, Some(4096)));
        assert!(kill.own_bytes.is_some());
        assert_eq!(watch.ended(by_shell), watch.ended(killed));
        for other in others {
            assert_eq!(watch.ended(other), None, "{other:?}");
        }
        watch.begin();
        assert_eq!(watch.ended(killed), None, "the kill was before");
        count(8);
        assert_eq!(watch.ended(killed).unwrap().kills, 3);
        fs::remove_file(&file).unwrap();
        assert_eq!(watch.ended(killed), None);
        watch.begin();
        count(9);
        assert_eq!(watch.ended(killed), None, "what was not known before cannot have risen");
    }
}
