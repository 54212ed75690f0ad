//! The surroundings of a store: its file system, its permissions, the limits of the process and of the kernel, the clock.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::plain::duration;
use crate::queue::wall_ms;
use crate::supervise::{Cause, Commands, Events, Started, State, Verdict};

/// Half of them are for followed files. With fewer, files that are rotated away may be lost.
const DESCRIPTORS_MIN: u64 = 1_024;
/// One per followed folder. The programs of a desktop use some hundred.
const WATCHES_MIN: u64 = 8_192;
/// 2025-01-01: an earlier clock was never set.
const CLOCK_MIN_MS: u64 = 1_735_689_600_000;
/// Smaller corrections of the clock are ignored.
const CLOCK_STEP_MS: u64 = 60_000;
/// File systems that may lose synced data, by their magic numbers. Those that keep nothing have a warning of their own.
const DOUBTFUL: [(u64, &str); 4] =
    [(0x6969, "nfs"), (0xff53_4d42, "cifs"), (0xfe53_4d42, "smb2"), (0x6573_5546, "fuse")];

/// What was found. `None` is unknown, which is not a problem.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    data_dir: PathBuf,
    /// The magic number of its file system.
    file_system: Option<u64>,
    /// Owner and mode of the data dir, or why they cannot be read.
    folder: Option<Result<(u32, u32), String>>,
    /// The user of this process.
    own: u32,
    /// Whether a service has the store open.
    runs: bool,
    /// Whether /proc is mounted.
    has_proc: bool,
    /// RLIMIT_NOFILE, and of which process.
    descriptors: Option<(u64, &'static str)>,
    /// `fs.inotify.max_user_watches`.
    watches_max: Option<u64>,
    /// Watched folders, and folders with followed files.
    watched: Option<u64>,
    folders: u64,
    /// The latest time in EVENTS, and now.
    newest_ms: u64,
    now_ms: u64,
}

