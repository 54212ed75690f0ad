//! Bits that flip on disk: nothing is lost silently. Copies of a store with several segments, dead letters and a
//! journal that holds the newest lines; `SPILLQ_FLIPS` sets how many.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use spillq_storage::{
    BlockBuilder, Commit, DeadLetter, DiskOptions, Error, GroupChange, GroupId, Log, Options, Seq, SeqRange,
    SourceId, View,
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
        while log.maintain().unwrap() {}
    }
    let group = GroupId(1);
    let letter = DeadLetter { group, seq: Seq(7), attempts: 8, time_ms: 1, reason: "poison".to_owned() };
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
    fs::create_dir_all(to).unwrap();
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
    let checkpoint = state.sources.get(&SourceId(1)).map(|source| source.checkpoint.clone());
    let end: u64 = (1..=LINES).map(|seq| line(seq).len() as u64).sum();
    let dead = view.dead_letters(id, Seq(0), 10).is_ok_and(|dead| dead.len() == 1 && dead[0].seq == Seq(7));
    all && state.next_seq == Seq(LINES + 1)
        && group.acks.floor() == Seq(7)
        && checkpoint == Some(end.to_le_bytes().to_vec())
        && dead
}

#[test]
fn a_flipped_bit_loses_nothing_silently() {
    let flips: u64 = std::env::var("SPILLQ_FLIPS").ok().and_then(|flips| flips.parse().ok()).unwrap_or(300);
    let folder = tempfile::tempdir().unwrap();
    let original = folder.path().join("original");
    make(&original);
    assert!(is_whole(&View::open(&original).unwrap()), "the store is whole before");
    let (mut harmless, mut told, mut refused) = (0, 0, 0);
    for seed in 0..flips {
        let mut rng = fastrand::Rng::with_seed(seed);
        let dir = folder.path().join("copy");
        let _ = fs::remove_dir_all(&dir);
        copy(&original, &dir);
        let all = files(&dir);
        // The journal is most of the bytes; every kind of file has its turn.
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
                if findings.is_empty() { harmless += 1 } else { told += 1 }
            }
            Err(Error::Damaged { .. } | Error::Version { .. } | Error::NotAStore { .. }) => refused += 1,
            Err(error) => panic!("seed {seed}: bit {bit} of {}: {error}", path.display()),
        }
    }
    println!("{flips} flips: {harmless} harmless, {told} told by verify, {refused} refused at opening");
    assert!(told > 0 && refused + harmless > 0);
}
