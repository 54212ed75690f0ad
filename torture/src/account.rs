//! An account of lines whose files were rotated: those that were written, those that files still have, and those that are
//! stored. Judging it is a function; its tests show that it finds each fault.
//!
//! | | what must hold |
//! |---|---|
//! | I1 | a line is missing only if the mode of rotation destroys lines, in at most one stretch for each rotation; what was delivered to the group is what is stored |
//! | I2 | every line that a file has is stored, and only lines that were written |
//! | I3 | lines of a writer are stored in the order in which it wrote them |
//! | I4 | no line is stored twice |
//! | I5 | the offset of a stored line is its place in the file, as the writer and the file say |
//! | I9 | losses are counted only for lines that are missing; a file that was read in part and is gone is counted |

use std::collections::{BTreeMap, BTreeSet};

use crate::line::{self, Place};
use crate::reopen::Sent;
use crate::words::{counted, is_or_are};

/// A line of a followed file.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Without its newline.
    pub text: String,
    /// Where it begins.
    pub offset: u64,
    /// It ends with a newline.
    pub is_whole: bool,
}

/// A line of the log.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Without its newline.
    pub text: String,
    /// Its place in its file.
    pub offset: u64,
    /// It has a newline.
    pub is_whole: bool,
}

/// What the service has counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Bytes that were destroyed before they were read.
    pub destroyed_bytes: u64,
    /// Files that are gone, and perhaps had more.
    pub lost_sight: u64,
    /// Bytes that are read again.
    pub rolled_back_bytes: u64,
}

/// Which lines may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// None.
    Nothing,
    /// Those written between the copy and the truncation: writers do not know where their files begin.
    Truncated,
    /// Those in a file that was deleted while the service was down.
    Deleted,
}

/// Everything known of a case.
#[derive(Clone, Debug)]
pub struct Account {
    /// Whose lines they are.
    pub run: u64,
    /// What each writer wrote.
    pub sent: Vec<Vec<Sent>>,
    /// What files have.
    pub kept: Vec<Kept>,
    /// What the log has, in its order.
    pub stored: Vec<Stored>,
    /// What a group has appended to its file.
    pub recorded: String,
    /// What was counted.
    pub counted: Counted,
    /// What may be missing.
    pub loss: Loss,
    /// Files may be gone without it being known whether all was read.
    pub may_lose_sight: bool,
    /// How often each file was rotated.
    pub rotations: u64,
}

/// The result of a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Lines that were stored.
    pub stored: u64,
    /// The stored lines that are in no file any more.
    pub saved: u64,
    /// Lines that are neither stored nor in a file.
    pub missing: u64,
    /// The bytes counted for them.
    pub counted_bytes: u64,
    /// Files of which lines are missing, as they were counted.
    pub lost_sight: u64,
}

/// Returns the result, and everything that is wrong.
pub fn judge(account: &Account) -> (Sum, Vec<String>) {
    let mut broken = Vec::new();
    let offsets = stored(account, &mut broken);
    let in_files = kept(account, &offsets, &mut broken);
    let missing = missing(account, &offsets, &mut broken);
    what_is_counted(account, &offsets, &missing, &mut broken);
    recorded(account, &mut broken);
    let sum = Sum {
        stored: offsets.len() as u64,
        saved: offsets.keys().filter(|line| !in_files.contains(line)).count() as u64,
        missing: missing.len() as u64,
        counted_bytes: account.counted.destroyed_bytes,
        lost_sight: account.counted.lost_sight,
    };
    (sum, broken)
}

/// A writer, and the number of its line.
type Line = (u32, u64);

/// The offset of each stored line.
fn stored(account: &Account, broken: &mut Vec<String>) -> BTreeMap<Line, u64> {
    // A copy may end inside a line; the part becomes a line.
    let mut torn: BTreeMap<&str, u64> = BTreeMap::new();
    for kept in account.kept.iter().filter(|kept| line::parse(&kept.text).is_err()) {
        *torn.entry(&kept.text).or_default() += 1;
    }
    let mut offsets = BTreeMap::new();
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    for Stored { text, offset, .. } in &account.stored {
        let place = match line::parse(text) {
            Ok(place) => place,
            Err(_) if torn.get_mut(text.as_str()).is_some_and(take) => continue,
            Err(what) => {
                broken.push(format!("I4 stored, and in no file: {what}"));
                continue;
            }
        };
        let Place { run, source, number, .. } = place;
        let is_known = sent(account, (source, number)).is_some();
        if run != account.run || !is_known {
            broken.push(format!("I2 line {number} of w{source}, run {run}, is stored, but was not written"));
        }
        if account.loss != Loss::Truncated && place.offset != *offset {
            broken
                .push(format!("I5 line {number} of w{source}: offset {offset}, but it is {}", place.offset));
        }
        if offsets.insert((source, number), *offset).is_some() {
            broken.push(format!("I4 line {number} of w{source} is stored twice"));
        } else if next.get(&source).is_some_and(|next| number < *next) {
            broken.push(format!("I3 line {number} of w{source} is stored after later ones"));
        }
        let next = next.entry(source).or_default();
        *next = (*next).max(number + 1);
    }
    offsets
}

