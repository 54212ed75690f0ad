//! The durable log of spillq.

mod block;
mod bytes_le;
mod ids;

pub use block::{
    BLOCK_BYTES_MAX, BLOCK_MAGIC, BLOCK_TARGET_BYTES, Block, BlockBuilder, BlockError, LINE_BYTES_MAX, Line,
    LineFlags, Lines, NewBlock, Run,
};
pub use ids::{GroupId, Seq, SeqRange, SourceId, StoreId};
