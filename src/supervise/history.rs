//! The times of changes: what one look at the owner's status cannot say. Folds status after status, and judges.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use spillq_storage::{GroupId, Seq, SeqRange};

use super::inputs::{ConfigRefused, GroupInputs, JudgeSettings, LogInputs, Pinned};
use super::judge::{Verdict, judge, seqs_of};
use super::judge_log::{judge_log, notes_on};
use super::last_run::LastRun;
use crate::queue::{GroupStatus, Status};

/// What the owner does not know: looked at by the service, which knows all parts.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// Free bytes of the data dir's file system.
    pub free_bytes: Option<u64>,
    /// Files that are gone from their path and have unread bytes.
    pub unread_gone: Vec<String>,
    /// For how long the tail has been at one turn, if it is.
    pub tail_busy_ms: Option<u64>,
    /// Files that cannot be read, and why.
    pub unreadable: Vec<String>,
}

/// All verdicts of a moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// One a group.
    pub groups: Vec<Verdict>,
    /// What is wrong beside the groups.
    pub log: Vec<Verdict>,
    /// What is worth knowing, and makes nobody ill.
    pub notes: Vec<String>,
    /// The run before this one.
    pub last_run: Option<LastRun>,
    /// The lines that each group's verdict is about, for EVENTS.
    pub(super) seqs: Vec<(Seq, Seq)>,
}

impl Report {
    /// The state of a group.
    #[must_use]
    pub fn state_of(&self, group: &str) -> Option<&'static str> {
        self.groups.iter().find(|verdict| verdict.group == group).map(|verdict| verdict.state)
    }

    /// What is wrong with a group, if something is.
    #[must_use]
    pub fn what_is_wrong(&self, group: &str) -> Option<String> {
        let ill = self.groups.iter().find(|verdict| verdict.group == group && !verdict.is_well());
        ill.map(|verdict| verdict.summary.clone())
    }

    /// Verdicts that were made elsewhere: on a store that no service has open.
    #[must_use]
    pub fn of(
        groups: Vec<Verdict>,
        log: Vec<Verdict>,
        notes: Vec<String>,
        last_run: Option<LastRun>,
    ) -> Report {
        Report { groups, log, notes, last_run, seqs: Vec::new() }
    }
}

/// What does not change while the service runs.
#[derive(Debug)]
struct Fixed {
    last_run: Option<LastRun>,
    killers: Vec<(String, Seq, u32)>,
}

/// What a verdict compares with; changes where the configuration does.
#[derive(Clone, Debug)]
struct Measures {
    judge: JudgeSettings,
    /// The processor of each group that has one.
    processors: BTreeMap<String, String>,
    limit_bytes: u64,
    min_free_bytes: u64,
    config_refused: Option<ConfigRefused>,
}

/// One group, between two looks.
#[derive(Clone, Debug)]
struct Track {
    leases: u64,
    not_leased_since_ms: Option<u64>,
    floor: Seq,
    floor_moved_ms: u64,
    acks_at_floor: u64,
    pinned: Option<(SeqRange, u64)>,
    lag_grows_since_ms: Option<u64>,
    lag_lines: u64,
    acked_lines: u64,
    rates: Rates,
}

/// Smoothed over some ten looks.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    lines_in: f64,
    lines_out: f64,
    disk_bytes: f64,
}

#[derive(Debug, Default)]
struct Tracks {
    groups: BTreeMap<GroupId, Track>,
    /// Of the last look that counted for rates: time, next seq, bytes on disk.
    last: Option<(u64, Seq, u64)>,
}

/// Shared by the supervisor and whoever asks for a verdict.
#[derive(Clone, Debug)]
pub struct Supervision {
    fixed: Arc<Fixed>,
    measures: Arc<Mutex<Measures>>,
    tracks: Arc<Mutex<Tracks>>,
}

/// Between two looks at least, for rates and growth: who asks often must not make noise of them.
const RATE_MS_MIN: u64 = 100;

impl Supervision {
    /// With the processors of groups by name, `disk.limit` and `disk.min_free`, the run before, and the lines that
    /// were out alone when it died: group, line, attempts.
    #[must_use]
    pub fn new(
        judge: JudgeSettings,
        processors: BTreeMap<String, String>,
        (limit_bytes, min_free_bytes): (u64, u64),
        last_run: Option<LastRun>,
        killers: Vec<(String, Seq, u32)>,
    ) -> Supervision {
        let measures = Measures { judge, processors, limit_bytes, min_free_bytes, config_refused: None };
        Supervision {
            fixed: Arc::new(Fixed { last_run, killers }),
            measures: Arc::new(Mutex::new(measures)),
            tracks: Arc::default(),
        }
    }

