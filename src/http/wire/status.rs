//! The JSON of `status`: the same from a running service and from the files of a stopped store.
// long: the table of all that `status` reports, and what it is made from

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spillq_storage::repair::Quarantined;
use spillq_storage::{Loss, Seq, SeqRange, SourceId, View};

use super::super::outside::unreadable_files;
use super::super::reload::ConfigJson;
use crate::http::consumers::{ConsumerJson, HeldJson};
use crate::metrics::Process;
use crate::plain::escape_path;
use crate::queue::{Phase, Status, now_ms};
use crate::supervise::{Report, State, soon};
use crate::tail::{LeftOutFiles, Snapshot, SourceRecord};

/// The answer to `status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StatusJson {
    /// `service` if a running one answered, `disk` if none runs.
    pub from: String,
    /// The process that answered.
    pub pid: u32,
    /// The log.
    pub log: LogJson,
    /// The followed files.
    pub sources: Vec<SourceJson>,
    /// Files that match and are not followed, because the limit is reached.
    #[serde(default)]
    pub left_out: LeftOutJson,
    /// How many files match and cannot be read. `doctor` names some, each with the reason.
    #[serde(default)]
    pub unreadable: u64,
    /// The groups.
    pub groups: Vec<GroupJson>,
    /// What was lost, of every kind.
    pub losses: LossesJson,
    /// What repairs have quarantined.
    #[serde(default)]
    pub quarantine: QuarantineJson,
    /// What was found wrong when the store was opened.
    pub findings: Vec<String>,
    /// The configuration that runs, and how the one on disk differs; null if it cannot be reloaded.
    #[serde(default)]
    pub config: Option<ConfigJson>,
    /// The process that answered, if it is a service.
    #[serde(default)]
    pub process: ProcessJson,
}

/// What `status` and `doctor` were made from: the field `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredBy {
    /// A running service.
    Service,
    /// The files of a store that no service has open.
    Disk,
}

impl AnsweredBy {
    /// Its word in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            AnsweredBy::Service => "service",
            AnsweredBy::Disk => "disk",
        }
    }
}

/// Why a group is in its phase, in words; `None` if that is obvious. `now_ms` is by the clock of deadlines.
#[must_use]
pub fn reason(phase: &Phase, now_ms: u64) -> Option<String> {
    match phase {
        Phase::Idle | Phase::Running => None,
        Phase::Retrying { range, until_ms } => {
            Some(format!("lines {range} again {}", soon(*until_ms, now_ms)))
        }
        Phase::Refused { until_ms, rejected: None } => {
            Some(format!("tried again {}", soon(*until_ms, now_ms)))
        }
        Phase::Refused { until_ms, rejected: Some(rejected) } => {
            let again = soon(*until_ms, now_ms);
            Some(format!("every line is rejected; line {} is tried again {again}", rejected.seq))
        }
        Phase::Blocked(why) => Some(why.to_string()),
        Phase::Paused => Some("an operator paused it; `spillq group resume` continues".to_owned()),
    }
}

/// A process. A field is null if the kernel does not show it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ProcessJson {
    pub resident_bytes: Option<u64>,
    pub peak_bytes: Option<u64>,
    pub open_files: Option<u64>,
}

impl ProcessJson {
    fn of_self() -> ProcessJson {
        let process = Process::of_self();
        let whole = |value: Option<f64>| value.map(|value| value as u64);
        ProcessJson {
            resident_bytes: whole(process.resident_bytes),
            peak_bytes: whole(process.peak_bytes),
            open_files: whole(process.open_files),
        }
    }
}

/// Files that match a glob and are not followed: how many, and some of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LeftOutJson {
    pub files: u64,
    pub limit: u64,
    /// How many of the followed files no section matches any more.
    #[serde(default)]
    pub resting: u64,
    pub named: Vec<String>,
}

impl From<&LeftOutFiles> for LeftOutJson {
    fn from(left_out: &LeftOutFiles) -> LeftOutJson {
        LeftOutJson {
            files: left_out.files as u64,
            limit: left_out.limit as u64,
            resting: left_out.inactive as u64,
            named: left_out.named.iter().map(|path| escape_path(path)).collect(),
        }
    }
}

