//! A store of format version 1, byte for byte as a version 1 program wrote it, and how it is read.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::BlockBuilder;
use crate::backup::Snapshot;
use crate::codec::Versioned;
use crate::create::create;
use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
use crate::journal::Journal;
use crate::log::Log;
use crate::mark::{self, Mark};
use crate::model_test::{CAPACITY, change, open_with};
use crate::space::Keep;
use crate::view::View;
use crate::{Loss as NewLoss, repair, segment, spare};

/// In tests, old records can be written.
macro_rules! written_as_version_1 {
    ($($old:ty),*) => {$(
        impl Versioned for $old {
            const NAME: &'static str = "an old record";
            const VERSION: u8 = 1;
        }
    )*};
}
written_as_version_1!(Record, State, DeadLetter);

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::new(Seq(first), Seq(last)).unwrap()
}

fn encoded(record: &(impl Versioned + Encode)) -> Vec<u8> {
    codec::encode(record).unwrap()
}

fn group() -> GroupState {
    let mut acks = AckSet::with_floor(Seq(1));
    acks.insert(range(4, 4));
    GroupState {
        name: "a".to_owned(),
        paused: false,
        acks,
        revived: BTreeSet::new(),
        leases: vec![Leased { range: range(2, 2), alone: true }],
        suspects: vec![range(6, 6)],
        attempts: BTreeMap::from([(Seq(2), 3), (Seq(6), 1)]),
        acked_lines: 2,
        dead_lines: 1,
        skipped_lines: 5,
        dropped_lines: 6,
    }
}

fn state() -> State {
    State {
        store: StoreId(7),
        journal: 1,
        commit: 3,
        run: 4,
        next_seq: Seq(1),
        next_source: SourceId(2),
        next_group: GroupId(2),
        segments: VecDeque::new(),
        sources: BTreeMap::from([(
            SourceId(1),
            SourceState { checkpoint: vec![9], last_seq: Seq(0), forgotten: false },
        )]),
        groups: BTreeMap::from([(GroupId(1), group())]),
        losses: VecDeque::from([
            Loss { range: range(1, 2), reason: "dropped for a: max_lag".to_owned() },
            Loss { range: range(3, 4), reason: "checksum".to_owned() },
        ]),
        appended_bytes: 12,
        retained: RetainedMark { generation: 1, bytes: 0 },
    }
}

fn letter(seq: u64) -> DeadLetter {
    DeadLetter { group: GroupId(1), seq: Seq(seq), attempts: 8, time_ms: 5, reason: "poison".to_owned() }
}

#[test]
fn the_layout_of_a_record_is_what_version_1_programs_wrote() {
    // Group 1, line 300, 8 attempts, at 5 ms, "bad": its bytes in kept/.
    let body = [1, 0xfb, 0x2c, 0x01, 8, 5, 3, b'b', b'a', b'd'];
    let read = DeadLetter::decode(&body).unwrap();
    let expected = retained::DeadLetter {
        group: GroupId(1),
        seq: Seq(300),
        attempts: 8,
        time_ms: 5,
        cause: DeadCause::Unknown,
        reason: "bad".to_owned(),
    };
    assert_eq!(read, expected);
    // Changes with one lease of group 2, of line 9 by itself, and nothing else.
    let body = [1, 0, 0, 0, 0, 0, 1, 2, 0, 9, 9, 1, 0, 0, 0];
    let record::Record::Changes(changes) = Record::decode(&body).unwrap() else { panic!("they are changes") };
    let lease = group_state::GroupChange::Lease { range: range(9, 9) };
    let expected = commit::Changes { groups: vec![(GroupId(2), lease)], ..commit::Changes::default() };
    assert_eq!(changes, expected);
}

#[test]
fn attempts_become_failures_without_the_one_that_a_lease_in_flight_counted() {
    let group = group_state::GroupState::from(group());
    let failures = |times| Failures { times, for_ms: 0 };
    assert_eq!(group.failures, BTreeMap::from([(Seq(2), failures(2)), (Seq(6), failures(1))]));
    assert_eq!(group.leases, [range(2, 2)]);
    assert!(group.deaths.is_empty());
    assert_eq!((group.acked_lines, group.dead_lines), (2, 1));
    assert_eq!((group.skipped_lines, group.dropped_lines), (5, 6));
    assert_eq!((group.acks.floor(), group.acks.contains(Seq(4))), (Seq(1), true));

    let first_attempt = GroupState {
        leases: vec![Leased { range: range(2, 2), alone: true }, Leased { range: range(6, 6), alone: false }],
        attempts: BTreeMap::from([(Seq(2), 1), (Seq(6), 1)]),
        ..self::group()
    };
    let mut group = group_state::GroupState::from(first_attempt);
    assert_eq!(group.failures, BTreeMap::from([(Seq(6), failures(1))]), "none is left at 0");
    group.begin_run();
    assert_eq!(
        (group.attempts(Seq(2)), group.attempts(Seq(6))),
        (0, 1),
        "which of the two killed the process is not known"
    );

    let alone = GroupState {
        leases: vec![Leased { range: range(2, 2), alone: true }],
        attempts: BTreeMap::from([(Seq(2), 1)]),
        ..self::group()
    };
    let mut group = group_state::GroupState::from(alone);
    group.begin_run();
    assert_eq!((group.attempts(Seq(2)), group.deaths.get(&Seq(2))), (1, Some(&1)), "a death instead");
}

