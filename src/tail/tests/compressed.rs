//! Compressed files: gzip and zstd, new, known as plain files, known compressed, duplicates, incomplete, damaged; rows 13 to 21.
// long: a test for each row of one table, and what they share

use std::fs;
use std::time::Duration;

use spillq_storage::SourceId;

use super::support::{Compress, MINUTES, REST, Rig, lines};

use crate::tail::bytes::decompress::tests::{gzip, zstd};
use crate::tail::checkpoint::adopt;
use crate::tail::known::form::State;
use crate::tail::settings::From;
use crate::tail::status::SourceState;

const BOTH: [(&str, Compress); 2] = [("gz", gzip), ("zst", zstd)];

impl Rig {
    #[track_caller]
    fn check_at_rest(&mut self, expected: &[&str]) {
        self.settle();
        self.pass(REST);
        self.check(expected);
    }

    fn state_of(&self, name: &str) -> Option<SourceState> {
        let path = self.path(name);
        self.worker
            .snapshot()
            .sources
            .into_iter()
            .find(|source| source.path == path)
            .map(|source| source.state)
    }
}

#[track_caller]
fn check_lines(rig: &mut Rig, to: u32) {
    rig.settle();
    rig.pass(REST);
    rig.settle();
    let text = rig.log.text().concat();
    assert!(
        text == lines(0, to),
        "{} bytes of {}: {:#?}",
        text.len(),
        lines(0, to).len(),
        rig.worker.snapshot()
    );
}

#[test]
fn row_20_a_new_file_is_read_decompressed_whatever_its_name() {
    for (suffix, compress) in BOTH {
        let mut rig = Rig::new(&["*"]);
        let name = format!("a.log.{suffix}");
        fs::write(rig.path(&name), compress(b"one\ntwo\n")).unwrap();
        rig.check(&[]);
        assert_eq!(rig.state_of(&name), Some(SourceState::Reading), "it may still be written to");
        rig.pass(REST);
        rig.check(&["one\n", "two\n"]);
        fs::write(rig.path("no-suffix"), compress(b"three\n")).unwrap();
        rig.write("plain.gz", "plain\n");
        rig.check_at_rest(&["one\n", "two\n", "plain\n", "three\n"]);
        rig.restart();
        rig.check_at_rest(&["one\n", "two\n", "plain\n", "three\n"]);
        let ends: Vec<_> = rig.log.lines.iter().map(|line| line.offset).collect();
        assert_eq!(ends, [0, 4, 0, 0]);
        assert_eq!(rig.worker.book.counters.errors, 0);
    }
}

#[test]
fn row_15_what_was_read_in_plain_is_not_read_again_and_the_rest_is() {
    for (suffix, compress) in BOTH {
        for stopped in [false, true] {
            let mut rig = Rig::new(&["app.log*"]);
            rig.write("app.log", lines(0, 500));
            check_lines(&mut rig, 500);
            rig.is_full = true;
            // Not open, as if it had been closed.
            rig.worker.book.set_open_max(0);
            rig.write("app.log", lines(500, 900));
            rig.rename("app.log", "app.log.1");
            rig.compress_and_remove("app.log.1", &format!("app.log.1.{suffix}"), compress);
            rig.write("app.log", lines(900, 1_000));
            if stopped {
                rig.restart();
            }
            rig.is_full = false;
            rig.worker.book.set_open_max(100);
            check_lines(&mut rig, 1_000);
            let sources: Vec<_> = rig.log.lines.iter().map(|line| line.source).collect();
            assert!(sources[..900].iter().all(|source| *source == sources[0]), "it is one source");
            rig.pass(MINUTES);
            rig.restart();
            check_lines(&mut rig, 1_000);
            assert_eq!(rig.worker.book.counters.destroyed_unread_bytes, 0);
        }
    }
}

#[test]
fn row_15_an_incomplete_end_is_ended_by_the_compressed_file() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", "one\nend");
    rig.check(&["one\n"]);
    rig.rename("app.log", "app.log.1");
    rig.check(&["one\n"]);
    rig.compress_and_remove("app.log.1", "app.log.1.gz", gzip);
    // Open as long as its writer may be.
    rig.check_at_rest(&["one\n"]);
    rig.pass(MINUTES);
    rig.check(&["one\n", "end"]);
    assert!(rig.log.lines[1].flags.is_unterminated());
    assert_eq!(rig.log.lines[1].offset, 4);
}

