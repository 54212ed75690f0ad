//! What `doctor` reports in situations in which it once reported the wrong thing, staged with the built program.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use spillq::http::{DoctorJson, VerdictJson};

use crate::support::need::{LOOP_DEVICES, ROOT};
use crate::support::{
    Bounded, Service, SmallDisk, Stage, binary, needs, program, run, spillq, wait_for, write_config,
};

/// A user id that no user has.
const OTHER_USER: u32 = 54_321;

/// Three lines, and a configuration that follows them, with these sections.
fn staged(sections: &str) -> Stage {
    let stage = Stage::new();
    stage.append("in.log", "one\ntwo\nthree\n");
    stage.configure(&format!(
        "data_dir = \"q\"\nstall_after = \"3s\"\n[[follow]]\ninclude = [\"in*.log\"]\n{sections}"
    ));
    stage
}

impl Stage {
    fn checked(&self) -> DoctorJson {
        doctor(&self.data_dir).unwrap()
    }

    /// Waits until `doctor` names the cause for the group `default`, or for the log.
    #[track_caller]
    fn found(&self, cause: &str) -> VerdictJson {
        let mut last = None;
        let found = wait_for(|| {
            let doctor = last.insert(doctor(&self.data_dir)?);
            let all = doctor.groups.iter().chain(&doctor.findings);
            all.into_iter().find(|verdict| verdict.cause.as_deref() == Some(cause)).cloned()
        });
        found.unwrap_or_else(|| panic!("no {cause}: {last:#?}"))
    }

    /// The output of doctor for people.
    fn doctor_text(&self) -> String {
        let output = self.spillq(&["doctor"]);
        String::from_utf8(output.stdout).unwrap()
    }
}

/// `None` while there is no store.
fn doctor(data_dir: &Path) -> Option<DoctorJson> {
    let output = spillq(&["doctor", "--json", "--data-dir"]).arg(data_dir).finished();
    (output.status.code() != Some(2)).then(|| serde_json::from_slice(&output.stdout).unwrap())
}

fn exec(command: &str) -> String {
    format!("[[processor]]\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", {command:?}]\n")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_group_without_a_processor_is_reported_at_once_and_the_step_works() {
    let stage = staged("");
    let began = Instant::now();
    let mut service = stage.start();
    let config = stage.config();
    let found = stage.found("never_called");
    assert!(began.elapsed() < Duration::from_secs(3), "before stall_after: {:?}", began.elapsed());
    let expected = format!(
        "add a [[processor]] with group = \"default\" in {}; the service applies it when the file changes",
        config.display()
    );
    assert_eq!(found.next, expected);
    // As the step says, without a restart.
    let text = fs::read_to_string(&config).unwrap() + &exec("cat >> out");
    fs::write(stage.path("new.toml"), text).unwrap();
    fs::rename(stage.path("new.toml"), &config).unwrap();
    service.wait("the lines are delivered", |status| {
        status.groups[0].lag_lines == 0 && status.log.next_seq == 4
    });
    assert!(stage.checked().healthy, "{:#?}", stage.checked());
}

#[test]
fn dead_letters_are_reported_while_it_runs_and_after_it() {
    // It acks one line first: until then a rejection could be due to the command.
    let stage = staged(&exec("grep -q two && exit 65; exit 0"));
    let service = stage.start();
    let found = stage.found("dead_letters");
    let summary =
        "group default has 1 dead letter: it was not delivered, and stays until you retry or discard it";
    assert_eq!(found.summary, summary);
    assert!(!stage.checked().healthy);
    assert_eq!(service.stop(), 0);
    assert_eq!(stage.found("dead_letters").summary, summary);
    let printed = stage.doctor_text();
    assert!(
        printed.contains(": 1 problem; no service runs on it\n\ngroup default has 1 dead letter: "),
        "{printed}"
    );
    assert!(printed.contains("\n  do: spillq dead-letter list --data-dir "), "{printed}");
    assert!(printed.contains("\n  or: spillq dead-letter retry --data-dir "), "{printed}");
    assert_eq!(printed.lines().filter(|line| line.starts_with("group default")).count(), 1, "{printed}");
}

