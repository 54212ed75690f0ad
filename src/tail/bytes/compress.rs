//! A second thread that compresses: zstd limits the speed of ingestion.
//!
//! It starts with the first append that is worth it and lives as long as the tail: a thread for each append would set up
//! zstd's working memory, about a megabyte, every time. It has one job at a time.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use spillq_storage::{BlockBuilder, NewBlock};

/// From this many blocks on, the second thread gets half of them.
const SPLIT_BLOCKS_MIN: usize = 4;

type Job = (Vec<BlockBuilder>, u64);

/// Compresses blocks, half of them on the second thread.
#[derive(Debug, Default)]
pub(crate) struct Compressor {
    second: Option<(SyncSender<Job>, Receiver<Vec<NewBlock>>)>,
}

impl Compressor {
    /// Compresses blocks appended at the wall-clock time `now_ms`, in their order.
    ///
    /// # Panics
    /// If compression panicked on the second thread.
    pub(crate) fn build(&mut self, mut full: Vec<BlockBuilder>, now_ms: u64) -> Vec<NewBlock> {
        if full.len() < SPLIT_BLOCKS_MIN {
            return build(full, now_ms);
        }
        if self.second.is_none() {
            self.second = start();
        }
        // The system may refuse a second thread: then it takes longer.
        let Some((jobs, done)) = &self.second else { return build(full, now_ms) };
        let rest = full.split_off(full.len() / 2);
        let asked = jobs.send((rest, now_ms));
        let mut blocks = build(full, now_ms);
        assert!(asked.is_ok(), "the thread that compresses has ended");
        blocks.extend(done.recv().expect("the thread that compresses answers"));
        blocks
    }
}

fn build(full: Vec<BlockBuilder>, now_ms: u64) -> Vec<NewBlock> {
    full.into_iter().map(|block| block.build(now_ms)).collect()
}

fn start() -> Option<(SyncSender<Job>, Receiver<Vec<NewBlock>>)> {
    let (jobs, asked) = sync_channel::<Job>(1);
    let (answer, done) = sync_channel(1);
    let run = move || {
        for (blocks, now_ms) in asked {
            if answer.send(build(blocks, now_ms)).is_err() {
                break;
            }
        }
    };
    match std::thread::Builder::new().name("tail-compressor".to_owned()).spawn(run) {
        Ok(_) => Some((jobs, done)),
        Err(error) => {
            tracing::warn!(%error, "no second thread for compression");
            None
        }
    }
}
