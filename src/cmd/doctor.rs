//! `spillq doctor`: what each group is doing and why, the evidence, and the next command to type.

mod host;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use spillq_storage::View;

use super::{Exit, Failure, wrote};
use crate::cli::DoctorArgs;
use crate::http::{Client, DoctorJson, VerdictJson};
use crate::queue::wall_ms;
use crate::service::{killers, out_at_the_end};
use crate::supervise::{Ended, Events, LogInputs, Report, Verdict, judge_log, last_run};

/// Asks the service where one runs, otherwise looks at the store and at what the last run left behind.
///
/// # Errors
/// When there is no store, its service does not answer, or the configuration is wrong.
pub fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let mut data_dir = super::data_dir(args.data_dir.data_dir.as_deref());
    if let Some(file) = &args.config {
        let loaded = super::settings(Some(file), crate::config::Overrides::default())?;
        if args.data_dir.data_dir.is_none() {
            data_dir = loaded.settings.data_dir;
        }
    }
    let mut found: DoctorJson = match Client::connect(&data_dir) {
        Some(service) => service.get("/v1/doctor")?,
        None => DoctorJson::new("disk", &on_disk(&data_dir)?),
    };
    let (wrong, notes) = host::check(&data_dir, wall_ms());
    found.add(wrong);
    let text = if args.json {
        serde_json::to_string(&found).map_err(|error| Failure::could_not_run(error.to_string()))? + "\n"
    } else {
        render(&found, &notes, &data_dir)
    };
    let exit = wrote(io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()))?;
    Ok(if found.healthy { exit } else { Exit::No })
}

/// Verdicts on a store that no service has open: what the last run was doing, and what waits for the next.
fn on_disk(data_dir: &Path) -> Result<Report, Failure> {
    let view: View = super::store::view(data_dir)?;
    let entries = Events::look(data_dir).map_err(|error| {
        Failure::could_not_run(format!("cannot read {}/EVENTS", data_dir.display())).because(error)
    })?;
    let state = view.state();
    let shown = data_dir.display();
    let start = "start the service again: spillq run, with the arguments that it had".to_owned();
    let groups = state.groups.values().map(|group| {
        let waits = group.lag_lines(state.next_seq);
        let at = if group.paused { "paused" } else { "idle" };
        if waits == 0 {
            let summary = format!("nothing waits for group {}", group.name);
            return Verdict { group: group.name.clone(), state: at, summary, ..Verdict::default() };
        }
        Verdict {
            group: group.name.clone(),
            state: if group.paused { "paused" } else { "never_called" },
            hypothesis: Some("A"),
            cause: Some("never_called"),
            summary: format!(
                "{waits} lines wait for group {}, and no service runs on this store",
                group.name
            ),
            evidence: vec![format!("ack floor {}, next line {}", group.acks.floor(), state.next_seq)],
            next: format!("{start}; or: spillq drain --data-dir {shown} --group {} -- COMMAND", group.name),
        }
    });
    let last = last_run(&entries).map(|mut last| {
        last.doing.extend(out_at_the_end(state));
        last
    });
    let mut log = judge_log(&LogInputs {
        unclean_runs: last.as_ref().map_or(0, |last| last.unclean_runs),
        killers: killers(state),
        ..LogInputs::default()
    });
    if let Some(last) = last.as_ref().filter(|last| last.ended != Ended::Cleanly) {
        let (cause, next) = match &last.ended {
            Ended::OutOfMemory => (
                "out_of_memory",
                "raise the memory limit, or find who else takes it: journalctl -k | grep -i oom".to_owned(),
            ),
            Ended::Stuck(_) => {
                ("stuck", "look at the disk: journalctl -k | grep -iE 'i/o error|hung task'".to_owned())
            }
            _ => ("killed", start.clone()),
        };
        let (summary, evidence) = (last.sentence(), last.doing.clone());
        log.push(Verdict {
            state: "blocked",
            cause: Some(cause),
            summary,
            evidence,
            next,
            ..Verdict::default()
        });
    }
    for finding in view.findings() {
        let next = format!("spillq verify --data-dir {shown}");
        log.push(Verdict {
            state: "blocked",
            cause: Some("damage"),
            summary: finding.clone(),
            next,
            ..Verdict::default()
        });
    }
    Ok(Report::of(groups.collect(), log, last))
}

fn render(found: &DoctorJson, notes: &[String], data_dir: &Path) -> String {
    let from = if found.from == "service" { "a service runs on it" } else { "no service runs on it" };
    let word = if found.healthy { "well" } else { "something is wrong" };
    let mut out = format!("{}: {from}; {word}\n", data_dir.display());
    for verdict in found.findings.iter().chain(&found.groups) {
        render_verdict(&mut out, verdict);
    }
    if let Some(last) =
        found.last_run.as_ref().filter(|last| found.from == "service" && last.ended != "cleanly")
    {
        let _ = writeln!(out, "before that, {}", last.summary);
        for doing in &last.doing {
            let _ = writeln!(out, "    {doing}");
        }
    }
    for note in notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn render_verdict(out: &mut String, verdict: &VerdictJson) {
    let cause = verdict.cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default();
    let name = if verdict.group.is_empty() { "log".to_owned() } else { format!("group {}", verdict.group) };
    // Writing to a string does not fail.
    let _ = writeln!(out, "{name}: {}{cause}\n    {}", verdict.state, verdict.summary);
    for line in &verdict.evidence {
        let _ = writeln!(out, "    - {line}");
    }
    if !verdict.next.is_empty() {
        let _ = writeln!(out, "    next: {}", verdict.next);
    }
}
