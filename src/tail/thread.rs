//! The thread of the tail: its start and stop, the waits between two rounds, and requests from other threads.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rustix::process::{Resource, getrlimit};
use spillq_storage::SourceId;

use crate::queue::{Closed, Handle, Pulse};
use crate::tail::clock::now;
use crate::tail::error::TailError;
use crate::tail::find::{Follows, Wake, Watch};
use crate::tail::rules::inactive;
use crate::tail::settings::Settings;
use crate::tail::status::Snapshot;
use crate::tail::worker::{Step, Worker};

/// The longest wait in one piece, so that a stop or a request for the status is noticed.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How long a stop waits for the log. Nothing is lost by not waiting: the checkpoint is in the log.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How long a request for the status waits before it gets the last snapshot.
const STATUS_WAIT: Duration = Duration::from_millis(500);
/// How long new follows wait for the tail to apply them: longer than any round, unless it hangs in a read.
const APPLY_WAIT: Duration = Duration::from_secs(5);
/// Below this limit of descriptors there is a warning: files that are rotated away may be lost before they are read.
const OPEN_FEW: u64 = 1_024;
/// Descriptors used if the limit is unlimited.
const OPEN_MAX: u64 = 65_536;

/// The running tail.
#[derive(Debug)]
pub struct TailHandle {
    shared: Arc<Shared>,
    wake: Wake,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicBool,
    ended: Mutex<bool>,
    asked: AtomicBool,
    has_ended: Condvar,
    /// To be applied before anything more is read.
    next: Mutex<Option<Follows>>,
    applied: Condvar,
    snapshot: Mutex<Arc<Snapshot>>,
    published: Condvar,
    pulse: Pulse,
}

impl TailHandle {
    /// Starts following. `known`: the checkpoints in the log; `next_source`: the first number that no source had yet.
    ///
    /// # Errors
    /// If the settings do not make sense; nothing was read then.
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
        let shared = Arc::<Shared>::default();
        let (watch, wake) = Watch::new(worker.streams.bell());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("tail".to_owned())
            .spawn(move || {
                // Noted however the thread ends: no other thread waits for one that panicked.
                let _ended = Ended(&of_thread);
                run(worker, watch, &of_thread);
            })
            .map_err(TailError::Thread)?;
        Ok(TailHandle { shared, wake, thread: Mutex::new(Some(thread)) })
    }

    /// Stops after the appends in flight, and waits for that 10 s at most. False if the thread hangs in a read and was left
    /// behind. Nothing is lost either way.
    pub fn stop(&self) -> bool {
        self.shared.stop.store(true, Ordering::Release);
        self.wake.wake();
        let ended = self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.has_ended.wait_timeout_while(ended, 2 * STOP_WAIT, |ended| !*ended);
        let has_ended = *waited.unwrap_or_else(PoisonError::into_inner).0;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread {
            Some(thread) if has_ended => thread.join().is_ok(),
            _ => false,
        }
    }

    /// Follows these from now on, and waits 5 s at most until the thread has applied them. False if it hangs in a read; it
    /// applies them before it reads anything else. Of several, the last apply.
    pub fn follow(&self, follows: Follows) -> bool {
        let mut next = self.shared.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = Some(follows);
        self.wake.wake();
        let waiting = self.shared.applied.wait_timeout_while(next, APPLY_WAIT, |next| next.is_some());
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

    /// For how long it has worked on one round: a second at most if disks answer. `None` while it waits, for files or for the
    /// log, or has ended.
    #[must_use]
    pub fn busy_ms(&self) -> Option<u64> {
        self.shared.pulse.busy_ms(now().boot_ms)
    }

    /// What the tail is doing. Waits half a second at most, then returns the last snapshot.
    #[must_use]
    pub fn status(&self) -> Arc<Snapshot> {
        let asked_at = SystemTime::now();
        let snapshot = self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.asked.store(true, Ordering::Release);
        self.wake.wake();
        if self.has_ended() {
            return Arc::clone(&snapshot);
        }
        let is_old = |snapshot: &mut Arc<Snapshot>| snapshot.taken_at < asked_at;
        let waited = self.shared.published.wait_timeout_while(snapshot, STATUS_WAIT, is_old);
        Arc::clone(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Drop for TailHandle {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake.wake();
    }
}

struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.has_ended.notify_all();
    }
}

fn run(mut worker: Worker, watch: Watch, shared: &Shared) {
    if let Err(Closed) = rounds(&mut worker, watch, shared) {
        tracing::error!("the log is closed: nothing more is read");
    }
    shared.pulse.idle();
    let until = Instant::now() + STOP_WAIT;
    worker.close_streams(now(), until);
    if worker.settle(until.saturating_duration_since(Instant::now())).is_err() {
        tracing::info!(
            "stopped before the log answered; the checkpoints in it are where the next start resumes"
        );
    }
    publish(&worker, shared);
}

/// Round after round, until the tail is stopped or has read everything in once mode.
fn rounds(worker: &mut Worker, mut watch: Watch, shared: &Shared) -> Result<(), Closed> {
    let mut last_scan = 0;
    while !shared.stop.load(Ordering::Acquire) {
        shared.pulse.busy(now().boot_ms);
        if let Some(follows) = shared.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            inactive::refollow(&mut worker.book, follows);
            shared.applied.notify_all();
        }
        for path in watch.hints.try_iter() {
            worker.hint(&path);
        }
        if watch.take_names_changed() {
            worker.book.scan_wanted = true;
        }
        let step = worker.step(now())?;
        if worker.book.scan() != last_scan {
            last_scan = worker.book.scan();
            if watch.set(&worker.scans.folders) {
                worker.book.scan_wanted = true;
            }
            worker.scans.is_watched = watch.sees(&worker.scans.folders);
        }
        if shared.asked.swap(false, Ordering::AcqRel) {
            publish(worker, shared);
        }
        if worker.book.once && worker.is_done() {
            shared.done.store(true, Ordering::Release);
            break;
        }
        shared.pulse.idle();
        match step {
            Step::Busy => {}
            Step::WaitForLog => worker.appends.retire(WAIT_MAX)?,
            // In once mode the process waits for the last answer.
            Step::Idle if worker.book.once && !worker.appends.is_empty() => {
                worker.appends.retire(WAIT_MAX)?
            }
            Step::Idle => worker.streams.wait(worker.idle_ms(now()).max(1)),
        }
    }
    Ok(())
}

fn publish(worker: &Worker, shared: &Shared) {
    *shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(worker.snapshot());
    shared.published.notify_all();
}
