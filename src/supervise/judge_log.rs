//! The log and what surrounds it: each finding with a cause of its own. Pure.

use super::inputs::{JudgeSettings, LogInputs};
use super::judge::Verdict;
use super::typed::quoted;

/// Runs in a row without a clean stop: the first may be an accident, the second what followed from it.
const UNCLEAN_RUNS: u64 = 3;

/// What is wrong with the log and its surroundings; empty when nothing is.
#[must_use]
pub fn judge_log(log: &LogInputs, settings: &JudgeSettings) -> Vec<Verdict> {
    let typed = &settings.typed;
    let mut found = Vec::new();
    let mut tell = |state, cause, summary: String, evidence: Vec<String>, next: String| {
        found.push(Verdict { state, cause: Some(cause), summary, evidence, next, ..Verdict::default() });
    };
    if let Some(full) = &log.full {
        let by_others = log.disk_bytes < log.limit_bytes
            && log
                .free_bytes
                .is_some_and(|free| free < log.min_free_bytes.saturating_add(log.min_free_bytes / 8));
        let free = log.free_bytes.map_or_else(|| "an unknown number of".to_owned(), |free| free.to_string());
        let evidence = vec![format!(
            "the log has {} of {} bytes; the file system has {free} bytes free, min_free is {}",
            log.disk_bytes, log.limit_bytes, log.min_free_bytes
        )];
        if by_others {
            let summary = format!("taking in pauses, and it is not the log that fills the disk: {full}");
            tell(
                "blocked",
                "disk_filled_by_others",
                summary,
                evidence,
                format!(
                    "df -h {}    # lines are taken in again by themselves when there is room",
                    typed.data_dir()
                ),
            );
        } else {
            tell(
                "blocked",
                "disk_full",
                format!("taking in pauses: {full}"),
                evidence,
                typed.spillq("status", "   # which group lags? or raise disk.limit"),
            );
        }
    }
    if log.full.is_some() && !log.unread_gone.is_empty() {
        let summary = format!(
            "{} files with unread bytes were renamed or deleted while taking in pauses: they are lost if their last name goes before they are read",
            log.unread_gone.len()
        );
        tell(
            "blocked",
            "rotation_risk",
            summary,
            log.unread_gone.clone(),
            "stop the rotation of these files, and make room".to_owned(),
        );
    }
    if let Some(busy) = log.tail_busy_ms.filter(|busy| *busy >= settings.stall_after_ms) {
        let summary =
            format!("nothing is read from files: one turn of the tail lasts for {:.1} s", busy as f64 / 1e3);
        let evidence = vec!["the owner of the log gets on; groups get what is stored".to_owned()];
        let next = "timeout 5 df -h    # does a file system of the followed files hang? the tail goes on by itself when it is back";
        tell("blocked", "tail_hung", summary, evidence, next.to_owned());
    }
    if !log.unreadable.is_empty() {
        let summary = format!("{} files cannot be read", log.unreadable.len());
        tell(
            "blocked",
            "source_unreadable",
            summary,
            log.unreadable.clone(),
            "make them readable for the user of the service; it tries again by itself".to_owned(),
        );
    }
    if let Some(refused) = &log.config_refused {
        tell(
            "running",
            "config_refused",
            format!(
                "{} is refused: what was read before runs on, and the next start would fail",
                refused.file
            ),
            refused.problems.clone(),
            format!("spillq config check {}", quoted(&refused.file)),
        );
    }
    for (group, seq, deliveries) in &log.killers {
        // How often it died is not counted; deliveries of a line alone are.
        let summary = format!(
            "line {seq} of group {group} was out alone when the service died: it may be what kills it"
        );
        let evidence = vec![format!("line {seq} has been delivered alone {deliveries} times")];
        let park = typed.spillq("dead-letter park", &format!("{seq} --group {group}"));
        let next = typed.spillq("inspect", &format!("--from {seq} --limit 1    # then: {park}"));
        tell("blocked", "killer_line", summary, evidence, next);
    }
    if log.unclean_runs >= UNCLEAN_RUNS {
        let summary = format!("the last {} runs ended without a clean stop", log.unclean_runs);
        tell(
            "blocked",
            "crash_loop",
            summary,
            Vec::new(),
            "journalctl -k | grep -i oom    # and look at the memory limit of the service".to_owned(),
        );
    }
    found
}

/// What is no illness yet: a limit that the file system has no room for.
#[must_use]
pub fn notes_on(log: &LogInputs) -> Vec<String> {
    let Some(free) = log.free_bytes else { return Vec::new() };
    let room = log.disk_bytes.saturating_add(free.saturating_sub(log.min_free_bytes));
    if room >= log.limit_bytes {
        return Vec::new();
    }
    let shown = |bytes| bytesize::ByteSize(bytes).display().iec();
    vec![format!(
        "disk.limit is {}, and the file system has room for a log of {}: taking in will pause before the limit",
        shown(log.limit_bytes),
        shown(room)
    )]
}
