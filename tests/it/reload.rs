//! The configuration changed under a running service: what comes, goes and changes, without a lost or repeated line; what
//! is refused; and few descriptors.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use spillq::http::{ConfigJson, ReloadJson, StatusJson};

use crate::support::{
    Bounded, Service, Stage, binary, from_env, lines_by_source, needs, program, spillq, wait_for,
    write_config,
};

/// Limits that hold wherever the tests run.
const HEAD: &str =
    "data_dir = \"q\"\nstall_after = \"1h\"\n[disk]\nmin_free = \"1MiB\"\nreserve = \"8MiB\"\n";

/// With folders `logs` and `extra`.
fn staged() -> Stage {
    let stage = Stage::new();
    for name in ["logs", "extra"] {
        fs::create_dir(stage.path(name)).unwrap();
    }
    stage
}

impl Stage {
    fn write_sections(&self, sections: &str) {
        self.configure(&format!("{HEAD}{sections}"));
    }

    /// As most editors do it.
    fn rename_over(&self, sections: &str) {
        let new = self.path(".spillq.toml.new");
        fs::write(&new, format!("{HEAD}{sections}")).unwrap();
        fs::rename(new, self.config()).unwrap();
    }

    /// Starts the service and waits until it answers.
    fn ready(&self) -> Service {
        let mut service = self.start();
        service.wait("it is ready", |_| true);
        service
    }

    fn reload(&self) -> Output {
        self.spillq(&["config", "reload"])
    }

