//! What the tests with real processes share: the service under test, and lines that identify themselves.

mod bounded;
pub mod need;
mod port;
mod skipped;
mod stage;
pub mod watch;
pub mod web;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use spillq::http::{Client, StatusJson};

pub use bounded::{Bounded, Process};
pub(crate) use need::needs;
pub use port::Port;
pub use stage::Stage;

/// The bound of every wait in a test.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The section of a store that takes little: 8 MiB in reserve, in addition to the 56 MiB of its journals.
pub const SMALL_STORE: &str = "[disk]\nmin_free = \"64MiB\"\nreserve = \"8MiB\"\n";

/// The memory budget; what is not optimised takes some more.
pub const PEAK_KIB: u64 = if cfg!(debug_assertions) { 144 << 10 } else { 96 << 10 };

/// The built program.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_spillq"))
}

/// The option that `run` needs if temporary folders are on a volatile file system.
fn allow_volatile() -> &'static [&'static str] {
    let magic = rustix::fs::statfs(std::env::temp_dir()).unwrap().f_type as u64;
    if [0x794c_7630, 0x0102_1994].contains(&magic) { &["--allow-volatile"] } else { &[] }
}

/// A command of the built program, without the SPILLQ_ variables of this process.
pub fn spillq(args: &[&str]) -> Command {
    let at = args.iter().position(|arg| *arg == "run").map_or(args.len(), |at| at + 1);
    let more = if at < args.len() { allow_volatile() } else { &[] };
    let args = [&args[..at], more, &args[at..]].concat();
    let mut command = program(binary());
    command.args(args);
    command
}

/// Any other program, without the SPILLQ_ variables of this process.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    watch::this_test();
    let mut command = Command::new(name);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SPILLQ_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A running service, killed when the test ends.
pub struct Service {
    pub process: Process,
    data_dir: PathBuf,
}

impl Service {
    /// Starts `spillq run`.
    pub fn start(data_dir: &Path, args: &[&str]) -> Service {
        let mut command = spillq(&["--log", "warn", "run", "--data-dir"]);
        command.arg(data_dir).args(args);
        Service::run_by(data_dir, command)
    }

    /// The same behind a command of a shell, in whose process it runs: limits, another cgroup.
    pub fn start_with(data_dir: &Path, before: &str, args: &[&str]) -> Service {
        let more = allow_volatile().join(" ");
        let script = format!("{before} && exec \"$0\" --log warn run {more} --data-dir \"$@\"");
        let mut command = program("sh");
        command.args(["-c", &script]).arg(binary()).arg(data_dir).args(args);
        Service::run_by(data_dir, command)
    }

    fn run_by(data_dir: &Path, mut command: Command) -> Service {
        // Where the data dir is: commands of exec run where the service does.
        Service::of(data_dir, command.current_dir(data_dir.parent().unwrap()).started())
    }

    /// The service that this process is.
    pub fn of(data_dir: &Path, process: Process) -> Service {
        Service { process, data_dir: data_dir.to_owned() }
    }

    /// The other end of its standard input, if that was piped.
    pub fn stdin(&mut self) -> ChildStdin {
        self.process.child.stdin.take().unwrap()
    }

    /// What it says, if it is ready.
    pub fn status(&self) -> Option<StatusJson> {
        Client::connect(&self.data_dir)?.get("/v1/status").ok()
    }

    /// Waits until it says what is waited for.
    #[track_caller]
    pub fn wait(&mut self, what: &str, is_so: impl Fn(&StatusJson) -> bool) -> StatusJson {
        let mut last = None;
        let found = wait_for(|| {
            if let Some(status) = self.process.exit() {
                panic!("the service ended with {status} while waiting for: {what}");
            }
            last = self.status();
            last.clone().filter(|status| is_so(status))
        });
        found.unwrap_or_else(|| panic!("not within {PATIENCE:?}: {what}; the last status was {last:#?}"))
    }

    /// Waits until it has ended by itself; gives the exit status.
    #[track_caller]
    pub fn ended(mut self) -> i32 {
        self.process.ended().code().unwrap_or(-1)
    }

    /// Whether it runs.
    pub fn is_alive(&mut self) -> bool {
        self.process.exit().is_none()
    }

    /// SIGKILL, as the out-of-memory killer does it.
    #[track_caller]
    pub fn kill(mut self) {
        self.process.killed();
    }

    /// A clean stop by SIGTERM; gives the exit status.
    #[track_caller]
    pub fn stop(mut self) -> i32 {
        self.process.terminated().code().unwrap_or(-1)
    }
}

/// The number that a variable sets, or the default.
pub fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Checks repeatedly, for [`PATIENCE`] at most.
pub fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    watch::this_test();
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The lines of `file` by the word that they begin with, in order.
pub fn lines_by_source(file: &Path) -> std::collections::BTreeMap<String, Vec<u64>> {
    let mut found: std::collections::BTreeMap<String, Vec<u64>> = std::collections::BTreeMap::new();
    for line in fs::read_to_string(file).unwrap_or_default().lines() {
        let mut words = line.split(' ');
        let (source, number) = (words.next().unwrap(), words.next().unwrap());
        found.entry(source.to_owned()).or_default().push(number.parse().unwrap());
    }
    found
}

/// A configuration in `folder`, with these lines.
pub fn write_config(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("spillq.toml");
    fs::write(&path, text).unwrap();
    path
}

/// A small ext4 file system in an image file, unmounted when the test ends.
pub struct SmallDisk {
    pub mount: PathBuf,
}

impl SmallDisk {
    /// Makes and mounts it.
    pub fn new(folder: &Path, mib: u64) -> SmallDisk {
        let (image, mount) = (folder.join("image"), folder.join("disk"));
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        fs::create_dir(&mount).unwrap();
        run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        run("mount", &["-o", "loop", image.to_str().unwrap(), mount.to_str().unwrap()]);
        SmallDisk { mount }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Gone with the machine at the latest; a failed test has said enough.
        let umount = program("umount").arg("-l").arg(&self.mount).finished();
        assert!(umount.status.success() || std::thread::panicking(), "{umount:?}");
    }
}

#[track_caller]
pub fn run(program: &str, args: &[&str]) {
    let output = self::program(program).args(args).finished();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The most memory that the process ever had, in KiB.
pub fn peak_kib(service_pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{service_pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_program_that_does_not_end_is_killed_with_what_it_started_and_its_words_are_shown() {
    let hangs = || {
        let script = "echo said; echo told >&2; sleep 6542 & echo child $!; sleep 6542";
        program("sh").args(["-c", script]).finished_within(Duration::from_secs(2));
    };
    let failed = std::panic::catch_unwind(hangs).unwrap_err();
    let why = failed.downcast_ref::<String>().unwrap();
    for part in ["sleep 6542\" had not ended after 2s", "said\n", "told\n"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let child = why.split_once("child ").unwrap().1.lines().next().unwrap();
    let stat = || fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    let is_gone = || stat().is_empty() || stat().contains(") Z ");
    assert!(wait_for(|| is_gone().then_some(())).is_some(), "{child} lives on: {}", stat());
}

#[test]
fn of_what_was_printed_the_end_is_shown_by_whole_lines() {
    let lines: String = (0..10_000).map(|number| format!("{number}\n")).collect();
    let shown = bounded::end_of(lines.as_bytes());
    let (cut, shown) = shown.split_once('\n').unwrap();
    assert!(cut.ends_with(" bytes before)") && shown.len() <= 8 << 10, "{cut}");
    assert!(lines.ends_with(&format!("\n{shown}")), "{shown}");
    assert_eq!(bounded::end_of(b"short"), "short");
}
