//! The records of the log: commits of a journal (manifests among them), SPARE and the manifest of a backup, dead
//! letters, and the chunks that a journal is cut into.
//!
//! Whatever the bytes, with the checksum of the frame made right or not: a record that decodes is the same after
//! it was encoded and decoded again, within the bound on memory whatever lengths it claims.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq_fuzz::Choices;
use spillq_storage::fuzzing::{Of, chunk, record};

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let of = [Of::Commit, Of::State, Of::DeadLetter].get(choices.few(4)).copied();
    let is_framed = choices.few(8) > 0;
    match (of, is_framed) {
        (None, framed) => check_chunk(choices.0, framed),
        (Some(of), false) => check(of, choices.0),
        (Some(of), true) => check(of, &framed(choices.0)),
    }
});

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn check(of: Of, bytes: &[u8]) {
    let Ok((again, behind)) = record(of, bytes) else { return };
    assert!(behind < bytes.len());
    assert_eq!(record(of, &again), Ok((again.clone(), 0)));
}

/// A payload is what the header says it is, or none.
fn check_chunk(bytes: &[u8], sealed: bool) {
    const HEADER_BYTES: usize = 52;
    let mut bytes = bytes.to_vec();
    if sealed && bytes.len() >= HEADER_BYTES {
        bytes[..8].copy_from_slice(b"\xf1SPQJRN\x01");
        let len = u32::from_le_bytes(bytes[40..44].try_into().unwrap()) as usize;
        if let Some(payload) = bytes.get(HEADER_BYTES..HEADER_BYTES + len) {
            let crc = crc32c::crc32c(payload);
            bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..48]);
        bytes[48..52].copy_from_slice(&crc.to_le_bytes());
    }
    if let Some(payload) = chunk(&bytes) {
        assert!(bytes[HEADER_BYTES..].starts_with(payload));
        assert_eq!(crc32c::crc32c(payload).to_le_bytes(), bytes[44..48]);
    }
}