#[test]
fn a_source_does_not_end_while_it_may_be_compressed() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", lines(0, 100));
    check_lines(&mut rig, 100);
    // Nothing is decompressed while the log is full, for however long.
    rig.is_full = true;
    rig.rename("app.log", "app.log.1");
    rig.write("app.log", lines(100, 40_000));
    rig.settle();
    rig.compress_and_remove("app.log.1", "app.log.1.gz", gzip);
    rig.settle();
    rig.pass(MINUTES);
    rig.settle();
    rig.pass(MINUTES);
    rig.settle();
    rig.is_full = false;
    check_lines(&mut rig, 40_000);
    assert!(rig.log.forgotten.is_empty(), "it resumes in the compressed file");
}

/// A big file was looked at while it was being compressed, so the next look was to come long after. Until then the
/// compression was completed and the plain file removed.
#[test]
fn a_source_does_not_end_before_an_incomplete_compressed_file_is_checked_again() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log.1", lines(0, 300));
    check_lines(&mut rig, 300);
    let compressed = gzip(lines(0, 300).as_bytes());
    let (start, end) = compressed.split_at(compressed.len() / 2);
    rig.write("app.log.1.gz", start);
    check_lines(&mut rig, 300);
    assert_eq!(rig.state_of("app.log.1.gz"), Some(SourceState::Failed));
    let later_ms = rig.now().boot_ms + 5 * MINUTES.as_millis() as u64;
    for source in rig.worker.book.sources_mut() {
        if let Some(State::Bad { not_before_ms, .. }) =
            source.compressed.as_mut().map(|compressed| &mut compressed.state)
        {
            *not_before_ms = later_ms;
        }
    }
    rig.write("app.log.1.gz", end);
    rig.remove("app.log.1");
    for _ in 0..4 {
        rig.settle();
        rig.pass(MINUTES);
    }
    check_lines(&mut rig, 300);
    rig.pass(MINUTES);
    check_lines(&mut rig, 300);
    assert!(rig.log.forgotten.is_empty(), "it resumes in the compressed file");
    assert_eq!(rig.state_of("app.log.1.gz"), Some(SourceState::CaughtUp));
}

#[test]
fn rows_4_and_13_a_compressed_file_that_is_renamed_or_copied_is_known_without_decompressing_it() {
    for (suffix, compress) in BOTH {
        for stopped in [false, true] {
            let mut rig = Rig::new(&["app.log*"]);
            let name = |nth: u32| format!("app.log.{nth}.{suffix}");
            rig.write("app.log", lines(0, 300));
            rig.compress_and_remove("app.log", &name(1), compress);
            check_lines(&mut rig, 300);
            for nth in 1..5 {
                match nth % 2 {
                    0 => rig.rename(&name(nth), &name(nth + 1)),
                    _ => {
                        rig.copy(&name(nth), &name(nth + 1));
                        rig.remove(&name(nth));
                    }
                }
                if stopped {
                    rig.restart();
                }
                rig.settle();
                assert!(rig.worker.book.slot.holder().is_none());
                check_lines(&mut rig, 300);
            }
            assert_eq!(rig.log.checkpoints.len(), 1);
        }
    }
}

#[test]
fn row_15_compressed_again_in_another_way_it_is_the_same() {
    for stopped in [false, true] {
        let mut rig = Rig::new(&["app.log*"]);
        rig.write("app.log.1", lines(0, 300));
        check_lines(&mut rig, 300);
        rig.compress_and_remove("app.log.1", "app.log.1.gz", gzip);
        check_lines(&mut rig, 300);
        // Until then the open file is the source, and may be written to.
        rig.pass(MINUTES);
        check_lines(&mut rig, 300);
        fs::write(rig.path("app.log.1.zst"), zstd(lines(0, 300).as_bytes())).unwrap();
        // Both are there for a while: duplicates.
        check_lines(&mut rig, 300);
        rig.remove("app.log.1.gz");
        if stopped {
            rig.restart();
        }
        check_lines(&mut rig, 300);
        // And plain again.
        fs::write(rig.path("app.log.1"), lines(0, 300)).unwrap();
        rig.remove("app.log.1.zst");
        check_lines(&mut rig, 300);
        rig.write("app.log.1", lines(300, 310));
        check_lines(&mut rig, 310);
        assert_eq!(rig.log.checkpoints.len(), 1);
    }
}

