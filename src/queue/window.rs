//! The window: the newest blocks of the log, still in memory.
//!
//! A cache: every line in it is durable in the log as well. A group that keeps up reads from here and never reads a
//! segment. The window is bounded by the bytes of its lines, and by a number of blocks for logs of tiny blocks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use spillq_storage::{Block, Seq};

/// A block of one short line costs some hundred bytes in addition to its line.
const BLOCKS_MAX: usize = 8_192;

/// Shared between the owner, which adds blocks, and the readers.
#[derive(Debug)]
pub struct Window {
    bytes_max: usize,
    inner: Mutex<Inner>,
    /// Bytes of lines that workers hold.
    lent: Arc<AtomicU64>,
}

/// Lines that a worker holds, counted until this is dropped.
#[derive(Debug)]
pub struct Lent {
    total: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Inner {
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
}

impl Window {
    /// An empty window of at most `bytes_max` bytes of lines.
    #[must_use]
    pub fn new(bytes_max: usize) -> Window {
        Window { bytes_max, inner: Mutex::default(), lent: Arc::default() }
    }

    /// Adds the next block of the log, in order. The oldest blocks are removed if the window is full.
    pub fn push(&self, block: Arc<Block>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.bytes += block.raw().len();
        inner.blocks.push_back(block);
        while inner.bytes > self.bytes_max || inner.blocks.len() > BLOCKS_MAX {
            let Some(oldest) = inner.blocks.pop_front() else {
                break;
            };
            inner.bytes -= oldest.raw().len();
        }
    }

    /// The block that holds `seq`, if it is in the window.
    #[must_use]
    pub fn get(&self, seq: Seq) -> Option<Arc<Block>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let at = inner.blocks.partition_point(|block| block.range().last < seq);
        inner.blocks.get(at).filter(|block| block.range().contains(seq)).cloned()
    }

    /// Counts lines that a worker holds, whether it read them from the window or from a segment.
    #[must_use]
    pub fn lend(&self, bytes: u64) -> Lent {
        self.lent.fetch_add(bytes, Ordering::Relaxed);
        Lent { total: Arc::clone(&self.lent), bytes }
    }

    /// Bytes of lines that workers hold.
    #[must_use]
    pub fn lent_bytes(&self) -> u64 {
        self.lent.load(Ordering::Relaxed)
    }

    /// Its bound.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Bytes of lines in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}
