//! What receivers note, on a separate file system: each batch when it comes, and once more before it is answered.
//!
//! There is one file for each group. A note is a line that ends with ` .`, and notes that belong together are one write that
//! begins with a newline: a note that a kill tears can be distinguished from a whole one, and spoils nothing after it.
//!
//! ```text
//! B NS PID FIRST LAST ATTEMPT LINES .   a batch came, at this time of the machine's monotonic clock
//! L SEQ SOURCE NUMBER COUNT .           of it: lines that follow one another in seq and in number
//! X WHAT .                              something was wrong with it
//! E NS PID done|failed|rejected .       it is about to be answered like this
//! ```

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Lines that follow one another in seq and in number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first line's.
    pub seq: u64,
    /// Which writer's.
    pub source: u32,
    /// The first line's.
    pub number: u64,
    /// Lines.
    pub count: u64,
}

/// One batch that reached a receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// When it came.
    pub begun_ns: u64,
    /// The process that got it.
    pub pid: u32,
    /// Its first seq.
    pub first: u64,
    /// Its last seq.
    pub last: u64,
    /// The number of the attempt, as it was given.
    pub attempt: u32,
    /// Its lines.
    pub runs: Vec<Run>,
    /// What was wrong with it.
    pub complaints: Vec<String>,
    /// When it was about to be answered, and how. `None`: the receiver was ended before.
    pub answered: Option<(u64, bool)>,
}

/// The monotonic clock, the same in all processes.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// The file of a group's notes.
pub fn path(folder: &Path, group: &str) -> PathBuf {
    folder.join(format!("{group}.notes"))
}

/// The file that a receiver of a group in strict order holds locked while it has a batch.
pub fn lock_path(folder: &Path, group: &str) -> PathBuf {
    folder.join(format!("{group}.lock"))
}

fn append(folder: &Path, group: &str, text: &str) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(path(folder, group))?.write_all(text.as_bytes())
}

impl Delivery {
    /// Notes that it came.
    pub fn note_begin(&self, folder: &Path, group: &str) -> io::Result<()> {
        let lines: u64 = self.runs.iter().map(|run| run.count).sum();
        let mut text = format!(
            "\nB {} {} {} {} {} {lines} .\n",
            self.begun_ns, self.pid, self.first, self.last, self.attempt
        );
        for Run { seq, source, number, count } in &self.runs {
            // Writing to memory does not fail.
            let _ = writeln!(text, "L {seq} {source} {number} {count} .");
        }
        for what in &self.complaints {
            let _ = writeln!(text, "X {} .", what.replace('\n', " "));
        }
        append(folder, group, &text)
    }

    /// Notes how it is answered, before it is: `done`, `failed` or `rejected`.
    pub fn note_end(&self, folder: &Path, group: &str, word: &str) -> io::Result<()> {
        append(folder, group, &format!("\nE {} {} {word} .\n", now_ns(), self.pid))
    }
}

/// Reads the notes of a group, in the order in which they were written. Batches whose notes a kill has torn, before they
/// were answered, are left out.
pub fn read(folder: &Path, group: &str) -> io::Result<Vec<Delivery>> {
    match fs::read_to_string(path(folder, group)) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Vec<Delivery> {
    let mut found: Vec<Delivery> = Vec::new();
    let mut lines_left = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_suffix(" .")) {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let numbers: Vec<u64> = rest.split(' ').map_while(|word| word.parse().ok()).collect();
        match (kind, numbers.as_slice()) {
            ("B", [begun_ns, pid, first, last, attempt, lines]) => {
                found.push(Delivery {
                    begun_ns: *begun_ns,
                    pid: *pid as u32,
                    first: *first,
                    last: *last,
                    attempt: *attempt as u32,
                    ..Delivery::default()
                });
                lines_left.push(*lines);
            }
            ("L", [seq, source, number, count]) => {
                if let (Some(delivery), Some(left)) = (found.last_mut(), lines_left.last_mut()) {
                    *left = left.saturating_sub(*count);
                    let (seq, source, number, count) = (*seq, *source as u32, *number, *count);
                    delivery.runs.push(Run { seq, source, number, count });
                }
            }
            ("X", _) => {
                if let Some(delivery) = found.last_mut() {
                    delivery.complaints.push(rest.to_owned());
                }
            }
            ("E", [at, pid]) => {
                let of_it = |delivery: &&mut Delivery| u64::from(delivery.pid) == *pid;
                if let Some(delivery) = found.iter_mut().rev().find(of_it) {
                    delivery.answered = Some((*at, rest.ends_with("done")));
                }
            }
            _ => {}
        }
    }
    let whole = |(delivery, left): (Delivery, u64)| {
        (left == 0 || delivery.answered.is_some() || !delivery.complaints.is_empty()).then_some(delivery)
    };
    found.into_iter().zip(lines_left).filter_map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_tears_spoils_nothing_behind_it() {
        let whole = "\nB 5 1 10 12 2 3 .\nL 10 0 7 2 .\nL 12 1 0 1 .\n\nE 6 1 done .\n";
        let torn = "\nB 7 2 13 14 1 2 .\nL 13 0 9 1";
        let next = "\nB 8 3 13 14 1 2 .\nL 13 0 9 2 .\nX it is odd .\n\nE 9 3 failed .\n";
        let found = parse(&format!("{whole}{torn}{next}"));
        assert_eq!(found.iter().map(|delivery| delivery.pid).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(found.first().and_then(|delivery| delivery.answered), Some((6, true)));
        assert_eq!(found.last().and_then(|delivery| delivery.answered), Some((9, false)));
        assert_eq!(
            found.last().map(|delivery| delivery.complaints.clone()),
            Some(vec!["it is odd".to_owned()])
        );
        assert_eq!(found.first().map(|delivery| delivery.runs.len()), Some(2));
    }
}
