//! The lines of a path come in order over its rotations, also if a file was rotated before a scan found it.

use super::support::Rig;
use std::fs;
use std::time::{Duration, SystemTime};

use crate::tail::bytes::decompress;
use crate::tail::rules::identify::Identify;
use crate::tail::worker::Worker;

/// Lines longer than a turn and than an append: reading them takes several rounds.
fn many(name: &str) -> (String, Vec<String>) {
    let lines: Vec<String> = (0..6_000).map(|nth| format!("{name} {nth} {}\n", "x".repeat(250))).collect();
    (lines.concat(), lines)
}

fn stamp(rig: &Rig, name: &str, second: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + second);
    fs::File::options().append(true).open(rig.path(name)).unwrap().set_modified(time).unwrap();
}

#[track_caller]
fn check_order(rig: &mut Rig, expected: &[Vec<String>]) {
    rig.settle();
    let (text, expected) = (rig.log.text(), expected.concat());
    let wrong = text.iter().zip(&expected).position(|(found, expected)| found != expected);
    let show = |at: usize| (text[at][..20].to_owned(), expected[at][..20].to_owned());
    assert_eq!((wrong.map(show), text.len()), (None, expected.len()));
}

/// A service was killed and started again. Before it found the new w.log, that was renamed to w.log.2 and another one begun:
/// the first scan found both as new files. They were read in turns of 1 MiB, so the first line of w.log came before the
/// rest of w.log.2.
#[test]
fn a_file_rotated_before_it_was_ever_found_is_read_to_its_end_before_the_new_one() {
    let mut rig = Rig::new(&["w.log*"]);
    let [first, second, third] = ["first", "second", "third"].map(many);
    rig.write("w.log", &first.0);
    rig.settle();
    rig.rename("w.log", "w.log.1");
    rig.settle();
    rig.write("w.log", &second.0);
    stamp(&rig, "w.log", 1);
    rig.rename("w.log", "w.log.2");
    rig.write("w.log", &third.0);
    stamp(&rig, "w.log", 2);
    rig.restart();
    check_order(&mut rig, &[first.1, second.1, third.1]);
}

/// Killed in the middle of a file, which was rotated several times before the next start: the rest of the known file comes
/// first, then the new files, those with equal times by their numbers, and the newest last.
#[test]
fn several_rotations_while_stopped_are_read_in_their_order() {
    let mut rig = Rig::new(&["w.log*"]);
    let parts = ["first", "second", "third", "fourth", "fifth"].map(many);
    let half = parts[0].1[..3_000].concat();
    rig.write("w.log", &half);
    rig.settle();
    rig.write("w.log", &parts[0].0[half.len()..]);
    for (number, part) in (8_u64..).zip(&parts[1..]) {
        rig.rename("w.log", &format!("w.log.{number}"));
        rig.write("w.log", &part.0);
        stamp(&rig, "w.log", number.max(9));
    }
    rig.restart();
    check_order(&mut rig, &parts.map(|part| part.1));
}

/// The same on a first start, with the numbers of logrotate: the oldest has the highest.
#[test]
fn rotated_files_of_a_first_start_are_read_from_the_oldest_on() {
    let mut rig = Rig::new(&["w.log*"]);
    let [first, second, third] = ["first", "second", "third"].map(many);
    for (second, name, part) in [(1, "w.log.2", &first), (2, "w.log.1", &second), (3, "w.log", &third)] {
        rig.write(name, &part.0);
        stamp(&rig, name, second);
    }
    check_order(&mut rig, &[first.1, second.1, third.1]);
}

/// While a walk went through the folder, a new file was renamed to a name that the walk had passed, and another took its
/// path: only that one was found. The next walk finds the first, and that comes first.
#[test]
fn a_file_that_one_walk_missed_comes_before_the_one_that_took_its_path() {
    let mut rig = Rig::new(&["w.log*"]);
    let [first, second, third] = ["first", "second", "third"].map(many);
    rig.write("w.log", &first.0);
    rig.settle();
    rig.rename("w.log", "w.log.1");
    rig.settle();
    rig.write("w.log", &second.0);
    rig.rename("w.log", "passed");
    rig.write("w.log", &third.0);
    rig.restart();
    rig.step();
    rig.rename("passed", "w.log.2");
    check_order(&mut rig, &[first.1, second.1, third.1]);
}

/// The writer continued with the renamed file until it reopened its log. A walk passed the old file, then the writer wrote its
/// last line there and its first line to the new file, then the walk found that: the old file was considered read to its
/// end.
#[test]
fn the_old_file_is_looked_at_again_after_the_new_one_was_found() {
    let mut rig = Rig::new(&["w.log*"]);
    rig.write("w.log", "one\n");
    rig.check(&["one\n"]);
    rig.rename("w.log", "w.log.1");
    rig.check(&["one\n"]);
    rig.write("w.log.1", "two\n");
    rig.write("w.log", "three\n");
    let mut found = Vec::new();
    rig.worker.book.follows().walk(&|_| false, &mut |file| found.push(file));
    found.retain(|file| file.path.ends_with("w.log"));
    let now = rig.now();
    let Worker { book, reader, scans, .. } = &mut rig.worker;
    book.begin_scan();
    let (unidentified, unfollowed) = (&mut scans.unidentified, &mut scans.unfollowed);
    Identify { book, reader, unidentified, unfollowed, from_end: false, now }.run(found, 0);
    rig.worker.book.scan_wanted = false;
    rig.step();
    rig.check(&["one\n", "two\n", "three\n"]);
}

