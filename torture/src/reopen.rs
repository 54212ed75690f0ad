//! Writers that behave as daemons do: each keeps its file open, and reopens it when it is signalled, at once or some lines
//! later.
//!
//! The signal is a file. A prompt writer removes it when it has reopened its log file, a late one at once, before that. Each writes 100 lines a second, some of them in two parts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::line::{self, Place};
use crate::trouble::{During, Result, Trouble};

/// Between two lines.
const BREATH: Duration = Duration::from_millis(10);
/// Lines, at most, that a late writer writes to the file that was rotated away.
const LATE_LINES: u64 = 40;
/// Letters of filling, at most.
const LETTERS_MAX: usize = 400;

/// How all writers of a case behave.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// The run of their lines.
    pub run: u64,
    /// Some reopen their file only some lines after the signal.
    pub may_be_late: bool,
    /// Some lines are written in two parts.
    pub in_parts: bool,
}

/// A line that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The file that its writer had open, from 0.
    pub file: u64,
    /// With its newline.
    pub bytes: u64,
}

/// How far a writer is.
#[derive(Debug, Default)]
struct Progress {
    /// Lines that are complete.
    lines: AtomicU64,
    /// How often it has reopened its file.
    reopened: AtomicU64,
    /// The first line of the file that it has open.
    first: AtomicU64,
    late: AtomicU64,
}

/// The file that signals the writer `source`.
pub fn signal(folder: &Path, source: u32) -> PathBuf {
    folder.join(format!("reopen.w{source}"))
}

struct Writer {
    behaviour: Behaviour,
    source: u32,
    path: PathBuf,
    signal: PathBuf,
    rng: fastrand::Rng,
    file: File,
    /// The rest of the last line.
    owed: Vec<u8>,
    offset: u64,
    /// Lines until it reopens its file, once it was signalled.
    reopens_in: Option<u64>,
    sent: Vec<Sent>,
    progress: Arc<Progress>,
}

impl Writer {
    fn go(&mut self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.listen()?;
            self.write_line()?;
            thread::sleep(BREATH);
        }
        self.pay()
    }

    /// Checks for the signal.
    fn listen(&mut self) -> io::Result<()> {
        if self.reopens_in.is_none() && self.signal.exists() {
            let is_late = self.behaviour.may_be_late && self.rng.bool();
            self.reopens_in = Some(if is_late { self.rng.u64(1..=LATE_LINES) } else { 0 });
            if is_late {
                fs::remove_file(&self.signal)?;
                self.progress.late.fetch_add(1, Ordering::Relaxed);
            }
        }
        match self.reopens_in {
            Some(0) => self.reopen(),
            Some(lines) => {
                self.reopens_in = Some(lines - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.pay()?;
        self.file = open(&self.path)?;
        (self.offset, self.reopens_in) = (0, None);
        self.progress.first.store(self.sent.len() as u64, Ordering::Release);
        self.progress.reopened.fetch_add(1, Ordering::Release);
        match fs::remove_file(&self.signal) {
            // A late writer has removed it before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn write_line(&mut self) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut self.owed);
        let before = bytes.len();
        let number = self.sent.len() as u64;
        let file = self.progress.reopened.load(Ordering::Relaxed);
        let Behaviour { run, in_parts, .. } = self.behaviour;
        let letters: String = (0..self.rng.usize(..=LETTERS_MAX)).map(|_| self.rng.alphanumeric()).collect();
        let place = Place { run, source: self.source, number, file, offset: self.offset, poison: false };
        line::write(&mut bytes, &place, &letters);
        let len = (bytes.len() - before) as u64;
        self.offset += len;
        self.sent.push(Sent { file, bytes: len });
        if in_parts && self.rng.u8(..4) == 0 {
            self.owed = bytes.split_off(self.rng.usize(before..bytes.len()));
        }
        self.file.write_all(&bytes)?;
        self.publish();
        Ok(())
    }

    /// The last line gets its end.
    fn pay(&mut self) -> io::Result<()> {
        let owed = std::mem::take(&mut self.owed);
        self.file.write_all(&owed)?;
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let whole = self.sent.len() as u64 - u64::from(!self.owed.is_empty());
        self.progress.lines.store(whole, Ordering::Release);
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

type Ended = (Vec<Sent>, io::Result<()>);

/// Running writers, a thread each; they stop when this is dropped.
#[derive(Debug)]
pub struct Reopeners {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<Ended>>,
    progress: Vec<Arc<Progress>>,
}

impl Reopeners {
    /// Starts `sources` of them: they write below `logs`, and their signals are files in `folder`.
    pub fn start(behaviour: Behaviour, sources: u32, logs: &Path, folder: &Path) -> Result<Reopeners> {
        let stop = Arc::<AtomicBool>::default();
        let (mut threads, mut all) = (Vec::new(), Vec::new());
        for source in 0..sources {
            let path = logs.join(format!("w{source}.log"));
            let progress = Arc::<Progress>::default();
            let mut writer = Writer {
                behaviour,
                source,
                file: open(&path).during("open a followed file")?,
                path,
                signal: signal(folder, source),
                rng: fastrand::Rng::with_seed(behaviour.run << 8 | u64::from(source)),
                owed: Vec::new(),
                offset: 0,
                reopens_in: None,
                sent: Vec::new(),
                progress: Arc::clone(&progress),
            };
            let stop = Arc::clone(&stop);
            threads.push(thread::spawn(move || {
                let result = writer.go(&stop);
                (std::mem::take(&mut writer.sent), result)
            }));
            all.push(progress);
        }
        Ok(Reopeners { stop, threads, progress: all })
    }

    /// Complete lines of each.
    pub fn lines(&self) -> Vec<u64> {
        self.progress.iter().map(|one| one.lines.load(Ordering::Acquire)).collect()
    }

    /// The first line of the file that each has open, if all of them have reopened theirs this often.
    pub fn opened(&self, times: u64) -> Option<Vec<u64>> {
        let open = |one: &Arc<Progress>| {
            (one.reopened.load(Ordering::Acquire) == times).then(|| one.first.load(Ordering::Acquire))
        };
        self.progress.iter().map(open).collect()
    }

    /// How often one was late.
    pub fn late(&self) -> u64 {
        self.progress.iter().map(|one| one.late.load(Ordering::Relaxed)).sum()
    }

    /// Whether one has ended by itself: [`Reopeners::end`] returns its error.
    pub fn has_failed(&self) -> bool {
        self.threads.iter().any(thread::JoinHandle::is_finished)
    }

    /// Lets each complete its last line; returns what they wrote.
    pub fn end(&mut self) -> Result<Vec<Vec<Sent>>> {
        self.stop.store(true, Ordering::Relaxed);
        let join = |thread: thread::JoinHandle<Ended>| {
            let (sent, result) = thread.join().map_err(|_| Trouble::new("a writer panicked"))?;
            result.during("write a followed file").map(|()| sent)
        };
        self.threads.drain(..).map(join).collect()
    }
}

impl Drop for Reopeners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
