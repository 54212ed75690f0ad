//! The checkpoint of a followed file, as the log returns it.
//!
//! Whatever the bytes: one that decodes can be encoded, and is then the same for ever, and never longer than a record
//! may be. What repair makes of it for lines that end elsewhere is a checkpoint too, or a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq::tail::fuzzing::checkpoint_again;
use spillq::tail::{SourceRecord, remake};
use spillq_fuzz::Choices;
use spillq_storage::repair::SourceEnd;

const RECORD_BYTES_MAX: usize = 16 * 1_024;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let mut end = SourceEnd::default();
    end.end = choices.below(1 << 20) as u64;
    let len = choices.few(256).min(end.end as usize);
    end.before = choices.take(len).to_vec();
    end.start = choices.take(len).to_vec();
    let bytes = choices.0;
    if let Some(again) = checkpoint_again(bytes) {
        assert!(!again.is_empty() && again.len() <= RECORD_BYTES_MAX);
        assert_eq!(checkpoint_again(&again), Some(again));
    }
    for there in [Some(bytes), None] {
        if let Ok(Some(made)) = remake(&end, there) {
            assert_eq!(SourceRecord::decode(&made).unwrap().offset, end.end);
        }
    }
});
