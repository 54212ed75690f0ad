//! The answers of a Redis server, in pieces of any size.
//!
//! The same bytes are the same answers; none is longer than the bound; together they are no more than the bytes; and
//! it ends with the connection or with something that is not an answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq::processor::fuzzing::redis_replies;
use spillq_fuzz::Choices;
use spillq_fuzz::wire::{Wire, run};

const REPLY_BYTES_MAX: usize = 64 * 1024;

fuzz_target!(|data: &[u8]| {
    let (bytes, pieces) = Choices(data).pieces(64);
    let (at_once, why) = run(redis_replies(Wire::of(&[bytes])));
    let in_pieces = run(redis_replies(Wire::of(&pieces)));
    assert_eq!(in_pieces, (at_once.clone(), why));
    // A byte that is not text becomes three in the text of an error.
    assert!(
        at_once
            .iter()
            .all(|(is_error, reply)| reply.len() <= REPLY_BYTES_MAX * if *is_error { 3 } else { 1 })
    );
    let least: usize =
        at_once.iter().map(|(is_error, reply)| 3 + if *is_error { 0 } else { reply.len() }).sum();
    assert!(least <= bytes.len());
});
