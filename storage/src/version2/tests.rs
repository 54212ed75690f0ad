//! A store of format version 2, as a version 2 program wrote it, and how it is read.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::BlockBuilder;
use crate::codec::Versioned;
use crate::create::create;
use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
use crate::ids::{SeqRange, StoreId};
use crate::journal::Journal;
use crate::log::Log;
use crate::manifest::SegmentMeta;
use crate::mark::{self, Mark};
use crate::model_test::{CAPACITY, open_with};
use crate::space::Keep;
use crate::view::View;
use crate::{repair, segment};

/// In tests, old records can be written.
impl Versioned for Record {
    const NAME: &'static str = "an old record";
    const VERSION: u8 = 2;
}

#[test]
fn the_layout_of_a_record_is_what_version_2_programs_wrote() {
    // A block of 3 lines from line 300 on, 10 raw bytes stored in 250, in a new segment; source 1 at "9", its last line is
    // 302; an ack of group 2 up to line 5.
    let block = [0xfb, 0x2c, 0x01, 3, 10, 250, 1];
    let checkpoint = [1, 1, 0xfb, 0x2e, 0x01, 1, b'9'];
    let body = [&[1, 1][..], &block, &[1], &checkpoint, &[0, 0, 0, 1, 2, 2, 1, 5, 0, 0, 0]].concat();
    let record::Record::Changes(changes) = Record::decode(&body).unwrap() else { panic!("they are changes") };
    let placed = commit::Placed {
        first: Seq(300),
        lines: 3,
        raw_bytes: 10,
        bytes: 250,
        new_segment: true,
        reference: None,
    };
    let checkpoint = Checkpoint { source: SourceId(1), last_seq: Some(Seq(302)), bytes: b"9".to_vec() };
    let range = SeqRange { first: Seq(1), last: Seq(5) };
    let expected = commit::Changes {
        blocks: vec![placed],
        checkpoints: vec![checkpoint],
        groups: vec![(GroupId(2), GroupChange::Ack { range })],
        ..commit::Changes::default()
    };
    assert_eq!(changes, expected);
}

