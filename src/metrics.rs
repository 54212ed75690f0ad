//! Metrics: one table of names, kinds, units, helps and where each figure comes from, printed as Prometheus text.
//!
//! A name is `spillq_<name>_<unit>`, of a counter with `_total` behind it. Counters never go back while the process
//! runs: what can fall is a gauge. The number of series is bounded: [`SOURCES_MAX`] sources and [`GROUPS_MAX`] groups
//! have series of their own, the others of their kind are summed under the label [`OTHERS`].
// long: the table of all metrics

mod budget;
mod facts;
mod process;
mod text;

use crate::plain::escape_path;
use crate::queue::{GroupStatus, now_ms, wall_ms};
use crate::tail::{SourceState, SourceStatus};

pub use budget::{PARTS, Part, Unit};
pub use facts::Facts;
pub use process::Process;
pub use text::{CONTENT_TYPE, Labels, render};

/// Sources with series of their own, those with most unread bytes; the rest is one series.
pub const SOURCES_MAX: usize = 1_000;
/// Groups with series of their own, those that lag most: more than a configuration can name.
pub const GROUPS_MAX: usize = 100;
/// The label of the rest.
pub const OTHERS: &str = "others";

/// What a figure does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, while the process runs.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Between `spillq_` and the unit.
    pub name: &'static str,
    /// Of its figures, plural; `info` for a figure that is always 1 and says something in its labels.
    pub unit: &'static str,
    /// What it does.
    pub kind: Kind,
    /// One sentence for people.
    pub help: &'static str,
    /// Where it comes from.
    pub of: Of,
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// One series, or none where there is nothing to tell.
    All(fn(&Facts<'_>) -> Option<f64>),
    /// One series a group, with the label `group`.
    Group(fn(&Facts<'_>, &GroupStatus) -> Option<f64>),
    /// One series a source, with the labels `source` and `path`.
    Source(fn(&SourceStatus) -> f64),
    /// Series with these labels.
    Labelled(&'static [&'static str], fn(&Facts<'_>) -> Vec<(Labels, f64)>),
}

impl Metric {
    /// Its whole name.
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
    counter("log_appended", "lines", "Lines taken in since the store was made.",
        Of::All(|f| number(f.status.next_seq.prev().0))),
    counter("log_appended", "bytes", "Bytes of lines taken in since the store was made.",
        Of::All(|f| number(f.status.appended_bytes))),
    gauge("log_held", "lines", "Lines from the oldest that a segment holds to the newest.",
        Of::All(|f| number(f.status.next_seq.0.saturating_sub(f.status.first_seq.0)))),
    gauge("log", "segments", "Segment files.",
        Of::All(|f| number(f.status.segments))),
    gauge("log_disk", "bytes", "Bytes that the log takes on disk, journals and reserve included.",
        Of::All(|f| number(f.status.disk_bytes))),
    gauge("log_limit", "bytes", "disk.limit: reading pauses when the log takes so much.",
        Of::All(|f| number(f.limit_bytes))),
    gauge("disk_free", "bytes", "Bytes that the file system of the data dir has free.",
        Of::All(|f| f.free_bytes.and_then(number))),
    gauge("disk_min_free", "bytes", "disk.min_free: reading pauses when less is free.",
        Of::All(|f| number(f.min_free_bytes))),
    gauge("intake", "pauses", "1 while lines are not taken in, for room or for max_lag of a group; otherwise 0.",
        Of::All(|f| number(u64::from(f.status.full.is_some())))),
    counter("log", "commits", "Commits made durable in this run: one sync each.",
        Of::All(|f| number(f.status.counters.commits))),
    counter("log_commit", "seconds", "Time that all commits of this run took together, syncs included.",
        Of::All(|f| Some(f.status.commit_time.as_secs_f64()))),
    counter("log", "rotations", "Journals begun in this run.",
        Of::All(|f| number(f.status.counters.rotations))),
    counter("log_removed", "segments", "Segment files removed in this run.",
        Of::All(|f| number(f.status.counters.segments_removed))),
    counter("log_relocated", "lines", "Lines copied aside in this run, so that their segment could go.",
        Of::All(|f| number(f.status.counters.lines_relocated))),
    counter("log", "openings", "How often the store was opened.",
        Of::All(|f| number(f.status.run))),
    gauge("log_lost", "lines", "Lines recorded as lost: they could not be read, and were passed over.",
        Of::All(|f| number(f.status.losses.iter().filter(|l| !l.is_dropped()).map(|l| l.range.lines()).sum()))),
    gauge("log", "findings", "What opening the store found that was not as it should be.",
        Of::All(|f| number(f.status.findings.len() as u64))),
    gauge("quarantine", "files", "Damaged files that repairs have set aside.",
        Of::All(|f| number(f.status.quarantined.files))),
    gauge("quarantine", "bytes", "Bytes of them.",
        Of::All(|f| number(f.status.quarantined.bytes))),

    // The tail.
    counter("tail_read", "lines", "Lines that the tail handed to the log, parts of long lines each counted.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.lines)))),
    counter("tail_read", "bytes", "Bytes of them.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.bytes)))),
    counter("tail", "appends", "Appends handed to the log.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.appends)))),
    counter("tail", "scans", "Scans of the followed folders.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.scans)))),
    counter("tail", "errors", "Times that a file or folder became unreadable.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.errors)))),
    counter("tail_destroyed", "bytes", "Bytes truncated or deleted before they were read, as far as they were ever seen.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.destroyed_unread_bytes)))),
    counter("tail_lost_sight", "sources", "Sources that were gone while nobody had their file open: whether all was read is not known.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.lost_sight)))),
    counter("tail_released_early", "files", "Files gone and read to their end that were closed early, as descriptors ran short.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.released_early)))),
    counter("tail_truncated", "sources", "Sources whose file was truncated or replaced in place.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.truncated)))),
    counter("tail_rolled_back", "sources", "Sources that a power cut made shorter than their checkpoint.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.rolled_back)))),
    counter("tail_rolled_back", "bytes", "Bytes that those sources lost.",
        Of::All(|f| f.tail.and_then(|t| number(t.counters.rolled_back_bytes)))),
    gauge("tail", "sources", "Followed files by what they are doing: reading, caught_up, blocked, gone, failed; stream, ended.",
        Of::Labelled(&["state"], facts::sources_by_state)),
    gauge("tail_waiting", "files", "Files that were found and are no sources yet: empty, or perhaps a copy under way.",
        Of::All(|f| f.tail.and_then(|t| number(t.waiting_files as u64)))),
    gauge("tail_refused", "files", "Files and folders that cannot be followed.",
        Of::All(|f| f.tail.and_then(|t| number(t.refused_files as u64)))),
    gauge("tail_left_out", "files", "Files that match and are not followed, since no more are followed at once.",
        Of::All(|f| f.tail.and_then(|t| number(t.left_out.files as u64)))),
    gauge("tail_wait", "seconds", "For how long the log has not answered the oldest append; 0 where none is under way.",
        Of::All(|f| f.tail.map(|t| t.waits_for_log_since.and_then(|at| at.elapsed().ok()).unwrap_or_default().as_secs_f64()))),
    gauge("tail_turn", "seconds", "For how long the tail has been at one turn: a read that hangs; 0 while it waits.",
        Of::All(|f| f.tail.map(|_| f.tail_busy_ms.map_or(0.0, seconds)))),

    // Sources: those with most unread bytes, the rest together.
    gauge("source_offset", "bytes", "The offset up to which the source was read. It falls where a power cut shortened the file.",
        Of::Source(|s| s.offset as f64)),
    gauge("source_unread", "bytes", "Bytes of the source behind that, as far as its size is known.",
        Of::Source(|s| s.size.saturating_sub(s.offset) as f64)),
    gauge("source_failed", "sources", "1 where the source cannot be read; otherwise 0.",
        Of::Source(|s| f64::from(u8::from(s.state == SourceState::Failed)))),

    // Groups.
    gauge("group", "info", "Always 1; what the group is doing stands in the label state.",
        Of::Labelled(&["group", "state"], facts::states)),
    gauge("group_lag", "lines", "Lines that the group has not acked.",
        Of::Group(|_, g| number(g.lag_lines))),
    gauge("group_lag", "bytes", "Bytes of them, estimated from what their segments hold on average.",
        Of::Group(|_, g| number(g.lag_bytes))),
    gauge("group_lag", "seconds", "Age of the oldest of them; 0 where none waits.",
        Of::Group(|f, g| Some(f.ages.get(&g.name).copied().unwrap_or_default()))),
    gauge("group_ack_floor", "seq", "Everything up to here is acked, or set aside as dead.",
        Of::Group(|_, g| number(g.ack_floor.0))),
    gauge("group_leased", "lines", "Lines that are out with processors.",
        Of::Group(|_, g| number(g.leased))),
    gauge("group_oldest_lease", "seconds", "Age of the oldest lease that is out; 0 where none is.",
        Of::Group(|_, g| Some(g.oldest_lease_ms.map_or(0.0, |since| seconds(now_ms().saturating_sub(since)))))),
    gauge("group_timeout", "seconds", "How long a batch may take before it is ended.",
        Of::Group(|_, g| Some(seconds(g.timeout_ms)))),
    gauge("group_dead", "lines", "Dead letters that are held.",
        Of::Group(|_, g| number(g.dead_letters))),
    counter("group_acked", "lines", "Lines acked since the group was made.",
        Of::Group(|_, g| number(g.acked_lines))),
    counter("group_skipped", "lines", "Lines that seeks have passed over since the group was made.",
        Of::Group(|_, g| number(g.skipped_lines))),
    counter("group_dropped", "lines", "Lines that limits have dropped for the group since it was made.",
        Of::Group(|_, g| number(g.dropped_lines))),
    counter("group_destination_lost", "lines", "Lines that the destination of the group had taken and has lost, as far as it notes them, in this run and since the group was moved last.",
        Of::Group(|_, g| number(g.activity.lost.map_or(0, |lost| lost.lines)))),
    counter("group_leased", "batches", "Batches leased in this run.",
        Of::Group(|_, g| number(g.activity.leases))),
    counter("group_acked", "batches", "Batches acked in this run.",
        Of::Group(|_, g| number(g.activity.acks))),
    counter("group_failed", "batches", "Batches that failed in this run.",
        Of::Group(|_, g| number(g.activity.failures))),
    gauge("group_failing", "batches", "Batches that failed in a row, since the last ack.",
        Of::Group(|_, g| number(g.activity.failing.as_ref().map_or(0, |failing| failing.times)))),
    gauge("group_backoff", "seconds", "Until lines that failed come again; 0 where none wait for that.",
        Of::Group(|_, g| Some(g.backs_off.map_or(0.0, |(_, until)| seconds(until.saturating_sub(now_ms())))))),

    // What doctor says.
    gauge("doctor", "causes", "How many causes doctor names now: 0 is well.",
        Of::All(|f| number(f.causes().len() as u64))),
    gauge("active", "causes", "1 for each cause that doctor names now; the group is empty where it is about none.",
        Of::Labelled(&["cause", "group"], facts::active_causes)),
    gauge("last_run", "info", "Always 1; how the run before this one ended stands in the label ended.",
        Of::Labelled(&["ended"], facts::last_run)),
    gauge("last_unclean", "runs", "Runs in a row, up to the last, that ended without a clean stop.",
        Of::All(|f| number(f.report.last_run.as_ref().map_or(0, |last| last.unclean_runs)))),

    // The process, and its memory budget.
    gauge("build", "info", "Always 1; the version stands in the label version.",
        Of::Labelled(&["version"], |_| vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)])),
    gauge("process_start", "seconds", "When the process started, in seconds since 1970.",
        Of::All(|f| f.process.start_seconds)),
    gauge("process_clock", "seconds", "The wall clock of the host, in seconds since 1970.",
        Of::All(|_| Some(seconds(wall_ms())))),
    counter("process_cpu", "seconds", "Processor time of the process, commands of its processors not included.",
        Of::All(|f| f.process.cpu_seconds)),
    gauge("process_resident", "bytes", "Memory of the process (RSS), without its commands.",
        Of::All(|f| f.process.resident_bytes)),
    gauge("process_peak", "bytes", "The most memory that the process ever had (peak RSS): at most 96 MiB by default.",
        Of::All(|f| f.process.peak_bytes)),
    gauge("process", "threads", "Threads of the process.",
        Of::All(|f| f.process.threads)),
    gauge("process_open", "files", "File descriptors that are open.",
        Of::All(|f| f.process.open_files)),
    gauge("process_limit", "files", "File descriptors that may be open: RLIMIT_NOFILE.",
        Of::All(|f| f.process.limit_files)),
    gauge("memory_held", "bytes", "What is held now of each part of the memory budget that is bounded in bytes.",
        Of::Labelled(&["part"], |f| budget::held(f, Unit::Bytes))),
    gauge("memory_bound", "bytes", "Its bound.",
        Of::Labelled(&["part"], |f| budget::bound(f, Unit::Bytes))),
    gauge("memory_held", "entries", "What is held now of each part of the memory budget that is bounded in entries.",
        Of::Labelled(&["part"], |f| budget::held(f, Unit::Entries))),
    gauge("memory_bound", "entries", "Its bound.",
        Of::Labelled(&["part"], |f| budget::bound(f, Unit::Entries))),
];

/// The sources that have series of their own, those with most unread bytes first, and the others.
fn sources<'f>(facts: &'f Facts<'_>) -> (Vec<&'f SourceStatus>, Vec<&'f SourceStatus>) {
    let mut all: Vec<&SourceStatus> =
        facts.tail.map(|tail| tail.sources.iter().collect()).unwrap_or_default();
    all.sort_by_key(|source| (std::cmp::Reverse(source.size.saturating_sub(source.offset)), source.source));
    let others = all.split_off(all.len().min(SOURCES_MAX));
    (all, others)
}

/// The same of the groups.
fn groups<'f>(facts: &'f Facts<'_>) -> (Vec<&'f GroupStatus>, Vec<&'f GroupStatus>) {
    let mut all: Vec<&GroupStatus> = facts.status.groups.iter().collect();
    if all.len() > GROUPS_MAX {
        all.sort_by_key(|group| (std::cmp::Reverse(group.lag_lines), group.id));
    }
    let others = all.split_off(all.len().min(GROUPS_MAX));
    (all, others)
}

/// The series of one metric: labels and figures.
fn series(metric: &Metric, facts: &Facts<'_>) -> Vec<(Labels, f64)> {
    match metric.of {
        Of::All(figure) => figure(facts).map(|value| (Vec::new(), value)).into_iter().collect(),
        Of::Labelled(_, figures) => figures(facts),
        Of::Source(figure) => {
            let (own, others) = sources(facts);
            let labels = |source: &SourceStatus| {
                vec![("source", source.source.0.to_string()), ("path", escape_path(&source.path))]
            };
            let rest = vec![("source", OTHERS.to_owned()), ("path", String::new())];
            let sum = others.iter().map(|source| figure(source)).sum();
            let sum = (!others.is_empty()).then_some((rest, sum));
            own.iter().map(|source| (labels(source), figure(source))).chain(sum).collect()
        }
        Of::Group(figure) => {
            let (own, others) = groups(facts);
            let labels = |name: &str| vec![("group", name.to_owned())];
            let own = own.iter().filter_map(|group| Some((labels(&group.name), figure(facts, group)?)));
            // Counters of groups that come and go in the rest would fall.
            let sum = (!others.is_empty() && metric.kind == Kind::Gauge)
                .then(|| (labels(OTHERS), others.iter().filter_map(|group| figure(facts, group)).sum()));
            own.chain(sum).collect()
        }
    }
}

#[cfg(test)]
mod tests;
