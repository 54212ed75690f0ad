//! The supervisor's thread: reads the status, writes changes and failures to EVENTS, and is the watchdog.
//!
//! It never waits for the owner without a deadline, and writes EVENTS only while the owner makes progress. If the disk
//! hangs, another thread writes the last event, as that write may hang too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use spillq_storage::{Error, Seq};

use super::cause::Cause;
use super::commands::Started;
use super::events::{Event, Events, boot_id};
use super::inputs::Outside;
use super::state::State;
use super::supervision::Supervision;
use super::verdict::Report;
use crate::cgroup::OomCount;
use crate::queue::{Command, Handle, Pulse, Status, millis, now_ms, wall_ms};

/// Exit status of a process that its watchdog ended.
const EXIT_STUCK: i32 = 4;
/// How long the last event may take to be written: the file may be on the disk that hangs.
const LAST_EVENT_WAIT: Duration = Duration::from_secs(1);
/// The interval between two statuses is an eighth of `stall_after`, within these bounds.
const LOOK_MIN: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The settings of the thread.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// Determines how often it reads the status.
    pub stall_after: Duration,
    /// A round of the owner that takes longer ends the process.
    pub stuck_after: Duration,
    /// The number of this run.
    pub run: u64,
    /// How the service was started.
    pub started: Started,
}

/// The running thread.
#[derive(Debug)]
pub struct Supervisor {
    stop: SyncSender<()>,
    thread: JoinHandle<Option<Watch>>,
    run: u64,
}

struct Watch {
    settings: WatchSettings,
    supervision: Supervision,
    handle: Handle,
    pulse: Pulse,
    outside: Arc<dyn Fn(&Status) -> Outside + Send + Sync>,
    events: Events,
    states: BTreeMap<String, (State, Option<Cause>)>,
    failures: BTreeMap<String, u64>,
    /// The number of the last act of an operator that is in EVENTS.
    discarded: u64,
    /// The causes of the last verdicts on the log.
    log_causes: BTreeSet<Cause>,
}

impl Supervisor {
    /// Writes the start to `events`, and starts the thread. `outside` must not wait for the owner.
    ///
    /// # Errors
    /// When EVENTS cannot be written, or the system cannot start a thread.
    pub fn start(
        settings: WatchSettings,
        supervision: Supervision,
        (handle, pulse): (Handle, Pulse),
        outside: Arc<dyn Fn(&Status) -> Outside + Send + Sync>,
        mut events: Events,
    ) -> Result<Supervisor, Error> {
        let run = settings.run;
        let start = Event::Start {
            run,
            pid: std::process::id(),
            boot: boot_id(),
            oom: OomCount::of_self(),
            started: settings.started.clone(),
        };
        events.write(wall_ms(), start)?;
        let (stop, stopped) = sync_channel(1);
        let watch = Watch {
            settings,
            supervision,
            handle,
            pulse,
            outside,
            events,
            states: BTreeMap::new(),
            failures: BTreeMap::new(),
            discarded: 0,
            log_causes: BTreeSet::new(),
        };
        let thread = std::thread::Builder::new()
            .name("spillq-watch".to_owned())
            .spawn(move || watch.run(&stopped))
            .map_err(|source| Error::Io { attempted: "start a thread for", path: "EVENTS".into(), source })?;
        Ok(Supervisor { stop, thread, run })
    }

    /// Ends the thread, and writes a clean stop to EVENTS. To be called when the log is closed, with its last status.
    pub fn stop(self, last: &Status) {
        // A full channel or one without a receiver: it is ending already.
        let _ = self.stop.try_send(());
        if let Ok(Some(mut watch)) = self.thread.join() {
            // What an operator did since the last status.
            watch.note_discarded(last);
            watch.write(Event::Stop { run: self.run });
        }
    }
}

