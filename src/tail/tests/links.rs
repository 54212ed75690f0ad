//! Several names of one file: links, hard links, and globs that overlap. Each line is read once, and no error is reported.

use super::support::Rig;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::tail::settings::Follow;
use crate::unreadable::WhyUnreadable;

/// A service logs to `app.log`, a link to the file of the day. Found by a first-time user: every line was read once, yet
/// `doctor` and `run --once` failed for ever, because the link was "a symbolic link, not a regular file".
#[track_caller]
fn daily(rig: &mut Rig, link: &str) {
    rig.write("app-2026-01-01.log", "1\n2\n");
    symlink("app-2026-01-01.log", rig.path(link)).unwrap();
    rig.check(&["1\n", "2\n"]);
    is_healthy(rig);
    // The writer writes through the link.
    rig.write(link, "3\n");
    rig.check(&["1\n", "2\n", "3\n"]);
    rig.restart();
    rig.check(&["1\n", "2\n", "3\n"]);
    // The next day: the last lines of the old file, the new file, and the link moved to it in one step.
    rig.write(link, "4\n");
    rig.write("app-2026-01-02.log", "");
    symlink("app-2026-01-02.log", rig.path("next")).unwrap();
    rig.rename("next", link);
    rig.settle();
    is_healthy(rig);
    rig.write(link, "5\n");
    rig.write("app-2026-01-01.log", "6\n");
    rig.settle();
    rig.write(link, "7\n");
    rig.settle();
    let mut lines = rig.log.text();
    lines.sort();
    assert_eq!(lines, ["1\n", "2\n", "3\n", "4\n", "5\n", "6\n", "7\n"]);
    rig.restart();
    rig.settle();
    assert_eq!(rig.log.lines.len(), 7);
    is_healthy(rig);
}

#[track_caller]
fn is_healthy(rig: &Rig) {
    let snapshot = rig.worker.snapshot();
    assert!(snapshot.refused.is_empty() && rig.worker.book.counters.errors == 0, "{snapshot:#?}");
    assert!(rig.worker.is_done(), "`run --once` would wait: {snapshot:#?}");
}

/// The link comes before and after its target in the order of names.
#[test]
fn a_link_to_a_followed_file_is_another_name_of_it() {
    daily(&mut Rig::new(&["*.log"]), "app.log");
    daily(&mut Rig::new(&["*.log"]), "a.log");
    daily(&mut Rig::new(&["**/*.log"]), "app.log");
}

#[test]
fn a_link_that_may_be_followed_to_a_followed_file_is_another_name_of_it() {
    for link in ["app.log", "a.log"] {
        let mut rig = Rig::new(&["*.log"]);
        rig.settings.follows[0].symlinks = Some(rig.dir.path().to_owned());
        rig.restart();
        daily(&mut rig, link);
    }
}

#[test]
fn a_link_through_another_way_to_the_fixed_folder_is_another_name_too() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(&["logs/*.log"]);
    symlink(elsewhere.path(), rig.path("logs")).unwrap();
    daily_in(&mut rig, "logs");
}

fn daily_in(rig: &mut Rig, folder: &str) {
    rig.write(&format!("{folder}/real.log"), "1\n");
    symlink(rig.path(folder).join("real.log"), rig.path(folder).join("app.log")).unwrap();
    rig.check(&["1\n"]);
    is_healthy(rig);
}

#[test]
fn a_link_to_what_no_glob_finds_is_still_refused() {
    let mut rig = Rig::with(&["*.log"], |settings| settings.follows[0].exclude = vec!["old.log".to_owned()]);
    rig.write("other", "never\n");
    rig.write("old.log", "never\n");
    rig.write("data/own.log", "never\n");
    for (target, link) in [
        ("other", "1.log"),
        ("old.log", "2.log"),
        ("data/own.log", "3.log"),
        ("nowhere", "4.log"),
        (".", "5.log"),
    ] {
        symlink(target, rig.path(link)).unwrap();
    }
    rig.check(&[]);
    let mut refused = rig.worker.snapshot().refused;
    refused.sort();
    let names: Vec<_> = refused.iter().filter_map(|(path, _)| path.file_name()?.to_str()).collect();
    // The last leads to the fixed folder, which is walked.
    assert_eq!(names, ["1.log", "2.log", "3.log", "4.log"], "{refused:#?}");
    assert!(refused.iter().all(|(_, one)| one.why == WhyUnreadable::Link), "{refused:#?}");
}