/// Files in `quarantine/`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct QuarantineJson {
    pub files: u64,
    pub bytes: u64,
}

impl From<Quarantined> for QuarantineJson {
    fn from(Quarantined { files, bytes }: Quarantined) -> QuarantineJson {
        QuarantineJson { files, bytes }
    }
}

/// The log.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LogJson {
    pub first_seq: u64,
    pub next_seq: u64,
    pub segments: u64,
    pub disk_bytes: u64,
    /// `disk.limit`; null if no service runs, as the store does not know it.
    #[serde(default)]
    pub limit_bytes: Option<u64>,
    pub appended_bytes: u64,
    /// Why ingestion is paused; null if it is not.
    pub full: Option<String>,
    pub window_bytes: u64,
    pub runs: u64,
    pub commits: u64,
    #[serde(default)]
    pub large_commits: u64,
    pub rotations: u64,
    pub segments_removed: u64,
    pub lines_relocated: u64,
}

/// A followed file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceJson {
    pub source: u64,
    pub path: String,
    pub offset: u64,
    pub size: Option<u64>,
    pub state: String,
    pub error: Option<String>,
}

/// A group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupJson {
    pub group: String,
    pub state: String,
    pub reason: Option<String>,
    pub ack_floor: u64,
    pub lag_lines: u64,
    /// A group over some sources whose lines are still being counted: `lag_lines` has those of other sources too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub counting: bool,
    pub lag_bytes: u64,
    /// The age of the oldest line that waits.
    pub lag_seconds: Option<f64>,
    pub leased: u64,
    pub leases: Vec<String>,
    pub dead_letters: u64,
    pub acked_lines: u64,
    /// Lines that seeks have passed over.
    #[serde(default)]
    pub skipped_lines: u64,
    /// Lines that limits have dropped for it.
    #[serde(default)]
    pub dropped_lines: u64,
    pub last_failure: Option<String>,
    /// Those that lease its lines by themselves, most recently seen first; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<ConsumerJson>,
    /// The leases that they hold, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldJson>,
}

/// What was lost, of every kind: one place for all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LossesJson {
    /// Lines that could not be read and were passed over.
    pub lost_lines: u64,
    pub lost: Vec<String>,
    /// Bytes truncated or deleted before they were read, since the service started.
    pub destroyed_unread_bytes: u64,
    /// Sources that were deleted while the service did not have them open, since it started. It is not known whether
    /// they were read completely.
    #[serde(default)]
    pub lost_sight: u64,
    /// Sources that the file system made shorter than what was read of them, as after a power cut.
    pub rolled_back: u64,
    /// Dead letters that all groups have now.
    pub dead: u64,
    /// Lines that limits have dropped, over all groups: a line counts once for each group that had not settled it.
    pub dropped_lines: u64,
    /// Which lines, for which group, and by which limit. If there are many, the oldest are joined.
    #[serde(default)]
    pub dropped: Vec<String>,
}

impl LossesJson {
    /// The losses that the log knows of.
    fn of<'l>(losses: impl Iterator<Item = &'l Loss>, groups: &[GroupJson]) -> LossesJson {
        let words = |loss: &Loss| lost_in_words(loss.range, &loss.reason);
        let (dropped, lost): (Vec<&Loss>, Vec<&Loss>) = losses.partition(|loss| loss.is_dropped());
        LossesJson {
            lost_lines: lost.iter().map(|loss| loss.range.lines()).sum(),
            lost: lost.into_iter().map(words).collect(),
            dead: groups.iter().map(|group| group.dead_letters).sum(),
            dropped_lines: groups.iter().map(|group| group.dropped_lines).sum(),
            dropped: dropped.into_iter().map(words).collect(),
            ..LossesJson::default()
        }
    }

    /// The lines of `lost`, each range with the reason. A text in the form of another version is left out.
    pub fn lost_ranges(&self) -> impl Iterator<Item = (SeqRange, String)> {
        self.lost.iter().filter_map(|words| lost_of_words(words))
    }
}

/// The text for lost lines.
fn lost_in_words(range: SeqRange, reason: &str) -> String {
    format!("{range}: {reason}")
}

