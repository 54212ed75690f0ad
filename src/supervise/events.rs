//! EVENTS: the record of the supervisor, a ring of fixed size next to the store, which survives if the store fails.
//!
//! docs/explanation/supervision.md has the format, and what a kill leaves of it. It is never synced: the sync would hang
//! together with the disk that the event is about, and the page cache survives the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spillq_storage::Error;

use super::commands::Started;
use crate::cgroup::OomCount;
use crate::plain::{beginning, harmless};
use crate::queue::Discarded;

/// The name in the data dir.
const NAME: &str = "EVENTS";
/// Enough for a day of a group whose state changes every three minutes.
const SLOTS: u64 = 512;
const SLOT_BYTES: usize = 2_048;
const HEAD_BYTES: usize = 16;
const TEXT_BYTES_MAX: usize = SLOT_BYTES - HEAD_BYTES;
/// The bytes of an entry in addition to its event: its time.
const ENTRY_BYTES: usize = 64;
/// The maximum of one text in an event. JSON may write a byte as two.
const FIELD_BYTES_MAX: usize = 440;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Event {
    /// The service has opened the store.
    Start {
        run: u64,
        pid: u32,
        boot: String,
        oom: Option<OomCount>,
        /// How. Earlier versions did not record it.
        #[serde(default)]
        started: Started,
    },
    /// The service stopped cleanly.
    Stop { run: u64 },
    /// The state or cause of a group has changed; with an empty group, a cause of the log.
    Changed {
        group: String,
        from: String,
        to: String,
        cause: Option<String>,
        first_seq: u64,
        last_seq: u64,
        summary: String,
    },
    /// A delivery failed: the summary, and the end of standard error.
    Failure { group: String, summary: String, stderr: String },
    /// An operator discarded lines, by this operation.
    Discarded { group: String, lines: u64, by: String },
    /// The service was stuck, and ended itself.
    Watchdog { run: u64, summary: String },
}

/// An event with its number and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1.
    #[serde(skip)]
    pub number: u64,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// The ring, open for writing. The process that has locked the store is the only writer.
#[derive(Debug)]
pub struct Events {
    file: File,
    path: PathBuf,
    next: u64,
}

impl Event {
    /// The event for lines that an operator discarded.
    #[must_use]
    pub fn of_discarded(discarded: &Discarded) -> Event {
        let Discarded { group, lines, by, .. } = discarded;
        Event::Discarded { group: group.clone(), lines: *lines, by: by.to_string() }
    }
}

impl Events {
    /// Opens the ring of a data dir, or creates it. Also returns its entries, the oldest first.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open(data_dir: &Path) -> Result<(Events, Vec<Entry>), Error> {
        let path = data_dir.join(NAME);
        let open = || {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            let entries = read(&mut file)?;
            let bytes = SLOTS * SLOT_BYTES as u64;
            if file.metadata()?.len() != bytes {
                // Zeros, not a hole: it must be writable when the disk is full.
                file.write_all_at(&vec![0; SLOTS as usize * SLOT_BYTES], 0)?;
                file.set_len(bytes)?;
            }
            Ok((file, entries))
        };
        let (file, entries) = open().map_err(|source| failed("open", &path, source))?;
        let next = entries.last().map_or(1, |last| last.number + 1);
        Ok((Events { file, path, next }, entries))
    }

    /// The entries of a data dir, the oldest first; none if there is no ring. Read-only.
    ///
    /// # Errors
    /// Of the file system.
    pub fn look(data_dir: &Path) -> Result<Vec<Entry>, Error> {
        let path = data_dir.join(NAME);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            opened => {
                opened.and_then(|mut file| read(&mut file)).map_err(|source| failed("read", &path, source))
            }
        }
    }

    /// Overwrites the oldest event. The new one survives a kill of the process, but not an immediate power cut.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&mut self, time_ms: u64, event: Event) -> Result<(), Error> {
        let entry = Entry { number: self.next, time_ms, event: cut(event) };
        let write = || {
            let text = serde_json::to_vec(&entry).map_err(io::Error::other)?;
            let slot = encode(self.next, &text)
                .ok_or_else(|| io::Error::other("an event is longer than its slot"))?;
            self.file.write_all_at(&slot, (self.next % SLOTS) * SLOT_BYTES as u64)
        };
        write().map_err(|source| failed("write to", &self.path, source))?;
        self.next += 1;
        Ok(())
    }
}

fn failed(attempted: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { attempted, path: path.to_owned(), source }
}

fn encode(number: u64, text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let mut rest = Vec::with_capacity(SLOT_BYTES);
    rest.extend((text.len() as u32).to_le_bytes());
    rest.extend(number.to_le_bytes());
    rest.extend(text);
    let mut slot = crc32c::crc32c(&rest).to_le_bytes().to_vec();
    slot.append(&mut rest);
    Some(slot)
}

fn decode(slot: &[u8]) -> Option<Entry> {
    let (crc, rest) = slot.split_first_chunk::<4>()?;
    let (length, body) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if crc32c::crc32c(rest.get(..12 + length)?) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (number, text) = body.split_first_chunk::<8>()?;
    let number = u64::from_le_bytes(*number);
    let entry: Entry = serde_json::from_slice(text.get(..length)?).ok()?;
    (number > 0).then_some(Entry { number, ..entry })
}

