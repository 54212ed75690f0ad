//! `spillq status`: how many lines are stored and wait, and the followed files, on one screen.

use std::io::{self, Write};
use std::time::Duration;

use super::consumers::consumers;
use super::output::{self, Output};
use super::place::Place;
use super::{Exit, Failure};
use crate::cli::StatusArgs;
use crate::http::{AnsweredBy, GroupJson, StatusJson};
use crate::plain::{counted, number, rough_duration, size, waiting};

/// Time between two reports with `--watch`.
const WATCH: Duration = Duration::from_secs(2);
/// Ranges of dropped lines that are printed, the newest first. `--json` has all.
const DROPPED_SHOWN_MAX: usize = 8;
/// Sources that are printed. `--json` has all.
const SOURCES_SHOWN_MAX: usize = 10;

/// Prints it, once or until stopped.
///
/// # Errors
/// When the store does not exist, or its service does not answer; with `--running`, when none runs.
pub fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let place = Place::new(&args.store, args.url.as_deref())?;
    let settings = super::store_settings(&args.store)?;
    loop {
        let status = match args.running {
            true => running(&place)?,
            false => place.store()?.status_with(settings.as_ref())?,
        };
        let exit = output::print(|out| match args.json {
            true => out.json(&status),
            false if args.watch => out.clear_screen().and_then(|()| print(out, &status, &place)),
            false => print(out, &status, &place),
        })?;
        if !args.watch {
            return Ok(exit);
        }
        std::thread::sleep(WATCH);
    }
}

/// Asks the service. If none answers, the exit status is 1.
fn running(place: &Place) -> Result<StatusJson, Failure> {
    let no = |why: String| Failure::new(Exit::No, format!("{place}: {why}"));
    let service = place.service()?.ok_or_else(|| no("no service runs on it".to_owned()))?;
    service.get("/v1/status").map_err(|error| no(error.to_string()))
}

fn print(out: &mut Output<impl Write>, status: &StatusJson, place: &Place) -> io::Result<()> {
    let log = &status.log;
    out.line(match status.from == AnsweredBy::Service.word() {
        true => format!("{place}: a service runs on it (pid {})", status.pid),
        false => format!("{place}: no service runs on it; read from disk"),
    })?;
    let lines = log.next_seq.saturating_sub(1);
    out.line(format!(
        "log      {} so far, {}, {} on disk",
        counted(lines, "line"),
        counted(log.segments, "segment"),
        size(log.disk_bytes)
    ))?;
    if let Some(full) = &log.full {
        out.line(format!("         ingestion paused: {}", full))?;
    }
    for group in &status.groups {
        print_group(out, group)?;
    }
    out.line(format!("sources  {}", number(status.sources.len() as u64)))?;
    let left_out = &status.left_out;
    if left_out.files > 0 {
        let (files, limit) = (number(left_out.files), number(left_out.limit));
        let verb = if left_out.files == 1 { "matches and is" } else { "match and are" };
        out.line(format!("         {files} more {verb} not followed: the limit is {limit} files"))?;
    }
    if left_out.files > 0 && left_out.resting > 0 {
        let kept = counted(left_out.resting, "place");
        let verb = if left_out.resting == 1 { "is" } else { "are" };
        out.line(format!(
            "         {kept} {verb} kept for files that no [[follow]] section matches any more"
        ))?;
    }
    if status.unreadable > 0 {
        let files = counted(status.unreadable, "file");
        out.line(format!("         {files} cannot be read: `spillq doctor` has the reason"))?;
    }
    for source in status.sources.iter().rev().take(SOURCES_SHOWN_MAX) {
        let whole = source.size.map(|bytes| format!(" of {}", size(bytes))).unwrap_or_default();
        let error = source.error.as_ref().map(|error| format!(": {}", error)).unwrap_or_default();
        out.line(format!("         {} {}{whole} {}{error}", source.path, size(source.offset), source.state))?;
    }
    let losses = &status.losses;
    if losses.lost_lines > 0 || losses.destroyed_unread_bytes > 0 || losses.rolled_back > 0 {
        out.line(format!(
            "losses   {} damaged, {} destroyed before they were read, {} rolled back",
            counted(losses.lost_lines, "line"),
            size(losses.destroyed_unread_bytes),
            counted(losses.rolled_back, "source")
        ))?;
    }
    if losses.lost_sight > 0 {
        let files = counted(losses.lost_sight, "file");
        out.line(format!("unknown  {files} vanished before they were open: the end may not have been read"))?;
    }
    let quarantine = status.quarantine;
    if quarantine.files > 0 {
        let (files, bytes) = (counted(quarantine.files, "damaged file"), size(quarantine.bytes));
        out.line(format!("damaged  {files} ({bytes}) in quarantine/, moved there by repair"))?;
    }
    if losses.dropped_lines > 0 {
        out.line(format!("dropped  {} by limits", counted(losses.dropped_lines, "line")))?;
    }
    for dropped in losses.dropped.iter().rev().take(DROPPED_SHOWN_MAX) {
        out.line(format!("         {}", dropped))?;
    }
    if let Some(config) = &status.config {
        let file = config.file.as_deref().unwrap_or_default();
        if let Some(first) = config.refused.first() {
            let more = config.refused.len() - 1;
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            out.line(format!(
                "config   {file} is refused, and the previous settings stay in force: {first}{more}"
            ))?;
        }
        for what in &config.needs_restart {
            out.line(format!("config   {file}: {what} needs a restart"))?;
        }
    }
    for finding in &status.findings {
        out.line(format!("finding  {}", finding))?;
    }
    Ok(())
}

fn print_group(out: &mut Output<impl Write>, group: &GroupJson) -> io::Result<()> {
    let age = group.lag_seconds.map(|seconds| format!(", the oldest {} old", rough_duration(seconds)));
    out.line(format!(
        "group    {}: {}, {}{} ({}{}), {} leased, {}",
        group.group,
        group.state,
        if group.counting { "counting, at most " } else { "" },
        waiting(group.lag_lines),
        size(group.lag_bytes),
        age.filter(|_| group.lag_lines > 0).unwrap_or_default(),
        number(group.leased),
        counted(group.dead_letters, "dead letter")
    ))?;
    if let Some(reason) = &group.reason {
        out.line(format!("         {}", reason))?;
    }
    if let Some(failure) = group.last_failure.as_ref().and_then(|failure| failure.lines().next()) {
        out.line(format!("         last failure: {}", failure))?;
    }
    consumers(group).into_iter().try_for_each(|line| out.line(format!("         {line}")))
}
