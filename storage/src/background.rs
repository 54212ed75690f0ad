//! A thread for slow file work. A log has two: one makes the next journal and removes the old one, the other writes and
//! syncs segment files.
//!
//! Jobs run in order. At most a handful wait: a rotation adds three.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::disk::Disk;

type Job = Box<dyn FnOnce() + Send>;

/// The thread; none if jobs are run by the caller.
pub(crate) struct Background {
    thread: Option<(Sender<Job>, JoinHandle<()>)>,
}

impl Background {
    pub(crate) fn new(disk: &dyn Disk, name: &str) -> std::io::Result<Background> {
        if !disk.works_in_background() {
            return Ok(Background { thread: None });
        }
        let (jobs, received) = channel::<Job>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            for job in received {
                job();
            }
        })?;
        Ok(Background { thread: Some((jobs, thread)) })
    }

    /// Runs `job` after those before it, and sends its result to the receiver.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
        let (result, receiver) = channel();
        // The receiver is gone if the log was dropped or does not need the result.
        let job: Job = Box::new(move || drop(result.send(job())));
        match &self.thread {
            Some((jobs, _)) => {
                if let Err(unsent) = jobs.send(job) {
                    (unsent.0)();
                }
            }
            None => job(),
        }
        receiver
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some((jobs, thread)) = self.thread.take() {
            drop(jobs);
            if thread.join().is_err() {
                tracing::error!("the background thread of the log panicked");
            }
        }
    }
}