    /// What was printed, of a reload that was taken.
    #[track_caller]
    fn reloaded(&self) -> String {
        let output = self.reload();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn config(status: &StatusJson) -> &ConfigJson {
    status.config.as_ref().unwrap()
}

fn hang_up(status: &StatusJson) {
    kill_process(Pid::from_raw(status.pid as i32).unwrap(), Signal::HUP).unwrap();
}

fn count(pid: u32, what: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count()
}

/// What the reloads go through: follows, groups and processors come and go, and batches change their size.
fn variant(number: usize) -> String {
    let mut text = String::from("[[follow]]\ninclude = [\"logs/*.log\"]\n");
    if number.is_multiple_of(2) {
        text.push_str("[[follow]]\ninclude = [\"extra/*.log\"]\nmax_line_bytes = \"1MiB\"\n");
    }
    let group =
        |name: &str, lines: usize| format!("[[group]]\nname = \"{name}\"\nbatch = {{ lines = {lines} }}\n");
    let exec = |group: &str, remark: usize| {
        let script =
            format!("test $SPILLQ_ATTEMPT = 1 || echo again >> again; cat >> out-{group} # {remark}");
        format!(
            "[[processor]]\ngroup = \"{group}\"\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\n"
        )
    };
    text.push_str(&group("file", 500 + number));
    if number % 4 != 1 {
        text.push_str("[[processor]]\ngroup = \"file\"\nkind = \"file\"\npath = \"out-file\"\n");
    }
    // Always there, and now and then another.
    text.push_str(&(group("exec", 1000 - number) + &exec("exec", number / 5)));
    if !number.is_multiple_of(3) {
        text.push_str(&(group("comes", 1000) + &exec("comes", 0)));
    }
    text
}

/// Writes `SOURCE NUMBER` lines to all files until `stop` is set; returns how many each has.
fn write_until(folder: &Path, stop: &AtomicBool) -> BTreeMap<String, u64> {
    let names = ["logs/a", "logs/b", "logs/c", "extra/d", "extra/e"];
    let open = |name: &str| {
        OpenOptions::new().create(true).append(true).open(folder.join(format!("{name}.log"))).unwrap()
    };
    let mut files = names.map(|name| (name.rsplit_once('/').unwrap().1.to_owned(), open(name)));
    let mut written = 0;
    while !stop.load(Ordering::Acquire) {
        for (name, file) in &mut files {
            let lines: String = (written..written + 5).map(|number| format!("{name} {number}\n")).collect();
            file.write_all(lines.as_bytes()).unwrap();
        }
        written += 5;
        // Load, and not as much as the disk takes.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    files.into_iter().map(|(name, _)| (name, written)).collect()
}

#[test]
fn reloads_under_load_lose_and_repeat_nothing_and_leave_nothing_behind() {
    /// All variants.
    const WARM: usize = 12;
    let reloads = from_env("SPILLQ_TEST_RELOADS", 20).max(20) as usize;
    let stage = staged();
    stage.write_sections(&variant(0));
    let mut service = stage.ready();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (folder, stop) = (stage.folder().to_owned(), Arc::clone(&stop));
        std::thread::spawn(move || write_until(&folder, &stop))
    };
    let (mut threads, mut descriptors) = (0, 0);
    for number in 1..=reloads {
        let before = service.wait("it answers", |_| true);
        let text = variant(number);
        match number % 3 {
            0 => {
                stage.write_sections(&text);
                hang_up(&before);
            }
            1 => stage.rename_over(&text),
            _ => stage.write_sections(&text),
        }
        let now = service.wait("the configuration is read again", |status| {
            config(status).reloads > config(&before).reloads
        });
        assert_eq!(config(&now).refused, [""; 0], "reload {number}");
        if number <= WARM {
            threads = threads.max(count(now.pid, "task"));
            descriptors = descriptors.max(count(now.pid, "fd"));
        }
    }
    stop.store(true, Ordering::Release);
    let written = writer.join().unwrap();
    // Everything is there again.
    stage.rename_over(&variant(4));
    let lines: u64 = written.values().sum();
    let status = service.wait("all lines are ingested and acked by all groups", |status| {
        let names: Vec<&str> = status.groups.iter().map(|group| group.group.as_str()).collect();
        names == ["file", "exec", "comes"]
            && status.log.next_seq == lines + 1
            && status.groups.iter().all(|group| group.lag_lines == 0)
    });
    let expected: BTreeMap<String, Vec<u64>> =
        written.into_iter().map(|(name, lines)| (name, (0..lines).collect())).collect();
    for name in ["out-file", "out-exec", "out-comes"] {
        assert!(lines_by_source(&stage.path(name)) == expected, "{name} has each line once, in order");
    }
    assert!(!stage.path("again").exists(), "no lease was lost");
    for group in &status.groups {
        let counts = (group.dead_letters, group.skipped_lines, group.dropped_lines, &group.last_failure);
        assert_eq!(counts, (0, 0, 0, &None), "{}", group.group);
    }
    let losses = &status.losses;
    assert_eq!((losses.lost_lines, losses.destroyed_unread_bytes, losses.rolled_back), (0, 0, 0));
    // Threads for blocking calls come and go; one left behind by each reload would be more than this.
    let more = ((reloads - WARM) / 2).min(8);
    let left = wait_for(|| {
        let now = (count(status.pid, "task"), count(status.pid, "fd"));
        (now.0 <= threads + more && now.1 <= descriptors + more).then_some(())
    });
    let now = (count(status.pid, "task"), count(status.pid, "fd"));
    assert!(left.is_some(), "{now:?} threads and descriptors, were {threads} and {descriptors}");
    assert_eq!(service.stop(), 0);
}

#[test]
fn an_invalid_file_changes_nothing_and_is_reported_until_it_is_fixed() {
    let stage = staged();
    let good = "[[follow]]\ninclude = [\"logs/*.log\"]\n[[group]]\nname = \"a\"\n\
                [[processor]]\ngroup = \"a\"\nkind = \"file\"\npath = \"out\"\n";
    stage.write_sections(good);
    let mut service = stage.ready();
    stage.rename_over(
        "[[follow]]\ninclude = [\"extra/*.log\"]\n[[group]]\nname = \"A\"\ntimeout = \"soon\"\n",
    );
    let status = service.wait("it is refused", |status| !config(status).refused.is_empty());
    let refused = &config(&status).refused;
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].starts_with("line 9: group.name") && refused[1].starts_with("line 10: group.timeout"));

