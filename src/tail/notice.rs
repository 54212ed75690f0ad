//! When a count of files is worth a message: once when there are some; then when it has at least doubled or halved, at
//! most once a minute; and every hour.

/// Between two messages about one count, however it changes.
const PAUSE_MS: u64 = 60 * 1_000;
/// After this time the message is repeated, for readers of the end of the log.
const AGAIN_MS: u64 = 60 * 60 * 1_000;

/// What was reported last of one count.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    /// The count, and when.
    last: Option<(usize, u64)>,
}

impl Notice {
    /// Whether `count` is to be reported now; it is then taken as reported.
    pub(crate) fn is_due(&mut self, count: usize, now_ms: u64) -> bool {
        let is_due = match self.last {
            None => count > 0,
            Some((last, at_ms)) => {
                let since_ms = now_ms.saturating_sub(at_ms);
                let has_changed = count > 2 * last || 2 * count < last;
                has_changed && since_ms >= PAUSE_MS || count > 0 && since_ms >= AGAIN_MS
            }
        };
        if is_due {
            self.last = Some((count, now_ms));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_reported_once_then_after_a_change_or_a_long_while() {
        let mut notice = Notice::default();
        let minute = PAUSE_MS;
        let seen: Vec<bool> = [
            (0, 0),
            (100, 1),
            (100, 1_000),
            (200, 2 * minute),
            (201, 3 * minute),
            (450, 3 * minute + 1),
            (450, 4 * minute),
            (0, 4 * minute + 1),
            (0, 5 * minute),
            (0, AGAIN_MS * 3),
            (1, AGAIN_MS * 3 + 1),
            (1, AGAIN_MS * 4),
            (1, AGAIN_MS * 4 + 1),
        ]
        .into_iter()
        .map(|(count, now_ms)| notice.is_due(count, now_ms))
        .collect();
        let expected = [false, true, false, false, true, false, true, false, true, false, true, false, true];
        assert_eq!(seen, expected);
    }
}
