//! Gate trials: they measure the figures behind the sizes of the journal on this machine.
//!
//! Each subcommand works in the folder DIR, which it empties, and prints one line for each figure.
//! `gates.sh all` runs them all, and drives `writer` and `check` through power cuts on a loop device.
//!
//! ```text
//! gates memory   DIR MIB CACHE_MIB ROTATIONS     RSS and threads of open, filled, dropped and rotated journals
//! gates blobs    DIR                             the largest value for which `blobs/` stays empty
//! gates times    DIR                             create, rotate, drop, rename while open, recover, scan
//! gates acks     DIR COMMITS                     many commits of one 60-byte value
//! gates prealloc DIR COMMIT_KIB MIB PREALLOC_MIB size, time and bytes written, with and without fallocate
//! gates full     DIR COMMIT_KIB MIB PREALLOC_MIB the same on a file system that has just become full
//! gates writer   DIR COMMIT_BYTES ROTATE_BYTES PREALLOC_MIB [nosync]
//!                                                prints every commit once it is durable, until it is killed
//! gates check    DIR ACKED COPY                  what a sled copy and a raw scan find of what the writer printed
//! gates refs     DIR COMMIT_KIB MIB HOW          throughput, bytes written, times and memory of commits whose bytes are in
//!                                                sled, or referenced: inline, first, together or ahead
//! gates copy     DIR MIB                         a plain file, synced after every 4 MiB
//! gates refwriter DIR COMMIT_BYTES HOW [nosync]  prints every such commit once it is durable; nosync: not the segment
//! gates refcheck DIR ACKED COPY                  what is there of what that printed
//! ```

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a trial may stop at the first error"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

mod references;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const MIB: usize = 1 << 20;
const SLED_SEGMENT: usize = 4 * MIB;
/// The longest value. A sled leaf holds up to 17 of them, and a message above a quarter of a sled segment becomes a blob.
const VALUE_MAX: usize = 60_000;
/// Every value begins with this, a commit number, its chunk number, the commit's chunks, a payload length and a CRC32C.
const MAGIC: &[u8; 8] = b"\xf1gates\x0a\xf7";
const HEADER: usize = 32;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["memory", dir, mib, cache, rotations] => {
            memory(&empty(dir)?, mib.parse()?, cache.parse()?, rotations.parse()?)
        }
        ["blobs", dir] => blobs(&empty(dir)?),
        ["times", dir] => times(&empty(dir)?),
        ["acks", dir, commits] => acks(&empty(dir)?, commits.parse()?),
        [how @ ("prealloc" | "full"), dir, kib, mib, prealloc] => fill_up(
            &empty(dir)?,
            kib.parse::<usize>()? * 1024,
            mib.parse()?,
            prealloc.parse()?,
            *how == "full",
        ),
        ["writer", dir, commit, rotate, prealloc, nosync @ ..] => {
            writer(&empty(dir)?, commit.parse()?, rotate.parse()?, prealloc.parse()?, nosync.is_empty())
        }
        ["check", dir, acked, copy] => check(Path::new(dir), Path::new(acked), Path::new(copy)),
        ["refs", dir, kib, mib, how] => {
            references::measure(&empty(dir)?, kib.parse()?, mib.parse()?, how.parse()?)
        }
        ["copy", dir, mib] => references::copy(&empty(dir)?, mib.parse()?),
        ["refwriter", dir, commit, how, nosync @ ..] => {
            references::writer(&empty(dir)?, commit.parse()?, how.parse()?, nosync.is_empty())
        }
        ["refcheck", dir, acked, copy] => {
            references::check(Path::new(dir), Path::new(acked), Path::new(copy))
        }
        _ => Err("see the head of this program for its subcommands".into()),
    }
}

/// One single-use sled database, with another descriptor for syncs: sled's flush is only `sync_file_range`.
struct Journal {
    path: PathBuf,
    db: sled::Db,
    file: File,
    noise: Noise,
}