impl Host {
    /// Looks. `sources` are the known followed files, `runs` is whether a service has the store open.
    pub(super) fn look(data_dir: &Path, sources: &[PathBuf], runs: bool) -> Host {
        let file_system = rustix::fs::statfs(data_dir).ok();
        let folder = fs::metadata(data_dir)
            .map(|folder| (folder.uid(), folder.permissions().mode() & 0o7777))
            .map_err(|error| error.to_string());
        let pid = Some(data_dir.join("LOCK")).filter(|_| runs).and_then(number_in);
        let limits = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/limits")).ok());
        let of_service = limits.as_deref().and_then(descriptors_in).map(|limit| (limit, "of the service"));
        let own_limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
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

    /// The problems, and notes that do not make the store unhealthy.
    pub(super) fn judge(&self) -> (Vec<Verdict>, Vec<String>) {
        let (mut wrong, mut notes) = (Vec::new(), Vec::new());
        let mut problem = |cause, summary: String, evidence: String, next: String| {
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
            notes.push(format!("{shown} is on {name}: synced lines may not survive a power cut; use a local disk with ext4 or xfs"));
        }
        match &self.folder {
            None => {}
            Some(Err(error)) => problem(
                Cause::Permissions,
                format!("{shown} cannot be read"),
                error.clone(),
                format!("ls -ld {pasted}"),
            ),
            Some(Ok((owner, mode))) => {
                // Root can read every store, and a service that runs was started by the right user.
                if *owner != self.own && self.own != 0 {
                    problem(
                        Cause::Permissions,
                        format!("{shown} belongs to another user"),
                        format!("its owner is user {owner}, this process runs as user {}", self.own),
                        format!("ls -ld {pasted}    # run spillq as the user that owns it"),
                    );
                } else if *owner != self.own && !self.runs {
                    notes.push(format!(
                        "{shown} belongs to user {owner}: start the service as that user, not as root"
                    ));
                }
                if mode & 0o077 != 0 {
                    problem(
                        Cause::Permissions,
                        format!("{shown} is open to other users, and a service will not start on it"),
                        format!("its mode is {mode:o}"),
                        format!("chmod 700 {pasted}"),
                    );
                }
            }
        }
        if !self.has_proc {
            notes.push("/proc is not mounted: out-of-memory kills, the place where a command hangs, and the limits of the service cannot be reported".to_owned());
        }
        if let Some((limit, whose)) = self.descriptors.filter(|(limit, _)| *limit < DESCRIPTORS_MIN) {
            notes.push(format!("RLIMIT_NOFILE {whose} is {limit}: at most {} files with unread bytes are kept open; raise it with ulimit -n {DESCRIPTORS_MIN}, or with LimitNOFILE in the unit", limit / 2));
        }
        let wanted = WATCHES_MIN.max(2 * self.folders);
        match (self.watched, self.watches_max) {
            (Some(watched), _) if watched < self.folders => notes.push(format!("{watched} of {} followed folders are watched: changes in the others are found some seconds later, by a scan; raise the limit with sysctl fs.inotify.max_user_watches={wanted}", self.folders)),
            (_, Some(limit)) if limit < wanted => notes.push(format!("fs.inotify.max_user_watches is {limit}, and {} folders are followed: changes in the others are found some seconds later, by a scan; raise the limit with sysctl fs.inotify.max_user_watches={wanted}", self.folders)),
            _ => {}
        }
        if self.now_ms < CLOCK_MIN_MS {
            problem(
                Cause::Clock,
                "the clock was never set: ages of lines will be wrong".to_owned(),
                format!("it is {} s after 1970", self.now_ms / 1_000),
                "timedatectl".to_owned(),
            );
        } else if let Some(back) = self.newest_ms.checked_sub(self.now_ms).filter(|by| *by >= CLOCK_STEP_MS) {
            notes.push(format!("the clock was set back: it is {} behind the last time in the store; ages of lines are wrong until it catches up, deadlines and order are not affected", duration(back)));
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

/// The number of inotify watches of a process, from its descriptors in /proc.
fn watches_of(pid: u64) -> Option<u64> {
    let mut watches = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()? {
        // A descriptor that was closed meanwhile has no watches.
        let Ok(text) = fs::read_to_string(entry.ok()?.path()) else { continue };
        watches += text.lines().filter(|line| line.starts_with("inotify ")).count() as u64;
    }
    Some(watches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Host {
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
    fn has_problem(host: Host, cause: Cause, next: &str) {
        let (wrong, notes) = host.judge();
        let found: Vec<_> = wrong.iter().map(|found| (found.cause, found.next.as_str())).collect();
        assert_eq!(found, [(Some(cause), next)]);
        assert!(notes.is_empty() && !wrong[0].evidence[0].is_empty(), "{wrong:#?} {notes:?}");
    }

    #[track_caller]
    fn has_note(host: Host, note: &str) {
        let (wrong, notes) = host.judge();
        assert!(wrong.is_empty() && notes.len() == 1 && notes[0].contains(note), "{wrong:#?} {notes:?}");
    }

    #[test]
    fn healthy_surroundings_are_not_reported() {
        let nothing = |host: Host| host.judge().0.is_empty() && host.judge().1.is_empty();
        assert!(nothing(healthy()));
        // Root may look at the store of a service that runs as another user.
        assert!(nothing(Host { own: 0, runs: true, ..healthy() }));
        // What is unknown is not a problem.
        assert!(nothing(Host {
            folder: None,
            file_system: None,
            descriptors: None,
            watched: None,
            watches_max: None,
            ..healthy()
        }));
        // A small correction of the clock.
        assert!(nothing(Host { newest_ms: CLOCK_MIN_MS + CLOCK_STEP_MS - 1, ..healthy() }));
    }

    #[test]
    fn each_problem_is_reported_with_a_step() {
        let gone = Some(Err("No such file or directory".to_owned()));
        has_problem(Host { folder: gone, ..healthy() }, Cause::Permissions, "ls -ld '/a b'");
        let of_another = "ls -ld '/a b'    # run spillq as the user that owns it";
        has_problem(Host { own: 8, ..healthy() }, Cause::Permissions, of_another);
        has_note(Host { own: 0, ..healthy() }, "belongs to user 7: start the service as that user");
        has_note(Host { has_proc: false, ..healthy() }, "/proc is not mounted");
        has_problem(
            Host { folder: Some(Ok((7, 0o750))), ..healthy() },
            Cause::Permissions,
            "chmod 700 '/a b'",
        );
        has_problem(Host { now_ms: 1_000, newest_ms: 0, ..healthy() }, Cause::Clock, "timedatectl");
        for (magic, name) in DOUBTFUL {
            has_note(Host { file_system: Some(magic), ..healthy() }, &format!("is on {name}"));
        }
        has_note(Host { descriptors: Some((64, "of the service")), ..healthy() }, "at most 32 files");
        has_note(Host { watches_max: Some(100), ..healthy() }, "max_user_watches is 100, and 3 folders");
        has_note(
            Host { folders: 10_000, watched: Some(4_096), ..healthy() },
            "4096 of 10000 followed folders are watched",
        );
        has_note(
            Host { newest_ms: CLOCK_MIN_MS + 3_600_000, ..healthy() },
            "it is 60 min behind the last time",
        );
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
