//! What surrounds a store: its file system, its permissions, the limits of the process and of the kernel, the clock.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::queue::wall_ms;
use crate::supervise::{Cause, Commands, Events, Started, State, Verdict};

/// Half of it is for followed files; with less, files that rotate away may be lost.
const DESCRIPTORS_MIN: u64 = 1_024;
/// One a followed folder; a desktop's programs use some hundred.
const WATCHES_MIN: u64 = 8_192;
/// 2025-01-01: a clock before it was never set.
const CLOCK_MIN_MS: u64 = 1_735_689_600_000;
/// A clock that was set by less means nothing.
const CLOCK_STEP_MS: u64 = 60_000;
/// File systems that do not keep what they were told to sync, or not over a restart: their magic numbers.
const DOUBTFUL: [(u64, &str); 6] = [
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x794c_7630, "overlay"),
    (0x0102_1994, "tmpfs"),
    (0x6573_5546, "fuse"),
];

/// What was found around a store; `None` where it could not be told, which makes nobody ill.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    data_dir: PathBuf,
    /// The magic number of its file system.
    file_system: Option<u64>,
    /// Owner and mode of the data dir, or why it cannot be looked at.
    folder: Option<Result<(u32, u32), String>>,
    /// The user that asks.
    own: u32,
    /// Whether a service has the store open.
    runs: bool,
    /// Whether the kernel can be asked about processes.
    has_proc: bool,
    /// RLIMIT_NOFILE, and whose it is.
    descriptors: Option<(u64, &'static str)>,
    /// `fs.inotify.max_user_watches`.
    watches_max: Option<u64>,
    /// Folders that are watched, of those with followed files.
    watched: Option<u64>,
    folders: u64,
    /// The latest time that the store knows of, and now.
    newest_ms: u64,
    now_ms: u64,
}

impl Host {
    /// Looks. `sources` are the followed files that are known, `runs` whether a service has the store open.
    pub(super) fn look(data_dir: &Path, sources: &[PathBuf], runs: bool) -> Host {
        let file_system = rustix::fs::statfs(data_dir).ok();
        let folder = fs::metadata(data_dir)
            .map(|folder| (folder.uid(), folder.permissions().mode() & 0o7777))
            .map_err(|error| error.to_string());
        let pid = Some(data_dir.join("LOCK")).filter(|_| runs).and_then(number_in);
        let limits = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/limits")).ok());
        let of_service = limits.as_deref().and_then(descriptors_in).map(|limit| (limit, "of the service"));
        let own_limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        // Events are written by the service, in order, at each of its changes.
        let events = Events::look(data_dir).unwrap_or_default();
        Host {
            data_dir: data_dir.to_owned(),
            file_system: file_system.map(|stat| u64::try_from(stat.f_type).unwrap_or_default() & 0xffff_ffff),
            folder: Some(folder),
            own: rustix::process::geteuid().as_raw(),
            runs,
            has_proc: Path::new("/proc/self/stat").exists(),
            descriptors: of_service.or(own_limit.filter(|_| !runs).map(|limit| (limit, "here"))),
            watches_max: number_in("/proc/sys/fs/inotify/max_user_watches".into()),
            watched: pid.and_then(watches_of),
            folders: sources.iter().filter_map(|path| path.parent()).collect::<BTreeSet<_>>().len() as u64,
            newest_ms: events.iter().map(|entry| entry.time_ms).max().unwrap_or_default(),
            now_ms: wall_ms(),
        }
    }

    /// What is wrong; notes are told and make nobody ill.
    pub(super) fn judge(&self) -> (Vec<Verdict>, Vec<String>) {
        let (mut wrong, mut notes) = (Vec::new(), Vec::new());
        let mut ill = |cause, summary: String, evidence: String, next: String| {
            let evidence = vec![evidence];
            wrong.push(Verdict {
                state: State::Blocked,
                cause: Some(cause),
                summary,
                evidence,
                next,
                ..Verdict::default()
            });
        };
        let commands = Commands::about(&self.data_dir, Started::default());
        let (shown, pasted) = (self.data_dir.display(), commands.data_dir());
        if let Some((_, name)) = DOUBTFUL.iter().find(|(magic, _)| Some(*magic) == self.file_system) {
            notes.push(format!("{shown} is on {name}: what was synced may not survive a power cut; use a local disk with ext4 or xfs"));
        }
        match &self.folder {
            None => {}
            Some(Err(error)) => ill(
                Cause::Permissions,
                format!("{shown} cannot be looked at"),
                error.clone(),
                format!("ls -ld {pasted}"),
            ),
            Some(Ok((owner, mode))) => {
                // Root reads every store; and a service that runs on it was started by the right user.
                if *owner != self.own && self.own != 0 {
                    ill(
                        Cause::Permissions,
                        format!("{shown} belongs to another user"),
                        format!("it is owned by user {owner}, and this is user {}", self.own),
                        format!("ls -ld {pasted}    # run spillq as the user that owns it"),
                    );
                } else if *owner != self.own && !self.runs {
                    notes.push(format!(
                        "{shown} is owned by user {owner}: start the service as that user, not as root"
                    ));
                }
                if mode & 0o077 != 0 {
                    ill(
                        Cause::Permissions,
                        format!("{shown} is open to other users, and a service will not start on it"),
                        format!("its mode is {mode:o}"),
                        format!("chmod 700 {pasted}"),
                    );
                }
            }
        }
        if !self.has_proc {
            notes.push("/proc is not mounted: out-of-memory kills, where a command hangs, and the limits of the service cannot be reported".to_owned());
        }
        if let Some((limit, whose)) = self.descriptors.filter(|(limit, _)| *limit < DESCRIPTORS_MIN) {
            notes.push(format!("RLIMIT_NOFILE {whose} is {limit}: at most {} files with unread bytes are kept open; ulimit -n {DESCRIPTORS_MIN}, or LimitNOFILE of the unit", limit / 2));
        }
        let wanted = WATCHES_MIN.max(2 * self.folders);
        match (self.watched, self.watches_max) {
            (Some(watched), _) if watched < self.folders => notes.push(format!("of {} followed folders {watched} are watched: what happens in the others is found by scans alone, some seconds later; sysctl fs.inotify.max_user_watches={wanted}", self.folders)),
            (_, Some(limit)) if limit < wanted => notes.push(format!("fs.inotify.max_user_watches is {limit}, and {} folders are followed: those beyond it are only swept; sysctl fs.inotify.max_user_watches={wanted}", self.folders)),
            _ => {}
        }
        if self.now_ms < CLOCK_MIN_MS {
            ill(
                Cause::Clock,
                "the clock was never set: ages of lines will be wrong".to_owned(),
                format!("it is {} s after 1970", self.now_ms / 1_000),
                "timedatectl".to_owned(),
            );
        } else if let Some(back) = self.newest_ms.checked_sub(self.now_ms).filter(|by| *by >= CLOCK_STEP_MS) {
            notes.push(format!("the clock is {} s behind what the store last noted: it was set back; ages of lines are wrong until it catches up, deadlines and order are not", back / 1_000));
        }
        (wrong, notes)
    }
}

