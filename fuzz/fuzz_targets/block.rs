//! A block of the log.
//!
//! Whatever the bytes, with their checksums made right or not: a block that decodes has as many lines as its header
//! says, one behind the other they are all of its bytes, each slice is the lines of its range, and the same lines
//! encoded anew are the same lines. A block that was damaged gives its own lines or an error, never others.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq_fuzz::Choices;
use spillq_storage::fuzzing::{decode, encode};
use spillq_storage::{Block, BlockBuilder, LineFlags, Seq, SeqRange, SourceId, StoreId};

const STORE: StoreId = StoreId(7);
const HEADER_BYTES: usize = 64;
const RUN_BYTES: usize = 25;

type Lines = Vec<(u64, u64, u64, LineFlags, Vec<u8>)>;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    match choices.few(3) {
        0 => check(choices.0),
        1 => check(&sealed(&mut choices)),
        _ => damaged(&mut choices),
    }
});

fn lines(block: &Block) -> Lines {
    let line = |line: spillq_storage::Line<'_>| {
        (line.seq.0, line.source.0, line.offset, line.flags, line.bytes.to_vec())
    };
    block.lines().map(line).collect()
}

fn check(bytes: &[u8]) {
    let Ok(block) = decode(bytes, STORE) else { return };
    let all = lines(&block);
    let range = block.range();
    assert_eq!(all.len() as u64, range.lines());
    assert_eq!((all[0].0, all[all.len() - 1].0), (range.first.0, range.last.0));
    assert_eq!(all.iter().flat_map(|line| line.4.clone()).collect::<Vec<_>>(), block.raw()[..]);
    let (middle, last) = (all[all.len() / 2].0, range.last.0);
    for (first, last) in [(range.first.0, middle), (middle, middle), (middle, last)] {
        let within = all.iter().filter(|line| (first..=last).contains(&line.0));
        let expected: Vec<u8> = within.flat_map(|line| line.4.clone()).collect();
        assert_eq!(block.slice(SeqRange { first: Seq(first), last: Seq(last) }), expected);
    }
    let mut builder = BlockBuilder::new();
    for (_, source, offset, flags, bytes) in &all {
        push(&mut builder, *source, *offset, *flags, bytes);
    }
    let again = encode(&builder.build(block.append_time_ms()), STORE, block.commit(), range.first);
    assert_eq!(lines(&decode(&again, STORE).unwrap()), all);
}

fn push(builder: &mut BlockBuilder, source: u64, offset: u64, flags: LineFlags, bytes: &[u8]) {
    match flags == LineFlags::WHOLE {
        true => builder.push_whole(SourceId(source), offset, bytes, 1),
        false => builder.push_marked(SourceId(source), offset, bytes, flags),
    }
}

/// A header out of the input, with magic, store, lengths and checksums that fit.
fn sealed(choices: &mut Choices<'_>) -> Vec<u8> {
    let is_packed = choices.few(2) == 1;
    let mut header = choices.take(HEADER_BYTES).to_vec();
    header.resize(HEADER_BYTES, 0);
    let runs = choices.few(5);
    let mut table = choices.take(runs * RUN_BYTES).to_vec();
    table.resize(runs * RUN_BYTES, 0);
    let raw = choices.0;
    let stored = if is_packed { zstd::bulk::compress(raw, 1).unwrap() } else { raw.to_vec() };
    header[..8].copy_from_slice(&[b'S', b'P', b'Q', b'B', 1, u8::from(is_packed), 0, 0]);
    header[8..16].copy_from_slice(&STORE.0.to_le_bytes());
    let numbers = [runs as u32, raw.len() as u32, stored.len() as u32, crc32c::crc32c(&stored)];
    for (at, number) in numbers.into_iter().enumerate() {
        header[44 + 4 * at..48 + 4 * at].copy_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..60]), &table);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    [header, table, stored].concat()
}

/// Up to three flipped bits, a cut, and a stretch of zeros: what a checksum cannot miss but by chance.
fn damaged(choices: &mut Choices<'_>) {
    let (flips, cut, zeros) = (choices.few(4), choices.few(4) == 1, choices.few(4) == 1);
    let places: Vec<usize> = (0..flips + 3).map(|_| choices.below(1 << 20)).collect();
    let mut builder = BlockBuilder::new();
    let mut offset = 0;
    for _ in 0..1 + choices.few(8) {
        let (source, flags) = (choices.few(2) as u64, choices.few(6));
        let mut bytes = choices.few(32).to_string().into_bytes();
        bytes.extend(choices.take(bytes.len() * 3).iter().filter(|byte| **byte != b'\n'));
        let flags = [LineFlags::FIRST, LineFlags::MIDDLE, LineFlags::LAST.unterminated()].get(flags).copied();
        if flags.is_none() {
            bytes.push(b'\n');
        }
        push(&mut builder, source, offset, flags.unwrap_or(LineFlags::WHOLE), &bytes);
        offset += bytes.len() as u64;
    }
    let good = encode(&builder.build(5), STORE, 3, Seq(10));
    let mut bad = good.clone();
    for place in &places[..flips] {
        let bit = place % (bad.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
    }
    if zeros {
        let from = places[flips] % bad.len();
        let to = (from + 1 + places[flips + 1] % 512).min(bad.len());
        bad[from..to].fill(0);
    }
    if cut {
        bad.truncate(places[flips + 2] % bad.len());
    }
    let whole = lines(&decode(&good, STORE).unwrap());
    if let Ok(block) = decode(&bad, STORE) {
        assert_eq!(lines(&block), whole);
    }
}