#[test]
fn row_14_a_duplicate_is_not_read_until_its_source_is_gone() {
    for stopped in [false, true] {
        let mut rig = Rig::new(&["app.log*"]);
        rig.write("app.log", lines(0, 300));
        check_lines(&mut rig, 300);
        rig.compress("app.log", "app.log.1.gz", gzip);
        check_lines(&mut rig, 300);
        assert_eq!(rig.state_of("app.log.1.gz"), Some(SourceState::CaughtUp));
        // It grows beyond its duplicate, row 16, or does not, row 15.
        rig.write("app.log", lines(300, 400));
        check_lines(&mut rig, 400);
        rig.pass(MINUTES);
        if stopped {
            rig.restart();
            check_lines(&mut rig, 400);
        }
        rig.remove("app.log");
        check_lines(&mut rig, 400);
        rig.pass(MINUTES);
        rig.settle();
        rig.restart();
        check_lines(&mut rig, 400);
        assert_eq!(rig.worker.book.counters.destroyed_unread_bytes, 0);
        assert_eq!(rig.log.checkpoints.len(), 1, "its source resumes in it");
    }
}

#[test]
fn rows_15_and_16_compressed_and_truncated() {
    for more in [0, 50] {
        let mut rig = Rig::new(&["app.log*"]);
        rig.write("app.log", lines(0, 300));
        check_lines(&mut rig, 300);
        rig.compress("app.log", "app.log.1.gz", gzip);
        // Written, and read, between the copy and the truncation.
        rig.write("app.log", lines(300, 300 + more));
        rig.settle();
        rig.truncate("app.log", 0);
        rig.write("app.log", lines(300 + more, 500));
        check_lines(&mut rig, 500);
        rig.pass(MINUTES);
        rig.restart();
        check_lines(&mut rig, 500);
        assert_eq!(rig.worker.book.counters.truncated, 0);
    }
}

#[test]
fn row_17_an_open_file_is_read_first() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.read_in_bits(1_000, 2_000);
    rig.write("app.log", lines(0, 10));
    check_lines(&mut rig, 10);
    rig.is_full = true;
    rig.write("app.log", lines(10, 600));
    rig.settle();
    rig.rename("app.log", "app.log.1");
    rig.settle();
    rig.compress_and_remove("app.log.1", "app.log.1.gz", gzip);
    rig.pass(REST);
    rig.settle();
    rig.is_full = false;
    check_lines(&mut rig, 600);
    rig.pass(MINUTES);
    check_lines(&mut rig, 600);
    assert_eq!(rig.log.checkpoints.len(), 1);
}

#[test]
fn row_17_lines_that_are_added_after_the_compression_are_read_too() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", lines(0, 100));
    check_lines(&mut rig, 100);
    let mut writer = fs::OpenOptions::new().append(true).open(rig.path("app.log")).unwrap();
    rig.rename("app.log", "app.log.1");
    rig.settle();
    rig.compress_and_remove("app.log.1", "app.log.1.gz", gzip);
    check_lines(&mut rig, 100);
    std::io::Write::write_all(&mut writer, lines(100, 110).as_bytes()).unwrap();
    check_lines(&mut rig, 110);
    rig.pass(MINUTES);
    check_lines(&mut rig, 110);
    rig.restart();
    check_lines(&mut rig, 110);
    assert_eq!(rig.log.checkpoints.len(), 1);
}

