//! Keeps the times of changes, which no single status has: compares each status with those before, and judges.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use spillq_storage::{GroupId, Seq, SeqRange};

use super::inputs::{
    ConfigRefused, DiskSettings, GroupInputs, JudgeSettings, LogInputs, Outside, Pauses, Pinned, Pins,
};
use super::judge::{judge, seqs_of};
use super::judge_log::{judge_log, notes_on};
use super::last_run::LastRun;
use super::processor::ProcessorName;
use super::program::ProgramFile;
use super::rates::{Rates, Sample};
use super::verdict::Report;
use crate::consumers::Seen;
use crate::queue::{GroupStatus, Phase, Status};

/// What was known at the start.
#[derive(Debug)]
struct AtStart {
    last_run: Option<LastRun>,
    killers: Vec<(String, Seq, u32)>,
}

/// What a verdict compares with. Changes with the configuration.
#[derive(Clone, Debug)]
struct Limits {
    judge: JudgeSettings,
    /// The processor of each group that has one.
    processors: BTreeMap<String, ProcessorName>,
    disk: DiskSettings,
    config_refused: Option<ConfigRefused>,
    /// The only groups that are served; `None` means all.
    serves: Option<Vec<String>>,
}

/// A tail with at most this many unread bytes keeps up: its buffers hold as much.
const READ_AHEAD_BYTES: u64 = 4 << 20;

/// A status, and what applies to all groups.
#[derive(Clone, Copy)]
struct Look<'a> {
    status: &'a Status,
    now_ms: u64,
    stall_after_ms: u64,
    /// Acked segments stay on disk on purpose: no group is the reason.
    is_retained: bool,
    /// The tail reads existing files as fast as it can: its rate is not the rate of writers, and all of it fits on the disk.
    catches_up: bool,
}

/// What is remembered of a group between two statuses.
#[derive(Clone, Debug)]
struct Track {
    leases: u64,
    not_leased_since_ms: Option<u64>,
    floor: Seq,
    floor_moved_ms: u64,
    acks_at_floor: u64,
    pinned: Option<(SeqRange, u64)>,
    /// Whether it was paused, refused or blocked at the last status.
    stopped: bool,
    rates: Rates,
}

/// Tells which consumers the groups have.
struct LookAtConsumers(Box<dyn Fn() -> BTreeMap<String, Seen> + Send + Sync>);

impl fmt::Debug for LookAtConsumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LookAtConsumers")
    }
}

/// Makes verdicts. Shared by the supervisor, `doctor` and metrics.
#[derive(Clone, Debug)]
pub struct Supervision {
    at_start: Arc<AtStart>,
    limits: Arc<Mutex<Limits>>,
    tracks: Arc<Mutex<BTreeMap<GroupId, Track>>>,
    consumers: Arc<OnceLock<LookAtConsumers>>,
}

impl Supervision {
    /// Takes the processors by group, the previous run, and the lines that were the only one in flight when the process died:
    /// group, line, deaths.
    #[must_use]
    pub fn new(
        judge: JudgeSettings,
        processors: BTreeMap<String, ProcessorName>,
        disk: DiskSettings,
        last_run: Option<LastRun>,
        killers: Vec<(String, Seq, u32)>,
    ) -> Supervision {
        let limits = Limits { judge, processors, disk, config_refused: None, serves: None };
        Supervision {
            at_start: Arc::new(AtStart { last_run, killers }),
            limits: Arc::new(Mutex::new(limits)),
            tracks: Arc::default(),
            consumers: Arc::default(),
        }
    }

    /// Sets, once, who knows the consumers of groups.
    pub fn set_consumers(&self, look: impl Fn() -> BTreeMap<String, Seen> + Send + Sync + 'static) {
        self.consumers.get_or_init(|| LookAtConsumers(Box::new(look)));
    }