#[test]
fn the_kind_of_a_loss_follows_from_its_reason() {
    let losses = manifest::State::from(state()).losses;
    let dropped = NewLoss::dropped(range(1, 2), &["a"], "max_lag");
    assert_eq!(losses, [dropped, NewLoss::unreadable(range(3, 4), "checksum".to_owned())]);
}

#[test]
fn changes_keep_their_meaning() {
    use group_state::GroupChange as New;
    let lines = range(5, 9);
    let converted = [
        (GroupChange::Lease { range: lines, alone: true }, New::Lease { range: lines }),
        (
            GroupChange::Return { range: lines, untried: true },
            New::Return { range: lines, failed_for_ms: None },
        ),
        (
            GroupChange::Return { range: lines, untried: false },
            New::Return { range: lines, failed_for_ms: Some(0) },
        ),
        (GroupChange::Ack { range: lines }, New::Ack { range: lines }),
        (GroupChange::Dead { seq: Seq(5) }, New::Dead { seq: Seq(5) }),
        (GroupChange::Revive { seq: Seq(5) }, New::Revive { seq: Seq(5) }),
        (GroupChange::Pause(true), New::Pause(true)),
        (GroupChange::Skip { range: lines, dropped: true }, New::Skip { range: lines, dropped: true }),
        (GroupChange::Again { from: Seq(5) }, New::Again { from: Seq(5) }),
    ];
    for (old, new) in converted {
        let old = Record::Changes(Changes {
            blocks: Vec::new(),
            checkpoints: Vec::new(),
            forget: vec![SourceId(3)],
            add_groups: vec![("b".to_owned(), Seq(2))],
            remove_groups: vec![GroupId(4)],
            groups: vec![(GroupId(1), old)],
            first_segment: Some(Seq(6)),
            losses: vec![Loss { range: lines, reason: "dropped for b: max_lag".to_owned() }],
            retained: Some(RetainedMark { generation: 2, bytes: 3 }),
        });
        let expected = record::Record::Changes(commit::Changes {
            blocks: Vec::new(),
            checkpoints: Vec::new(),
            forget: vec![SourceId(3)],
            add_groups: vec![("b".to_owned(), Seq(2))],
            remove_groups: vec![GroupId(4)],
            groups: vec![(GroupId(1), new)],
            first_segment: Some(Seq(6)),
            losses: vec![NewLoss::dropped(lines, &["b"], "max_lag")],
            retained: Some(RetainedMark { generation: 2, bytes: 3 }),
        });
        assert_eq!(codec::decode::<record::Record>(&encoded(&old)).unwrap(), (expected, &[][..]));
    }
}

#[test]
fn records_of_an_unknown_version_are_refused_by_the_name_of_their_type() {
    let with_version = |mut bytes: Vec<u8>, version| {
        bytes[0] = version;
        bytes
    };
    let state = manifest::State::from(state());
    let record = encoded(&record::Record::Changes(commit::Changes::default()));
    let (letter, end) = (encoded(&retained::DeadLetter::from(letter(2))), encoded(&(GroupId(1), Seq(2))));
    for (bytes, version) in [(&record, 3), (&encoded(&state), 2), (&letter, 2), (&end, 1)] {
        assert_eq!(bytes[0], version, "the version that is written");
    }
    let refused = codec::decode::<record::Record>(&with_version(record.clone(), 4)).unwrap_err();
    assert_eq!(refused, "a journal record has record version 4, this program reads versions 1 to 3");
    for version in [0, 3] {
        let reads = format!("has record version {version}, this program reads versions 1 to 2");
        let refused = codec::decode::<manifest::State>(&with_version(encoded(&state), version)).unwrap_err();
        assert_eq!(refused, format!("a manifest {reads}"));
        let refused =
            codec::decode::<retained::DeadLetter>(&with_version(letter.clone(), version)).unwrap_err();
        assert_eq!(refused, format!("a dead letter {reads}"));
    }
    let refused = codec::decode::<(GroupId, Seq)>(&with_version(end, 2)).unwrap_err();
    assert_eq!(refused, "the end of a dead letter has record version 2, this program reads version 1");
}

