//! Log messages of the built program: both formats, counted repeats, and safe on a terminal.

use std::fs;
use std::process::Stdio;

use spillq::plain::needs_escape;

use crate::support::{Bounded, Service, spillq, wait_for};

/// A path that would clear the screen, and begin another line.
const WILD: &str = "wild\u{1b}[2J\nfake: well.log";

#[test]
fn json_messages_are_an_object_a_line_and_so_is_the_failure_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    let args =
        ["--log-format", "json", "run", "--once", "--data-dir", "q", "--follow", "a.log", "--", "sh", "-c"];
    let output = spillq(&args)
        .arg(r"printf 'said \033[31m\nsaid \033[31m\n' >&2; cat")
        .current_dir(folder.path())
        .finished();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && output.stdout == b"one\n", "{told}");
    let lines: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let opened = lines.iter().find(|line| line["message"] == "the log is open").unwrap();
    assert_eq!((&opened["level"], &opened["fields"]["run"]), (&"info".into(), &1.into()), "{opened}");
    let said =
        lines.iter().filter(|line| line["fields"]["from"] == "command" && line["message"] == "said ?[31m");
    let said: Vec<_> = said.collect();
    assert_eq!(said.len(), 2, "lines of commands are not counted together: {told}");
    assert_eq!(said[0]["fields"]["group"], "default");
    assert!(opened["time"].as_str().unwrap().ends_with('Z'), "{opened}");

    let output = spillq(&["--log-format", "json", "verify", "--data-dir", WILD]).finished();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    let failure: serde_json::Value = serde_json::from_str(told.trim_end()).unwrap();
    assert_eq!(failure["level"], "error");
    assert!(!told.trim_end().contains(needs_escape), "{told:?}");
}

#[test]
fn file_names_and_output_of_commands_are_safe_on_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(WILD), "one\n").unwrap();
    // A link to nowhere is a file that cannot be read.
    let data_dir = folder.path().join("q");
    let words = r"printf 'last \033[31mwords\033]0;title\007\n' >&2; exit 3";
    let mut service = Service::start(&data_dir, &["--follow", "*.log", "--", "sh", "-c", words]);
    service.wait("it failed", |status| status.groups[0].last_failure.is_some());
    let q = data_dir.to_str().unwrap();
    for args in [["status", "--data-dir", q], ["doctor", "--data-dir", q], ["inspect", "--data-dir", q]] {
        let shown = wait_for(|| {
            let output = spillq(&args).finished();
            let text = String::from_utf8(output.stdout).unwrap();
            let is_told = match args[0] {
                "status" => text.contains("last failure"),
                "doctor" => text.contains("is blocked by line 1"),
                _ => text.contains("one"),
            };
            is_told.then_some(text)
        });
        let shown = shown.unwrap_or_else(|| panic!("{args:?} shows it"));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().all(|line| !line.contains(needs_escape)), "{args:?}: {shown:?}");
        assert!(!lines.iter().any(|line| line.starts_with("fake")), "{args:?}: {shown}");
    }
    service.stop();

    // A folder instead of a file: a message names it.
    fs::create_dir(folder.path().join("other")).unwrap();
    let mut command =
        spillq(&["--log", "debug", "run", "--once", "--data-dir", "q2", "--follow", "*.log", "--", "cat"]);
    let output = command.current_dir(folder.path()).stdout(Stdio::null()).finished();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.lines().all(|line| !line.contains(needs_escape)), "{told:?}");
    assert!(told.lines().all(|line| line.starts_with("20")), "each line is a message: {told}");
}

/// In text messages, lines of commands had neither time nor group, and those of two commands were mixed.
#[test]
fn output_of_a_command_is_whole_lines_with_time_and_group() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    let script = r"printf 'half ' >&2; sleep 0.3; printf 'a line\twith \033[31mcolour\nlast' >&2; cat";
    let check = |args: &[&str], kind: &str| {
        let output = spillq(args).args(["--", "sh", "-c", script]).current_dir(folder.path()).finished();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && output.stdout == b"one\n", "{kind}: {told}");
        for said in ["half a line\twith ?[31mcolour", "last"] {
            let line = told.lines().find(|line| line.ends_with(&format!("Z group default: {said}")));
            assert!(line.is_some_and(|line| line.starts_with("20")), "{kind}: {said:?}: {told}");
        }
    };
    check(&["run", "--once", "--data-dir", "q", "--follow", "a.log"], "run");
    // Lines that wait, for drain.
    let args = ["run", "--once", "--data-dir", "w", "--follow", "a.log"];
    assert!(spillq(&args).current_dir(folder.path()).finished().status.success());
    check(&["drain", "--data-dir", "w"], "drain");
}

#[test]
fn a_repeated_message_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    let config = crate::support::write_config(
        folder.path(),
        "data_dir = \"q\"\n[[follow]]\ninclude = [\"a.log\"]\n[[group]]\nname = \"default\"\nretry = { initial = \"10ms\", max = \"10ms\", attempts = 1000 }\n\
         [[processor]]\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", \"echo x >> tries; test $(wc -l < tries) -gt 30\"]\n",
    );
    // The count is printed when the service stops.
    let output = spillq(&["run", "--once", "--config"]).arg(&config).current_dir(folder.path()).finished();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let failures: Vec<&str> = told.lines().filter(|line| line.contains("exit status 1")).collect();
    let counted = failures.iter().find_map(|line| line.split_once("(… ")?.1.split_once(" more times in "));
    let again: u64 = counted.unwrap_or_else(|| panic!("{told}")).0.parse().unwrap();
    assert!(failures.len() < 30 && again >= 20, "{told}");
    // After the last message it would look like a new one.
    let (counted, stopped) =
        (told.find(" more times in ").unwrap(), told.find("stopped; 0 lines wait").unwrap());
    assert!(counted < stopped, "{told}");
    assert!(told.contains(" s, the last at "), "{told}");
}
