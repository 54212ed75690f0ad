//! More files than are followed at once. With 500,000 of them 490,000 warnings were printed, each scan opened all of
//! them, and they took 100 MiB.

use std::fs::{self, OpenOptions};
use std::time::{Duration, SystemTime};

use super::support::{REST, Rig, append_to};

/// As many as are followed at once.
const MAX: usize = 20;

/// `files` files, the later the newer, with places for [`MAX`].
fn many(files: u32) -> Rig {
    let mut rig = Rig::new(&["*.log", "*/*.log"]);
    rig.follow_at_most(MAX);
    for nth in 0..files {
        add(&rig, nth);
    }
    rig
}

fn add(rig: &Rig, nth: u32) {
    rig.write(&name(nth), format!("{nth}\n"));
    modified(rig, nth, u64::from(nth));
}

/// Modified `minute` minutes after the first, all of them in the past.
fn modified(rig: &Rig, nth: u32, minute: u64) {
    let time = SystemTime::now() - Duration::from_secs(24 * 3_600) + Duration::from_secs(minute * 60);
    OpenOptions::new().write(true).open(rig.path(&name(nth))).unwrap().set_modified(time).unwrap();
}

fn name(nth: u32) -> String {
    format!("{nth:03}.log")
}

/// The lines in the log, as numbers.
fn numbers(rig: &Rig) -> Vec<u32> {
    let mut numbers: Vec<u32> = rig.log.text().iter().map(|line| line.trim().parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[track_caller]
fn left_out(rig: &mut Rig, files: usize) {
    rig.settle();
    let left = rig.worker.snapshot().left_out;
    assert_eq!(left.files, files, "{left:#?}");
    assert_eq!((left.named.is_empty(), left.limit), (files == 0, MAX));
    assert!(left.named.len() <= 20 && left.named.len() <= files, "{left:#?}");
}

#[test]
fn those_modified_last_are_followed_and_the_others_counted_in_one_message() {
    let mut rig = many(300);
    left_out(&mut rig, 280);
    assert_eq!(numbers(&rig), Vec::from_iter(280..300));
    assert_eq!(rig.worker.book.counters.errors, 1, "one message");
    rig.pass(Duration::from_secs(600));
    left_out(&mut rig, 280);
    assert_eq!(rig.worker.book.counters.errors, 1, "nothing has changed");
    // After a restart the same ones are followed, although others are newer by now.
    for nth in 0..300 {
        modified(&rig, nth, 600 - u64::from(nth));
    }
    rig.restart();
    left_out(&mut rig, 280);
    assert_eq!(numbers(&rig), Vec::from_iter(280..300));
    for nth in 280..300 {
        rig.write(&name(nth), "999\n");
    }
    rig.settle();
    assert_eq!(rig.log.lines.len(), 40);
}

#[test]
fn a_place_that_becomes_free_goes_to_the_newest_of_those_that_wait() {
    let mut rig = many(50);
    left_out(&mut rig, 30);
    for nth in [30, 40, 41] {
        rig.remove(&name(nth));
    }
    left_out(&mut rig, 30);
    rig.pass(Duration::from_secs(120));
    left_out(&mut rig, 27);
    assert_eq!(numbers(&rig), Vec::from_iter(27..50));
    // All others in turn, each line once.
    for round in 0..20 {
        let followed: Vec<_> =
            rig.worker.book.sources().iter().map(|source| source.path().to_path_buf()).collect();
        for path in followed {
            let _ = fs::remove_file(path);
        }
        rig.settle();
        rig.pass(Duration::from_secs(120));
        rig.settle();
        if rig.worker.book.sources().len() == 0 {
            assert!(round > 0);
            break;
        }
    }
    left_out(&mut rig, 0);
    assert_eq!(numbers(&rig), Vec::from_iter(0..50));
}

#[test]
fn files_that_two_globs_and_hard_links_name_count_once() {
    let mut rig = many(60);
    let again = rig.settings.follows[0].clone();
    rig.settings.follows.push(again);
    rig.restart();
    for nth in 0..10 {
        fs::hard_link(rig.path(&name(nth)), rig.path(&format!("link-{nth}.log"))).unwrap();
    }
    left_out(&mut rig, 40);
    assert_eq!(numbers(&rig), Vec::from_iter(40..60));
    // A followed file with more links than are looked at is one file too.
    for nth in 0..100 {
        fs::hard_link(rig.path(&name(59)), rig.path(&format!("more-{nth}.log"))).unwrap();
    }
    left_out(&mut rig, 40);
    rig.remove(&name(59));
    append_to(&rig.path("more-7.log"), b"60\n");
    left_out(&mut rig, 40);
    assert_eq!(numbers(&rig), Vec::from_iter(40..61));
}

#[test]
fn files_in_many_folders_are_chosen_from_all_of_them() {
    let mut rig = Rig::new(&["*/*.log"]);
    rig.follow_at_most(MAX);
    for nth in 0..100 {
        rig.write(&format!("{}/{nth}.log", nth % 10), format!("{nth}\n"));
        let path = rig.path(&format!("{}/{nth}.log", nth % 10));
        let time = SystemTime::now() - Duration::from_secs(10_000 - nth);
        OpenOptions::new().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
    left_out(&mut rig, 80);
    assert_eq!(numbers(&rig), Vec::from_iter(80..100));
}

/// A file that waits is opened once, not by each scan, however many there are.
#[test]
fn a_file_that_waits_is_looked_at_once_until_it_changes() {
    let mut rig = many(70);
    left_out(&mut rig, 50);
    for _ in 0..5 {
        rig.settle();
    }
    rig.pass(REST);
    left_out(&mut rig, 50);
    rig.worker.scan(rig.now());
    assert_eq!(rig.worker.scans.looked_at, 0);
    rig.write(&name(3), "1003\n");
    rig.worker.scan(rig.now());
    assert_eq!(rig.worker.scans.looked_at, 1, "it may be a copy by now");
    left_out(&mut rig, 50);
}

/// Whether all lines of followed files are read, however they are rotated while others wait for their place.
#[test]
fn followed_files_are_rotated_copied_and_truncated_as_ever_while_others_wait() {
    let mut rig = many(100);
    left_out(&mut rig, 80);
    // Renamed: known by its inode, although the table is full.
    rig.write(&name(99), "1001\n");
    rig.rename(&name(99), "099.log.1.log");
    rig.write("099.log.1.log", "1002\n");
    rig.settle();
    // Copied and truncated: the copy holds lines that were not read yet.
    rig.is_full = true;
    let before: String = (2_000..2_200).map(|nth| format!("{nth}\n")).collect();
    rig.write(&name(98), &before);
    rig.copy(&name(98), "098.copy.log");
    rig.truncate(&name(98), 0);
    rig.write(&name(98), "3001\n");
    rig.is_full = false;
    rig.settle();
    // Truncated without a copy: what is there now keeps the place, although 80 files wait.
    rig.truncate(&name(97), 0);
    rig.write(&name(97), "4001\n4002\n");
    modified(&rig, 97, 0);
    rig.settle();
    let numbers = numbers(&rig);
    let expected: Vec<u32> = (80..100).chain([1001, 1002]).chain(2_000..2_200).chain([4001, 4002]).collect();
    let missing: Vec<_> = expected.iter().filter(|nth| !numbers.contains(nth)).collect();
    assert!(missing.is_empty(), "{missing:?} of {numbers:?}");
    let mut once = numbers.clone();
    once.dedup();
    assert_eq!(once, numbers);
    assert_eq!(rig.worker.book.counters.destroyed_unread_bytes, 0);
}

/// The copy was there, and looked at, long before its file was truncated with lines unread.
#[test]
fn a_copy_among_those_that_wait_is_found_when_its_file_is_truncated() {
    let mut rig = many(100);
    left_out(&mut rig, 80);
    rig.is_full = true;
    let big: String = (5_000..6_000).map(|nth| format!("{nth}\n")).collect();
    for _ in 0..4 {
        rig.write(&name(99), &big);
    }
    rig.settle();
    rig.copy(&name(99), "older.log");
    let time = SystemTime::now() - Duration::from_secs(7 * 24 * 3_600);
    OpenOptions::new().write(true).open(rig.path("older.log")).unwrap().set_modified(time).unwrap();
    rig.settle();
    rig.pass(REST);
    left_out(&mut rig, 81);
    rig.write(&name(99), "7000\n");
    fs::copy(rig.path(&name(99)), rig.path("older.log")).unwrap();
    rig.settle();
    rig.pass(REST);
    rig.settle();
    rig.truncate(&name(99), 0);
    rig.settle();
    rig.is_full = false;
    rig.settle();
    assert!(numbers(&rig).contains(&7_000), "{:#?}", rig.worker.snapshot());
}

#[test]
fn once_reads_those_that_are_followed_and_ends() {
    let mut rig = Rig::with(&["*.log"], |settings| settings.once = true);
    rig.follow_at_most(MAX);
    for nth in 0..50 {
        add(&rig, nth);
    }
    left_out(&mut rig, 30);
    assert!(rig.worker.is_done());
    assert_eq!(numbers(&rig), Vec::from_iter(30..50));
}

/// With `rotate_wait` of a minute no run was long enough to free a place, so that new files were never read again.
#[test]
fn once_waits_for_the_places_of_deleted_files() {
    let mut rig = Rig::with(&["*.log"], |settings| settings.once = true);
    rig.follow_at_most(MAX);
    for nth in 0..50 {
        add(&rig, nth);
    }
    left_out(&mut rig, 30);
    for is_inactive in [false, true] {
        let before = rig.log.lines.len();
        let followed: Vec<_> =
            rig.worker.book.sources().iter().map(|source| source.path().to_path_buf()).take(5).collect();
        followed.iter().for_each(|path| fs::remove_file(path).unwrap());
        if is_inactive {
            let names = followed.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
            rig.settings.follows[0].exclude = names.collect();
        }
        rig.restart();
        rig.settle();
        assert_eq!(rig.worker.is_done(), is_inactive, "a file that no section matches is not waited for");
        rig.pass(Duration::from_secs(120));
        left_out(&mut rig, if is_inactive { 20 } else { 25 });
        assert!(rig.worker.is_done());
        let mut read = numbers(&rig);
        read.dedup();
        assert_eq!((read.len(), rig.log.lines.len()), (before + 5, before + 5), "{read:?}");
    }
}

#[test]
fn a_place_that_is_kept_for_a_file_that_no_section_matches_is_counted() {
    let mut rig = many(30);
    left_out(&mut rig, 10);
    assert_eq!(rig.worker.snapshot().left_out.inactive, 0);
    rig.settings.follows[0].exclude = vec!["02*.log".to_owned()];
    rig.restart();
    left_out(&mut rig, 10);
    assert_eq!(rig.worker.snapshot().left_out.inactive, 10);
}

#[test]
fn empty_files_take_no_place_and_are_not_counted() {
    let mut rig = many(0);
    for nth in 0..100 {
        rig.write(&name(nth), "");
    }
    left_out(&mut rig, 0);
    assert_eq!(rig.worker.snapshot().matched_files, 100, "but they are there");
    for nth in 0..30 {
        rig.write(&name(nth), format!("{nth}\n"));
    }
    left_out(&mut rig, 10);
    assert_eq!(rig.worker.snapshot().matched_files, 100);
    assert_eq!(rig.log.lines.len(), MAX);
}