#[test]
fn a_program_that_is_missing_is_reported_before_the_first_line() {
    let stage = staged("[[processor]]\nkind = \"exec\"\ncommand = [\"./nosuch\"]\n");
    fs::remove_file(stage.path("in.log")).unwrap();
    let service = stage.start();
    let found = stage.found("refused");
    let expected = format!(
        "the command of group default cannot be run: {}: No such file",
        stage.path("nosuch").display()
    );
    assert!(found.summary.starts_with(&expected), "{found:#?}");
    let nothing = "no followed file exists yet: `include` of [[follow]] matches nothing".to_owned();
    assert!(stage.checked().notes.contains(&nothing), "{:#?}", stage.checked());
    fs::write(stage.path("nosuch"), "#!/bin/sh\n").unwrap();
    run("chmod", &["755", stage.path("nosuch").to_str().unwrap()]);
    assert!(stage.checked().healthy, "{:#?}", stage.checked());
    // An empty file is a match, although it has no lines yet.
    fs::write(stage.path("in.log"), "").unwrap();
    let found = wait_for(|| Some(stage.checked()).filter(|doctor| !doctor.notes.contains(&nothing)));
    assert!(found.is_some_and(|doctor| doctor.healthy), "{:#?}", stage.checked());
    drop(service);
}

#[test]
fn a_missing_command_on_the_command_line_starts_nothing() {
    let stage = staged("");
    let typed = |verb: &str, command: &[&str]| {
        let mut typed = spillq(&[verb, "--data-dir", "q"]);
        if verb == "run" {
            typed.args(["--follow", "in*.log"]);
        }
        typed.arg("--").args(command).current_dir(stage.folder()).finished()
    };
    fs::write(stage.path("plain"), "").unwrap();
    for verb in ["run", "drain"] {
        for (command, why) in [
            ("./nosuch", "nosuch: No such file or directory"),
            ("nosuch-in-path", "nosuch-in-path is in no folder of PATH"),
            ("./plain", "plain is not executable for this user (chmod +x)"),
            (".", "is a folder"),
            ("./", "is a folder"),
        ] {
            let output = typed(verb, &[command]);
            assert_eq!(output.status.code(), Some(2), "{verb} {command}: {output:?}");
            assert!(
                stderr(&output).starts_with("spillq: COMMAND cannot be run: "),
                "{verb} {command}: {output:?}"
            );
            assert!(stderr(&output).contains(why), "{verb} {command}: {output:?}");
        }
    }
    assert!(!stage.path("q").exists(), "nothing was started");
}

#[test]
fn what_config_check_warns_about() {
    let stage =
        staged("[[processor]]\nkind = \"exec\"\ncommand = [\"nosuch-in-path\"]\n[disk]\nmin_free = 5\n");
    fs::create_dir(stage.path("logs")).unwrap();
    let check = || {
        let output = spillq(&["config", "check"]).arg(stage.config()).finished();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let text = fs::read_to_string(stage.config()).unwrap();
    let globs = "include = [\"in*.log\", \"logs\", \"other*.log\"]";
    fs::write(stage.config(), text.replace("include = [\"in*.log\"]", globs)).unwrap();
    let printed = check();
    for warning in [
        "warning: the command of group default cannot be run: nosuch-in-path is in no folder of PATH",
        "warning: not followed: open ",
        "logs: a folder, not a regular file",
        "other*.log\" matches no file yet",
        "disk.min_free is 5B: the file system is full before ingestion pauses; a unit may be missing",
    ] {
        assert!(printed.contains(warning), "{warning}: {printed}");
    }
    assert!(!printed.contains("in*.log\" matches no file"), "{printed}");
    // What `run` refuses is not valid.
    fs::write(stage.config(), text.replace("\"in*.log\"", "\"logs/\", \"in*.log\"")).unwrap();
    let output = spillq(&["config", "check"]).arg(stage.config()).finished();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("names a folder, not files"), "{output:?}");
    let fine = text.replace("nosuch-in-path", "sh").replace("min_free = 5", "min_free = \"5MiB\"");
    fs::write(stage.config(), fine).unwrap();
    assert!(!check().contains("warning"), "{}", check());
    // Each in a section by itself.
    let include = |globs: &str| {
        let fine = fs::read_to_string(stage.config()).unwrap();
        let (before, rest) = fine.split_once("include = [").unwrap();
        let after = rest.split_once(']').unwrap().1;
        fs::write(stage.config(), format!("{before}include = [{globs}]{after}")).unwrap();
        let printed = check();
        printed.lines().filter(|line| line.starts_with("warning")).map(str::to_owned).collect::<Vec<_>>()
    };
    let logs = stage.path("logs").display().to_string();
    assert_eq!(
        include("\"logs\""),
        [format!("warning: not followed: open {logs}: a folder, not a regular file")]
    );
    assert_eq!(include("\"logs/*.log\""), [format!("warning: include \"{logs}/*.log\" matches no file yet")]);
    // A link to a file that another glob names is not a problem. Any other link is one, however many globs name it.
    fs::write(stage.path("logs/app-2026.log"), "x\n").unwrap();
    std::os::unix::fs::symlink("app-2026.log", stage.path("logs/app.log")).unwrap();
    assert_eq!(include("\"logs/app.log\", \"logs/app-*.log\""), [""; 0]);
    assert_eq!(
        include("\"logs/app.log\", \"logs/ap?.log\""),
        [format!("warning: not followed: open {logs}/app.log: a symbolic link, not a regular file")]
    );
}

