//! Waits for the bell, for a stream that became readable, or for time.
//!
//! One epoll descriptor, edge-triggered: a FIFO without writers would otherwise report its end for ever. So after an event a
//! stream is read until nothing is left. At most [`EVENTS_MAX`] events are taken at once; the kernel keeps the rest.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::tail::bell::Bell;

/// Events taken in one call.
const EVENTS_MAX: usize = 64;
/// The key of the bell; streams have keys from 1.
const BELL: u64 = 0;

/// Something happened to a stream: it can be read, or its last writer has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) key: u64,
    pub(crate) hung_up: bool,
}

/// Waits for the bell and for streams.
#[derive(Debug)]
pub(crate) struct Waiter {
    epoll: OwnedFd,
    bell: Bell,
    /// It rang, and no wait has ended for it yet.
    rang: bool,
}

impl Waiter {
    pub(crate) fn new() -> io::Result<Waiter> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Bell::new()?;
        let data = epoll::EventData::new_u64(BELL);
        epoll::add(&epoll, &bell, data, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        Ok(Waiter { epoll, bell, rang: false })
    }

    pub(crate) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Reports this descriptor from now on, until it is closed. False if it is always readable, as a file is.
    pub(crate) fn add(&self, fd: impl AsFd, key: u64) -> io::Result<bool> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        match epoll::add(&self.epoll, fd, epoll::EventData::new_u64(key), flags) {
            Ok(()) => Ok(true),
            Err(Errno::PERM) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What happened since the last call. Does not wait.
    pub(crate) fn look(&mut self) -> Vec<Edge> {
        self.take(0)
    }

    /// Waits for the bell or an edge, for this many milliseconds at most.
    pub(crate) fn wait(&mut self, ms: u64) -> Vec<Edge> {
        let ms = if self.rang { 0 } else { ms };
        let edges = self.take(ms);
        self.rang = false;
        edges
    }

    fn take(&mut self, ms: u64) -> Vec<Edge> {
        let timeout = Timespec {
            tv_sec: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
            tv_nsec: (ms % 1_000 * 1_000_000) as i64,
        };
        let mut events = [MaybeUninit::uninit(); EVENTS_MAX];
        let reported = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok((reported, _)) => reported,
            Err(Errno::INTR) => return Vec::new(),
            Err(error) => {
                tracing::error!(%error, "cannot wait for streams");
                // The next attempt is not made at once.
                std::thread::sleep(std::time::Duration::from_millis(ms));
                return Vec::new();
            }
        };
        let mut edges = Vec::new();
        for event in reported.iter() {
            let (key, flags) = (event.data.u64(), event.flags);
            match key {
                BELL => {
                    self.bell.heard();
                    self.rang = true;
                }
                _ => edges.push(Edge { key, hung_up: flags.contains(epoll::EventFlags::HUP) }),
            }
        }
        edges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_wait_ends_it_and_is_heard_once() {
        let mut waiter = Waiter::new().unwrap();
        waiter.bell().ring();
        waiter.bell().ring();
        assert_eq!(waiter.look(), []);
        let began = std::time::Instant::now();
        assert_eq!(waiter.wait(60_000), []);
        assert!(began.elapsed().as_secs() < 60);
        assert!(!waiter.rang);
        assert_eq!((waiter.wait(0), waiter.rang), (Vec::new(), false));
        waiter.bell().ring();
        assert_eq!(waiter.wait(60_000), []);
        assert!(began.elapsed().as_secs() < 60, "a ring after a wait ends the next one");
    }

    #[test]
    fn an_edge_is_reported_once_and_again_with_the_next_bytes() {
        let mut waiter = Waiter::new().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        assert!(waiter.add(&read, 7).unwrap());
        rustix::io::write(&write, b"a").unwrap();
        let edge = |hung_up| vec![Edge { key: 7, hung_up }];
        assert_eq!((waiter.wait(60_000), waiter.look()), (edge(false), Vec::new()));
        rustix::io::write(&write, b"b").unwrap();
        assert_eq!(waiter.wait(60_000), edge(false));
        drop(write);
        assert_eq!((waiter.wait(60_000), waiter.look()), (edge(true), Vec::new()));
        let file = tempfile::tempfile().unwrap();
        assert!(!waiter.add(&file, 8).unwrap(), "a file can always be read");
    }
}
