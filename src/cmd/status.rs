//! `spillq status`: what waits, and for whom, on one screen.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use indicatif::{HumanCount, HumanDuration};

use super::place::Place;
use super::{Exit, Failure, wrote};
use crate::cli::StatusArgs;
use crate::http::{AnsweredBy, GroupJson, StatusJson};
use crate::plain::{counted, plain, size, waiting};
use crate::queue::wall_ms;

/// Between two looks with `--watch`.
const WATCH: Duration = Duration::from_secs(2);
/// Ranges of dropped lines that are listed, the newest first; `--json` has all.
const DROPPED_SHOWN_MAX: usize = 8;
/// Sources that are listed for people; programs get all.
const SOURCES_SHOWN_MAX: usize = 10;

/// Prints it, once or until stopped.
///
/// # Errors
/// When there is no store, or its service does not answer; with `--running`, when none runs.
pub fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let place = Place::new(&args.store, args.url.as_deref())?;
    loop {
        let status = if args.running { running(&place)? } else { look(&place)? };
        let text = if args.json {
            serde_json::to_string(&status).map_err(|error| Failure::could_not_run(error.to_string()))? + "\n"
        } else {
            render(&status, &place)
        };
        let clear = if args.watch && !args.json { "\x1b[H\x1b[2J" } else { "" };
        let exit = wrote(write!(io::stdout(), "{clear}{text}").and_then(|()| io::stdout().flush()))?;
        if !args.watch {
            return Ok(exit);
        }
        std::thread::sleep(WATCH);
    }
}

/// Asks the service where one runs, otherwise reads the disk.
pub(super) fn look(place: &Place) -> Result<StatusJson, Failure> {
    match (place.service()?, place) {
        (Some(service), _) => Ok(service.get("/v1/status")?),
        (None, Place::DataDir(folder)) => Ok(StatusJson::on_disk(&super::store::view(folder)?, wall_ms())),
        (None, Place::Url(url)) => Err(Failure::could_not_run(format!("{url}: no service answers"))),
    }
}

/// Asks the service; where none answers, the answer is no.
fn running(place: &Place) -> Result<StatusJson, Failure> {
    let no = |why: String| Failure::new(Exit::No, format!("{place}: {why}"));
    let service = place.service()?.ok_or_else(|| no("no service runs on it".to_owned()))?;
    service.get("/v1/status").map_err(|error| no(error.to_string()))
}

fn render(status: &StatusJson, place: &Place) -> String {
    let mut out = String::new();
    let log = &status.log;
    // Writing to a string does not fail.
    let _ = match AnsweredBy::of_word(&status.from) {
        Some(AnsweredBy::Service) => writeln!(out, "{place}: a service runs on it (pid {})", status.pid),
        _ => writeln!(out, "{place}: no service runs on it; this is what the disk says"),
    };
    let lines = log.next_seq.saturating_sub(1);
    let _ = writeln!(
        out,
        "log      {} so far, {}, {} on disk",
        counted(lines, "line"),
        counted(log.segments, "segment"),
        size(log.disk_bytes)
    );
    if let Some(full) = &log.full {
        let _ = writeln!(out, "         ingestion paused: {}", plain(full));
    }
    for group in &status.groups {
        out.push_str(&render_group(group));
    }
    let _ = writeln!(out, "sources  {}", HumanCount(status.sources.len() as u64));
    let left_out = &status.left_out;
    if left_out.files > 0 {
        let (files, limit) = (HumanCount(left_out.files), HumanCount(left_out.limit));
        let verb = if left_out.files == 1 { "matches and is" } else { "match and are" };
        let _ = writeln!(out, "         {files} more {verb} not followed: the limit is {limit} files");
    }
    if left_out.files > 0 && left_out.resting > 0 {
        let kept = counted(left_out.resting, "place");
        let verb = if left_out.resting == 1 { "is" } else { "are" };
        let _ = writeln!(out, "         {kept} {verb} kept for files that no [[follow]] matches now");
    }
    if status.unreadable > 0 {
        let files = counted(status.unreadable, "file");
        let _ = writeln!(out, "         {files} cannot be read: `spillq doctor` has the reason");
    }
    for source in status.sources.iter().rev().take(SOURCES_SHOWN_MAX) {
        let whole = source.size.map(|bytes| format!(" of {}", size(bytes))).unwrap_or_default();
        let error = source.error.as_ref().map(|error| format!(": {}", plain(error))).unwrap_or_default();
        let _ = writeln!(
            out,
            "         {} {}{whole} {}{error}",
            plain(&source.path),
            size(source.offset),
            source.state
        );
    }
    let losses = &status.losses;
    if losses.lost_lines > 0 || losses.destroyed_unread_bytes > 0 || losses.rolled_back > 0 {
        let _ = writeln!(
            out,
            "losses   {} damaged, {} destroyed before they were read, {} rolled back",
            counted(losses.lost_lines, "line"),
            size(losses.destroyed_unread_bytes),
            counted(losses.rolled_back, "source")
        );
    }
    if losses.lost_sight > 0 {
        let files = counted(losses.lost_sight, "file");
        let _ =
            writeln!(out, "unknown  {files} vanished while not open: they may not have been read to the end");
    }
    let quarantine = status.quarantine;
    if quarantine.files > 0 {
        let (files, bytes) = (counted(quarantine.files, "damaged file"), size(quarantine.bytes));
        let _ = writeln!(out, "aside    {files} ({bytes}) moved to quarantine/ by repair");
    }
    if losses.dropped_lines > 0 {
        let _ = writeln!(out, "dropped  {} by limits", counted(losses.dropped_lines, "line"));
    }
    for dropped in losses.dropped.iter().rev().take(DROPPED_SHOWN_MAX) {
        let _ = writeln!(out, "         {}", plain(dropped));
    }
    if let Some(config) = &status.config {
        let file = config.file.as_deref().unwrap_or_default();
        if let Some(first) = config.refused.first() {
            let more = config.refused.len() - 1;
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let _ = writeln!(out, "config   {file} is refused and does not run: {first}{more}");
        }
        for what in &config.needs_restart {
            let _ = writeln!(out, "config   {file} says {what}: that needs a restart");
        }
    }
    for finding in &status.findings {
        let _ = writeln!(out, "finding  {}", plain(finding));
    }
    out
}

fn render_group(group: &GroupJson) -> String {
    let age = group
        .lag_seconds
        .map(|seconds| format!(", the oldest {} old", HumanDuration(Duration::from_secs_f64(seconds))));
    let mut out = format!(
        "group    {}: {}, {} ({}{}), {} leased, {}\n",
        plain(&group.group),
        plain(&group.state),
        waiting(group.lag_lines),
        size(group.lag_bytes),
        age.filter(|_| group.lag_lines > 0).unwrap_or_default(),
        HumanCount(group.leased),
        counted(group.dead_letters, "dead letter")
    );
    if let Some(reason) = &group.reason {
        let _ = writeln!(out, "         {}", plain(reason));
    }
    if let Some(failure) = group.last_failure.as_ref().and_then(|failure| failure.lines().next()) {
        let _ = writeln!(out, "         last failure: {}", plain(failure));
    }
    out
}
