//! Batches for tests, of blocks that are in no log. Shared with the integration tests
//! by path, so it names crates and not modules.

use std::sync::Arc;

use spillq_storage::{Block, BlockBuilder, Seq, SeqRange, SourceId};

/// One line of source 3 a text, the newline added, from seq `first`.
pub(crate) fn block(first: u64, texts: &[&[u8]]) -> Arc<Block> {
    let raw: Vec<u8> = texts.iter().flat_map(|text| [text, &b"\n"[..]].concat()).collect();
    let mut builder = BlockBuilder::new();
    builder.push_whole(SourceId(3), 100, &raw, texts.len() as u32);
    Arc::new(builder.build(0).numbered(1, Seq(first)))
}

/// The pieces of `ranges` of `block`.
pub(crate) fn pieces<P>(
    block: &Arc<Block>,
    ranges: &[(u64, u64)],
    piece: impl Fn(Arc<Block>, SeqRange) -> Option<P>,
) -> Vec<P> {
    ranges
        .iter()
        .map(|&(first, last)| SeqRange::new(Seq(first), Seq(last)).unwrap())
        .filter_map(|range| piece(Arc::clone(block), range))
        .collect()
}
