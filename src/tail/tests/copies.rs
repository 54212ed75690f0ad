//! Copies of files that are still written to, or that end before what was read.
//!
//! `cp app.log app.log.1; rm app.log` lost lines that the writer, which still had the file open, wrote afterwards: the source
//! continued in the copy. A copy that ends before the offset was read a second time, whole.

use super::support::{MINUTES, Rig};
use std::fs;
use std::io::Write;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::tail::bytes::decompress::tests::gzip;

fn lines(from: u32, to: u32) -> String {
    (from..to).map(|nth| format!("line {nth}\n")).collect()
}

#[track_caller]
fn check_lines(rig: &mut Rig, to: u32) {
    rig.settle();
    assert_eq!(rig.log.text().concat(), lines(0, to), "{:#?}", rig.worker.snapshot());
}

#[test]
fn what_is_written_to_a_deleted_file_after_it_was_copied_is_read() {
    for (count, copy, is_seen) in [
        (100, "app.log.1", false),
        (100, "app.log.1", true),
        (1_000, "old/app.log", false),
        (1_000, "old/app.log", true),
        (3, "app.log.1", false),
        (3, "app.log.1", true),
    ] {
        let mut rig = Rig::new(&["app.log*", "old/*"]);
        rig.write("old/.keep", "");
        rig.write("app.log", lines(0, count));
        check_lines(&mut rig, count);
        let mut writer = rig.writer("app.log");
        rig.copy("app.log", copy);
        if is_seen {
            rig.settle();
        }
        rig.remove("app.log");
        if is_seen {
            rig.settle();
        }
        writer.write_all(lines(count, count + 5).as_bytes()).unwrap();
        check_lines(&mut rig, count + 5);
        // Days later, and after a restart, the copy still has nothing new; lines that are added to it are.
        rig.pass(MINUTES);
        check_lines(&mut rig, count + 5);
        rig.restart();
        rig.pass(MINUTES);
        check_lines(&mut rig, count + 5);
        rig.write(copy, lines(count + 5, count + 6));
        check_lines(&mut rig, count + 6);
        assert_eq!(rig.worker.book.counters.destroyed_unread_bytes, 0);
    }
}

#[test]
fn what_is_written_to_a_file_after_a_copy_took_its_path_is_read() {
    let mut rig = Rig::new(&["app.log"]);
    rig.write("app.log", lines(0, 100));
    check_lines(&mut rig, 100);
    let mut writer = rig.writer("app.log");
    rig.copy("app.log", "tmp");
    rig.rename("tmp", "app.log");
    rig.settle();
    writer.write_all(lines(100, 105).as_bytes()).unwrap();
    check_lines(&mut rig, 105);
    rig.write("app.log", lines(105, 106));
    check_lines(&mut rig, 106);
    rig.pass(MINUTES);
    rig.restart();
    check_lines(&mut rig, 106);
}

#[test]
fn a_copy_of_an_open_file_waits_until_what_both_have_is_read() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", lines(0, 100));
    check_lines(&mut rig, 100);
    rig.is_full = true;
    rig.write("app.log", lines(100, 50_000));
    rig.settle();
    rig.copy("app.log", "app.log.1");
    rig.remove("app.log");
    rig.settle();
    rig.is_full = false;
    check_lines(&mut rig, 50_000);
}

#[test]
fn the_incomplete_end_of_a_copied_and_deleted_file_is_read_once() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", "one\nen");
    rig.check(&["one\n"]);
    let mut writer = rig.writer("app.log");
    rig.copy("app.log", "app.log.1");
    rig.remove("app.log");
    rig.settle();
    writer.write_all(b"d\nlast").unwrap();
    rig.check(&["one\n", "end\n"]);
    rig.pass(MINUTES);
    rig.check(&["one\n", "end\n", "last"]);
    rig.pass(MINUTES);
    rig.check(&["one\n", "end\n", "last"]);
}

#[test]
fn a_copy_that_ends_before_the_offset_is_not_read_again() {
    for count in [3, 100, 1_000] {
        for (is_seen, is_restarted, is_pressed) in [
            (false, false, false),
            (true, false, false),
            (false, true, false),
            (true, true, false),
            (false, false, true),
            (true, false, true),
            (false, true, true),
            (true, true, true),
        ] {
            let mut rig = Rig::new(&["app.log*"]);
            rig.write("app.log", lines(0, count));
            check_lines(&mut rig, count);
            let copy = if is_pressed { "app.log.1.gz" } else { "app.log.1" };
            if is_pressed {
                fs::write(rig.path(copy), gzip(lines(0, count).as_bytes())).unwrap();
            } else {
                rig.copy("app.log", copy);
            }
            if is_seen {
                rig.settle();
            }
            rig.write("app.log", lines(count, count + 1));
            check_lines(&mut rig, count + 1);
            rig.remove("app.log");
            if is_restarted {
                rig.restart();
            }
            rig.settle();
            for _ in 0..3 {
                rig.pass(Duration::from_secs(20));
                check_lines(&mut rig, count + 1);
            }
            rig.pass(MINUTES);
            rig.restart();
            check_lines(&mut rig, count + 1);
            if !is_pressed {
                rig.write(copy, lines(count + 1, count + 2));
                check_lines(&mut rig, count + 2);
            }
        }
    }
}