/// Lines 1 to 6 in one segment, the last two in the journal only. Group 1 has acked lines 1 and 4; lines 3 and 5 are dead
/// letters; line 2 is leased by itself for the third time.
fn store() -> MemoryDisk {
    let disk = MemoryDisk::new(CAPACITY);
    create(&disk).unwrap();
    let store = StoreId(7);
    let block = |commit: u64, first: u64, last: u64| {
        let mut builder = BlockBuilder::new();
        for seq in first..=last {
            builder.push_whole(SourceId(1), seq * 7, format!("line {seq}\n").as_bytes(), 1);
        }
        let mut bytes = Vec::new();
        let block = builder.build(1);
        block.encode(&mut bytes, store, commit, Seq(first));
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

    let retained_path = retained::path(1);
    let file = disk.open(&retained_path, true).unwrap();
    let entries = [
        retained::frame(retained::Kind::Dead, &encoded(&letter(3))),
        retained::frame(retained::Kind::Dead, &encoded(&letter(5))),
    ];
    file.write_at(&entries.concat(), 0).unwrap();
    file.sync().unwrap();

    let manifest = State {
        store,
        next_seq: Seq(5),
        segments: VecDeque::from([SegmentMeta {
            first: Seq(1),
            bytes: u64::from(placed.bytes),
            raw_bytes: u64::from(placed.raw_bytes),
        }]),
        retained: RetainedMark { generation: 1, bytes: entries.concat().len() as u64 },
        ..state()
    };
    disk.create("SPARE").unwrap().write_at(&encoded(&manifest), 0).unwrap();
    let db = Journal::prepare(&disk, 1, 0).unwrap();
    let manifest = Record::Manifest(Box::new(manifest));
    let mut journal = Journal::begin_with(&disk, db, store, 1, 3, &manifest).unwrap();
    let (bytes, placed) = block(4, 5, 6);
    let changes = |groups| Changes {
        blocks: Vec::new(),
        checkpoints: Vec::new(),
        forget: Vec::new(),
        add_groups: Vec::new(),
        remove_groups: Vec::new(),
        groups,
        first_segment: None,
        losses: Vec::new(),
        retained: None,
    };
    let appended = Changes {
        blocks: vec![placed],
        checkpoints: vec![Checkpoint { source: SourceId(1), last_seq: Some(Seq(6)), bytes: vec![10] }],
        ..changes(Vec::new())
    };
    journal.append(4, &Record::Changes(appended), &[&bytes]).unwrap();
    let id = GroupId(1);
    let groups = vec![
        (id, GroupChange::Return { range: range(2, 2), untried: false }),
        (id, GroupChange::Dead { seq: Seq(3) }),
        (id, GroupChange::Dead { seq: Seq(5) }),
        (id, GroupChange::Lease { range: range(2, 2), alone: true }),
    ];
    journal.append(5, &Record::Changes(changes(groups)), &[]).unwrap();

    let file = disk.create(mark::PATH).unwrap();
    file.write_at(&[0; 2 * 4_096], 0).unwrap();
    for (commit, next_seq) in [(4, 7), (5, 7)] {
        let mark = Mark { store, journal: 1, commit, next_seq: Seq(next_seq) };
        file.write_at(&mark.encode(1), (commit % 2) * 4_096).unwrap();
    }
    file.sync().unwrap();
    disk.remove_file("CREATING").unwrap();
    disk.sync_dir("").unwrap();
    disk
}

fn mark_versions(disk: &MemoryDisk) -> [u32; 2] {
    let mut bytes = [0; 2 * 4_096];
    disk.open(mark::PATH, false).unwrap().read_at(&mut bytes, 0).unwrap();
    [0, 4_096].map(|at| u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()))
}

fn letters(letters: &[retained::DeadLetter]) -> Vec<(u64, DeadCause)> {
    letters.iter().map(|letter| (letter.seq.0, letter.cause)).collect()
}

/// Checks the store after it was opened, however often that was interrupted.
#[track_caller]
fn check(log: &Log) {
    let id = GroupId(1);
    let group = &log.state().groups[&id];
    assert_eq!(group.failures[&Seq(2)], Failures { times: 3, for_ms: 0 });
    assert_eq!(group.deaths, BTreeMap::from([(Seq(2), 1)]));
    assert_eq!(group.suspects, [range(2, 2), range(6, 6)]);
    assert_eq!((group.acks.floor(), group.lag_lines(log.state().next_seq)), (Seq(1), 2));
    assert_eq!((log.state().next_seq, log.state().sources[&SourceId(1)].checkpoint[0]), (Seq(7), 10));
    assert_eq!(log.state().losses.iter().map(NewLoss::is_dropped).collect::<Vec<_>>(), [true, false]);
    let expected = [(3, DeadCause::Unknown), (5, DeadCause::Unknown)];
    assert_eq!(letters(&log.dead_letters(id, Seq(0), 9).unwrap()), expected);
    let mut reader = log.reader();
    for seq in 1..=6 {
        let block = reader.block(Seq(seq)).unwrap();
        let line = block.lines().find(|line| line.seq == Seq(seq)).unwrap();
        assert_eq!(line.bytes, format!("line {seq}\n").as_bytes());
    }
}

