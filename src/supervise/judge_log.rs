//! The log and what surrounds it: each finding with a cause of its own. Pure.

use super::cause::Cause;
use super::inputs::{AtRisk, JudgeSettings, LogInputs, Pauses};
use super::state::State;
use super::typed::{Typed, quoted};
use super::verdict::Verdict;
use crate::queue::WhyFull;

/// Runs in a row without a clean stop: the first may be an accident, the second what followed from it.
const UNCLEAN_RUNS: u64 = 3;

/// Files that a finding names at most.
const FILES_NAMED_MAX: usize = 20;

/// What is wrong with the log and its surroundings; empty when nothing is.
#[must_use]
pub fn judge_log(log: &LogInputs, settings: &JudgeSettings) -> Vec<Verdict> {
    let typed = &settings.typed;
    let mut found = Vec::new();
    let mut tell = |state, cause, summary: String, evidence: Vec<String>, next: String| {
        found.push(Verdict { state, cause: Some(cause), summary, evidence, next, ..Verdict::default() });
    };
    if let Some(full) = &log.full {
        let (cause, summary, next) = why_full(log, full, typed);
        tell(State::Blocked, cause, summary, room(log), next);
    }
    if log.full.is_some() && !log.at_risk.is_empty() {
        let (summary, evidence) = at_risk(&log.at_risk);
        let remark = "   # stop the rotation of these files, and make room";
        tell(State::Blocked, Cause::RotationRisk, summary, evidence, typed.spillq("status", remark));
    }
    if let Some(busy) = log.tail_busy_ms.filter(|busy| *busy >= settings.stall_after_ms) {
        let summary =
            format!("nothing is read from files: one turn of the tail lasts for {:.1} s", busy as f64 / 1e3);
        let evidence = vec!["the owner of the log gets on; groups get what is stored".to_owned()];
        let next = "timeout 5 df -h    # does a file system of the followed files hang? the tail goes on by itself when it is back";
        tell(State::Blocked, Cause::TailHung, summary, evidence, next.to_owned());
    }
    if let Some((first, _)) = log.unreadable.first() {
        let summary = format!("{} files cannot be read", log.unreadable.len());
        let evidence = log.unreadable.iter().map(|(path, why)| format!("{}: {why}", path.display()));
        let next = format!(
            "ls -ld {}    # make it readable for the user of the service; it tries again by itself",
            quoted(&first.to_string_lossy())
        );
        tell(State::Blocked, Cause::SourceUnreadable, summary, evidence.collect(), next);
    }
    if let Some(refused) = &log.config_refused {
        tell(
            State::Running,
            Cause::ConfigRefused,
            format!(
                "{} is refused: what was read before runs on, and the next start would fail",
                refused.file
            ),
            refused.problems.clone(),
            format!("spillq config check {}", quoted(&refused.file)),
        );
    }
    for (group, seq, deaths) in &log.killers {
        let summary = format!(
            "line {seq} of group {group} was in flight alone when the service died: it may be what kills it"
        );
        let evidence = vec![format!("the service died {deaths} times while line {seq} was in flight alone")];
        let park = typed.spillq("dead-letter park", &format!("{seq} --group {group}"));
        let next = typed.spillq("inspect", &format!("--from {seq} --limit 1    # then: {park}"));
        tell(State::Blocked, Cause::KillerLine, summary, evidence, next);
    }
    if log.unclean_runs >= UNCLEAN_RUNS {
        let summary = format!("the last {} runs ended without a clean stop", log.unclean_runs);
        tell(
            State::Blocked,
            Cause::CrashLoop,
            summary,
            vec!["what each run was doing when it ended is told by doctor on the stopped store".to_owned()],
            "journalctl -k | grep -i oom    # and look at the memory limit of the service".to_owned(),
        );
    }
    found
}

