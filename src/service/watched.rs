//! The supervisor's part of starting: what the last run left behind, and what is watched from now on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spillq_storage::{Log, Seq, SeqRange, State};

use super::ServiceError;
use crate::config::{Disk, Keep, Settings};
use crate::http::outside;
use crate::plain::counted;
use crate::queue::{Queue, Status};
use crate::supervise::{
    DiskSettings, Ended, Events, JudgeSettings, LastRun, ProcessorName, Started, Supervision, Supervisor,
    Typed, WatchSettings, last_run,
};
use crate::tail::TailHandle;

/// A line that was out alone when the process died, and was delivered alone so often in all, is named.
const DEATHS_MIN: u32 = 2;
/// Stretches of lines that are named of a group: one that was killed again and again has hundreds.
const OUT_NAMED_MAX: usize = 8;

/// What the last run left behind.
pub(super) struct Watched {
    events: Events,
    last_run: Option<LastRun>,
    killers: Vec<(String, Seq, u32)>,
    run: u64,
}

impl Watched {
    /// Reads EVENTS, with the store locked, and tells how the last run ended.
    pub(super) fn before(settings: &Settings, log: &Log) -> Result<Watched, ServiceError> {
        let (events, entries) = Events::open(&settings.data_dir)?;
        let mut last_run = last_run(&entries);
        if let Some(last) = last_run.as_mut().filter(|last| last.ended != Ended::Cleanly) {
            last.doing.extend(out_at_the_end(log.state()).into_iter().map(|(_, said)| said));
            tracing::warn!("{}", last.sentence());
            for doing in &last.doing {
                tracing::warn!("before that: {doing}");
            }
        }
        // A clean stop may leave a batch that took too long; nobody died of it.
        let died = last_run.as_ref().is_some_and(|last| last.ended != Ended::Cleanly);
        let killers = if died { killers(log.state()) } else { Vec::new() };
        Ok(Watched { events, last_run, killers, run: log.state().run })
    }

    /// Begins to watch.
    pub(super) fn start(
        self,
        settings: &Settings,
        started: &Started,
        processors: &BTreeMap<String, ProcessorName>,
        queue: &Queue,
        tail: Option<Arc<TailHandle>>,
    ) -> Result<(Supervision, Supervisor), ServiceError> {
        let stall_after_ms = u64::try_from(settings.stall_after.as_millis()).unwrap_or(u64::MAX);
        let supervision = Supervision::new(
            JudgeSettings { stall_after_ms, typed: Typed::about(&settings.data_dir, started.clone()) },
            processors.clone(),
            disk_settings(&settings.disk),
            self.last_run,
            self.killers,
        );
        let watch = WatchSettings {
            stall_after: settings.stall_after,
            stuck_after: settings.stuck_after,
            run: self.run,
            started: started.clone(),
        };
        let data_dir = settings.data_dir.clone();
        // Weak: who stops the tail must be its last holder.
        let tail = tail.as_ref().map(Arc::downgrade);
        let looks = Arc::new(move |status: &Status| {
            let tail = tail.as_ref().and_then(std::sync::Weak::upgrade);
            outside(&data_dir, tail.as_deref(), status)
        });
        let owner = (queue.handle(), queue.pulse());
        let supervisor = Supervisor::start(watch, supervision.clone(), owner, looks, self.events)?;
        Ok((supervision, supervisor))
    }
}

/// What verdicts compare the disk with.
pub(super) fn disk_settings(disk: &Disk) -> DiskSettings {
    DiskSettings {
        limit_bytes: disk.limit,
        min_free_bytes: disk.min_free,
        keeps: !matches!(disk.keep, Keep::Age(Duration::ZERO) | Keep::Bytes(0)),
    }
}

/// The lines that were out when the process died: the group, and which, and how often the first of them had been
/// tried alone. What lies side by side is told as one, and of each group [`OUT_NAMED_MAX`] at most.
pub(crate) fn out_at_the_end(state: &State) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for group in state.groups.values() {
        let leased = group.suspects.iter().copied().chain(group.leases.iter().map(|leased| leased.range));
        let attempts = |range: &SeqRange| group.attempts(range.first);
        let mut ranges: Vec<SeqRange> = leased.collect();
        ranges.sort_unstable();
        let mut told: Vec<(SeqRange, u32)> = Vec::new();
        for range in ranges {
            match told.last_mut() {
                Some((last, 0)) if last.last.next() == range.first && attempts(&range) == 0 => {
                    last.last = range.last;
                }
                _ => told.push((range, attempts(&range))),
            }
        }
        for (range, attempts) in told.iter().take(OUT_NAMED_MAX) {
            let tried = counted(u64::from(*attempts), "time");
            let tried = if *attempts > 0 { format!(", tried alone {tried}") } else { String::new() };
            let said = match range.lines() {
                1 => format!("line {range} was in flight for group {}{tried}", group.name),
                _ => format!("lines {range} were in flight for group {}{tried}", group.name),
            };
            out.push((group.name.clone(), said));
        }
        if let Some(more) = told.len().checked_sub(OUT_NAMED_MAX).filter(|more| *more > 0) {
            out.push((group.name.clone(), format!("and {} more", counted(more as u64, "range"))));
        }
    }
    out
}

/// Lines that were in flight alone when the process died, more than once: group, line, deaths. Of a store that was not
/// opened since, leases count too.
pub(crate) fn killers(state: &State) -> Vec<(String, Seq, u32)> {
    let mut killers = Vec::new();
    for group in state.groups.values() {
        let mut deaths = group.deaths.clone();
        for leased in group.leases.iter().filter(|leased| leased.range.lines() == 1) {
            *deaths.entry(leased.range.first).or_default() += 1;
        }
        let often = deaths.into_iter().filter(|(_, deaths)| *deaths >= DEATHS_MIN);
        killers.extend(often.map(|(seq, deaths)| (group.name.clone(), seq, deaths)));
    }
    killers
}
