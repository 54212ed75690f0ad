//! A worker on a temporary folder, with a log that stores what it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use spillq_storage::{LineFlags, Seq, SourceId};

use crate::queue::{Append, Appended, Command, Handle};
use crate::tail::bytes::fill::APPEND_BYTES;
use crate::tail::bytes::reader::TURN_BYTES;
use crate::tail::clock::Now;
use crate::tail::known::record::SourceRecord;
use crate::tail::known::table::SOURCES_MAX;
use crate::tail::settings::{Follow, Settings};
use crate::tail::worker::{Step, Worker};

/// Longer than `rotate_wait`.
pub(super) const MINUTES: Duration = Duration::from_secs(120);
/// After this time without a change a file is read or checked.
pub(super) const REST: Duration = Duration::from_secs(3);

/// How a file is compressed.
pub(super) type Compress = fn(&[u8]) -> Vec<u8>;

/// Numbered lines, long enough not to look like a header.
pub(super) fn lines(from: u32, to: u32) -> String {
    (from..to).map(|nth| format!("line {nth:09} {}\n", "x".repeat(nth as usize % 80))).collect()
}

/// A line as the log got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) source: SourceId,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) flags: LineFlags,
}

/// What the log has.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) lines: Vec<Stored>,
    pub(crate) checkpoints: BTreeMap<SourceId, Bytes>,
    pub(crate) forgotten: BTreeSet<SourceId>,
    pub(crate) appends: usize,
}

impl Log {
    pub(crate) fn take(&mut self, append: &Append) {
        self.appends += 1;
        for block in &append.blocks {
            let block = block.numbered(0, Seq::FIRST);
            let lines = self.lines.len();
            self.lines.extend(block.lines().map(|line| Stored {
                source: line.source,
                offset: line.offset,
                bytes: line.bytes.to_vec(),
                flags: line.flags,
            }));
            let bytes: usize = self.lines[lines..].iter().map(|line| line.bytes.len()).sum();
            assert_eq!(
                (self.lines.len() - lines, bytes),
                (block.range().lines() as usize, block.raw().len())
            );
        }
        for (source, record) in &append.checkpoints {
            let decoded = SourceRecord::decode(record).unwrap();
            let stored = self.lines.iter().rev().find(|line| line.source == *source);
            if let Some(line) = stored.filter(|_| append.blocks.iter().any(|block| has(block, *source))) {
                let end = line.offset + line.bytes.len() as u64;
                assert_eq!(decoded.offset, end, "a checkpoint covers exactly the lines with it");
            }
            self.checkpoints.insert(*source, record.clone());
            self.forgotten.remove(source);
        }
        for line in
            self.lines.iter().rev().take(append.blocks.iter().map(|block| block.lines() as usize).sum())
        {
            let has_checkpoint = append.checkpoints.iter().any(|one| one.0 == line.source);
            assert!(has_checkpoint, "lines come with a checkpoint");
        }
        self.forgotten.extend(&append.forget);
    }

    pub(crate) fn text(&self) -> Vec<String> {
        self.lines.iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
    }
}

fn has(block: &spillq_storage::NewBlock, source: SourceId) -> bool {
    block.numbered(0, Seq::FIRST).lines().any(|line| line.source == source)
}

/// The worker, its folder and its log.
pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) worker: Worker,
    pub(crate) log: Log,
    pub(crate) settings: Settings,
    commands: Receiver<Command>,
    held: Vec<(Append, SyncSender<Appended>)>,
    /// The log does not answer.
    pub(crate) is_full: bool,
    pub(crate) open_max: usize,
    /// Files that are followed at once.
    pub(crate) sources_max: usize,
    /// Bytes of a source in a turn, and of all in an append.
    pub(crate) turn_bytes: u64,
    pub(crate) append_bytes: usize,
    /// Ahead of the wall clock by the time that a test let pass, and of the boot clock by the steps too.
    skew_ms: u64,
    steps_ms: u64,
    /// The clock of the server that has the files is behind ours by this, or ahead where it is negative.
    pub(crate) server_behind_ms: i64,
}

impl Rig {
    /// Follows `globs` below a new folder.
    pub(crate) fn new(globs: &[&str]) -> Rig {
        Rig::with(globs, |_| {})
    }