#[test]
fn a_link_to_a_folder_that_is_walked_is_another_name_of_it() {
    let mut rig = Rig::new(&["**/*"]);
    rig.write("2026-01/a.log", "1\n");
    rig.write("2026-02/a.log", "2\n");
    symlink("2026-01", rig.path("current")).unwrap();
    rig.check(&["1\n", "2\n"]);
    is_healthy(&rig);
    fs::remove_file(rig.path("current")).unwrap();
    symlink("2026-02", rig.path("current")).unwrap();
    rig.write("current/a.log", "3\n");
    rig.check(&["1\n", "2\n", "3\n"]);
    is_healthy(&rig);
    // The same if links may be followed: the folder is listed twice, and its files are read once.
    rig.settings.follows[0].symlinks = Some(rig.dir.path().to_owned());
    rig.restart();
    rig.write("current/a.log", "4\n");
    rig.check(&["1\n", "2\n", "3\n", "4\n"]);
    is_healthy(&rig);
}

#[test]
fn hard_links_of_one_file_are_read_once() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("b.log", "1\n");
    for name in ["a.log", "c.log"] {
        fs::hard_link(rig.path("b.log"), rig.path(name)).unwrap();
    }
    rig.check(&["1\n"]);
    rig.write("c.log", "2\n");
    rig.check(&["1\n", "2\n"]);
    is_healthy(&rig);
    rig.restart();
    // The name that it was identified with goes away.
    let known = rig.worker.book.sources().iter().next().unwrap().path().to_path_buf();
    fs::remove_file(known).unwrap();
    let left = if rig.path("c.log").exists() { "c.log" } else { "b.log" };
    rig.write(left, "3\n");
    rig.check(&["1\n", "2\n", "3\n"]);
    is_healthy(&rig);
}

/// Two sections, one of which may follow links.
#[track_caller]
fn two_sections(symlinks: [bool; 2], link: &str) {
    let mut rig = Rig::new(&["*.log"]);
    let root = rig.dir.path().to_owned();
    let glob = |glob: &str| root.join(glob).to_str().unwrap().to_owned();
    let section = |include: Vec<String>, allows: bool| Follow {
        symlinks: allows.then(|| root.clone()),
        ..Follow::new(include)
    };
    rig.settings.follows = vec![
        section(vec![glob("*.log"), glob("a*")], symlinks[0]),
        section(vec![glob("**/*.log")], symlinks[1]),
    ];
    rig.restart();
    daily(&mut rig, link);
}

#[test]
fn globs_that_overlap_read_a_file_once() {
    for symlinks in [[false, false], [true, false], [false, true], [true, true]] {
        two_sections(symlinks, "app.log");
        two_sections(symlinks, "a.log");
    }
}

/// Only the second section may follow the link, and no glob matches its target.
#[test]
fn a_link_that_another_section_follows_is_not_refused() {
    let mut rig = Rig::new(&["*.log"]);
    let root = rig.dir.path().to_owned();
    let follow = rig.settings.follows[0].clone();
    rig.settings.follows.push(Follow { symlinks: Some(root), ..follow });
    rig.restart();
    rig.write("target", "1\n");
    symlink(Path::new("target"), rig.path("app.log")).unwrap();
    rig.check(&["1\n"]);
    is_healthy(&rig);
}

/// The second had it if both were there when it was found.
#[test]
fn a_file_that_two_sections_name_belongs_to_the_first() {
    let mut rig = Rig::with(&["*.log"], |settings| {
        let second = Follow { max_line_bytes: 4, ..settings.follows[0].clone() };
        settings.follows.push(second);
    });
    rig.write("a.log", "123456789\n");
    rig.check(&["123456789\n"]);
}
