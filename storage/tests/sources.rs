//! Fifty thousand known sources: their checkpoints fit into a manifest, and rotations and opening are still fast.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use spillq_storage::{BlockBuilder, Commit, DiskOptions, Log, Options, Seq, SourceId};

const LIVE: u64 = 10_000;
const KNOWN: u64 = 50_000;
/// The checkpoint of a live source with a long path and all resume points, and of one that is finished.
const LIVE_BYTES: usize = 500;
const FINISHED_BYTES: usize = 100;
/// The limit of a record of the log.
const RECORD_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// A line of each of these sources, and their checkpoints.
fn lines_of(sources: std::ops::Range<u64>) -> Commit {
    let mut builder = BlockBuilder::default();
    let mut commit = Commit::default();
    for source in sources {
        let bytes = if source <= LIVE { LIVE_BYTES } else { FINISHED_BYTES };
        builder.push_whole(SourceId(source), 0, b"a line\n", 1);
        commit.checkpoints.push((SourceId(source), Bytes::from(vec![source as u8; bytes])));
        commit.forget.extend((source > LIVE).then_some(SourceId(source)));
    }
    commit.blocks.push(builder.build(0));
    commit
}

/// The size of the largest journal: the next one is small.
fn journal_bytes(dir: &Path) -> u64 {
    let folders = fs::read_dir(dir.join("journal")).unwrap();
    let files = folders.filter_map(|folder| fs::metadata(folder.unwrap().path().join("db")).ok());
    files.map(|meta| meta.len()).max().unwrap()
}

struct Lines {
    bytes: u64,
    commits: u64,
    file_bytes: u64,
}

/// Commits lines that do not compress until the journal is rotated.
fn until_rotation(log: &mut Log, dir: &Path) -> Lines {
    let mut seed = 1_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        if seed as u8 == b'\n' { b'x' } else { seed as u8 }
    };
    let rotations = log.counters().rotations;
    let mut lines = Lines { bytes: 0, commits: 0, file_bytes: 0 };
    while log.counters().rotations == rotations {
        let mut line: Vec<u8> = (0..128 * 1_024).map(|_| random()).collect();
        line.push(b'\n');
        let mut builder = BlockBuilder::default();
        builder.push_whole(SourceId(1), 0, &line, 1);
        let checkpoints = vec![(SourceId(1), Bytes::from(vec![1; LIVE_BYTES]))];
        let commit = Commit { blocks: vec![builder.build(0)], checkpoints, ..Commit::default() };
        lines.file_bytes = journal_bytes(dir).max(lines.file_bytes);
        log.commit(&commit).unwrap();
        lines.bytes += line.len() as u64;
        lines.commits += 1;
    }
    lines
}

#[test]
fn fifty_thousand_known_sources_fit_and_are_there_after_opening() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        journal_commits: 100,
        disk: DiskOptions {
            limit_bytes: 1 << 30,
            min_free_bytes: 0,
            reserve_bytes: 0,
            ..DiskOptions::default()
        },
        ..Options::default()
    };
    let mut log = Log::open_or_create(dir.path(), options).unwrap();
    for first in (1..=KNOWN).step_by(2_000) {
        log.commit(&lines_of(first..first + 2_000)).unwrap();
    }
    let known = log.state().sources().clone();
    assert_eq!(known.len() as u64, KNOWN);
    let bytes = bincode::encode_to_vec(log.state(), bincode::config::standard()).unwrap().len();
    assert!(bytes < RECORD_BYTES_MAX / 4, "{bytes} bytes");

    let rotations = log.counters().rotations;
    let (mut slowest, mut commits) = (Duration::ZERO, 0);
    while log.counters().rotations < rotations + 3 {
        let began = Instant::now();
        log.commit(&lines_of(1..2)).unwrap();
        slowest = slowest.max(began.elapsed());
        commits += 1;
        assert!(commits <= 3 * options.journal_commits, "the journal is never rotated");
    }
    assert!(commits >= 2 * options.journal_commits, "{commits} commits until three rotations");
    // A long manifest does not fill the journal: lines do.
    let lines = until_rotation(&mut log, dir.path());
    let (stored, blocks) = (lines.bytes, lines.commits);
    println!(
        "{stored} bytes in {blocks} commits until the next rotation, journal file {} bytes",
        lines.file_bytes
    );
    commits += blocks;
    assert!(stored >= options.journal_bytes * 9 / 10, "rotated after {stored} bytes of lines");
    drop(log);
    let began = Instant::now();
    let log = Log::open(dir.path(), options).unwrap();
    let opened = began.elapsed();
    println!(
        "manifest {bytes} bytes; {commits} commits, the slowest with a rotation {slowest:?}; opened in {opened:?}"
    );
    assert_eq!(log.state().next_seq(), Seq(KNOWN + commits + 1));
    let found = log.state().sources();
    assert!(known.iter().filter(|(id, _)| id.0 > 1).all(|one| found.get(one.0) == Some(one.1)));
}