    /// Other processors at work.
    pub fn set_processors(&self, processors: BTreeMap<String, String>) {
        self.measures.lock().unwrap_or_else(PoisonError::into_inner).processors = processors;
    }

    /// Whether the configuration on disk is refused.
    pub fn set_refused(&self, refused: Option<ConfigRefused>) {
        self.measures.lock().unwrap_or_else(PoisonError::into_inner).config_refused = refused;
    }

    /// Judges by another `stall_after`, `disk.limit` and `disk.min_free` from now on.
    pub fn set_measures(&self, stall_after_ms: u64, limit_bytes: u64, min_free_bytes: u64) {
        let mut measures = self.measures.lock().unwrap_or_else(PoisonError::into_inner);
        measures.judge.stall_after_ms = stall_after_ms;
        (measures.limit_bytes, measures.min_free_bytes) = (limit_bytes, min_free_bytes);
    }

    /// `disk.limit` and `disk.min_free`.
    #[must_use]
    pub fn disk_limits(&self) -> (u64, u64) {
        let measures = self.measures.lock().unwrap_or_else(PoisonError::into_inner);
        (measures.limit_bytes, measures.min_free_bytes)
    }

    /// Takes in a look at the owner, and judges.
    #[must_use]
    pub fn look(&self, status: &Status, outside: &Outside, now_ms: u64) -> Report {
        let measures = self.measures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        let rates = tracks.rates(status, now_ms);
        let inputs: Vec<GroupInputs> = status
            .groups
            .iter()
            .map(|group| self.inputs(&measures, &mut tracks, status, group, rates, now_ms))
            .collect();
        let known: Vec<GroupId> = status.groups.iter().map(|group| group.id).collect();
        tracks.groups.retain(|id, _| known.contains(id));
        drop(tracks);
        let log = LogInputs {
            full: status.full.clone(),
            disk_bytes: status.disk_bytes,
            limit_bytes: measures.limit_bytes,
            free_bytes: outside.free_bytes,
            min_free_bytes: measures.min_free_bytes,
            unread_gone: outside.unread_gone.clone(),
            tail_busy_ms: outside.tail_busy_ms,
            unreadable: outside.unreadable.clone(),
            unclean_runs: self.fixed.last_run.as_ref().map_or(0, |last| last.unclean_runs),
            config_refused: measures.config_refused.clone(),
            killers: self.killers(status),
        };
        Report {
            groups: inputs.iter().map(|inputs| judge(inputs, now_ms, &measures.judge)).collect(),
            notes: notes_on(&log),
            log: judge_log(&log, &measures.judge),
            last_run: self.fixed.last_run.clone(),
            seqs: inputs.iter().map(seqs_of).collect(),
        }
    }

    /// Those that still wait.
    fn killers(&self, status: &Status) -> Vec<(String, Seq, u32)> {
        let waits = |name: &str, seq: Seq| {
            status
                .groups
                .iter()
                .any(|group| group.name == name && group.ack_floor < seq && group.oldest <= Some(seq))
        };
        self.fixed.killers.iter().filter(|(name, seq, _)| waits(name, *seq)).cloned().collect()
    }

