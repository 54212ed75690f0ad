//! Lines per second, for all workers of a group together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Decides when the next batch may begin. Cheap to clone; clones share the rate.
#[derive(Clone, Debug)]
pub struct Pace {
    lines_per_second: u64,
    next: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    /// A rate of at least one line per second.
    #[must_use]
    pub fn new(lines_per_second: u64) -> Pace {
        Pace { lines_per_second: lines_per_second.max(1), next: Arc::default() }
    }

    /// Lines per second.
    #[must_use]
    pub fn lines_per_second(&self) -> u64 {
        self.lines_per_second
    }

    /// Counts a batch of `lines` that began at `started`. Returns when the next one may begin. Unused time is not saved up.
    pub(crate) fn book(&self, lines: u64, started: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let from = next.map_or(started, |next| next.max(started));
        let due = from + Duration::from_secs_f64(lines as f64 / self.lines_per_second as f64);
        *next = Some(due);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_rate_and_idle_time_is_lost() {
        let (pace, start) = (Pace::new(100), Instant::now());
        let other = pace.clone();
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(pace.book(100, start), after(1_000));
        assert_eq!(other.book(50, start), after(1_500), "two workers are not twice as fast");
        assert_eq!(pace.book(100, after(9_000)), after(10_000));
    }
}
