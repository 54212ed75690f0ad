//! Repair, killed at any sync: the next repair ends with the same store.

use std::sync::Arc;

use bytes::Bytes;

use super::{Repaired, SourceEnd, on_disk};
use crate::block::BlockBuilder;
use crate::commit::Commit;
use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
use crate::error::Result;
use crate::group_state::GroupChange;
use crate::ids::{GroupId, Seq, SeqRange, SourceId};
use crate::log::{Log, Options};
use crate::retained::{DeadCause, DeadLetter};
use crate::space::DiskOptions;
use crate::view::View;

const LINES: u64 = 200;
/// Bits that flip in segments, each in one block of four lines.
const DAMAGED_MAX: usize = 3;

fn options() -> Options {
    Options {
        segment_bytes: 1_500,
        journal_bytes: 3_000,
        journal_commits: 30,
        inline_bytes: 10_000,
        disk: DiskOptions {
            limit_bytes: 1 << 40,
            min_free_bytes: 0,
            reserve_bytes: 0,
            keep: crate::Keep::Nothing,
        },
    }
}

fn line(seq: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seq);
    let letters: String = (0..20).map(|_| rng.alphanumeric()).collect();
    format!("{seq} {letters}\n").into_bytes()
}

fn end() -> u64 {
    (1..=LINES).map(|seq| line(seq).len() as u64).sum()
}

/// Four lines in each commit; one is a dead letter, and the lines before it are acked.
fn store() -> MemoryDisk {
    let disk = MemoryDisk::new(1 << 40);
    let mut log = Log::on_disk(Arc::new(disk.clone()), options(), None).unwrap();
    log.commit(&Commit { add_groups: vec![("a".to_owned(), Seq(0))], ..Commit::default() }).unwrap();
    let mut offset = 0;
    for first in (1..=LINES).step_by(4) {
        let mut builder = BlockBuilder::new();
        for seq in first..first + 4 {
            builder.push_whole(SourceId(1), offset, &line(seq), 1);
            offset += line(seq).len() as u64;
        }
        let checkpoints = vec![(SourceId(1), Bytes::copy_from_slice(&offset.to_le_bytes()))];
        log.commit(&Commit { blocks: vec![builder.build(1)], checkpoints, ..Commit::default() }).unwrap();
        while log.maintain(0).unwrap() {}
    }
    let group = GroupId(1);
    let letter = DeadLetter {
        group,
        seq: Seq(7),
        attempts: 8,
        time_ms: 1,
        cause: DeadCause::Failed,
        reason: "it failed".to_owned(),
    };
    let block = log.reader().block(Seq(7)).unwrap();
    log.bury(&letter, &block).unwrap();
    let dead = (group, GroupChange::Dead { seq: Seq(7) });
    let ack = (group, GroupChange::Ack { range: SeqRange { first: Seq(1), last: Seq(6) } });
    log.commit(&Commit { groups: vec![dead, ack], ..Commit::default() }).unwrap();
    drop(log);
    disk
}

fn remake(end: &SourceEnd, checkpoint: Option<&[u8]>) -> std::result::Result<Option<Vec<u8>>, String> {
    let offset = checkpoint.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    Ok((offset < end.end).then(|| end.end.to_le_bytes().to_vec()))
}

fn repair(disk: &MemoryDisk) -> Result<Repaired> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    on_disk(&disk, false, &mut remake)
}

/// The lines that cannot be read, each of which must be recorded as lost. All others must be as they were.
fn missing(disk: &MemoryDisk) -> Vec<u64> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let view = View::on_disk(disk, std::path::Path::new(""), None).unwrap();
    assert_eq!(view.verify(&mut |_| {}), [""; 0]);
    let state = view.state();
    assert_eq!(state.sources[&SourceId(1)].checkpoint, end().to_le_bytes());
    assert!(state.next_seq > Seq(LINES));
    let mut reader = view.reader();
    let is_missing = |seq: &u64| match reader.block(Seq(*seq)) {
        Ok(block) => {
            assert_eq!(block.lines().find(|line| line.seq == Seq(*seq)).unwrap().bytes, line(*seq));
            false
        }
        Err(_) => {
            assert!(
                state.losses.iter().any(|loss| loss.range.contains(Seq(*seq))),
                "{seq} is not recorded as lost"
            );
            true
        }
    };
    (1..=LINES).filter(is_missing).collect()
}

