//! What `doctor` prints for people: a block for each problem (what is wrong, the evidence, what to do), then a line for
//! each healthy group.

use std::io::{self, Write};

use crate::cmd::output::Output;
use crate::cmd::place::Place;
use crate::http::{DoctorJson, VerdictJson};
use crate::plain::counted;

/// The whole report.
pub(super) fn print(out: &mut Output<impl Write>, found: &DoctorJson, place: &Place) -> io::Result<()> {
    let wrong = found.findings.iter().chain(&found.groups).filter(|verdict| verdict.cause.is_some());
    let wrong: Vec<&VerdictJson> = wrong.collect();
    let health = match wrong.len() {
        0 => "healthy".to_owned(),
        problems => counted(problems as u64, "problem"),
    };
    let runs = if found.is_of_service() { "a service runs on it" } else { "no service runs on it" };
    out.line(format!("{place}: {health}; {runs}"))?;
    for verdict in &wrong {
        out.line("")?;
        problem(out, verdict)?;
    }
    if !wrong.is_empty() {
        out.line("")?;
    }
    for group in found.groups.iter().filter(|group| group.cause.is_none()) {
        out.line(format!("group {}: {}, {}", group.group, group.state, group.summary))?;
        steps(out, group)?;
    }
    if let Some(last) = found.last_run.as_ref().filter(|last| found.is_of_service() && !last.ended_cleanly())
    {
        out.line(format!("before that, {}", last.summary))?;
        for doing in &last.doing {
            out.line(format!("  {doing}"))?;
        }
    }
    for note in &found.notes {
        out.line(format!("note: {note}"))?;
    }
    Ok(())
}

fn problem(out: &mut Output<impl Write>, verdict: &VerdictJson) -> io::Result<()> {
    let cause = verdict.cause.as_deref().unwrap_or_default();
    out.line(format!("{} ({cause})", verdict.summary))?;
    for evidence in &verdict.evidence {
        out.line(format!("  - {evidence}"))?;
    }
    steps(out, verdict)?;
    out.line(format!("  more: spillq doctor --explain {cause}"))
}

fn steps(out: &mut Output<impl Write>, verdict: &VerdictJson) -> io::Result<()> {
    for (word, step) in [("do", &verdict.next), ("or", &verdict.or)] {
        if !step.is_empty() {
            out.line(format!("  {word}: {step}"))?;
        }
    }
    Ok(())
}
