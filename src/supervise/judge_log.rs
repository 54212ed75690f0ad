//! The verdicts on the log and its surroundings. Pure.

use super::cause::Cause;
use super::commands::{Commands, quoted};
use super::inputs::{AtRisk, JudgeSettings, LeftOut, LogInputs, Pauses, WhyUnreadable};
use super::state::State;
use super::verdict::{Step, Verdict};
use super::wording::times;
use crate::plain::{counted, duration, size};
use crate::queue::WhyFull;

/// This many runs in a row without a clean stop are reported: one accident may cause two.
const UNCLEAN_RUNS: u64 = 3;

/// Files that a verdict names at most.
const FILES_NAMED_MAX: usize = 20;
/// Files that are not followed and are named at most, as examples.
const LEFT_OUT_NAMED_MAX: usize = 3;

/// What is wrong with the log and its surroundings; empty when nothing is.
#[must_use]
pub fn judge_log(log: &LogInputs, settings: &JudgeSettings) -> Vec<Verdict> {
    let commands = &settings.commands;
    let mut found = Vec::new();
    if let Some(folder) = &log.read_only {
        let summary = format!(
            "the file system of {folder} is mounted read-only: nothing can be appended, acknowledged or deleted"
        );
        let look =
            "dmesg | grep -iE 'i/o error|remounting'    # a disk error remounts a file system read-only";
        let step = Step::from(look.to_owned())
            .or(format!("when it is writable again, start the service: {}", commands.start()));
        found.push(Verdict::on_log(State::Blocked, Cause::DiskReadOnly, summary, Vec::new(), step));
    }
    if let Some(full) = &log.full {
        found.push(why_full(log, full, commands));
        if !log.outside.at_risk.is_empty() {
            let (summary, evidence) = at_risk(&log.outside.at_risk);
            let step = "stop the rotation of these files until ingestion resumes".to_owned();
            found.push(Verdict::on_log(State::Blocked, Cause::RotationRisk, summary, evidence, step));
        }
    }
    if let Some(busy) = log.outside.tail_busy_ms.filter(|busy| *busy >= settings.stall_after_ms) {
        let summary = format!(
            "ingestion hangs: one read of a followed file or folder has lasted for {}",
            duration(busy)
        );
        let evidence = vec!["the log itself works, and delivery continues".to_owned()];
        let look = "timeout 5 df -h    # a network file system that does not answer blocks here; ingestion resumes by itself";
        found.push(Verdict::on_log(State::Blocked, Cause::TailHung, summary, evidence, look.to_owned()));
    }
    found.extend(unreadable(log, commands));
    if log.outside.left_out.files > 0 {
        found.push(too_many(&log.outside.left_out, commands));
    }
    if let Some(refused) = &log.config_refused {
        let summary = format!(
            "{} is not valid: the service continues with the previous configuration, and the next start would fail",
            refused.file
        );
        let (cause, check) = (Cause::ConfigRefused, commands.check(&refused.file));
        found.push(Verdict::on_log(State::Running, cause, summary, refused.problems.clone(), check));
    }
    for (group, seq, deaths) in &log.killers {
        let summary = format!(
            "line {seq} of group {group} may be what kills the service: it was in flight in a single-line batch when the service died"
        );
        let evidence = vec![format!(
            "the service died {} while line {seq} was the only one in flight",
            times(u64::from(*deaths))
        )];
        let look = commands.inspect(*seq);
        let park = commands.park(*seq, group);
        let step = Step::from(look).or(park);
        found.push(Verdict::on_log(State::Blocked, Cause::KillerLine, summary, evidence, step));
    }
    if log.unclean_runs >= UNCLEAN_RUNS {
        let summary = format!("the last {} runs ended without a clean stop", log.unclean_runs);
        let evidence =
            vec!["`doctor` on the stopped store reports what each run was doing when it ended".to_owned()];
        let look = "journalctl -k | grep -i oom    # and check the memory limit of the service".to_owned();
        found.push(Verdict::on_log(State::Blocked, Cause::CrashLoop, summary, evidence, look));
    }
    found
}

