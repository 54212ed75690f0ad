//! The tail: follows the files that globs name and appends their lines to the log.
//!
//! A plain thread sweeps the folders, with inotify as a hint, knows each file again by its content
//! (`docs/explanation/tail.md`), reads whole lines and hands them over in blocks, with the checkpoints that cover them in the
//! same append. Standard input and FIFOs go the same way, but what was read of them is nowhere else until it is
//! durable. Bounds: 10,000 sources of 500 bytes, 4 MiB of buffers, two appends in flight, half of the descriptor
//! limit, 64 streams. It never drops a line, never follows its own outputs, and waits while the log is full: the files
//! are the outer buffer.

mod candidates;
mod check;
mod discover;
mod error;
mod fill;
mod frames;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod globs;
mod identity;
mod lines;
mod links;
mod notice;
mod open;
mod packed;
mod pipe;
mod press;
mod preview;
mod reader;
mod recognise;
mod record;
mod refollow;
mod refused;
mod remake;
mod rotation;
mod source;
mod status;
mod stream;
mod streams;
mod sweep;
#[cfg(test)]
mod tests;
mod unpack;
mod verdict;
mod wait;
mod watch;
mod worker;

use std::fmt;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use spillq_storage::{LINE_BYTES_MAX, SourceId};

pub use error::TailError;
pub use preview::{Preview, preview};
pub use recognise::SOURCES_MAX;
pub use record::{RecordError, SourceRecord};
pub use refollow::Follows;
pub use refused::{Unreadable, WhyUnreadable};
pub use remake::{adopt, remake};
pub use status::{Counters, LeftOutFiles, Snapshot, SourceState, SourceStatus};

use crate::queue::{Handle, Pulse};
pub use worker::BUFFERED_BYTES_MAX;

use watch::{Wake, Watch};
use worker::{Now, Step, Worker};

/// Seconds between two sweeps by default: how long a line waits where no event tells of it, and with 10,000 files
/// about 2 % of one core.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// `max_line_bytes` by default.
pub const MAX_LINE_BYTES: usize = 8 * 1_024 * 1_024;
/// `rotate_wait` by default: writers that were told to reopen their log have done so by then.
pub const ROTATE_WAIT: Duration = Duration::from_secs(60);
/// Sets of globs: a source names its own in 16 bits.
const FOLLOWS_MAX: usize = 1_000;
/// The longest wait in one piece, so that a stop and a question for the status are heard.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How long a stop waits for the log. Nothing is lost by not waiting: the checkpoint is in the log.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How long a question for the status waits before the last snapshot has to do.
const STATUS_WAIT: Duration = Duration::from_millis(500);
/// How long new follows wait for the tail to take them: longer than any turn, unless it hangs in a read.
const TAKE_WAIT: Duration = Duration::from_secs(5);
/// Below this limit of descriptors it is said: files that are rotated away may be lost before they are read.
const OPEN_FEW: u64 = 1_024;
/// Descriptors held where the limit is unlimited.
const OPEN_MAX: u64 = 65_536;

/// Where a file is first read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// Its beginning.
    #[default]
    Beginning,
    /// Its end, for files that exist at the first start of the store; others from their beginning.
    End,
}

/// One set of globs and how its files are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Absolute globs; `**` spans folders.
    pub include: Vec<String>,
    /// Standard input too.
    pub stdin: bool,
    /// Globs for names or whole paths that are left out.
    pub exclude: Vec<String>,
    /// Where files are first read from.
    pub from: From,
    /// Longer lines are cut into marked parts of this size; at most [`LINE_BYTES_MAX`].
    pub max_line_bytes: usize,
    /// How long a rotated or deleted file must be quiet before it is finished.
    pub rotate_wait: Duration,
    /// Symbolic links are followed as long as they end below this folder; none are without it.
    pub symlinks: Option<PathBuf>,
}

