//! Durations in sentences: one unit each, as precise as a reader needs.

use std::time::Duration;

/// A duration that was measured: `3.2 s`, `3 min`, `5 h`, `2 d`.
#[must_use]
pub fn duration(ms: u64) -> String {
    if ms < 120_000 { format!("{:.1} s", ms as f64 / 1e3) } else { rough_duration(ms as f64 / 1e3) }
}

/// A duration that was estimated, or that changes while it is read: `3 s`, `3 min`, `5 h`, `2 d`.
#[must_use]
pub fn rough_duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// A time on the axis of a plot of some minutes: `540 s`, `12 min`.
#[must_use]
pub fn axis_duration(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..600 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_one_unit() {
        for (ms, words) in [
            (0, "0.0 s"),
            (3_210, "3.2 s"),
            (119_900, "119.9 s"),
            (120_000, "2 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(duration(ms), words);
        }
        assert_eq!([0.4, 61.0, 300.0, 86_400.0].map(rough_duration), ["0 s", "61 s", "5 min", "24 h"]);
        assert_eq!([599, 600].map(|s| axis_duration(Duration::from_secs(s))), ["599 s", "10 min"]);
    }
}
