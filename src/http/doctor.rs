//! What `doctor --json` prints: verdicts on the groups and on what surrounds them.

use serde::{Deserialize, Serialize};

use super::wire::AnsweredBy;
use crate::supervise::{Ended, LastRun, Report, Verdict};

/// The answer to `doctor`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DoctorJson {
    /// Whether nothing is wrong.
    pub healthy: bool,
    /// `service` where a running one answered, `disk` where none runs.
    pub from: String,
    /// One verdict a group.
    pub groups: Vec<VerdictJson>,
    /// What is wrong beside the groups: log, files, host. Empty when nothing is.
    pub findings: Vec<VerdictJson>,
    /// What is worth knowing, and makes nobody ill.
    #[serde(default)]
    pub notes: Vec<String>,
    /// How the run before ended; where no service runs, the last one.
    pub last_run: Option<LastRunJson>,
}

/// A verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct VerdictJson {
    /// The group; empty in a finding that is about none.
    pub group: String,
    pub state: String,
    /// `A` never called, `B` crashes, `C` hangs, `D` does not clear.
    pub hypothesis: Option<String>,
    /// What is wrong, one word; null when nothing is.
    pub cause: Option<String>,
    pub summary: String,
    pub evidence: Vec<String>,
    /// The next command to paste, or the next step; empty where there is none.
    pub next: String,
    /// What to do instead, or afterwards; empty if there is only one way.
    #[serde(default)]
    pub or: String,
}

/// A run that is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LastRunJson {
    pub run: u64,
    pub pid: u32,
    pub started: String,
    /// When it last noted something.
    pub seen: String,
    /// `cleanly`, `stuck`, `out_of_memory` or `killed`.
    pub ended: String,
    pub summary: String,
    /// What its groups were doing, the last failures, and the lines that were out.
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
    /// Whether it ended with a clean stop.
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
    /// Verdicts `from` a service or a disk.
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
        AnsweredBy::of_word(&self.from) == Some(AnsweredBy::Service)
    }

    /// Adds what else was found wrong, and what is worth knowing.
    pub fn add(&mut self, findings: &[Verdict], notes: Vec<String>) {
        self.notes.extend(notes);
        self.healthy &= findings.is_empty();
        self.findings.extend(findings.iter().map(VerdictJson::from));
    }
}
