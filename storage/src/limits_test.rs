//! How long settled lines stay, what is removed first, and what is dropped.

use bytes::Bytes;

use crate::commit::Commit;
use crate::disk::memory::MemoryDisk;
use crate::group_state::GroupChange;
use crate::ids::{Seq, SeqRange, SourceId};
use crate::log::Log;
use crate::model_test::{CAPACITY, change, open_with};
use crate::space::Keep;
use crate::{BlockBuilder, Error};

/// A log of 40 blocks of 500 bytes, appended at 1 to 40 ms, all of it acked by its one group.
pub(crate) fn settled(disk: &MemoryDisk, keep: Keep) -> Log {
    let mut log = open_with(disk, keep).unwrap();
    log.commit(&Commit { add_groups: vec![("a".to_owned(), Seq(0))], ..Commit::default() }).unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    for time in 1..=40 {
        let mut builder = BlockBuilder::new();
        let line: String = (0..600).map(|_| rng.alphanumeric()).chain(['\n']).collect();
        builder.push_whole(SourceId(1), 0, line.as_bytes(), 1);
        let checkpoints = vec![(SourceId(1), Bytes::from_static(b"5"))];
        log.commit(&Commit { blocks: vec![builder.build(time)], checkpoints, ..Commit::default() }).unwrap();
    }
    let range = SeqRange::new(Seq(1), Seq(40)).unwrap();
    log.commit(&change(0, GroupChange::Ack { range })).unwrap();
    log
}

/// The first line after all maintenance that is due at `now_ms`.
fn first_left(log: &mut Log, now_ms: u64) -> Seq {
    while log.maintain(now_ms).unwrap() {}
    log.state().first_seq()
}

#[test]
fn settled_segments_stay_for_the_age_or_the_bytes_of_keep() {
    let disk = || MemoryDisk::new(CAPACITY);
    let newest = settled(&disk(), Keep::Nothing).state().segments.back().unwrap().first;
    assert_eq!(first_left(&mut settled(&disk(), Keep::Nothing), 41), newest);
    let mut log = settled(&disk(), Keep::Bytes(9_000));
    let first = first_left(&mut log, 41);
    let retained = log.state().segment_bytes() - log.state().segments.back().unwrap().bytes;
    assert!(
        (7_000..=9_000).contains(&retained) && first > Seq(1),
        "{retained} bytes are retained from {first} on"
    );
    let mut log = settled(&disk(), Keep::Age(100));
    assert_eq!(first_left(&mut log, 100), Seq(1), "no segment is old enough");
    let first = first_left(&mut log, 120);
    let oldest = log.reader().block(log.state().segments[1].first).unwrap().append_time_ms();
    assert!(
        oldest > 20 && first > Seq(1) && first < Seq(21),
        "{first}, the next segment begun at {oldest} ms"
    );
    assert_eq!(first_left(&mut log, 1_000), newest);
}

#[test]
fn settled_segments_are_removed_before_lines_are_refused() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = settled(&disk, Keep::Age(1_000_000));
    assert_eq!(first_left(&mut log, 41), Seq(1));
    disk.set_capacity(0);
    let mut builder = BlockBuilder::new();
    builder.push_whole(SourceId(1), 0, b"line\n", 1);
    let checkpoints = vec![(SourceId(1), Bytes::from_static(b"5"))];
    let append = Commit { blocks: vec![builder.build(41)], checkpoints, ..Commit::default() };
    assert!(matches!(log.commit(&append), Err(Error::Full(_))), "there is no free space");
    assert_eq!(log.state().segments.len(), 1);
}

#[test]
fn the_first_line_since_a_time_is_found() {
    let mut log = settled(&MemoryDisk::new(CAPACITY), Keep::Age(1_000_000));
    first_left(&mut log, 41);
    let mut reader = log.reader();
    for (time, seq) in [(0, 1), (1, 1), (2, 2), (17, 17), (40, 40), (41, 41), (u64::MAX, 41)] {
        assert_eq!(reader.first_since(time).unwrap(), Seq(seq), "{time} ms");
    }
    let mut empty = open_with(&MemoryDisk::new(CAPACITY), Keep::Nothing).unwrap().reader();
    assert_eq!(empty.first_since(5).unwrap(), Seq(1));
}

#[test]
fn a_dropped_segment_is_a_loss_of_the_groups_that_waited_for_it() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = settled(&disk, Keep::Age(1_000_000));
    log.commit(&Commit { add_groups: vec![("b".to_owned(), Seq(1))], ..Commit::default() }).unwrap();
    let range = log.drop_oldest("disk.limit was reached", |_| None).unwrap().unwrap();
    let check = |log: &Log| {
        let state = log.state();
        let listed: Vec<_> = state.losses.iter().map(|loss| (loss.range, loss.reason.as_str())).collect();
        assert_eq!(listed, [(range, "dropped for b: disk.limit was reached")]);
        let dropped = |name| state.group(name).unwrap().1.dropped_lines;
        assert_eq!((dropped("a"), dropped("b")), (0, range.lines() - 1));
        assert_eq!(state.first_seq(), range.last.next());
    };
    check(&log);
    drop(log);
    let mut log = open_with(&disk, Keep::Nothing).unwrap();
    check(&log);
    while log.drop_oldest("disk.limit was reached", |_| None).unwrap().is_some() {}
    assert_eq!(
        (log.state().segments.len(), log.state().losses.len()),
        (1, 1),
        "the newest segment stays; there is one loss"
    );
}
