//! Faults that rotations with logrotate found (`torture logrotate`).

use super::support::{MINUTES, REST, Rig, lines};
use std::fs;

use crate::tail::bytes::decompress::tests::gzip;

#[track_caller]
fn check_lines(rig: &mut Rig, to: u32) {
    rig.settle();
    assert_eq!(rig.log.text().concat(), lines(0, to), "{:#?}", rig.worker.snapshot());
}

/// With `copytruncate` and `compress` a scan found a `.gz` that was still empty, and the copy gone: the source was given up,
/// and all of it read again a moment later.
#[test]
fn a_source_is_not_given_up_while_its_copy_is_being_compressed() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", lines(0, 100));
    check_lines(&mut rig, 100);
    let compressed = gzip(&fs::read(rig.path("app.log")).unwrap());
    fs::write(rig.path("app.log.1.gz"), "").unwrap();
    rig.truncate("app.log", 0);
    rig.write("app.log", lines(100, 103));
    check_lines(&mut rig, 100);
    fs::write(rig.path("app.log.1.gz"), compressed).unwrap();
    rig.settle();
    rig.pass(REST);
    check_lines(&mut rig, 103);
    assert_eq!((rig.worker.book.counters.truncated, rig.worker.book.counters.destroyed_unread_bytes), (0, 0));
}

/// The same with a compressed file that stays empty: new lines are held up for 10 s, not for ever.
#[test]
fn a_compressed_file_that_stays_empty_holds_up_others_for_10_seconds() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", lines(0, 100));
    check_lines(&mut rig, 100);
    fs::write(rig.path("app.log.1.gz"), "").unwrap();
    rig.truncate("app.log", 0);
    rig.write("app.log", lines(100, 103));
    check_lines(&mut rig, 100);
    rig.pass(REST);
    check_lines(&mut rig, 103);
}

/// With `delaycompress` a compressed file that was renamed before it was checked left a checkpoint at offset 0: after a
/// restart it counted as lost from sight.
#[test]
fn a_compressed_file_that_is_renamed_before_it_is_checked_leaves_no_checkpoint() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", lines(0, 100));
    check_lines(&mut rig, 100);
    rig.rename("app.log", "app.log.1");
    rig.write("app.log", lines(100, 103));
    check_lines(&mut rig, 103);
    rig.compress_and_remove("app.log.1", "app.log.1.gz", gzip);
    rig.settle();
    rig.rename("app.log.1.gz", "app.log.2.gz");
    rig.settle();
    rig.pass(REST);
    check_lines(&mut rig, 103);
    rig.rename("app.log.2.gz", "app.log.3.gz");
    rig.restart();
    for _ in 0..2 {
        rig.pass(MINUTES);
        check_lines(&mut rig, 103);
    }
    assert_eq!(rig.worker.book.counters.lost_sight, 0, "{:#?}", rig.worker.snapshot());
}

/// With an `olddir` and `copytruncate`: more than 1 KiB was read, less than that copied. It was read again.
#[test]
fn a_short_copy_in_another_folder_is_identified() {
    let mut rig = Rig::new(&["app.log*", "old/app.log*"]);
    rig.write("app.log", lines(0, 12));
    check_lines(&mut rig, 12);
    let copied = fs::read(rig.path("app.log")).unwrap();
    rig.write("app.log", lines(12, 60));
    check_lines(&mut rig, 60);
    assert!(copied.len() < 1_024 && lines(0, 60).len() > 1_024);
    rig.write("old/app.log.1", copied);
    rig.settle();
    rig.truncate("app.log", 0);
    rig.write("app.log", lines(60, 63));
    check_lines(&mut rig, 63);
    rig.pass(MINUTES);
    check_lines(&mut rig, 63);
}

/// With `delaycompress`: lines that a writer adds to `app.log.1` come before the lines of the new `app.log`, which came after
/// the compressed file alone.
#[test]
fn late_lines_of_a_rotated_file_come_first_also_next_to_a_compressed_one() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", lines(0, 40));
    check_lines(&mut rig, 40);
    rig.rename("app.log", "app.log.1");
    rig.write("app.log", lines(40, 60));
    check_lines(&mut rig, 60);
    rig.compress_and_remove("app.log.1", "app.log.2.gz", gzip);
    rig.settle();
    rig.rename("app.log", "app.log.1");
    let late = lines(60, 62);
    let (now, later) = late.split_at(late.len() - 5);
    rig.write("app.log.1", now);
    rig.write("app.log", lines(62, 80));
    rig.settle();
    rig.pass(REST);
    check_lines(&mut rig, 61);
    rig.write("app.log.1", later);
    check_lines(&mut rig, 80);
}

/// A file whose inode the next one at its path got while the service was stopped.
#[test]
fn a_deleted_file_whose_inode_has_another_file_is_lost_from_sight() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", lines(0, 40));
    check_lines(&mut rig, 40);
    rig.restart();
    rig.truncate("app.log", 0);
    rig.write("app.log", "another\n");
    rig.settle();
    assert_eq!(rig.log.text().concat(), lines(0, 40) + "another\n");
    assert_eq!((rig.worker.book.counters.truncated, rig.worker.book.counters.lost_sight), (1, 1));
}