impl Journal {
    fn create(path: &Path, cache: usize) -> Result<Journal> {
        let db = open(path, cache)?;
        let file = File::open(path.join("db"))?;
        Ok(Journal { path: path.into(), db, file, noise: Noise(path.as_os_str().len() as u64) })
    }

    /// Allocates blocks on disk. The length of the file, which sled reads at the next open, does not change.
    fn preallocate(&self, mib: u64) -> Result<()> {
        if mib > 0 {
            let file = File::options().write(true).open(self.path.join("db"))?;
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, mib << 20)?;
        }
        Ok(())
    }

    /// Applies one commit of `bytes` random bytes in values of at most `value_max`, as one batch, without any sync.
    fn apply(&mut self, commit: u64, bytes: usize, value_max: usize) -> Result<()> {
        let chunks = bytes.div_ceil(value_max);
        let mut batch = sled::Batch::default();
        for chunk in 0..chunks {
            let len = value_max.min(bytes - chunk * value_max).max(HEADER);
            let value = self.noise.value(commit, chunk as u32, chunks as u32, len);
            batch.insert(key(commit, chunk as u32).as_slice(), value);
        }
        Ok(self.db.apply_batch(batch)?)
    }

    fn sync(&self) -> Result<()> {
        self.db.flush()?;
        Ok(self.file.sync_data()?)
    }

    fn commit(&mut self, commit: u64, bytes: usize) -> Result<()> {
        self.apply(commit, bytes, VALUE_MAX)?;
        self.sync()
    }

    /// Commits `bytes` each until `total` is stored; the time of each commit, in order.
    fn fill(&mut self, total: usize, bytes: usize) -> Result<Vec<Duration>> {
        (0..total / bytes).map(|n| timed(|| self.commit(n as u64, bytes)).map(|(time, ())| time)).collect()
    }

    /// Makes everything but `db` durable, which `sync` has done: the other files and the folder.
    fn sync_folder(&self) -> Result<()> {
        for name in ["conf", "blobs", "."] {
            File::open(self.path.join(name))?.sync_all()?;
        }
        Ok(())
    }

    /// Gives the journal its final name while sled has it open. sled still knows the old name.
    fn rename(&mut self, to: &Path) -> Result<()> {
        fs::rename(&self.path, to)?;
        File::open(to.parent().ok_or("no parent")?)?.sync_all()?;
        self.path = to.into();
        Ok(())
    }

    fn blobs(&self) -> Result<usize> {
        Ok(fs::read_dir(self.path.join("blobs"))?.count())
    }
}

fn open(path: &Path, cache: usize) -> sled::Result<sled::Db> {
    let config = sled::Config::new().path(path).segment_size(SLED_SEGMENT);
    config.cache_capacity(cache as u64).flush_every_ms(None).open()
}

fn key(commit: u64, chunk: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&commit.to_be_bytes());
    key[8..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// Bytes that do not compress (splitmix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn value(&mut self, commit: u64, chunk: u32, chunks: u32, len: usize) -> Vec<u8> {
        let mut value = Vec::with_capacity(len + 8);
        value.extend_from_slice(MAGIC);
        value.extend_from_slice(&commit.to_le_bytes());
        value.extend_from_slice(&chunk.to_le_bytes());
        value.extend_from_slice(&chunks.to_le_bytes());
        value.extend_from_slice(&((len - HEADER) as u32).to_le_bytes());
        value.extend_from_slice(&[0; 4]);
        while value.len() < len {
            value.extend_from_slice(&self.next().to_le_bytes());
        }
        value.truncate(len);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&value[..HEADER - 4]), &value[HEADER..]);
        value[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
        value
    }
}

/// The chunks that were found whole, by commit.
#[derive(Default)]
struct Found(BTreeMap<u64, (u32, BTreeSet<u32>)>);

