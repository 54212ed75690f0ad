//! Starts the supervisor, with what the last run left behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use spillq_storage::{DiskOptions, Keep, Log, Seq, SeqRange, State};

use super::ServiceError;
use crate::config::Settings;
use crate::http::outside;
use crate::plain::counted;
use crate::queue::{Queue, Status, millis};
use crate::supervise::{
    Commands, DiskSettings, Ended, Events, JudgeSettings, LastRun, ProcessorName, Started, Supervision,
    Supervisor, WatchSettings, last_run,
};
use crate::tail::TailHandle;

/// A line is reported if this many deaths happened while it was the only one in flight.
const DEATHS_MIN: u32 = 2;
/// Ranges of lines that are named for each group: after many kills there are hundreds.
const RANGES_NAMED_MAX: usize = 8;

/// What the last run left behind.
pub(super) struct Watched {
    events: Events,
    last_run: Option<LastRun>,
    killers: Vec<(String, Seq, u32)>,
    run: u64,
}

impl Watched {
    /// Reads EVENTS, with the store locked, and logs how the last run ended.
    pub(super) fn before(settings: &Settings, log: &Log) -> Result<Watched, ServiceError> {
        let (events, entries) = Events::open(&settings.data_dir)?;
        let mut last_run = last_run(&entries);
        if let Some(last) = last_run.as_mut().filter(|last| last.ended != Ended::Cleanly) {
            last.doing.extend(in_flight_at_the_end(log.state()).into_iter().map(|(_, lines)| lines));
            tracing::warn!("{}", last.sentence());
            for doing in &last.doing {
                tracing::warn!("before that: {doing}");
            }
        }
        // A clean stop may leave a batch that took too long, which is not a death.
        let died = last_run.as_ref().is_some_and(|last| last.ended != Ended::Cleanly);
        let killers = if died { killers(log.state()) } else { Vec::new() };
        Ok(Watched { events, last_run, killers, run: log.state().run() })
    }

    /// Starts the supervisor.
    pub(super) fn start(
        self,
        settings: &Settings,
        started: &Started,
        processors: &BTreeMap<String, ProcessorName>,
        queue: &Queue,
        tail: Option<Arc<TailHandle>>,
    ) -> Result<(Supervision, Supervisor), ServiceError> {
        let supervision = Supervision::new(
            JudgeSettings {
                stall_after_ms: millis(settings.stall_after),
                commands: Commands::about(&settings.data_dir, started.clone()),
            },
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
        // Weak, because the tail stops when its last holder does.
        let tail = tail.as_ref().map(Arc::downgrade);
        let looks = Arc::new(move |status: &Status| {
            let tail = tail.as_ref().and_then(std::sync::Weak::upgrade);
            outside(&data_dir, tail.as_deref(), status).0
        });
        let owner = (queue.handle(), queue.pulse());
        let supervisor = Supervisor::start(watch, supervision.clone(), owner, looks, self.events)?;
        Ok((supervision, supervisor))
    }
}

/// The settings with which verdicts compare the disk.
pub(crate) fn disk_settings(disk: &DiskOptions) -> DiskSettings {
    DiskSettings {
        limit_bytes: disk.limit_bytes,
        min_free_bytes: disk.min_free_bytes,
        retains: disk.keep != Keep::Nothing,
    }
}

/// The lines that were in flight when the process died, as sentences with their group. Adjacent ranges are joined, unless their
/// first line was delivered alone. Of each group at most [`RANGES_NAMED_MAX`] are named.
pub(crate) fn in_flight_at_the_end(state: &State) -> Vec<(String, String)> {
    let mut sentences = Vec::new();
    for group in state.groups().values() {
        let leased = group.suspects().iter().chain(group.leases()).copied();
        let attempts = |range: &SeqRange| group.attempts(range.first);
        let mut ranges: Vec<SeqRange> = leased.collect();
        ranges.sort_unstable();
        let mut joined: Vec<(SeqRange, u32)> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some((last, 0)) if last.last.next() == range.first && attempts(&range) == 0 => {
                    last.last = range.last;
                }
                _ => joined.push((range, attempts(&range))),
            }
        }
        for (range, attempts) in joined.iter().take(RANGES_NAMED_MAX) {
            let tried = counted(u64::from(*attempts), "time");
            let tried = if *attempts > 0 { format!(", tried alone {tried}") } else { String::new() };
            let sentence = match range.lines() {
                1 => format!("line {range} was in flight for group {}{tried}", group.name()),
                _ => format!("lines {range} were in flight for group {}{tried}", group.name()),
            };
            sentences.push((group.name().to_owned(), sentence));
        }
        if let Some(more) = joined.len().checked_sub(RANGES_NAMED_MAX).filter(|more| *more > 0) {
            sentences.push((group.name().to_owned(), format!("and {} more", counted(more as u64, "range"))));
        }
    }
    sentences
}

/// Lines that were the only one in flight when the process died, more than once: group, line, deaths. If the store was not
/// opened since, its leases count too.
pub(crate) fn killers(state: &State) -> Vec<(String, Seq, u32)> {
    let mut killers = Vec::new();
    for group in state.groups().values() {
        let mut deaths = group.deaths().clone();
        for range in group.leases().iter().filter(|range| range.lines() == 1) {
            *deaths.entry(range.first).or_default() += 1;
        }
        let often = deaths.into_iter().filter(|(_, deaths)| *deaths >= DEATHS_MIN);
        killers.extend(often.map(|(seq, deaths)| (group.name().to_owned(), seq, deaths)));
    }
    killers
}
