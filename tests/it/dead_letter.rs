//! Dead letters listed, shown and exported by the built program, from a running service and from a stopped store.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Bounded, Service, spillq, write_config};

fn lines(output: &[u8]) -> Vec<Value> {
    output
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn an_export_holds_the_lines_and_why_and_removes_none() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, log) = (folder.path().join("q"), folder.path().join("a.log"));
    fs::write(&log, b"one\ntwo\n\xff\xfe\nfour\n").unwrap();
    let mut service = Service::start(&data_dir, &["--follow", log.to_str().unwrap()]);
    service.wait("the lines are in", |status| status.log.next_seq == 5);
    let dir = data_dir.to_str().unwrap();
    assert!(spillq(&["dead-letter", "park", "--data-dir", dir, "2", "3"]).finished().status.success());

    let live = spillq(&["dead-letter", "export", "--data-dir", dir]).finished();
    assert!(live.status.success(), "{}", String::from_utf8_lossy(&live.stderr));
    assert_eq!(service.stop(), 0);
    let stopped = spillq(&["dead-letter", "export", "--data-dir", dir]).finished();
    assert_eq!(live.stdout, stopped.stdout, "a service says the same as the disk");
    let letters = lines(&live.stdout);
    assert_eq!(letters.len(), 2);
    let two = &letters[0];
    assert_eq!((&two["seq"], &two["text"], &two["offset"]), (&2.into(), &"two".into(), &4.into()));
    assert_eq!((&two["source"], &two["attempts"]), (&log.to_str().unwrap().into(), &0.into()));
    assert_eq!(two["reason"], "parked by an operator");
    assert!(two["time"].is_string() && two["dead_since"].is_string());
    assert_eq!((&letters[1]["base64"], letters[1].get("text")), (&"//4=".into(), None));

    let file = folder.path().join("letters.jsonl");
    let export =
        || spillq(&["dead-letter", "export", "--data-dir", dir, "--to", file.to_str().unwrap()]).finished();
    assert!(export().status.success());
    assert_eq!(fs::read(&file).unwrap(), live.stdout);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(export().status.code(), Some(2), "a file that is there is never overwritten");
    let list = spillq(&["dead-letter", "list", "--data-dir", dir, "--json"]).finished();
    assert_eq!(lines(&list.stdout).len(), 2, "they are in the log as before");
}

