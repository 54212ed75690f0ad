//! How long to wait before a server that is down is tried again. Meanwhile its lines are neither bisected nor counted as
//! attempts, so that they arrive in order.

use std::time::Duration;

/// The first pause. The group's `retry.initial` and `retry.max` bound all of them.
const FIRST: Duration = Duration::from_millis(50);
/// Doublings that are counted: more than a day, beyond any `retry.max`.
const DOUBLINGS_MAX: u32 = 21;

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Outage {
    failures: u32,
}

impl Outage {
    /// Counts a failure, and returns how long to wait.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = FIRST * (1 << self.failures);
        self.failures = (self.failures + 1).min(DOUBLINGS_MAX);
        pause
    }

    /// The server answered.
    pub(super) fn is_over(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_again() {
        let mut outage = Outage::default();
        assert_eq!([outage.pause(), outage.pause(), outage.pause()], [FIRST, FIRST * 2, FIRST * 4]);
        for _ in 0..100 {
            outage.pause();
        }
        assert_eq!(outage.pause(), FIRST * (1 << DOUBLINGS_MAX));
        outage.is_over();
        assert_eq!(outage.pause(), FIRST);
    }
}
