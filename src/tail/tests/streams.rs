//! Standard input and FIFOs: real pipes, a log that answers on request, and restarts.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::support::Rig;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use spillq_storage::SourceId;

use crate::tail::known::record::SourceRecord;
use crate::tail::pipes::pipe::Pipe;
use crate::tail::pipes::streams::STREAMS_MAX;
use crate::tail::status::SourceState;
use crate::tail::worker::Step;

/// A substitute for standard input; it ends when this is dropped.
fn input(rig: &mut Rig, line_max: usize) -> File {
    let (read, write) = rustix::pipe::pipe().unwrap();
    rig.worker.streams.follow_input(read.as_fd(), line_max).unwrap();
    File::from(write)
}

fn make_fifo(rig: &Rig, name: &str) -> PathBuf {
    let path = rig.path(name);
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    path
}

/// A writer, as soon as there is a reader.
fn writer(rig: &Rig, name: &str) -> File {
    let nonblock = OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new().write(true).custom_flags(nonblock).open(rig.path(name)).unwrap()
}

/// Writes all of it, with steps of the tail whenever the pipe is full. Gives up if those change nothing.
fn pump(rig: &mut Rig, mut to: &File, mut bytes: &[u8]) -> usize {
    let all = bytes.len();
    let mut stuck = 0;
    rustix::fs::fcntl_setfl(to, OFlags::NONBLOCK).unwrap();
    while !bytes.is_empty() && stuck < 100 {
        match to.write(bytes) {
            Ok(wrote) => {
                bytes = &bytes[wrote..];
                stuck = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                rig.step();
                stuck += 1;
            }
        }
    }
    all - bytes.len()
}

fn states(rig: &Rig) -> Vec<SourceState> {
    rig.worker.snapshot().sources.iter().map(|source| source.state).collect()
}

#[test]
fn lines_of_standard_input_are_read_up_to_its_end() {
    let mut rig = Rig::new(&["*.log"]);
    rig.worker.book.once = true;
    let mut stdin = input(&mut rig, 1_000);
    rig.check(&[]);
    assert!(!rig.worker.is_done(), "it has not ended");
    stdin.write_all(b"one\r\ntw").unwrap();
    rig.check(&["one\r\n"]);
    assert_eq!(states(&rig), [SourceState::Stream]);
    stdin.write_all(b"o\n\n\0\nthr").unwrap();
    rig.check(&["one\r\n", "two\n", "\n", "\0\n"]);
    drop(stdin);
    rig.check(&["one\r\n", "two\n", "\n", "\0\n", "thr"]);
    let last = rig.log.lines.last().unwrap();
    assert!(last.flags.is_unterminated() && last.offset == 12);
    assert_eq!(states(&rig), [SourceState::Ended]);
    assert!(rig.worker.is_done() && rig.log.forgotten.contains(&last.source));
    let record = SourceRecord::decode(&rig.log.checkpoints[&last.source]).unwrap();
    assert!(record.path().to_str().unwrap().starts_with("stdin@20"), "{record:?}");
    assert_eq!((record.offset, record.finished), (15, true));
}

#[test]
fn standard_input_without_bytes_is_not_a_source() {
    let mut rig = Rig::new(&["*.log"]);
    rig.worker.book.once = true;
    drop(input(&mut rig, 1_000));
    let null = File::open("/dev/null").unwrap();
    rig.worker.streams.follow_input(null.as_fd(), 1_000).unwrap();
    rig.check(&[]);
    assert!(rig.worker.is_done() && rig.log.checkpoints.is_empty() && states(&rig).is_empty());
    let folder = File::open(rig.dir.path()).unwrap();
    let error = rig.worker.streams.follow_input(folder.as_fd(), 1_000).unwrap_err();
    assert_eq!(error.to_string(), "follow standard input: it is a folder");
}

#[test]
fn a_file_or_a_socket_can_be_standard_input() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("data/input", "x\nrest\nof it");
    let mut file = File::open(rig.path("data/input")).unwrap();
    // The process that had it before has read the first line.
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(2)).unwrap();
    rig.worker.streams.follow_input(file.as_fd(), 1_000).unwrap();
    rig.check(&["rest\n", "of it"]);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    rig.worker.streams.follow_input(theirs.as_fd(), 1_000).unwrap();
    drop(theirs);
    ours.write_all(b"by socket\nhal").unwrap();
    rig.check(&["rest\n", "of it", "by socket\n"]);
    drop(ours);
    rig.check(&["rest\n", "of it", "by socket\n", "hal"]);
    assert_eq!(states(&rig), [SourceState::Ended, SourceState::Ended]);
}