    pub(crate) fn with(globs: &[&str], change: impl FnOnce(&mut Settings)) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let include = globs.iter().map(|glob| dir.path().join(glob).to_str().unwrap().to_owned()).collect();
        let follow = Follow { rotate_wait: Duration::from_secs(60), ..Follow::new(include) };
        let mut settings = Settings {
            follows: vec![follow],
            never: vec![dir.path().join("data")],
            scan_interval: Duration::from_secs(1),
            once: false,
            first_start: true,
        };
        change(&mut settings);
        let (worker, commands) = start(&settings, Vec::new(), SourceId(1), 100, now(0, 0));
        let log = Log::default();
        Rig {
            dir,
            worker,
            log,
            settings,
            commands,
            held: Vec::new(),
            is_full: false,
            open_max: 100,
            sources_max: SOURCES_MAX,
            turn_bytes: TURN_BYTES,
            append_bytes: APPEND_BYTES,
            skew_ms: 0,
            steps_ms: 0,
            server_behind_ms: 0,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        append_to(&self.path(name), bytes.as_ref());
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub(crate) fn copy(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
    }

    pub(crate) fn truncate(&self, name: &str, len: u64) {
        OpenOptions::new().write(true).open(self.path(name)).unwrap().set_len(len).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// A writer that keeps a file open.
    pub(super) fn writer(&self, name: &str) -> File {
        OpenOptions::new().append(true).open(self.path(name)).unwrap()
    }

    /// Compresses a file next to it, as `gzip --keep` does; its time stays.
    pub(super) fn compress(&self, from: &str, to: &str, compress: Compress) {
        let bytes = fs::read(self.path(from)).unwrap();
        let time = self.path(from).metadata().unwrap().modified().unwrap();
        fs::write(self.path(to), compress(&bytes)).unwrap();
        self.writer(to).set_modified(time).unwrap();
    }

    /// Compresses a file and removes it.
    pub(super) fn compress_and_remove(&self, from: &str, to: &str, compress: Compress) {
        self.compress(from, to, compress);
        self.remove(from);
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.skew_ms += time.as_millis() as u64;
    }

    pub(crate) fn now(&self) -> Now {
        let now = now(self.skew_ms, self.steps_ms);
        Now { wall_ms: now.wall_ms.saturating_add_signed(self.server_behind_ms), ..now }
    }

    /// One step, with answers unless the log is full.
    pub(crate) fn step(&mut self) -> Step {
        let step = self.worker.step(self.now()).unwrap();
        self.held.extend(self.commands.try_iter().map(|command| match command {
            Command::Append(append, reply) => (append, reply),
            other => panic!("the tail only appends, it asked {other:?}"),
        }));
        if !self.is_full {
            for (append, reply) in self.held.drain(..) {
                self.log.take(&append);
                reply.send(Appended { first: Seq(1), next: Seq(1) }).unwrap();
            }
        }
        step
    }

    /// Appends that wait for an answer.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Steps until nothing changes: three scans without anything to do.
    pub(crate) fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..100_000 {
            // The time that a scan really takes does not count on this clock.
            let now = self.now().boot_ms;
            let scans = &mut self.worker.scans;
            (scans.cost_ms, scans.end_ms) = (0, scans.end_ms.min(now));
            self.worker.book.scan_wanted = true;
            self.steps_ms += 50;
            match self.step() {
                Step::Idle => idle += 1,
                Step::WaitForLog if self.is_full => idle += 1,
                _ => idle = 0,
            }
            if idle > 3 {
                return;
            }
        }
        panic!("it never settles: {:?}", self.worker.snapshot());
    }

    /// A kill and a start: only what the log has is known.
    pub(crate) fn restart(&mut self) {
        self.held.clear();
        let next = self.log.checkpoints.keys().map(|id| id.0 + 1).max().unwrap_or(1);
        let known: Vec<_> = self
            .log
            .checkpoints
            .iter()
            .filter(|(id, _)| !self.log.forgotten.contains(id))
            .map(|(id, record)| (*id, record.clone()))
            .collect();
        self.settings.first_start = false;
        let (worker, commands) = start(&self.settings, known, SourceId(next), self.open_max, self.now());
        (self.worker, self.commands) = (worker, commands);
        self.cut();
    }

    /// Small files take as many turns and appends as real ones do.
    pub(crate) fn read_in_bits(&mut self, turn_bytes: u64, append_bytes: usize) {
        (self.turn_bytes, self.append_bytes) = (turn_bytes, append_bytes);
        self.cut();
    }

    /// Follows no more than this many files at once.
    pub(crate) fn follow_at_most(&mut self, files: usize) {
        self.sources_max = files;
        self.cut();
    }

    fn cut(&mut self) {
        self.worker.book.sources_max = self.sources_max;
        self.worker.reader.turn_bytes = self.turn_bytes;
        self.worker.appends.append_bytes = self.append_bytes;
    }

    #[track_caller]
    pub(crate) fn check(&mut self, expected: &[&str]) {
        self.settle();
        assert_eq!(self.log.text(), expected, "{:#?}", self.worker.snapshot());
    }
}

fn start(
    settings: &Settings,
    known: Vec<(SourceId, Bytes)>,
    next: SourceId,
    open_max: usize,
    at: Now,
) -> (Worker, Receiver<Command>) {
    let (handle, commands) = Handle::channel();
    let worker = Worker::new(settings.clone(), known, next, handle, open_max, at).unwrap();
    (worker, commands)
}

fn now(skew_ms: u64, steps_ms: u64) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    Now { boot_ms: 1_000 + skew_ms + steps_ms, wall_ms: wall + skew_ms }
}

pub(crate) fn append_to(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}