#[test]
fn row_18_an_incomplete_file_is_reported_once_and_read_when_it_is_complete() {
    for (suffix, compress) in BOTH {
        let mut rig = Rig::with(&["*"], |settings| settings.once = true);
        let name = format!("a.log.{suffix}");
        let compressed = compress(lines(0, 2_000).as_bytes());
        let (start, end) = compressed.split_at(compressed.len() / 2);
        rig.write(&name, start);
        rig.settle();
        assert!(!rig.worker.is_done(), "it may be completed yet");
        rig.pass(REST);
        rig.check(&[]);
        assert_eq!(rig.state_of(&name), Some(SourceState::Failed));
        assert!(rig.worker.is_done(), "it is not waited for");
        rig.pass(MINUTES);
        rig.check(&[]);
        assert_eq!(rig.worker.book.counters.errors, 1);
        rig.write(&name, end);
        check_lines(&mut rig, 2_000);
        assert_eq!(rig.state_of(&name), Some(SourceState::CaughtUp));
        assert_eq!(rig.worker.book.counters.errors, 1);
    }
}

#[test]
fn row_18_a_file_that_is_written_to_without_a_pause_is_reported_after_a_minute() {
    let mut rig = Rig::new(&["*"]);
    let compressed = gzip(lines(0, 20_000).as_bytes());
    let mut pieces = compressed.chunks(compressed.len() / 500);
    let began_ms = rig.now().boot_ms;
    while rig.worker.book.counters.errors == 0 {
        rig.write("a.log.gz", pieces.next().unwrap());
        rig.settle();
    }
    assert!(rig.now().boot_ms - began_ms > 59_000, "a change of just now, by the wall clock");
    rig.check(&[]);
    rig.write("a.log.gz", pieces.flatten().copied().collect::<Vec<_>>());
    rig.pass(MINUTES);
    check_lines(&mut rig, 20_000);
    assert_eq!(rig.worker.book.counters.errors, 1);
}

#[test]
fn row_19_nothing_of_a_damaged_file_is_read_and_the_others_continue() {
    for (suffix, compress) in BOTH {
        let mut rig = Rig::new(&["app.log*"]);
        rig.write("app.log.1", lines(0, 300));
        check_lines(&mut rig, 300);
        rig.write("app.log.1", lines(300, 400));
        let name = format!("app.log.1.{suffix}");
        rig.is_full = true;
        rig.worker.book.set_open_max(0);
        rig.settle();
        rig.compress_and_remove("app.log.1", &name, compress);
        let mut compressed = fs::read(rig.path(&name)).unwrap();
        let at = compressed.len() - 2;
        compressed[at] ^= 1;
        fs::write(rig.path(&name), &compressed).unwrap();
        rig.is_full = false;
        rig.worker.book.set_open_max(100);
        rig.write("app.log", "other\n");
        rig.settle();
        rig.pass(REST);
        rig.settle();
        let text = rig.log.text().concat();
        // The full log gets the appends that were in flight.
        let read = text.len() - "other\n".len();
        assert_eq!(rig.state_of(&name), Some(SourceState::Failed));
        assert!(text.ends_with("other\n") && lines(0, 400).starts_with(&text[..read]));
        rig.pass(MINUTES);
        rig.settle();
        assert_eq!(rig.worker.book.counters.destroyed_unread_bytes, (lines(0, 400).len() - read) as u64);
        assert_eq!(rig.worker.book.counters.errors, 1);
    }
}

#[test]
fn row_21_members_that_are_added_are_read() {
    for stopped in [false, true] {
        let mut rig = Rig::new(&["*.gz"]);
        rig.write("a.gz", gzip(lines(0, 100).as_bytes()));
        check_lines(&mut rig, 100);
        rig.write("a.gz", gzip(lines(100, 200).as_bytes()));
        if stopped {
            rig.restart();
        }
        check_lines(&mut rig, 200);
        rig.pass(MINUTES);
        check_lines(&mut rig, 200);
        assert_eq!(rig.worker.book.counters.truncated, 0);
        // Another content is another source.
        fs::write(rig.path("a.gz"), gzip(b"entirely other\n")).unwrap();
        rig.settle();
        rig.pass(REST);
        rig.settle();
        assert_eq!(rig.log.lines.len(), 201);
        assert_eq!(rig.log.lines[200].offset, 0);
        assert_eq!(rig.worker.book.counters.truncated, 1);
    }
}