impl Found {
    /// Adds the value at the start of `bytes` if it is whole.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let word =
            |at: usize| bytes.get(at..at + 4).map_or(0, |w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        if bytes.len() < HEADER || &bytes[..8] != MAGIC || bytes.len() - HEADER < word(24) as usize {
            return false;
        }
        let payload = &bytes[HEADER..HEADER + word(24) as usize];
        if crc32c::crc32c_append(crc32c::crc32c(&bytes[..HEADER - 4]), payload) != word(28) {
            return false;
        }
        let commit = u64::from(word(8)) | u64::from(word(12)) << 32;
        self.0.entry(commit).or_insert((word(20), BTreeSet::new())).1.insert(word(16));
        true
    }

    fn whole(&self, commit: u64) -> bool {
        self.0.get(&commit).is_some_and(|(chunks, found)| found.len() == *chunks as usize)
    }

    /// Finds our values in a sled file without sled.
    fn scan(db_file: &Path) -> Result<Found> {
        let mut found = Found::default();
        let bytes = fs::read(db_file)?;
        for at in memchr::memmem::find_iter(&bytes, MAGIC) {
            found.take(&bytes[at..]);
        }
        Ok(found)
    }

    /// Reads all values through sled. This changes the database: use a copy.
    fn iterate(copy: &Path) -> Result<Found> {
        let mut found = Found::default();
        for entry in open(copy, MIB)?.iter() {
            let (_, value) = entry?;
            if !found.take(&value) {
                return Err("sled returned a value that does not match its checksum".into());
            }
        }
        Ok(found)
    }
}

fn memory(dir: &Path, mib: usize, cache_mib: usize, rotations: usize) -> Result<()> {
    let report = |what: &str| {
        let [rss, peak, threads] = ["VmRSS:", "VmHWM:", "Threads:"].map(|name| proc_field("status", name));
        println!(
            "{what:<30} rss {:6.1} MiB  peak {:6.1} MiB  threads {threads}",
            rss as f64 / 1024.0,
            peak as f64 / 1024.0
        );
    };
    report("start");
    let cache = cache_mib * MIB;
    let mut one = Journal::create(&dir.join("one"), cache)?;
    report("empty journal");
    one.fill(mib * MIB, MIB / 4)?;
    report("filled");
    let ahead = Journal::create(&dir.join("two"), cache)?;
    report("and one made ahead");
    drop((one, ahead));
    std::thread::sleep(Duration::from_millis(300));
    report("both dropped, 0.3 s later");
    // As in the log, the next journal exists before the old one is removed.
    let mut current = Journal::create(&dir.join("00"), cache)?;
    for n in 1..=rotations {
        current.fill(mib * MIB, MIB / 4)?;
        let mut next = Journal::create(&dir.join(format!("{n:02}")), cache)?;
        next.commit(0, MIB)?;
        let old = std::mem::replace(&mut current, next);
        let path = old.path.clone();
        drop(old);
        fs::remove_dir_all(path)?;
        if n == 1 || n % rotations.div_ceil(4) == 0 {
            report(&format!("after rotation {n}"));
        }
    }
    Ok(())
}

fn blobs(dir: &Path) -> Result<()> {
    let trial = |value_max: usize| -> Result<[usize; 4]> {
        let mut worst = [0; 4];
        // Commits of 256 KiB; one of 8 MiB; one value a commit; long and short values in turn.
        for (pattern, blobs) in worst.iter_mut().enumerate() {
            let path = dir.join("trial");
            let mut journal = Journal::create(&path, MIB)?;
            let (commits, bytes) = [(64, MIB / 4), (2, 8 * MIB), (128, value_max), (256, value_max)][pattern];
            for n in 0..commits {
                let bytes = if pattern == 3 && n % 2 == 0 { 60 } else { bytes };
                journal.apply(n, bytes, value_max)?;
                journal.sync()?;
                *blobs = journal.blobs()?.max(*blobs);
            }
            drop(journal);
            fs::remove_dir_all(path)?;
        }
        Ok(worst)
    };
    println!("values of {VALUE_MAX} bytes: blobs {:?}", trial(VALUE_MAX)?);
    let (mut good, mut bad) = (VALUE_MAX, SLED_SEGMENT / 4 + 1);
    while bad - good > 100 {
        let middle = (good + bad) / 2;
        if trial(middle)? == [0; 4] { good = middle } else { bad = middle }
    }
    println!("largest value without a blob: about {good} bytes; at {bad}: blobs {:?}", trial(bad)?);
    Ok(())
}

