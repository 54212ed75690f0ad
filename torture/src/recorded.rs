//! The lines of rotated files in the log and in files, and the losses that the service reported.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::account::{Counted, Kept, Stored};
use crate::left;
use crate::line;
use crate::service::{Program, Shown};
use crate::trouble::{During, Result, Trouble};

/// All lines of a case, and many more.
const LINES_MAX: u64 = 1_000_000;

/// The file of a group that appends, which is read as it grows.
#[derive(Debug)]
pub struct Recorded {
    path: PathBuf,
    read: u64,
    /// Of each writer: one more than the highest number that was recorded.
    pub next: BTreeMap<u32, u64>,
}

impl Recorded {
    /// Of this file, which need not exist.
    pub fn new(path: PathBuf) -> Recorded {
        Recorded { path, read: 0, next: BTreeMap::new() }
    }

    /// Continues to read, whole lines.
    pub fn read(&mut self) -> Result<()> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            file => file.during("open what was recorded")?,
        };
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(self.read))
            .and_then(|_| file.read_to_end(&mut text))
            .during("read what was recorded")?;
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        text.truncate(end);
        self.read += end as u64;
        // The judge finds lines of others in the end.
        for place in String::from_utf8_lossy(&text).lines().filter_map(|text| line::parse(text).ok()) {
            let next = self.next.entry(place.source).or_default();
            *next = (*next).max(place.number + 1);
        }
        Ok(())
    }

    /// All of it.
    pub fn text(&self) -> Result<String> {
        fs::read_to_string(&self.path).during("read what was recorded")
    }
}

/// The lines of a file, each with its offset; the last perhaps without an end.
pub fn lines(text: &str) -> Vec<Kept> {
    let mut offset = 0;
    let line = |line: &str| {
        let at = offset;
        offset += line.len() as u64;
        Kept { text: line.trim_end_matches('\n').to_owned(), offset: at, is_whole: line.ends_with('\n') }
    };
    text.split_inclusive('\n').map(line).collect()
}

/// Of each writer: one more than the number of its last line in a file.
pub fn ends(kept: &[Kept]) -> BTreeMap<u32, u64> {
    let mut ends = BTreeMap::new();
    for place in kept.iter().filter_map(|kept| line::parse(&kept.text).ok()) {
        let end = ends.entry(place.source).or_default();
        *end = place.number.saturating_add(1).max(*end);
    }
    ends
}

/// The file of a group that appends: every line of each of these sources once and in order, and of no other.
pub fn judge(file: &Path, written: &BTreeMap<u32, u64>) -> Result<Vec<String>> {
    let mut next: BTreeMap<u32, u64> = written.keys().map(|source| (*source, 0)).collect();
    let mut broken = Vec::new();
    for text in BufReader::new(File::open(file).during("open what was recorded")?).lines() {
        match line::parse(&text.during("read what was recorded")?) {
            Ok(place) => {
                let Some(expected) = next.get_mut(&place.source) else {
                    broken.push(format!(
                        "I4 recorded: line {} of w{}, which is another's",
                        place.number, place.source
                    ));
                    continue;
                };
                if place.number != *expected {
                    broken.push(format!(
                        "I4 recorded: line {} of w{}, not {expected}",
                        place.number, place.source
                    ));
                }
                *expected = place.number + 1;
            }
            Err(what) => broken.push(format!("I4 recorded: {what}")),
        }
    }
    if next != *written {
        broken.push(format!("I1 recorded: {next:?} lines of each source, of {written:?}"));
    }
    Ok(broken)
}

/// Every line of a stopped log that retains all of them.
pub fn stored(program: &Program, data_dir: &Path) -> Result<Vec<Stored>> {
    let read = |Shown { seq, offset, text, unterminated, .. }: Shown| {
        let text = text.ok_or_else(|| Trouble::new(format!("I4 seq {seq} is not text")))?;
        Ok(Stored { text, offset, is_whole: !unterminated })
    };
    program.inspect(data_dir, 1, LINES_MAX)?.into_iter().map(read).collect()
}

/// The losses that the service logged in all its runs: the counters of its status end with a run.
pub fn counted(messages: &str) -> Result<Counted> {
    let mut counted = Counted::default();
    for message in messages.lines() {
        if let Some((_, bytes)) = left::rolled_back(message)? {
            counted.rolled_back_bytes += bytes;
        } else if message.contains("were destroyed before they were read") {
            counted.destroyed_bytes += number(message, "bytes=")?;
        } else if message.contains("the content of a file is gone, ") {
            counted.lost_sight += 1;
        }
    }
    Ok(counted)
}

fn number(message: &str, key: &str) -> Result<u64> {
    let word = message.split_whitespace().find_map(|word| word.strip_prefix(key));
    let number = word.and_then(|word| word.parse().ok());
    number.ok_or_else(|| Trouble::new(format!("a loss without {key} {message}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::Place;

    #[test]
    fn lines_of_a_file_have_their_places() {
        let lines = lines("a\nbc\nd");
        let seen: Vec<(&str, u64, bool)> =
            lines.iter().map(|kept| (kept.text.as_str(), kept.offset, kept.is_whole)).collect();
        assert_eq!(seen, [("a", 0, true), ("bc", 2, true), ("d", 5, false)]);
    }

    #[test]
    fn losses_are_read_from_messages() {
        let text = "WARN the content of a file is gone, not seen since the start: what was written path=/l offset=7\n\
            ERROR 30 B were destroyed before they were read path=/l offset=7 bytes=30\n\
            WARN rolled back path=/l from=50 to=10\nERROR 4 B were destroyed before they were read bytes=4\n";
        let counted = counted(text).unwrap();
        let Counted { destroyed_bytes, lost_sight, rolled_back_bytes } = counted;
        assert_eq!((destroyed_bytes, lost_sight, rolled_back_bytes), (34, 1, 40));
        assert!(super::counted("bytes were destroyed before they were read").is_err());
    }

    /// Lines of these writers and numbers, each as long as the others.
    fn file(lines: &[(u32, u64)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = Vec::new();
        for (source, number) in lines.iter().copied() {
            line::write(
                &mut bytes,
                &Place { run: 1, source, number, file: 0, offset: 0, poison: false },
                "abc",
            );
        }
        fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn each_line_of_these_writers_is_recorded_once_in_order_and_none_of_others() {
        let written = BTreeMap::from([(0, 2), (1, 1)]);
        let broken = |lines: &[(u32, u64)]| judge(file(lines).path(), &written).unwrap();
        assert!(broken(&[(0, 0), (1, 0), (0, 1)]).is_empty());
        for (lines, what) in [
            (&[(0, 0), (0, 1)][..], "I1 recorded: {0: 2, 1: 0} lines of each source, of {0: 2, 1: 1}"),
            (&[(0, 1), (0, 0), (0, 1), (1, 0)], "I4 recorded: line 1 of w0, not 0"),
            (&[(0, 0), (0, 1), (0, 1), (1, 0)], "I4 recorded: line 1 of w0, not 2"),
            (&[(0, 0), (0, 1), (2, 0), (1, 0)], "I4 recorded: line 0 of w2, which is another's"),
        ] {
            assert_eq!(broken(lines).first().map(String::as_str), Some(what));
        }
    }
}
