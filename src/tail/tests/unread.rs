//! Bytes behind the offset may change: no identity depends on them.
//!
//! `a\nb\npart`, truncated inside the incomplete line and written to, was read again from its beginning, and reported as
//! destroyed bytes. Of a file that was allocated before it was written, 536 lines were stored instead of 40.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use super::support::{MINUTES, Rig};

fn writer(rig: &Rig, name: &str) -> File {
    fs::OpenOptions::new().write(true).open(rig.path(name)).unwrap()
}

#[test]
fn an_incomplete_line_that_is_taken_back_changes_nothing_before_it() {
    for (is_restarted, to, text) in [
        (false, 4, "other\n"),
        (true, 4, "other\n"),
        (false, 6, "other\n"),
        (false, 4, "a line that is longer than what stood there\n"),
        (true, 4, "a line that is longer than what stood there\n"),
    ] {
        let mut rig = Rig::new(&["*.log"]);
        rig.write("a.log", "a\nb\npart");
        rig.check(&["a\n", "b\n"]);
        rig.truncate("a.log", to);
        rig.write("a.log", text);
        if is_restarted {
            rig.restart();
        }
        let whole = format!("{}{text}", &"part"[..to as usize - 4]);
        rig.check(&["a\n", "b\n", &whole]);
        let counters = rig.worker.book.counters;
        assert_eq!((counters.truncated, counters.destroyed_unread_bytes, counters.rolled_back), (0, 0, 0));
    }
}

#[test]
fn an_incomplete_first_line_that_is_taken_back_is_not_a_loss() {
    for is_seen in [false, true] {
        let mut rig = Rig::new(&["*.log"]);
        rig.write("a.log", "part");
        rig.check(&[]);
        rig.truncate("a.log", 0);
        if is_seen {
            rig.settle();
        }
        rig.write("a.log", "other\n");
        rig.check(&["other\n"]);
        let counters = rig.worker.book.counters;
        assert_eq!((counters.truncated, counters.destroyed_unread_bytes), (0, 0));
    }
}

#[test]
fn unread_lines_that_are_overwritten_by_more_are_counted() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "one\n");
    rig.worker.book.scan_wanted = true;
    rig.is_full = true;
    for nth in 0..5 {
        rig.write(&format!("{nth}.log"), "x\n".repeat(2_000_000));
    }
    rig.settle();
    rig.write("z.log", "never read\n");
    rig.settle();
    rig.truncate("z.log", 0);
    rig.write("z.log", "longer than what stood there\n");
    rig.is_full = false;
    rig.settle();
    assert_eq!(
        rig.log.lines.iter().filter(|line| line.bytes == b"longer than what stood there\n").count(),
        1
    );
    assert_eq!(rig.worker.book.counters.destroyed_unread_bytes, 11);
}

#[test]
fn whole_lines_that_are_destroyed_behind_the_offset_are_counted() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "one\n");
    rig.check(&["one\n"]);
    rig.is_full = true;
    rig.write("a.log", "x\n".repeat(16_000_000));
    rig.settle();
    rig.truncate("a.log", 31_000_000);
    rig.is_full = false;
    rig.settle();
    let read: u64 = rig.log.lines.iter().map(|line| line.bytes.len() as u64).sum();
    assert_eq!((read, rig.worker.book.counters.destroyed_unread_bytes), (31_000_000, 1_000_004));
}

