//! Files that only grow: what is a line, which files are followed, and what it costs.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use super::support::{Rig, append_to};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::tail::append::IN_FLIGHT_LARGE_MAX;
use crate::tail::bytes::open::{Way, open};
use crate::tail::settings::From;
use crate::tail::status::SourceState;
use crate::tail::worker::Step;

#[test]
fn appended_lines_are_read_once() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "one\ntwo\n");
    rig.check(&["one\n", "two\n"]);
    rig.write("a.log", "three\n");
    rig.check(&["one\n", "two\n", "three\n"]);
    rig.restart();
    rig.write("a.log", "four\n");
    rig.check(&["one\n", "two\n", "three\n", "four\n"]);
    let offsets: Vec<_> = rig.log.lines.iter().map(|line| line.offset).collect();
    assert_eq!(offsets, [0, 4, 8, 14]);
}

#[test]
fn an_incomplete_line_waits_for_its_end() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "one\ntw");
    rig.check(&["one\n"]);
    rig.pass(Duration::from_secs(1_000));
    rig.restart();
    rig.check(&["one\n"]);
    rig.write("a.log", "o\n");
    rig.check(&["one\n", "two\n"]);
}

#[test]
fn any_bytes_are_stored() {
    let mut rig = Rig::new(&["*.log"]);
    let bytes: Vec<u8> = (0..=255).collect();
    rig.write("a.log", &bytes);
    rig.write("a.log", b"\r\n\r\n\n\0\n\xff\xfe\n");
    rig.settle();
    let all: Vec<u8> = rig.log.lines.iter().flat_map(|line| line.bytes.clone()).collect();
    assert_eq!(all, fs::read(rig.path("a.log")).unwrap());
    assert_eq!(rig.log.lines.len(), 6);
}

#[test]
fn long_lines_are_whole_up_to_the_limit_and_then_in_parts() {
    let mut rig = Rig::with(&["*.log"], |settings| settings.follows[0].max_line_bytes = 8);
    rig.write("a.log", "1234567\n12345678\n123456789abcdefgh\nx\n");
    rig.settle();
    let lines: Vec<_> = rig.log.lines.iter().map(|line| (line.flags.part(), line.bytes.as_slice())).collect();
    assert_eq!(
        lines,
        [
            (None, &b"1234567\n"[..]),
            (Some("first"), b"12345678"),
            (Some("last"), b"\n"),
            (Some("first"), b"12345678"),
            (Some("middle"), b"9abcdefg"),
            (Some("last"), b"h\n"),
            (None, b"x\n"),
        ]
    );
}

#[test]
fn a_cut_line_continues_after_a_restart() {
    let mut rig = Rig::with(&["*.log"], |settings| settings.follows[0].max_line_bytes = 8);
    rig.write("a.log", "123456789");
    rig.check(&["12345678"]);
    rig.restart();
    rig.write("a.log", "0\nnext\n");
    rig.check(&["12345678", "90\n", "next\n"]);
    assert_eq!(rig.log.lines[1].flags.part(), Some("last"));
}

#[test]
fn a_line_longer_than_the_buffer_is_whole_or_in_parts_of_the_limit() {
    let mut rig = Rig::with(&["*.log"], |settings| settings.follows[0].max_line_bytes = 1_000_000);
    let line = |len: usize, byte: u8| [vec![byte; len - 1], vec![b'\n']].concat();
    rig.write("a.log", b"short\n");
    rig.write("a.log", &line(1_000_000, b'a')[..400_000]);
    rig.check(&["short\n"]);
    rig.write("a.log", &line(1_000_000, b'a')[400_000..]);
    rig.write("a.log", line(1_000_001, b'b'));
    rig.write("a.log", line(2_500_000, b'c'));
    rig.write("a.log", b"end\n");
    rig.settle();
    let lines: Vec<_> = rig.log.lines.iter().map(|line| (line.flags.part(), line.bytes.len())).collect();
    assert_eq!(
        lines,
        [
            (None, 6),
            (None, 1_000_000),
            (Some("first"), 1_000_000),
            (Some("last"), 1),
            (Some("first"), 1_000_000),
            (Some("middle"), 1_000_000),
            (Some("last"), 500_000),
            (None, 4),
        ]
    );
    let all: Vec<u8> = rig.log.lines.iter().flat_map(|line| line.bytes.clone()).collect();
    assert!(all == fs::read(rig.path("a.log")).unwrap());
}