fn take(count: &mut u64) -> bool {
    let any = *count > 0;
    *count = count.saturating_sub(1);
    any
}

fn sent(account: &Account, (source, number): Line) -> Option<Sent> {
    account.sent.get(source as usize)?.get(number as usize).copied()
}

/// The lines that files have.
fn kept(account: &Account, offsets: &BTreeMap<Line, u64>, broken: &mut Vec<String>) -> BTreeSet<Line> {
    let mut in_files = BTreeSet::new();
    for Kept { text, offset, is_whole } in &account.kept {
        let Ok(place) = line::parse(text) else {
            // A line that is written at once is torn only at the end of a copy.
            if *is_whole {
                broken.push(format!("I2 a file has something that is not a line: {text:?}"));
            }
            continue;
        };
        let Place { source, number, .. } = place;
        if !in_files.insert((source, number)) {
            broken.push(format!("I2 line {number} of w{source} is in two files: the campaign is wrong"));
        }
        match offsets.get(&(source, number)) {
            None => broken.push(format!("I2 line {number} of w{source} is in a file, and not stored")),
            Some(other) if other != offset => broken.push(format!(
                "I5 line {number} of w{source}: stored with offset {other}, in its file at {offset}"
            )),
            Some(_) => {}
        }
    }
    in_files
}

/// The lines that were written and are not stored.
fn missing(account: &Account, offsets: &BTreeMap<Line, u64>, broken: &mut Vec<String>) -> BTreeSet<Line> {
    let written = (0u32..)
        .zip(&account.sent)
        .flat_map(|(source, sent)| (0..sent.len() as u64).map(move |number| (source, number)));
    let missing: BTreeSet<Line> = written.filter(|line| !offsets.contains_key(line)).collect();
    for source in 0..account.sent.len() as u32 {
        let begins = |(_, number): &&Line| *number == 0 || !missing.contains(&(source, number - 1));
        let stretches = missing.range((source, 0)..=(source, u64::MAX)).filter(begins).count() as u64;
        let may = if account.loss == Loss::Nothing { 0 } else { account.rotations };
        if stretches > may {
            let first = missing.range((source, 0)..).next();
            broken.push(format!(
                "I1 {} of lines of w{source} {} missing, and {may} may: the first line is {first:?}",
                counted(stretches, "stretch"),
                is_or_are(stretches)
            ));
        }
    }
    missing
}

/// Each line was delivered to the group once, as it is stored.
fn recorded(account: &Account, broken: &mut Vec<String>) {
    let mut stored = String::new();
    for Stored { text, is_whole, .. } in &account.stored {
        stored.push_str(text);
        stored.push_str(if *is_whole { "\n" } else { "" });
    }
    if account.recorded != stored {
        let alike = account.recorded.lines().zip(stored.lines()).take_while(|(one, other)| one == other);
        broken.push(format!("I1 after line {} the group got something that is not stored", alike.count()));
    }
}

fn what_is_counted(
    account: &Account,
    offsets: &BTreeMap<Line, u64>,
    missing: &BTreeSet<Line>,
    broken: &mut Vec<String>,
) {
    let Counted { destroyed_bytes, lost_sight, rolled_back_bytes } = account.counted;
    let bytes: u64 = missing.iter().filter_map(|line| sent(account, *line)).map(|sent| sent.bytes).sum();
    if destroyed_bytes > bytes {
        broken
            .push(format!("I9 counted as destroyed: {}; missing: {bytes}", counted(destroyed_bytes, "byte")));
    }
    if rolled_back_bytes > 0 {
        broken.push(format!("I9 {} rolled back, but no disk lost power", counted(rolled_back_bytes, "byte")));
    }
    let file = |line: &Line| sent(account, *line).map(|sent| (line.0, sent.file));
    let lost: BTreeSet<_> = missing.iter().filter_map(file).collect();
    let read: BTreeSet<_> = offsets.keys().filter_map(file).collect();
    let in_part = lost.intersection(&read).count() as u64;
    if account.loss == Loss::Deleted && in_part > lost_sight {
        broken.push(format!(
            "I9 read in part and deleted: {}; counted: {lost_sight}",
            counted(in_part, "file")
        ));
    }
    if !account.may_lose_sight && lost_sight > 0 {
        broken.push(format!(
            "I9 counted as lost from sight: {}, but all were there",
            counted(lost_sight, "file")
        ));
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
