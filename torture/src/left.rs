//! What a power cut left of followed files, and what the log has of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::iter::Sum;
use std::path::{Path, PathBuf};

use crate::line::{self, Place};
use crate::service::{Program, Shown};
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;

/// The most that the tail reads of a file at first: up to here there may be no resume point.
pub const FIRST_READ: u64 = 1 << 20;
/// All lines of a recording, and many more.
const LINES_MAX: u64 = 10_000_000;

/// A followed file.
#[derive(Debug)]
pub struct Left {
    /// Where it is.
    pub path: PathBuf,
    /// Where its last whole line ends.
    pub end: u64,
    /// Its lines, each with its bytes.
    pub lines: Vec<(Place, u64)>,
}

/// Looks at all of them.
pub fn look(logs: &Path) -> Result<Vec<Left>> {
    let look = |path: PathBuf| {
        let bytes = fs::read(&path).during(path.display())?;
        let parse = |line: &[u8]| line::parse(String::from_utf8_lossy(line).trim_end_matches('\n')).ok();
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        // The last may be half a line.
        let lines = lines.filter_map(|line| Some((parse(line)?, line.len() as u64))).collect();
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
        Ok(Left { path, end, lines })
    };
    files(logs)?.into_iter().map(look).collect()
}

/// Cuts off what is torn, as careful writers do.
pub fn mend(logs: &Path) -> Result<()> {
    for path in files(logs)? {
        let bytes = fs::read(&path).during(path.display())?;
        let (end, _) = line::whole(&bytes);
        if end < bytes.len() as u64 {
            let file = File::options().write(true).open(&path).during(path.display())?;
            file.set_len(end).during(path.display())?;
        }
    }
    Ok(())
}

fn files(logs: &Path) -> Result<Vec<PathBuf>> {
    // The folder itself may be lost.
    if !logs.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(logs).during("list the followed files")?;
    entries.map(|entry| Ok(entry.during("list the followed files")?.path())).collect()
}

/// Bytes that a message says will be read again, with its path; `None` for other messages.
pub fn rolled_back(message: &str) -> Result<Option<(&str, u64)>> {
    if !message.contains("rolled back") {
        return Ok(None);
    }
    let word = |key: &str| message.split_whitespace().find_map(|word| word.strip_prefix(key));
    let number = |key: &str| word(key)?.parse::<u64>().ok();
    match (word("path="), number("from="), number("to=")) {
        (Some(path), Some(from), Some(to)) => Ok(Some((path, from.saturating_sub(to)))),
        _ => Err(Trouble::new(format!("a roll back does not report its offsets: {message}"))),
    }
}

/// Every line of a log that retains all of them, in order: its place, and its bytes.
pub fn logged(program: &Program, data_dir: &Path) -> Result<Vec<(Place, u64)>> {
    let read = |(at, shown): (usize, Shown)| {
        let Shown { seq, offset, text, .. } = shown;
        let text = text.unwrap_or_default();
        let place = line::parse(&text).map_err(|what| Trouble::new(format!("I4 seq {seq}: {what}")))?;
        if (seq, offset) != (at as u64 + 1, place.offset) {
            return Err(Trouble::new(format!(
                "I5 line {} of the log: seq {seq}, offset {offset}, {place:?}",
                at + 1
            )));
        }
        Ok((place, text.len() as u64 + 1))
    };
    program.inspect(data_dir, 1, LINES_MAX)?.into_iter().enumerate().map(read).collect()
}