impl Follow {
    /// These globs with the defaults.
    #[must_use]
    pub fn new(include: Vec<String>) -> Follow {
        Follow {
            include,
            stdin: false,
            exclude: Vec::new(),
            from: From::Beginning,
            max_line_bytes: MAX_LINE_BYTES,
            rotate_wait: ROTATE_WAIT,
            symlinks: None,
        }
    }
}

/// What to follow, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Sets of globs; a file that two of them name belongs to the first.
    pub follows: Vec<Follow>,
    /// Files and folders that are never followed: the data dir, the log, outputs.
    pub never: Vec<PathBuf>,
    /// Time between two sweeps.
    pub sweep_interval: Duration,
    /// Read to the end, then end.
    pub once: bool,
    /// The store was just created: what [`From::End`] asks about.
    pub first_start: bool,
}

/// The running tail.
pub struct TailHandle {
    shared: Arc<Shared>,
    wake: Wake,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    stop: AtomicBool,
    done: AtomicBool,
    ended: Mutex<bool>,
    asked: AtomicBool,
    has_ended: Condvar,
    /// To be taken before anything more is read.
    next: Mutex<Option<Follows>>,
    taken: Condvar,
    snapshot: Mutex<Arc<Snapshot>>,
    published: Condvar,
    pulse: Pulse,
}

/// The door.
#[derive(Debug)]
pub struct Tail;

impl Tail {
    /// Starts following. `known`: the checkpoints in the log; `next_source`: the first id that no source had yet.
    ///
    /// # Errors
    /// When the settings do not make sense; nothing was read then.
    pub fn start(
        settings: Settings,
        known: Vec<(SourceId, Bytes)>,
        next_source: SourceId,
        handle: Handle,
    ) -> Result<TailHandle, TailError> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(OPEN_MAX).min(OPEN_MAX);
        if limit < OPEN_FEW {
            let files = limit / 2;
            tracing::warn!(
                limit,
                files,
                "RLIMIT_NOFILE is low: at most {files} followed files are kept open"
            );
        }
        let open_max = usize::try_from(limit / 2).unwrap_or(usize::MAX);
        let mut worker = Worker::new(settings, known, next_source, handle, open_max, now())?;
        worker.follow_input(std::io::stdin().as_fd())?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            done: AtomicBool::new(false),
            ended: Mutex::new(false),
            asked: AtomicBool::new(false),
            next: Mutex::new(None),
            taken: Condvar::new(),
            snapshot: Mutex::new(Snapshot::empty()),
            has_ended: Condvar::new(),
            published: Condvar::new(),
            pulse: Pulse::default(),
        });
        let (watch, wake, hints) = Watch::new(worker.streams.bell());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("tail".to_owned())
            .spawn(move || {
                // Told on the way out whatever the way, so that nobody waits for a thread that panicked.
                let _ended = Ended(&theirs);
                run(worker, watch, &hints, &theirs);
            })
            .map_err(TailError::Thread)?;
        Ok(TailHandle { shared, wake, thread: Mutex::new(Some(thread)) })
    }
}

fn check(follows: &[Follow]) -> Result<(), TailError> {
    if follows.len() > FOLLOWS_MAX {
        return Err(TailError::Follows(follows.len()));
    }
    for follow in follows {
        if !(1..=LINE_BYTES_MAX).contains(&follow.max_line_bytes) {
            return Err(TailError::LineBytes { found: follow.max_line_bytes, max: LINE_BYTES_MAX });
        }
    }
    Ok(())
}

impl TailHandle {
    /// Stops after the appends in flight, and waits for that 10 s at most; false where the thread hangs in a read and
    /// was left behind. Nothing is lost either way.
    pub fn stop(&self) -> bool {
        self.shared.stop.store(true, Ordering::Release);
        self.wake.wake();
        let ended = self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, _) = self
            .shared
            .has_ended
            .wait_timeout_while(ended, 2 * STOP_WAIT, |ended| !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        let has_ended = *ended;
        drop(ended);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread {
            Some(thread) if has_ended => thread.join().is_ok(),
            _ => false,
        }
    }

