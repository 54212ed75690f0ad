//! Batches for tests, made by hand: only the log itself numbers lines otherwise. Shared with the integration tests
//! by path, so it names crates and not modules.

use std::sync::Arc;

use spillq_storage::{Block, Seq, SeqRange, StoreId};

const STORE: StoreId = StoreId(7);

/// One line of source 3 a text, the newline added, from seq `first`.
pub(crate) fn block(first: u64, texts: &[&[u8]]) -> Arc<Block> {
    let raw: Vec<u8> = texts.iter().flat_map(|text| [text, &b"\n"[..]].concat()).collect();
    let mut header = b"SPQB\x01\x00\x00\x00".to_vec();
    for number in [STORE.0, 1, first, 0] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c::crc32c(&raw);
    for number in [texts.len() as u32, 1, raw.len() as u32, raw.len() as u32, crc] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    let mut run = [3u64.to_le_bytes(), 100u64.to_le_bytes()].concat();
    run.extend_from_slice(&(texts.len() as u32).to_le_bytes());
    run.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    run.push(0);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header), &run);
    let encoded = [&header[..], &crc.to_le_bytes(), &run, &raw].concat();
    Arc::new(Block::decode(&encoded, STORE).unwrap())
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