fn number_in(path: PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

/// The soft limit in `/proc/PID/limits`.
fn descriptors_in(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// inotify watches that a process has, from what the kernel tells of its descriptors.
fn watches_of(pid: u64) -> Option<u64> {
    let mut watches = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()? {
        // A descriptor that was closed meanwhile watches nothing.
        let Ok(text) = fs::read_to_string(entry.ok()?.path()) else { continue };
        watches += text.lines().filter(|line| line.starts_with("inotify ")).count() as u64;
    }
    Some(watches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Host {
        Host {
            data_dir: PathBuf::from("/a b"),
            file_system: Some(0xef53),
            folder: Some(Ok((7, 0o700))),
            own: 7,
            runs: false,
            has_proc: true,
            descriptors: Some((1_024, "here")),
            watches_max: Some(8_192),
            watched: Some(3),
            folders: 3,
            newest_ms: CLOCK_MIN_MS,
            now_ms: CLOCK_MIN_MS,
        }
    }

    #[track_caller]
    fn is_ill(host: Host, cause: Cause, next: &str) {
        let (wrong, notes) = host.judge();
        let found: Vec<_> = wrong.iter().map(|found| (found.cause, found.next.as_str())).collect();
        assert_eq!(found, [(Some(cause), next)]);
        assert!(notes.is_empty() && !wrong[0].evidence[0].is_empty(), "{wrong:#?} {notes:?}");
    }

    #[track_caller]
    fn is_noted(host: Host, note: &str) {
        let (wrong, notes) = host.judge();
        assert!(wrong.is_empty() && notes.len() == 1 && notes[0].contains(note), "{wrong:#?} {notes:?}");
    }

    #[test]
    fn what_is_as_it_should_be_is_not_told() {
        let nothing = |host: Host| host.judge().0.is_empty() && host.judge().1.is_empty();
        assert!(nothing(well()));
        // Root may look at the store of a service that runs as another user.
        assert!(nothing(Host { own: 0, runs: true, ..well() }));
        // What cannot be told is not held against anybody.
        assert!(nothing(Host {
            folder: None,
            file_system: None,
            descriptors: None,
            watched: None,
            watches_max: None,
            ..well()
        }));
        // A step of the clock that is no more than what set it.
        assert!(nothing(Host { newest_ms: CLOCK_MIN_MS + CLOCK_STEP_MS - 1, ..well() }));
    }

    #[test]
    fn what_is_not_is_told_with_what_to_do() {
        let gone = Some(Err("No such file or directory".to_owned()));
        is_ill(Host { folder: gone, ..well() }, Cause::Permissions, "ls -ld '/a b'");
        let of_another = "ls -ld '/a b'    # run spillq as the user that owns it";
        is_ill(Host { own: 8, ..well() }, Cause::Permissions, of_another);
        is_noted(Host { own: 0, ..well() }, "is owned by user 7: start the service as that user");
        is_noted(Host { has_proc: false, ..well() }, "/proc is not mounted");
        is_ill(Host { folder: Some(Ok((7, 0o750))), ..well() }, Cause::Permissions, "chmod 700 '/a b'");
        is_ill(Host { now_ms: 1_000, newest_ms: 0, ..well() }, Cause::Clock, "timedatectl");
        for (magic, name) in DOUBTFUL {
            is_noted(Host { file_system: Some(magic), ..well() }, &format!("is on {name}"));
        }
        is_noted(Host { descriptors: Some((64, "of the service")), ..well() }, "at most 32 files");
        is_noted(Host { watches_max: Some(100), ..well() }, "max_user_watches is 100, and 3 folders");
        is_noted(Host { folders: 10_000, watched: Some(4_096), ..well() }, "of 10000 followed folders 4096");
        is_noted(Host { newest_ms: CLOCK_MIN_MS + 3_600_000, ..well() }, "3600 s behind");
    }

    #[test]
    fn limits_of_a_process_are_read() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            64                   4096                 files\n";
        assert_eq!(descriptors_in(limits), Some(64));
        for torn in ["", "Max open files", "Max open files unlimited"] {
            assert_eq!(descriptors_in(torn), None, "{torn}");
        }
        assert!(watches_of(u64::from(std::process::id())).is_some());
        assert_eq!(watches_of(u64::MAX), None);
    }
}
