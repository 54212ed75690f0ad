//! A disk that other programs fill while the log runs, and after it was killed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::commit::Commit;
use crate::disk::memory::MemoryDisk;
use crate::group_state::GroupChange;
use crate::ids::{GroupId, Seq, SeqRange, SourceId};
use crate::journal::RESERVED_BYTES;
use crate::log::{Log, Options};
use crate::model_test::change;
use crate::retained::{DeadCause, DeadLetter};
use crate::space::DiskOptions;
use crate::view::View;
use crate::{BlockBuilder, Error};

const RESERVE: u64 = 64 << 20;
const MIN_FREE: u64 = 8 << 20;
const CAPACITY: u64 = 300 << 20;

fn open(disk: &MemoryDisk) -> crate::error::Result<Log> {
    let disk_options =
        DiskOptions { min_free_bytes: MIN_FREE, reserve_bytes: RESERVE, ..DiskOptions::default() };
    let options = Options { disk: disk_options, journal_commits: 12, ..Options::default() };
    Log::on_disk(Arc::new(disk.clone()), options, None)
}

fn line() -> Commit {
    let mut builder = BlockBuilder::new();
    builder.push_whole(SourceId(1), 0, b"line\n", 1);
    let checkpoints = vec![(SourceId(1), Bytes::from_static(b"5"))];
    Commit { blocks: vec![builder.build(1)], checkpoints, ..Commit::default() }
}

/// A log with a hundred lines.
fn filled(disk: &MemoryDisk) -> Log {
    disk.count_journals();
    let mut log = open(disk).unwrap();
    log.commit(&Commit { add_groups: vec![("a".to_owned(), Seq(0))], ..Commit::default() }).unwrap();
    for _ in 0..100 {
        log.commit(&line()).unwrap();
        log.maintain(1).unwrap();
    }
    log
}

/// Found on a real disk: other programs took the reserve that a running log had released, and the next start ended with
/// status 3 because there were not 28 MiB for a journal.
#[test]
fn a_disk_that_others_fill_prevents_neither_a_rotation_nor_opening() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = filled(&disk);
    let rotations = log.counters().rotations;
    for seq in 1..=60 {
        disk.fill();
        let range = SeqRange::one(Seq(seq));
        log.commit(&change(0, GroupChange::Ack { range })).unwrap();
        log.maintain(1).unwrap();
        assert!(matches!(log.commit(&line()), Err(Error::Full(_))), "there is no space for lines");
    }
    assert!(log.counters().rotations >= rotations + 4, "{} rotations", log.counters().rotations - rotations);
    for _ in 0..3 {
        drop(log);
        disk.fill();
        log = open(&disk).unwrap();
        assert_eq!(log.state().groups.values().next().unwrap().acks.floor(), Seq(60));
    }
    assert!(matches!(log.commit(&line()), Err(Error::Full(_))));
    disk.set_capacity(CAPACITY);
    log.maintain(1).unwrap();
    assert_eq!(
        log.disk_bytes() - log.state().segment_bytes() - 2 * RESERVED_BYTES,
        RESERVE,
        "the reserve is whole again"
    );
    log.commit(&line()).unwrap();
}

/// `status` reported 120 MiB less for a stopped store than for a running one: it counted neither journals nor the reserve.
#[test]
fn a_view_reports_the_same_disk_use_as_the_log() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = filled(&disk);
    let compare = |log: Log| {
        let open = log.disk_bytes();
        drop(log);
        let view = View::on_disk(Arc::new(disk.clone()), Path::new(""), None).unwrap();
        assert_eq!(view.disk_bytes(), open);
        open
    };
    let seq = Seq(7);
    let (group, block) = (GroupId(1), log.reader().block(seq).unwrap());
    let letter = DeadLetter {
        group,
        seq,
        cause: DeadCause::Parked,
        attempts: 0,
        time_ms: 1,
        reason: "parked".to_owned(),
    };
    log.bury(&letter, &block).unwrap();
    log.commit(&change(0, GroupChange::Dead { seq })).unwrap();
    let whole = compare(log);
    assert!(whole > 2 * RESERVED_BYTES + RESERVE, "{whole}");
    // The part of the reserve that was released does not count.
    let mut log = open(&disk).unwrap();
    disk.fill();
    log.maintain(1).unwrap();
    assert!(compare(log) < whole);
}

/// Lines do not take the space that the reserve needs: otherwise it could not be allocated again.
#[test]
fn released_space_is_not_for_lines() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = filled(&disk);
    disk.fill();
    log.maintain(1).unwrap();
    let held = log.disk_bytes() - log.state().segment_bytes() - 2 * RESERVED_BYTES;
    assert!(held < RESERVE, "some of it was released");
    // Less space is freed than the reserve needs and must stay free.
    for more in 0..=(RESERVE - held + MIN_FREE) >> 20 {
        disk.fill();
        disk.add_capacity(more << 20);
        assert!(matches!(log.commit(&line()), Err(Error::Full(_))), "{more} MiB are free");
    }
    disk.add_capacity(1 << 20);
    log.commit(&line()).unwrap();
}