    /// The consumers of groups that lease lines by themselves.
    #[must_use]
    pub fn consumers(&self) -> BTreeMap<String, Seen> {
        self.consumers.get().map(|look| look.0()).unwrap_or_default()
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the processors that run.
    pub fn set_processors(&self, processors: BTreeMap<String, ProcessorName>) {
        self.limits().processors = processors;
    }

    /// Restricts the groups that are served, for a drain.
    pub fn set_served(&self, groups: Vec<String>) {
        self.limits().serves = Some(groups);
    }

    /// The programs of commands, by group.
    #[must_use]
    pub fn programs(&self) -> Vec<(String, ProgramFile)> {
        let program = |(group, name): (&String, &ProcessorName)| Some((group.clone(), name.program.clone()?));
        self.limits().processors.iter().filter_map(program).collect()
    }

    /// Sets whether the configuration on disk is refused.
    pub fn set_refused(&self, refused: Option<ConfigRefused>) {
        self.limits().config_refused = refused;
    }

    /// Changes `stall_after` and the settings of `[disk]`.
    pub fn set_limits(&self, stall_after_ms: u64, disk: DiskSettings) {
        let mut limits = self.limits();
        limits.judge.stall_after_ms = stall_after_ms;
        limits.disk = disk;
    }

    /// `disk.limit` and `disk.min_free`.
    #[must_use]
    pub fn disk_limits(&self) -> (u64, u64) {
        let disk = self.limits().disk;
        (disk.limit_bytes, disk.min_free_bytes)
    }

    /// Takes note of a status, and judges it.
    #[must_use]
    pub fn look(&self, status: &Status, outside: &Outside, now_ms: u64) -> Report {
        let limits = self.limits().clone();
        let mut consumers = self.consumers();
        let mut tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<GroupId> = status.groups.iter().map(|group| group.id).collect();
        tracks.retain(|id, _| known.contains(id));
        let space_bytes = limits.space_bytes(status, outside);
        let look = Look {
            status,
            now_ms,
            stall_after_ms: limits.judge.stall_after_ms,
            is_retained: status.is_copied || limits.disk.retains,
            catches_up: outside.unread_bytes > READ_AHEAD_BYTES && outside.unread_bytes < space_bytes,
        };
        for group in &status.groups {
            tracks.entry(group.id).or_insert_with(|| Track::new(group, now_ms)).fold(look, group);
        }
        let inputs: Vec<GroupInputs> = status
            .groups
            .iter()
            .filter_map(|group| inputs(&limits, &tracks, (status, group), outside, now_ms))
            .map(|inputs| GroupInputs { consumers: consumers.remove(&inputs.group), ..inputs })
            .collect();
        drop(tracks);
        let log = LogInputs {
            outside: outside.clone(),
            disk: limits.disk,
            full: status.full.clone().map(Pauses::Now),
            disk_bytes: status.disk_bytes,
            config_refused: limits.config_refused.clone(),
            unclean_runs: self.at_start.last_run.as_ref().map_or(0, |last| last.unclean_runs),
            killers: self.killers(status),
            read_only: outside.is_read_only.then(|| limits.judge.commands.data_dir().to_owned()),
            lags_most: status
                .groups
                .iter()
                .filter(|group| group.lag_lines > 0)
                .max_by_key(|group| group.lag_bytes)
                .map(|group| (group.name.clone(), group.lag_lines, group.lag_bytes)),
            held: status.groups.iter().filter_map(|group| Some((group.name.clone(), group.held?))).collect(),
        };
        Report {
            groups: inputs.iter().map(|inputs| judge(inputs, now_ms, &limits.judge)).collect(),
            notes: notes_on(&log),
            log: judge_log(&log, &limits.judge),
            last_run: self.at_start.last_run.clone(),
            seqs: inputs.iter().map(seqs_of).collect(),
        }
    }

    /// The killer lines that still wait.
    fn killers(&self, status: &Status) -> Vec<(String, Seq, u32)> {
        let waits = |name: &str, seq: Seq| {
            status
                .groups
                .iter()
                .any(|group| group.name == name && group.ack_floor < seq && group.oldest <= Some(seq))
        };
        self.at_start.killers.iter().filter(|(name, seq, _)| waits(name, *seq)).cloned().collect()
    }
}

impl Limits {
    /// By how much the log can grow.
    fn space_bytes(&self, status: &Status, outside: &Outside) -> u64 {
        let below_limit = self.disk.limit_bytes.saturating_sub(status.disk_bytes);
        let free = outside.free_bytes.map(|free| free.saturating_sub(self.disk.min_free_bytes));
        free.map_or(below_limit, |free| free.min(below_limit))
    }
}

fn inputs(
    limits: &Limits,
    tracks: &BTreeMap<GroupId, Track>,
    (status, group): (&Status, &GroupStatus),
    outside: &Outside,
    now_ms: u64,
) -> Option<GroupInputs> {
    let track = tracks.get(&group.id)?;
    let pinned = track.pinned.and_then(|(segment, since_ms)| {
        let holders: Vec<&GroupStatus> =
            status.groups.iter().filter(|other| other.ack_floor < segment.last).collect();
        // A group that is delivering the lines, or retrying them, will ack the segment.
        let is_blocked = |other: &&GroupStatus| {
            let moved = tracks.get(&other.id).map_or(now_ms, |track| track.floor_moved_ms);
            !is_delivering(other) && now_ms.saturating_sub(moved) >= limits.judge.stall_after_ms
        };
        let held_by: Vec<String> =
            holders.iter().copied().filter(is_blocked).map(|other| other.name.clone()).collect();
        (holders.is_empty() || !held_by.is_empty()).then_some(Pinned { segment, since_ms, held_by })
    });
    let passed: Vec<(&GroupStatus, SeqRange, u64)> = status
        .groups
        .iter()
        .filter_map(|other| tracks.get(&other.id)?.pinned.map(|(segment, since)| (other, segment, since)))
        .filter(|(_, segment, _)| group.ack_floor < segment.last)
        .collect();
    let pins = passed.first().map(|(_, segment, _)| Pins {
        segment: *segment,
        since_ms: passed.iter().map(|(.., since)| *since).min().unwrap_or(now_ms),
        groups: passed.iter().map(|(other, ..)| other.name.clone()).collect(),
    });
    Some(GroupInputs {
        group: group.name.clone(),
        phase: group.phase.clone(),
        processor: limits.processors.get(&group.name).cloned(),
        has_worker: group.has_worker,
        lag_lines: group.lag_lines,
        oldest: group.oldest,
        ack_floor: group.ack_floor,
        leases: group.leases.clone(),
        oldest_lease_ms: group.oldest_lease_ms,
        timeout_ms: group.timeout_ms,
        backs_off: group.backs_off,
        oldest_waits: group.oldest_waits,
        failing: group.activity.failing.clone(),
        last_failure: group.last_failure.clone(),
        held: group.held,
        attempts_max: group.attempts_max,
        dead_letters: group.dead_letters,
        program_missing: outside.programs_missing.get(&group.name).cloned(),
        consumers: None,
        is_left_out: limits.serves.as_ref().is_some_and(|serves| !serves.contains(&group.name)),
        lost: group.activity.lost,
        acks: group.activity.acks,
        not_leased_since_ms: track.not_leased_since_ms,
        floor_moved_ms: track.floor_moved_ms,
        acks_since_floor: group.activity.acks.saturating_sub(track.acks_at_floor),
        pinned,
        pins,
        behind: track.rates.behind(limits.space_bytes(status, outside), group.oldest.map(|seq| seq.0)),
    })
}

/// Whether the line above the group's ack floor is in flight, or in back-off.
fn is_delivering(group: &GroupStatus) -> bool {
    let Some(oldest) = group.oldest else { return true };
    group.leases.iter().any(|range| range.contains(oldest)) || group.oldest_waits
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
            stopped: false,
            rates: Rates::default(),
        }
    }

    fn fold(&mut self, look: Look<'_>, group: &GroupStatus) {
        let Look { status, now_ms, stall_after_ms, is_retained, catches_up } = look;
        let leased = group.leased > 0 || group.activity.leases != self.leases;
        self.leases = group.activity.leases;
        // A group that was stopped, or backed off, gets time to begin again.
        let stopped = matches!(group.phase, Phase::Paused | Phase::Refused { .. } | Phase::Blocked(_));
        let began = std::mem::replace(&mut self.stopped, stopped) && !stopped;
        let backs_off = group.backs_off.is_some_and(|(_, until)| until > now_ms);
        // While its own lines are counted, it is not known whether one waits.
        if leased || began || backs_off || group.lag_lines == 0 || group.is_counting {
            self.not_leased_since_ms = None;
        } else {
            self.not_leased_since_ms.get_or_insert(now_ms);
        }
        // If no line waits, the floor cannot be blocked.
        if group.ack_floor != self.floor || group.lag_lines == 0 {
            self.floor = group.ack_floor;
            self.floor_moved_ms = now_ms;
            self.acks_at_floor = group.activity.acks;
        }
        let segment = status.oldest_segment_last.filter(|last| group.ack_floor >= *last && !is_retained);
        let segment = segment.and_then(|last| SeqRange::new(status.first_seq, last));
        self.pinned = segment.map(|segment| match self.pinned {
            Some((same, since)) if same == segment => (segment, since),
            _ => (segment, now_ms),
        });
        let sample = Sample {
            at_ms: now_ms,
            lines_in: status.next_seq.0,
            lines_out: group.acked_lines,
            lag_lines: group.lag_lines,
            disk_bytes: status.disk_bytes,
        };
        // Only a group that delivers can fall behind. The lag that it had before does not count.
        if stopped || began || catches_up || group.activity.failing.is_some() {
            self.rates = Rates::default();
        }
        self.rates.fold(sample, stall_after_ms);
    }
}