#[test]
fn a_view_of_a_version_1_store_changes_nothing() {
    let disk = store();
    let view = View::on_disk(Arc::new(disk.clone()), Path::new(""), None).unwrap();
    assert_eq!(view.verify(&mut |_| {}), [""; 0]);
    let group = &view.state().groups[&GroupId(1)];
    assert_eq!(group.failures[&Seq(2)].times, 3, "two before, one more failed, and one is in flight");
    assert_eq!((group.leases.len(), group.deaths.len()), (1, 0));
    assert_eq!(letters(&view.dead_letters(GroupId(1), Seq(0), 9).unwrap()).len(), 2);
    assert_eq!(mark_versions(&disk), [1, 1]);
}

#[test]
fn a_crash_at_any_sync_of_the_first_opening_starts_again_from_the_version_1_journal() {
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
            match mark_versions(&disk) {
                [1, 1] => old += 1,
                _ => new += 1,
            }
            let log = open_with(&disk, Keep::Nothing).unwrap_or_else(|error| panic!("sync {syncs}: {error}"));
            check(&log);
            assert_ne!(mark_versions(&disk), [1, 1]);
            drop(log);
            check(&open_with(&disk, Keep::Nothing).unwrap());
        }
    }
    assert!(old > 10 && new > 10, "{old} crashes before MARK had the new version, {new} after");
}

#[test]
fn dead_letters_of_both_versions_can_be_in_one_file() {
    let disk = store();
    let mut log = open_with(&disk, Keep::Nothing).unwrap();
    let id = GroupId(1);
    let block = log.reader().block(Seq(6)).unwrap();
    let rejected = DeadCause::Rejected;
    let new = retained::DeadLetter { seq: Seq(6), cause: rejected, ..letter(6).into() };
    log.bury(&new, &block).unwrap();
    log.commit(&change(0, group_state::GroupChange::Dead { seq: Seq(6) })).unwrap();
    log.commit(&change(0, group_state::GroupChange::Revive { seq: Seq(3) })).unwrap();
    log.settle_dead(id, &[Seq(3)]).unwrap();
    let expected = [(5, DeadCause::Unknown), (6, rejected)];
    assert_eq!(letters(&log.dead_letters(id, Seq(0), 9).unwrap()), expected);
    drop(log);
    let log = open_with(&disk, Keep::Nothing).unwrap();
    assert_eq!(letters(&log.dead_letters(id, Seq(0), 9).unwrap()), expected);
    assert_eq!(log.findings(), [""; 0]);
    assert_eq!((log.rejected_below(id, Seq(7), 9), log.rejected_below(id, Seq(6), 9)), (1, 0));
}

#[test]
fn repair_reads_version_1_and_writes_the_current_version() {
    type Damage<'a> = (&'a str, &'a dyn Fn(&MemoryDisk));
    let damage: [Damage<'_>; 3] = [
        ("a block", &|disk| disk.flip(&segment::path(Seq(1)), 100)),
        ("MARK", &|disk| [20, 4_096 + 20].into_iter().for_each(|at| disk.flip(mark::PATH, at))),
        // SPARE and the changes after it are left.
        ("the manifest", &|disk| disk.flip_journal("journal/00000001", 0)),
    ];
    for (what, damage) in damage {
        let disk = store();
        damage(&disk);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let repaired = repair::on_disk(&shared, false, &mut |_, _| Ok(None)).unwrap();
        assert!(!repaired.findings.is_empty(), "{what}");
        assert_eq!(mark_versions(&disk)[0].max(mark_versions(&disk)[1]), mark::FORMAT_VERSION, "{what}");
        let state = spare::read(&disk).unwrap().unwrap();
        assert_eq!(
            state.groups[&GroupId(1)].attempts(Seq(2)),
            if what == "a block" { 0 } else { 3 },
            "{what}"
        );
        let log = open_with(&disk, Keep::Nothing).unwrap();
        assert_eq!(log.state().losses[0].kind, LossKind::Dropped, "{what}");
        assert_eq!(log.dead_count(GroupId(1)), 2, "{what}");
    }
}

#[test]
fn a_backup_of_a_version_1_store_is_read() {
    let snapshot = Snapshot::decode(&encoded(&state())).unwrap();
    assert_eq!(snapshot.state, state().into());
    assert_eq!(Snapshot::decode(&snapshot.encode().unwrap()).unwrap(), snapshot);
}
