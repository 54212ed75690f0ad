//! Whether a group falls behind: lines in, lines out and bytes on disk, over the last windows.
//!
//! The lag of a processor that takes large batches rises and falls, and a burst makes it jump. So the least lag of each window
//! counts: the lag grows if that is larger than in the window before. A burst that is shorter than a window touches at most
//! two of them; three windows make up `stall_after`, or a minute if that is shorter.

use std::collections::VecDeque;

use super::inputs::Behind;

/// The number of windows.
const WINDOWS: u64 = 3;
/// Together they span `stall_after`, but at most this.
const SPAN_MAX_MS: u64 = 60_000;

/// The counters at a point in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at_ms: u64,
    /// Lines that have arrived so far.
    pub(super) lines_in: u64,
    /// Lines that have been acked so far.
    pub(super) lines_out: u64,
    /// The lag; at the end of a window, its least value in the window.
    pub(super) lag_lines: u64,
    /// Bytes of the log on disk.
    pub(super) disk_bytes: u64,
}

/// The last windows of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    /// The ends of the windows, the oldest first: one more than there are windows.
    ends: VecDeque<Sample>,
    /// The beginning of the first of the windows in which the lag has grown without a break.
    grows_since: Option<Sample>,
    /// The least lag since the last window ended.
    least_lag: Option<u64>,
}

impl Rates {
    /// Adds a sample. The first after the end of a window ends it.
    pub(super) fn fold(&mut self, now: Sample, stall_after_ms: u64) {
        let least_lag = self.least_lag.unwrap_or(now.lag_lines).min(now.lag_lines);
        self.least_lag = Some(least_lag);
        let Some(last) = self.ends.back() else {
            self.least_lag = None;
            self.ends.push_back(now);
            return;
        };
        let window = stall_after_ms.min(SPAN_MAX_MS) / WINDOWS;
        if now.at_ms.saturating_sub(last.at_ms) < window.max(1) {
            return;
        }
        let now = Sample { lag_lines: least_lag, ..now };
        self.least_lag = None;
        if now.lag_lines > last.lag_lines {
            self.grows_since.get_or_insert(*last);
        } else {
            self.grows_since = None;
        }
        self.ends.push_back(now);
        if self.ends.len() as u64 > WINDOWS + 1 {
            self.ends.pop_front();
        }
    }

