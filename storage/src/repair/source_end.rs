//! The end of the stored lines of each source, and bytes around it, from which a lost checkpoint can be made again: at
//! most 1.3 KiB a source.

use std::collections::BTreeMap;

use crate::block::{Block, LineFlags};
use crate::ids::{Seq, SourceId};

/// The first bytes of a source that are kept.
const START_BYTES: usize = 1_024;
/// Bytes before the end that are kept.
const BEFORE_BYTES: usize = 256;

/// The end of a source's stored lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceEnd {
    /// The source.
    pub source: SourceId,
    /// The offset after its last stored line.
    pub end: u64,
    /// The 256 bytes before `end`, or all bytes of a shorter source; empty if they are not stored.
    pub before: Vec<u8>,
    /// Its first bytes, at most 1 KiB; empty if they are not stored.
    pub start: Vec<u8>,
    /// The flags of its last line.
    pub flags: LineFlags,
    pub(crate) last_seq: Seq,
    /// The offset at which `before` begins.
    before_from: u64,
}

/// The ends of all sources. Blocks are added in the order of their seqs.
#[derive(Default)]
pub(crate) struct SourceEnds(BTreeMap<SourceId, SourceEnd>);

impl SourceEnds {
    pub(crate) fn note(&mut self, block: &Block) {
        let (mut at, mut seq) = (0, block.range().first);
        for extent in block.extents() {
            let bytes = block.raw().get(at..at + extent.bytes as usize).unwrap_or_default();
            at += extent.bytes as usize;
            seq = seq.plus(u64::from(extent.lines));
            let end = self.0.entry(extent.source).or_insert_with(|| SourceEnd {
                source: extent.source,
                end: u64::MAX,
                ..SourceEnd::default()
            });
            if end.end != extent.offset {
                end.before.clear();
                end.before_from = extent.offset;
                if extent.offset == 0 {
                    end.start.clear();
                }
            }
            // Only if nothing is missing in between.
            if end.start.len() as u64 == extent.offset {
                end.start.extend(bytes.iter().take(START_BYTES - end.start.len().min(START_BYTES)));
            }
            end.before
                .extend_from_slice(bytes.get(bytes.len().saturating_sub(BEFORE_BYTES)..).unwrap_or_default());
            let surplus = end.before.len().saturating_sub(BEFORE_BYTES);
            end.before.drain(..surplus);
            end.end = extent.offset + u64::from(extent.bytes);
            end.before_from = end.before_from.max(end.end - end.before.len() as u64);
            (end.flags, end.last_seq) = (extent.flags, seq.prev());
        }
    }

    /// All of them, without bytes that are not certain.
    pub(crate) fn ends(&self) -> impl Iterator<Item = SourceEnd> {
        self.0.values().cloned().map(|mut end| {
            if end.before.len() < BEFORE_BYTES && end.before_from > 0 {
                end.before.clear();
            }
            end
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockBuilder;
    use crate::ids::StoreId;

    fn block(extents: &[(u64, u64, &[u8])]) -> Block {
        let mut builder = BlockBuilder::new();
        for (source, offset, bytes) in extents {
            builder.push_whole(SourceId(*source), *offset, bytes, 1);
        }
        let mut bytes = Vec::new();
        builder.build(1).encode(&mut bytes, StoreId(1), 2, Seq(1));
        Block::decode(&bytes, StoreId(1)).unwrap()
    }

    #[test]
    fn the_start_and_the_end_are_bytes_of_the_source() {
        let mut ends = SourceEnds::default();
        let long = [vec![b'x'; 1_500], vec![b'\n']].concat();
        ends.note(&block(&[(1, 0, b"one\n"), (2, 700, b"cut off\n"), (1, 4, b"two\n")]));
        ends.note(&block(&[(1, 8, &long), (3, 0, &long)]));
        ends.note(&block(&[(3, 9_000, &long)]));
        let ends: Vec<_> = ends.ends().collect();
        assert_eq!(
            (ends[0].end, &ends[0].start[..8], ends[0].start.len()),
            (1_509, &b"one\ntwo\n"[..], 1_024)
        );
        assert_eq!(ends[0].before, long[long.len() - 256..]);
        assert_eq!((ends[1].end, ends[1].before.len(), ends[1].start.len()), (708, 0, 0));
        assert_eq!((ends[2].end, ends[2].before.len(), ends[2].start.len()), (10_501, 256, 1_024));
    }
}