#[test]
fn a_copy_at_the_same_path_that_ends_before_the_offset_is_not_read_again() {
    for is_restarted in [false, true] {
        let mut rig = Rig::new(&["app.log"]);
        rig.write("app.log", lines(0, 100));
        check_lines(&mut rig, 100);
        rig.copy("app.log", "tmp");
        rig.write("app.log", lines(100, 101));
        check_lines(&mut rig, 101);
        rig.rename("tmp", "app.log");
        if is_restarted {
            rig.restart();
        }
        check_lines(&mut rig, 101);
        rig.write("app.log", lines(101, 102));
        check_lines(&mut rig, 102);
    }
}

#[test]
fn a_new_file_that_has_a_line_of_a_longer_one_that_is_gone_is_read() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "start\n");
    rig.check(&["start\n"]);
    rig.write("a.log", "work\n");
    rig.check(&["start\n", "work\n"]);
    rig.remove("a.log");
    rig.write("b.log", "start\n");
    rig.check(&["start\n", "work\n", "start\n"]);
}

/// The time of a file's last change was subtracted from our wall-clock time. With a server 10 s behind, each copy-truncate was
/// read again; with one an hour ahead, a copy was not read for an hour, and `--once` waited for that.
#[test]
fn the_clock_of_the_server_that_has_the_files_does_not_matter() {
    for server_behind_ms in [10_000, -3_600_000] {
        for is_pressed in [false, true] {
            let mut rig = Rig::with(&["app.log*"], |settings| settings.once = true);
            rig.server_behind_ms = server_behind_ms;
            rig.write("app.log", lines(0, 100));
            check_lines(&mut rig, 100);
            rig.copy("app.log", "app.log.1");
            check_lines(&mut rig, 100);
            rig.truncate("app.log", 0);
            rig.write("app.log", lines(100, 200));
            check_lines(&mut rig, 200);
            // A copy of a file that is not truncated is read after 2 seconds.
            let copy = if is_pressed { "other.gz" } else { "app.log.copy" };
            if is_pressed {
                fs::write(rig.path("app.log.gz"), gzip(lines(200, 300).as_bytes())).unwrap();
            } else {
                rig.copy("app.log", copy);
            }
            rig.settle();
            assert!(!rig.worker.is_done());
            rig.pass(Duration::from_secs(3));
            rig.settle();
            assert!(rig.worker.is_done());
            let text = rig.log.text().concat();
            let more = if is_pressed { lines(200, 300) } else { lines(100, 200) };
            assert_eq!(text, lines(0, 200) + &more);
        }
    }
}

/// A file that was deleted with an incomplete first line, and another one that begins like it.
#[test]
fn a_new_file_that_begins_like_an_incomplete_line_is_read_from_its_beginning() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "2026-");
    rig.settle();
    let _writer = rig.writer("a.log");
    rig.remove("a.log");
    rig.settle();
    rig.write("b.log", "2026-11-29 one\n2026-11-29 two\n");
    rig.pass(MINUTES);
    rig.settle();
    let lines: Vec<String> = rig.log.text().into_iter().filter(|line| line.ends_with('\n')).collect();
    assert_eq!(lines, ["2026-11-29 one\n", "2026-11-29 two\n"]);
}

/// The copy had a checkpoint at its end, and the open file was gone with the process: lines that were not read yet were lost,
/// although the copy has them.
#[test]
fn an_unterminated_end_is_read_from_the_copy_after_a_restart() {
    for is_waited_for in [false, true] {
        let mut rig = Rig::new(&["app.log*"]);
        rig.write("app.log", lines(0, 100));
        rig.write("app.log", "last words");
        check_lines(&mut rig, 100);
        let _writer = rig.writer("app.log");
        rig.copy("app.log", "app.log.1");
        rig.settle();
        rig.remove("app.log");
        rig.settle();
        if is_waited_for {
            // It becomes a line from the open file, and does not come again.
            rig.pass(MINUTES);
            rig.settle();
        }
        rig.restart();
        for _ in 0..2 {
            rig.pass(MINUTES);
            rig.settle();
        }
        rig.write("app.log.1", " and more\n");
        rig.settle();
        let expected = lines(0, 100) + "last words and more\n";
        assert_eq!(rig.log.text().concat(), expected, "{:#?}", rig.worker.snapshot());
    }
}

/// Each new short file was compared with every file that was gone.
#[test]
fn thousands_of_short_files_that_go_while_others_come_take_no_time() {
    let mut rig = Rig::new(&["*.log"]);
    let names = |what: &str| -> Vec<String> { (0..1_000).map(|nth| format!("{what}{nth}.log")).collect() };
    rig.open_max = 5_000;
    for name in names("a") {
        rig.write(&name, format!("{name} {}\n", "x".repeat(480)));
    }
    rig.settle();
    for (old, new) in names("a").iter().zip(names("b")) {
        rig.remove(old);
        rig.write(&new, format!("{new} {}\n", "y".repeat(480)));
    }
    // Not the time that other processes take on a busy machine.
    let busy_ms = || {
        let busy = clock_gettime(ClockId::ThreadCPUTime);
        busy.tv_sec * 1_000 + busy.tv_nsec / 1_000_000
    };
    let began = busy_ms();
    rig.settle();
    assert_eq!(rig.log.lines.len(), 2_000);
    assert!(busy_ms() - began < 5_000, "{} ms", busy_ms() - began);
}
