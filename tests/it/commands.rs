//! Commands on a store, by the built program: they find it through the configuration, and print the same of it while a
//! service runs and when none does.

use std::fs;
use std::path::Path;
use std::process::Output;

use spillq::http::StatusJson;

use crate::support::{Bounded, Service, spillq, write_config};

fn run(folder: &Path, args: &[&str]) -> Output {
    spillq(args).current_dir(folder).finished()
}

#[track_caller]
fn check(folder: &Path, args: &[&str], status: i32, message: &str) -> String {
    let output = run(folder, args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
    assert!(said.contains(message), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// They wanted `--data-dir`, which the configuration has already, and looked at `./spillq-data` without it.
#[test]
fn commands_on_a_store_find_it_through_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (etc, elsewhere) = (folder.path().join("etc"), folder.path().join("elsewhere"));
    fs::create_dir(&etc).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    // Of the folder of the configuration, not of where the command runs.
    let text = "data_dir = \"q\"\n[[follow]]\ninclude = [\"*.log\"]\n";
    let config = write_config(&etc, text).display().to_string();
    fs::write(etc.join("a.log"), "one\ntwo\nthree\n").unwrap();
    check(&elsewhere, &["run", "--once", "--config", &config, "--", "true"], 0, "");

    let commands: &[(&[&str], &str)] = &[
        (&["status"], "3 lines so far"),
        (&["inspect"], "one"),
        (&["verify"], "sound: 3 lines"),
        (&["repair", "--dry-run"], "sound: 3 lines held"),
        (&["source", "list"], "a.log"),
        (&["group", "pause", "default"], "group default is paused"),
        (&["group", "list"], "default paused: acked up to 3, 0 lines wait"),
        (&["group", "resume", "default"], "group default resumes"),
        (&["group", "add", "audit"], "group audit was added"),
        (
            &["group", "seek", "audit", "--to", "2", "--discard-lines"],
            "at line 2: 0 lines wait again, 1 was skipped",
        ),
        (
            &["dead-letter", "park", "--group", "audit", "2"],
            "1 line moved to the dead letters of group audit",
        ),
        (&["dead-letter", "list", "--group", "audit"], "2 parked, 0 attempts, "),
        (&["dead-letter", "show", "--group", "audit", "2"], "  line: two\n"),
        (&["dead-letter", "export", "--group", "audit"], "\"seq\":2"),
        (&["dead-letter", "retry", "--group", "audit", "2"], "1 dead letter put back for delivery"),
        (&["group", "remove", "audit", "--discard-lines"], "group audit was removed"),
        (&["backup", "--to", "copy"], "3 lines ("),
    ];
    for (args, expected) in commands {
        let printed = check(&elsewhere, &[args, &["--config", config.as_str()][..]].concat(), 0, "");
        assert!(printed.contains(expected), "{args:?}: {printed}");
    }
    assert!(!elsewhere.join("spillq-data").exists());
    check(&elsewhere, &["status", "--running", "--config", &config], 1, "etc/q: no service runs on it");
    check(&elsewhere, &["config", "reload", "--config", &config], 2, "etc/q: no service runs on it");
    // The option wins over the configuration.
    check(&elsewhere, &["status", "--config", &config, "--data-dir", "other"], 2, "other");

    let wrong = folder.path().join("wrong.toml").display().to_string();
    check(&elsewhere, &["status", "--config", &wrong], 2, "cannot read the configuration");
    fs::write(&wrong, "data_dri = \"q\"\n").unwrap();
    for (args, _) in commands {
        let wrong = [args, &["--config", wrong.as_str()][..]].concat();
        check(&elsewhere, &wrong, 2, "data_dri");
    }
    let url = ["--url", "http://127.0.0.1:1", "--config", &config];
    check(&elsewhere, &[&["status"], &url[..]].concat(), 2, "cannot be used with");
    check(&elsewhere, &[&["top"], &url[..]].concat(), 2, "cannot be used with");
}

/// It was 120 MiB less for a stopped store: neither its journals nor its reserve counted.
#[test]
fn a_stopped_store_takes_as_much_disk_as_a_running_one() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("q");
    fs::write(folder.path().join("a.log"), "one\ntwo\nthree\n").unwrap();
    let mut service = Service::start(&data_dir, &["--follow", "a.log"]);
    service.wait("the lines are in", |status| status.log.next_seq == 4);
    check(folder.path(), &["dead-letter", "park", "--data-dir", "q", "2"], 0, "");
    let running = service.wait("one is a dead letter", |status| status.groups[0].dead_letters == 1);
    assert_eq!(service.stop(), 0);
    let status = || -> StatusJson {
        serde_json::from_str(&check(folder.path(), &["status", "--json", "--data-dir", "q"], 0, "")).unwrap()
    };
    let stopped = status();
    assert_eq!((running.from.as_str(), stopped.from.as_str()), ("service", "disk"));
    assert_eq!(running.log.disk_bytes, stopped.log.disk_bytes);
    let mut service = Service::start(&data_dir, &["--follow", "a.log"]);
    let running = service.wait("it runs again", |status| status.log.next_seq == 4);
    service.kill();
    assert_eq!(running.log.disk_bytes, status().log.disk_bytes, "after a kill");
}
