//! Commits that reference their blocks: on a full disk, after a failed sync, and with other bytes in their places.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::commit::Commit;
use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
use crate::error::{Error, Full};
use crate::ids::{Seq, SourceId};
use crate::log::{Log, Options};
use crate::space::DiskOptions;
use crate::view::View;
use crate::{BlockBuilder, repair, segment};

const CAPACITY: u64 = 1 << 40;
/// Bytes of a block that is referenced, and of one that is not.
const LARGE: usize = 1_000;
const SMALL: usize = 100;

fn open(disk: &MemoryDisk) -> Log {
    let disk_options = DiskOptions { min_free_bytes: 0, reserve_bytes: 0, ..DiskOptions::default() };
    let options = Options {
        segment_bytes: 4_000,
        journal_bytes: 4_000,
        inline_bytes: 500,
        disk: disk_options,
        ..Options::default()
    };
    Log::on_disk(Arc::new(disk.clone()), options, None).unwrap()
}

/// One line of random letters, which does not compress below three quarters.
fn append(seed: u64, bytes: usize) -> Commit {
    let mut rng = fastrand::Rng::with_seed(seed);
    let line: String = (0..bytes).map(|_| rng.alphanumeric()).chain(['\n']).collect();
    let mut builder = BlockBuilder::new();
    builder.push_whole(SourceId(1), 0, line.as_bytes(), 1);
    let checkpoints = vec![(SourceId(1), Bytes::from(seed.to_string()))];
    Commit { blocks: vec![builder.build(seed)], checkpoints, ..Commit::default() }
}

/// The checkpoint after the last commit, and the append time of each line.
fn content(log: &Log) -> (String, Vec<u64>) {
    let state = log.state();
    let mut reader = log.reader();
    let times = (1..state.next_seq.0).map(|seq| reader.block(Seq(seq)).unwrap().append_time_ms());
    (String::from_utf8(state.sources[&SourceId(1)].checkpoint.clone()).unwrap(), times.collect())
}

#[test]
fn a_disk_that_becomes_full_leaves_what_was_committed_and_nothing_staged() {
    for seed in 0..6 {
        let disk = MemoryDisk::new(CAPACITY);
        let mut log = open(&disk);
        for number in 0..=seed {
            log.commit(&append(number, LARGE)).unwrap();
        }
        let (one, other) = (append(100, LARGE), append(101, LARGE));
        disk.fill();
        // As much as lets the first be written and not the second, or a part of the first.
        disk.add_capacity(if seed % 2 == 0 { 500 } else { 1_200 });
        let staged = log.stage(&one.blocks).and_then(|_| log.stage(&other.blocks));
        let refused = match staged {
            Err(error) => error,
            Ok(_) => match log.commit(&one) {
                Err(error) => error,
                Ok(_) => log.commit(&other).unwrap_err(),
            },
        };
        assert!(matches!(refused, Error::Full(Full::NoSpace | Full::MinFree { .. })), "{refused}");
        disk.set_capacity(CAPACITY);
        if log.has_staged() {
            log.commit(&one).unwrap();
        }
        let before = content(&log);
        log.commit(&other).unwrap();
        let after = content(&log);
        assert_eq!((after.1.len(), after.1.last()), (before.1.len() + 1, Some(&101)));
        drop(log);
        let view = View::on_disk(Arc::new(disk.clone()), Path::new(""), None).unwrap();
        assert_eq!(view.verify(&mut |_| {}), [""; 0]);
        assert_eq!(content(&open(&disk)), after);
    }
}

#[test]
fn a_write_that_fails_for_want_of_space_removes_the_files_that_it_began() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = open(&disk);
    for number in 1..=4 {
        log.commit(&append(number, LARGE)).unwrap();
    }
    // The rest of this segment is too short for the next block, so both begin a new one.
    let mut many = append(5, 3_000);
    many.blocks.extend(append(6, 3_000).blocks);
    assert!(log.stage(&many.blocks).unwrap());
    assert!(disk.list(segment::FOLDER).unwrap().len() > 2);
    log.segments.writer().fail(&Error::Full(Full::NoSpace));
    assert!(log.stage(&append(7, LARGE).blocks).unwrap());
    log.commit(&many).unwrap();
    assert!(matches!(log.commit(&append(7, LARGE)).unwrap_err(), Error::Full(Full::NoSpace)));
    assert!(!log.has_staged());
    log.commit(&append(8, LARGE)).unwrap();
    assert_eq!(content(&log), ("8".to_owned(), vec![1, 2, 3, 4, 5, 6, 8]));
    drop(log);
    assert_eq!(content(&open(&disk)), ("8".to_owned(), vec![1, 2, 3, 4, 5, 6, 8]));
}

/// A rotation between the two returned that error, and the service ended.
#[test]
fn a_rotation_is_not_refused_while_the_disk_is_full_for_what_is_staged() {
    for in_commit in [false, true] {
        let disk = MemoryDisk::new(CAPACITY);
        let mut log = open(&disk);
        let mut number = 1;
        while log.journal_bytes() < 4_000 {
            log.commit(&append(number, SMALL)).unwrap();
            number += 1;
        }
        let rotations = log.counters().rotations;
        let (one, other) = (append(number, LARGE), append(number + 1, LARGE));
        assert!(log.stage(&one.blocks).unwrap());
        log.segments.writer().fail(&Error::Full(Full::NoSpace));
        assert!(log.stage(&other.blocks).unwrap());
        if !in_commit {
            while log.maintain(0).unwrap() {}
        }
        log.commit(&one).unwrap();
        while log.maintain(0).unwrap() {}
        assert!(log.counters().rotations > rotations);
        assert!(matches!(log.commit(&other), Err(Error::Full(Full::NoSpace))));
        assert!(!log.has_staged());
        log.commit(&other).unwrap();
        let expected = content(&log);
        assert_eq!(expected.1.len() as u64, number + 1);
        drop(log);
        assert_eq!(content(&open(&disk)), expected);
    }
}