/// Files that match and cannot be read, with the next step for the first of them.
fn unreadable(log: &LogInputs, commands: &Commands) -> Option<Verdict> {
    let (first, _, why) = log.outside.unreadable.first()?;
    let files = log.outside.unreadable_files.max(log.outside.unreadable.len() as u64);
    let summary = format!("{} cannot be read", counted(files, "file"));
    let named = log.outside.unreadable.iter().map(|(_, found, _)| found.clone());
    let evidence = named.chain(and_more(files, log.outside.unreadable.len())).collect();
    let step = make_readable(&quoted(&first.to_string_lossy()), *why, commands);
    Some(Verdict::on_log(State::Blocked, Cause::SourceUnreadable, summary, evidence, step))
}

/// How to make a file readable, or exclude it.
fn make_readable(path: &str, why: WhyUnreadable, commands: &Commands) -> Step {
    let change = |what: &str| Step::from(commands.change(what));
    let exclude = |what: &str| format!("add {what} to `exclude` of [[follow]], if it is not to be read");
    match why {
        WhyUnreadable::Link => {
            change("set `symlinks = FOLDER`, a folder that holds the target of the link, under [[follow]]")
                .or(exclude("the link"))
        }
        WhyUnreadable::NotAFile => change("name regular files in `include` of [[follow]]").or(exclude(path)),
        WhyUnreadable::TooDeep => {
            change("add a glob that names more of the folders to `include` of [[follow]]")
        }
        WhyUnreadable::TooMany => change("narrow `include` of [[follow]]"),
        WhyUnreadable::Content => Step::from(format!(
            "replace {path} by a complete copy, or decompress its intact part into a followed file; it is checked again when it changes"
        ))
        .or(exclude("it")),
        WhyUnreadable::System => Step::from(format!(
            "ls -ld {path}    # make it readable for the user of the service; reading is retried by itself"
        )),
    }
}

/// How many files are not named.
fn and_more(files: u64, named: usize) -> Option<String> {
    let more = files.checked_sub(named as u64).filter(|more| *more > 0)?;
    Some(format!("and {} more", counted(more, "file")))
}

/// More files match than can be followed.
fn too_many(left_out: &LeftOut, commands: &Commands) -> Verdict {
    let LeftOut { files, named, limit } = left_out;
    let verb = if *files == 1 { "matches and is" } else { "match and are" };
    let summary = format!(
        "{} {verb} not followed: at most {} are followed at once",
        counted(*files, "file"),
        counted(*limit, "file")
    );
    let shown = named.iter().take(LEFT_OUT_NAMED_MAX).map(|path| format!("not followed: {}", path.display()));
    let more = and_more(*files, named.len().min(LEFT_OUT_NAMED_MAX));
    let narrow = commands.change("narrow `include`, or add to `exclude`, of [[follow]]");
    let step = Step::from(narrow).or("delete files that are finished".to_owned());
    let evidence = shown.chain(more).collect();
    Verdict::on_log(State::Blocked, Cause::TooManyFiles, summary, evidence, step)
}

/// Why ingestion pauses.
fn why_full(log: &LogInputs, full: &Pauses, commands: &Commands) -> Verdict {
    if let Pauses::Now(WhyFull::MaxLag { group, .. }) = full {
        let held = log.held.iter().find(|(name, _)| name == group).map(|(_, held)| held.seq);
        let raise = commands.change(&format!("raise `max_lag` of group {group}"));
        let (why, step) = match held {
            Some(seq) => {
                let look = commands.inspect(seq);
                (format!(", and is blocked by line {seq}"), Step::from(look).or(raise))
            }
            None => (String::new(), Step::from(see_to_group(full, group, commands)).or(raise)),
        };
        let summary = format!("ingestion pauses until a group has caught up: {full}{why}");
        return Verdict::on_log(State::Blocked, Cause::MaxLag, summary, space(log), step);
    }
    let short = log.outside.free_bytes.is_some_and(|free| {
        // Some space may have been freed since the owner checked.
        free < log.disk.min_free_bytes.saturating_add(log.disk.min_free_bytes / 8)
    });
    let by_others =
        log.disk_bytes < log.disk.limit_bytes && short && others(log).is_none_or(|o| o > log.disk_bytes);
    if by_others {
        let next = format!("df -h {}    # free space; ingestion resumes by itself", commands.data_dir());
        let summary = format!("ingestion pauses, because other files fill the disk of the log: {full}");
        return Verdict::on_log(State::Blocked, Cause::DiskFilledByOthers, summary, space(log), next);
    }
    let raise = commands.change("raise `disk.limit`, if the file system has free space");
    let (who, step) = match &log.lags_most {
        Some((group, lines, bytes)) => (
            format!("; group {group} lags most, by {} (about {})", counted(*lines, "line"), size(*bytes)),
            Step::from(see_to_group(full, group, commands)).or(raise),
        ),
        None => (String::new(), Step::from(raise)),
    };
    let summary = format!("ingestion pauses, because the log has reached its limit: {full}{who}");
    Verdict::on_log(State::Blocked, Cause::DiskFull, summary, space(log), step)
}