#[test]
fn a_fifo_continues_with_its_next_writer_and_a_new_line() {
    let mut rig = Rig::new(&["app.fifo", "*.log"]);
    rig.write("a.log", "file\n");
    let path = make_fifo(&rig, "app.fifo");
    rig.check(&["file\n"]);
    let mut first = writer(&rig, "app.fifo");
    first.write_all(b"one\ntw").unwrap();
    rig.check(&["file\n", "one\n"]);
    rig.worker.book.scan_wanted = false;
    rig.worker.hint(&path);
    assert!(!rig.worker.book.scan_wanted, "its writes do not make the tail look for files");
    let mut second = writer(&rig, "app.fifo");
    first.write_all(b"o\nkilled in the mid").unwrap();
    drop(first);
    rig.check(&["file\n", "one\n", "two\n"]);
    second.write_all(b"dle\n").unwrap();
    drop(second);
    rig.check(&["file\n", "one\n", "two\n", "killed in the middle\n"]);
    for _ in 0..3 {
        let mut next = writer(&rig, "app.fifo");
        next.write_all(b"half").unwrap();
    }
    rig.check(&["file\n", "one\n", "two\n", "killed in the middle\n", "halfhalfhalf"]);
    writer(&rig, "app.fifo").write_all(b"last\n").unwrap();
    rig.check(&["file\n", "one\n", "two\n", "killed in the middle\n", "halfhalfhalf", "last\n"]);
    assert_eq!(states(&rig), [SourceState::CaughtUp, SourceState::Stream]);
    // No process has it open: there is nothing to do, and nothing that would wake the tail.
    rig.worker.book.scan_wanted = false;
    assert_eq!(rig.step(), Step::Idle);
    let ms = rig.worker.idle_ms(rig.now());
    assert!(ms >= 900, "{ms} ms");
}

#[test]
fn in_once_mode_a_fifo_ends_with_the_last_of_its_writers() {
    let mut rig = Rig::with(&["a.fifo", "b.fifo"], |settings| settings.once = true);
    make_fifo(&rig, "a.fifo");
    make_fifo(&rig, "b.fifo");
    rig.check(&[]);
    assert!(!rig.worker.is_done(), "no writer has come yet");
    let (mut a, other, silent) = (writer(&rig, "a.fifo"), writer(&rig, "a.fifo"), writer(&rig, "b.fifo"));
    a.write_all(b"one\n").unwrap();
    drop(a);
    drop(silent);
    rig.check(&["one\n"]);
    assert!(!rig.worker.is_done(), "one has it open");
    drop(other);
    rig.check(&["one\n"]);
    assert!(rig.worker.is_done());
}

#[test]
fn a_full_log_lets_the_writer_wait_and_little_is_read_meanwhile() {
    let mut rig = Rig::new(&["*.log"]);
    let stdin = input(&mut rig, 1 << 20);
    let line = "x".repeat(999) + "\n";
    let all = line.repeat(16_000);
    rig.is_full = true;
    let wrote = pump(&mut rig, &stdin, all.as_bytes());
    let at_risk = rig.worker.appends.stream_bytes();
    assert!(wrote < 3 << 20, "{wrote} bytes were read from the writer");
    assert!(at_risk <= (2 << 20) + (64 << 10), "{at_risk} bytes wait for the log");
    assert!(matches!(rig.step(), Step::WaitForLog));
    assert!(rig.worker.snapshot().waits_for_log_since.is_some());
    // Files have their share of the log all the same.
    rig.write("a.log", "file\n");
    rig.settle();
    rig.is_full = false;
    let rest = pump(&mut rig, &stdin, &all.as_bytes()[wrote..]);
    drop(stdin);
    rig.settle();
    assert_eq!((wrote + rest, rig.log.lines.len()), (all.len(), 16_001));
    let ours = rig.log.lines.iter().filter(|line| line.source != SourceId(1) || line.bytes.len() > 5);
    assert!(ours.map(|line| line.bytes.len() as u64).sum::<u64>() >= all.len() as u64);
}

#[test]
fn after_a_kill_a_stream_is_a_new_source_and_the_old_one_is_forgotten() {
    let mut rig = Rig::new(&["app.fifo"]);
    make_fifo(&rig, "app.fifo");
    rig.settle();
    let mut app = writer(&rig, "app.fifo");
    for start in 0..3 {
        write!(app, "{start} stored\nhalf of {start}").unwrap();
        rig.settle();
        rig.is_full = true;
        writeln!(app, " which is lost").unwrap();
        rig.settle();
        rig.is_full = false;
        // Its writer continues: what it writes while nothing reads waits in the pipe.
        let keeps = OpenOptions::new().read(true).write(true).open(rig.path("app.fifo")).unwrap();
        rig.restart();
        rig.pass(Duration::from_secs(1));
        writeln!(app, "{start} waited in the pipe").unwrap();
        rig.settle();
        drop(keeps);
    }
    let stored = |start| [format!("{start} stored\n"), format!("{start} waited in the pipe\n")];
    assert_eq!(rig.log.text(), (0..3).flat_map(stored).collect::<Vec<_>>());
    let names: BTreeSet<PathBuf> = rig
        .log
        .checkpoints
        .values()
        .map(|record| SourceRecord::decode(record).unwrap().path().to_owned())
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(rig.log.forgotten.len(), 3, "the newest is being read");
    rig.restart();
    rig.settle();
    assert_eq!((rig.log.forgotten.len(), rig.log.lines.len()), (4, 6));
}

