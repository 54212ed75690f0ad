//! Files that are renamed, copied, truncated, deleted, replaced and rolled back, while the tail runs and while not.

use std::fs;

use super::support::{MINUTES, Rig};

#[test]
fn rename_and_create_reads_the_rest_of_the_old_first() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", "one\n");
    rig.check(&["one\n"]);
    rig.write("app.log", "two\n");
    rig.rename("app.log", "app.log.1");
    rig.write("app.log", "three\n");
    rig.check(&["one\n", "two\n", "three\n"]);
    rig.write("app.log.1", "late\n");
    rig.check(&["one\n", "two\n", "three\n", "late\n"]);
}

#[test]
fn rename_to_a_name_outside_the_globs_is_read_to_its_end_and_forgotten() {
    for stopped in [false, true] {
        let mut rig = Rig::new(&["app.log"]);
        rig.write("app.log", "one\n");
        rig.check(&["one\n"]);
        rig.write("app.log", "two\n");
        rig.rename("app.log", "app.log.1");
        rig.write("app.log", "three\n");
        if stopped {
            rig.restart();
        }
        rig.check(&["one\n", "two\n", "three\n"]);
        rig.pass(MINUTES);
        rig.settle();
        assert_eq!(rig.log.forgotten.len(), 1);
        assert_eq!(rig.worker.book.counters.destroyed_unread_bytes, 0);
    }
}

#[test]
fn rotation_while_stopped_reads_nothing_twice() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", "one\ntwo\n");
    rig.check(&["one\n", "two\n"]);
    rig.write("app.log", "rest\n");
    rig.rename("app.log", "app.log.1");
    rig.write("app.log", "new\n");
    rig.restart();
    rig.check(&["one\n", "two\n", "rest\n", "new\n"]);
    rig.rename("app.log.1", "app.log.2");
    rig.rename("app.log", "app.log.1");
    rig.write("app.log", "newer\n");
    rig.restart();
    rig.check(&["one\n", "two\n", "rest\n", "new\n", "newer\n"]);
}

#[test]
fn copy_truncate_inside_the_glob_reads_nothing_twice_and_the_rest_of_the_copy() {
    for stopped in [false, true] {
        let mut rig = Rig::new(&["app.log*"]);
        rig.write("app.log", "one\n");
        rig.check(&["one\n"]);
        if !stopped {
            // A scan finds the copy before the truncation.
            rig.write("app.log", "two\n");
            rig.is_full = true;
            rig.copy("app.log", "app.log.1");
            rig.settle();
            rig.is_full = false;
        } else {
            rig.write("app.log", "two\n");
            rig.copy("app.log", "app.log.1");
        }
        rig.truncate("app.log", 0);
        rig.write("app.log", "three\n");
        if stopped {
            rig.restart();
        }
        rig.check(&["one\n", "two\n", "three\n"]);
        rig.pass(MINUTES);
        rig.restart();
        rig.check(&["one\n", "two\n", "three\n"]);
        assert_eq!(rig.worker.book.counters.truncated, 0);
    }
}

#[test]
fn a_copy_seen_before_the_truncation_waits() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", "one\n");
    rig.check(&["one\n"]);
    rig.copy("app.log", "app.log.1");
    rig.check(&["one\n"]);
    assert_eq!(rig.worker.scans.unidentified.waiting, 1);
    rig.truncate("app.log", 0);
    rig.check(&["one\n"]);
    rig.write("app.log", "a longer line than before\n");
    rig.check(&["one\n", "a longer line than before\n"]);
    assert_eq!(rig.worker.scans.unidentified.waiting, 0);
}

#[test]
fn a_truncated_file_is_a_new_source_and_unread_bytes_are_counted() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "one\ntwo\nincompl");
    rig.check(&["one\n", "two\n"]);
    rig.truncate("a.log", 0);
    rig.write("a.log", "three\n");
    rig.check(&["one\n", "two\n", "three\n"]);
    let counters = rig.worker.book.counters;
    assert_eq!((counters.truncated, counters.destroyed_unread_bytes), (1, 7));
    assert_eq!(rig.log.lines[2].offset, 0);
    assert_ne!(rig.log.lines[2].source, rig.log.lines[0].source);
    assert!(rig.log.forgotten.contains(&rig.log.lines[0].source));
}

#[test]
fn a_file_truncated_and_regrown_beyond_the_offset_is_noticed() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "one\n");
    rig.check(&["one\n"]);
    rig.truncate("a.log", 0);
    rig.write("a.log", "entirely other\nlines\n");
    rig.check(&["one\n", "entirely other\n", "lines\n"]);
}

#[test]
fn deleted_while_open_is_read_to_its_end() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "one\n");
    rig.check(&["one\n"]);
    let mut writer = fs::OpenOptions::new().append(true).open(rig.path("a.log")).unwrap();
    rig.remove("a.log");
    rig.settle();
    std::io::Write::write_all(&mut writer, b"two\nend").unwrap();
    rig.check(&["one\n", "two\n"]);
    assert!(rig.log.forgotten.is_empty(), "its writer may continue");
    rig.pass(MINUTES);
    rig.check(&["one\n", "two\n", "end"]);
    assert!(rig.log.lines[2].flags.is_unterminated());
    assert_eq!(rig.log.forgotten.len(), 1);
    assert_eq!(rig.worker.book.counters.destroyed_unread_bytes, 0);
    assert_eq!(rig.worker.book.files().len(), 0);
}

