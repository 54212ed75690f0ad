//! `spillq doctor`: what is wrong, the evidence, and the next command to type.

mod host;
mod render;
mod runbook;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use spillq_storage::View;

use host::Host;
use render::print;

use super::output::{self, wrote};
use super::place::Place;
use super::store::{Store, own_lines};
use super::volatile::volatile;
use super::{Exit, Failure};
use crate::cli::DoctorArgs;
use crate::config::{Overrides, Settings};
use crate::http::{AnsweredBy, DoctorJson, file_system_bytes, free_bytes, is_read_only};
use crate::service::{command_missing, disk_settings, in_flight_at_the_end, killers};
use crate::supervise::{
    Cause, Commands, Ended, Events, JudgeSettings, LogInputs, Pauses, Report, State, StoppedGroup, Verdict,
    judge_end, judge_log, judge_stopped, last_run, notes_on, quoted,
};

/// Asks the service. If none runs, looks at the store and at what the last run recorded.
///
/// # Errors
/// When the store does not exist, its service does not answer, or the configuration is wrong.
pub fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    if let Some(word) = &args.explain {
        let cause = Cause::ALL.iter().copied().find(|cause| cause.word() == word);
        let cause = cause.ok_or_else(|| Failure::could_not_run(format!("{word}: not a cause")))?;
        return wrote(writeln!(io::stdout(), "{cause}\n\n{}", runbook::section(cause)));
    }
    let config = match &args.config {
        Some(file) => Some((file.as_path(), super::settings(Some(file), Overrides::default())?.settings)),
        None => None,
    };
    let place = match &args.url {
        Some(url) => Place::Url(url.clone()),
        None => {
            Place::DataDir(super::data_dir(&args.data_dir, config.as_ref().map(|(_, settings)| settings)))
        }
    };
    let store = place.store()?;
    let sources: Vec<PathBuf> =
        store.status()?.sources.into_iter().map(|source| source.path.into()).collect();
    let mut found: DoctorJson = match &store {
        Store::Service(service) => service.get("/v1/doctor")?,
        Store::Disk(folder, view, _) => {
            let report = on_disk(folder, view, config.as_ref().map(|(file, settings)| (*file, settings)))?;
            DoctorJson::new(AnsweredBy::Disk, &report)
        }
    };
    // Another host is known to its service only.
    if let Place::DataDir(folder) = &place {
        let (wrong, mut notes) = Host::look(folder, &sources, found.is_of_service()).judge();
        notes.extend(volatile(folder));
        found.add(&wrong, notes);
    }
    let exit = output::print(|out| if args.json { out.json(&found) } else { print(out, &found, &place) })?;
    Ok(if found.healthy { exit } else { Exit::No })
}

/// Verdicts on a store that no service has open: what the last run was doing, and which lines wait.
fn on_disk(data_dir: &Path, view: &View, config: Option<(&Path, &Settings)>) -> Result<Report, Failure> {
    let entries = Events::look(data_dir).map_err(super::store::failure)?;
    let state = view.state();
    let in_flight = in_flight_at_the_end(state);
    let last = last_run(&entries).map(|mut last| {
        last.doing.extend(in_flight.iter().map(|(_, said)| said.clone()));
        last
    });
    let mut started = last.as_ref().map(|last| last.started.clone()).unwrap_or_default();
    if let Some((file, settings)) = config {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        started = super::in_service(started, settings);
        started.config = quoted(&file.to_string_lossy());
    }
    let commands = Commands::about(data_dir, started).stopped();
    let settings = JudgeSettings { stall_after_ms: u64::MAX, commands };
    let died = last.as_ref().filter(|last| last.ended != Ended::Cleanly);
    let own = config.map(|(_, settings)| own_lines(view, settings)).unwrap_or_default();
    let groups = state.groups().iter().map(|(id, group)| {
        let counted = own.get(group.name()).copied().flatten();
        let of_group = |(name, said): &(String, String)| (name == group.name()).then(|| said.clone());
        let stopped = StoppedGroup {
            group: group.name().to_owned(),
            lag_lines: counted.map_or_else(|| group.lag_lines(state.next_seq()), |(lines, _)| lines),
            dead_letters: view.dead_count(*id) as u64,
            is_paused: group.is_paused(),
            program_missing: config
                .and_then(|(_, settings)| settings.processor(group.name()))
                .and_then(|processor| command_missing(&processor.kind)),
            in_flight: in_flight.iter().filter_map(of_group).collect(),
        };
        judge_stopped(&stopped, died, &settings)
    });
    let is_read_only = is_read_only(data_dir);
    let mut inputs = LogInputs {
        unclean_runs: last.as_ref().map_or(0, |last| last.unclean_runs),
        killers: died.map_or_else(Vec::new, |_| killers(state)),
        read_only: is_read_only.then(|| settings.commands.data_dir().to_owned()),
        disk_bytes: view.disk_bytes(),
        ..LogInputs::default()
    };
    // The limits are in the configuration only.
    if let Some((_, settings)) = config {
        inputs.disk = disk_settings(&settings.disk);
        inputs.outside.free_bytes = free_bytes(data_dir);
        inputs.outside.file_system_bytes = file_system_bytes(data_dir);
        inputs.full = if inputs.disk_bytes >= inputs.disk.limit_bytes {
            Some(Pauses::AtLimit)
        } else {
            let short = inputs.outside.free_bytes.filter(|free| *free < inputs.disk.min_free_bytes);
            short.map(|_| Pauses::BelowMinFree)
        };
    }
    let mut log = judge_log(&inputs, &settings);
    // A disk that became read-only ends a run, which then cannot record that.
    log.extend(died.filter(|_| !is_read_only).and_then(|last| judge_end(last, &settings)));
    for finding in view.findings() {
        log.push(Verdict {
            state: State::Blocked,
            cause: Some(Cause::Damage),
            summary: finding.clone(),
            next: settings.commands.spillq("repair", "--dry-run"),
            ..Verdict::default()
        });
    }
    let (groups, notes) = (groups.collect(), notes_on(&inputs));
    Ok(Report::of(groups, log, notes, last))
}
