//! MARK.
//!
//! Whatever its bytes: what it says is the newer of those slots that have the right checksum, and nothing without one;
//! a slot of a later format is never overruled. A write that is torn anywhere leaves the mark before it or its own,
//! because slots are written in turn.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq_fuzz::Choices;
use spillq_storage::fuzzing::{Says, Store};
use spillq_storage::{Seq, StoreId};

const SLOT_BYTES: usize = 64;
const SLOTS: [usize; 2] = [0, 4_096];
/// Format versions that are read.
const READ: [u32; 3] = [1, 2, 3];

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    match choices.few(2) {
        0 => any(&mut choices),
        _ => torn(&mut choices),
    }
});

fn any(choices: &mut Choices<'_>) {
    let (sealed, len) = (choices.byte(), choices.below(2 * SLOTS[1] + 1));
    let mut bytes = vec![0; 2 * SLOTS[1]];
    for (nth, at) in SLOTS.into_iter().enumerate() {
        let slot = choices.take(SLOT_BYTES);
        bytes[at..at + slot.len()].copy_from_slice(slot);
        if sealed & 1 << nth > 0 {
            let crc = crc32c::crc32c(&bytes[at + 4..at + SLOT_BYTES]);
            bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    if sealed & 4 > 0 {
        bytes.truncate(len);
    }
    let slots: Vec<&[u8]> = SLOTS
        .into_iter()
        .filter_map(|at| bytes.get(at..at + SLOT_BYTES))
        .filter(|slot| crc32c::crc32c(&slot[4..]).to_le_bytes() == slot[..4])
        .collect();
    let number = |slot: &[u8], at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().unwrap());
    let version = |slot: &[u8]| u32::from_le_bytes(slot[4..8].try_into().unwrap());
    let store = Store::default();
    store.write("MARK", &bytes).unwrap();
    match store.mark().unwrap() {
        Says::Nothing => assert!(slots.is_empty()),
        Says::Version(found) => {
            assert!(!READ.contains(&found) && slots.iter().any(|slot| version(slot) == found));
        }
        Says::Mark { store, journal, commit, next_seq } => {
            assert!(slots.iter().all(|slot| READ.contains(&version(slot)) && number(slot, 24) <= commit));
            let said = [store.0, journal, commit, next_seq.0];
            assert!(slots.iter().any(|slot| [8, 16, 24, 32].map(|at| number(slot, at)) == said));
        }
    }
}

fn torn(choices: &mut Choices<'_>) {
    let store = Store::default();
    store.write("MARK", &[0; 2 * SLOTS[1]]).unwrap();
    let mut marks = Vec::new();
    let (mut commit, mut before) = (u64::from(choices.byte()), Vec::new());
    for _ in 0..2 + choices.few(3) {
        commit += 1;
        let (id, journal, next) = (StoreId(7), choices.below(9) as u64, Seq(choices.below(1 << 20) as u64));
        before = store.read("MARK").unwrap();
        store.set_mark(id, journal, commit, next).unwrap();
        marks.push(Says::Mark { store: id, journal, commit, next_seq: next });
        assert_eq!(store.mark().unwrap(), marks[marks.len() - 1]);
    }
    let after = store.read("MARK").unwrap();
    let cut = (commit % 2) as usize * SLOTS[1] + choices.few(SLOT_BYTES + 1);
    store.write("MARK", &[&after[..cut], &before[cut..]].concat()).unwrap();
    let said = store.mark().unwrap();
    assert!(marks[marks.len() - 2..].contains(&said), "{said:?} of {marks:?}, torn at {cut}");
}
