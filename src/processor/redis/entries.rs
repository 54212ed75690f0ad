//! A batch as scripts that add its lines to a stream. Each script is done whole or not at all.
//!
//! The id of an entry is `SEQ-0`. A line that comes after a line with a higher seq (a dead letter that is retried, a seek)
//! cannot have that id, because ids of a stream rise. It gets the id after the newest entry. Every entry has its seq in a
//! field.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use spillq_storage::{Line, SeqRange, SourceId};

use super::super::Piece;
use super::super::written::Written;
use super::resp::Command;

/// A script of this length blocks the server for about a millisecond.
const SCRIPT_LINES_MAX: usize = 1_000;
/// The longest script, of which the server makes a copy. A longer line has a script for itself.
const SCRIPT_BYTES_MAX: usize = 1024 * 1024;

const ADD: &str = include_str!("add.lua");

/// The id of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(pub(super) u64, pub(super) u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Id, String> {
        let parts = text.split_once('-').map(|(first, second)| (first.parse(), second.parse()));
        match parts {
            Some((Ok(first), Ok(second))) => Ok(Id(first, second)),
            _ => Err(format!("not the id of an entry: {text:?}")),
        }
    }
}

/// What the key says that the stream was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// These lines, which consumers may have removed since.
    pub(super) written: Written,
    /// The id of the newest of them.
    pub(super) last: Id,
}

/// What is the same for all scripts.
pub(super) struct Frame<'a> {
    pub(super) stream: &'a str,
    pub(super) key: &'a str,
    pub(super) owner: &'a str,
    pub(super) max_len: u64,
    pub(super) names: &'a BTreeMap<SourceId, String>,
}

/// Makes one script after the other; each continues from what the previous one leaves.
pub(super) struct Scripts<'a, L: Iterator<Item = (Line<'a>, SeqRange)>> {
    frame: Frame<'a>,
    lines: std::iter::Peekable<L>,
    pub(super) held: Held,
}

/// The scripts for `pieces`, whose lines the stream was not given yet.
pub(super) fn scripts<'a>(
    frame: Frame<'a>,
    pieces: &'a [Piece],
    held: Held,
) -> Scripts<'a, impl Iterator<Item = (Line<'a>, SeqRange)>> {
    let lines = |piece: &'a Piece| piece.lines().map(|line| (line, piece.covered_by(line.seq)));
    Scripts { frame, lines: pieces.iter().flat_map(lines).peekable(), held }
}

impl<'a, L: Iterator<Item = (Line<'a>, SeqRange)>> Iterator for Scripts<'a, L> {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        self.lines.peek()?;
        let before = self.held.clone();
        let mut entries = Command::default();
        let mut count = 0;
        while count < SCRIPT_LINES_MAX {
            let fits = |(line, _): &(Line<'_>, SeqRange)| {
                count == 0 || entries.byte_count() + line.bytes.len() <= SCRIPT_BYTES_MAX
            };
            let Some((line, covers)) = self.lines.next_if(fits) else { break };
            let last = &mut self.held.last;
            *last = if line.seq.0 > last.0 { Id(line.seq.0, 0) } else { Id(last.0, last.1 + 1) };
            push(&mut entries, *last, &line, self.frame.names);
            self.held.written.add(covers);
            count += 1;
        }
        Some(note(&self.frame, &before, &self.held, entries))
    }
}

/// The script that adds `entries` and changes the note, all of it or nothing.
pub(super) fn note(frame: &Frame<'_>, before: &Held, after: &Held, entries: Command) -> Command {
    let mut script = Command::default();
    for word in [
        "EVAL",
        ADD,
        "2",
        frame.stream,
        frame.key,
        frame.owner,
        &before.written.to_string(),
        &before.last.to_string(),
        &after.written.to_string(),
        &after.last.to_string(),
        &frame.max_len.to_string(),
    ] {
        script.push(word.as_bytes());
    }
    script.append(entries);
    script
}

fn push(entries: &mut Command, id: Id, line: &Line<'_>, names: &BTreeMap<SourceId, String>) {
    let seq = line.seq.0.to_string();
    let offset = line.offset.to_string();
    let source = names.get(&line.source).map_or("", String::as_str);
    let bytes = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
    let mut words: Vec<&[u8]> = vec![b"seq", seq.as_bytes(), b"source", source.as_bytes(), b"offset"];
    words.push(offset.as_bytes());
    if let Some(part) = line.flags.part() {
        words.extend([&b"part"[..], part.as_bytes()]);
    }
    words.extend([&b"line"[..], bytes]);
    entries.push(id.to_string().as_bytes());
    entries.push(words.len().to_string().as_bytes());
    words.into_iter().for_each(|word| entries.push(word));
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    fn held(written: &str, last: &str) -> Held {
        Held { written: written.parse().unwrap(), last: last.parse().unwrap() }
    }

    /// What is held after each script for lines from seq 10 on.
    fn after(texts: &[&[u8]], before: Held) -> Vec<Held> {
        let block = sample::block(10, texts);
        let pieces = sample::pieces(&block, &[(10, 9 + texts.len() as u64)], Piece::new);
        let names = BTreeMap::new();
        let frame = Frame { stream: "s", key: "spillq:{s}", owner: "1-7-0", max_len: 0, names: &names };
        let mut scripts = scripts(frame, &pieces, before);
        let mut found = Vec::new();
        while scripts.next().is_some() {
            found.push(scripts.held.clone());
        }
        found
    }

    #[test]
    fn ids_are_seqs_and_a_late_line_gets_the_id_after_the_newest() {
        assert_eq!(after(&[b"a", b"b"], Held::default()), [held("10-11", "11-0")]);
        assert_eq!(after(&[b"a", b"b"], held("1-9", "9-0")), [held("1-11", "11-0")]);
        assert_eq!(after(&[b"a", b"b"], held("1-9,12-20", "20-0")), [held("1-20", "20-2")]);
        assert_eq!(after(&[b"a", b"b"], held("1-9,11", "10-3")), [held("1-11", "11-0")]);
        for text in ["", "7", "7-", "-7", "7-x", "7-0-0"] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }

    #[test]
    fn scripts_are_bounded_and_a_long_line_has_a_script_for_itself() {
        let long = vec![b'x'; SCRIPT_BYTES_MAX + 1];
        let found = after(&[b"a", &long, &long, b"b", b"c"], Held::default());
        let lasts: Vec<u64> = found.iter().map(|held| held.last.0).collect();
        assert_eq!(lasts, [10, 11, 12, 14]);
        let many = vec![&b"x"[..]; SCRIPT_LINES_MAX + 1];
        assert_eq!(after(&many, Held::default()).len(), 2);
    }
}
