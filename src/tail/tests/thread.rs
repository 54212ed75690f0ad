//! The real thread, with inotify and an owner that answers.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::support::{Log, append_to};
use spillq_storage::{Seq, SourceId};

use crate::queue::{Appended, Command, Handle};
use crate::tail::settings::{Follow, Settings};
use crate::tail::thread::TailHandle;

fn owner() -> (Handle, Arc<Mutex<Log>>, JoinHandle<()>) {
    let (handle, commands) = Handle::channel();
    let log = Arc::new(Mutex::new(Log::default()));
    let theirs = Arc::clone(&log);
    let thread = std::thread::spawn(move || {
        for command in commands {
            let Command::Append(append, reply) = command else { panic!("the tail only appends") };
            theirs.lock().unwrap().take(&append);
            let _ = reply.send(Appended { first: Seq(1), next: Seq(1) });
        }
    });
    (handle, log, thread)
}

fn settings(dir: &Path, scan_interval: Duration, once: bool) -> Settings {
    let glob = dir.join("**/*.log").to_str().unwrap().to_owned();
    Settings { follows: vec![Follow::new(vec![glob])], never: vec![], scan_interval, once, first_start: true }
}

#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn start(settings: Settings, handle: Handle) -> TailHandle {
    TailHandle::start(settings, Vec::new(), SourceId(1), handle).unwrap()
}

#[test]
fn once_reads_to_the_end_and_is_done() {
    let dir = tempfile::tempdir().unwrap();
    append_to(&dir.path().join("a/x.log"), b"one\ntwo\nincomplete");
    append_to(&dir.path().join("y.log"), b"three\n");
    let (handle, log, owner) = owner();
    let tail = start(settings(dir.path(), Duration::from_secs(1), true), handle);
    until("the end", || tail.done());
    assert_eq!(log.lock().unwrap().lines.len(), 3);
    let status = tail.status();
    assert_eq!((status.counters.lines, status.sources.len(), status.done), (3, 2, true));
    assert!(tail.stop());
    owner.join().unwrap();
}

#[test]
fn events_wake_it_long_before_the_scan() {
    let dir = tempfile::tempdir().unwrap();
    append_to(&dir.path().join("a.log"), b"one\n");
    let (handle, log, _owner) = owner();
    let tail = start(settings(dir.path(), Duration::from_secs(3_600), false), handle);
    let lines = || log.lock().unwrap().lines.len();
    until("the first line", || lines() == 1);
    append_to(&dir.path().join("a.log"), b"two\n");
    until("an appended line", || lines() == 2);
    append_to(&dir.path().join("new/folder/b.log"), b"three\n");
    until("a line in a new folder", || lines() == 3);
    fs::rename(dir.path().join("a.log"), dir.path().join("a.old")).unwrap();
    append_to(&dir.path().join("a.log"), b"four\n");
    until("a line after a rotation", || lines() == 4);
    let status = tail.status();
    assert_eq!(status.counters.lines, 4);
    assert!(tail.stop());
}

/// A file in a folder that was made between a scan of its parent and the watch on that was found by the next scan: the tail
/// knew that it had to look again, and slept.
#[test]
fn a_file_in_a_folder_that_is_made_while_its_parent_is_scanned_for_the_first_time_is_found_at_once() {
    const FOLDERS: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let (handle, log, _owner) = owner();
    let tail = start(settings(dir.path(), Duration::from_secs(3_600), false), handle);
    for number in 1..=FOLDERS {
        append_to(&dir.path().join(format!("{number}/below/x.log")), format!("{number}\n").as_bytes());
        until("the line", || log.lock().unwrap().lines.len() == number);
    }
    assert!(tail.stop());
}

#[test]
fn it_does_not_wake_itself() {
    let dir = tempfile::tempdir().unwrap();
    append_to(&dir.path().join("a.log"), b"one\n");
    let (handle, log, _owner) = owner();
    let tail = start(settings(dir.path(), Duration::from_millis(10), false), handle);
    until("the line", || log.lock().unwrap().lines.len() == 1);
    let before = tail.status().counters.scans;
    until("some scans", || tail.status().counters.scans > before + 10);
    assert_eq!(tail.status().counters.appends, 1);
    assert!(tail.stop());
}

#[test]
fn a_full_log_is_shown_and_does_not_hold_up_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    append_to(&dir.path().join("a.log"), b"one\n");
    let (handle, commands) = Handle::channel();
    let tail = start(settings(dir.path(), Duration::from_millis(20), false), handle);
    until("an append that waits", || tail.status().waits_for_log_since.is_some());
    let began = Instant::now();
    assert!(tail.stop());
    assert!(began.elapsed() < Duration::from_secs(10));
    drop(commands);
}

#[test]
fn a_closed_log_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    append_to(&dir.path().join("a.log"), b"one\n");
    let (handle, commands) = Handle::channel();
    drop(commands);
    let tail = start(settings(dir.path(), Duration::from_millis(20), false), handle);
    until("the end", || tail.has_ended());
    assert!(tail.status().closed);
    assert!(tail.stop());
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut bad = settings(dir.path(), Duration::from_secs(1), false);
    bad.follows[0].max_line_bytes = 0;
    let (handle, _commands) = Handle::channel();
    let error = TailHandle::start(bad, Vec::new(), SourceId(1), handle).unwrap_err();
    assert_eq!(error.to_string(), "max_line_bytes is 0 B, at least 1 B and at most 16.0 MiB");
}