    /// How the group falls behind, if its lag grew in the last window. The log can grow by `space_bytes`; `oldest` is the seq
    /// of the oldest line that waits.
    pub(super) fn behind(&self, space_bytes: u64, oldest: Option<u64>) -> Option<Behind> {
        let since = self.grows_since.as_ref()?;
        let (first, last) = (self.ends.front()?, self.ends.back()?);
        let seconds = last.at_ms.saturating_sub(first.at_ms).max(1) as f64 / 1e3;
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        let growth = rate(first.disk_bytes, last.disk_bytes);
        // It had arrived when that window ended, so it has waited at least since then.
        let seen = oldest.and_then(|oldest| self.ends.iter().find(|end| end.lines_in > oldest));
        Some(Behind {
            since_ms: since.at_ms,
            grown_lines: last.lag_lines.saturating_sub(since.lag_lines),
            lines_in: last.lines_in.saturating_sub(since.lines_in),
            oldest_since_ms: seen.map(|end| end.at_ms),
            lines_in_per_s: rate(first.lines_in, last.lines_in),
            lines_out_per_s: rate(first.lines_out, last.lines_out),
            full_in_s: (growth > 0.0).then(|| space_bytes as f64 / growth),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 9_000;

    /// Ten samples in T, with these lines in and out at each.
    fn over(samples: impl IntoIterator<Item = (u64, u64)>) -> Rates {
        let mut rates = Rates::default();
        let mut now = Sample { at_ms: 0, lines_in: 0, lines_out: 0, lag_lines: 0, disk_bytes: 0 };
        for (lines_in, lines_out) in samples {
            now.at_ms += T / 10;
            now.lines_in += lines_in;
            now.lines_out += lines_out;
            now.lag_lines = now.lines_in - now.lines_out;
            now.disk_bytes = now.lines_in * 100;
            rates.fold(now, T);
        }
        rates
    }

    /// Whether the lag grew for T at the end.
    fn is_behind(rates: &Rates) -> bool {
        rates
            .behind(1 << 20, None)
            .is_some_and(|behind| rates.ends.back().unwrap().at_ms - behind.since_ms >= T)
    }

    #[test]
    fn a_lag_that_keeps_growing_is_reported_with_its_rates() {
        let rates = over([(900, 90); 20]);
        assert!(is_behind(&rates));
        let behind = rates.behind(90_000_000, None).unwrap();
        assert_eq!(format!("{:.1} {:.1}", behind.lines_in_per_s, behind.lines_out_per_s), "1000.0 100.0");
        assert_eq!(behind.full_in_s.map(f64::round), Some(900.0));
        // A processor whose batches take several samples.
        assert!(is_behind(&over([(900, 0), (900, 0), (900, 300)].repeat(10))));
    }

    #[test]
    fn the_oldest_line_has_waited_since_the_first_window_that_ended_after_it() {
        // 900 lines a sample, of which 90 are acked: the windows end 9, 6, 3 and 0 samples before the last.
        let rates = over([(900, 90); 20]);
        let (ends, newest) = (&rates.ends, rates.ends.back().unwrap().lines_in);
        let since = |oldest| rates.behind(1, Some(oldest)).unwrap().oldest_since_ms;
        assert_eq!(since(0), Some(ends[0].at_ms));
        assert_eq!(since(ends[0].lines_in), Some(ends[1].at_ms));
        assert_eq!(since(newest), None);
        let behind = rates.behind(1, None).unwrap();
        assert_eq!(behind.oldest_since_ms, None);
        // Nine in ten, except for the lines that arrived after the least lag of the last window.
        let of_all = behind.grown_lines as f64 / behind.lines_in as f64;
        assert!((0.7..=0.9).contains(&of_all), "{behind:?}");
    }

    #[test]
    fn batches_of_half_a_window_that_drift_against_it_are_not_growth() {
        // A thousand lines a sample; a batch takes all lines that wait, and lasts for 21 of the 40 samples of a window.
        let mut rates = Rates::default();
        let (mut now, mut leased) =
            (Sample { at_ms: 0, lines_in: 0, lines_out: 0, lag_lines: 0, disk_bytes: 0 }, 0);
        for sample in 1..2_000_u64 {
            (now.at_ms, now.lines_in) = (sample * 500, sample * 1_000);
            if sample % 21 == 0 {
                (now.lines_out, leased) = (leased, now.lines_in);
            }
            now.lag_lines = now.lines_in - now.lines_out;
            rates.fold(now, 60_000);
            let lasts = rates.behind(1, None).map_or(0, |behind| now.at_ms - behind.since_ms);
            assert!(sample < 120 || lasts < 60_000, "sample {sample}");
        }
    }

    #[test]
    fn a_stall_after_of_more_than_a_minute_counts_as_a_minute() {
        let mut rates = Rates::default();
        for second in 0..=60 {
            let (at_ms, lines_in) = (second * 1_000, second * 10);
            let sample = Sample { at_ms, lines_in, lines_out: 0, lag_lines: lines_in, disk_bytes: 0 };
            rates.fold(sample, 86_400_000);
        }
        assert_eq!(rates.behind(1, None).map(|behind| behind.since_ms), Some(0));
        assert_eq!(rates.ends.back().unwrap().at_ms, 60_000);
    }

    #[test]
    fn a_burst_or_a_processor_that_keeps_up_is_not_behind() {
        assert!(!is_behind(&over([(900, 900); 40])));
        for before in 10..20 {
            let burst = [vec![(0, 0); before], vec![(90_000, 0); 2], vec![(0, 900); 40]].concat();
            for end in 0..burst.len() {
                assert!(!is_behind(&over(burst.iter().copied().take(end))), "{before} {end}");
            }
        }
        // Up and down: a batch takes the lines of a window.
        assert!(!is_behind(&over([(900, 0), (900, 0), (900, 2_700)].repeat(10))));
    }
}
