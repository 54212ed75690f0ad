//! Compression on all processors: zstd limits the speed of ingestion.
//!
//! A block is compressed as soon as it is full, while the tail reads on. The tail's thread helps when an append is full, so
//! there is one thread fewer than there are processors. They start with the first append that is worth it and live as
//! long as the tail: a thread for each append would set up zstd's working memory, about a megabyte, every time.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use spillq_storage::{BlockBuilder, NewBlock};

/// The threads start when an append has this many full blocks.
const WORTH_BLOCKS: usize = 4;
/// More do not help: reading takes a third as long as compressing.
const THREADS_MAX: usize = 4;

/// The threads. They end when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Compressor(Jobs);

/// Blocks that wait to be compressed: at most those of one append.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    added: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads are allowed.
    is_shared: bool,
    has_begun: bool,
    has_ended: bool,
}

#[derive(Debug)]
struct Job {
    block: BlockBuilder,
    now_ms: u64,
    to: SyncSender<NewBlock>,
}

impl Job {
    fn run(self) {
        // The append was given up if nobody receives it.
        let _ = self.to.send(self.block.build(self.now_ms));
    }
}

impl Compressor {
    /// Where a filler puts its blocks.
    pub(crate) fn jobs(&self) -> Jobs {
        self.0.queue().is_shared = true;
        self.0.clone()
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.0.queue().has_ended = true;
        self.0.0.added.notify_all();
    }
}

impl Jobs {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each change is one step, so that after a panic of another holder the queue is whole.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a block that was appended at the wall-clock time `now_ms` to be compressed. `before` blocks of this append
    /// were given already.
    pub(crate) fn give(&self, block: BlockBuilder, now_ms: u64, before: usize) -> Receiver<NewBlock> {
        let (to, compressed) = sync_channel(1);
        let mut queue = self.queue();
        queue.jobs.push_back(Job { block, now_ms, to });
        if queue.has_begun {
            self.0.added.notify_one();
        } else if queue.is_shared && before >= WORTH_BLOCKS {
            queue.has_begun = true;
            self.start();
        }
        compressed
    }

    /// Compresses blocks until none waits.
    pub(crate) fn help(&self) {
        loop {
            let job = self.queue().jobs.pop_front();
            let Some(job) = job else { return };
            job.run();
        }
    }

    /// Starts the threads. The system may refuse them: then it takes longer.
    fn start(&self) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 1..processors.min(THREADS_MAX + 1) {
            let jobs = self.clone();
            let thread = std::thread::Builder::new().name("tail-compressor".to_owned());
            if let Err(error) = thread.spawn(move || jobs.work()) {
                tracing::warn!(%error, "fewer threads for compression");
                return;
            }
        }
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            job.run();
        }
    }

    /// The next job, waiting for it; `None` at the end.
    fn next(&self) -> Option<Job> {
        let is_idle = |queue: &mut Queue| queue.jobs.is_empty() && !queue.has_ended;
        let waited = self.0.added.wait_while(self.queue(), is_idle);
        waited.unwrap_or_else(PoisonError::into_inner).jobs.pop_front()
    }
}