    fn inputs(
        &self,
        measures: &Measures,
        tracks: &mut Tracks,
        status: &Status,
        group: &GroupStatus,
        rates: Option<(f64, f64, f64)>,
        now_ms: u64,
    ) -> GroupInputs {
        let track = tracks.groups.entry(group.id).or_insert_with(|| Track::new(group, now_ms));
        track.fold(status, group, rates, now_ms);
        let held_by = |segment: SeqRange| -> Vec<String> {
            let behind =
                status.groups.iter().filter(|other| other.id != group.id && other.ack_floor < segment.last);
            behind.map(|other| other.name.clone()).collect()
        };
        let growth = track.rates.disk_bytes;
        let left = measures.limit_bytes.saturating_sub(status.disk_bytes) as f64;
        GroupInputs {
            group: group.name.clone(),
            paused: group.state == "paused",
            blocked: group.reason.clone().filter(|_| group.state == "blocked"),
            refused: group.reason.clone().filter(|_| group.state == "refused"),
            processor: measures.processors.get(&group.name).cloned(),
            has_worker: group.has_worker,
            lag_lines: group.lag_lines,
            oldest: group.oldest,
            ack_floor: group.ack_floor,
            leases: group.leases.clone(),
            oldest_lease_ms: group.oldest_lease_ms,
            timeout_ms: group.timeout_ms,
            backs_off: group.backs_off,
            failing: group.activity.failing.clone(),
            last_failure: group.last_failure.clone(),
            acks: group.activity.acks,
            not_leased_since_ms: track.not_leased_since_ms,
            floor_moved_ms: track.floor_moved_ms,
            acks_since_floor: group.activity.acks.saturating_sub(track.acks_at_floor),
            pinned: track.pinned.map(|(segment, since_ms)| Pinned {
                segment,
                since_ms,
                held_by: held_by(segment),
            }),
            lag_grows_since_ms: track.lag_grows_since_ms,
            lines_in_per_s: track.rates.lines_in,
            lines_out_per_s: track.rates.lines_out,
            limit_in_s: (growth > 0.0).then(|| left / growth),
        }
    }
}

impl Tracks {
    /// Seconds since the last look, lines and bytes that came in a second; `None` where that is too short ago.
    fn rates(&mut self, status: &Status, now_ms: u64) -> Option<(f64, f64, f64)> {
        let now = (now_ms, status.next_seq, status.disk_bytes);
        let Some((then_ms, seq, disk)) = self.last else {
            self.last = Some(now);
            return None;
        };
        let passed = now_ms.saturating_sub(then_ms);
        if passed < RATE_MS_MIN {
            return None;
        }
        self.last = Some(now);
        let seconds = passed as f64 / 1e3;
        let lines = status.next_seq.0.saturating_sub(seq.0) as f64 / seconds;
        Some((seconds, lines, (status.disk_bytes as f64 - disk as f64) / seconds))
    }
}

impl Track {
    fn new(group: &GroupStatus, now_ms: u64) -> Track {
        Track {
            leases: group.activity.leases,
            not_leased_since_ms: None,
            floor: group.ack_floor,
            floor_moved_ms: now_ms,
            acks_at_floor: group.activity.acks,
            pinned: None,
            lag_grows_since_ms: None,
            lag_lines: group.lag_lines,
            acked_lines: group.acked_lines,
            rates: Rates::default(),
        }
    }

    fn fold(&mut self, status: &Status, group: &GroupStatus, rates: Option<(f64, f64, f64)>, now_ms: u64) {
        let leased = group.leased > 0 || group.activity.leases != self.leases;
        self.leases = group.activity.leases;
        if leased || group.lag_lines == 0 {
            self.not_leased_since_ms = None;
        } else {
            self.not_leased_since_ms.get_or_insert(now_ms);
        }
        // With nothing waiting there is no floor that could stand.
        if group.ack_floor != self.floor || group.lag_lines == 0 {
            self.floor = group.ack_floor;
            self.floor_moved_ms = now_ms;
            self.acks_at_floor = group.activity.acks;
        }
        let segment = status.oldest_segment_last.filter(|last| group.ack_floor >= *last);
        let segment = segment.and_then(|last| SeqRange::new(status.first_seq, last));
        self.pinned = segment.map(|segment| match self.pinned {
            Some((same, since)) if same == segment => (segment, since),
            _ => (segment, now_ms),
        });
        if let Some((seconds, lines_in, disk_bytes)) = rates {
            let lines_out = group.acked_lines.saturating_sub(self.acked_lines) as f64 / seconds;
            self.acked_lines = group.acked_lines;
            let smooth = |old: &mut f64, new: f64| *old += (new - *old) / 10.0;
            smooth(&mut self.rates.lines_in, lines_in);
            smooth(&mut self.rates.lines_out, lines_out);
            smooth(&mut self.rates.disk_bytes, disk_bytes);
            if group.lag_lines <= self.lag_lines && self.rates.lines_in <= self.rates.lines_out
                || group.lag_lines == 0
            {
                self.lag_grows_since_ms = None;
            } else if self.rates.lines_in > self.rates.lines_out {
                self.lag_grows_since_ms.get_or_insert(now_ms);
            }
            self.lag_lines = group.lag_lines;
        }
    }
}
