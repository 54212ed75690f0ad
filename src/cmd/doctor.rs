//! `spillq doctor`: what each group is doing and why, the evidence, and the next command to type.

mod host;
mod runbook;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use spillq_storage::View;

use host::Host;

use super::place::Place;
use super::volatile::volatile;
use super::{Exit, Failure, wrote};
use crate::cli::DoctorArgs;
use crate::http::{AnsweredBy, DoctorJson, StatusJson, VerdictJson, file_system_bytes, free_bytes};
use crate::plain::plain;
use crate::service::{killers, out_at_the_end};
use crate::supervise::{
    Cause, Ended, Events, JudgeSettings, LastRun, LogInputs, Pauses, Report, State, Typed, Verdict,
    judge_log, last_run, notes_on, quoted,
};
use crate::tail::SourceRecord;

/// Asks the service where one runs, otherwise looks at the store and at what the last run left behind.
///
/// # Errors
/// When there is no store, its service does not answer, or the configuration is wrong.
pub fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    if let Some(word) = &args.explain {
        let cause = Cause::ALL.iter().copied().find(|cause| cause.word() == word);
        let cause = cause.ok_or_else(|| Failure::could_not_run(format!("{word}: there is no such cause")))?;
        return wrote(writeln!(io::stdout(), "{cause}\n\n{}", runbook::section(cause)));
    }
    let mut data_dir = super::data_dir(args.data_dir.data_dir.as_deref());
    let mut disk = None;
    if let Some(file) = &args.config {
        let loaded = super::settings(Some(file), crate::config::Overrides::default())?;
        disk = Some((loaded.settings.disk.limit, loaded.settings.disk.min_free));
        if args.data_dir.data_dir.is_none() {
            data_dir = loaded.settings.data_dir;
        }
    }
    let place = match &args.url {
        Some(url) => Place::Url(url.clone()),
        None => Place::DataDir(data_dir),
    };
    let (mut found, sources): (DoctorJson, Vec<PathBuf>) = match (place.service()?, &place) {
        (Some(service), _) => {
            let status: StatusJson = service.get("/v1/status")?;
            (
                service.get("/v1/doctor")?,
                status.sources.into_iter().map(|source| source.path.into()).collect(),
            )
        }
        (None, Place::DataDir(folder)) => {
            let view: View = super::store::view(folder)?;
            let report = on_disk(folder, &view, args.config.as_deref(), disk)?;
            let records = view.state().sources.values();
            let records = records.filter_map(|source| SourceRecord::decode(&source.checkpoint).ok());
            (
                DoctorJson::new(AnsweredBy::Disk, &report),
                records.map(|record| record.path().to_owned()).collect(),
            )
        }
        (None, Place::Url(url)) => return Err(Failure::could_not_run(format!("{url}: no service answers"))),
    };
    // Of another host only its own service can tell.
    if let Place::DataDir(folder) = &place {
        let (wrong, mut notes) = Host::look(folder, &sources, found.is_of_service()).judge();
        notes.extend(volatile(folder));
        found.add(&wrong, notes);
    }
    let text = if args.json {
        serde_json::to_string(&found).map_err(|error| Failure::could_not_run(error.to_string()))? + "\n"
    } else {
        render(&found, &place)
    };
    let exit = wrote(io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()))?;
    Ok(if found.healthy { exit } else { Exit::No })
}

/// Verdicts on a store that no service has open: what the last run was doing, and what waits for the next. Lines
/// that wait are no illness then; how the last run ended may be one.
fn on_disk(
    data_dir: &Path,
    view: &View,
    config: Option<&Path>,
    disk: Option<(u64, u64)>,
) -> Result<Report, Failure> {
    let entries = Events::look(data_dir).map_err(super::store::failure)?;
    let state = view.state();
    let settings = JudgeSettings { stall_after_ms: u64::MAX, typed: Typed::about(data_dir) };
    let typed = &settings.typed;
    let start = Start::new(typed, config);
    let groups = state.groups.values().map(|group| {
        let waits = group.lag_lines(state.next_seq);
        let (state, held) =
            if group.paused { (State::Paused, ", and an operator paused it") } else { (State::Idle, "") };
        let (summary, next) = match waits {
            0 => (format!("stopped; nothing waits for group {}{held}", group.name), String::new()),
            _ => (
                format!("stopped; {waits} lines wait for group {}{held}", group.name),
                start.or_drain(&group.name),
            ),
        };
        Verdict { group: group.name.clone(), state, summary, next, ..Verdict::default() }
    });
    let out = out_at_the_end(state);
    let last = last_run(&entries).map(|mut last| {
        last.doing.extend(out.iter().map(|(_, said)| said.clone()));
        last
    });
    let died = last.as_ref().filter(|last| last.ended != Ended::Cleanly);
    let mut inputs = LogInputs {
        unclean_runs: last.as_ref().map_or(0, |last| last.unclean_runs),
        killers: died.map_or_else(Vec::new, |_| killers(state)),
        disk_bytes: view.disk_bytes(),
        ..LogInputs::default()
    };
    // Without its configuration nobody knows the limits that it had.
    if let Some((limit_bytes, min_free_bytes)) = disk {
        let free_bytes = free_bytes(data_dir);
        inputs.full = if inputs.disk_bytes >= limit_bytes {
            Some(Pauses::AtLimit)
        } else {
            let short = free_bytes.filter(|free| *free < min_free_bytes);
            short.map(|_| Pauses::BelowMinFree)
        };
        let file_system_bytes = file_system_bytes(data_dir);
        inputs = LogInputs { limit_bytes, min_free_bytes, free_bytes, file_system_bytes, ..inputs };
    }
    let mut log = judge_log(&inputs, &settings);
    if let Some(last) = died {
        log.push(end_of(last, &start));
        log.extend(vanished(last, &out, &start));
    }
    for finding in view.findings() {
        log.push(Verdict {
            state: State::Blocked,
            cause: Some(Cause::Damage),
            summary: finding.clone(),
            next: typed.spillq("repair", "--dry-run"),
            ..Verdict::default()
        });
    }
    let notes = notes_on(&inputs);
    Ok(Report::of(groups.collect(), log, notes, last))
}

