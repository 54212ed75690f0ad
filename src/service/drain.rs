//! A run that ends by itself (`drain`, or `run --once`): what it has done, and whether it is over.

use std::time::{Duration, Instant};

use super::plan::{Plan, Progress};
use crate::config::Settings;
use crate::http::reason;
use crate::plain::{counted, waiting};
use crate::processor::Processor;
use crate::queue::{GroupStatus, Phase, Status, now_ms};
use crate::supervise::State;

/// After this long without progress the log says what the run waits for.
const STALLED: Duration = Duration::from_secs(10);

/// The progress of a run since it began.
pub(super) struct Account<'a> {
    pub(super) plan: &'a Plan,
    served: Vec<String>,
    first: Status,
    began: Instant,
    /// The lines that were done when progress was last seen or its lack logged, and when that was.
    moved: (u64, Instant),
    /// Whether no line waited at the last look.
    pub(super) all_done: bool,
    /// See [`Ended::stuck`](super::plan::Ended::stuck).
    pub(super) stuck: Vec<String>,
}

impl<'a> Account<'a> {
    /// Begins at `first`, for the groups `served`.
    pub(super) fn new(plan: &'a Plan, served: Vec<String>, first: Status) -> Account<'a> {
        let began = Instant::now();
        Account { plan, served, first, began, moved: (0, began), all_done: false, stuck: Vec::new() }
    }

    /// What was done until `now`, and what is left.
    pub(super) fn progress(&self, now: &Status) -> Progress {
        let mut progress = Progress::default();
        for group in now.groups.iter().filter(|group| self.served.contains(&group.name)) {
            let before = self.first.groups.iter().find(|before| before.id == group.id);
            // Of a group over some sources it is not known at first how many bytes are its own.
            let bytes = before.filter(|before| !before.is_counting).map_or(0, |before| before.lag_bytes);
            let acked = before.map_or(0, |before| before.acked_lines);
            let dead = before.map_or(0, |before| group.dead_letters.saturating_sub(before.dead_letters));
            progress.lines += group.acked_lines - acked + dead;
            progress.bytes += bytes.saturating_sub(group.lag_bytes);
            progress.lines_left += group.lag_lines;
            progress.bytes_left += group.lag_bytes;
        }
        progress
    }

    /// Whether the run is over at `status`. `read_all`: the tail has nothing left to read; `has_workers`: some processor
    /// still runs.
    pub(super) fn is_over(
        &mut self,
        status: &Status,
        progress: Progress,
        read_all: bool,
        has_workers: bool,
    ) -> bool {
        for first in self.first.groups.iter_mut().filter(|group| group.is_counting) {
            if let Some(now) = status.groups.iter().find(|now| now.id == first.id && !now.is_counting) {
                (first.is_counting, first.lag_bytes) = (false, now.lag_bytes);
            }
        }
        if progress.lines != self.moved.0 {
            self.moved = (progress.lines, Instant::now());
        } else if self.moved.1.elapsed() >= STALLED && progress.lines_left > 0 {
            self.moved.1 = Instant::now();
            self.log_why_it_waits(status);
        }
        self.all_done = read_all && progress.lines_left == 0;
        // While ingestion is paused nothing more is read, and the pause may be due to the group that is stuck.
        if read_all || status.full.is_some() {
            self.stuck = self.stuck_groups(status);
        }
        let drain = self.plan.drain.as_ref();
        let is_late = drain.and_then(|drain| drain.time_max).is_some_and(|max| self.began.elapsed() >= max);
        self.all_done || is_late || !self.stuck.is_empty() || (drain.is_some() && !has_workers)
    }

    fn behind<'s>(&self, status: &'s Status) -> Vec<&'s GroupStatus> {
        let waits = |group: &&GroupStatus| self.served.contains(&group.name) && group.lag_lines > 0;
        status.groups.iter().filter(waits).collect()
    }

    /// Why the run cannot end, a sentence for each group: the only lines left are lines that an operator has to decide
    /// about, or that failed alone as often as the run tries. Empty while any group makes progress.
    fn stuck_groups(&self, status: &Status) -> Vec<String> {
        let behind = self.behind(status);
        if !behind.iter().all(|group| group.is_exhausted) {
            return Vec::new();
        }
        behind.into_iter().map(why_stuck).collect()
    }

    /// Tells a run that makes no progress from a slow one.
    fn log_why_it_waits(&self, status: &Status) {
        for group in self.behind(status) {
            let reason = reason(&group.phase, now_ms()).unwrap_or_else(|| "a batch is in flight".to_owned());
            let state = State::from(&group.phase).word();
            tracing::warn!(group = group.name, state, waits = group.lag_lines, "{reason}");
        }
    }
}

fn why_stuck(group: &GroupStatus) -> String {
    let GroupStatus { name, lag_lines, attempts_max, .. } = group;
    let lines = waiting(*lag_lines);
    let why = match &group.phase {
        Phase::Retrying { .. } => format!("deliveries failed {}", counted(u64::from(*attempts_max), "time")),
        Phase::Refused { rejected: None, .. } => "the destination refuses everything".to_owned(),
        Phase::Refused { rejected: Some(rejected), .. } => {
            format!("every line is rejected, line {} too", rejected.seq)
        }
        Phase::Paused => "an operator paused the group".to_owned(),
        phase => reason(phase, now_ms()).unwrap_or_else(|| "none of them can be delivered".to_owned()),
    };
    let last = group.last_failure.as_deref().and_then(|failure| failure.lines().next());
    let last = last.map(|last| format!(" (the last failure: {last})")).unwrap_or_default();
    format!("group {name}: {lines}: {why}{last}")
}

/// The groups whose lines are delivered, and counted.
pub(super) fn served_groups(
    settings: &Settings,
    plan: &Plan,
    own: &[(String, Box<dyn Processor>)],
) -> Vec<String> {
    let only = plan.drain.as_ref().and_then(|drain| drain.group.as_ref());
    let configured = settings.processors.iter().map(|processor| &processor.group);
    configured
        .chain(own.iter().map(|(group, _)| group))
        .filter(|name| only.is_none_or(|only| only == *name))
        .cloned()
        .collect()
}