    let output = stage.reload();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("nothing was changed") && told.contains("group.name") && told.contains("timeout"));
    let output = spillq(&["status", "--data-dir"]).arg(stage.path("q")).finished();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.contains("spillq.toml is refused, and the previous settings stay in force: line 9"),
        "{told}"
    );
    let doctor = stage.doctor().unwrap().0;
    let finding =
        doctor.findings.iter().find(|found| found.cause.as_deref() == Some("config_refused")).unwrap();
    assert!(!doctor.healthy && finding.next.starts_with("spillq config check "), "{finding:?}");

    // What ran before runs on.
    stage.append("logs/x.log", "x 0\n");
    stage.append("extra/y.log", "y 0\n");
    service.wait("lines flow", |status| status.groups[0].acked_lines == 1);
    assert_eq!(fs::read_to_string(stage.path("out")).unwrap(), "x 0\n");

    fs::remove_file(stage.config()).unwrap();
    service.wait("a missing file is reported too", |status| {
        config(status).refused.iter().any(|why| why.contains("cannot read the configuration"))
    });
    stage.write_sections("");
    let output = stage.reload();
    assert_eq!(output.status.code(), Some(0), "a head without sections is a configuration");
    stage.write_sections(good);
    let status = service.wait("it is fixed", |status| config(status).reloads >= 2);
    assert_eq!(config(&status).refused, [""; 0]);
    assert!(
        stage
            .doctor()
            .unwrap()
            .0
            .findings
            .iter()
            .all(|found| found.cause.as_deref() != Some("config_refused"))
    );
    stage.append("logs/x.log", "x 1\n");
    service.wait("lines flow again", |status| {
        status.groups.iter().any(|group| group.group == "a" && group.acked_lines == 2)
    });
    assert_eq!(fs::read_to_string(stage.path("out")).unwrap(), "x 0\nx 1\n");
    assert_eq!(service.stop(), 0);
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_holds_at_once() {
    let stage = staged();
    let sections = "[[follow]]\ninclude = [\"logs/*.log\"]\n[[group]]\nname = \"a\"\n";
    stage.write_sections(sections);
    let mut service = stage.ready();
    assert_eq!(stage.reloaded(), "nothing has changed\n");
    let slower = format!("{sections}timeout = \"7s\"\n[window]\nbytes = \"2MiB\"\n");
    fs::write(stage.config(), format!("stuck_after = \"5m\"\n{HEAD}limit = \"1GiB\"\n{slower}")).unwrap();
    // Who was faster, the file's event or we: it says what is different.
    let status = service.wait("both are named", |status| {
        config(status).needs_restart.len() == 2 || {
            stage.reload();
            false
        }
    });
    assert_eq!(
        config(&status).needs_restart,
        ["stuck_after = \"5m\", was \"2m\"", "window.bytes = \"2MiB\", was \"8MiB\""]
    );
    let told = stage.reloaded();
    assert_eq!(
        told,
        "needs a restart: stuck_after = \"5m\", was \"2m\"\nneeds a restart: window.bytes = \"2MiB\", was \"8MiB\"\n",
        "what could be taken was"
    );
    let notes = stage.doctor().unwrap().0.notes;
    assert!(
        notes.iter().any(|note| note.contains("window.bytes") && note.ends_with("needs a restart")),
        "{notes:?}"
    );
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_command_that_lives_on_is_left_alone_by_what_is_not_about_it() {
    needs!("python3");
    let stage = staged();
    let script = r#"
import json, os, sys
open("pids", "a").write(f"{os.getpid()}\n")
while header := sys.stdin.buffer.readline():
    batch = json.loads(header)
    open("out", "ab").write(sys.stdin.buffer.read(batch["bytes"]))
    print("OK", batch["last_seq"], flush=True)
"#;
    fs::write(stage.path("stream.py"), script).unwrap();
    let sections = |timeout: &str, other: &str| {
        format!(
            "[[follow]]\ninclude = [\"logs/*.log\"]\n[[group]]\nname = \"a\"\ntimeout = \"{timeout}\"\n\
             [[processor]]\ngroup = \"a\"\nkind = \"exec-stream\"\ncommand = [\"python3\", \"stream.py\"]\n{other}"
        )
    };
    stage.write_sections(&sections("30s", ""));
    let mut service = stage.ready();
    stage.append("logs/x.log", "x 0\n");
    service.wait("the first line is acked", |status| status.groups[0].acked_lines == 1);
    for number in 1..=5 {
        let other = format!("[[group]]\nname = \"b\"\nbatch = {{ lines = {number} }}\n");
        stage.write_sections(&sections(&format!("{}s", 30 + number), &other));
        stage.reloaded();
        stage.append("logs/x.log", &format!("x {number}\n"));
        service.wait("the next line is acked", |status| {
            status.groups.iter().any(|group| group.group == "a" && group.acked_lines == number + 1)
        });
    }
    assert_eq!(fs::read_to_string(stage.path("pids")).unwrap().lines().count(), 1, "one process for all");
    // What is about it replaces it, between two batches.
    stage.write_sections(&sections("30s", "").replace("\"stream.py\"", "\"-u\", \"stream.py\""));
    stage.reloaded();
    stage.append("logs/x.log", "x 6\n");
    service.wait("the last line is acked", |status| status.groups[0].acked_lines == 7);
    assert_eq!(fs::read_to_string(stage.path("pids")).unwrap().lines().count(), 2);
    assert_eq!(lines_by_source(&stage.path("out"))["x"], (0..=6).collect::<Vec<_>>());
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_new_processor_begins_when_the_batch_of_the_one_before_has_ended() {
    let stage = staged();
    let sections = |script: &str| {
        format!(
            "[[follow]]\ninclude = [\"logs/*.log\"]\n[[group]]\nname = \"a\"\n[[processor]]\ngroup = \"a\"\n\
             kind = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\n"
        )
    };
    stage.write_sections(&sections("echo > began; until test -e go; do sleep 0.05; done; cat >> out"));
    let mut service = stage.ready();
    stage.append("logs/x.log", "x 0\n");
    wait_for(|| stage.path("began").exists().then_some(())).expect("the first batch is out");
    stage.write_sections(&sections("cat >> out; cat >> out2 < /dev/null"));
    let told = stage.reloaded();
    // By the file's event it may have been taken before we asked; then nothing is new, but still to come.
    assert!(told.contains("processor of group a: starts when the batch in flight has ended"), "{told}");
    stage.append("logs/x.log", "x 1\n");
    service.wait("the second line waits", |status| status.groups[0].lag_lines == 2);
    assert!(!stage.path("out2").exists());
    fs::write(stage.path("go"), "").unwrap();
    service.wait("both are acked", |status| status.groups[0].acked_lines == 2);
    assert!(stage.path("out2").exists(), "the second by the new one");
    assert_eq!(lines_by_source(&stage.path("out"))["x"], [0, 1]);
    let status = service.wait("it answers", |_| true);
    assert_eq!(status.groups[0].last_failure, None);
    assert_eq!(service.stop(), 0);
}

#[test]
fn workers_come_and_go_with_what_may_be_in_flight() {
    let stage = staged();
    let sections = |in_flight: u32| {
        let script = "echo > began-$SPILLQ_FIRST_SEQ; until test -e go; do sleep 0.05; done; cat > out-$SPILLQ_FIRST_SEQ";
        format!(
            "[[follow]]\ninclude = [\"logs/*.log\"]\n[[group]]\nname = \"a\"\norder = \"none\"\n\
             in_flight = {in_flight}\nbatch = {{ lines = 1 }}\n\
             [[processor]]\ngroup = \"a\"\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\n"
        )
    };
    stage.write_sections(&sections(1));
    let mut service = stage.ready();
    stage.append("logs/x.log", "x 0\nx 1\nx 2\nx 3\nx 4\n");
    let began = |count: usize| {
        let all = wait_for(|| {
            let names = fs::read_dir(stage.folder()).unwrap().map(|entry| entry.unwrap().file_name());
            let began = names.filter(|name| name.to_str().unwrap().starts_with("began-")).count();
            (began == count).then_some(())
        });
        all.unwrap_or_else(|| panic!("never {count} at once"));
    };
    began(1);
    stage.write_sections(&sections(3));
    stage.reloaded();
    began(3);
    stage.write_sections(&sections(2));
    stage.reloaded();
    service.wait("three are still out", |status| status.groups[0].leased == 3);
    fs::write(stage.path("go"), "").unwrap();
    let status = service.wait("all are acked", |status| status.groups[0].acked_lines == 5);
    assert_eq!(status.groups[0].last_failure, None);
    let lines = (1..=5).map(|seq| fs::read_to_string(stage.path(&format!("out-{seq}"))).unwrap());
    assert_eq!(lines.collect::<String>(), "x 0\nx 1\nx 2\nx 3\nx 4\n");
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_mounted_folder_whose_link_is_exchanged_is_read_again() {
    let stage = staged();
    for (version, group) in [("..v1", "a"), ("..v2", "b")] {
        fs::create_dir(stage.path(version)).unwrap();
        write_config(
            &stage.path(version),
            &format!("{}[[group]]\nname = \"{group}\"\n[[follow]]\ninclude = [\"logs/*.log\"]\n", HEAD),
        );
    }
    symlink("..v1", stage.path("..data")).unwrap();
    symlink("..data/spillq.toml", stage.config()).unwrap();
    let mut service = stage.ready();
    symlink("..v2", stage.path("..data_tmp")).unwrap();
    fs::rename(stage.path("..data_tmp"), stage.path("..data")).unwrap();
    service.wait("group b is made", |status| status.groups.iter().any(|group| group.group == "b"));
    assert_eq!(service.stop(), 0);
}

#[test]
fn without_a_file_a_hangup_ends_nothing_and_says_so() {
    let stage = staged();
    let mut service = Service::start(&stage.path("q"), &["--follow", "logs/*.log"]);
    let status = service.wait("it is ready", |_| true);
    hang_up(&status);
    let output = stage.reload();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("there is no configuration file to read again"), "{told}");
    assert_eq!(service.stop(), 0);
    let output = stage.reload();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no service runs on it"));
}

#[test]
fn the_answer_of_a_reload_is_for_programs_too() {
    let stage = staged();
    stage.write_sections("[[follow]]\ninclude = [\"logs/*.log\"]\n");
    let service = stage.ready();
    stage.write_sections(
        "[[follow]]\ninclude = [\"logs/*.log\"]\n[[processor]]\nkind = \"file\"\npath = \"logs/x.log\"\n",
    );
    let output = spillq(&["config", "reload", "--json", "--data-dir"]).arg(stage.path("q")).finished();
    let answer: ReloadJson = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), answer.taken), (Some(2), false));
    assert!(answer.problems[0].contains("would read its own output for ever"), "{answer:?}");
    assert_eq!(service.stop(), 0);
}

