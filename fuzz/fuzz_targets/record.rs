//! The records of the log: commits of a journal (manifests among them), SPARE and the manifest of a backup, dead
//! letters, and the chunks that a journal is cut into.
//!
//! Whatever the bytes, with the checksum of the frame made right or not, and of any version: a record that decodes is
//! the same after it was encoded in today's layout and decoded again, within the bound on memory whatever lengths it
//! claims.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq_fuzz::Choices;
use spillq_storage::fuzzing::{Of, chunk, record};

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let of = [Of::Commit, Of::State, Of::DeadLetter].get(choices.few(4)).copied();
    // 0: the frame is what the bytes say. Most frames have a version that is read.
    let frame = choices.few(8) as u8;
    match (of, frame) {
        (None, frame) => check_chunk(choices.0, frame > 0),
        (Some(of), 0) => check(of, choices.0),
        (Some(of), 7) => check(of, &framed(3, choices.0)),
        (Some(of), frame) => check(of, &framed(1 + frame % 2, choices.0)),
    }
});

fn framed(version: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![version];
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
