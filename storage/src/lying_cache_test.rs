//! A failed sync: the bytes are lost, but the page cache still shows them, and the next sync succeeds. The log is opened
//! again with that cache, and then the power fails, at any sync.

use bytes::Bytes;

use crate::BlockBuilder;
use crate::commit::Commit;
use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
use crate::error::Result;
use crate::group_state::GroupChange;
use crate::ids::{Seq, SeqRange, SourceId};
use crate::log::Log;
use crate::model_test::{CAPACITY, change, open_with};
use crate::space::Keep;

/// Lines of a commit that is small enough for the journal, and of one that references its block.
const INLINE: u64 = 3;
const REFERENCED: u64 = 6;
/// Commits until the file's sync has failed, at most.
const COMMITS_MAX: u64 = 100;

/// Opens the log, for the first time with a group.
fn open(disk: &MemoryDisk) -> Result<Log> {
    let mut log = open_with(disk, Keep::Nothing)?;
    if log.state().groups.is_empty() {
        log.commit(&Commit { add_groups: vec![("a".to_owned(), Seq(0))], ..Commit::default() })?;
    }
    Ok(log)
}

/// Commits lines, acks all of them but the first of the log, and does the maintenance. `promised` is the seq after the last
/// line whose commit returned.
fn step(log: &mut Log, lines: u64, promised: &mut Seq) -> Result<()> {
    let next = log.state().next_seq;
    let mut builder = BlockBuilder::new();
    let mut rng = fastrand::Rng::with_seed(next.0);
    for number in 0..lines {
        let line: String = (0..30).map(|_| rng.alphanumeric()).chain(['\n']).collect();
        builder.push_whole(SourceId(1), (next.0 + number) * 31, line.as_bytes(), 1);
    }
    let checkpoints = vec![(SourceId(1), Bytes::new())];
    log.commit(&Commit { blocks: vec![builder.build(1)], checkpoints, ..Commit::default() })?;
    *promised = log.state().next_seq;
    if let Some(range) = SeqRange::new(next.max(Seq(2)), promised.prev()) {
        log.commit(&change(0, GroupChange::Ack { range }))?;
    }
    while log.maintain(1)? {}
    Ok(())
}

/// The sync of the file that `path` names fails. Power cuts afterwards must not lose a line.
fn holds(lines: u64, path: impl Fn(&Log, &MemoryDisk) -> String) {
    let disk = MemoryDisk::new(CAPACITY);
    let mut promised = Seq(1);
    let mut log = open(&disk).unwrap();
    for _ in 0..3 {
        step(&mut log, lines, &mut promised).unwrap();
    }
    disk.fail_next_sync(&path(&log, &disk));
    assert_eq!(log.counters().large_commits > 0, lines == REFERENCED);
    let failed = (0..COMMITS_MAX).any(|_| step(&mut log, lines, &mut promised).is_err());
    assert!(failed && !disk.is_failing(), "the sync should have failed");
    drop(log);
    for syncs in 1.. {
        let (disk, mut promised) = (disk.fork(), promised);
        disk.crash_after(syncs);
        let continued =
            open(&disk).and_then(|mut log| (0..30).try_for_each(|_| step(&mut log, lines, &mut promised)));
        for seed in 0..4 {
            let after = disk.after_crash(&mut fastrand::Rng::with_seed(seed));
            let log = open(&after).unwrap_or_else(|error| panic!("crash at sync {syncs}: {error}"));
            // After any crash, sled may show less.
            let finding = log.findings().iter().find(|finding| !finding.contains("sled's copy"));
            assert!(finding.is_none(), "crash at sync {syncs}: {finding:?}");
            assert!(log.state().next_seq >= promised, "crash at sync {syncs}");
            let mut reader = log.reader();
            for seq in std::iter::once(1).chain(log.state().first_seq().0..promised.0) {
                let read = reader.block(Seq(seq));
                assert!(read.is_ok(), "crash at sync {syncs}, line {seq}: {:?}", read.err());
            }
        }
        if !disk.has_crashed() {
            continued.unwrap();
            break;
        }
    }
}

#[test]
fn lines_that_a_failed_sync_of_a_segment_lost_are_written_again() {
    for lines in [INLINE, REFERENCED] {
        holds(lines, |log, _| crate::segment::path(log.state().segments.back().unwrap().first));
    }
}

#[test]
fn the_old_journal_is_not_removed_when_a_failed_sync_lost_mark() {
    holds(INLINE, |_, _| crate::mark::PATH.to_owned());
}

#[test]
fn retained_lines_that_a_failed_sync_lost_are_copied_again() {
    holds(INLINE, |_, disk| format!("kept/{}", disk.list("kept").unwrap().pop().unwrap()));
}