    /// Follows these from now on, and waits 5 s at most until the thread has taken them; false where it hangs in a
    /// read, and takes them before it reads anything else. The last that were given count.
    pub fn follow(&self, follows: Follows) -> bool {
        let mut next = self.shared.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = Some(follows);
        self.wake.wake();
        let waiting = self.shared.taken.wait_timeout_while(next, TAKE_WAIT, |next| next.is_some());
        waiting.unwrap_or_else(PoisonError::into_inner).0.is_none()
    }

    /// Whether everything was read and stored, in once mode. Incomplete last lines stay unread.
    #[must_use]
    pub fn done(&self) -> bool {
        self.shared.done.load(Ordering::Acquire)
    }

    /// Whether the thread has ended: stopped, done, or because the log closed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long it has been at one turn, of a second at most where disks answer; `None` while it waits, for files
    /// or for the log, or has ended.
    #[must_use]
    pub fn busy_ms(&self) -> Option<u64> {
        self.shared.pulse.busy_ms(now().boot_ms)
    }

    /// What the tail is doing. Waits half a second at most, then answers with the last known.
    #[must_use]
    pub fn status(&self) -> Arc<Snapshot> {
        let asked_at = SystemTime::now();
        let snapshot = self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.asked.store(true, Ordering::Release);
        self.wake.wake();
        if self.has_ended() {
            return Arc::clone(&snapshot);
        }
        let (snapshot, _) = self
            .shared
            .published
            .wait_timeout_while(snapshot, STATUS_WAIT, |snapshot| snapshot.taken_at < asked_at)
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&snapshot)
    }
}

impl Drop for TailHandle {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake.wake();
    }
}

impl fmt::Debug for TailHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TailHandle").field("done", &self.done()).finish_non_exhaustive()
    }
}

struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.has_ended.notify_all();
    }
}

fn run(mut worker: Worker, mut watch: Watch, hints: &Receiver<PathBuf>, shared: &Shared) {
    let mut sweeps = 0;
    while !shared.stop.load(Ordering::Acquire) {
        shared.pulse.busy(now().boot_ms);
        if let Some(follows) = shared.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            worker.refollow(follows);
            shared.taken.notify_all();
        }
        for path in hints.try_iter() {
            worker.hint(&path);
        }
        worker.sweep_wanted |= watch.take_names_changed();
        let Ok(step) = worker.step(now()) else {
            tracing::error!("the log is closed: nothing more is read");
            break;
        };
        if worker.sweep_number != sweeps {
            sweeps = worker.sweep_number;
            worker.sweep_wanted |= watch.set(&worker.folders);
        }
        if shared.asked.swap(false, Ordering::AcqRel) {
            publish(&worker, shared);
        }
        if worker.once && worker.is_done() {
            shared.done.store(true, Ordering::Release);
            break;
        }
        shared.pulse.idle();
        let waited = match step {
            Step::Busy => Ok(()),
            Step::WaitForLog => worker.retire(WAIT_MAX),
            // In once mode the last answer is what everybody waits for.
            Step::Idle if worker.once && worker.has_in_flight() => worker.retire(WAIT_MAX),
            Step::Idle => {
                worker.streams.wait(worker.idle_ms(now()).max(1));
                Ok(())
            }
        };
        if waited.is_err() {
            tracing::error!("the log is closed: nothing more is read");
            break;
        }
    }
    shared.pulse.idle();
    let until = Instant::now() + STOP_WAIT;
    worker.close_streams(now(), until);
    if worker.settle(until.saturating_duration_since(Instant::now())).is_err() {
        tracing::info!("stopped before the log answered; the checkpoints in it say how far it came");
    }
    publish(&worker, shared);
}

fn publish(worker: &Worker, shared: &Shared) {
    *shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(worker.snapshot());
    shared.published.notify_all();
}

fn now() -> Now {
    // Runs on while the host sleeps, unlike Instant.
    let boot = clock_gettime(ClockId::Boottime);
    let boot_ms = boot.tv_sec as u64 * 1_000 + boot.tv_nsec as u64 / 1_000_000;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { boot_ms, wall_ms: wall.as_millis() as u64 }
}