#[test]
fn a_big_file_is_read_in_blocks_and_few_appends() {
    let mut rig = Rig::new(&["*.log"]);
    let lines: Vec<String> =
        (0..50_000).map(|nth| format!("line {nth} {}\n", "x".repeat(nth % 300))).collect();
    rig.write("a.log", lines.concat());
    rig.settle();
    assert_eq!(rig.log.lines.len(), lines.len());
    assert!(rig.log.text() == lines);
    let appends = lines.concat().len() / (1_024 * 1_024) + 2;
    assert!(rig.log.appends <= appends, "{} appends", rig.log.appends);
}

#[test]
fn folders_that_appear_later_are_followed() {
    let mut rig = Rig::new(&["hourly/*/*", "deep/**/*.log"]);
    rig.check(&[]);
    rig.write("hourly/20251007/15", "a\n");
    rig.check(&["a\n"]);
    rig.write("hourly/20251007/16", "b\n");
    rig.write("deep/1/2/3/x.log", "c\n");
    rig.settle();
    let mut lines = rig.log.text();
    lines.sort();
    assert_eq!(lines, ["a\n", "b\n", "c\n"]);
}

#[test]
fn from_the_end_applies_to_files_that_exist_at_the_first_start() {
    let mut rig = Rig::with(&["*.log"], |settings| settings.follows[0].from = From::End);
    rig.write("old.log", "old\nhal");
    rig.write("whole.log", "old\n");
    rig.check(&[]);
    rig.restart();
    rig.write("old.log", "f\n");
    rig.write("new.log", "new\n");
    rig.settle();
    let mut lines = rig.log.text();
    lines.sort();
    assert_eq!(lines, ["half\n", "new\n"]);
}

#[test]
fn one_bad_file_does_not_hold_up_the_others() {
    let mut rig = Rig::new(&["*.log"]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        rig.path("fifo.log"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o600),
        0,
    )
    .unwrap();
    symlink(rig.path("nowhere"), rig.path("dangling.log")).unwrap();
    symlink(rig.path("other"), rig.path("link.log")).unwrap();
    rig.write("other", "never\n");
    rig.write("good.log", "good\n");
    rig.check(&["good\n"]);
    assert_eq!(
        rig.worker.book.counters.errors, 3,
        "each reported once: {:?}",
        rig.worker.scans.unfollowed.refused
    );
    rig.settle();
    assert_eq!(rig.worker.book.counters.errors, 3);
    assert_eq!(rig.worker.snapshot().refused.len(), 3);
    // It is retried: a bad file that becomes a good one is read.
    rig.remove("fifo.log");
    rig.write("fifo.log", "now a file\n");
    rig.check(&["good\n", "now a file\n"]);
}

#[test]
fn the_own_data_dir_is_not_followed() {
    let mut rig = Rig::new(&["**/*"]);
    rig.write("data/segments/1", "own\n");
    rig.write("a", "line\n");
    rig.check(&["line\n"]);
}

#[test]
fn a_full_log_is_waited_for_and_new_files_are_held_meanwhile() {
    let mut rig = Rig::new(&["*.log"]);
    rig.is_full = true;
    let line = "x".repeat(999) + "\n";
    rig.write("a.log", line.repeat(30_000));
    rig.settle();
    assert_eq!(rig.held(), IN_FLIGHT_LARGE_MAX, "no more bytes in flight");
    assert!(rig.worker.snapshot().waits_for_log_since.is_some());
    rig.write("b.log", "held\n");
    rig.settle();
    rig.remove("b.log");
    rig.settle();
    rig.is_full = false;
    rig.settle();
    assert_eq!(rig.log.lines.len(), 30_001);
    assert!(rig.log.text().contains(&"held\n".to_owned()), "it was open while the log was full");
}

