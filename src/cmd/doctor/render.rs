//! What `doctor` prints for people: a block for each problem (what is wrong, the evidence, what to do), then a line for
//! each healthy group.

use std::fmt::Write as _;

use crate::cmd::place::Place;
use crate::http::{DoctorJson, VerdictJson};
use crate::plain::{counted, plain};

/// The whole report.
pub(super) fn render(found: &DoctorJson, place: &Place) -> String {
    let wrong = found.findings.iter().chain(&found.groups).filter(|verdict| verdict.cause.is_some());
    let wrong: Vec<&VerdictJson> = wrong.collect();
    let health = match wrong.len() {
        0 => "healthy".to_owned(),
        problems => counted(problems as u64, "problem"),
    };
    let runs = if found.is_of_service() { "a service runs on it" } else { "no service runs on it" };
    let mut out = format!("{place}: {health}; {runs}\n");
    for verdict in &wrong {
        out.push('\n');
        problem(&mut out, verdict);
    }
    if !wrong.is_empty() {
        out.push('\n');
    }
    for group in found.groups.iter().filter(|group| group.cause.is_none()) {
        line(&mut out, &format!("group {}: {}, {}", group.group, group.state, group.summary));
        steps(&mut out, group);
    }
    if let Some(last) = found.last_run.as_ref().filter(|last| found.is_of_service() && !last.ended_cleanly())
    {
        line(&mut out, &format!("before that, {}", last.summary));
        for doing in &last.doing {
            line(&mut out, &format!("  {doing}"));
        }
    }
    for note in &found.notes {
        line(&mut out, &format!("note: {note}"));
    }
    out
}

fn problem(out: &mut String, verdict: &VerdictJson) {
    let cause = verdict.cause.as_deref().unwrap_or_default();
    line(out, &format!("{} ({cause})", verdict.summary));
    for evidence in &verdict.evidence {
        line(out, &format!("  - {evidence}"));
    }
    steps(out, verdict);
    line(out, &format!("  more: spillq doctor --explain {cause}"));
}

fn steps(out: &mut String, verdict: &VerdictJson) {
    for (word, step) in [("do", &verdict.next), ("or", &verdict.or)] {
        if !step.is_empty() {
            line(out, &format!("  {word}: {step}"));
        }
    }
}

/// File names and what commands printed are in it.
fn line(out: &mut String, text: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{}", plain(text));
}
