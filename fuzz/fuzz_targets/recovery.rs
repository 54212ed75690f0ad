//! Opening a damaged store.
//!
//! `verify` without a finding means that everything is there as it was; then opening agrees, and the next line has the
//! next seq. Otherwise there is an error, or findings. Opening refuses what `verify` cannot open. A line is never
//! replaced by another. With MARK *and* the journal damaged nothing shows how much there was: then only the last sentence
//! holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq_fuzz::Choices;
use spillq_fuzz::store::{Damage, append, options, sample};

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let sample = sample(choices.few(4));
    let store = sample.store.copy();
    let damage = Damage::apply(&store, &mut choices);
    let is_double = damage.mark && damage.journal;
    let (findings, is_refused) = match store.view() {
        Err(error) => (vec![error.to_string()], true),
        Ok(view) => {
            let findings = view.verify(&mut |_| {});
            let missing = sample.missing(&mut view.reader(), &damage);
            assert!(missing.is_empty() || is_double || !findings.is_empty(), "{missing:?}: {damage:?}");
            let is_told = !findings.is_empty() || sample.is_whole(&view);
            assert!(is_told || is_double, "silent: {damage:?}");
            (findings, false)
        }
    };
    let mut log = match store.open(options()) {
        Ok(log) => log,
        Err(error) => {
            assert!(!findings.is_empty(), "verify is content, and opening says {error}: {damage:?}");
            return;
        }
    };
    assert!(!is_refused, "opened in spite of {findings:?}: {damage:?}");
    let missing = sample.missing(&mut log.reader(), &damage);
    if is_double {
        return;
    }
    assert!(missing.is_empty() || !findings.is_empty(), "{missing:?}: {damage:?}");
    assert!(log.findings().is_empty() || !findings.is_empty(), "{:?}: {damage:?}", log.findings());
    assert_eq!(log.state().next_seq(), sample.state.next_seq(), "{damage:?}");
    assert_eq!(log.state().groups().len(), sample.state.groups().len(), "{damage:?}");
    let mut offset = 1 << 20;
    let committed = log.commit(&append(&mut offset, &[b"on\n".to_vec()])).unwrap();
    assert_eq!(committed.first, sample.state.next_seq(), "a seq is used twice: {damage:?}");
});