fn times(dir: &Path) -> Result<()> {
    let mut figures: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for n in 0..15_u64 {
        let mut note = |what, time| figures.entry(what).or_default().push(time);
        let tmp = dir.join(".tmp-journal");
        let (time, mut old) = timed(|| {
            let mut journal = Journal::create(&dir.join("old"), MIB)?;
            journal.commit(0, 100)?;
            Ok(journal)
        })?;
        note("1 create: open to first synced batch", time);
        let total = [8, 16][n as usize % 2] * MIB;
        old.fill(total, MIB / 4)?;
        let mut next = Journal::create(&tmp, MIB)?;
        let (time, ()) = timed(|| next.commit(0, MIB))?;
        note("2a rotate: 1 MiB manifest, flush, sync db", time);
        let (time, ()) = timed(|| next.sync_folder())?;
        note("2b rotate: sync conf, blobs, folder", time);
        let (time, ()) = timed(|| next.rename(&dir.join("next")))?;
        note("2c rotate: rename, sync parent", time);

        let copy = dir.join("copy");
        let (time, ()) = timed(|| copy_journal(&old.path, &copy))?;
        note(["4a copy 8 MiB", "5a copy 16 MiB"][n as usize % 2], time);
        let (time, found) = timed(|| Found::iterate(&copy))?;
        note(["4b open 8 MiB copy, iterate", "5b open 16 MiB copy, iterate"][n as usize % 2], time);
        let (time, scanned) = timed(|| Found::scan(&old.path.join("db")))?;
        note(["4c scan 8 MiB", "5c scan 16 MiB"][n as usize % 2], time);
        assert_eq!(found.0.len(), total / (MIB / 4), "the copy holds every commit");
        assert_eq!(scanned.0.len(), found.0.len(), "and so does the scan");

        let path = old.path.clone();
        let (time, ()) = timed(|| {
            drop(old);
            Ok(())
        })?;
        note("3a drop the Db", time);
        let (time, ()) = timed(|| Ok(fs::remove_dir_all(path)?))?;
        note("3b remove its folder", time);

        // What is written after the rename is in the renamed folder, and nothing is written under the old name.
        for commit in 1..=24 {
            next.commit(commit, MIB / 4)?;
        }
        fs::remove_dir_all(&copy)?;
        copy_journal(&next.path, &copy)?;
        let found = Found::iterate(&copy)?;
        assert!(
            (0..=24).all(|commit| found.whole(commit)),
            "commits after the rename are in the renamed folder"
        );
        let path = next.path.clone();
        drop(next);
        assert!(!tmp.exists(), "nothing was made again under the old name");
        let left: BTreeSet<_> =
            fs::read_dir(&path)?.map(|e| e.map(|e| e.file_name())).collect::<std::io::Result<_>>()?;
        if n == 0 {
            println!("a folder renamed while open, after 24 more commits and a drop, holds {left:?}");
        }
        empty(dir.to_str().ok_or("folder name")?)?;
    }
    for (what, times) in figures {
        println!("{what:<44} {}", spread(times));
    }
    Ok(())
}

