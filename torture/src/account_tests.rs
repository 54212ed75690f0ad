//! The account passes where it is right, and finds each fault that is put into it.
#![allow(clippy::indexing_slicing, reason = "a test may stop at the first surprise")]

use super::*;

fn text(source: u32, number: u64, offset: u64) -> String {
    let mut out = Vec::new();
    line::write(&mut out, &Place { run: 1, source, number, file: number / 4, offset, poison: false }, "abc");
    String::from_utf8(out).unwrap().trim_end().to_owned()
}

/// Two writers, 8 lines each, 4 a file: the first files are gone for w1.
fn sound(loss: Loss) -> Account {
    let mut account = Account {
        run: 1,
        sent: vec![Vec::new(), Vec::new()],
        kept: Vec::new(),
        stored: Vec::new(),
        recorded: String::new(),
        counted: Counted::default(),
        loss,
        may_lose_sight: loss == Loss::Deleted,
        rotations: 1,
    };
    for source in 0..2 {
        let mut offset = 0;
        for number in 0..8 {
            offset = if number % 4 == 0 { 0 } else { offset };
            let text = text(source, number, offset);
            let bytes = text.len() as u64 + 1;
            account.sent[source as usize].push(Sent { file: number / 4, bytes });
            account.stored.push(Stored { text: text.clone(), offset, is_whole: true });
            if source == 0 || number >= 4 {
                account.kept.push(Kept { text, offset, is_whole: true });
            }
            offset += bytes;
        }
    }
    account
}

/// Lines 1 and 2 of w1 were destroyed before they were read.
fn destroyed(loss: Loss) -> Account {
    let mut account = sound(loss);
    account.stored.drain(9..11);
    account
}

/// The group was given what is stored.
fn record(account: &mut Account) {
    let end = |is_whole| if is_whole { "\n" } else { "" };
    let stored = account.stored.iter();
    account.recorded = stored.map(|stored| format!("{}{}", stored.text, end(stored.is_whole))).collect();
}

#[track_caller]
fn finds(start: Account, invariants: &[&str], fault: impl Fn(&mut Account)) {
    let mut account = start;
    fault(&mut account);
    record(&mut account);
    let (_, broken) = judge(&account);
    assert!(broken.iter().any(|what| what.starts_with(invariants[0])), "{invariants:?}: {broken:?}");
    assert!(broken.iter().all(|what| invariants.iter().any(|one| what.starts_with(one))), "{broken:?}");
}

#[track_caller]
fn passes(account: &Account) -> Sum {
    let mut account = account.clone();
    record(&mut account);
    let (sum, broken) = judge(&account);
    assert_eq!(broken, [""; 0]);
    sum
}

#[test]
fn a_sound_account_passes() {
    for loss in [Loss::Nothing, Loss::Truncated, Loss::Deleted] {
        assert_eq!(passes(&sound(loss)), Sum { stored: 16, saved: 4, ..Sum::default() });
    }
}

#[test]
fn a_line_that_is_missing_is_found() {
    finds(destroyed(Loss::Nothing), &["I1"], |_| {});
    finds(sound(Loss::Truncated), &["I2"], |account| drop(account.stored.remove(1)));
    finds(sound(Loss::Nothing), &["I2", "I1"], |account| drop(account.stored.remove(1)));
    // Two stretches, and one rotation.
    finds(sound(Loss::Truncated), &["I1"], |account| {
        account.stored.remove(10);
        account.stored.remove(8);
    });
    finds(destroyed(Loss::Truncated), &["I1"], |account| account.rotations = 0);
}

#[test]
fn a_line_that_is_stored_twice_or_late_or_that_nobody_wrote_is_found() {
    finds(sound(Loss::Nothing), &["I4"], |account| account.stored.push(account.stored[3].clone()));
    finds(sound(Loss::Nothing), &["I3"], |account| account.stored.swap(5, 6));
    finds(sound(Loss::Nothing), &["I2"], |account| {
        account.stored.push(Stored { text: text(1, 8, 0), offset: 0, is_whole: true });
    });
    finds(sound(Loss::Nothing), &["I2"], |account| account.run = 2);
    finds(sound(Loss::Truncated), &["I4"], |account| {
        account.stored.push(Stored { text: "t1 w0 4".to_owned(), offset: 0, is_whole: false });
    });
}

#[test]
fn an_offset_that_is_not_its_place_is_found() {
    finds(sound(Loss::Nothing), &["I5"], |account| account.stored[2].offset += 1);
    // The writer of a file that is truncated does not know it: the file says it.
    finds(sound(Loss::Truncated), &["I5"], |account| account.stored[2].offset += 1);
    passes(&{
        let mut account = sound(Loss::Truncated);
        (account.stored[2].offset, account.kept[2].offset) = (7, 7);
        account
    });
}

#[test]
fn a_line_in_two_files_and_what_is_no_line_are_found() {
    finds(sound(Loss::Nothing), &["I2"], |account| account.kept.push(account.kept[0].clone()));
    let torn = Kept { text: "t1 w0 4".to_owned(), offset: 0, is_whole: false };
    finds(sound(Loss::Nothing), &["I2"], |account| {
        account.kept.push(Kept { is_whole: true, ..torn.clone() });
    });
    // A copy ends with half a line: it may be stored, once.
    let mut account = sound(Loss::Truncated);
    account.kept.push(torn);
    passes(&account);
    let half = Stored { text: "t1 w0 4".to_owned(), offset: 0, is_whole: false };
    account.stored.push(half.clone());
    passes(&account);
    finds(account, &["I4"], |account| account.stored.push(half.clone()));
}

#[test]
fn what_is_counted_must_be_missing() {
    let account = destroyed(Loss::Truncated);
    let bytes = account.sent[1][1].bytes + account.sent[1][2].bytes;
    let count =
        |destroyed_bytes| move |account: &mut Account| account.counted.destroyed_bytes = destroyed_bytes;
    assert_eq!(passes(&account).missing, 2);
    let mut all = account.clone();
    count(bytes)(&mut all);
    assert_eq!(passes(&all).counted_bytes, bytes);
    finds(account.clone(), &["I9"], count(bytes + 1));
    finds(sound(Loss::Nothing), &["I9"], count(1));
    finds(account.clone(), &["I9"], |account| account.counted.lost_sight = 1);
    finds(account, &["I9"], |account| account.counted.rolled_back_bytes = 1);
}

#[test]
fn a_file_that_was_read_in_part_and_deleted_must_be_counted() {
    finds(destroyed(Loss::Deleted), &["I9"], |_| {});
    let mut account = destroyed(Loss::Deleted);
    account.counted.lost_sight = 1;
    assert_eq!(passes(&account).lost_sight, 1);
    // One that nobody saw is not known.
    let mut account = sound(Loss::Deleted);
    account.stored.drain(8..12);
    assert_eq!(passes(&account).missing, 4);
}

#[test]
fn lines_that_the_group_did_not_get_are_found() {
    let mut account = sound(Loss::Nothing);
    record(&mut account);
    account.recorded.truncate(account.recorded.len() - 1);
    let (_, broken) = judge(&account);
    assert!(broken.len() == 1 && broken[0].starts_with("I1 after line"), "{broken:?}");
}
