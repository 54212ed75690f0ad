//! More files than one service follows, and many that it cannot read: the built program says how many, and claims nothing else.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use crate::support::{Bounded, Service, Stage, spillq};

/// How many are followed at once.
const LIMIT: usize = 10_000;
const FILES: usize = LIMIT + 50;

/// `logs/*.log` are followed, and lines are delivered to `out`.
fn staged() -> Stage {
    let stage = Stage::new();
    fs::create_dir(stage.path("logs")).unwrap();
    let text = "data_dir = \"q\"\n[[follow]]\ninclude = [\"logs/*.log\"]\nrotate_wait = \"1s\"\n\
                    [[processor]]\nkind = \"file\"\npath = \"out\"\n";
    stage.configure(text);
    stage
}

impl Stage {
    fn once(&self, more: &[&str]) -> (Option<i32>, String) {
        let config = self.config();
        let mut command = spillq(&["--log", "warn", "run", "--once", "--config"]);
        let output = command.arg(config).args(more).current_dir(self.folder()).finished();
        (output.status.code(), said(&output))
    }

    fn printed(&self, command: &str) -> String {
        let output = spillq(&[command, "--data-dir"]).arg(self.path("q")).finished();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The lines that were delivered, each of which came once.
    #[track_caller]
    fn delivered_once(&self) -> HashSet<String> {
        let text = fs::read_to_string(self.path("out")).unwrap();
        let lines: HashSet<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), text.lines().count(), "a line came twice");
        lines
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn names(folder: &Path) -> HashSet<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn files_beyond_the_limit_are_counted_and_take_the_places_that_become_free() {
    let stage = staged();
    for number in 0..FILES {
        let name = format!("{number:05}.log");
        fs::write(stage.path("logs").join(&name), format!("{name}\n")).unwrap();
    }
    let (status, said) = stage.once(&[]);
    assert_eq!(status, Some(1), "{said}");
    let read = stage.delivered_once();
    assert_eq!(read.len(), LIMIT);
    assert!(
        said.contains("these files matched and were not read; everything else was\n  50 files, for example "),
        "{said}"
    );
    assert!(said.contains("at most 10,000 files are followed for one data dir; read the others"), "{said}");
    // Places of files that are deleted are taken by those that wait.
    for name in read.iter().take(10) {
        fs::remove_file(stage.path("logs").join(name)).unwrap();
    }
    let mut service =
        Service::start(&stage.path("q"), &["--config", stage.path("spillq.toml").to_str().unwrap()]);
    let lines = LIMIT as u64 + 10;
    let status = service.wait("ten more are read", |status| {
        status.left_out.files == 40 && status.log.next_seq == lines + 1 && status.groups[0].lag_lines == 0
    });
    assert_eq!((status.left_out.limit, status.left_out.resting, status.unreadable), (LIMIT as u64, 0, 0));
    assert_eq!(service.stop(), 0);
    let delivered = stage.delivered_once();
    assert_eq!(delivered.len(), LIMIT + 10);
    let waiting: Vec<String> = names(&stage.path("logs")).difference(&delivered).cloned().collect();
    assert_eq!(waiting.len(), 40, "every other file waits");
    // Narrower globs free no place: a place keeps how far its file is read. That is said.
    let text = fs::read_to_string(stage.path("spillq.toml")).unwrap();
    let narrow = text.replace("logs/*.log", &format!("logs/{{{}}}", waiting.join(",")));
    fs::write(stage.path("spillq.toml"), narrow).unwrap();
    let (status, said) = stage.once(&[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("40 files match and are not followed: at most 10,000 files are followed at once"),
        "{said}"
    );
    assert!(
        said.contains("; 10,000 files that no [[follow]] matches now are counted, to be resumed later."),
        "{said}"
    );
    assert!(
        said.contains(", 10,000 of them kept for files that matched in earlier runs; read the others with"),
        "{said}"
    );
    // What it says to do works.
    let (status, said) = stage.once(&["--data-dir", stage.path("q2").to_str().unwrap()]);
    assert!(status == Some(0) && !said.contains("not followed"), "{said}");
    assert_eq!(stage.delivered_once(), (0..FILES).map(|number| format!("{number:05}.log")).collect());
}

/// 200 files without permission were 101 messages, and `status` did not have them.
#[test]
fn many_files_that_cannot_be_read_are_one_message_with_their_number() {
    let stage = staged();
    fs::write(stage.path("logs/open.log"), "open\n").unwrap();
    // Whoever runs the tests may read everything; a link that leads nowhere is read by nobody.
    for number in 0..200 {
        symlink("nowhere", stage.path(&format!("logs/{number}.log"))).unwrap();
    }
    let (status, said) = stage.once(&[]);
    assert_eq!(status, Some(1), "{said}");
    let (messages, end) =
        said.split_once("spillq: these files matched and were not read; everything else was\n").unwrap();
    assert!(messages.contains("200 files match and cannot be followed, for example: open "), "{messages}");
    assert!(messages.lines().count() <= 3, "{messages}");
    assert!(end.contains("\n  180 files more cannot be read\n"), "{end}");
    let mut service =
        Service::start(&stage.path("q"), &["--config", stage.path("spillq.toml").to_str().unwrap()]);
    service.wait("they are counted", |status| status.unreadable == 200);
    assert!(
        stage
            .printed("status")
            .contains("\n         200 files cannot be read: `spillq doctor` has the reason\n")
    );
    let doctor = stage.printed("doctor");
    assert!(doctor.contains("\n200 files cannot be read (source_unreadable)\n"), "{doctor}");
    assert_eq!(service.stop(), 0);
}
