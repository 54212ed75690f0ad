//! What `doctor --json` prints: verdicts on the groups, the log, files and the host.

use serde::{Deserialize, Serialize};

use super::wire::AnsweredBy;
use crate::supervise::{Ended, LastRun, Report, Verdict};

/// The answer to `doctor`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DoctorJson {
    /// Whether nothing is wrong.
    pub healthy: bool,
    /// `service` if a running one answered, `disk` if none runs.
    pub from: String,
    /// One verdict per group.
    pub groups: Vec<VerdictJson>,
    /// What else is wrong: with the log, files, or the host. Empty if nothing is.
    pub findings: Vec<VerdictJson>,
    /// What is worth knowing and does not make anything unhealthy.
    #[serde(default)]
    pub notes: Vec<String>,
    /// How the previous run of the process ended; if no service runs, the last one.
    pub last_run: Option<LastRunJson>,
}

/// A verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct VerdictJson {
    /// The group; empty in a finding about something else.
    pub group: String,
    pub state: String,
    /// `A` never called, `B` crashes, `C` hangs, `D` does not clear.
    pub hypothesis: Option<String>,
    /// What is wrong, in one word; null if nothing is.
    pub cause: Option<String>,
    pub summary: String,
    pub evidence: Vec<String>,
    /// The next command to paste, or the next step; empty if there is none.
    pub next: String,
    /// What to do instead, or afterwards; empty if there is only one way.
    #[serde(default)]
    pub or: String,
}

/// A run of the process that is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LastRunJson {
    pub run: u64,
    pub pid: u32,
    pub started: String,
    /// When it last wrote to EVENTS.
    pub seen: String,
    /// `cleanly`, `stuck`, `out_of_memory` or `killed`.
    pub ended: String,
    pub summary: String,
    /// What its groups were doing, the last failures, and the lines in flight.
    pub doing: Vec<String>,
}

impl From<&Verdict> for VerdictJson {
    fn from(verdict: &Verdict) -> VerdictJson {
        VerdictJson {
            group: verdict.group.clone(),
            state: verdict.state.word().to_owned(),
            hypothesis: verdict.hypothesis.map(str::to_owned),
            cause: verdict.cause.map(|cause| cause.word().to_owned()),
            summary: verdict.summary.clone(),
            evidence: verdict.evidence.clone(),
            next: verdict.next.clone(),
            or: verdict.or.clone(),
        }
    }
}

impl LastRunJson {
    /// Whether it was stopped cleanly.
    #[must_use]
    pub fn ended_cleanly(&self) -> bool {
        self.ended == Ended::Cleanly.word()
    }
}

impl From<&LastRun> for LastRunJson {
    fn from(last: &LastRun) -> LastRunJson {
        LastRunJson {
            run: last.run,
            pid: last.pid,
            started: super::wire::time(last.started_ms),
            seen: super::wire::time(last.seen_ms),
            ended: last.ended.word().to_owned(),
            summary: last.sentence(),
            doing: last.doing.clone(),
        }
    }
}

impl DoctorJson {
    /// The verdicts of `report`, made by a service or from disk.
    #[must_use]
    pub fn new(from: AnsweredBy, report: &Report) -> DoctorJson {
        let healthy = report.log.is_empty() && report.groups.iter().all(Verdict::is_healthy);
        DoctorJson {
            healthy,
            from: from.word().to_owned(),
            groups: report.groups.iter().map(Into::into).collect(),
            findings: report.log.iter().map(Into::into).collect(),
            notes: report.notes.clone(),
            last_run: report.last_run.as_ref().map(Into::into),
        }
    }

    /// Whether a running service made them.
    #[must_use]
    pub fn is_of_service(&self) -> bool {
        self.from == AnsweredBy::Service.word()
    }

    /// Adds more findings and notes.
    pub fn add(&mut self, findings: &[Verdict], notes: Vec<String>) {
        self.notes.extend(notes);
        self.healthy &= findings.is_empty();
        self.findings.extend(findings.iter().map(VerdictJson::from));
    }
}
