//! Bits that flip on disk: nothing is lost silently, and a repair keeps all but the damaged block.
//!
//! The store has several segments, dead letters, and a journal with the newest lines. `SPILLQ_FLIPS` sets how many bits.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use spillq_storage::repair::{SourceEnd, repair};
use spillq_storage::{
    BlockBuilder, Commit, DeadCause, DeadLetter, DiskOptions, Error, GroupChange, GroupId, Log, Options, Seq,
    SeqRange, SourceId, View,
};

fn options() -> Options {
    Options {
        segment_bytes: 40_000,
        journal_bytes: 150_000,
        disk: DiskOptions { reserve_bytes: 4096, min_free_bytes: 0, ..DiskOptions::default() },
        ..Options::default()
    }
}

fn line(seq: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seq);
    let letters: String = (0..rng.usize(..300)).map(|_| rng.alphanumeric()).collect();
    format!("{seq} {letters}\n").into_bytes()
}

const LINES: u64 = 2_400;

fn make(dir: &Path) {
    let mut log = Log::open_or_create(dir, options()).unwrap();
    log.commit(&Commit { add_groups: vec![("default".to_owned(), Seq(0))], ..Commit::default() }).unwrap();
    let mut offset = 0;
    for first in (1..=LINES).step_by(40) {
        let mut builder = BlockBuilder::new();
        for seq in first..first + 40 {
            let bytes = line(seq);
            builder.push_whole(SourceId(1), offset, &bytes, 1);
            offset += bytes.len() as u64;
        }
        let checkpoints = vec![(SourceId(1), Bytes::from(offset.to_le_bytes().to_vec()))];
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
        reason: "poison".to_owned(),
    };
    let block = log.reader().block(Seq(7)).unwrap();
    log.bury(&letter, &block).unwrap();
    let ack = SeqRange::new(Seq(1), Seq(6)).unwrap();
    let groups = vec![(group, GroupChange::Dead { seq: Seq(7) }), (group, GroupChange::Ack { range: ack })];
    log.commit(&Commit { groups, ..Commit::default() }).unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if fs::metadata(&path).unwrap().len() > 0 {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}

/// Whether everything that was stored is there, unchanged.
fn is_whole(view: &View) -> bool {
    let state = view.state();
    let Some((id, group)) = state.group("default") else { return false };
    let mut reader = view.reader();
    let all = (1..=LINES).step_by(40).all(|first| {
        reader
            .block(Seq(first))
            .is_ok_and(|block| block.lines().all(|found| found.bytes == line(found.seq.0)))
    });
    let checkpoint = state.sources().get(&SourceId(1)).map(|source| source.checkpoint.clone());
    let end: u64 = (1..=LINES).map(|seq| line(seq).len() as u64).sum();
    let dead = view.dead_letters(id, Seq(0), 10).is_ok_and(|dead| dead.len() == 1 && dead[0].seq == Seq(7));
    all && state.next_seq() == Seq(LINES + 1)
        && group.acks().floor() == Seq(7)
        && checkpoint == Some(end.to_le_bytes().to_vec())
        && dead
}

#[test]
fn a_flipped_bit_loses_nothing_silently() {
    let flips: u64 = std::env::var("SPILLQ_FLIPS").ok().and_then(|flips| flips.parse().ok()).unwrap_or(300);
    let folder = tempfile::tempdir().unwrap();
    let original = folder.path().join("original");
    make(&original);
    assert!(is_whole(&View::open(&original).unwrap()), "the store is whole before the flips");
    let (mut harmless, mut found, mut refused) = (0, 0, 0);
    for seed in 0..flips {
        let mut rng = fastrand::Rng::with_seed(seed);
        let dir = folder.path().join("copy");
        let _ = fs::remove_dir_all(&dir);
        copy(&original, &dir);
        let all = files(&dir);
        // By file and not by byte: most bytes are the journal's.
        let path = &all[rng.usize(..all.len())];
        let mut bytes = fs::read(path).unwrap();
        let bit = rng.usize(..bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(path, &bytes).unwrap();
        match View::open(&dir) {
            Ok(view) => {
                let findings = view.verify(&mut |_| {});
                let whole = is_whole(&view);
                assert!(
                    whole || !findings.is_empty(),
                    "seed {seed}: bit {bit} of {}: silent",
                    path.display()
                );
                if findings.is_empty() { harmless += 1 } else { found += 1 }
            }
            Err(Error::Damaged { .. } | Error::Version { .. } | Error::NotAStore { .. }) => refused += 1,
            Err(error) => panic!("seed {seed}: bit {bit} of {}: {error}", path.display()),
        }
    }
    println!("{flips} flips: {harmless} harmless, {found} found by verify, {refused} refused at opening");
    assert!(found > 0 && refused + harmless > 0);
}

/// Checkpoints of this test are only an offset.
fn remake(end: &SourceEnd, there: Option<&[u8]>) -> Result<Option<Vec<u8>>, String> {
    let offset = there.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    Ok((offset < end.end).then(|| end.end.to_le_bytes().to_vec()))
}

/// Everything in a folder, by name.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Checks the store after a repair: every line is there or recorded as lost, the checkpoint is at the end, and lines can be
/// appended. Returns how many are lost.
fn check_repaired(dir: &Path, named: u64, seed: u64) -> u64 {
    let view = View::open(dir).unwrap();
    assert_eq!(view.verify(&mut |_| {}), [""; 0], "seed {seed}");
    let state = view.state();
    assert!(state.next_seq() > Seq(LINES), "seed {seed}: a seq could be used twice");
    let mut reader = view.reader();
    let mut lost = 0;
    for seq in 1..=LINES {
        match reader.block(Seq(seq)) {
            Ok(block) => {
                let found = block.lines().find(|line| line.seq == Seq(seq)).unwrap();
                assert_eq!(found.bytes, line(seq), "seed {seed}, line {seq}");
            }
            Err(error) => {
                lost += 1;
                let loss = state.losses().iter().find(|loss| loss.range.contains(Seq(seq)));
                assert!(loss.is_some(), "seed {seed}: line {seq} is not recorded as lost: {error}");
                for group in state.groups().values() {
                    assert!(group.acks().contains(Seq(seq)), "seed {seed}: {} waits for {seq}", group.name());
                }
            }
        }
    }
    assert_eq!(lost, named, "seed {seed}");
    let checkpoint = state.sources().get(&SourceId(1)).map(|source| source.checkpoint.clone());
    let end: u64 = (1..=LINES).map(|seq| line(seq).len() as u64).sum();
    assert_eq!(checkpoint, Some(end.to_le_bytes().to_vec()), "seed {seed}: lines would be stored twice");
    let (run, next) = (state.run(), state.next_seq());
    drop(view);
    let mut log = Log::open(dir, options()).unwrap();
    assert_eq!((log.findings(), log.state().run() > run), (&[][..], true), "seed {seed}");
    let mut builder = BlockBuilder::new();
    builder.push_whole(SourceId(1), end, b"on\n", 1);
    let checkpoints = vec![(SourceId(1), Bytes::copy_from_slice(&(end + 3).to_le_bytes()))];
    let commit = Commit { blocks: vec![builder.build(1)], checkpoints, ..Commit::default() };
    assert_eq!(log.commit(&commit).unwrap().first, next, "seed {seed}");
    lost
}

#[test]
fn a_repair_keeps_all_but_the_damaged_block() {
    let flips: u64 = std::env::var("SPILLQ_FLIPS").ok().and_then(|flips| flips.parse().ok()).unwrap_or(120);
    let folder = tempfile::tempdir().unwrap();
    let original = folder.path().join("original");
    make(&original);
    let (mut sound, mut repaired, mut lossy) = (0, 0, 0);
    // Every file in turn, including MARK in both slots.
    let count = files(&original).len() as u64;
    println!("{count} files");
    for seed in 0..flips {
        let mut rng = fastrand::Rng::with_seed(seed);
        let dir = folder.path().join("copy");
        let _ = fs::remove_dir_all(&dir);
        copy(&original, &dir);
        let path = &files(&dir)[(seed % count) as usize];
        let mut bytes = fs::read(path).unwrap();
        // Bytes that sled adds around our chunks do not matter. The next journal has no chunks.
        let magic = b"\xf1SPQJRN\x01";
        let chunks: Vec<_> =
            (0..bytes.len().saturating_sub(8)).filter(|at| bytes[*at..].starts_with(magic)).collect();
        if path.ends_with("MARK") {
            bytes[20] ^= 1;
            bytes[4_096 + 20] ^= 1;
        } else if chunks.is_empty() {
            let bit = rng.usize(..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        } else {
            let at = chunks[rng.usize(..chunks.len())] + rng.usize(..100);
            bytes[at] ^= 1 << rng.u8(..8);
        }
        fs::write(path, &bytes).unwrap();
        let before = content(&dir);
        let dry = repair(&dir, true, &mut remake).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(content(&dir), before, "seed {seed}: a dry run changes nothing");
        let done = repair(&dir, false, &mut remake).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!((&dry.findings, &dry.losses), (&done.findings, &done.losses), "seed {seed}");
        let named = done.losses.iter().map(|loss| loss.range.lines()).sum();
        if done.findings.is_empty() {
            sound += 1;
            continue;
        }
        let quarantine = content(&dir.join("quarantine"));
        let damaged = path.strip_prefix(&dir).unwrap();
        let is_kept = quarantine.iter().any(|file| file.1 == bytes);
        // A journal that only sled cannot read has nothing that the scan does not find.
        assert!(is_kept || damaged.starts_with("journal"), "seed {seed}: {} is not kept", damaged.display());
        assert_eq!(repair(&dir, false, &mut remake).unwrap().findings, [""; 0], "seed {seed}: again");
        let lost = check_repaired(&dir, named, seed);
        assert!(lost <= 40, "seed {seed}: {lost} lines of {}: {:?}", path.display(), done.findings);
        if lost == 0 { repaired += 1 } else { lossy += 1 }
    }
    println!(
        "{flips} flips: {sound} harmless, {repaired} repaired without a loss, {lossy} with a recorded loss"
    );
    assert!(repaired > 0 && lossy > 0);
}
