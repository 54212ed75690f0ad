//! A memory cgroup: the processes in it have this much memory, page cache included, and the kernel kills when they need more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::service::wait_for;
use crate::trouble::{During, Result, Trouble};

/// A memory cgroup of version 1 or 2. Removed when it is dropped.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    kills: &'static str,
}

impl MemoryGroup {
    /// Where one can be made, its file with the limit and that with the kills; or why none can.
    fn place() -> std::result::Result<(PathBuf, &'static str, &'static str), String> {
        let one = Path::new("/sys/fs/cgroup/memory");
        if one.join("memory.limit_in_bytes").exists() {
            return Ok((one.to_owned(), "memory.limit_in_bytes", "memory.oom_control"));
        }
        let two = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_to_string(two.join("cgroup.subtree_control")).unwrap_or_default();
        if controllers.split_whitespace().any(|name| name == "memory") {
            return Ok((two.to_owned(), "memory.max", "memory.events"));
        }
        Err("it needs a memory cgroup, of version 1, or enabled for children in version 2".to_owned())
    }

    /// Why none can be made here.
    pub fn lacks() -> Option<String> {
        MemoryGroup::place().err()
    }

    /// A new one of this name, which is unique on this machine.
    pub fn new(name: &str, limit_bytes: u64) -> Result<MemoryGroup> {
        let (root, limit, kills) = MemoryGroup::place().map_err(Trouble::new)?;
        let folder = root.join(name);
        fs::create_dir_all(&folder).during("make a cgroup")?;
        fs::write(folder.join(limit), limit_bytes.to_string()).during("limit a cgroup")?;
        Ok(MemoryGroup { folder, kills })
    }

    /// Processes that the kernel has killed in it.
    pub fn kills(&self) -> Result<u64> {
        let text = fs::read_to_string(self.folder.join(self.kills)).during("read a cgroup's kills")?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| Trouble::new("the cgroup does not count kills"))
    }

    /// The command, run in the cgroup, with this `oom_score_adj`.
    pub fn wrap(&self, inner: &Command, inclined: u32) -> Command {
        let mut command = Command::new("sh");
        let script = format!("echo {inclined} > /proc/self/oom_score_adj && echo $$ > \"$0\" && exec \"$@\"");
        let procs = self.folder.join("cgroup.procs").display().to_string();
        command.args(["-c", &script, &procs]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Empty as soon as the kernel has reaped everything in it.
        let _ = wait_for(|| fs::remove_dir(&self.folder).ok());
    }
}