/// Why taking in pauses: the cause, the sentence, and what to do.
fn why_full(log: &LogInputs, full: &Pauses, typed: &Typed) -> (Cause, String, String) {
    if let Pauses::Now(WhyFull::MaxLag { group, .. }) = full {
        let held = log.held.iter().find(|(name, _)| name == group).map(|(_, held)| held.seq);
        let (why, next) = match held {
            Some(seq) => {
                let look = typed.spillq("inspect", &format!("--from {seq} --limit 1"));
                (format!("; it is held by line {seq}"), format!("{look}    # what holds group {group}"))
            }
            None => (String::new(), typed.spillq("status", "   # see to that group; or raise its max_lag")),
        };
        return (Cause::MaxLag, format!("taking in waits for a group: {full}{why}"), next);
    }
    let short = log.free_bytes.is_some_and(|free| {
        // Between a look of the owner and ours a little may have come back.
        free < log.min_free_bytes.saturating_add(log.min_free_bytes / 8)
    });
    let by_others =
        log.disk_bytes < log.limit_bytes && short && others(log).is_none_or(|o| o > log.disk_bytes);
    if by_others {
        let next = format!(
            "df -h {}    # lines are taken in again by themselves when there is room",
            typed.data_dir()
        );
        let summary = format!("taking in pauses, and it is not the log that fills the disk: {full}");
        (Cause::DiskFilledByOthers, summary, next)
    } else {
        let next = typed.spillq("status", "   # which group lags? or raise disk.limit, or make room");
        (Cause::DiskFull, format!("taking in pauses, the log takes all the room that it may: {full}"), next)
    }
}

/// Bytes on the file system that are not the log's.
fn others(log: &LogInputs) -> Option<u64> {
    Some(log.file_system_bytes?.saturating_sub(log.free_bytes?).saturating_sub(log.disk_bytes))
}

fn shown(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// Who takes how much of the disk.
fn room(log: &LogInputs) -> Vec<String> {
    let unknown = || "an unknown number of bytes".to_owned();
    let mut evidence = vec![format!(
        "the log has {} of {}; the file system has {} free, min_free is {}",
        shown(log.disk_bytes),
        shown(log.limit_bytes),
        log.free_bytes.map_or_else(unknown, shown),
        shown(log.min_free_bytes)
    )];
    evidence.extend(others(log).map(|others| format!("others take {} of the file system", shown(others))));
    evidence
}

/// Files that left their path unread: the sentence, and one line a file.
fn at_risk(files: &[AtRisk]) -> (String, Vec<String>) {
    let held = files.iter().filter(|file| file.held_open).count();
    let summary = format!(
        "{} files with {} unread bytes were rotated away or deleted while taking in pauses: {held} are held open and can be read to their end as long as the service runs, {} are lost if they are deleted before",
        files.len(),
        files.iter().map(|file| file.bytes).sum::<u64>(),
        files.len() - held
    );
    let line = |file: &AtRisk| {
        let held = if file.held_open { "held open" } else { "not held open" };
        format!("{}: {} bytes unread, {held}", file.path.display(), file.bytes)
    };
    let mut evidence: Vec<String> = files.iter().take(FILES_NAMED_MAX).map(line).collect();
    if let Some(more) = files.len().checked_sub(FILES_NAMED_MAX).filter(|more| *more > 0) {
        evidence.push(format!("and {more} more"));
    }
    (summary, evidence)
}

/// What is no illness yet: a limit that the file system has no room for.
#[must_use]
pub fn notes_on(log: &LogInputs) -> Vec<String> {
    let Some(free) = log.free_bytes else { return Vec::new() };
    let room = log.disk_bytes.saturating_add(free.saturating_sub(log.min_free_bytes));
    if room >= log.limit_bytes {
        return Vec::new();
    }
    vec![format!(
        "disk.limit is {}, and the file system has room for a log of {}: taking in will pause before the limit",
        shown(log.limit_bytes),
        shown(room)
    )]
}
