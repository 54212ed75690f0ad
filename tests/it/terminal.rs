//! Names, lines and words of commands with every character that is unsafe on a terminal, through every output.

use std::fs;
use std::path::Path;

use spillq::plain::{UNSAFE, needs_escape};

use crate::support::{Bounded, Service, spillq, wait_for, write_config};

/// Bytes of a file name that Linux allows, less those of its number and ending.
const NAME_BYTES_MAX: usize = 240;

/// Files whose names have all of them between each other, and a line with all of them; a name has no NUL, and a line no
/// newline.
fn write_files(folder: &Path, all: &str) {
    let mut names = vec![String::new()];
    for c in all.chars().filter(|c| *c != '\0') {
        match names.last_mut() {
            Some(name) if name.len() + c.len_utf8() <= NAME_BYTES_MAX => name.push(c),
            _ => names.push(c.to_string()),
        }
    }
    assert!(names.len() <= 10, "status shows all of them: {}", names.len());
    for (number, name) in names.iter().enumerate() {
        let text = if number == 0 { format!("bad {}\n", all.replace('\n', "")) } else { "good\n".to_owned() };
        fs::write(folder.join(format!("{number}{name}.log")), text).unwrap();
    }
    fs::write(folder.join("all"), all).unwrap();
}

/// Runs a command that shows some of it, and looks for what it shows instead.
#[track_caller]
fn check(folder: &Path, args: &[&str], instead: &str) {
    let output = spillq(args).current_dir(folder).finished();
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    let is_tab = |c| c == '\t' && ["inspect", "run"].iter().any(|name| args.contains(name));
    let found = printed.lines().find(|line| line.contains(|c| needs_escape(c) && !is_tab(c)));
    assert_eq!(found, None, "{args:?}");
    assert!(printed.contains(instead), "{args:?}: {printed}");
}

#[test]
fn no_unsafe_character_reaches_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let all: String = UNSAFE.into_iter().flat_map(|(range, _)| range).collect();
    write_files(at, &all);
    let groups = |retry: &str| {
        format!(
            "[[follow]]\ninclude = [\"*.log\"]\n\
             [[group]]\nname = \"fills\"\n[[group]]\nname = \"strict\"\n{retry}\n\
             [[processor]]\ngroup = \"fills\"\nkind = \"exec\"\n\
             command = [\"sh\", \"-c\", \"if grep -aq bad; then cat all >&2; exit 65; fi\"]\n\
             [[processor]]\ngroup = \"strict\"\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", \"cat all >&2; exit 3\"]\n"
        )
    };
    let config = write_config(at, &groups(""));
    let config = config.to_str().unwrap();
    let mut service = Service::start(&at.join("q"), &["--config", config]);
    service.wait("a line is rejected", |status| status.groups.iter().any(|group| group.dead_letters == 1));
    let doctor = || spillq(&["doctor", "--data-dir", "q"]).current_dir(at).finished().stdout;
    let is_reported = || String::from_utf8(doctor()).unwrap().contains("(crashing)").then_some(());
    assert!(wait_for(is_reported).is_some(), "doctor has what the command printed");
    let look = |failure: &str| {
        let (text, number, json) = (r"\u{202e}", r"\xe2\x80\xae", r"\\xe2\\x80\\xae");
        for (args, instead, in_json) in [
            (&["status"][..], number, json),
            (&["doctor"], failure, failure),
            (&["inspect"], text, r"\u202e"),
            (&["source", "list"], number, json),
            (&["group", "list"], "strict", "strict"),
            (&["dead-letter", "list", "--group", "fills"], "rejected", "rejected"),
            (&["dead-letter", "show", "--all", "--group", "fills"], text, r"\u202e"),
        ] {
            let args = [args, &["--data-dir", "q"]].concat();
            check(at, &args, instead);
            check(at, &[&args[..], &["--json"]].concat(), in_json);
        }
        check(at, &["dead-letter", "export", "--group", "fills", "--data-dir", "q"], r"\u202e");
    };
    look("???");
    check(at, &["config", "check", config], "valid");
    // Afterwards from the disk: what the last run noted in EVENTS is part of what doctor prints.
    let has_noted = || {
        let events = fs::read(at.join("q/EVENTS")).unwrap_or_default();
        String::from_utf8_lossy(&events).contains("sh ended with exit status 3").then_some(())
    };
    assert!(wait_for(has_noted).is_some(), "EVENTS has the failure");
    service.kill();
    look("failure: sh ended with exit status 3");
    check(at, &["verify", "--data-dir", "q"], "sound");
    check(at, &["repair", "--dry-run", "--data-dir", "q"], "sound");

    let few = "retry = { initial = \"10ms\", max = \"10ms\", attempts = 2 }";
    let config = write_config(at, &groups(few));
    for form in ["text", "json"] {
        let log = ["--log", "trace", "--log-format", form];
        let run = ["run", "--once", "--data-dir", form, "--config", config.to_str().unwrap()];
        check(at, &[&log[..], &run].concat(), "???");
    }
}