fn acks(dir: &Path, commits: u64) -> Result<()> {
    let mut journal = Journal::create(&dir.join("journal"), MIB)?;
    let before = proc_field("io", "write_bytes:");
    let mut times = Vec::new();
    for n in 0..commits {
        times.push(timed(|| journal.commit(n, 60))?.0);
    }
    let written = proc_field("io", "write_bytes:") - before;
    let size = fs::metadata(journal.path.join("db"))?.len();
    let rss = proc_field("status", "VmRSS:") / 1024;
    println!(
        "{commits} commits of 60 bytes: db {:.1} MiB, {:.0} bytes of it a commit, written {:.0} a commit, rss {rss} MiB, {}",
        size as f64 / MIB as f64,
        size as f64 / commits as f64,
        written as f64 / commits as f64,
        spread(times)
    );
    let copy = dir.join("copy");
    copy_journal(&journal.path, &copy)?;
    let (opened, found) = timed(|| Found::iterate(&copy))?;
    let (scanned, raw) = timed(|| Found::scan(&journal.path.join("db")))?;
    println!(
        "{} found by the copy in {opened:.1?}, {} by the scan in {scanned:.1?}",
        found.0.len(),
        raw.0.len()
    );
    Ok(())
}

/// Fills a journal, preallocated or not, optionally on a disk without any other free byte.
fn fill_up(dir: &Path, commit_bytes: usize, mib: usize, prealloc_mib: u64, full: bool) -> Result<()> {
    let mut journal = Journal::create(&dir.join("journal"), MIB)?;
    let db = journal.path.join("db");
    let (preallocated, ()) = timed(|| journal.preallocate(prealloc_mib))?;
    journal.commit(u64::MAX, 100)?;
    let ballast = dir.join("ballast");
    if full {
        let mut file = File::create(&ballast)?;
        for block in [&[0_u8; 65536][..], &[0; 4096]] {
            while file.write_all(block).is_ok() {}
        }
        file.sync_all()?;
    }
    let before = proc_field("io", "write_bytes:");
    let started = Instant::now();
    let mut times = Vec::new();
    let mut failed = String::from("no error");
    for n in 0..(mib * MIB / commit_bytes) as u64 {
        match timed(|| journal.commit(n, commit_bytes)) {
            Ok((time, ())) => times.push(time),
            Err(error) => {
                failed = format!("commit {n} failed: {error}");
                break;
            }
        }
    }
    let (took, durable) = (started.elapsed(), times.len());
    let written = proc_field("io", "write_bytes:") - before;
    let meta = fs::metadata(&db)?;
    let stored = (durable * commit_bytes).max(1) as f64;
    println!(
        "{mib} MiB in commits of {} KiB, preallocated {prealloc_mib} MiB in {preallocated:.1?}: db {:.1} MiB ({:.2}x), on disk {:.1} MiB, written {:.2}x, {:.0} MB/s, {}, {failed}",
        commit_bytes / 1024,
        meta.len() as f64 / MIB as f64,
        meta.len() as f64 / stored,
        meta.blocks() as f64 / 2048.0,
        written as f64 / stored,
        stored / 1e6 / took.as_secs_f64(),
        spread(times)
    );
    if full {
        fs::remove_file(ballast)?;
    }
    let copy = dir.join("copy");
    copy_journal(&journal.path, &copy)?;
    let raw = Found::scan(&db)?;
    let found = Found::iterate(&copy)?;
    let all = |found: &Found| (0..durable as u64).all(|n| found.whole(n));
    println!("  every durable commit is in the copy: {}, in the raw scan: {}", all(&found), all(&raw));
    Ok(())
}