fn read(file: &mut File) -> io::Result<Vec<Entry>> {
    let mut bytes = Vec::new();
    file.take(SLOTS * SLOT_BYTES as u64).read_to_end(&mut bytes)?;
    let mut entries: Vec<Entry> = bytes.chunks(SLOT_BYTES).filter_map(decode).collect();
    entries.sort_by_key(|entry| entry.number);
    Ok(entries)
}

/// The event with its texts cut to fit. Of standard error the end remains, of a sentence the beginning.
fn cut(event: Event) -> Event {
    match event {
        Event::Failure { group, summary, stderr } => {
            Event::Failure { group, summary: begin(summary), stderr: end(stderr) }
        }
        Event::Changed { group, from, to, cause, first_seq, last_seq, summary } => {
            Event::Changed { group, from, to, cause, first_seq, last_seq, summary: begin(summary) }
        }
        Event::Start { run, pid, boot, oom, started } => {
            let (boot_text, oom_count) = (boot.clone(), oom.clone());
            let rest =
                Event::Start { run, pid, boot: boot_text, oom: oom_count, started: Started::default() };
            let taken = serde_json::to_vec(&rest).map_or(TEXT_BYTES_MAX, |rest| rest.len() + ENTRY_BYTES);
            let started = started.within(TEXT_BYTES_MAX.saturating_sub(taken));
            Event::Start { run, pid, boot, oom, started }
        }
        other => other,
    }
}

fn begin(text: String) -> String {
    beginning(harmless(&text), FIELD_BYTES_MAX)
}

fn end(text: String) -> String {
    let text = harmless(&text);
    text[text.ceil_char_boundary(text.len().saturating_sub(FIELD_BYTES_MAX))..].to_owned()
}

/// The id of the current boot of the host.
pub(super) fn boot_id() -> String {
    // If it cannot be read, all boots look the same, and only the counters of cgroups decide.
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(run: u64) -> Event {
        Event::Stop { run }
    }

    #[test]
    fn the_newest_events_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (mut events, before) = Events::open(dir.path()).unwrap();
        assert!(before.is_empty());
        for run in 1..=SLOTS + 10 {
            events.write(run, stop(run)).unwrap();
        }
        drop(events);
        let (mut events, entries) = Events::open(dir.path()).unwrap();
        let numbers: Vec<u64> = entries.iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, (11..=SLOTS + 10).collect::<Vec<_>>());
        events.write(0, stop(0)).unwrap();
        assert_eq!(Events::look(dir.path()).unwrap().last().unwrap().number, SLOTS + 11);
        assert_eq!(std::fs::metadata(dir.path().join(NAME)).unwrap().len(), SLOTS * SLOT_BYTES as u64);
    }

    #[test]
    fn a_torn_event_is_skipped_and_the_others_are_read() {
        for keep in 0..HEAD_BYTES + 20 {
            let dir = tempfile::tempdir().unwrap();
            let (mut events, _) = Events::open(dir.path()).unwrap();
            events.write(1, stop(1)).unwrap();
            events.write(2, stop(2)).unwrap();
            let torn = vec![0; SLOT_BYTES - keep];
            events.file.write_all_at(&torn, 2 * SLOT_BYTES as u64 + keep as u64).unwrap();
            let runs: Vec<Event> =
                Events::look(dir.path()).unwrap().into_iter().map(|entry| entry.event).collect();
            assert_eq!(runs, [stop(1)], "{keep}");
        }
    }

    #[test]
    fn a_start_fits_in_a_slot_however_long_its_command_line_is() {
        let dir = tempfile::tempdir().unwrap();
        let (mut events, _) = Events::open(dir.path()).unwrap();
        let oom =
            Some(OomCount { file: format!("/sys/fs/cgroup/{}", "kubepods/".repeat(27)), kills: u64::MAX });
        for typed in ["run", &"\u{1b}\"\\".repeat(2_000), &"x".repeat(1_300)] {
            let started =
                Started { typed: typed.to_owned(), processor: typed.to_owned(), ..Started::default() };
            let boot = "b".repeat(36);
            let start = Event::Start { run: u64::MAX, pid: u32::MAX, boot, oom: oom.clone(), started };
            events.write(u64::MAX, start).unwrap();
        }
        let has_command: Vec<bool> = Events::look(dir.path())
            .unwrap()
            .into_iter()
            .map(|entry| matches!(entry.event, Event::Start { started, .. } if !started.typed.is_empty()))
            .collect();
        assert_eq!(has_command, [true, false, false]);
    }

    #[test]
    fn long_and_hostile_texts_fit_in_a_slot() {
        let dir = tempfile::tempdir().unwrap();
        let (mut events, _) = Events::open(dir.path()).unwrap();
        let hostile = "\u{1}\"\\\u{e9}\n".repeat(10_000);
        let group = "g".repeat(64);
        events
            .write(u64::MAX, Event::Failure { group, summary: hostile.clone(), stderr: hostile + "end" })
            .unwrap();
        let last = Events::look(dir.path()).unwrap().pop().unwrap();
        let Event::Failure { summary, stderr, .. } = last.event else { panic!("{last:?}") };
        assert!(summary.len() <= FIELD_BYTES_MAX && stderr.ends_with("end"), "{summary} {stderr}");
    }
}
