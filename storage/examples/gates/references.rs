//! Commits that reference their bytes: the trial behind docs/decisions/0009-commits-reference-their-bytes.md.
//!
//! A commit is some blocks of random bytes and a record of 100 bytes that stands for checkpoints. It is durable
//! - `inline`: as the log has it today: the blocks are values of sled, one batch, one sync; another thread copies them to a
//!   segment, which is synced before the journal that has them is removed;
//! - `first`: the blocks are written to a segment, which is synced; then one batch with a reference to each, one sync;
//! - `together`: the same, but both are synced at the same time;
//! - `ahead`: as `first`, but while sled is synced, the blocks of the next commit are written and synced.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Journal, MIB, Noise, Result, VALUE_MAX, key, open, proc_field, spread, timed};

/// About what a block of 256 KiB of lines is when it is compressed.
const BLOCK: usize = 64 * 1024;
const SEGMENT: u64 = 64 * MIB as u64;
/// Bytes that are in the journal when the next one begins, as in the log.
const JOURNAL: usize = 5 * MIB;
const CHECKPOINTS: [u8; 100] = [7; 100];
const REFERENCE: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Inline,
    First,
    Together,
    Ahead,
}

impl FromStr for How {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<How, String> {
        match word {
            "inline" => Ok(How::Inline),
            "first" => Ok(How::First),
            "together" => Ok(How::Together),
            "ahead" => Ok(How::Ahead),
            _ => Err(format!("inline, first, together or ahead, not {word}")),
        }
    }
}

/// Where a block is, and what it must be.
#[derive(Clone, Copy, Debug)]
struct Reference {
    segment: u32,
    offset: u64,
    len: u32,
    crc: u32,
}

impl Reference {
    fn bytes(self) -> [u8; REFERENCE] {
        let mut bytes = [0; REFERENCE];
        bytes[..4].copy_from_slice(&self.segment.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.offset.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.len.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Reference> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let offset = u64::from_le_bytes(bytes.get(4..12)?.try_into().ok()?);
        Some(Reference { segment: word(0)?, offset, len: word(12)?, crc: word(16)? })
    }

    /// Whether the segment holds these bytes.
    fn is_there(self, dir: &Path) -> bool {
        let mut bytes = vec![0; self.len as usize];
        let file = File::open(segment_path(dir, self.segment));
        file.and_then(|file| file.read_exact_at(&mut bytes, self.offset)).is_ok()
            && crc32c::crc32c(&bytes) == self.crc
    }
}

fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.seg"))
}

/// The segment that is written to.
struct Segment {
    dir: PathBuf,
    number: u32,
    file: File,
    end: u64,
    max: u64,
    sync: bool,
}

impl Segment {
    fn create(dir: &Path, number: u32, max: u64, sync: bool) -> Result<Segment> {
        let file = File::options().write(true).create_new(true).open(segment_path(dir, number))?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, max.min(16 * MIB as u64))?;
        if sync {
            file.sync_all()?;
            // Durable includes the name.
            File::open(dir)?.sync_all()?;
        }
        Ok(Segment { dir: dir.to_owned(), number, file, end: 0, max, sync })
    }

    fn write(&mut self, block: &[u8]) -> Result<Reference> {
        if self.end + block.len() as u64 > self.max {
            self.sync()?;
            *self = Segment::create(&self.dir, self.number + 1, self.max, self.sync)?;
        }
        let offset = self.end;
        self.file.write_all_at(block, offset)?;
        self.end += block.len() as u64;
        Ok(Reference { segment: self.number, offset, len: block.len() as u32, crc: crc32c::crc32c(block) })
    }

    fn write_all(&mut self, blocks: &[Vec<u8>]) -> Result<Vec<Reference>> {
        blocks.iter().map(|block| self.write(block)).collect()
    }

    fn sync(&self) -> Result<()> {
        if self.sync { Ok(self.file.sync_data()?) } else { Ok(()) }
    }
}

/// The journals, one after the other.
struct Journals {
    dir: PathBuf,
    number: u32,
    journal: Journal,
    stored: usize,
}

impl Journals {
    fn create(dir: &Path) -> Result<Journals> {
        let journal = Journals::one(dir, 1)?;
        Ok(Journals { dir: dir.to_owned(), number: 1, journal, stored: 0 })
    }

    fn one(dir: &Path, number: u32) -> Result<Journal> {
        let mut journal = Journal::create(&dir.join(format!(".tmp-{number:08}")), MIB)?;
        journal.preallocate(28)?;
        journal.sync()?;
        journal.sync_folder()?;
        journal.rename(&dir.join(format!("{number:08}")))?;
        Ok(journal)
    }