#[test]
fn a_file_that_is_filled_in_place_is_read_once() {
    for (size, line_max) in [(4_096, 1_000_000), (4_096, 100), (600_000, 1_000_000), (600_000, 300_000)] {
        for is_restarted in [false, true] {
            let mut rig = Rig::with(&["*.log*"], |settings| settings.follows[0].max_line_bytes = line_max);
            fs::write(rig.path("a.log"), vec![0; size]).unwrap();
            rig.settle();
            let writer = writer(&rig, "a.log");
            let (mut at, mut expected) = (0, Vec::new());
            for nth in 0..40 {
                let line = format!("line {nth} of a file that is there already\n");
                let (begin, end) = line.split_at(nth);
                writer.write_all_at(begin.as_bytes(), at).unwrap();
                if nth % 3 == 0 {
                    rig.settle();
                }
                writer.write_all_at(end.as_bytes(), at + begin.len() as u64).unwrap();
                if nth % 2 == 0 {
                    rig.settle();
                }
                if is_restarted && nth % 7 == 0 {
                    rig.restart();
                }
                at += line.len() as u64;
                expected.push(line);
            }
            rig.settle();
            assert_eq!(rig.log.text(), expected);
            // Bytes that were never written are not a line, and hold up no other source.
            rig.rename("a.log", "a.log.1");
            rig.write("a.log", "new\n");
            rig.settle();
            rig.pass(MINUTES);
            expected.push("new\n".to_owned());
            rig.settle();
            assert_eq!(rig.log.text(), expected);
            rig.remove("a.log.1");
            rig.settle();
            rig.pass(MINUTES);
            rig.settle();
            let counters = rig.worker.book.counters;
            assert_eq!((counters.truncated, counters.destroyed_unread_bytes), (0, 0));
            assert_eq!(rig.log.forgotten.len(), 1);
        }
    }
}

/// Of a file that was allocated and rotated with an unfinished line, that line was never delivered if the file was longer than
/// a line may be.
#[test]
fn a_line_that_was_begun_in_an_allocated_file_ends_with_the_file() {
    for (size, line_max) in
        [(64, 8), (4_096, 1_000_000), (4_096, 100), (600_000, 1_000_000), (600_000, 300_000)]
    {
        for is_deleted in [false, true] {
            let mut rig = Rig::with(&["*.log*"], |settings| settings.follows[0].max_line_bytes = line_max);
            fs::write(rig.path("a.log"), vec![0; size]).unwrap();
            writer(&rig, "a.log").write_all_at(b"whole\nbegun", 0).unwrap();
            rig.settle();
            assert_eq!(rig.log.text(), ["whole\n"]);
            if is_deleted {
                rig.remove("a.log");
            } else {
                rig.rename("a.log", "a.log.1");
            }
            rig.write("a.log", "new\n");
            rig.settle();
            rig.pass(MINUTES);
            rig.settle();
            let mut text = rig.log.text();
            text.sort();
            assert_eq!(text, ["begun", "new\n", "whole\n"], "{size} {line_max} {is_deleted}");
        }
    }
}

/// What had been searched for a newline was not searched again after it was filled.
#[test]
fn a_long_line_is_filled_in_place() {
    for (size, line_max) in [(600_000, 1_000_000), (1_200_000, 1_000_000)] {
        let mut rig = Rig::with(&["*.log"], |settings| settings.follows[0].max_line_bytes = line_max);
        fs::write(rig.path("a.log"), vec![0; size]).unwrap();
        let writer = writer(&rig, "a.log");
        writer.write_all_at(&[b'x'; 270_000], 0).unwrap();
        rig.settle();
        assert_eq!(rig.log.text(), Vec::<String>::new());
        writer.write_all_at(b"end\n", 300_000).unwrap();
        rig.settle();
        let lines: Vec<usize> = rig.log.text().iter().map(String::len).collect();
        assert_eq!(lines, [300_004], "{size} {line_max}");
    }
}

#[test]
fn a_hole_before_what_is_written_is_read() {
    let mut rig = Rig::with(&["*.log"], |settings| settings.follows[0].max_line_bytes = 300_000);
    fs::write(rig.path("a.log"), "").unwrap();
    writer(&rig, "a.log").write_all_at(b"line\n", 1_000_000).unwrap();
    rig.settle();
    assert_eq!(rig.log.text().concat().len(), 1_000_005);
}