/// Lines 1 to 6 in one segment, the last two in the journal only.
fn store() -> MemoryDisk {
    let disk = MemoryDisk::new(CAPACITY);
    let mut state = create(&disk).unwrap();
    state.store = StoreId(7);
    let block = |commit: u64, first: u64, last: u64| {
        let mut builder = BlockBuilder::new();
        for seq in first..=last {
            builder.push_whole(SourceId(1), seq * 7, format!("line {seq}\n").as_bytes(), 1);
        }
        let mut bytes = Vec::new();
        let block = builder.build(1);
        block.encode(&mut bytes, StoreId(7), commit, Seq(first));
        let placed = Placed {
            first: Seq(first),
            lines: block.lines(),
            raw_bytes: block.raw_bytes() as u32,
            bytes: bytes.len() as u32,
            new_segment: false,
        };
        (bytes, placed)
    };
    let (synced, placed) = block(2, 1, 4);
    let file = disk.create(&segment::path(Seq(1))).unwrap();
    file.write_at(&synced, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(segment::FOLDER).unwrap();
    let segment =
        SegmentMeta { first: Seq(1), bytes: u64::from(placed.bytes), raw_bytes: u64::from(placed.raw_bytes) };
    let manifest = State {
        commit: 3,
        next_seq: Seq(5),
        segments: VecDeque::from([segment]),
        retained: RetainedMark { generation: 1, bytes: 0 },
        ..state
    };
    let db = Journal::prepare(&disk, 1, 0).unwrap();
    let manifest = Record::Manifest(Box::new(manifest));
    let mut journal = Journal::begin_with(&disk, db, StoreId(7), 1, 3, &manifest).unwrap();
    let (bytes, placed) = block(4, 5, 6);
    let changes = Changes {
        blocks: vec![placed],
        checkpoints: vec![Checkpoint { source: SourceId(1), last_seq: Some(Seq(6)), bytes: vec![10] }],
        forget: Vec::new(),
        add_groups: vec![("a".to_owned(), Seq(2))],
        remove_groups: Vec::new(),
        groups: Vec::new(),
        first_segment: None,
        losses: Vec::new(),
        retained: None,
    };
    journal.append(4, &Record::Changes(changes), &[&bytes]).unwrap();
    let file = disk.create(mark::PATH).unwrap();
    file.write_at(&[0; 2 * 4_096], 0).unwrap();
    for (commit, next_seq) in [(3, 5), (4, 7)] {
        let mark = Mark { store: StoreId(7), journal: 1, commit, next_seq: Seq(next_seq) };
        file.write_at(&mark.encode(2), (commit % 2) * 4_096).unwrap();
    }
    file.sync().unwrap();
    disk.remove_file("CREATING").unwrap();
    disk.sync_dir("").unwrap();
    disk
}

/// The newest format version in MARK.
fn version(disk: &MemoryDisk) -> u32 {
    let mut bytes = [0; 2 * 4_096];
    disk.open(mark::PATH, false).unwrap().read_at(&mut bytes, 0).unwrap();
    let at = |at: usize| u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
    at(0).max(at(4_096))
}

/// Checks the store after it was opened, however often that was interrupted.
#[track_caller]
fn check(log: &Log) {
    let state = log.state();
    assert_eq!((state.next_seq, state.sources[&SourceId(1)].checkpoint[0]), (Seq(7), 10));
    assert_eq!(state.groups[&GroupId(1)].lag_lines(state.next_seq), 4);
    let mut reader = log.reader();
    for seq in 1..=6 {
        let block = reader.block(Seq(seq)).unwrap();
        let line = block.lines().find(|line| line.seq == Seq(seq)).unwrap();
        assert_eq!(line.bytes, format!("line {seq}\n").as_bytes());
    }
}

#[test]
fn a_view_of_a_version_2_store_changes_nothing() {
    let disk = store();
    let view = View::on_disk(Arc::new(disk.clone()), Path::new(""), None).unwrap();
    assert_eq!(view.verify(&mut |_| {}), [""; 0]);
    assert_eq!(view.state().next_seq, Seq(7));
    assert_eq!(version(&disk), 2);
}

#[test]
fn a_crash_at_any_sync_of_the_first_opening_starts_again_from_the_version_2_journal() {
    let (mut old, mut new) = (0, 0);
    for syncs in 1.. {
        let disk = store();
        disk.crash_after(syncs);
        let opened = open_with(&disk, Keep::Nothing);
        if !disk.has_crashed() {
            check(&opened.unwrap());
            break;
        }
        drop(opened);
        for seed in 0..8 {
            let disk = disk.after_crash(&mut fastrand::Rng::with_seed(seed));
            if version(&disk) == 2 {
                old += 1
            } else {
                new += 1
            }
            let log = open_with(&disk, Keep::Nothing).unwrap_or_else(|error| panic!("sync {syncs}: {error}"));
            check(&log);
            assert_eq!(version(&disk), mark::FORMAT_VERSION);
            drop(log);
            check(&open_with(&disk, Keep::Nothing).unwrap());
        }
    }
    assert!(old > 10 && new > 10, "{old} crashes before MARK had the new version, {new} after");
}

#[test]
fn repair_reads_version_2_and_writes_the_current_version() {
    let disk = store();
    disk.flip(&segment::path(Seq(1)), 100);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let repaired = repair::on_disk(&shared, false, &mut |_, _| Ok(None)).unwrap();
    let lost: Vec<SeqRange> = repaired.losses.iter().map(|loss| loss.range).collect();
    assert_eq!(lost, [SeqRange { first: Seq(1), last: Seq(4) }]);
    assert_eq!(version(&disk), mark::FORMAT_VERSION);
    assert_eq!(open_with(&disk, Keep::Nothing).unwrap().reader().block(Seq(5)).unwrap().range().last, Seq(6));
}