#[test]
fn a_disk_that_became_read_only_is_named_while_idle_and_after_the_exit_that_it_caused() {
    needs!("mkfs.ext4", LOOP_DEVICES);
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::new(folder.path(), 300);
    let (data_dir, input) = (disk.mount.join("q"), folder.path().join("in.log"));
    fs::write(&input, "one\n").unwrap();
    let text = format!(
        "data_dir = {data_dir:?}\n[disk]\nmin_free = \"24MiB\"\nreserve = \"64MiB\"\n[[follow]]\ninclude = [{input:?}]\n{}",
        exec("exit 0")
    );
    let config = write_config(folder.path(), &text);
    let mut service = Service::start(&data_dir, &["--config", config.to_str().unwrap()]);
    service.wait("idle", |status| status.log.next_seq == 2 && status.groups[0].lag_lines == 0);
    assert!(doctor(&data_dir).unwrap().healthy, "{:#?}", doctor(&data_dir));

    // As after an error of the disk.
    run("mount", &["-o", "remount,errors=remount-ro", disk.mount.to_str().unwrap()]);
    run("mount", &["-o", "remount,abort", disk.mount.to_str().unwrap()]);
    let causes = || {
        let doctor = doctor(&data_dir).unwrap();
        let all = doctor.findings.iter().chain(&doctor.groups);
        all.filter_map(|verdict| verdict.cause.clone()).collect::<Vec<_>>()
    };
    assert!(service.is_alive(), "it has nothing to write yet");
    assert_eq!(causes(), ["disk_read_only"]);
    OpenOptions::new().append(true).open(&input).unwrap().write_all(b"two\n").unwrap();
    assert_eq!(service.ended(), 3);
    assert_eq!(causes(), ["disk_read_only"], "not a kill or a power cut");

    let mount = disk.mount.to_str().unwrap();
    run("umount", &[mount]);
    // Status 1: it has repaired the file system.
    let fsck = program("e2fsck").args(["-fy"]).arg(folder.path().join("image")).finished();
    assert!(fsck.status.code().is_some_and(|code| code <= 1), "{fsck:?}");
    run("mount", &["-o", "loop", folder.path().join("image").to_str().unwrap(), mount]);
    let mut service = Service::start(&data_dir, &["--config", config.to_str().unwrap()]);
    service.wait("it resumes", |status| status.log.next_seq == 3 && status.groups[0].lag_lines == 0);
    assert_eq!(causes(), [""; 0]);
}