#[test]
fn an_unterminated_end_becomes_a_line_once_the_file_is_rotated_and_quiet() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", "one\nend");
    rig.check(&["one\n"]);
    rig.rename("app.log", "app.log.1");
    rig.pass(MINUTES);
    rig.check(&["one\n"]);
    // Only a new file at its path proves that the writer has left it.
    rig.write("app.log", "new\n");
    rig.pass(MINUTES);
    rig.check(&["one\n", "end", "new\n"]);
    assert!(rig.log.lines[1].flags.is_unterminated());
    rig.restart();
    rig.check(&["one\n", "end", "new\n"]);
}

#[test]
fn bytes_deleted_before_they_were_read_are_counted() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "one\n");
    rig.check(&["one\n"]);
    rig.is_full = true;
    rig.worker.book.set_open_max(0);
    rig.write("a.log", "x\n".repeat(2_000_000));
    rig.settle();
    rig.remove("a.log");
    rig.settle();
    rig.is_full = false;
    rig.settle();
    rig.pass(MINUTES);
    rig.settle();
    let read: u64 = rig.log.lines.iter().map(|line| line.bytes.len() as u64).sum();
    assert_eq!(read + rig.worker.book.counters.destroyed_unread_bytes, 4_000_004);
}

#[test]
fn a_reused_inode_is_a_new_file() {
    for stopped in [false, true] {
        let mut rig = Rig::new(&["*.log"]);
        rig.write("a.log", "one\ntwo\n");
        rig.check(&["one\n", "two\n"]);
        // The same inode under another name with another content, as a file system that reuses numbers would give.
        rig.truncate("a.log", 0);
        rig.write("a.log", "something else\n");
        rig.rename("a.log", "b.log");
        if stopped {
            rig.restart();
        }
        rig.check(&["one\n", "two\n", "something else\n"]);
    }
}

#[test]
fn a_file_that_a_power_cut_rolled_back_resumes_at_a_resume_point() {
    let mut rig = Rig::new(&["*.log"]);
    let line = |nth: u32| format!("{nth:09}\n");
    for nth in 0..1_000 {
        rig.write("a.log", line(nth));
        if nth % 50 == 49 {
            rig.settle();
        }
    }
    assert_eq!(rig.log.lines.len(), 1_000);
    // The last 3,000 bytes never reached the disk; the writer continued with others.
    rig.truncate("a.log", 7_000);
    rig.write("a.log", "other\n".repeat(1_000));
    rig.restart();
    rig.settle();
    let counters = rig.worker.book.counters;
    assert_eq!(counters.rolled_back, 1);
    assert!(counters.rolled_back_bytes >= 3_000 && counters.rolled_back_bytes < 10_000);
    let text = rig.log.text();
    assert_eq!(text.iter().filter(|line| *line == "other\n").count(), 1_000);
    let again = text.len() - 2_000;
    assert!(again < 700, "{again} lines are read again, not all");
}

#[test]
fn a_restored_file_continues() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "a line of the file\n".repeat(100));
    rig.settle();
    rig.copy("a.log", "tmp");
    rig.rename("tmp", "a.log");
    rig.write("a.log", "more\n");
    rig.restart();
    rig.settle();
    assert_eq!(rig.log.lines.len(), 101);
}

#[test]
fn a_new_file_with_the_same_header_is_read_from_its_beginning() {
    let mut rig = Rig::new(&["a.log"]);
    rig.write("a.log", "header\n");
    rig.check(&["header\n"]);
    rig.remove("a.log");
    rig.write("b.log", "keeps the inode from being reused\n");
    rig.write("a.log", "header\nline\n");
    rig.check(&["header\n", "header\n", "line\n"]);
}

#[test]
fn moved_to_another_file_system_it_continues() {
    let mut rig = Rig::new(&["a/*", "b/*"]);
    rig.write("a/x", "one\ntwo\nthree\n");
    rig.write("b/.keep", "");
    rig.settle();
    rig.copy("a/x", "b/x");
    rig.remove("a/x");
    rig.write("b/x", "four\n");
    rig.restart();
    rig.check(&["one\n", "two\n", "three\n", "four\n"]);
}

#[test]
fn a_folder_that_cannot_be_listed_hides_files_and_loses_none() {
    let mut rig = Rig::new(&["logs/*.log"]);
    rig.write("logs/a.log", "one\n");
    rig.check(&["one\n"]);
    rig.rename("logs", "elsewhere");
    rig.pass(MINUTES);
    rig.check(&["one\n"]);
    assert!(rig.log.forgotten.is_empty());
    rig.rename("elsewhere", "logs");
    rig.write("logs/a.log", "two\n");
    rig.check(&["one\n", "two\n"]);
}

#[test]
fn a_hard_link_is_the_same_source() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "one\n");
    rig.check(&["one\n"]);
    fs::hard_link(rig.path("a.log"), rig.path("b.log")).unwrap();
    rig.pass(MINUTES);
    rig.write("b.log", "two\n");
    rig.check(&["one\n", "two\n"]);
}

#[test]
fn a_file_rewritten_with_the_same_beginning_is_noticed_by_the_bytes_before_the_offset() {
    let mut rig = Rig::new(&["*.log"]);
    let header = "a header of a kilobyte and more\n".repeat(40);
    rig.write("a.log", format!("{header}one\n"));
    rig.settle();
    assert_eq!(rig.log.lines.len(), 41);
    rig.truncate("a.log", 0);
    rig.write("a.log", format!("{header}two\nthree\n"));
    rig.settle();
    assert_eq!(rig.log.lines.len(), 41 + 42);
    assert_eq!(rig.worker.book.counters.truncated, 1);
}
