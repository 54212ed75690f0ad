//! The scan of repair, which looks for blocks in whatever bytes a file holds.
//!
//! Blocks, cut and damaged, in any order, with other bytes between: found blocks and the rest cover all bytes, in
//! order and once; each whole block after sound bytes is found, and none that was not written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq_fuzz::Choices;
use spillq_fuzz::store::append;
use spillq_storage::fuzzing::{encode, scan_blocks};
use spillq_storage::{Seq, StoreId};

const STORE: StoreId = StoreId(7);

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let (mut bytes, mut written, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..12 {
        if choices.is_empty() {
            break;
        }
        let kind = choices.few(6);
        if kind == 0 {
            let len = choices.few(64);
            bytes.extend_from_slice(choices.take(len));
            continue;
        }
        let (store, seq) = (StoreId(7 + u64::from(kind == 1)), 1 + choices.few(32) as u64);
        let text: Vec<Vec<u8>> = (seq..=seq + choices.few(4) as u64)
            .map(|seq| format!("{seq} {}\n", "x".repeat(seq as usize)).into_bytes())
            .collect();
        let block = append(&mut 0, &text).blocks.remove(0);
        let mut block = encode(&block, store, seq, Seq(seq));
        let at = choices.below(1 << 16) % block.len();
        match kind {
            2 => block.truncate(at),
            3 => block[at] ^= 1 << (at % 8),
            // One that looks like the start of another.
            4 => bytes.extend_from_slice(b"SPQB"),
            _ => {}
        }
        if store == STORE {
            written.push((seq, text.concat()));
        }
        if matches!(kind, 4 | 5) {
            whole.push((bytes.len(), block.len()));
        }
        bytes.extend_from_slice(&block);
    }
    let (found, not) = scan_blocks(&bytes, STORE);
    let mut stretches: Vec<(usize, usize)> = found.iter().map(|(at, len, _)| (*at, *len)).collect();
    for (at, len, block) in &found {
        let is_written =
            |written: &(u64, Vec<u8>)| *block.raw() == written.1 && block.range().first.0 == written.0;
        assert!(written.iter().any(is_written), "a block at {at}, {len} bytes");
    }
    for (at, len) in whole {
        assert!(stretches.contains(&(at, len)), "the block at {at} was not found");
    }
    stretches.extend(not.iter().map(|(at, len, _)| (*at, *len)));
    stretches.sort_unstable();
    let mut end = 0;
    for (at, len) in stretches {
        assert!(at == end && len > 0);
        end += len;
    }
    assert_eq!(end, bytes.len());
});