#[test]
fn a_stop_stores_what_is_there_and_the_incomplete_line() {
    let mut rig = Rig::new(&["app.fifo"]);
    make_fifo(&rig, "app.fifo");
    let mut stdin = input(&mut rig, 1_000);
    rig.settle();
    let mut app = writer(&rig, "app.fifo");
    stdin.write_all(b"a\nhal").unwrap();
    app.write_all(b"b\nhal").unwrap();
    rig.settle();
    stdin.write_all(b"f\nunread").unwrap();
    rig.worker.close_streams(rig.now(), Instant::now());
    rig.step();
    let mut lines = rig.log.text();
    lines.sort();
    assert_eq!(lines, ["a\n", "b\n", "hal", "half\n", "unread"]);
    assert_eq!(rig.log.forgotten.len(), 2);
}

#[test]
fn a_fifo_that_was_replaced_is_read_to_its_end_and_the_new_one_from_its_beginning() {
    let mut rig = Rig::new(&["app.fifo"]);
    make_fifo(&rig, "app.fifo");
    rig.settle();
    let mut old = writer(&rig, "app.fifo");
    old.write_all(b"old\n").unwrap();
    rig.check(&["old\n"]);
    rig.remove("app.fifo");
    make_fifo(&rig, "app.fifo");
    rig.settle();
    writer(&rig, "app.fifo").write_all(b"new\n").unwrap();
    rig.check(&["old\n", "new\n"]);
    old.write_all(b"still old").unwrap();
    drop(old);
    rig.check(&["old\n", "new\n", "still old"]);
    assert_eq!(states(&rig), [SourceState::Ended, SourceState::Stream]);
    // Another name for it, and then no name at all.
    rig.rename("app.fifo", "other");
    fs::hard_link(rig.path("other"), rig.path("app.fifo")).unwrap();
    rig.settle();
    assert_eq!(states(&rig), [SourceState::Ended, SourceState::Stream]);
    rig.remove("app.fifo");
    rig.settle();
    assert_eq!(states(&rig), [SourceState::Ended, SourceState::Ended]);
    rig.write("app.fifo", "a file by now\n");
    rig.check(&["old\n", "new\n", "still old", "a file by now\n"]);
}

#[test]
fn more_fifos_than_the_bound_are_refused_until_one_goes() {
    let names: Vec<String> = (0..=STREAMS_MAX).map(|number| format!("{number}.fifo")).collect();
    let mut rig = Rig::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for name in &names {
        make_fifo(&rig, name);
    }
    rig.settle();
    let refused = rig.worker.snapshot().refused;
    assert_eq!(refused.len(), 1);
    assert!(refused[0].1.found.contains("a FIFO more than the 64 streams"), "{refused:?}");
    rig.remove("0.fifo");
    rig.settle();
    assert!(rig.worker.snapshot().refused.is_empty());
    writer(&rig, &format!("{STREAMS_MAX}.fifo")).write_all(b"heard\n").unwrap();
    rig.check(&["heard\n"]);
}

#[test]
fn incomplete_lines_of_all_streams_are_bounded_together() {
    let line_max = 16 << 20;
    let mut rig = Rig::with(&["a.fifo", "b.fifo", "c.fifo"], |settings| {
        settings.follows[0].max_line_bytes = line_max;
    });
    let long = vec![b'x'; 7 << 20];
    let mut apps: Vec<File> = Vec::new();
    for name in ["a.fifo", "b.fifo", "c.fifo"] {
        make_fifo(&rig, name);
        rig.settle();
        let app = writer(&rig, name);
        assert_eq!(pump(&mut rig, &app, &long), long.len());
        rig.settle();
        assert!(rig.worker.streams.held() <= line_max);
        apps.push(app);
    }
    assert_eq!(rig.log.lines.len(), 1, "the longest was cut, once");
    let first = &rig.log.lines[0];
    assert_eq!(first.flags.part(), Some("first"));
    apps.iter_mut().for_each(|app| app.write_all(b"\n").unwrap());
    rig.settle();
    let parts: Vec<_> = rig.log.lines.iter().map(|line| line.flags.part()).collect();
    assert_eq!(parts.len(), 4);
    assert_eq!(parts.iter().filter(|part| part.is_none()).count(), 2, "the others are whole");
    assert_eq!(rig.log.lines.iter().map(|line| line.bytes.len()).sum::<usize>(), 3 * (long.len() + 1));
}

#[test]
fn a_pipe_that_cannot_be_opened_again_is_polled_before_it_is_read() {
    let (read, write): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
    let mut pipe = Pipe::Polled(File::from(read));
    let mut buffer = [0; 10];
    assert_eq!(pipe.read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    rustix::io::write(&write, b"abc").unwrap();
    assert_eq!(pipe.read(&mut buffer).unwrap(), 3);
    assert_eq!(pipe.read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(write);
    assert_eq!(pipe.read(&mut buffer).unwrap(), 0);
}