#[test]
fn a_touched_file_is_still_the_same() {
    let mut rig = Rig::new(&["*.gz"]);
    rig.write("a.gz", gzip(b"one\n"));
    rig.check_at_rest(&["one\n"]);
    let later = std::time::SystemTime::now() + MINUTES;
    fs::File::options().append(true).open(rig.path("a.gz")).unwrap().set_modified(later).unwrap();
    rig.check_at_rest(&["one\n"]);
    assert_eq!(rig.log.checkpoints.len(), 1);
}

#[test]
fn rotated_compressed_and_plain_files_are_read_from_the_oldest_to_the_newest() {
    let mut rig = Rig::new(&["app.log*"]);
    for (name, from) in [("app.log.3", 0), ("app.log.2", 100), ("app.log.1", 200), ("app.log", 300)] {
        rig.write(name, lines(from, from + 100));
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + u64::from(from));
        fs::File::options().append(true).open(rig.path(name)).unwrap().set_modified(time).unwrap();
    }
    rig.compress_and_remove("app.log.3", "app.log.3.zst", zstd);
    rig.compress_and_remove("app.log.2", "app.log.2.gz", gzip);
    check_lines(&mut rig, 400);
}

#[test]
fn long_lines_come_in_parts_and_a_long_end_is_a_line() {
    let long = "x".repeat(1_000_000);
    let mut rig = Rig::with(&["*"], |settings| settings.follows[0].max_line_bytes = 700_000);
    let content = format!("{long}\nshort\n{}", &long[..600_000]);
    fs::write(rig.path("a.gz"), gzip(content.as_bytes())).unwrap();
    rig.settle();
    rig.pass(REST);
    rig.settle();
    let found: Vec<_> = rig.log.lines.iter().map(|line| (line.flags.part(), line.bytes.len())).collect();
    assert_eq!(found, [(Some("first"), 700_000), (Some("last"), 300_001), (None, 6), (None, 600_000)]);
    assert!(rig.log.lines[3].flags.is_unterminated());
    assert_eq!(rig.log.text().concat(), content);
}

#[test]
fn reading_resumes_in_the_middle_after_a_kill() {
    for (_, compress) in BOTH {
        let mut rig = Rig::new(&["*"]);
        rig.read_in_bits(10_000, 10_000);
        fs::write(rig.path("a.compressed"), compress(lines(0, 3_000).as_bytes())).unwrap();
        rig.settle();
        rig.pass(REST);
        for kill in 0..40 {
            for _ in 0..kill {
                rig.step();
            }
            rig.restart();
            // Whether the file has changed lately is not known after a start.
            rig.step();
            rig.pass(REST);
        }
        assert!(!rig.log.lines.is_empty());
        check_lines(&mut rig, 3_000);
    }
}

#[test]
fn many_compressed_files_are_all_read_with_few_descriptors() {
    let mut rig = Rig::new(&["*.gz"]);
    rig.worker.book.set_open_max(3);
    for nth in 0..50 {
        fs::write(rig.path(&format!("{nth}.gz")), gzip(format!("line {nth}\n").as_bytes())).unwrap();
    }
    rig.settle();
    rig.pass(REST);
    rig.settle();
    let mut text = rig.log.text();
    text.sort();
    text.dedup();
    assert_eq!((text.len(), rig.log.lines.len()), (50, 50));
    assert!(rig.worker.book.files().len() <= 3);
}

#[test]
fn a_common_header_makes_no_duplicate() {
    let header = "a header that every file of this program begins with\n".repeat(30);
    let mut rig = Rig::new(&["*"]);
    rig.write("app.log", format!("{header}one\n"));
    rig.settle();
    fs::write(rig.path("old.gz"), gzip(format!("{header}two\n").as_bytes())).unwrap();
    rig.settle();
    rig.pass(REST);
    rig.settle();
    let text = rig.log.text();
    assert!(text.contains(&"two\n".to_owned()) && text.len() == 62);
}