#[test]
fn many_files_share_blocks() {
    let mut rig = Rig::new(&["*.log"]);
    rig.open_max = 100;
    for file in 0..2_000 {
        rig.write(&format!("{file}.log"), format!("first of {file}\n"));
    }
    rig.settle();
    assert_eq!(rig.log.lines.len(), 2_000);
    assert!(rig.log.appends <= 4, "{} appends", rig.log.appends);
    assert!(rig.worker.book.files().len() <= 100, "{} open", rig.worker.book.files().len());
    for file in 0..2_000 {
        rig.write(&format!("{file}.log"), format!("second of {file}\n"));
    }
    rig.settle();
    assert_eq!(rig.log.lines.len(), 4_000);
    let appends = rig.log.appends;
    rig.settle();
    assert_eq!(rig.log.appends, appends, "nothing is written if nothing changed");
    rig.restart();
    rig.settle();
    assert_eq!(rig.log.lines.len(), 4_000);
    let snapshot = rig.worker.snapshot();
    assert!(snapshot.sources.iter().all(|source| source.state == SourceState::CaughtUp));
}

#[test]
fn files_with_the_same_content_are_all_read() {
    let mut rig = Rig::new(&["*.log"]);
    for file in ["a.log", "b.log", "c.log"] {
        rig.write(file, "header\n");
    }
    rig.settle();
    rig.pass(Duration::from_secs(3));
    rig.check(&["header\n", "header\n", "header\n"]);
    rig.write("b.log", "more\n");
    rig.restart();
    rig.settle();
    assert_eq!(rig.log.text().last().unwrap(), "more\n");
    assert_eq!(rig.log.lines.len(), 4);
}

#[test]
fn an_idle_tail_only_scans() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "x\n");
    rig.settle();
    // Nothing changes: the next thing to do is the scan a second later.
    rig.worker.book.scan_wanted = false;
    assert_eq!(rig.step(), Step::Idle);
    let ms = rig.worker.idle_ms(rig.now());
    assert!(ms >= 900, "{ms} ms");
    assert_eq!(rig.worker.book.counters.appends, 1);
}

#[test]
fn a_path_that_is_not_utf8_is_followed_and_identified_again() {
    use std::os::unix::ffi::OsStrExt;
    let mut rig = Rig::new(&["*.log"]);
    let path = rig.dir.path().join(std::ffi::OsStr::from_bytes(b"a\xff\xfe.log"));
    fs::write(&path, "one\n").unwrap();
    rig.check(&["one\n"]);
    rig.restart();
    append_to(&path, b"two\n");
    rig.check(&["one\n", "two\n"]);
    let sources = &rig.worker.snapshot().sources;
    assert_eq!((sources.len(), &sources[0].path), (1, &path));
    assert!(crate::plain::escape_path(&sources[0].path).ends_with(r"/a\xff\xfe.log"));
}

#[test]
fn a_byte_order_mark_of_utf16_is_reported_once_for_each_source() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("plain.log", "\u{feff}a byte-order mark of UTF-8\n");
    rig.write("little.log", b"\xff");
    rig.settle();
    let reported = |rig: &Rig| rig.worker.book.sources().iter().filter(|source| source.is_utf16).count();
    assert_eq!(reported(&rig), 0);
    rig.write("little.log", b"\xfea\0\n\0");
    rig.write("big.log", b"\xfe\xff\0a\0\n");
    rig.settle();
    assert_eq!(reported(&rig), 2);
    // Its bytes are lines all the same, and after a restart nothing is reported again.
    assert_eq!(rig.log.lines.len(), 3);
    rig.restart();
    rig.write("little.log", b"b\0\n");
    rig.settle();
    assert_eq!((reported(&rig), rig.log.lines.len()), (0, 4));
}