    fn apply(&mut self, commit: u64, values: &[&[u8]]) -> Result<()> {
        let mut batch = sled::Batch::default();
        batch.insert(key(commit, 0).as_slice(), &CHECKPOINTS[..]);
        for (at, value) in values.iter().enumerate() {
            batch.insert(key(commit, at as u32 + 1).as_slice(), *value);
            self.stored += value.len();
        }
        self.journal.db.apply_batch(batch)?;
        Ok(())
    }

    fn reference(&mut self, commit: u64, references: &[Reference]) -> Result<()> {
        let values: Vec<_> = references.iter().map(|reference| reference.bytes()).collect();
        self.apply(commit, &values.iter().map(<[u8; REFERENCE]>::as_slice).collect::<Vec<_>>())
    }

    fn is_full(&self) -> bool {
        self.stored >= JOURNAL
    }

    fn rotate(&mut self) -> Result<()> {
        let next = Journals::one(&self.dir, self.number + 1)?;
        let old = std::mem::replace(&mut self.journal, next);
        let path = old.path.clone();
        drop(old);
        fs::remove_dir_all(path)?;
        self.number += 1;
        self.stored = 0;
        Ok(())
    }
}

/// Commits blocks that come from `blocks`; `durable` is called after each commit.
fn commit_all(
    dir: &Path,
    how: How,
    max: u64,
    sync: bool,
    blocks: Receiver<Vec<Vec<u8>>>,
    durable: &mut dyn FnMut(u64, Duration) -> Result<()>,
) -> Result<()> {
    let mut journals = Journals::create(dir)?;
    let mut segment = Segment::create(dir, 1, max, sync)?;
    let mut number = 0;
    match how {
        How::Inline => {
            let (copies, to_copy) = sync_channel::<Option<Vec<Vec<u8>>>>(8);
            let (done, copied) = sync_channel::<()>(1);
            let copier = thread::spawn(move || -> std::result::Result<(), String> {
                for copy in to_copy {
                    match copy {
                        Some(blocks) => drop(segment.write_all(&blocks).map_err(|error| error.to_string())?),
                        None => {
                            segment.sync().map_err(|error| error.to_string())?;
                            done.send(()).map_err(|error| error.to_string())?;
                        }
                    }
                }
                Ok(())
            });
            for blocks in blocks {
                let (time, ()) = timed(|| {
                    let parts: Vec<&[u8]> = blocks.iter().flat_map(|block| block.chunks(VALUE_MAX)).collect();
                    journals.apply(number, &parts)?;
                    journals.journal.sync()?;
                    copies.send(Some(blocks))?;
                    if journals.is_full() {
                        copies.send(None)?;
                        copied.recv()?;
                        journals.rotate()?;
                    }
                    Ok(())
                })?;
                durable(number, time)?;
                number += 1;
            }
            drop(copies);
            copier.join().map_err(|_| "the copier panicked")??;
        }
        How::First => {
            for blocks in blocks {
                let (time, ()) = timed(|| {
                    let references = segment.write_all(&blocks)?;
                    segment.sync()?;
                    journals.reference(number, &references)?;
                    journals.journal.sync()
                })?;
                durable(number, time)?;
                number += 1;
            }
        }
        How::Together => {
            let (ask, asked) = sync_channel::<File>(1);
            let (answer, answered) = sync_channel::<std::io::Result<()>>(1);
            let syncer = thread::spawn(move || {
                for file in asked {
                    let result = if sync { file.sync_data() } else { Ok(()) };
                    if answer.send(result).is_err() {
                        break;
                    }
                }
            });
            for blocks in blocks {
                let (time, ()) = timed(|| {
                    let references = segment.write_all(&blocks)?;
                    ask.send(segment.file.try_clone()?)?;
                    journals.reference(number, &references)?;
                    journals.journal.sync()?;
                    Ok(answered.recv()??)
                })?;
                durable(number, time)?;
                number += 1;
            }
            drop(ask);
            syncer.join().map_err(|_| "the syncer panicked")?;
        }
        How::Ahead => {
            let (ready, written) = sync_channel::<(Instant, Vec<Reference>)>(1);
            let writer = thread::spawn(move || -> std::result::Result<(), String> {
                for blocks in blocks {
                    let began = Instant::now();
                    let references = segment.write_all(&blocks).map_err(|error| error.to_string())?;
                    segment.sync().map_err(|error| error.to_string())?;
                    if ready.send((began, references)).is_err() {
                        break;
                    }
                }
                Ok(())
            });
            for (began, references) in written {
                journals.reference(number, &references)?;
                journals.journal.sync()?;
                durable(number, began.elapsed())?;
                number += 1;
            }
            writer.join().map_err(|_| "the writer panicked")??;
        }
    }
    Ok(())
}