/// Judges a log that grew from `before` to `after` with the files that were `left`, and its `messages`. Every line of the
/// files is there. A line comes again only from a file that lost lines that were read, within the bytes that were reported.
/// Lines rise within a file.
pub fn judge(before: &[(Place, u64)], after: &[(Place, u64)], left: &[Left], messages: &str) -> Result<Seen> {
    let Some(new) = after.strip_prefix(before) else {
        return Err(Trouble::new("I3 lines that were in the log are others now"));
    };
    let key = |place: &Place| (place.source, place.file);
    let line = |place: &Place| (place.source, place.number);
    let known: BTreeSet<(u32, u64)> = before.iter().map(|(place, _)| line(place)).collect();
    let mut read: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    for (place, bytes) in before {
        read.insert(key(place), place.offset + bytes);
    }
    let (mut again, mut lines_again) = (BTreeMap::<(u32, u64), u64>::new(), 0);
    let mut last: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    for (place, bytes) in new {
        if last.insert(key(place), place.number).is_some_and(|last| last >= place.number) {
            return Err(Trouble::new(format!("I3 the log went back to {place:?}")));
        }
        if known.contains(&line(place)) {
            *again.entry(key(place)).or_default() += bytes;
            lines_again += 1;
        }
    }
    let mut reported: BTreeMap<&str, u64> = BTreeMap::new();
    let mut times = 0;
    for message in messages.lines() {
        if let Some((path, bytes)) = rolled_back(message)? {
            *reported.entry(path).or_default() += bytes;
            times += 1;
        }
    }
    let stored: BTreeSet<(u32, u64)> = after.iter().map(|(place, _)| line(place)).collect();
    for Left { path, end, lines } in left {
        if let Some((missing, _)) = lines.iter().find(|(place, _)| !stored.contains(&line(place))) {
            return Err(Trouble::new(format!("I2 {missing:?} is in {}, but not in the log", path.display())));
        }
        let Some(of) = lines.first().map(|(place, _)| key(place)) else { continue };
        let again = again.remove(&of).unwrap_or_default();
        let read = read.get(&of).copied().unwrap_or_default();
        let may = match reported.get(path.display().to_string().as_str()) {
            _ if *end >= read => 0,
            Some(reported) => *reported,
            // It lost everything that could identify it: it is a new file.
            None if *end < FIRST_READ => *end,
            None => 0,
        };
        if again > may {
            return Err(Trouble::new(format!(
                "I4 {} of {} came again, {may} may: read {read}, left {end}",
                counted(again, "byte"),
                path.display()
            )));
        }
    }
    if let Some((of, bytes)) = again.pop_first() {
        return Err(Trouble::new(format!(
            "I4 {} came again of {of:?}, which is gone",
            counted(bytes, "byte")
        )));
    }
    let in_files: BTreeSet<(u32, u64)> =
        left.iter().flat_map(|left| left.lines.iter().map(|(place, _)| line(place))).collect();
    let saved = stored.difference(&in_files).count() as u64;
    Ok(Seen { left: in_files.len() as u64, saved, again: lines_again, rolled_back: times })
}

/// The results of cuts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Lines that files have in the end.
    pub left: u64,
    /// Lines that the log had, and no file has any more.
    pub saved: u64,
    /// Lines that are in the log once more.
    pub again: u64,
    /// Times that the service rolled back.
    pub rolled_back: u64,
}

impl Sum for Seen {
    fn sum<I: Iterator<Item = Seen>>(all: I) -> Seen {
        all.fold(Seen::default(), |a, b| Seen {
            left: a.left + b.left,
            saved: a.saved + b.saved,
            again: a.again + b.again,
            rolled_back: a.rolled_back + b.rolled_back,
        })
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { left, saved, again, rolled_back } = self;
        write!(
            f,
            "{} left in files, {saved} only in the log, {again} delivered twice, reported by {}",
            counted(*left, "line"),
            counted(*rolled_back, "roll back")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 10;

    /// Lines of file 0 of source 0, ten bytes each.
    fn lines(numbers: impl IntoIterator<Item = u64>) -> Vec<(Place, u64)> {
        let place =
            |number| Place { run: 1, source: 0, number, file: 0, offset: number * BYTES, poison: false };
        numbers.into_iter().map(|number| (place(number), BYTES)).collect()
    }

    /// The log had lines 0 to 9 before; now `new` follow them, and the file has its first `left`.
    fn judged(new: impl IntoIterator<Item = u64>, left: u64, said: &str) -> Result<Seen> {
        let file = Left { path: PathBuf::from("/l"), end: left * BYTES, lines: lines(0..left) };
        judge(&lines(0..10), &lines((0..10).chain(new)), &[file], said)
    }

    #[track_caller]
    fn check(judged: Result<Seen>, breach: &str) {
        let found = judged.err().map(|trouble| trouble.to_string()).unwrap_or_default();
        assert!(found.starts_with(breach), "{found} instead of {breach}");
    }

    #[test]
    fn each_kind_of_breach_is_found_out() {
        let seen = judged(10..12, 12, "").map(|seen| (seen.left, seen.saved, seen.again));
        assert_eq!(seen.ok(), Some((12, 0, 0)));
        let message = "WARN path=/l from=80 to=50 rolled back: resumed below";
        let seen = judged(5..8, 8, message).map(|seen| (seen.left, seen.saved, seen.again, seen.rolled_back));
        assert_eq!(seen.ok(), Some((8, 2, 3, 1)));
        check(judged(4..8, 8, message), "I4 40 bytes of /l came again, 30 may");
        check(judged(9..12, 12, ""), "I4 10 bytes of /l came again, 0 may");
        check(judged(9..12, 12, message), "I4 10 bytes of /l came again, 0 may");
        check(judged(10..11, 12, ""), "I2");
        check(judged([10, 12, 11], 13, ""), "I3 the log went back");
        check(judge(&lines(0..2), &lines([0, 2]), &[], ""), "I3 lines that were");
        check(judge(&lines(0..2), &lines([0, 1, 0]), &[], ""), "I4 10 bytes came again of");
        check(judged(8..10, 8, "WARN rolled back"), "a roll back does not report");
    }
}
