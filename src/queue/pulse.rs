//! How long a thread has been at one round of work: what tells a stuck disk from an idle queue, and a read that
//! hangs from a quiet file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Stamped by the owner, and one more by the tail; read by whoever watches them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// A round begins: of the owner, commands, their commit, and upkeep.
    pub(crate) fn busy(&self, now_ms: u64) {
        // 0 stands for idle.
        self.0.store(now_ms.max(1), Ordering::Release);
    }

    /// The thread waits for something to do.
    pub(crate) fn idle(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// For how long the round under way has taken; `None` while the thread waits.
    #[must_use]
    pub fn busy_ms(&self, now_ms: u64) -> Option<u64> {
        match self.0.load(Ordering::Acquire) {
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
}