#[test]
fn few_descriptors_are_told_and_lose_nothing() {
    let stage = staged();
    let names: Vec<String> = (0..300).map(|number| format!("f{number}")).collect();
    let add = |from: u64| {
        for name in &names {
            let lines: String = (from..from + 5).map(|number| format!("{name} {number}\n")).collect();
            stage.append(&format!("logs/{name}.log"), &lines);
        }
    };
    add(0);
    let mut command = program("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(binary());
    command.args([
        "--log",
        "warn",
        "run",
        "--data-dir",
        "q",
        "--follow",
        "logs/*.log",
        "--",
        "sh",
        "-c",
        "cat >> out",
    ]);
    let mut service = command.current_dir(stage.folder()).started();
    let look = || spillq::http::Client::connect(&stage.path("q"))?.get::<StatusJson>("/v1/status").ok();
    let all_acked = |lines: u64| {
        let acked = wait_for(|| look().filter(|status| status.groups[0].acked_lines == lines));
        assert!(acked.is_some(), "{:?}", look());
    };
    all_acked(1_500);
    add(5);
    all_acked(3_000);
    let status = look().unwrap();
    assert!(count(status.pid, "fd") <= 64);
    assert!(service.terminated().success());
    let expected: BTreeMap<String, Vec<u64>> =
        names.iter().map(|name| (name.clone(), (0..10).collect())).collect();
    assert!(lines_by_source(&stage.path("out")) == expected, "each line once, in order");
    let messages = String::from_utf8(service.printed()).unwrap();
    assert!(messages.contains("RLIMIT_NOFILE is low"), "{messages}");
    assert!(!messages.contains("Too many open files"), "{messages}");
}

#[test]
fn a_command_gets_another_folder_and_other_variables_with_a_reload() {
    let stage = staged();
    let text = |cwd: &str, value: &str| {
        format!(
            "[[follow]]\ninclude = [\"logs/*.log\"]\n[[processor]]\nkind = \"exec\"\n\
             command = [\"sh\", \"-c\", \"echo $VALUE >> out\"]\ncwd = \"{cwd}\"\nenv = {{ VALUE = \"{value}\" }}\n"
        )
    };
    for folder in ["one", "other"] {
        fs::create_dir(stage.path(folder)).unwrap();
    }
    stage.write_sections(&text("one", "a"));
    let mut service = stage.ready();
    stage.append("logs/a.log", "1\n");
    service.wait("the first line is acked", |status| status.groups[0].acked_lines == 1);
    assert_eq!(fs::read_to_string(stage.path("one/out")).unwrap(), "a\n");
    stage.write_sections(&text("other", "b"));
    let said = stage.reloaded();
    assert!(said.contains("cwd = ") && said.contains("other"), "{said}");
    stage.append("logs/a.log", "2\n");
    service.wait("the second line is acked", |status| status.groups[0].acked_lines == 2);
    assert_eq!(fs::read_to_string(stage.path("other/out")).unwrap(), "b\n");
    assert_eq!(service.stop(), 0);
}