#[test]
fn from_the_end_nothing_of_a_compressed_file_is_read_and_it_stays_known() {
    let mut rig = Rig::with(&["*"], |settings| settings.follows[0].from = From::End);
    fs::write(rig.path("old.gz"), gzip(b"old\n")).unwrap();
    rig.check_at_rest(&[]);
    rig.rename("old.gz", "older.gz");
    rig.restart();
    rig.check_at_rest(&[]);
    fs::write(rig.path("new.gz"), gzip(b"new\n")).unwrap();
    rig.check_at_rest(&["new\n"]);
}

#[test]
fn an_empty_file_and_one_that_vanishes_are_not_sources() {
    let mut rig = Rig::with(&["*"], |settings| settings.once = true);
    fs::write(rig.path("a.gz"), gzip(b"")).unwrap();
    fs::write(rig.path("b.gz"), gzip(b"b\n")).unwrap();
    rig.check(&[]);
    rig.remove("b.gz");
    // Open, so it is read all the same.
    rig.check_at_rest(&["b\n"]);
    assert!(rig.worker.is_done());
    assert_eq!(rig.worker.book.counters.errors, 0);
}

#[test]
fn a_new_file_that_is_rotated_and_compressed_at_once_does_not_wait_for_itself() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log.1", "one\n");
    rig.write("app.log", "two\n");
    rig.step();
    rig.rename("app.log", "app.log.2");
    rig.compress_and_remove("app.log.2", "app.log.2.gz", gzip);
    rig.check_at_rest(&["one\n", "two\n"]);
    rig.pass(MINUTES);
    rig.check(&["one\n", "two\n"]);
}

#[test]
fn a_source_after_a_compressed_file_comes_after_the_source_that_it_is() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", "begun");
    rig.settle();
    rig.rename("app.log", "app.log.1");
    rig.write("app.log", "two\n");
    // It waits for the end of the first one.
    rig.check(&[]);
    rig.rename("app.log", "app.log.2");
    rig.write("app.log", "three\n");
    rig.compress_and_remove("app.log.2", "app.log.2.gz", gzip);
    rig.check_at_rest(&[]);
    rig.pass(MINUTES);
    rig.check(&["begun", "two\n", "three\n"]);
    rig.pass(MINUTES);
    rig.check(&["begun", "two\n", "three\n"]);
}

#[test]
fn a_copy_is_compressed_and_the_truncated_file_renamed_between_two_scans() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log", "one\n");
    rig.check(&["one\n"]);
    rig.copy("app.log", "app.log.1");
    rig.truncate("app.log", 0);
    rig.compress_and_remove("app.log.1", "app.log.1.gz", gzip);
    rig.rename("app.log", "app.log.2");
    rig.write("app.log", "two\n");
    rig.check_at_rest(&["one\n", "two\n"]);
}

#[test]
fn a_compressed_file_is_adopted() {
    let mut rig = Rig::new(&["*.log", "moved.gz"]);
    rig.write("app.log", lines(0, 100));
    check_lines(&mut rig, 100);
    rig.worker.book.set_open_max(0);
    let checkpoint = rig.log.checkpoints[&SourceId(1)].clone();
    rig.write("other", "other\n");
    rig.compress("other", "other.gz", gzip);
    assert!(adopt(&checkpoint, &rig.path("other.gz")).is_err());
    rig.write("app.log", lines(100, 200));
    rig.compress_and_remove("app.log", "moved.gz", gzip);
    let adopted = adopt(&checkpoint, &rig.path("moved.gz")).unwrap();
    rig.log.checkpoints.insert(SourceId(1), adopted);
    rig.restart();
    check_lines(&mut rig, 200);
    assert_eq!(rig.log.checkpoints.len(), 1);
}

#[test]
fn a_compressed_file_found_again_after_a_restart_comes_before_a_newer_one_that_was_not_begun() {
    let mut rig = Rig::new(&["app.log*"]);
    rig.write("app.log.1", "one\n");
    let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options().append(true).open(rig.path("app.log.1")).unwrap().set_modified(time).unwrap();
    rig.compress_and_remove("app.log.1", "app.log.1.gz", gzip);
    rig.write("app.log", "two\n");
    rig.check(&[]);
    rig.rename("app.log", "app.log.2");
    rig.check(&[]);
    rig.restart();
    rig.check_at_rest(&["one\n", "two\n"]);
}
