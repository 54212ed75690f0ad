//! Files that leave their path and come back to it, while others are there.
//!
//! `mv a.log x; mv b.log a.log; mv x a.log` was once read twice: the file that came back had an older source of the same path
//! and inode, which was passed over, so it was taken for a new file. When many were exchanged again and again, one line was
//! stored 281 times.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::support::{Rig, append_to};

/// A folder that no glob names.
fn hidden() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    (folder, path)
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// In any order between sources.
#[track_caller]
fn check_each_once(rig: &mut Rig, mut expected: Vec<String>) {
    rig.settle();
    let mut text = rig.log.text();
    text.sort();
    expected.sort();
    assert_eq!(text, expected, "{:#?}", rig.worker.snapshot());
}

#[test]
fn a_file_that_comes_back_over_another_one_at_its_path_continues() {
    for restarts in [0, 1, 2, 3] {
        let mut rig = Rig::new(&["*.log"]);
        let (_folder, x) = hidden();
        rig.write("a.log", "of a\n");
        rig.write("b.log", "of b\n");
        rig.check(&["of a\n", "of b\n"]);
        fs::rename(rig.path("a.log"), &x).unwrap();
        rig.rename("b.log", "a.log");
        rig.settle();
        if restarts & 1 != 0 {
            rig.restart();
            rig.settle();
        }
        fs::rename(&x, rig.path("a.log")).unwrap();
        if restarts & 2 != 0 {
            rig.restart();
        }
        rig.check(&["of a\n", "of b\n"]);
        rig.write("a.log", "of a again\n");
        rig.check(&["of a\n", "of b\n", "of a again\n"]);
        rig.pass(Duration::from_secs(120));
        rig.check(&["of a\n", "of b\n", "of a again\n"]);
        rig.restart();
        rig.check(&["of a\n", "of b\n", "of a again\n"]);
    }
}

#[test]
fn files_exchanged_again_and_again_are_each_read_once() {
    for (is_grown, is_restarted) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut rig = Rig::new(&["*.log"]);
        let (_folder, x) = hidden();
        let mut expected = Vec::new();
        let mut add = |path: &Path, text: &str| {
            expected.push(text.to_owned());
            append_to(path, text.as_bytes());
        };
        add(&rig.path("a.log"), "of a\n");
        add(&x, "of x\n");
        rig.settle();
        for swap in 0..20 {
            exchange(&rig.path("a.log"), &x);
            if is_grown {
                add(&rig.path("a.log"), &format!("here {swap}\n"));
                add(&x, &format!("hidden {swap}\n"));
            }
            if is_restarted && swap % 3 == 0 {
                rig.restart();
            }
            rig.settle();
        }
        // A scan can find both in the end.
        fs::rename(&x, rig.path("x.log")).unwrap();
        check_each_once(&mut rig, expected);
    }
}

/// A walk passes while two names are exchanged, so that it finds one file at both and the other at none.
#[test]
fn a_source_that_a_walk_missed_at_its_own_path_is_the_same_when_it_is_back() {
    let mut rig = Rig::new(&["*.log"]);
    let (_folder, x) = hidden();
    rig.write("a.log", "of a\n");
    rig.write("b.log", "of b\n");
    rig.check(&["of a\n", "of b\n"]);
    for _ in 0..10 {
        // As the walk found it: b is hidden, a is in its place.
        fs::rename(rig.path("b.log"), &x).unwrap();
        rig.rename("a.log", "b.log");
        rig.worker.book.scan_wanted = true;
        rig.pass(Duration::from_secs(1));
        rig.step();
        rig.rename("b.log", "a.log");
        fs::rename(&x, rig.path("b.log")).unwrap();
        rig.check(&["of a\n", "of b\n"]);
    }
}

#[test]
fn the_incomplete_end_of_a_file_that_came_back_to_its_path_waits_for_its_writer() {
    for is_restarted in [false, true] {
        let mut rig = Rig::new(&["*.log"]);
        let (_folder, x) = hidden();
        rig.write("a.log", "of a\nbeg");
        rig.check(&["of a\n"]);
        fs::rename(rig.path("a.log"), &x).unwrap();
        // It waits for the end of the one before it.
        rig.write("a.log", "another\n");
        rig.check(&["of a\n"]);
        exchange(&rig.path("a.log"), &x);
        rig.check(&["of a\n", "another\n"]);
        if is_restarted {
            rig.restart();
        }
        rig.pass(Duration::from_secs(120));
        rig.check(&["of a\n", "another\n"]);
        rig.write("a.log", "in and end\n");
        rig.check(&["of a\n", "another\n", "begin and end\n"]);
    }
}

#[test]
fn a_file_that_came_back_with_another_content_is_new_and_unread_bytes_are_counted() {
    let mut rig = Rig::new(&["*.log"]);
    let (_folder, x) = hidden();
    rig.write("a.log", "of a\nunre");
    rig.write("b.log", "of b\n");
    rig.check(&["of a\n", "of b\n"]);
    fs::rename(rig.path("a.log"), &x).unwrap();
    rig.rename("b.log", "a.log");
    rig.settle();
    fs::write(&x, "other\n").unwrap();
    fs::rename(&x, rig.path("a.log")).unwrap();
    rig.check(&["of a\n", "of b\n", "other\n"]);
    rig.pass(Duration::from_secs(120));
    rig.check(&["of a\n", "of b\n", "other\n"]);
    assert_eq!(rig.worker.book.counters.destroyed_unread_bytes, 4);
}

#[test]
fn a_new_file_with_two_names_or_named_by_two_globs_is_one_source() {
    let mut rig = Rig::new(&["*.log", "a*"]);
    rig.write("a.log", "of a\n");
    fs::hard_link(rig.path("a.log"), rig.path("b.log")).unwrap();
    rig.check(&["of a\n"]);
    rig.write("c.log", "of c\n");
    fs::hard_link(rig.path("c.log"), rig.path("d.log")).unwrap();
    rig.check(&["of a\n", "of c\n"]);
}

/// Each of two files that were exchanged came after the other once the tail had been started again, so that neither was ever
/// read.
#[test]
fn exchanged_files_do_not_wait_for_each_other() {
    let mut rig = Rig::new(&["**/*.log*"]);
    rig.write("b.log", "incompl");
    rig.settle();
    rig.write("c.log", "whole\n");
    exchange(&rig.path("b.log"), &rig.path("c.log"));
    rig.settle();
    rig.restart();
    rig.rename("b.log", "b.log.1");
    rig.write("c.log", "ete\n");
    rig.settle();
    rig.pass(Duration::from_secs(120));
    rig.settle();
    let mut text = rig.log.text();
    text.sort();
    assert_eq!(text, ["incomplete\n", "whole\n"]);
}