/// How to let a group catch up: its own verdict has the cause; on a stopped store it is drained.
fn see_to_group(full: &Pauses, group: &str, commands: &Commands) -> String {
    if !matches!(full, Pauses::Now(_)) {
        return commands.drain(group).unwrap_or_else(|| commands.start());
    }
    format!(
        "see the verdict on group {group}, and fix what it names; ingestion resumes by itself when the group has caught up"
    )
}

/// Bytes of other files on the file system.
fn others(log: &LogInputs) -> Option<u64> {
    Some(
        log.outside.file_system_bytes?.saturating_sub(log.outside.free_bytes?).saturating_sub(log.disk_bytes),
    )
}

/// How the disk is used.
fn space(log: &LogInputs) -> Vec<String> {
    let unknown = || "an unknown number of bytes".to_owned();
    let mut evidence = vec![format!(
        "the log takes {} of disk.limit {}; the file system has {} free, disk.min_free is {}",
        size(log.disk_bytes),
        size(log.disk.limit_bytes),
        log.outside.free_bytes.map_or_else(unknown, size),
        size(log.disk.min_free_bytes)
    )];
    evidence
        .extend(others(log).map(|others| format!("other files take {} of the file system", size(others))));
    evidence
}

/// Files that left their path unread: the summary, and one line for each file.
fn at_risk(files: &[AtRisk]) -> (String, Vec<String>) {
    let held = files.iter().filter(|file| file.held_open).count();
    let were = if files.len() == 1 { "was" } else { "were" };
    let summary = format!(
        "{} {were} renamed or deleted with {} unread while ingestion pauses: {held} held open, which the service can read to the end while it runs; {} not held open, lost if deleted",
        counted(files.len() as u64, "file"),
        size(files.iter().map(|file| file.bytes).sum::<u64>()),
        files.len() - held
    );
    let line = |file: &AtRisk| {
        let held = if file.held_open { "held open" } else { "not held open" };
        format!("{}: {} unread, {held}", file.path.display(), size(file.bytes))
    };
    let mut evidence: Vec<String> = files.iter().take(FILES_NAMED_MAX).map(line).collect();
    if let Some(more) = files.len().checked_sub(FILES_NAMED_MAX).filter(|more| *more > 0) {
        evidence.push(format!("and {more} more"));
    }
    (summary, evidence)
}

/// What is not a problem yet: a limit that exceeds the file system, and globs that match nothing.
#[must_use]
pub fn notes_on(log: &LogInputs) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    if let Some(free) = log.outside.free_bytes {
        let space = log.disk_bytes.saturating_add(free.saturating_sub(log.disk.min_free_bytes));
        if space < log.disk.limit_bytes {
            notes.push(format!(
                "disk.limit is {}, but the file system has space for a log of {} only: ingestion will pause before the limit",
                size(log.disk.limit_bytes),
                size(space)
            ));
        }
    }
    if log.outside.follows_nothing {
        notes.push("no followed file exists yet: `include` of [[follow]] matches nothing".to_owned());
    }
    notes
}
