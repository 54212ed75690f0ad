//! The records next to a destination file.
//!
//! Whatever the bytes, with the checksum made right or not: a record or an intent that decodes is the same after it was
//! encoded and decoded again, and fits in its slot.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq::processor::fuzzing::sidecar_again;
use spillq_fuzz::Choices;

const SLOT_BYTES: usize = 4_096;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let (how, ranges) = (choices.few(3), choices.few(256) as u32);
    let mut bytes = choices.0.to_vec();
    match how {
        0 if bytes.len() >= 48 => {
            bytes[..8].copy_from_slice(b"SPQF\x01\0\0\0");
            bytes[44..48].copy_from_slice(&ranges.to_le_bytes());
            bytes.truncate(48 + 16 * ranges as usize);
        }
        1 if bytes.len() >= 32 => {
            bytes.truncate(32);
            bytes[..8].copy_from_slice(b"SPQI\x01\0\0\0");
        }
        _ => {}
    }
    if how < 2 {
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    }
    for (which, again) in sidecar_again(&bytes).into_iter().enumerate() {
        let Some(again) = again else { continue };
        assert!(again.len() <= SLOT_BYTES);
        assert_eq!(sidecar_again(&again)[which], Some(again.clone()));
    }
});
