//! Followed files that are compressed with gzip or zstd.
//!
//! Whatever the bytes: the content is the same however it is read, in any chunks or decompressed and discarded. At most the
//! requested bytes and some steps of 64 KiB are in memory. It ends, or fails, at the same place each time. Content that was
//! compressed and then damaged or cut gives the beginning of what was compressed, and ends only after all of it.
#![no_main]

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use spillq::tail::fuzzing::{Compressed, is_compressed};
use spillq_fuzz::Choices;
use spillq_fuzz::lines::with_file;

const STEP_BYTES: usize = 64 * 1_024;
/// What is looked at of a content that expands a thousandfold.
const CONTENT_BYTES_MAX: usize = 1 << 18;
const BACK: usize = 256;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let (how, chunk) = (choices.few(4), 1 + choices.below(2 * STEP_BYTES));
    if how == 0 {
        read(choices.0, chunk.max(64));
        return;
    }
    let (damage, at) = (choices.few(4), choices.below(1 << 20));
    let times = if choices.byte() == 255 { 1_000 } else { 1 };
    let mut content = choices.0.repeat(times);
    content.truncate(3 * STEP_BYTES);
    let mut packed = match how {
        1 => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(&content).unwrap();
            encoder.finish().unwrap()
        }
        _ => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&content).unwrap();
            encoder.finish().unwrap()
        }
    };
    match damage {
        0 => packed.truncate(1 + at % packed.len()),
        1 => {
            let len = packed.len();
            packed[at % len] ^= 1 << (at / len % 8);
        }
        _ => {}
    }
    let Some((found, is_all)) = read(&packed, chunk.max(64)) else { return };
    // Of damaged content the sum comes last: what was decompressed before it is never trusted.
    if is_all {
        assert_eq!(found, content);
    } else if damage != 1 {
        assert!(content.starts_with(&found) && damage == 0);
    }
});

/// The content, as far as it goes, and whether it has ended there.
fn read(packed: &[u8], chunk: usize) -> Option<(Vec<u8>, bool)> {
    if !is_compressed(packed) {
        return None;
    }
    let mut held_most = 0;
    let mut held = |bytes: usize| held_most = held_most.max(bytes);
    let mut whole = |chunk: usize| {
        with_file(packed, |file| {
            let mut content = Compressed::open(file).unwrap();
            let (all, end) = content.read(chunk, BACK as u64, CONTENT_BYTES_MAX, &mut held);
            assert!(all.starts_with(&content.start()[..content.start().len().min(all.len())]));
            (all, end.map_err(|(is_incomplete, _)| is_incomplete))
        })
    };
    let (all, end) = whole(chunk);
    let (again, end_again) = whole(STEP_BYTES);
    let shorter = all.len().min(again.len());
    assert_eq!(all[..shorter], again[..shorter]);
    // What comes behind the most that is looked at, one of them may have met and the other not.
    if end != Ok(false) && end_again != Ok(false) {
        assert_eq!(end, end_again);
    }
    let forward = with_file(packed, |file| {
        Compressed::open(file).unwrap().forward(1 + chunk as u64, CONTENT_BYTES_MAX as u64, &mut held)
    });
    match (&forward, end) {
        (Ok((length, true)), Ok(true)) => assert_eq!(*length, all.len() as u64),
        (Ok((_, has_ended)), _) => assert!(!has_ended && end != Ok(true)),
        (Err(_), _) => assert!(end != Ok(true)),
    }
    assert!(
        held_most <= 2 * STEP_BYTES + 2 * chunk + BACK,
        "{held_most} bytes in memory for chunks of {chunk}"
    );
    Some((all, end == Ok(true)))
}