/// Rotated before a scan found it, and without a newline at its end, which may never be written: the new file does not wait
/// for it.
#[test]
fn an_incomplete_end_of_a_file_never_seen_at_its_path_holds_up_no_other() {
    let mut rig = Rig::new(&["w.log*"]);
    rig.write("w.log.1", "one\nend");
    stamp(&rig, "w.log.1", 1);
    rig.write("w.log", "two\n");
    rig.check(&["one\n", "two\n"]);
}

/// Killed while a new file waited for the rest of the old one and had been renamed itself: both were known to the log, but not
/// that one waits for the other, and they were read in turns.
#[test]
fn the_order_is_known_again_after_a_restart() {
    let mut rig = Rig::new(&["w.log*"]);
    rig.read_in_bits(20_000, 50_000);
    let [first, second, third] = ["first", "second", "third"].map(many);
    rig.write("w.log", &first.0);
    stamp(&rig, "w.log", 1);
    rig.step();
    rig.rename("w.log", "w.log.1");
    rig.write("w.log", &second.0);
    stamp(&rig, "w.log", 2);
    rig.is_full = true;
    rig.settle();
    rig.rename("w.log", "w.log.2");
    rig.write("w.log", &third.0);
    stamp(&rig, "w.log", 3);
    rig.settle();
    // The log gets the append that waited for it, and with the next one the rename.
    rig.is_full = false;
    rig.step();
    rig.step();
    assert_eq!(rig.log.checkpoints.len(), 2);
    rig.restart();
    check_order(&mut rig, &[first.1, second.1, third.1]);
}

/// An old rotated file is found, for the first time, while the log is being written: that does not make the log a file that
/// its writer has left, and half a line at its end stays half a line.
#[test]
fn a_rotated_file_that_turns_up_later_does_not_end_the_one_that_is_there() {
    for stopped in [false, true] {
        let mut rig = Rig::new(&["w.log*"]);
        rig.write("w.log", "one\nhal");
        rig.check(&["one\n"]);
        rig.write("w.log.1", "zero\n");
        if stopped {
            rig.restart();
        }
        rig.check(&["one\n", "zero\n"]);
        rig.pass(Duration::from_secs(120));
        rig.check(&["one\n", "zero\n"]);
        rig.write("w.log", "f\n");
        rig.check(&["one\n", "zero\n", "half\n"]);
    }
}

/// gzip was ended in the middle of its work, and removed what it had written, while older files were still being read: the
/// file after that one lost its place with it.
#[test]
fn a_file_after_one_that_vanished_comes_after_the_one_before_that() {
    let mut rig = Rig::new(&["w.log*"]);
    rig.read_in_bits(20_000, 50_000);
    let [first, second, third] = ["first", "second", "third"].map(many);
    let compressed = decompress::tests::gzip(third.0.as_bytes());
    for (second, name, bytes) in [
        (1, "w.log.3", first.0.as_bytes()),
        (2, "w.log.2", second.0.as_bytes()),
        (3, "w.log.1.gz", &compressed[..compressed.len() / 2]),
        (4, "w.log", third.0.as_bytes()),
    ] {
        rig.write(name, bytes);
        stamp(&rig, name, second);
    }
    let mut look = |seconds| {
        rig.pass(Duration::from_secs(seconds));
        rig.worker.book.scan_wanted = true;
        rig.step();
        rig.worker.snapshot().sources.iter().filter(|one| one.last_error.is_some()).count()
    };
    assert_eq!([look(0), look(3), look(1)], [0, 1, 1], "the half compressed one was reported");
    rig.remove("w.log.1.gz");
    for _ in 0..4 {
        rig.pass(Duration::from_secs(120));
        rig.worker.book.scan_wanted = true;
        rig.step();
    }
    assert_eq!(rig.worker.snapshot().sources.len(), 3, "it is forgotten");
    assert!(rig.log.lines.len() < first.1.len() + second.1.len(), "the older ones are still being read");
    check_order(&mut rig, &[first.1, second.1, third.1]);
}

/// The rotated file was compressed with `gzip --keep`, and its writer still wrote to it when the next one was begun: that came
/// after the compressed file, of which there was nothing to be read.
#[test]
fn a_file_after_a_duplicate_comes_after_the_source_of_that() {
    let mut rig = Rig::new(&["w.log*"]);
    rig.read_in_bits(20_000, 50_000);
    let [first, second, third] = ["first", "second", "third"].map(many);
    rig.write("w.log", &first.0);
    rig.settle();
    rig.rename("w.log", "w.log.1");
    rig.write("w.log.1.gz", decompress::tests::gzip(first.0.as_bytes()));
    rig.settle();
    rig.pass(Duration::from_secs(3));
    rig.settle();
    rig.write("w.log.1", &second.0);
    rig.write("w.log", &third.0);
    check_order(&mut rig, &[first.1, second.1, third.1]);
}
