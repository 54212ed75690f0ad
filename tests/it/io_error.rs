//! Errors of the disk, made by strace: how the program ends, at whichever call of whichever file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{
    Bounded, SMALL_STORE, Service, Stage, binary, needs, program, run, spillq, wait_for, write_config,
};

/// What the store says when its disk fails, as others script against it.
const STORE_FAILED: Option<i32> = Some(3);

/// A stopped store `made` with lines, and more lines in the file that it follows.
fn staged() -> Stage {
    let stage = Stage::new();
    let input = stage.path("in.log");
    stage.configure(&format!("data_dir = \"made\"\n{SMALL_STORE}[[follow]]\ninclude = [{input:?}]\n"));
    let lines = |range: std::ops::Range<u32>| range.map(|n| format!("in {n}\n")).collect::<String>();
    fs::write(&input, lines(0..2_000)).unwrap();
    let output = stage.within(&mut spillq(&["run", "--once", "--config"])).arg(stage.config()).finished();
    assert!(output.status.success(), "{output:?}");
    fs::write(&input, lines(0..4_000)).unwrap();
    stage
}

impl Stage {
    fn within<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.current_dir(self.folder())
    }

    /// A copy of the store, as it was made.
    fn copy(&self) -> PathBuf {
        let copy = self.data_dir.clone();
        if copy.exists() {
            fs::remove_dir_all(&copy).unwrap();
        }
        run("cp", &["-a", self.path("made").to_str().unwrap(), copy.to_str().unwrap()]);
        copy
    }

    /// Runs the program with `args` while strace lets `calls` on `path` fail as `inject` says. `None` where no such call
    /// was made.
    fn failing(&self, path: &Path, calls: &str, inject: &str, args: &[&str]) -> Option<Output> {
        let trace = self.path("trace");
        let mut command = program("strace");
        command.args(["-f", "-qq", "-e", "signal=none", "-o"]).arg(&trace).arg("-P").arg(path);
        command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{inject}")]);
        command.arg(binary()).args(args).env("SPILLQ_DATA_DIR", &self.data_dir);
        let output = self.within(&mut command).finished();
        fs::read_to_string(&trace).unwrap().contains("(INJECTED)").then_some(output)
    }
}