/// Exit status, standard output and standard error.
fn dead_letter(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let args = [&["dead-letter"], args, &["--data-dir", "q"]].concat();
    let output = spillq(&args).current_dir(folder).finished();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Runs until all that is in `a.log` is done or a dead letter, with these groups, each with this command.
fn run_once(folder: &Path, groups: &[&str], command: &str) {
    let mut text = "data_dir = \"q\"\n[[follow]]\ninclude = [\"a.log\"]\n".to_owned();
    for group in groups {
        text += &format!(
            "[[group]]\nname = \"{group}\"\n[[processor]]\ngroup = \"{group}\"\nkind = \"exec\"\n\
             command = [\"sh\", \"-c\", {command:?}]\n"
        );
    }
    let config = write_config(folder, &text);
    let output = spillq(&["run", "--once", "--config"]).arg(config).finished();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `show` printed the first line alone: that the command failed, and not why.
#[test]
fn show_prints_the_end_of_standard_error_and_nothing_that_a_terminal_acts_on() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "good\n{\"bad\": 1}\n").unwrap();
    // More than is stored: the end is what counts.
    let command = "if grep -q bad; then echo Traceback >&2; yes x | head -c 5000 >&2; \
                   printf '  File \\033[31mx.py\\n\\tKeyError: price\\n' >&2; exit 65; fi";
    run_once(folder.path(), &["fills"], command);
    let (code, printed, _) = dead_letter(folder.path(), &["show", "--all"]);
    assert_eq!(code, Some(0), "{printed}");
    let shown: Vec<&str> = printed.lines().collect();
    assert!(shown[0].starts_with("2 rejected, "), "{printed}");
    assert!(shown[0].ends_with("sh ended with exit status 65 on line 2"), "{printed}");
    assert_eq!(shown[1], r#"  line: {"bad": 1}"#);
    assert!(shown[2..].iter().all(|line| line.starts_with("  | ")), "{printed}");
    assert!(printed.ends_with("  |   File ?[31mx.py\n  |     KeyError: price\n"), "{printed}");
    assert!(printed.len() < 16_000, "bounded: {}", printed.len());
    let (_, printed, _) = dead_letter(folder.path(), &["show", "--all", "--json"]);
    let reason = lines(printed.as_bytes())[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("sh ended with exit status 65 on line 2\n"), "{reason}");
    assert!(reason.ends_with("\n  File ?[31mx.py\n\tKeyError: price\n"), "{reason}");
    let (_, listed, _) = dead_letter(folder.path(), &["list"]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
}

/// Without `--group` they looked for a group named default, whatever groups there were.
#[test]
fn the_only_group_needs_no_name_and_several_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("a.log"), "one\ntwo\n").unwrap();
    run_once(at, &["fills"], "cat > /dev/null");
    let add = |name: &str, code: i32| {
        let args = ["group", "add", name, "--data-dir", "q"];
        assert_eq!(spillq(&args).current_dir(at).finished().status.code(), Some(code));
    };
    let none = "spillq: group fills has no dead letters\n";
    let (code, _, said) = dead_letter(at, &["show", "--all"]);
    assert!(code == Some(2) && said.starts_with(none), "{said}");
    add("audit", 0);
    for args in [&["show", "1"][..], &["retry", "--all"], &["discard", "1"], &["park", "1"], &["export"]] {
        let (code, printed, said) = dead_letter(at, args);
        assert!(code == Some(2) && printed.is_empty(), "{args:?}: {printed}");
        assert_eq!(
            said, "spillq: the store has several groups: fills, audit\nhint: name one with --group\n",
            "{args:?}"
        );
    }
    let (code, printed, said) = dead_letter(at, &["park", "--all", "--group", "audit"]);
    assert_eq!(
        (code, printed.as_str(), said.as_str()),
        (
            Some(0),
            "2 lines moved to the dead letters of group audit; `spillq dead-letter retry` puts them back\n",
            ""
        ),
        "one message, not one for each line"
    );
    // Of several all are listed, each with its group.
    let (_, listed, _) = dead_letter(at, &["list"]);
    assert!(listed.starts_with("audit 1 parked, 0 attempts, ") && listed.contains("\naudit 2 "), "{listed}");
    let (_, listed, _) = dead_letter(at, &["list", "--json"]);
    let groups: Vec<Value> =
        lines(listed.as_bytes()).into_iter().map(|mut one| one["group"].take()).collect();
    assert_eq!(groups, ["audit", "audit"]);
    // A service says the same.
    let mut service = Service::start(&at.join("q"), &["--config", "spillq.toml"]);
    service.wait("it runs", |status| status.groups.len() == 2);
    assert_eq!(dead_letter(at, &["list", "--json"]).1, listed);
    assert_eq!(dead_letter(at, &["retry", "--all"]).0, Some(2));
    assert_eq!(service.stop(), 0);
    // One that is named default is meant where none is named.
    add("default", 0);
    assert_eq!(dead_letter(at, &["list"]).1, "");
    let (code, _, said) = dead_letter(at, &["show", "1"]);
    assert!(code == Some(2) && said.contains("group default has no such dead letter"), "{said}");
}

#[test]
fn an_export_to_standard_output_is_data_alone_and_ends_with_its_reader() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // More than a pipe holds.
    let text: String = (0..400).map(|n| format!("{n} {}\n", "x".repeat(1_000))).collect();
    fs::write(at.join("a.log"), text).unwrap();
    run_once(at, &["default"], "cat > /dev/null");
    let seek = ["group", "seek", "default", "--to", "beginning", "--data-dir", "q"];
    assert!(spillq(&seek).current_dir(at).finished().status.success());
    assert_eq!(dead_letter(at, &["park", "--all"]).0, Some(0));
    let (code, printed, said) = dead_letter(at, &["export", "--to", "-"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(lines(printed.as_bytes()).len(), 400);
    assert!(!at.join("-").exists());
    assert_eq!(dead_letter(at, &["export"]).1, printed);

    let mut command = spillq(&["dead-letter", "export", "--to", "-", "--data-dir", "q"]);
    command.current_dir(at).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut export = command.started_with_its_streams();
    let mut first = String::new();
    BufReader::new(export.child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    // Its reader has gone, as `head` goes.
    let (mut stderr, mut said) = (export.child.stderr.take().unwrap(), String::new());
    let status = export.ended();
    stderr.read_to_string(&mut said).unwrap();
    assert!(printed.starts_with(&first) && !first.is_empty());
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}
