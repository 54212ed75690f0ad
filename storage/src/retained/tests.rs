//! Damaged and torn entries of `kept/`, and rejected lines.

use crate::Error;
use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
use crate::group_state::GroupChange;
use crate::ids::{GroupId, Seq};
use crate::limits_test::settled;
use crate::log::Log;
use crate::model_test::{CAPACITY, change, open_with};
use crate::retained::{DeadCause, DeadLetter};
use crate::space::Keep;

/// A dead letter is damaged while the log is open, and then the file is compacted.
#[test]
fn compaction_does_not_copy_a_damaged_entry() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = settled(&disk, Keep::Age(1_000_000));
    let group = GroupId(1);
    // Enough for a compaction.
    let letters = (0..16).flat_map(|round| (1..=20).map(move |seq| (round, Seq(seq))));
    for (attempts, seq) in letters {
        let block = log.reader().block(seq).unwrap();
        let reason = "x".repeat(DeadLetter::REASON_BYTES_MAX);
        log.bury(&DeadLetter { group, seq, attempts, time_ms: 1, cause: DeadCause::Failed, reason }, &block)
            .unwrap();
    }
    log.commit(&change(0, GroupChange::Dead { seq: Seq(20) })).unwrap();
    let path = format!("kept/{}", disk.list("kept").unwrap().pop().unwrap());
    let bytes = disk.open(&path, false).unwrap().len().unwrap();
    disk.flip(&path, bytes as usize - 9);
    let shown = log.dead_letters(group, Seq(20), 1);
    assert!(matches!(shown, Err(Error::Damaged { .. })), "{shown:?}");
    let seqs: Vec<Seq> = (1..20).map(Seq).collect();
    let compacted = log.settle_dead(group, &seqs);
    assert!(matches!(compacted, Err(Error::Damaged { .. })), "{compacted:?}");
    drop(log);
    let log = open_with(&disk, Keep::Nothing).unwrap();
    assert!(log.findings().iter().any(|finding| finding.starts_with(&path)), "{:?}", log.findings());
    assert_eq!(
        log.dead_letters(group, Seq(20), 1).unwrap()[0].attempts,
        14,
        "the letter before it is still there"
    );
}

/// Found on a device with bad sectors: an entry that no commit relied on yet could not be written, but the one after it
/// could, and this was reported as damage.
#[test]
fn an_entry_that_no_commit_relies_on_may_be_torn_and_followed_by_sound_ones() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = settled(&disk, Keep::Age(1_000_000));
    let group = GroupId(1);
    let bury = |log: &mut Log, seq| {
        let block = log.reader().block(Seq(seq)).unwrap();
        let reason = "a reason".to_owned();
        log.bury(
            &DeadLetter { group, seq: Seq(seq), attempts: 1, time_ms: 1, cause: DeadCause::Failed, reason },
            &block,
        )
        .unwrap();
    };
    bury(&mut log, 1);
    log.commit(&change(0, GroupChange::Dead { seq: Seq(1) })).unwrap();
    let path = format!("kept/{}", disk.list("kept").unwrap().pop().unwrap());
    let relied_on = disk.open(&path, false).unwrap().len().unwrap();
    bury(&mut log, 2);
    bury(&mut log, 3);
    // As the disk may do it by itself.
    disk.open(&path, true).unwrap().sync().unwrap();
    drop(log);
    disk.flip(&path, relied_on as usize + 40);
    for _ in 0..2 {
        let mut log = open_with(&disk, Keep::Age(1_000_000)).unwrap();
        assert_eq!(log.findings(), [""; 0]);
        bury(&mut log, 4);
        log.commit(&change(0, GroupChange::Dead { seq: Seq(4) })).unwrap();
    }
    let log = open_with(&disk, Keep::Age(1_000_000)).unwrap();
    assert_eq!(log.findings(), [""; 0]);
    let dead: Vec<Seq> =
        log.dead_letters(group, Seq(0), 9).unwrap().iter().map(|letter| letter.seq).collect();
    assert_eq!(dead, [Seq(1), Seq(4)]);
    drop(log);
    disk.flip(&path, relied_on as usize - 9);
    let log = open_with(&disk, Keep::Age(1_000_000)).unwrap();
    assert!(log.findings().iter().any(|finding| finding.starts_with(&path)), "{:?}", log.findings());
}

/// Consecutive rejected lines are counted; a gap, another cause and the limit end the count.
#[test]
fn rejected_lines_directly_below_another_are_counted() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = settled(&disk, Keep::Age(1_000_000));
    let group = GroupId(1);
    let bury = |log: &mut Log, seq, cause| {
        let block = log.reader().block(Seq(seq)).unwrap();
        let reason = "a reason".to_owned();
        log.bury(&DeadLetter { group, seq: Seq(seq), attempts: 1, time_ms: 1, cause, reason }, &block)
            .unwrap();
        log.commit(&change(0, GroupChange::Dead { seq: Seq(seq) })).unwrap();
    };
    let check = |log: &Log, expected: &[(u64, u32)]| {
        for (seq, count) in expected {
            assert_eq!(log.rejected_below(group, Seq(*seq), 100), *count, "below {seq}");
        }
    };
    check(&log, &[(0, 0), (1, 0), (5, 0)]);
    for seq in [1, 2, 3, 5, 6, 8] {
        bury(&mut log, seq, DeadCause::Rejected);
    }
    bury(&mut log, 7, DeadCause::Failed);
    let expected = [(1, 0), (2, 1), (3, 2), (4, 3), (5, 0), (6, 1), (7, 2), (8, 0), (9, 1), (10, 0)];
    check(&log, &expected);
    assert_eq!([0, 1, 2, 3].map(|most| log.rejected_below(group, Seq(4), most)), [0, 1, 2, 3]);
    assert_eq!(log.rejected_below(GroupId(2), Seq(4), 100), 0, "another group");
    drop(log);
    let mut log = open_with(&disk, Keep::Age(1_000_000)).unwrap();
    check(&log, &expected);
    log.commit(&change(0, GroupChange::Revive { seq: Seq(2) })).unwrap();
    log.settle_dead(group, &[Seq(2)]).unwrap();
    check(&log, &[(4, 1), (3, 0), (2, 1)]);
}
