//! Descriptors of files that are gone: open as long as that can matter, and not for ever.
//!
//! Files that were moved out of the followed folders, while nothing took their names, kept their descriptors for ever. Once
//! half of RLIMIT_NOFILE was used, each file was closed right after it was read, and lines that were written to it before
//! it was moved away were lost without a message.

use super::support::{MINUTES, Rig, append_to};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::tail::status::SourceState;

fn away() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

#[test]
fn files_moved_away_under_dated_names_are_released() {
    let mut rig = Rig::with(&["*.log"], |settings| settings.follows[0].rotate_wait = Duration::from_secs(1));
    let (_folder, away) = away();
    for nth in 0..40 {
        let name = format!("2026-03-{nth}.log");
        rig.write(&name, format!("line {nth}\n"));
        rig.settle();
        fs::rename(rig.path(&name), away.join(&name)).unwrap();
        append_to(&away.join(&name), format!("late {nth}\nend").as_bytes());
        rig.settle();
        rig.pass(Duration::from_secs(2));
        rig.settle();
        assert_eq!(rig.worker.book.files().len(), 0);
    }
    let ends = rig.log.lines.iter().filter(|line| line.flags.is_unterminated()).count();
    assert_eq!((rig.log.lines.len(), ends), (120, 40));
    assert_eq!(rig.log.forgotten.len(), 40);
    let counters = rig.worker.book.counters;
    assert_eq!((counters.destroyed_unread_bytes, counters.lost_sight, counters.released_early), (0, 0, 0));
}

#[test]
fn lines_written_just_before_a_move_are_read_when_descriptors_run_short() {
    let mut rig = Rig::new(&["*.log"]);
    rig.open_max = 16;
    rig.restart();
    let (_folder, away) = away();
    for nth in 0..40 {
        let name = format!("{nth}.log");
        rig.write(&name, format!("line {nth}\n"));
        rig.settle();
        rig.write(&name, format!("late {nth}\n"));
        fs::rename(rig.path(&name), away.join(&name)).unwrap();
        rig.settle();
        assert!(rig.worker.book.files().len() <= 16);
    }
    assert_eq!(rig.log.lines.len(), 80);
    let counters = rig.worker.book.counters;
    assert_eq!((counters.destroyed_unread_bytes, counters.lost_sight), (0, 0));
    assert!(counters.released_early >= 24, "{}", counters.released_early);
    // The newest are still waited for.
    append_to(&away.join("39.log"), b"later\n");
    rig.settle();
    assert_eq!(rig.log.lines.len(), 81);
}

#[test]
fn a_file_that_was_closed_early_and_vanished_is_counted() {
    let mut rig = Rig::new(&["*.log"]);
    rig.open_max = 0;
    rig.restart();
    rig.write("a.log", "one\n");
    rig.check(&["one\n"]);
    rig.write("a.log", "two\n");
    rig.remove("a.log");
    rig.settle();
    rig.pass(MINUTES);
    rig.check(&["one\n"]);
    assert_eq!(rig.worker.book.counters.lost_sight, 1);
}

#[test]
fn a_source_that_is_not_found_after_a_start_is_counted_and_one_that_was_deleted_when_idle_is_not() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "one\n");
    rig.write("b.log", "two\n");
    rig.check(&["one\n", "two\n"]);
    rig.pass(6 * MINUTES);
    rig.settle();
    rig.remove("b.log");
    rig.settle();
    rig.pass(MINUTES);
    rig.settle();
    assert_eq!((rig.log.forgotten.len(), rig.worker.book.counters.lost_sight), (1, 0));
    rig.write("a.log", "never read\n");
    rig.remove("a.log");
    rig.restart();
    rig.settle();
    rig.pass(MINUTES);
    rig.check(&["one\n", "two\n"]);
    assert_eq!((rig.log.forgotten.len(), rig.worker.book.counters.lost_sight), (2, 1));
}

#[test]
fn folders_that_are_too_deep_are_reported_once() {
    let mut rig = Rig::new(&["**/*.log"]);
    let deep = "d/".repeat(33);
    rig.write(&format!("{deep}a.log"), "deep\n");
    rig.write(&format!("{deep}e/b.log"), "too deep\n");
    rig.write(&format!("{deep}f/b.log"), "too deep\n");
    rig.settle();
    let refused = rig.worker.snapshot().refused;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].1.found.contains("deeper than 32 folders"), "{refused:?}");
    let errors = rig.worker.book.counters.errors;
    rig.settle();
    assert_eq!((errors, rig.worker.book.counters.errors), (1, 1));
    assert!(rig.worker.snapshot().sources.iter().all(|source| source.state == SourceState::CaughtUp));
}