/// Prints `rotate JOURNAL FIRST` once a journal is the newest durable one, `ack COMMIT` once a commit is durable.
fn writer(dir: &Path, commit_bytes: usize, rotate_bytes: usize, prealloc_mib: u64, sync: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut old: Option<Journal> = None;
    let mut commit = 0;
    for number in 1.. {
        let mut journal = Journal::create(&dir.join(format!(".tmp-{number:08}")), MIB)?;
        journal.preallocate(prealloc_mib)?;
        journal.commit(commit, 1000)?;
        journal.sync_folder()?;
        journal.rename(&dir.join(format!("{number:08}")))?;
        writeln!(out, "rotate {number} {commit}\nack {commit}")?;
        if let Some(mut old) = old.take() {
            old.rename(&dir.join(format!(".trash-{:08}", number - 1)))?;
            let path = old.path.clone();
            drop(old);
            fs::remove_dir_all(path)?;
        }
        let mut stored = 0;
        while stored < rotate_bytes {
            commit += 1;
            journal.apply(commit, commit_bytes, VALUE_MAX)?;
            journal.db.flush()?;
            if sync {
                journal.file.sync_data()?;
            }
            writeln!(out, "ack {commit}")?;
            out.flush()?;
            stored += commit_bytes;
        }
        commit += 1;
        old = Some(journal);
    }
    Ok(())
}

/// Compares what was printed with the newest journal, read from a copy by sled and from the original by a raw scan.
fn check(dir: &Path, acked: &Path, copy: &Path) -> Result<()> {
    let mut last_acked = None;
    let mut newest = (0, 0);
    // A last line without a newline was not printed completely.
    for line in fs::read_to_string(acked)?.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["ack", commit] => last_acked = Some(commit.parse::<u64>()?),
            ["rotate", journal, first] => newest = (journal.parse::<u64>()?, first.parse::<u64>()?),
            _ => return Err(format!("not a line of the writer: {line:?}").into()),
        }
    }
    let Some(last_acked) = last_acked else {
        println!("acked 0 scan_lost 0 copy_lost 0 both_lost 0 nothing was acknowledged");
        return Ok(());
    };
    let names =
        fs::read_dir(dir)?.filter_map(|e| e.ok()?.file_name().into_string().ok()?.parse::<u64>().ok());
    let journal = names.max().unwrap_or(0);
    if journal < newest.0 {
        println!(
            "acked 1 scan_lost 1 copy_lost 1 both_lost 1 journal {} is missing, {journal} is the newest",
            newest.0
        );
        return Ok(());
    }
    let path = dir.join(format!("{journal:08}"));
    let scan = Found::scan(&path.join("db"))?;
    // There may be a journal that was not printed: its manifest covers all that was acknowledged before.
    let first = if journal == newest.0 { newest.1 } else { last_acked + 1 };
    copy_journal(&path, copy)?;
    let (opened, note) = match std::panic::catch_unwind(|| Found::iterate(copy).map_err(|e| e.to_string())) {
        Ok(Ok(found)) => (found, String::new()),
        Ok(Err(error)) => (Found::default(), error),
        Err(_) => (Found::default(), "sled panicked".into()),
    };
    let expected = if journal == newest.0 { first..=last_acked } else { first..=first };
    let lost = |whole: &dyn Fn(u64) -> bool| expected.clone().filter(|commit| !whole(*commit)).count();
    println!(
        "acked {} scan_lost {} copy_lost {} both_lost {} blobs {} {note}",
        expected.clone().count(),
        lost(&|n| scan.whole(n)),
        lost(&|n| opened.whole(n)),
        lost(&|n| scan.whole(n) || opened.whole(n)),
        fs::read_dir(path.join("blobs"))?.count(),
    );
    Ok(())
}

/// Copies a journal without its lock, as recovery does: sled only ever opens the copy.
fn copy_journal(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_journal(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn empty(dir: &str) -> Result<PathBuf> {
    let dir = PathBuf::from(dir);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let started = Instant::now();
    let value = work()?;
    Ok((started.elapsed(), value))
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    format!(
        "median {:.2?}, 99 % {:.2?}, max {:.2?}",
        at(0.5),
        at(0.99),
        times.last().copied().unwrap_or_default()
    )
}

/// A number from `/proc/self/<file>`, in its unit.
fn proc_field(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(Path::new("/proc/self").join(file)).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