/// The reverse of [`lost_in_words`].
fn lost_of_words(words: &str) -> Option<(SeqRange, String)> {
    let (range, reason) = words.split_once(": ")?;
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    Some((SeqRange::new(Seq(first.parse().ok()?), Seq(last.parse().ok()?))?, reason.to_owned()))
}

impl StatusJson {
    /// The status of a running service.
    pub(crate) fn live(
        status: &Status,
        tail: Option<&Snapshot>,
        ages: &BTreeMap<String, f64>,
        report: &Report,
        limit_bytes: u64,
    ) -> StatusJson {
        let sources = match tail {
            Some(tail) => tail.sources.iter().map(source_of_tail).collect(),
            None => sources_on_disk(status.sources.iter().map(|(id, bytes)| (*id, bytes.as_ref()))),
        };
        let now_ms = now_ms();
        let groups: Vec<GroupJson> = status
            .groups
            .iter()
            .map(|group| GroupJson {
                group: group.name.clone(),
                state: report.state_of(&group.name).unwrap_or(State::from(&group.phase)).word().to_owned(),
                reason: reason(&group.phase, now_ms).or_else(|| report.what_is_wrong(&group.name)),
                ack_floor: group.ack_floor.0,
                lag_lines: group.lag_lines,
                counting: group.is_counting,
                lag_bytes: group.lag_bytes,
                lag_seconds: ages.get(&group.name).copied(),
                leased: group.leased,
                leases: group.leases.iter().map(ToString::to_string).collect(),
                dead_letters: group.dead_letters,
                acked_lines: group.acked_lines,
                skipped_lines: group.skipped_lines,
                dropped_lines: group.dropped_lines,
                last_failure: group.last_failure.clone(),
                consumers: Vec::new(),
                held: Vec::new(),
            })
            .collect();
        let counters = tail.map(|tail| tail.counters).unwrap_or_default();
        StatusJson {
            from: AnsweredBy::Service.word().to_owned(),
            pid: std::process::id(),
            log: LogJson {
                first_seq: status.first_seq.0,
                next_seq: status.next_seq.0,
                segments: status.segments,
                disk_bytes: status.disk_bytes,
                limit_bytes: Some(limit_bytes),
                appended_bytes: status.appended_bytes,
                full: status.full.as_ref().map(ToString::to_string),
                window_bytes: status.window_bytes,
                runs: status.run,
                commits: status.counters.commits,
                large_commits: status.counters.large_commits,
                rotations: status.counters.rotations,
                segments_removed: status.counters.segments_removed,
                lines_relocated: status.counters.lines_relocated,
            },
            losses: LossesJson {
                destroyed_unread_bytes: counters.destroyed_unread_bytes,
                lost_sight: counters.lost_sight,
                rolled_back: counters.rolled_back,
                ..LossesJson::of(status.losses.iter(), &groups)
            },
            sources,
            left_out: tail.map(|tail| LeftOutJson::from(&tail.left_out)).unwrap_or_default(),
            unreadable: tail.map_or(0, unreadable_files),
            groups,
            quarantine: status.quarantined.into(),
            findings: status.findings.clone(),
            config: None,
            process: ProcessJson::of_self(),
        }
    }