/// Makes blocks for commits of `bytes` on a thread of its own, as compression does.
fn make(bytes: usize, blocks: SyncSender<Vec<Vec<u8>>>, total: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut noise = Noise(total as u64);
        let mut block = noise.value(0, 0, 1, BLOCK.min(bytes));
        for nth in 0..total / bytes {
            let made = (0..bytes.div_ceil(BLOCK)).map(|at| {
                // Other bytes in each, without the cost of making them all.
                block[8..16].copy_from_slice(&(nth as u64).to_le_bytes());
                block[16..24].copy_from_slice(&(at as u64).to_le_bytes());
                block.clone()
            });
            if blocks.send(made.collect()).is_err() {
                break;
            }
        }
    })
}

/// Throughput, bytes written, times and memory.
pub(crate) fn measure(dir: &Path, kib: usize, mib: usize, how: How) -> Result<()> {
    let (send, blocks) = sync_channel(2);
    let before = proc_field("io", "write_bytes:");
    let started = Instant::now();
    let maker = make(kib * 1024, send, mib * MIB);
    let mut times = Vec::new();
    let mut note = |_, time| {
        times.push(time);
        Ok(())
    };
    commit_all(dir, how, SEGMENT, true, blocks, &mut note)?;
    let took = started.elapsed();
    maker.join().map_err(|_| "the maker panicked")?;
    let written = proc_field("io", "write_bytes:") - before;
    println!(
        "{how:?} {mib} MiB in commits of {kib} KiB: {:.0} MB/s, written {:.2}x, peak {:.1} MiB, {}",
        (mib * MIB) as f64 / 1e6 / took.as_secs_f64(),
        written as f64 / (mib * MIB) as f64,
        proc_field("status", "VmHWM:") as f64 / 1024.0,
        spread(times)
    );
    Ok(())
}

/// What the disk can do: the same blocks in a plain file, synced after every 4 MiB.
pub(crate) fn copy(dir: &Path, mib: usize) -> Result<()> {
    let (send, blocks) = sync_channel(2);
    let started = Instant::now();
    let maker = make(4 * MIB, send, mib * MIB);
    let mut file = File::create(dir.join("copy"))?;
    for blocks in blocks {
        for block in blocks {
            file.write_all(&block)?;
        }
        file.sync_data()?;
    }
    let took = started.elapsed();
    maker.join().map_err(|_| "the maker panicked")?;
    println!("plain copy of {mib} MiB: {:.0} MB/s", (mib * MIB) as f64 / 1e6 / took.as_secs_f64());
    Ok(())
}

/// Prints `ack COMMIT` once a commit is durable, until it is killed.
pub(crate) fn writer(dir: &Path, commit_bytes: usize, how: How, sync: bool) -> Result<()> {
    let (send, blocks) = sync_channel(1);
    let _maker = make(commit_bytes, send, usize::MAX / 2);
    let mut out = std::io::stdout().lock();
    // Small segments, so that cuts meet new ones.
    commit_all(dir, how, 4 * MIB as u64, sync, blocks, &mut |number, _| {
        writeln!(out, "ack {number}")?;
        Ok(out.flush()?)
    })
}

/// Compares what was printed with the newest journal, read from a copy by sled, and the segments that it references.
pub(crate) fn check(dir: &Path, acked: &Path, copy: &Path) -> Result<()> {
    let text = fs::read_to_string(acked)?;
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let acked = whole.filter_map(|line| line.trim().strip_prefix("ack ")?.parse::<u64>().ok()).next_back();
    let names = fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let newest = names.filter_map(|name| name.parse::<u64>().ok()).max().ok_or("no journal")?;
    crate::copy_journal(&dir.join(format!("{newest:08}")), copy)?;
    let mut commits = std::collections::BTreeMap::<u64, bool>::new();
    for entry in open(copy, MIB)?.iter() {
        let (key, value) = entry?;
        let commit = u64::from_be_bytes(key.get(..8).ok_or("a short key")?.try_into()?);
        let is_there = match key.get(8..) {
            Some([0, 0, 0, 0]) => value.as_ref() == CHECKPOINTS,
            _ => Reference::read(&value).is_some_and(|reference| reference.is_there(dir)),
        };
        *commits.entry(commit).or_insert(true) &= is_there;
    }
    let count = acked.map_or(0, |last| last + 1);
    let lost = (0..count).filter(|commit| !commits.contains_key(commit)).count();
    let damaged = (0..count).filter(|commit| commits.get(commit) == Some(&false)).count();
    // Beyond what was acknowledged: a reference without its bytes.
    let torn = commits.iter().filter(|(commit, whole)| **commit >= count && !**whole).count();
    println!("acked {count} lost {lost} damaged {damaged} torn {torn}");
    Ok(())
}