/// Found by tracing: a failing EVENTS gave 2, as if the configuration were wrong, and a manager would not report that a
/// disk fails.
#[test]
fn a_start_that_meets_an_io_error_in_any_file_ends_with_the_status_of_a_failed_store() {
    needs!("strace");
    let stage = staged();
    let mut wrong = Vec::new();
    for (path, calls) in [
        ("", "openat"),
        ("", "getdents64"),
        ("LOCK", "openat"),
        ("LOCK", "flock"),
        ("MARK", "stat,statx,newfstatat"),
        ("MARK", "pread64"),
        ("MARK", "fdatasync"),
        ("RESERVE", "openat"),
        ("EVENTS", "openat"),
        ("EVENTS", "read"),
        ("EVENTS", "pwrite64"),
        ("kept", "getdents64"),
        ("kept/00000001", "openat"),
        ("journal", "getdents64"),
        ("journal", "fsync"),
        ("journal/00000001/db", "pread64"),
        ("segments", "fsync"),
        ("segments/00000000000000000001", "openat"),
        ("segments/00000000000000000001", "pwrite64"),
    ] {
        let store = stage.copy();
        let path = if path.is_empty() { store.clone() } else { store.join(path) };
        let config = stage.config();
        let config = config.to_str().unwrap();
        let args = ["run", "--once", "--config", config];
        let output = stage.failing(&path, calls, "error=EIO:when=1", &args);
        let output = output.unwrap_or_else(|| panic!("{calls} on {} is not made", path.display()));
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != STORE_FAILED || !said.contains("Input/output error") {
            wrong.push(format!("{calls} on {}: {}, {said}", path.display(), output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_that_look_at_a_store_say_so_too() {
    needs!("strace");
    let stage = staged();
    let store = stage.copy();
    let mut wrong = Vec::new();
    for (path, calls, args) in [
        ("MARK", "stat,statx,newfstatat", &["status"][..]),
        ("MARK", "pread64", &["verify"]),
        ("LOCK", "flock", &["repair", "--dry-run"]),
        ("EVENTS", "openat", &["doctor"]),
        ("EVENTS", "read", &["doctor"]),
        ("journal/00000001/db", "pread64", &["inspect", "--limit", "1"]),
        ("journal/00000001/db", "pread64", &["group", "add", "other"]),
    ] {
        let output = stage.failing(&store.join(path), calls, "error=EIO", args);
        let output = output.unwrap_or_else(|| panic!("{args:?}: {calls} on {path} is not made"));
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != STORE_FAILED || !said.contains("Input/output error") {
            wrong.push(format!("{args:?}: {calls} on {path}: {}, {said}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Found on a device with bad sectors: the raw scan had all of the journal, and what only its copy lacked was damage.
#[test]
fn verify_does_not_call_damaged_what_the_disk_refuses() {
    needs!("strace");
    let stage = staged();
    let conf = stage.copy().join("journal/00000001/conf");
    let output = stage.failing(&conf, "openat", "error=EIO", &["verify"]).expect("conf is read");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), STORE_FAILED, "{said}");
    assert!(said.contains("not known: ") && said.contains("Input/output error"), "{said}");
    assert!(!said.contains("damaged") && !said.contains("lacks"), "{said}");
}

/// Found by injection: a request for metrics while a commit failed got the answer that the log is closed, and that ended
/// the process with status 2 before the reason was logged.
#[test]
fn a_commit_that_fails_while_it_is_waited_for_is_told_as_what_it_is() {
    needs!("strace");
    let stage = staged();
    let journal = stage.copy().join("journal/00000002/db");
    let config = stage.config();
    let args = ["run", "--once", "--config", config.to_str().unwrap(), "--", "true"];
    // Of the thread that commits, and held up until everybody waits for it.
    let inject = "error=EIO:delay_enter=300000:when=2";
    let output = stage.failing(&journal, "fdatasync", inject, &args).expect("a second sync");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), STORE_FAILED, "{said}");
    assert!(said.contains("could not sync") && said.contains("Input/output error"), "{said}");
}

#[test]
fn what_is_no_folder_is_a_mistake_of_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for data_dir in [file.clone(), file.join("q")] {
        for args in [&["status"][..], &["run", "--follow", "x.log"], &["drain", "--", "true"]] {
            let output = spillq(args).env("SPILLQ_DATA_DIR", &data_dir).finished();
            assert_eq!(output.status.code(), Some(2), "{args:?} on {}: {output:?}", data_dir.display());
        }
    }
}

/// Seen by reading: a block whose read had failed was taken for zeros by the next try, and so for damage; and with
/// `on_damage = "skip"` lines were recorded as lost after two seconds of errors of the disk.
#[test]
fn lines_that_the_disk_does_not_give_are_not_lost_where_damage_is_passed_over() {
    needs!("strace");
    let stage = staged();
    let store = stage.copy();
    let output = stage.path("out");
    let command = format!("cat >> {}", output.display());
    let text = fs::read_to_string(stage.config()).unwrap();
    fs::write(stage.config(), text.replace("[disk]\n", "[disk]\non_damage = \"skip\"\n")).unwrap();
    let paused = spillq(&["group", "pause", "default"]).env("SPILLQ_DATA_DIR", &store).finished();
    assert!(paused.status.success(), "{paused:?}");
    let config = stage.config();
    let args = ["--config", config.to_str().unwrap(), "--", "sh", "-c", &command];
    let mut service = Service::start(&store, &args);
    let pid = service.wait("the rest is ingested", |status| status.log.next_seq == 4_001).pid;

    let mut command = program("strace");
    command.args(["-f", "-qq", "-e", "signal=none", "-e", "trace=pread64"]);
    command.args(["-e", "inject=pread64:error=EIO", "-o"]).arg(stage.path("trace"));
    command.arg("-P").arg(store.join("segments/00000000000000000001")).arg("-p").arg(pid.to_string());
    let mut strace = command.started();
    wait_for(|| all_traced(pid).then_some(())).expect("strace holds every thread");
    let resumed = spillq(&["group", "resume", "default"]).env("SPILLQ_DATA_DIR", &store).finished();
    assert!(resumed.status.success(), "{resumed:?}");
    let held = service.wait("the group stops", |status| status.groups[0].state == "blocked");
    let why = held.groups[0].reason.clone().unwrap_or_default();
    assert!(
        why.starts_with("disk error: lines 1: could not read") && why.contains("Input/output error"),
        "{why}"
    );
    assert_eq!(held.losses.lost_lines, 0);
    strace.killed();
    service.stop();

    let mut service = Service::start(&store, &args);
    let done = service.wait("all lines come", |status| status.groups[0].lag_lines == 0);
    assert_eq!(done.losses.lost_lines, 0);
    service.stop();
    let lines: String = (0..4_000).map(|n| format!("in {n}\n")).collect();
    assert_eq!(fs::read_to_string(&output).unwrap(), lines);
}

/// Whether somebody traces each thread of a process.
fn all_traced(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(|thread| thread.unwrap().path().join("status")).all(|status| {
        let text = fs::read_to_string(status).unwrap_or_default();
        text.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
    })
}

/// A run of the program with a limit on file size, as `sh` counts it: blocks of 512 bytes.
fn within_file_limit(folder: &Path, mib: u64, args: &[&str]) -> Output {
    let script = format!("ulimit -f {}; exec \"$0\" \"$@\"", mib * 2048);
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(binary()).args(args).current_dir(folder);
    command.finished()
}

/// The kernel's SIGXFSZ ended the service without a word, at each start anew.
#[test]
fn a_file_output_at_the_limit_on_file_size_is_refused_with_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\ntwo\n").unwrap();
    // What is there already leaves 3 bytes to the limit: a part of the batch fits.
    let out = fs::File::create(folder.path().join("out")).unwrap();
    out.set_len((40 << 20) - 3).unwrap();
    let config = write_config(
        folder.path(),
        &format!(
            "data_dir = \"q\"\n{SMALL_STORE}[[follow]]\ninclude = [\"a.log\"]\n[[group]]\nname = \"default\"\n\
             retry = {{ initial = \"1s\", max = \"1s\", attempts = 2 }}\n[[processor]]\nkind = \"file\"\npath = \"out\"\n"
        ),
    );
    let run = ["run", "--once", "--allow-volatile", "--config", config.to_str().unwrap()];
    let output = within_file_limit(folder.path(), 40, &run);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let why = "File too large (os error 27): the limit on file size of this process, 40.0 MiB (ulimit -f, LimitFSIZE=)";
    assert!(told.contains(&format!("out could not be appended to: {why}")), "{told}");
    assert!(told.contains("group default: 2 lines wait: the destination refuses everything"), "{told}");
    // Without the limit both lines follow, each once.
    assert!(spillq(&run).current_dir(folder.path()).finished().status.success());
    let text = fs::read(folder.path().join("out")).unwrap();
    assert_eq!(text[(40 << 20) - 3..], *b"one\ntwo\n");
}

#[test]
fn a_store_at_the_limit_on_file_size_says_so_and_is_not_told_as_a_full_or_broken_disk() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\ntwo\n").unwrap();
    let run = ["run", "--once", "--allow-volatile", "--data-dir", "q", "--follow", "a.log", "--", "cat"];
    let output = within_file_limit(folder.path(), 1, &run);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("File too large (os error 27)"), "{told}");
    let hint = "raise the limit on file size of this process, 1.0 MiB (ulimit -f, LimitFSIZE=)";
    assert!(told.contains(hint) && !told.contains("make room") && !told.contains("disk is well"), "{told}");
    let output = spillq(&run).current_dir(folder.path()).finished();
    assert_eq!(output.stdout, b"one\ntwo\n", "nothing stands in the way of the next start");
}

/// A command that relies on the signal, or ignores it, finds it as everywhere else.
#[test]
fn commands_have_the_default_of_the_signal_of_that_limit() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    let show = "grep -E '^Sig(Cgt|Ign)' /proc/self/status";
    let run =
        ["run", "--once", "--allow-volatile", "--data-dir", "q", "--follow", "a.log", "--", "sh", "-c", show];
    let output = spillq(&run).current_dir(folder.path()).finished();
    let shown = String::from_utf8(output.stdout).unwrap();
    let masks: Vec<u64> = shown
        .lines()
        .map(|line| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap())
        .collect();
    let bit = 1 << (rustix::process::Signal::XFSZ.as_raw() - 1);
    assert_eq!(masks.iter().map(|mask| mask & bit).collect::<Vec<_>>(), [0, 0], "{shown}");
}