    /// The status of a stopped store, from its files.
    #[must_use]
    pub fn on_disk(view: &View, now_ms: u64) -> StatusJson {
        let state = view.state();
        let mut reader = view.reader();
        let groups: Vec<GroupJson> = state
            .groups()
            .iter()
            .map(|(id, group)| {
                let lag_lines = group.lag_lines(state.next_seq());
                let oldest = group.acks().gap(Seq::FIRST, state.next_seq().prev());
                let block = oldest.and_then(|gap| reader.block(gap.first).ok());
                let waits = if group.is_paused() { State::Paused } else { State::Idle };
                GroupJson {
                    group: group.name().to_owned(),
                    state: waits.word().to_owned(),
                    reason: (lag_lines > 0).then(|| "no service runs on this store".to_owned()),
                    ack_floor: group.acks().floor().0,
                    lag_lines,
                    counting: false,
                    lag_bytes: state.lag_bytes(group),
                    lag_seconds: block
                        .map(|block| now_ms.saturating_sub(block.append_time_ms()) as f64 / 1e3),
                    leased: 0,
                    leases: group.suspects().iter().chain(group.leases()).map(ToString::to_string).collect(),
                    dead_letters: view.dead_count(*id) as u64,
                    acked_lines: group.acked_lines(),
                    skipped_lines: group.skipped_lines(),
                    dropped_lines: group.dropped_lines(),
                    last_failure: None,
                    consumers: Vec::new(),
                    held: Vec::new(),
                }
            })
            .collect();
        StatusJson {
            from: AnsweredBy::Disk.word().to_owned(),
            pid: std::process::id(),
            log: LogJson {
                first_seq: state.first_seq().0,
                next_seq: state.next_seq().0,
                segments: state.segment_count() as u64,
                disk_bytes: view.disk_bytes(),
                appended_bytes: state.appended_bytes(),
                runs: state.run(),
                ..LogJson::default()
            },
            losses: LossesJson::of(state.losses().iter(), &groups),
            sources: sources_on_disk(
                state.sources().iter().map(|(id, source)| (*id, source.checkpoint.as_slice())),
            ),
            groups,
            quarantine: view.quarantined().into(),
            findings: view.findings().to_vec(),
            ..StatusJson::default()
        }
    }
}

fn source_of_tail(source: &crate::tail::SourceStatus) -> SourceJson {
    SourceJson {
        source: source.source.0,
        path: escape_path(&source.path),
        offset: source.offset,
        size: Some(source.size),
        state: source.state.word().to_owned(),
        error: source.last_error.as_ref().map(ToString::to_string),
    }
}

fn sources_on_disk<'a>(checkpoints: impl Iterator<Item = (SourceId, &'a [u8])>) -> Vec<SourceJson> {
    checkpoints
        .map(|(id, bytes)| {
            let record = SourceRecord::decode(bytes);
            let error = record.as_ref().err().map(ToString::to_string);
            let record = record.ok();
            SourceJson {
                source: id.0,
                path: record.as_ref().map(|record| escape_path(record.path())).unwrap_or_default(),
                offset: record.as_ref().map_or(0, |record| record.offset),
                size: None,
                state: "stopped".to_owned(),
                error,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Blocked, EveryLineRejected};

    #[test]
    fn the_reason_of_a_phase_has_stable_words() {
        let range = SeqRange { first: Seq(1), last: Seq(9) };
        let text = |phase| reason(&phase, 1_000);
        assert_eq!(text(Phase::Idle), None);
        assert_eq!(text(Phase::Running), None);
        for (phase, words) in [
            (Phase::Retrying { range, until_ms: 1_400 }, "lines 1-9 again in 0.4 s"),
            (Phase::Retrying { range, until_ms: 900 }, "lines 1-9 again at once"),
            (Phase::Refused { until_ms: 4_000, rejected: None }, "tried again in 3.0 s"),
            (
                Phase::Refused {
                    until_ms: 4_000,
                    rejected: Some(EveryLineRejected { seq: Seq(2), dead: 1 }),
                },
                "every line is rejected; line 2 is tried again in 3.0 s",
            ),
            (Phase::Paused, "an operator paused it; `spillq group resume` continues"),
            (Phase::Blocked(Blocked::Damage("lines 1-9: x".to_owned())), "damage: lines 1-9: x"),
            (Phase::Blocked(Blocked::DiskError("lines 1-9: x".to_owned())), "disk error: lines 1-9: x"),
            (Phase::Blocked(Blocked::AckWindow), "ack window"),
            (Phase::Blocked(Blocked::DeadLettersFull), "dead letters full"),
            (Phase::Blocked(Blocked::HeldBy(Seq(7))), "held by line 7"),
        ] {
            assert_eq!(text(phase).as_deref(), Some(words));
        }
    }

    #[test]
    fn lost_lines_are_parsed_as_they_are_written() {
        for (first, last) in [(3, 3), (3, 12)] {
            let range = SeqRange { first: Seq(first), last: Seq(last) };
            let words = lost_in_words(range, "a block: checksum");
            assert_eq!(lost_of_words(&words), Some((range, "a block: checksum".to_owned())));
        }
        assert_eq!(lost_of_words("otherwise"), None);
    }
}
