//! How the last run ended and what it was doing, from EVENTS and the kernel's counters.

use super::commands::Started;
use super::events::{Entry, Event, boot_id};
use super::state::State;
use crate::cgroup::OomCount;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By a clean stop.
    Cleanly,
    /// By its watchdog, with the reason.
    Stuck(String),
    /// Killed by the kernel because memory ran out.
    OutOfMemory,
    /// By a kill or a power cut.
    Killed,
}

impl Ended {
    /// In one word, for programs and metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Ended::Cleanly => "cleanly",
            Ended::Stuck(_) => "stuck",
            Ended::OutOfMemory => "out_of_memory",
            Ended::Killed => "killed",
        }
    }
}

/// A run, as recorded in EVENTS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRun {
    /// Its number in the store.
    pub run: u64,
    /// Its process.
    pub pid: u32,
    /// How it was started.
    pub started: Started,
    /// When it started, ms since 1970.
    pub started_ms: u64,
    /// When it last wrote an event.
    pub seen_ms: u64,
    /// How it ended.
    pub ended: Ended,
    /// How many runs in a row, up to this one, did not end cleanly.
    pub unclean_runs: u64,
    /// What its groups were doing, and its last failures.
    pub doing: Vec<String>,
}

/// Failures of the last run that are reported.
const FAILURES_SHOWN: usize = 3;

/// The last run in `entries`; `None` if there was none. No run is in progress.
#[must_use]
pub fn last_run(entries: &[Entry]) -> Option<LastRun> {
    let kernel = |before: &OomCount| OomCount::read(&before.file).map(|now| now.kills);
    last_run_with(entries, &boot_id(), &kernel)
}

fn last_run_with(
    entries: &[Entry],
    boot_now: &str,
    kills: &dyn Fn(&OomCount) -> Option<u64>,
) -> Option<LastRun> {
    let at = entries.iter().rposition(|entry| matches!(entry.event, Event::Start { .. }))?;
    let (start, of_run) = entries.get(at..)?.split_first()?;
    let Event::Start { run, pid, boot, oom, started } = &start.event else { return None };
    let mut ended = Ended::Killed;
    let (mut states, mut failures) = (std::collections::BTreeMap::new(), Vec::new());
    for entry in of_run {
        match &entry.event {
            Event::Stop { .. } => ended = Ended::Cleanly,
            Event::Watchdog { summary, .. } => ended = Ended::Stuck(summary.clone()),
            Event::Changed { group, to, cause, summary, .. } if group.is_empty() => {
                let key = format!("log: {}", cause.as_deref().unwrap_or_default());
                // A word of another version does not end a cause.
                if State::of_word(to) == Some(State::Idle) {
                    states.remove(&key);
                } else {
                    states.insert(key.clone(), format!("{key}: {summary}"));
                }
            }
            Event::Changed { group, to, summary, .. } => {
                states.insert(group.clone(), format!("group {group} was {to}: {summary}"));
            }
            Event::Failure { summary, .. } => failures.push(format!("failure: {summary}")),
            Event::Start { .. } | Event::Discarded { .. } => {}
        }
    }
    let more_kills =
        || oom.as_ref().is_some_and(|before| kills(before).is_some_and(|now| now > before.kills));
    if ended == Ended::Killed && boot == boot_now && more_kills() {
        ended = Ended::OutOfMemory;
    }
    let from = failures.len().saturating_sub(FAILURES_SHOWN);
    let doing = states.into_values().chain(failures.into_iter().skip(from)).collect();
    let seen_ms = of_run.last().unwrap_or(start).time_ms;
    let unclean_runs = unclean_runs(entries);
    let started = how_started(entries).unwrap_or(started);
    Some(LastRun {
        run: *run,
        pid: *pid,
        started: started.clone(),
        started_ms: start.time_ms,
        seen_ms,
        ended,
        unclean_runs,
        doing,
    })
}

/// How the service was last started. A drain records only its configuration, as its command line is not to be repeated.
fn how_started(entries: &[Entry]) -> Option<&Started> {
    let all = || entries.iter().rev().filter_map(started_of);
    all()
        .find(|started| !started.typed.is_empty())
        .or_else(|| all().find(|started| !started.config.is_empty()))
}

