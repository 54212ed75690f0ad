//! The table of all metrics.
// long: the table of all metrics

use super::budget::{Unit, parts};
use super::series::{self, Facts, Labels};
use crate::queue::{GroupStatus, now_ms, wall_ms};
use crate::tail::{SourceState, SourceStatus};

/// Whether a value can fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises while the process runs.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name between `spillq_` and the unit.
    pub name: &'static str,
    /// The unit, plural; `info` for a metric that is always 1 and whose labels are the information.
    pub unit: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// One sentence for people.
    pub help: &'static str,
    /// How it is made.
    pub of: Of,
}

/// How the series of a metric are made.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// One series, or none if the value is not known.
    All(fn(&Facts<'_>) -> Option<f64>),
    /// One series for each group, with the label `group`.
    Group(fn(&Facts<'_>, &GroupStatus) -> Option<f64>),
    /// One series for each source, with the labels `source` and `path`.
    Source(fn(&SourceStatus) -> f64),
    /// Series with these labels.
    Labelled(&'static [&'static str], fn(&Facts<'_>) -> Vec<(Labels, f64)>),
}

impl Metric {
    /// The full name.
    #[must_use]
    pub fn full_name(&self) -> String {
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("spillq_{}_{}{total}", self.name, self.unit)
    }

    /// The names of its labels.
    #[must_use]
    pub fn labels(&self) -> &'static [&'static str] {
        match self.of {
            Of::All(_) => &[],
            Of::Group(_) => &["group"],
            Of::Source(_) => &["source", "path"],
            Of::Labelled(labels, _) => labels,
        }
    }
}

const fn counter(name: &'static str, unit: &'static str, help: &'static str, of: Of) -> Metric {
    Metric { name, unit, kind: Kind::Counter, help, of }
}

const fn gauge(name: &'static str, unit: &'static str, help: &'static str, of: Of) -> Metric {
    Metric { name, unit, kind: Kind::Gauge, help, of }
}

fn number(value: u64) -> Option<f64> {
    Some(value as f64)
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

/// All of them, in the order in which they are printed.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    // The log.
    counter("log_appended", "lines", "Lines ingested since the store was created.",
        Of::All(|f| number(f.status.next_seq.prev().0))),
    counter("log_appended", "bytes", "Bytes of lines ingested since the store was created.",
        Of::All(|f| number(f.status.appended_bytes))),
    gauge("log_stored", "lines", "Lines from the oldest in a segment to the newest.",
        Of::All(|f| number(f.status.next_seq.0.saturating_sub(f.status.first_seq.0)))),
    gauge("log", "segments", "Segment files.",
        Of::All(|f| number(f.status.segments))),
    gauge("log_disk", "bytes", "Bytes that the log takes on disk, including journals and the reserve.",
        Of::All(|f| number(f.status.disk_bytes))),
    gauge("log_limit", "bytes", "disk.limit: ingestion pauses when the log takes this much.",
        Of::All(|f| number(f.limit_bytes))),
    gauge("disk_free", "bytes", "Free bytes of the file system of the data dir.",
        Of::All(|f| f.free_bytes.and_then(number))),
    gauge("disk_min_free", "bytes", "disk.min_free: ingestion pauses when less is free.",
        Of::All(|f| number(f.min_free_bytes))),
    gauge("ingestion", "paused", "1 while ingestion is paused, by the disk or by the max_lag of a group; otherwise 0.",
        Of::All(|f| number(u64::from(f.status.full.is_some())))),
    counter("log", "commits", "Commits made durable in this run.",
        Of::All(|f| number(f.status.counters.commits))),
    counter("log_commit", "seconds", "Duration of all commits of this run together, including syncs.",
        Of::All(|f| Some(f.status.commit_time.as_secs_f64()))),
    counter("log", "large_commits", "Commits of this run whose lines were written to a segment file only, with two syncs each.",
        Of::All(|f| number(f.status.counters.large_commits))),
    counter("log", "rotations", "Journals begun in this run.",
        Of::All(|f| number(f.status.counters.rotations))),
    counter("log_removed", "segments", "Segment files removed in this run.",
        Of::All(|f| number(f.status.counters.segments_removed))),
    counter("log_relocated", "lines", "Lines relocated in this run, so that their segment could be removed.",
        Of::All(|f| number(f.status.counters.lines_relocated))),
    counter("log", "openings", "How often the store was opened.",
        Of::All(|f| number(f.status.run))),
    gauge("log_lost", "lines", "Lines recorded as lost: they could not be read, and were skipped.",
        Of::All(|f| number(f.status.losses.iter().filter(|l| !l.is_dropped()).map(|l| l.range.lines()).sum()))),
    gauge("log", "findings", "Faults that were found when the store was opened.",
        Of::All(|f| number(f.status.findings.len() as u64))),
    gauge("quarantine", "files", "Damaged files that repairs have quarantined.",
        Of::All(|f| number(f.status.quarantined.files))),
    gauge("quarantine", "bytes", "Bytes of these files.",
        Of::All(|f| number(f.status.quarantined.bytes))),

    // The tail.
    counter("tail_read", "lines", "Lines that the tail sent to the log. Each part of a long line counts.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.lines)))),
    counter("tail_read", "bytes", "Bytes of these lines.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.bytes)))),
    counter("tail", "appends", "Appends sent to the log.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.appends)))),
    counter("tail", "scans", "Scans of the followed folders.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.scans)))),
    counter("tail", "errors", "How often a file or folder became unreadable.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.errors)))),
    counter("tail_destroyed", "bytes", "Bytes that were truncated or deleted before they were read, as far as known.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.destroyed_unread_bytes)))),
    counter("tail_lost_sight", "sources", "Sources whose file disappeared while it was not held open: whether all of it was read is not known.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.lost_sight)))),
    counter("tail_released_early", "files", "Deleted files that were read to their end and closed early, because descriptors ran short.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.released_early)))),
    counter("tail_truncated", "sources", "Sources whose file was truncated or replaced in place.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.truncated)))),
    counter("tail_rolled_back", "sources", "Sources that a power cut made shorter than their checkpoint.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.rolled_back)))),
    counter("tail_rolled_back", "bytes", "Bytes that these sources lost.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.rolled_back_bytes)))),
    gauge("tail", "sources", "Followed files by state: reading, caught_up, blocked, gone, failed; stream, ended.",
        Of::Labelled(&["state"], series::sources_by_state)),
    gauge("tail_waiting", "files", "Files that were found and are not sources yet: empty, or perhaps a copy in progress.",
        Of::All(|f| f.tail.and_then(|t| number(t.waiting_files as u64)))),
    gauge("tail_refused", "files", "Files and folders that cannot be followed.",
        Of::All(|f| f.tail.and_then(|t| number(t.refused_files as u64)))),
    gauge("tail_left_out", "files", "Files that match and are not followed, because the limit of followed files is reached.",
        Of::All(|f| f.tail.and_then(|t| number(t.left_out.files as u64)))),
    gauge("tail_wait", "seconds", "For how long the oldest append has waited for the log; 0 without an append.",
        Of::All(|f| f.tail.map(|t| t.waits_for_log_since.and_then(|at| at.elapsed().ok()).unwrap_or_default().as_secs_f64()))),
    gauge("tail_busy", "seconds", "For how long the tail has been busy with one turn, as when a read hangs; 0 while it waits.",
        Of::All(|f| f.tail.map(|_| f.tail_busy_ms.map_or(0.0, seconds)))),

    // Sources: those with most unread bytes; the others together.
    gauge("source_offset", "bytes", "The offset up to which the source was read. It falls if a power cut shortened the file.",
        Of::Source(|s| s.offset as f64)),
    gauge("source_unread", "bytes", "Bytes of the source behind the offset, as far as its size is known.",
        Of::Source(|s| s.size.saturating_sub(s.offset) as f64)),
    gauge("source_failed", "sources", "1 if the source cannot be read; otherwise 0.",
        Of::Source(|s| f64::from(u8::from(s.state == SourceState::Failed)))),

    // Groups.
    gauge("group", "info", "Always 1; the label state is the state of the group.",
        Of::Labelled(&["group", "state"], series::states)),
    gauge("group_lag", "lines", "Lines that wait or are in flight.",
        Of::Group(|_, g| number(g.lag_lines))),
    gauge("group_lag", "bytes", "Bytes of these lines, estimated from the average of their segments.",
        Of::Group(|_, g| number(g.lag_bytes))),
    gauge("group_lag", "seconds", "Age of the oldest of these lines; 0 without one.",
        Of::Group(|f, g| Some(f.ages.get(&g.name).copied().unwrap_or_default()))),
    gauge("group_ack_floor", "seq", "All lines up to this seq are settled.",
        Of::Group(|_, g| number(g.ack_floor.0))),
    gauge("group_leased", "lines", "Lines in flight.",
        Of::Group(|_, g| number(g.leased))),
    gauge("group_oldest_lease", "seconds", "Age of the oldest lease; 0 without one.",
        Of::Group(|_, g| Some(g.oldest_lease_ms.map_or(0.0, |since| seconds(now_ms().saturating_sub(since)))))),
    gauge("group_timeout", "seconds", "The timeout of a batch.",
        Of::Group(|_, g| Some(seconds(g.timeout_ms)))),
    gauge("group_dead", "lines", "Dead letters.",
        Of::Group(|_, g| number(g.dead_letters))),
    counter("group_acked", "lines", "Lines acked since the group was created.",
        Of::Group(|_, g| number(g.acked_lines))),
    counter("group_skipped", "lines", "Lines skipped by seeks since the group was created.",
        Of::Group(|_, g| number(g.skipped_lines))),
    counter("group_dropped", "lines", "Lines that limits have dropped for the group since it was created.",
        Of::Group(|_, g| number(g.dropped_lines))),
    counter("group_destination_lost", "lines", "Lines that the destination of the group had stored and has lost, as far as it keeps a record, in this run and since the last seek.",
        Of::Group(|_, g| number(g.activity.lost.map_or(0, |lost| lost.lines)))),
    counter("group_leased", "batches", "Batches leased in this run.",
        Of::Group(|_, g| number(g.activity.leases))),
    counter("group_acked", "batches", "Batches acked in this run.",
        Of::Group(|_, g| number(g.activity.acks))),
    counter("group_failed", "batches", "Batches that failed in this run.",
        Of::Group(|_, g| number(g.activity.failures))),
    gauge("group_seen", "consumers", "Consumers of the group that asked for lines or settled some within the last five minutes; at most 64.",
        Of::Group(|f, g| number(series::consumers(f, &g.name)))),
    counter("group_expired", "leases", "Leases of consumers that expired in this run.",
        Of::Group(|f, g| number(f.consumers.get(&g.name).map_or(0, |seen| seen.expired)))),
    gauge("group_failing", "batches", "Batches that failed in a row since the last ack.",
        Of::Group(|_, g| number(g.activity.failing.as_ref().map_or(0, |failing| failing.times)))),
    gauge("group_backoff", "seconds", "Time until failed lines are retried; 0 without failed lines.",
        Of::Group(|_, g| Some(g.backs_off.map_or(0.0, |(_, until)| seconds(until.saturating_sub(now_ms())))))),

    // What doctor reports.
    gauge("doctor", "causes", "The number of causes that doctor reports now: 0 is healthy.",
        Of::All(|f| number(f.causes().len() as u64))),
    gauge("active", "causes", "1 for each cause that doctor reports now; the group is empty for a cause of the log.",
        Of::Labelled(&["cause", "group"], series::active_causes)),
    gauge("last_run", "info", "Always 1; the label ended is how the previous run ended.",
        Of::Labelled(&["ended"], series::last_run)),
    gauge("last_unclean", "runs", "Runs in a row, up to the previous one, that ended without a clean stop.",
        Of::All(|f| number(f.report.last_run.as_ref().map_or(0, |last| last.unclean_runs)))),

    // The process, and its memory budget.
    gauge("build", "info", "Always 1; the label version is the version of spillq.",
        Of::Labelled(&["version"], |_| vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)])),
    gauge("process_start", "seconds", "When the process started, in seconds since 1970.",
        Of::All(|f| f.process.start_seconds)),
    gauge("process_clock", "seconds", "The wall-clock time of the host, in seconds since 1970.",
        Of::All(|_| Some(seconds(wall_ms())))),
    counter("process_cpu", "seconds", "CPU time of the process, without the commands of its processors.",
        Of::All(|f| f.process.cpu_seconds)),
    gauge("process_resident", "bytes", "Memory of the process (RSS), without its commands.",
        Of::All(|f| f.process.resident_bytes)),
    gauge("process_peak", "bytes", "The largest memory that the process has had (peak RSS): at most 96 MiB by default.",
        Of::All(|f| f.process.peak_bytes)),
    gauge("process", "threads", "Threads of the process.",
        Of::All(|f| f.process.threads)),
    gauge("process_open", "files", "Open file descriptors.",
        Of::All(|f| f.process.open_files)),
    gauge("process_limit", "files", "The limit of open file descriptors: RLIMIT_NOFILE.",
        Of::All(|f| f.process.limit_files)),
    gauge("memory_held", "bytes", "The use of each part of the memory budget that is bounded in bytes.",
        Of::Labelled(&["part"], |f| parts(Unit::Bytes, |part| (part.held)(f)))),
    gauge("memory_bound", "bytes", "The bound of the part.",
        Of::Labelled(&["part"], |f| parts(Unit::Bytes, |part| (part.bound)(f)))),
    gauge("memory_held", "entries", "The use of each part of the memory budget that is bounded in entries.",
        Of::Labelled(&["part"], |f| parts(Unit::Entries, |part| (part.held)(f)))),
    gauge("memory_bound", "entries", "The bound of the part.",
        Of::Labelled(&["part"], |f| parts(Unit::Entries, |part| (part.bound)(f)))),
];
