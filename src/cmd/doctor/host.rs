//! What surrounds a store: its file system, its permissions, the limits of the process and of the kernel, the clock.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::supervise::{Typed, Verdict};

/// Half of it is for followed files; with less, files that rotate away may be lost.
const DESCRIPTORS_MIN: u64 = 1_024;
/// One a followed folder; a desktop's programs use some hundred.
const WATCHES_MIN: u64 = 8_192;
/// 2025-01-01: a clock before it was never set.
const CLOCK_MIN_MS: u64 = 1_735_689_600_000;
/// File systems that do not keep what they were told to sync, or not over a restart: their magic numbers.
const DOUBTFUL: [(u64, &str); 6] = [
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x794c_7630, "overlay"),
    (0x0102_1994, "tmpfs"),
    (0x6573_5546, "fuse"),
];

/// What is wrong around the store in `data_dir`; notes are told and make nobody ill.
pub(super) fn check(data_dir: &Path, now_ms: u64) -> (Vec<Verdict>, Vec<String>) {
    let (mut wrong, mut notes) = (Vec::new(), Vec::new());
    let mut ill = |cause, summary: String, next: String| {
        wrong.push(Verdict { state: "blocked", cause: Some(cause), summary, next, ..Verdict::default() });
    };
    let typed = Typed::about(data_dir);
    let (shown, pasted) = (data_dir.display(), typed.data_dir());
    if let Ok(stat) = rustix::fs::statfs(data_dir) {
        let kind = u64::try_from(stat.f_type).unwrap_or_default() & 0xffff_ffff;
        if let Some((_, name)) = DOUBTFUL.iter().find(|(magic, _)| *magic == kind) {
            notes.push(format!("{shown} is on {name}: what was synced may not survive a power cut; use a local disk with ext4 or xfs"));
        }
    }
    match std::fs::metadata(data_dir) {
        Err(error) => {
            ill("permissions", format!("{shown} cannot be looked at: {error}"), format!("ls -ld {pasted}"))
        }
        Ok(folder) => {
            if folder.permissions().mode() & 0o077 != 0 {
                notes.push(format!("{shown} is open to other users: chmod 700 {pasted}"));
            }
            let own = rustix::process::geteuid().as_raw();
            if own != 0 && folder.uid() != own {
                ill(
                    "permissions",
                    format!("{shown} belongs to user {}, not to {own}", folder.uid()),
                    "run it as the user that owns the data dir".to_owned(),
                );
            }
        }
    }
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = descriptors.filter(|limit| *limit < DESCRIPTORS_MIN) {
        notes.push(format!("RLIMIT_NOFILE is {limit} here: at most {} files with unread bytes are kept open; ulimit -n {DESCRIPTORS_MIN}", limit / 2));
    }
    let watches = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").ok();
    if let Some(limit) =
        watches.and_then(|text| text.trim().parse::<u64>().ok()).filter(|limit| *limit < WATCHES_MIN)
    {
        notes.push(format!("fs.inotify.max_user_watches is {limit}: folders beyond it are only swept; sysctl fs.inotify.max_user_watches={WATCHES_MIN}"));
    }
    if now_ms < CLOCK_MIN_MS {
        ill(
            "clock",
            "the clock was never set: ages of lines will be wrong".to_owned(),
            "timedatectl".to_owned(),
        );
    }
    (wrong, notes)
}