impl Watch {
    fn run(mut self, stopped: &Receiver<()>) -> Option<Watch> {
        let look = (self.settings.stall_after / 8).clamp(LOOK_MIN, LOOK_MAX);
        loop {
            match stopped.recv_timeout(look) {
                Ok(()) => return Some(self),
                // The service ended without a clean stop: a failed log.
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let stuck_after_ms = millis(self.settings.stuck_after);
            if self.pulse.busy_ms(now_ms()).is_some_and(|busy| busy >= stuck_after_ms) {
                self.end_stuck();
            }
            // An error means that the log has failed or is stopping, which the service reports. No answer: the watchdog decides.
            if let Ok(Some(status)) = self.handle.ask_within(look, Command::Status) {
                let report = self.supervision.look(&status, &(self.outside)(&status), now_ms());
                self.note(&status, &report);
            }
        }
    }

    /// Writes an event to EVENTS. An error is only logged: the disk may have become read-only, which is then logged too.
    fn write(&mut self, event: Event) {
        if let Err(error) = self.events.write(wall_ms(), event) {
            tracing::warn!(%error, "could not write an event to EVENTS");
        }
    }

    /// Logs causes of the log that begin or end, and writes them to EVENTS with an empty group.
    fn note_log(&mut self, report: &Report) {
        let now: BTreeSet<_> = report.log.iter().filter_map(|verdict| verdict.cause).collect();
        let before = std::mem::replace(&mut self.log_causes, now.clone());
        let changed =
            |states, cause, summary: &str| changed("", states, Some(cause), (Seq(0), Seq(0)), summary);
        for cause in now.difference(&before).copied() {
            let Some(verdict) = report.log.iter().find(|verdict| verdict.cause == Some(cause)) else {
                continue;
            };
            tracing::warn!(%cause, "{}; next: {}", verdict.summary, verdict.next);
            self.write(changed((State::Idle, verdict.state), cause, &verdict.summary));
        }
        for cause in before.difference(&now).copied() {
            tracing::info!(%cause, "resolved");
            self.write(changed((State::Blocked, State::Idle), cause, "resolved"));
        }
    }

    fn note(&mut self, status: &Status, report: &Report) {
        self.note_log(report);
        for (verdict, seqs) in report.groups.iter().zip(&report.seqs) {
            let before = self.states.insert(verdict.group.clone(), (verdict.state, verdict.cause));
            let begins_idle = before.is_none() && verdict.state == State::Idle;
            if begins_idle || before == Some((verdict.state, verdict.cause)) {
                continue;
            }
            // A group alternates between running and idle many times a second: not worth an event, unless it ends a problem.
            let was = before.map_or(State::Idle, |(state, _)| state);
            let is_calm = |state| matches!(state, State::Idle | State::Running);
            if before.is_some() && is_calm(was) && is_calm(verdict.state) {
                continue;
            }
            let (from, to) = (was.word(), verdict.state.word());
            if verdict.is_healthy() {
                tracing::info!(group = verdict.group, from, to, "{}", verdict.summary);
            } else {
                tracing::warn!(
                    group = verdict.group,
                    from,
                    to,
                    "{}; next: {}",
                    verdict.summary,
                    verdict.next
                );
            }
            let states = (was, verdict.state);
            self.write(changed(&verdict.group, states, verdict.cause, *seqs, &verdict.summary));
        }
        self.note_discarded(status);
        for group in &status.groups {
            let seen = self.failures.insert(group.name.clone(), group.activity.failures);
            let (true, Some(failure)) =
                (group.activity.failures > seen.unwrap_or_default(), &group.last_failure)
            else {
                continue;
            };
            let (summary, stderr) = failure.split_once('\n').unwrap_or((failure, ""));
            let event = Event::Failure {
                group: group.name.clone(),
                summary: summary.to_owned(),
                stderr: stderr.to_owned(),
            };
            self.write(event);
        }
    }

    fn note_discarded(&mut self, status: &Status) {
        let recorded = self.discarded;
        for discarded in status.discarded.iter().filter(|discarded| discarded.number > recorded) {
            self.write(Event::of_discarded(discarded));
        }
        self.discarded = status.discarded.last().map_or(self.discarded, |last| last.number);
    }

    fn end_stuck(self) -> ! {
        let summary = format!(
            "the disk did not finish a commit within {:?}; what was acknowledged is safe",
            self.settings.stuck_after
        );
        tracing::error!("{summary}; ending the process");
        let (written, wait) = sync_channel(1);
        let (mut events, run) = (self.events, self.settings.run);
        let written_by = std::thread::Builder::new().spawn(move || {
            // The receiver may have given up.
            let _ = written.send(events.write(wall_ms(), Event::Watchdog { run, summary }));
        });
        match written_by.map(|_| wait.recv_timeout(LAST_EVENT_WAIT)) {
            Ok(Ok(Ok(()))) => {}
            other => tracing::error!(?other, "could not write that to EVENTS"),
        }
        std::process::exit(EXIT_STUCK);
    }
}

fn changed(
    group: &str,
    (from, to): (State, State),
    cause: Option<Cause>,
    (first, last): (Seq, Seq),
    summary: &str,
) -> Event {
    Event::Changed {
        group: group.to_owned(),
        from: from.word().to_owned(),
        to: to.word().to_owned(),
        cause: cause.map(|cause| cause.word().to_owned()),
        first_seq: first.0,
        last_seq: last.0,
        summary: summary.to_owned(),
    }
}
