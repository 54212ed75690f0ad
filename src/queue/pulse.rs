//! How long a thread has been at one round of work: what tells a stuck disk from an idle queue, and a read that
//! hangs from a quiet file.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Stamped by the owner, and one more by the tail; read by whoever watches them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pulse {
    since: Arc<AtomicU64>,
    beat: Arc<OnceLock<Beat>>,
}

/// What is done at the end of each round, by the thread itself.
type Beat = Box<dyn Fn() + Send + Sync>;

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Pulse {
    /// From now on the thread calls `beat` at the end of each round: proof that it gets on. It must not wait. Only the
    /// first that is set counts.
    pub fn at_each_round(&self, beat: impl Fn() + Send + Sync + 'static) {
        // Set already: then that one goes on.
        let _ = self.beat.set(Box::new(beat));
    }

    /// A round begins: of the owner, commands, their commit, and upkeep.
    pub(crate) fn busy(&self, now_ms: u64) {
        // 0 stands for idle.
        self.since.store(now_ms.max(1), Ordering::Release);
    }

    /// The thread waits for something to do.
    pub(crate) fn idle(&self) {
        self.since.store(0, Ordering::Release);
        if let Some(beat) = self.beat.get() {
            beat();
        }
    }

    /// For how long the round under way has taken; `None` while the thread waits.
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
    fn a_round_lasts_from_its_begin_until_the_owner_waits() {
        let pulse = Pulse::default();
        assert_eq!(pulse.busy_ms(5), None);
        pulse.busy(7);
        assert_eq!(pulse.busy_ms(10), Some(3));
        pulse.idle();
        assert_eq!(pulse.busy_ms(20), None);
    }

    #[test]
    fn only_the_end_of_a_round_is_a_beat() {
        let (pulse, beats) = (Pulse::default(), Arc::new(AtomicU64::new(0)));
        let counts = Arc::clone(&beats);
        pulse.at_each_round(move || {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        // A round that does not end, however often it is looked at.
        pulse.busy(7);
        assert_eq!((pulse.busy_ms(10), pulse.busy_ms(100_000)), (Some(3), Some(99_993)));
        assert_eq!(beats.load(Ordering::Relaxed), 0);
        pulse.idle();
        assert_eq!(beats.load(Ordering::Relaxed), 1);
    }
}