fn damage(disk: &MemoryDisk, rng: &mut fastrand::Rng) {
    let segments = disk.list("segments").unwrap();
    for _ in 0..rng.usize(1..=DAMAGED_MAX) {
        let name = format!("segments/{}", segments[rng.usize(..segments.len())]);
        let len = disk.open(&name, false).unwrap().len().unwrap() as usize;
        if len > 0 {
            disk.flip(&name, rng.usize(..len));
        }
    }
    if rng.bool() {
        let name = format!("kept/{}", disk.list("kept").unwrap()[0]);
        let len = disk.open(&name, false).unwrap().len().unwrap() as usize;
        disk.flip(&name, rng.usize(..len));
    }
    if rng.bool() {
        let journals = disk.list("journal").unwrap();
        disk.flip_journal(&format!("journal/{}", journals[0]), rng.usize(..1_000));
    }
    if rng.bool() {
        disk.flip("MARK", 20);
        disk.flip("MARK", 4_096 + 20);
    }
}

#[test]
fn a_repair_may_be_killed_at_any_sync() {
    let (mut killed, mut lost) = (0, 0);
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        // Writes that were not synced may be lost: the same ones for every try.
        let disk = store().after_crash(&mut rng);
        damage(&disk, &mut rng);
        let whole = disk.after_crash(&mut rng);
        let first = repair(&whole).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let expected = missing(&whole);
        lost += expected.len();
        for syncs in 1.. {
            let mut disk = disk.after_crash(&mut rng);
            disk.crash_after(syncs);
            let done = repair(&disk);
            let crashed = disk.has_crashed();
            assert!(done.is_ok() || crashed, "seed {seed}, {syncs} syncs: {done:?}");
            disk = disk.after_crash(&mut rng);
            // Sometimes the service is started in between, if it starts.
            let started = rng.bool() && Log::on_disk(Arc::new(disk.clone()), options(), None).is_ok();
            repair(&disk).unwrap_or_else(|error| panic!("seed {seed}, after {syncs} syncs: {error}"));
            let missing = missing(&disk);
            if started {
                // It has removed the journal before the last, which may have had a copy of a damaged block.
                assert!(missing.len() <= 4 * DAMAGED_MAX, "seed {seed}, after {syncs} syncs: {missing:?}");
                assert!(expected.iter().all(|seq| missing.contains(seq)), "seed {seed}: {missing:?}");
            } else {
                assert_eq!(missing, expected, "seed {seed}, after {syncs} syncs; {first:?}");
            }
            assert_eq!(repair(&disk).unwrap().findings, [""; 0], "seed {seed}: a second repair");
            if !crashed {
                break;
            }
            killed += 1;
        }
    }
    assert!(killed > 300 && lost > 100, "{killed} kills, {lost} lines");
}

/// In a fuzz input `kept/` and a segment were exchanged: its block of an old line was taken for the first one of the
/// segment, and the repaired segment could not be read.
#[test]
fn a_block_of_another_file_is_not_added_to_a_segment() {
    for journals_are_gone in [false, true] {
        let disk = store();
        let segments = disk.list("segments").unwrap();
        let names = [
            "kept/00000001".to_owned(),
            format!("segments/{}", segments[1]),
            format!("segments/{}", segments[2]),
        ];
        let contents: Vec<Vec<u8>> = names.iter().map(|name| content(&disk, name)).collect();
        for (name, content) in names.iter().zip(contents.iter().cycle().skip(1)) {
            disk.create(name).unwrap().write_at(content, 0).unwrap();
        }
        if journals_are_gone {
            for journal in disk.list("journal").unwrap() {
                for nth in 0..100 {
                    disk.damage_journal(&format!("journal/{journal}"), nth, [true, true], Vec::clear);
                }
            }
        }
        let done = repair(&disk).unwrap();
        assert!(
            done.findings.iter().any(|finding| finding.contains("lines of another file"))
                || !journals_are_gone
        );
        let missing = missing(&disk);
        let recorded: u64 = done.losses.iter().map(|loss| loss.range.lines()).sum();
        assert_eq!(missing.len() as u64, recorded, "{:?}", done.losses);
        assert!(recorded > 0);
        assert_eq!(repair(&disk).unwrap().findings, [""; 0]);
    }
}

fn content(disk: &MemoryDisk, name: &str) -> Vec<u8> {
    disk.open(name, false).unwrap().read_all().unwrap()
}