#[test]
fn root_may_run_doctor_on_the_service_of_another_user() {
    needs!(ROOT);
    let stage = staged(&exec("exit 0"));
    for path in [stage.folder(), &stage.path("in.log"), &stage.config()] {
        std::os::unix::fs::chown(path, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    }
    let mut command = program("sh");
    let script = "exec \"$0\" run --allow-volatile --config spillq.toml";
    // The folder of the built program may be readable by root only.
    fs::copy(binary(), stage.path("spillq")).unwrap();
    command.args(["-c", script]).arg(stage.path("spillq")).current_dir(stage.folder());
    let _service = command.uid(OTHER_USER).gid(OTHER_USER).started();
    let healthy = wait_for(|| {
        stage.path("q/spillq.sock").exists().then(|| stage.checked()).filter(|found| found.healthy)
    });
    assert!(healthy.is_some(), "{:#?}", stage.checked());
}

#[test]
fn after_a_kill_each_group_is_listed_once_and_the_step_repeats_the_command_line() {
    let stage = staged(&exec("touch began; while [ ! -e cured ]; do sleep 0.1; done"));
    let service = stage.start();
    assert!(wait_for(|| stage.path("began").exists().then_some(())).is_some());
    service.kill();
    let found = stage.checked();
    assert_eq!(found.groups.len(), 1, "{found:#?}");
    let group = &found.groups[0];
    assert_eq!(group.cause.as_deref(), Some("consumer_vanished"), "{found:#?}");
    let causes: Vec<_> = found.findings.iter().filter_map(|finding| finding.cause.as_deref()).collect();
    assert_eq!(causes, ["killed"], "{found:#?}");
    assert_eq!(
        stage.doctor_text().matches("of group default vanished").count(),
        1,
        "{}",
        stage.doctor_text()
    );

    // The same command line, with the configuration, in its folder.
    let config = stage.config();
    assert!(group.next.contains(&format!("--config {}", config.display())), "{group:#?}");
    fs::write(stage.path("cured"), "").unwrap();
    let folder = binary().parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let drained = program("sh").args(["-c", &group.or]).env("PATH", path).finished();
    assert!(drained.status.success(), "{}: {}", group.or, stderr(&drained));
    assert!(stage.checked().groups[0].cause.is_none(), "{:#?}", stage.checked());
}

#[test]
fn commands_are_suggested_with_the_configured_prefix() {
    let service = "[service]\ncommand_prefix = \"docker compose exec spillq\"\nstart_command = \"docker compose up -d\"\n";
    let stage = staged(&(service.to_owned() + &exec("grep -q two && exit 65; exit 0")));
    let mut service = stage.start();
    let found = stage.found("dead_letters");
    assert!(found.next.starts_with("docker compose exec spillq spillq dead-letter list "), "{found:#?}");
    service.wait("nothing is in flight", |status| status.groups[0].lag_lines == 0);
    service.kill();
    assert_eq!(stage.found("killed").next, "docker compose up -d");
    assert!(
        stage.found("dead_letters").or.starts_with("docker compose exec spillq spillq dead-letter retry")
    );
}

#[test]
fn a_lag_that_grows_is_reported_and_a_group_that_keeps_up_is_not() {
    let with_lag = |command: &str| {
        let sections = "[[group]]\nname = \"default\"\ntimeout = \"1s\"\nbatch = { lines = 20 }\n";
        staged(&(sections.to_owned() + &exec(command)))
    };
    // Of 1,000 lines a second the first acks 100 at most, the second all.
    let (slow, quick) = (with_lag("sleep 0.2"), staged(&exec("cat > /dev/null")));
    let services = [slow.start(), quick.start()];
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let open = |stage: &Stage| OpenOptions::new().append(true).open(stage.path("in.log")).unwrap();
            let mut files = [open(&slow), open(&quick)];
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                files.iter_mut().for_each(|file| file.write_all("a line\n".repeat(50).as_bytes()).unwrap());
                thread::sleep(Duration::from_millis(50));
            }
        });
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let found = slow.found("falling_behind");
            (found, quick.checked())
        }));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let (found, control) = found.unwrap();
        assert!(found.summary.contains("group default falls behind: its lag has grown for "), "{found:#?}");
        assert!(control.healthy, "{control:#?}");
    });
    drop(services);
}

#[test]
fn a_socket_that_was_removed_is_created_again() {
    let stage = staged(&exec("exit 0"));
    let mut service = stage.start();
    service.wait("ready", |status| status.log.next_seq == 4);
    let socket = stage.path("q/spillq.sock");
    for _ in 0..2 {
        fs::remove_file(&socket).unwrap();
        service.wait("it answers again", |_| true);
        assert!(socket.exists() && stage.checked().is_of_service());
    }
    assert_eq!(service.stop(), 0);
    assert!(!socket.exists(), "a clean stop removes it");
}

#[test]
fn a_service_with_too_few_descriptors_does_not_start() {
    let stage = staged(&exec("exit 0"));
    let config = stage.config();
    let limited = |limit: u64, more: &str| {
        let script =
            format!("ulimit -n {limit} && exec \"$0\" run --once --allow-volatile {more} --config \"$1\"");
        program("sh").args(["-c", &script]).arg(binary()).arg(&config).finished()
    };
    let output = limited(63, "");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let expected = "spillq: 63 file descriptors are too few: the service needs at least 64";
    assert!(stderr(&output).contains(expected), "{output:?}");
    assert!(!stage.path("q").exists());
    let output = limited(64, "");
    assert_eq!(output.status.code(), Some(0), "64 are enough: {}", stderr(&output));
}

#[test]
fn without_proc_commands_are_refused_and_destinations_work() {
    needs!(ROOT);
    let stage = staged(&exec("exit 0"));
    let once = |config: &Path| {
        let script = "umount -l /proc && exec \"$0\" run --once --allow-volatile --config \"$1\"";
        program("unshare").args(["-m", "sh", "-c", script]).arg(binary()).arg(config).finished()
    };
    let output = once(&stage.config());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("/proc is not mounted: commands are started"), "{output:?}");

    let stage = staged("[[processor]]\nkind = \"file\"\npath = \"out\"\n");
    let output = once(&stage.config());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stderr(&output).contains("/proc is not mounted: out-of-memory kills"), "{output:?}");
    assert_eq!(fs::read_to_string(stage.path("out")).unwrap(), "one\ntwo\nthree\n");
}
