//! Fifty thousand known sources: what the log holds of them fits into a manifest, and rolling and opening stay quick.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use spillq_storage::{BlockBuilder, Commit, DiskOptions, Log, Options, Seq, SourceId};

const LIVE: u64 = 10_000;
const KNOWN: u64 = 50_000;
/// Of a live source with a long path and a full ladder, and of one that is finished.
const LIVE_BYTES: usize = 500;
const FINISHED_BYTES: usize = 100;
/// What a record of the log may have.
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

#[test]
fn fifty_thousand_known_sources_fit_and_are_there_after_opening() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        journal_commits: 100,
        disk: DiskOptions { limit_bytes: 1 << 30, min_free_bytes: 0, reserve_bytes: 0 },
        ..Options::default()
    };
    let mut log = Log::open_or_create(dir.path(), options).unwrap();
    for first in (1..=KNOWN).step_by(2_000) {
        log.commit(&lines_of(first..first + 2_000)).unwrap();
    }
    let known = log.state().sources.clone();
    assert_eq!(known.len() as u64, KNOWN);
    let bytes = bincode::encode_to_vec(log.state(), bincode::config::standard()).unwrap().len();
    assert!(bytes < RECORD_BYTES_MAX / 4, "{bytes} bytes");

    let rolls = log.counters().rolls;
    let (mut slowest, mut commits) = (Duration::ZERO, 0);
    while log.counters().rolls < rolls + 3 {
        let began = Instant::now();
        log.commit(&lines_of(1..2)).unwrap();
        slowest = slowest.max(began.elapsed());
        commits += 1;
        assert!(commits <= 3 * options.journal_commits, "it never rolls");
    }
    // A manifest so long does not make the journal full by itself.
    assert!(commits >= 2 * options.journal_commits, "{commits} commits, then three rolls");
    drop(log);
    let began = Instant::now();
    let log = Log::open(dir.path(), options).unwrap();
    let opened = began.elapsed();
    println!(
        "manifest {bytes} bytes; {commits} commits, the slowest with a roll {slowest:?}; opened in {opened:?}"
    );
    assert_eq!(log.state().next_seq, Seq(KNOWN + commits + 1));
    let found = &log.state().sources;
    assert!(known.iter().filter(|(id, _)| id.0 > 1).all(|one| found.get(one.0) == Some(one.1)));
}