/// How to start the service again, as far as is known.
struct Start<'t> {
    typed: &'t Typed,
    config: Option<String>,
}

impl<'t> Start<'t> {
    fn new(typed: &'t Typed, config: Option<&Path>) -> Start<'t> {
        let shown = |file: &Path| {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
            format!("--config {}", quoted(&file.to_string_lossy()))
        };
        Start { typed, config: config.map(shown) }
    }

    fn run(&self) -> String {
        match &self.config {
            Some(config) => self.typed.spillq("run", config),
            None => {
                self.typed.spillq("run", "   # with the --config, or the files and the command, that it had")
            }
        }
    }

    fn or_drain(&self, group: &str) -> String {
        let config = self.config.as_ref().map(|config| format!("{config} ")).unwrap_or_default();
        let command = if config.is_empty() { " -- COMMAND" } else { "" };
        let drain = self.typed.spillq("drain", &format!("{config}--group {group}{command}"));
        let mark = if config.is_empty() { "; or: " } else { "    # or: " };
        format!("{}{mark}{drain}", self.run())
    }
}

/// One finding for each group whose lines were out when the process ended.
fn vanished(last: &LastRun, out: &[(String, String)], start: &Start<'_>) -> Vec<Verdict> {
    let mut found: Vec<Verdict> = Vec::new();
    for (group, said) in out {
        if let Some(same) = found.iter_mut().find(|one| one.group == *group) {
            same.evidence.push(said.clone());
            continue;
        }
        let summary = format!(
            "whoever worked for group {group} vanished with lines that were out when the last run (pid {}) ended; \
             nobody has acked them, and they come again, in halves, with the next start",
            last.pid
        );
        found.push(Verdict {
            group: group.clone(),
            state: State::Blocked,
            cause: Some(Cause::ConsumerVanished),
            summary,
            evidence: vec![said.clone()],
            next: start.or_drain(group),
            ..Verdict::default()
        });
    }
    found
}

fn end_of(last: &LastRun, start: &Start<'_>) -> Verdict {
    let (cause, next) = match &last.ended {
        Ended::OutOfMemory => (
            Cause::OutOfMemory,
            "journalctl -k | grep -i oom    # raise the memory limit, or find who else takes it".to_owned(),
        ),
        Ended::Stuck(_) => {
            (Cause::Stuck, "journalctl -k | grep -iE 'i/o error|hung task'    # is the disk well?".to_owned())
        }
        _ => (Cause::Killed, start.run()),
    };
    let (summary, evidence) = (last.sentence(), last.doing.clone());
    Verdict { state: State::Blocked, cause: Some(cause), summary, evidence, next, ..Verdict::default() }
}

fn render(found: &DoctorJson, place: &Place) -> String {
    let from = if found.is_of_service() { "a service runs on it" } else { "no service runs on it" };
    let word = if found.healthy { "well" } else { "something is wrong" };
    let mut out = format!("{place}: {from}; {word}\n");
    for verdict in found.findings.iter().chain(&found.groups) {
        render_verdict(&mut out, verdict);
    }
    if let Some(last) = found.last_run.as_ref().filter(|last| found.is_of_service() && !last.ended_cleanly())
    {
        let _ = writeln!(out, "before that, {}", plain(&last.summary));
        for doing in &last.doing {
            let _ = writeln!(out, "    {}", plain(doing));
        }
    }
    for note in &found.notes {
        let _ = writeln!(out, "note: {}", plain(note));
    }
    out
}

fn render_verdict(out: &mut String, verdict: &VerdictJson) {
    let cause = verdict.cause.as_ref().map(|cause| format!(" ({})", plain(cause))).unwrap_or_default();
    let name =
        if verdict.group.is_empty() { "log".to_owned() } else { format!("group {}", plain(&verdict.group)) };
    // Writing to a string does not fail.
    let _ = writeln!(out, "{name}: {}{cause}\n    {}", plain(&verdict.state), plain(&verdict.summary));
    for line in &verdict.evidence {
        let _ = writeln!(out, "    - {}", plain(line));
    }
    if !verdict.next.is_empty() {
        let _ = writeln!(out, "    next: {}", plain(&verdict.next));
    }
    if let Some(cause) = &verdict.cause {
        let _ = writeln!(out, "    more: spillq doctor --explain {cause}");
    }
}