fn started_of(entry: &Entry) -> Option<&Started> {
    match &entry.event {
        Event::Start { started, .. } => Some(started),
        _ => None,
    }
}

/// Starts at the end of the list that no stop follows.
fn unclean_runs(entries: &[Entry]) -> u64 {
    let ends = entries.iter().rev().take_while(|entry| !matches!(entry.event, Event::Stop { .. }));
    ends.filter(|entry| matches!(entry.event, Event::Start { .. })).count() as u64
}

impl LastRun {
    /// How it ended, in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let how = match &self.ended {
            Ended::Cleanly => "stopped cleanly".to_owned(),
            Ended::Stuck(summary) => format!("was stuck and ended itself: {summary}"),
            Ended::OutOfMemory => "was killed by the kernel because memory ran out".to_owned(),
            Ended::Killed => "ended without a clean stop: killed, or the power failed".to_owned(),
        };
        format!("the last run (pid {}) {how}", self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(events: Vec<Event>) -> Vec<Entry> {
        events.into_iter().zip(1..).map(|(event, number)| Entry { number, time_ms: number, event }).collect()
    }

    fn start(run: u64) -> Event {
        let oom = Some(OomCount { file: "f".to_owned(), kills: 2 });
        Event::Start { run, pid: 9, boot: "b".to_owned(), oom, started: Started::default() }
    }

    #[track_caller]
    fn check(events: Vec<Event>, boot: &str, kills: Option<u64>, ended: &Ended, unclean: u64) {
        let last = last_run_with(&entries(events), boot, &|_| kills).unwrap();
        assert_eq!((&last.ended, last.unclean_runs), (ended, unclean), "{last:?}");
    }

    #[test]
    fn how_a_run_ended() {
        assert_eq!(last_run_with(&[], "b", &|_| None), None);
        check(vec![start(1), Event::Stop { run: 1 }], "b", Some(9), &Ended::Cleanly, 0);
        check(vec![start(1)], "b", Some(2), &Ended::Killed, 1);
        check(vec![start(1)], "b", None, &Ended::Killed, 1);
        check(
            vec![start(1), Event::Stop { run: 1 }, start(2), start(3)],
            "b",
            Some(3),
            &Ended::OutOfMemory,
            2,
        );
        // After a reboot the counter starts again.
        check(vec![start(1)], "other", Some(3), &Ended::Killed, 1);
        let watchdog = Event::Watchdog { run: 1, summary: "a commit".to_owned() };
        check(vec![start(1), watchdog], "b", Some(2), &Ended::Stuck("a commit".to_owned()), 1);
    }

    #[test]
    fn a_cause_of_the_log_lasts_until_an_event_with_idle() {
        let changed = |to: &str| Event::Changed {
            group: String::new(),
            from: "blocked".to_owned(),
            to: to.to_owned(),
            cause: Some("disk_full".to_owned()),
            first_seq: 0,
            last_seq: 0,
            summary: "so it is".to_owned(),
        };
        let doing = |to: &str| {
            let events = entries(vec![start(1), changed("blocked"), changed(to)]);
            last_run_with(&events, "b", &|_| None).unwrap().doing
        };
        assert_eq!(doing("idle"), [""; 0]);
        // A word of another version does not end it.
        assert_eq!(doing("of another version"), ["log: disk_full: so it is"]);
    }

    #[test]
    fn what_the_groups_were_doing_is_reported() {
        let changed = |to: &str| Event::Changed {
            group: "default".to_owned(),
            from: "idle".to_owned(),
            to: to.to_owned(),
            cause: None,
            first_seq: 1,
            last_seq: 2,
            summary: "so it is".to_owned(),
        };
        let last =
            last_run_with(&entries(vec![start(1), changed("running"), changed("hung")]), "b", &|_| None)
                .unwrap();
        assert_eq!(last.doing, ["group default was hung: so it is"]);
        assert_eq!(last.seen_ms, 3);
    }
}
