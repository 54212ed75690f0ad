//! Repairing a damaged store.
//!
//! Repair refuses only if nothing identifies the store. Otherwise the store opens afterwards, `verify` passes, a second repair
//! finds nothing, no seq is in two blocks or assigned again, and every line is as it was or named as lost. A dry run reports
//! the same and changes nothing. If MARK and the journal are damaged, or the journal and SPARE, less is known: lines at either
//! end may be missing silently. If dead letters are missing in `kept/`, repair reports that bytes of it cannot be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq_fuzz::Choices;
use spillq_fuzz::store::{Damage, append, options, remake, sample};
use spillq_storage::fuzzing::{Store, scan_blocks};
use spillq_storage::{Error, Seq};

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let sample = sample(choices.few(4));
    let store = sample.store.copy();
    let damage = Damage::apply(&store, &mut choices);
    let before = content(&store);
    let dry = store.repair(true, &mut remake);
    assert_eq!(content(&store), before, "a dry run changes nothing");
    let done = match store.repair(false, &mut remake) {
        Ok(done) => done,
        Err(Error::Damaged { what, .. })
            if damage.mark && damage.journal && what.contains("has the identity of the store") =>
        {
            return;
        }
        Err(error) => panic!("{error}: {damage:?}"),
    };
    let dry = dry.unwrap();
    assert_eq!((&dry.findings, &dry.losses), (&done.findings, &done.losses), "{damage:?}");
    let view = store.view().unwrap_or_else(|error| panic!("{error}: {damage:?}"));
    assert_eq!(view.verify(&mut |_| {}), [""; 0], "{damage:?}");
    let (state, mut reader) = (view.state(), view.reader());
    let is_end_known = !(damage.mark && damage.journal);
    let is_begin_known = !(damage.journal && damage.spare);
    let (first, next) = (state.first_seq(), state.next_seq());
    assert!(next >= sample.state.next_seq() || !is_end_known, "{next}: {damage:?}");
    for seq in sample.missing(&mut reader, &damage) {
        let is_named = state.losses().iter().any(|loss| loss.range.contains(seq));
        let is_unknown = seq < first && !is_begin_known || seq >= next && !is_end_known;
        // Which dead letters there were is in `kept/` alone.
        let is_letter = sample.letters.iter().any(|letter| letter.seq == seq)
            && done.findings.iter().any(|finding| finding.contains("kept/"));
        assert!(is_named || is_unknown || is_letter, "{seq} is not named: {:?}: {damage:?}", done.findings);
    }
    let mut last = Seq(0);
    for name in store.files().into_iter().filter(|name| name.starts_with("segments/")) {
        for (_, _, block) in scan_blocks(&store.read(&name).unwrap(), state.store()).0 {
            assert!(block.range().first > last, "{name}: {} is there twice: {damage:?}", block.range());
            last = block.range().last;
        }
    }
    // Behind what an older MARK and a torn journal know, opening cuts the file.
    assert!(last < next || !is_end_known, "{damage:?}");
    assert_eq!(store.copy().repair(false, &mut remake).unwrap().findings, [""; 0], "again: {damage:?}");
    let mut log = store.open(options()).unwrap_or_else(|error| panic!("{error}: {damage:?}"));
    assert_eq!(log.findings(), [""; 0], "{damage:?}");
    let mut offset = 1 << 20;
    assert_eq!(log.commit(&append(&mut offset, &[b"on\n".to_vec()])).unwrap().first, next);
});

fn content(store: &Store) -> Vec<(String, Option<Vec<u8>>)> {
    store.files().into_iter().map(|name| (name.clone(), store.read(&name))).collect()
}