/// A user who may write into the followed folder points a link at a file that only the service may read, again and again.
#[test]
fn a_link_swapped_for_a_file_never_leads_outside_the_allowed_root() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret\n".repeat(300)).unwrap();
    fs::create_dir(outside.path().join("logs")).unwrap();
    fs::copy(&secret, outside.path().join("logs/x.log")).unwrap();
    let mut rig = Rig::with(&["*.log", "logs/*.log"], |_| {});
    let root = rig.dir.path().to_owned();
    rig.settings.follows[0].symlinks = Some(root.clone());
    fs::create_dir(root.join("real")).unwrap();
    rig.restart();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swaps = scope.spawn(|| {
            let (next, logs) = (root.join("next"), root.join("logs"));
            for swap in 0..1_000_u32 {
                // A file, a link to the secret, a link inside, and the same with a folder on the way.
                match swap % 3 {
                    0 => fs::write(&next, format!("good {swap}\n")).unwrap(),
                    1 => symlink(&secret, &next).unwrap(),
                    _ => symlink(root.join("real/inside"), &next).unwrap(),
                }
                fs::rename(&next, root.join("a.log")).unwrap();
                let _ = fs::remove_file(&logs);
                let target = if swap % 2 == 0 { outside.path().join("logs") } else { root.join("real") };
                symlink(target, &logs).unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Release);
        });
        fs::write(root.join("real/inside"), "inside\n").unwrap();
        fs::write(root.join("real/y.log"), "inside, too\n").unwrap();
        while !stop.load(std::sync::atomic::Ordering::Acquire) {
            rig.worker.book.scan_wanted = true;
            rig.pass(Duration::from_secs(1));
            rig.step();
            assert!(
                !swaps.is_finished() || stop.load(std::sync::atomic::Ordering::Acquire),
                "the swaps ended early"
            );
        }
    });
    rig.settle();
    let text = rig.log.text();
    assert!(text.iter().all(|line| !line.contains("secret")), "{text:?}");
    // The last swap left links that lead inside: their targets are read.
    let _ = fs::remove_file(root.join("a.log"));
    symlink(root.join("real/inside"), root.join("b.log")).unwrap();
    rig.settle();
    assert!(rig.log.text().iter().any(|line| line == "inside\n"));
    assert!(rig.log.text().iter().any(|line| line == "inside, too\n"));
}

/// The same with a folder below the fixed one, where no links are allowed: only its last part was once guarded.
#[test]
fn a_folder_swapped_for_a_link_is_not_walked_through_where_links_are_not_allowed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x.log"), "secret\n".repeat(300)).unwrap();
    let mut rig = Rig::new(&["*/*.log"]);
    let root = rig.dir.path().to_owned();
    fs::create_dir(root.join("real")).unwrap();
    fs::write(root.join("real/x.log"), "good\n").unwrap();
    symlink(outside.path(), root.join("link")).unwrap();
    rig.check(&["good\n"]);
    let swaps_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20_000 {
                let (real, link) = (root.join("real"), root.join("link"));
                renameat_with(CWD, real, CWD, link, RenameFlags::EXCHANGE).unwrap();
            }
            swaps_done.store(true, std::sync::atomic::Ordering::Release);
        });
        while !swaps_done.load(std::sync::atomic::Ordering::Acquire) {
            rig.worker.book.scan_wanted = true;
            rig.pass(Duration::from_secs(1));
            rig.step();
        }
    });
    rig.settle();
    let text = rig.log.text();
    assert!(text.iter().all(|line| line == "good\n"), "{text:?}");
    // The opening alone, without the race: the folder of a file that was found is a link by now.
    let straight = Way::Straight(&root);
    fs::remove_file(root.join("link")).or_else(|_| fs::remove_file(root.join("real"))).unwrap();
    symlink(outside.path(), root.join("later")).unwrap();
    assert!(open(&root.join("later/x.log"), straight).is_err());
    // The fixed folder itself may be reached through one.
    assert!(open(&root.join("later/x.log"), Way::Straight(&root.join("later"))).is_ok());
}
