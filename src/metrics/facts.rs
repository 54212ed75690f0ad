//! What metrics are made from: the status of every part.

use std::collections::{BTreeMap, BTreeSet};

use super::process::Process;
use crate::queue::Status;
use crate::supervise::Report;
use crate::tail::Snapshot;

/// The status of every part at a point in time.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The log and its groups.
    pub status: &'a Status,
    /// The tail, if one runs.
    pub tail: Option<&'a Snapshot>,
    /// For how long it has been busy with one turn.
    pub tail_busy_ms: Option<u64>,
    /// Age of the oldest line that waits, by group, in seconds.
    pub ages: &'a BTreeMap<String, f64>,
    /// The verdicts.
    pub report: &'a Report,
    /// `disk.limit`.
    pub limit_bytes: u64,
    /// `disk.min_free`.
    pub min_free_bytes: u64,
    /// Free bytes of the file system.
    pub free_bytes: Option<u64>,
    /// The process.
    pub process: &'a Process,
}

impl Facts<'_> {
    /// The causes that doctor reports, each with its group.
    #[must_use]
    pub fn causes(&self) -> BTreeSet<(&'static str, &str)> {
        let all = self.report.log.iter().chain(&self.report.groups);
        // A cause that two verdicts share, such as `killer_line`, is one series.
        all.filter_map(|verdict| Some((verdict.cause?.word(), verdict.group.as_str()))).collect()
    }
}
