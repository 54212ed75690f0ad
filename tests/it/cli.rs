//! What the built program prints, and how it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::need::LOOP_DEVICES;
use crate::support::{self, Bounded, binary, needs, program, run as system};

fn spillq(folder: &Path, args: &[&str]) -> Command {
    let mut command = support::spillq(args);
    command.current_dir(folder);
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs it, and checks the exit status and what standard error begins with.
#[track_caller]
fn check(folder: &Path, args: &[&str], status: i32, message: &str) -> Output {
    let output = spillq(folder, args).finished();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {}", stderr(&output));
    assert!(stderr(&output).starts_with(message), "{args:?}: {}", stderr(&output));
    output
}

#[test]
fn once_does_the_rest_and_says_no_where_a_matched_file_was_not_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    // Who runs the tests may read everything; a link to what the globs do not find is not followed, whoever asks.
    fs::write(folder.path().join("other"), "two\n").unwrap();
    std::os::unix::fs::symlink("other", folder.path().join("b.log")).unwrap();
    let args = ["--log", "error", "run", "--once", "--data-dir", "q", "--follow", "*.log", "--", "cat"];
    let output = check(
        folder.path(),
        &args,
        1,
        "spillq: these files matched and were not read; everything else was\n",
    );
    assert_eq!(stdout(&output), "one\n");
    assert!(stderr(&output).contains("b.log: a symbolic link, not a regular file"), "{}", stderr(&output));
    fs::remove_file(folder.path().join("b.log")).unwrap();
    check(folder.path(), &args, 0, "");
}

#[test]
fn help_is_data_and_usage_errors_end_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for help in [["--help"], ["-h"], ["--version"]] {
        let output = check(folder.path(), &help, 0, "");
        assert!(stderr(&output).is_empty() && stdout(&output).contains("spillq"), "{help:?}");
    }
    check(folder.path(), &[], 2, "");
    check(folder.path(), &["nonsense"], 2, "error: ");
    check(
        folder.path(),
        &["bench", "generate", "many"],
        2,
        "spillq: <LINES> many: not a number of lines; write it as 1000000 or 1_000_000",
    );
}

#[test]
fn a_configuration_is_written_once_checked_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let missing = "spillq: cannot read the configuration spillq.toml: No such file";
    check(folder.path(), &["config", "check"], 2, missing);
    check(folder.path(), &["config", "init"], 0, "");
    let output = check(folder.path(), &["config", "check"], 0, "");
    assert!(stdout(&output).starts_with("spillq.toml: valid\n"), "{}", stdout(&output));
    let written = fs::read(folder.path().join("spillq.toml")).unwrap();
    let refused =
        "spillq: cannot write the configuration spillq.toml: it exists, and is never overwritten\nhint: ";
    check(folder.path(), &["config", "init"], 2, refused);
    assert_eq!(fs::read(folder.path().join("spillq.toml")).unwrap(), written);

    let output = check(folder.path(), &["config", "show", "--json", "spillq.toml"], 0, "");
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["settings"]["disk"]["limit"], "50GiB");
}

#[test]
fn problems_of_a_configuration_are_told_together() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("c.toml"), "x = 1\n[disk]\nlimit = \"12 parsecs\"\n").unwrap();
    check(
        folder.path(),
        &["config", "check", "c.toml"],
        2,
        "spillq: c.toml: 2 problems\n  line 1: x = 1: unknown key; known here: consumers, data_dir, ",
    );
    check(folder.path(), &["config", "show", "--config", "c.toml"], 2, "spillq: c.toml: 2 problems\n");
}

#[test]
fn variables_are_shown_and_suspicious_ones_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let output = spillq(folder.path(), &["config", "show"])
        .env("SPILLQ_DISK_LIMIT", "3GiB")
        .env("SPILLQ_DISK_RESERV", "1GiB")
        .finished();
    assert!(output.status.success());
    let shown = stdout(&output);
    let limit = shown.lines().find(|line| line.starts_with("limit")).unwrap();
    assert!(limit.starts_with("limit = \"3GiB\" ") && limit.ends_with("# environment, SPILLQ_DISK_LIMIT"));
    assert!(stderr(&output).contains("did you mean SPILLQ_DISK_RESERVE?"), "{}", stderr(&output));
}

#[test]
fn generated_lines_are_data_on_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let output = check(folder.path(), &["bench", "generate", "1_000"], 0, "1,000 lines of 350 bytes, ");
    assert_eq!(output.stdout.len(), 350_000);
}

#[test]
fn manual_pages_are_those_of_this_version() {
    let folder = tempfile::tempdir().unwrap();
    check(folder.path(), &["man", "--dir", "."], 0, "");
    let pages = |dir: &Path| {
        let mut pages: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
            .collect();
        pages.sort();
        pages
    };
    let (made, kept) = (pages(folder.path()), pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man")));
    let names =
        |pages: &[(std::ffi::OsString, String)]| pages.iter().map(|page| page.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&made), names(&kept), "`just man` writes docs/man anew");
    for (made, kept) in made.iter().zip(&kept) {
        assert!(made == kept, "{:?} is out of step: `just man` writes docs/man anew", made.0);
    }
    let main = check(folder.path(), &["man"], 0, "");
    assert_eq!(stdout(&main), made.iter().find(|page| page.0 == "spillq.1").unwrap().1);
}

#[test]
fn shells_complete_commands_and_options() {
    needs!("bash");
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&check(folder.path(), &["completions", shell], 0, ""));
        assert!(script.contains("dead-letter") && script.contains("dry-run"), "{shell}");
    }
    let bash = check(folder.path(), &["completions", "bash"], 0, "");
    let parsed = program("bash").args(["-n", "-c", &stdout(&bash)]).finished().status;
    assert!(parsed.success());
    check(folder.path(), &["completions", "tcsh"], 2, "error: ");
}

/// A data dir on the layer of a container was taken without a word, and was gone with the container.
#[test]
fn a_data_dir_that_keeps_nothing_is_refused_unless_it_is_asked_for() {
    needs!(LOOP_DEVICES, "mount");
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("memory");
    fs::create_dir(&mount).unwrap();
    system("mount", &["-t", "tmpfs", "-o", "size=512m", "none", mount.to_str().unwrap()]);
    let (data_dir, log) = (mount.join("below/q"), folder.path().join("a.log"));
    fs::create_dir(mount.join("below")).unwrap();
    fs::write(&log, "one\n").unwrap();
    let once = |more: &[&str]| {
        let mut command = program(binary());
        command.args(["run", "--once", "--data-dir"]).arg(&data_dir).arg("--follow").arg(&log).args(more);
        command.args(["--", "cat"]).finished()
    };
    let refused = once(&[]);
    let there = data_dir.exists();
    let taken = once(&["--allow-volatile"]);
    let mut doctor = program(binary());
    let doctor = doctor.args(["doctor", "--data-dir"]).arg(&data_dir).finished();
    system("umount", &[mount.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("is on tmpfs") && said.contains("--allow-volatile") && !there, "{said}");
    assert_eq!((taken.status.code(), &taken.stdout[..]), (Some(0), &b"one\n"[..]));
    let told = String::from_utf8_lossy(&doctor.stdout);
    assert_eq!(doctor.status.code(), Some(0), "{told}");
    assert!(told.contains("is on tmpfs: everything in it is lost with the next reboot"), "{told}");
}
