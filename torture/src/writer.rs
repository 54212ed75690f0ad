//! Writers of the followed files: numbered lines in bursts that end anywhere, files that are renamed away.
//!
//! A writer notes how far it intends to write before it writes, so that every line in the log was intended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::line::{self, Place};
use crate::trouble::{Result, Trouble};

/// How lines are written.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Lines between two pauses.
    pub burst_lines: u64,
    /// A pause.
    pub breath: Duration,
    /// Lines of a file before it is renamed away; 0 for never.
    pub rotate_lines: u64,
    /// Letters of filling, at most.
    pub letters_max: usize,
    /// One line in this many is poison; 0 for none.
    pub poison_one_in: u64,
}

/// How most campaigns write.
pub const USUAL: Pace = Pace {
    burst_lines: 100,
    breath: Duration::from_millis(10),
    rotate_lines: 6_000,
    letters_max: 400,
    poison_one_in: 9_973,
};

/// One burst in this many is this many times as large: the log references the lines of a large commit.
const LARGE_ONE_IN: usize = 10;
const LARGE_TIMES: u64 = 10;

/// Lines that all sources together may be ahead of the slowest group: so that a slow machine does not end with a backlog.
const AHEAD_MAX: u64 = 60_000;

/// One source, at rest.
#[derive(Debug)]
pub struct Writer {
    run: u64,
    source: u32,
    logs: PathBuf,
    pace: Pace,
    rng: fastrand::Rng,
    /// Lines that are poison, whatever the pace says.
    poison: BTreeSet<u64>,
    /// The next line's.
    place: (u64, u64, u64),
    intent: Arc<AtomicU64>,
}

impl Writer {
    /// The source `source` of run `run`, which begins with line 0 of file 0.
    pub fn new(run: u64, source: u32, logs: PathBuf, pace: Pace) -> Writer {
        let rng = fastrand::Rng::with_seed(run << 8 | u64::from(source));
        let poison = BTreeSet::new();
        Writer { run, source, logs, pace, rng, poison, place: (0, 0, 0), intent: Arc::default() }
    }

    /// Where it writes.
    pub fn path(&self) -> PathBuf {
        self.logs.join(format!("w{}.log", self.source))
    }

    /// Makes the lines of these numbers poison: before they are written.
    pub fn poison(&mut self, numbers: BTreeSet<u64>) {
        self.poison = numbers;
    }

    fn append(&mut self, burst: &mut Vec<u8>) {
        let (number, file, offset) = self.place;
        let letters: String =
            (0..self.rng.usize(..=self.pace.letters_max)).map(|_| self.rng.alphanumeric()).collect();
        let one_in = self.pace.poison_one_in;
        let poison = (one_in > 0 && number % one_in == one_in / 2) || self.poison.contains(&number);
        let before = burst.len();
        line::write(
            burst,
            &Place { run: self.run, source: self.source, number, file, offset, poison },
            &letters,
        );
        self.place = (number + 1, file, offset + (burst.len() - before) as u64);
        self.intent.store(number + 1, Ordering::Release);
    }

    /// Writes `lines` at once, without a rotation; syncs them if told to. After an error nobody knows what is there.
    pub fn write(&mut self, lines: u64, sync: bool) -> io::Result<()> {
        let mut burst = Vec::new();
        self.burst(lines, &mut burst);
        let mut file = OpenOptions::new().create(true).append(true).open(self.path())?;
        file.write_all(&burst)?;
        if sync { file.sync_all() } else { Ok(()) }
    }

    /// Lines for whoever writes them himself.
    pub fn burst(&mut self, lines: u64, bytes: &mut Vec<u8>) {
        for _ in 0..lines {
            self.append(bytes);
        }
    }

    /// Lines begin a file from now on; gives the name that the one before gets where it is kept.
    pub fn begin_file(&mut self) -> PathBuf {
        let (number, file, _) = self.place;
        self.place = (number, file + 1, 0);
        self.logs.join(format!("w{}.log.{}", self.source, file + 1))
    }

    /// Begins the next file: the old one is renamed away.
    fn rotate(&mut self) -> io::Result<()> {
        let from = self.path();
        fs::rename(from, self.begin_file())
    }

    /// Goes on behind what a power cut has left of its file, with lines that it never wrote. Gives what is left.
    pub fn resume(&mut self) -> io::Result<u64> {
        let bytes = match fs::read(self.path()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let (left, file) = line::whole(&bytes);
        let (number, latest, _) = self.place;
        self.place = file.map_or((number, latest + 1, 0), |file| (number, file, left));
        Ok(left)
    }

    /// Whole lines so far.
    pub fn lines(&self) -> u64 {
        self.place.0
    }

    fn go(&mut self, stop: &AtomicBool, sources: u64, acked: &AtomicU64) -> io::Result<()> {
        let open = |writer: &Writer| OpenOptions::new().create(true).append(true).open(writer.path());
        let mut file: File = open(self)?;
        while !stop.load(Ordering::Relaxed) {
            if self.place.0 * sources > acked.load(Ordering::Relaxed) + AHEAD_MAX {
                thread::sleep(self.pace.breath);
                continue;
            }
            let mut burst = Vec::new();
            let times = if self.rng.usize(..LARGE_ONE_IN) == 0 { LARGE_TIMES } else { 1 };
            for _ in 0..self.pace.burst_lines * times {
                self.append(&mut burst);
                if self.pace.rotate_lines > 0 && self.place.0.is_multiple_of(self.pace.rotate_lines) {
                    file.write_all(&burst)?;
                    burst.clear();
                    self.rotate()?;
                    file = open(self)?;
                }
            }
            // Cut anywhere, so that the end of the file is often half a line.
            let (now, later) = burst.split_at(self.rng.usize(..=burst.len()));
            file.write_all(now)?;
            thread::sleep(self.pace.breath);
            file.write_all(later)?;
        }
        Ok(())
    }
}

/// Writers at work, a thread each.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<(Writer, io::Result<()>)>>,
    intents: Vec<(u32, Arc<AtomicU64>)>,
}

impl Writers {
    /// Sets them to work.
    pub fn start(writers: Vec<Writer>) -> Writers {
        let (stop, acked) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let sources = writers.len() as u64;
        let intents = writers.iter().map(|writer| (writer.source, Arc::clone(&writer.intent))).collect();
        let work = |mut writer: Writer| {
            let (stop, acked) = (Arc::clone(&stop), Arc::clone(&acked));
            thread::spawn(move || {
                let result = writer.go(&stop, sources, &acked);
                (writer, result)
            })
        };
        let threads = writers.into_iter().map(work).collect();
        Writers { stop, acked, threads, intents }
    }

    /// Says how far the slowest group is.
    pub fn acked(&self, lines: u64) {
        self.acked.fetch_max(lines, Ordering::Relaxed);
    }

    /// Lines that each source has written, or is about to.
    pub fn intents(&self) -> BTreeMap<u32, u64> {
        self.intents.iter().map(|(source, intent)| (*source, intent.load(Ordering::Acquire))).collect()
    }

    /// Ends each after its current burst; returns them with their errors.
    pub fn stop(self) -> Result<Vec<(Writer, io::Result<()>)>> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.threads.into_iter().map(thread::JoinHandle::join);
        joined.collect::<std::result::Result<_, _>>().map_err(|_| Trouble::new("a writer panicked"))
    }
}