/// The kernel reports a failed write-back once. If the sync in the background gets that report, a commit must not take its
/// own sync for a success.
#[test]
fn a_sync_in_the_background_that_failed_refuses_the_next_commit() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = open(&disk);
    log.commit(&append(1, SMALL)).unwrap();
    disk.fail_next_sync(&segment::path(Seq(1)));
    let mut number = 2;
    while disk.is_failing() {
        log.commit(&append(number, SMALL)).unwrap();
        log.maintain(0).unwrap();
        number += 1;
    }
    assert!(matches!(log.commit(&append(number, LARGE)), Err(Error::Poisoned(_))));
    assert!(matches!(log.commit(&append(number, SMALL)), Err(Error::Poisoned(_))), "for good");
    drop(log);
    assert_eq!(content(&open(&disk)).1.len(), number as usize - 1);
}

#[test]
fn another_sound_block_in_the_place_of_a_referenced_one_is_found_by_verify() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = open(&disk);
    log.commit(&append(1, LARGE)).unwrap();
    let (store, commit) = (log.state().store, log.state().commit);
    drop(log);
    let replace = |seed| {
        let mut bytes = Vec::new();
        append(seed, LARGE).blocks[0].encode(&mut bytes, store, commit, Seq(1));
        disk.open(&segment::path(Seq(1)), true).unwrap().write_at(&bytes, 0).unwrap();
    };
    let view = || View::on_disk(Arc::new(disk.clone()), Path::new(""), None).unwrap();
    replace(1);
    assert_eq!(view().verify(&mut |_| {}), [""; 0]);
    replace(2);
    let findings = view().verify(&mut |_| {});
    assert!(findings[0].contains("another block than the one that was written for lines 1"), "{findings:?}");
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let repaired = repair::on_disk(&shared, false, &mut |_, _| Ok(None)).unwrap();
    assert_eq!(repaired.findings, findings);
    assert_eq!(view().verify(&mut |_| {}), [""; 0]);
}

#[test]
#[should_panic(expected = "other blocks are committed than were staged")]
fn other_blocks_than_were_staged_are_a_fault_of_the_caller() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = open(&disk);
    assert!(log.stage(&append(1, LARGE).blocks).unwrap());
    drop(log.commit(&append(1, SMALL)));
}

#[test]
fn a_reference_without_its_bytes_is_damage_that_is_named() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = open(&disk);
    for (number, bytes) in [(1, SMALL), (2, LARGE), (3, SMALL), (4, LARGE)] {
        log.commit(&append(number, bytes)).unwrap();
    }
    let segment = *log.state().segments.back().unwrap();
    assert_eq!((segment.first, log.counters().large_commits), (Seq(1), 2));
    drop(log);
    let path = segment::path(segment.first);
    disk.open(&path, true).unwrap().set_len(segment.bytes - 10).unwrap();
    let view = View::on_disk(Arc::new(disk.clone()), Path::new(""), None).unwrap();
    let findings = view.verify(&mut |_| {});
    assert!(findings.len() == 1 && findings[0].ends_with("lines 4 are lost"), "{findings:?}");
    let log = open(&disk);
    let expected =
        format!("{path} is {} bytes long, {} were written and synced", segment.bytes - 10, segment.bytes);
    assert_eq!(log.findings(), [expected]);
    let mut reader = log.reader();
    let readable: Vec<bool> = (1..=4).map(|seq| reader.block(Seq(seq)).is_ok()).collect();
    assert_eq!(readable, [true, true, true, false]);
    drop((log, reader));
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let repaired = repair::on_disk(&shared, false, &mut |_, _| Ok(None)).unwrap();
    let lost: Vec<(Seq, Seq)> =
        repaired.losses.iter().map(|loss| (loss.range.first, loss.range.last)).collect();
    assert_eq!(lost, [(Seq(4), Seq(4))]);
}

#[test]
fn bytes_without_a_reference_are_cut_off_when_the_store_is_opened() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = open(&disk);
    log.commit(&append(1, LARGE)).unwrap();
    let expected = content(&log);
    let segment = *log.state().segments.back().unwrap();
    // One behind the committed block, and one in a segment of its own.
    assert!(log.stage(&append(2, LARGE).blocks).unwrap() && log.stage(&append(3, 3_000).blocks).unwrap());
    drop(log);
    let path = segment::path(segment.first);
    let len = || disk.open(&path, false).unwrap().len().unwrap();
    assert!(len() > segment.bytes && disk.list(segment::FOLDER).unwrap().len() == 2);
    let view = View::on_disk(Arc::new(disk.clone()), Path::new(""), None).unwrap();
    assert_eq!(view.verify(&mut |_| {}), [""; 0]);
    drop(view);
    let log = open(&disk);
    assert_eq!((content(&log), log.findings().len()), (expected, 0));
    assert_eq!((len(), disk.list(segment::FOLDER).unwrap().len()), (segment.bytes, 1));
}
