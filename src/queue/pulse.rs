//! For how long a thread has been busy with one round of work. It distinguishes a stuck disk from an idle queue, and a
//! read that hangs from a quiet file.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Written by one thread (the owner, or the tail), read by those that watch it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pulse {
    since: Arc<AtomicU64>,
    beat: Arc<OnceLock<Beat>>,
}

/// Called by the thread itself at the end of each round.
type Beat = Box<dyn Fn() + Send + Sync>;

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Pulse {
    /// From now on the thread calls `beat` at the end of each round, as proof of progress. `beat` must not wait. Only the
    /// first call of this function has an effect.
    pub fn at_each_round(&self, beat: impl Fn() + Send + Sync + 'static) {
        // An error means that one is set already.
        let _ = self.beat.set(Box::new(beat));
    }

    /// A round begins. One of the owner is: commands, their commit, and maintenance.
    pub(crate) fn busy(&self, now_ms: u64) {
        // 0 means idle.
        self.since.store(now_ms.max(1), Ordering::Release);
    }

    /// The thread waits for something to do.
    pub(crate) fn idle(&self) {
        self.since.store(0, Ordering::Release);
        if let Some(beat) = self.beat.get() {
            beat();
        }
    }

    /// The duration of the current round so far; `None` while the thread waits.
    #[must_use]
    pub fn busy_ms(&self, now_ms: u64) -> Option<u64> {
        match self.since.load(Ordering::Acquire) {
            0 => None,
            since => Some(now_ms.saturating_sub(since)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_lasts_from_its_beginning_until_the_owner_waits() {
        let pulse = Pulse::default();
        assert_eq!(pulse.busy_ms(5), None);
        pulse.busy(7);
        assert_eq!(pulse.busy_ms(10), Some(3));
        pulse.idle();
        assert_eq!(pulse.busy_ms(20), None);
    }

    #[test]
    fn only_the_end_of_a_round_calls_the_beat() {
        let (pulse, beats) = (Pulse::default(), Arc::new(AtomicU64::new(0)));
        let counts = Arc::clone(&beats);
        pulse.at_each_round(move || {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        // The round does not end, however often it is read.
        pulse.busy(7);
        assert_eq!((pulse.busy_ms(10), pulse.busy_ms(100_000)), (Some(3), Some(99_993)));
        assert_eq!(beats.load(Ordering::Relaxed), 0);
        pulse.idle();
        assert_eq!(beats.load(Ordering::Relaxed), 1);
    }
}
