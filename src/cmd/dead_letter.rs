//! `spillq dead-letter`: the lines that a group could not process.

mod origin;

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use spillq_storage::Seq;

use super::output::{Output, say};
use super::store::Store;
use super::{Exit, Failure, store, store_dir};
use crate::cli::{
    DeadLetterArgs, DeadLetterChoiceArgs, DeadLetterCommand, DeadLetterGroupArgs, DeadLetterLinesArgs,
};
use crate::http::{AdminJson, AnswerJson, DeadLetterJson, LineJson};
use crate::plain::{counted, escape_path};

/// The path that means standard output.
const STDOUT: &str = "-";

/// Lists, shows, exports, retries, discards or parks.
///
/// # Errors
/// When the group or the line does not exist, or the store cannot be opened.
pub fn run(args: &DeadLetterArgs) -> Result<Exit, Failure> {
    match &args.command {
        DeadLetterCommand::List { group, json } => list(group, *json),
        DeadLetterCommand::Export { group, to } => {
            export(group, to.as_deref().filter(|path| *path != Path::new(STDOUT)))
        }
        DeadLetterCommand::Show { lines, json } => show(lines, *json),
        DeadLetterCommand::Retry(lines) => {
            let answer = ask(lines, |group, seqs| AdminJson::Retry { group, seqs })?;
            say(format!("{} put back for delivery", counted(answer.lines, "dead letter")))
        }
        DeadLetterCommand::Discard { lines, discard_lines } => {
            let discard_lines = *discard_lines;
            let answer = ask(lines, |group, seqs| AdminJson::Discard { group, seqs, discard_lines })?;
            say(format!("{} discarded for good", counted(answer.lines, "dead letter")))
        }
        DeadLetterCommand::Park(lines) => park(lines),
    }
}

/// A running service parks a limited number of lines per request, and serves others in between.
fn park(lines: &DeadLetterLinesArgs) -> Result<Exit, Failure> {
    let wanted = seqs(&lines.choice).unwrap_or_else(|| vec![(1, u64::MAX)]);
    let (data_dir, name) = chosen(&lines.group)?;
    let mut parked = 0;
    let ended = loop {
        match store::administer(&data_dir, AdminJson::Park { group: name.clone(), seqs: wanted.clone() }) {
            Ok(answer) => {
                parked += answer.lines;
                if !answer.more {
                    break Ok(());
                }
            }
            Err(refused) => break Err(refused),
        }
    };
    if parked == 0 {
        return ended.map(|()| Exit::Fine);
    }
    let moved = counted(parked, "line");
    // Reported even if a later request was refused.
    let done = say(format!(
        "{moved} moved to the dead letters of group {name}; `spillq dead-letter retry` puts them back"
    ))?;
    ended.map(|()| done)
}

/// A dead letter with its group, for programs.
#[derive(serde::Serialize)]
struct Listed<'l> {
    group: &'l str,
    #[serde(flatten)]
    letter: &'l DeadLetterJson,
}

fn list(group: &DeadLetterGroupArgs, json: bool) -> Result<Exit, Failure> {
    let mut out = Output::stdout();
    let from = Store::of(&store_dir(&group.store)?)?;
    let groups = from.listed(group.group.as_deref())?;
    for group in &groups {
        let name = if groups.len() > 1 { format!("{group} ") } else { String::new() };
        let written = from.each(group, |letter| {
            Ok(if json {
                out.json(&Listed { group, letter })
            } else {
                out.line(format!("{name}{}", summary(letter)))
            })
        })?;
        if written.is_err() {
            return out.end(written);
        }
    }
    out.end(Ok(()))
}

fn ask(
    lines: &DeadLetterLinesArgs,
    request: impl FnOnce(String, Option<Vec<(u64, u64)>>) -> AdminJson,
) -> Result<AnswerJson, Failure> {
    let (data_dir, name) = chosen(&lines.group)?;
    store::administer(&data_dir, request(name, seqs(&lines.choice)))
}

/// The store and the group. A named group is not looked up: the request reports if it does not exist.
fn chosen(group: &DeadLetterGroupArgs) -> Result<(PathBuf, String), Failure> {
    let data_dir = store_dir(&group.store)?;
    let name = match &group.group {
        Some(name) => name.clone(),
        None => Store::of(&data_dir)?.chosen(None)?,
    };
    Ok((data_dir, name))
}

fn seqs(choice: &DeadLetterChoiceArgs) -> Option<Vec<(u64, u64)>> {
    (!choice.all).then(|| choice.seqs.iter().map(|range| (range.first.0, range.last.0)).collect())
}

fn summary(letter: &DeadLetterJson) -> String {
    let DeadLetterJson { seq, cause, attempts, time, .. } = letter;
    let reason = letter.reason.lines().next().unwrap_or_default();
    format!("{seq} {cause}, {}, {time}: {reason}", counted(u64::from(*attempts), "attempt"))
}

/// The line, and the evidence of the last attempt: the end of standard error, or of a reply.
fn print_whole(
    out: &mut Output<impl Write>,
    letter: &DeadLetterJson,
    line: Option<&LineJson>,
) -> io::Result<()> {
    out.line(summary(letter))?;
    match line.map(|line| (&line.text, &line.base64)) {
        Some((Some(text), _)) => out.line(format!("  line: {text}"))?,
        Some((None, Some(base64))) => out.line(format!("  line (base64): {base64}"))?,
        _ => out.line("  (the line is not in the log)")?,
    }
    let mut evidence = letter.reason.lines().skip(1);
    evidence.try_for_each(|text| out.line(format!("  | {}", text.replace('\t', "    "))))
}

fn show(lines: &DeadLetterLinesArgs, json: bool) -> Result<Exit, Failure> {
    let DeadLetterLinesArgs { group, choice } = lines;
    let wanted = |seq: u64| choice.all || choice.seqs.iter().any(|range| range.contains(Seq(seq)));
    let from = Store::with_labels(&group.store)?;
    let group = from.chosen(group.group.as_deref())?;
    let (mut out, mut shown) = (Output::stdout(), 0_u64);
    let written = from.each(&group, |letter| {
        if !wanted(letter.seq) {
            return Ok(Ok(()));
        }
        shown += 1;
        let line = from.line(letter.seq).map_err(Failure::store)?;
        Ok(if json {
            out.json(
                &serde_json::json!({ "group": group, "line": line, "cause": letter.cause, "attempts": letter.attempts, "time": letter.time, "reason": letter.reason }),
            )
        } else {
            print_whole(&mut out, letter, line.as_ref())
        })
    })?;
    if shown == 0 && written.is_ok() {
        let what = if choice.all { "no dead letters" } else { "no such dead letter" };
        return Err(Failure::could_not_run(format!("group {group} has {what}"))
            .hint("`spillq dead-letter list` prints those that exist"));
    }
    out.end(written)
}

/// Writes all dead letters as JSON lines and removes none. If a line cannot be read, its object has an error, and the exit
/// status is 1.
fn export(group: &DeadLetterGroupArgs, to: Option<&Path>) -> Result<Exit, Failure> {
    let from = Store::with_labels(&group.store)?;
    let group = from.chosen(group.group.as_deref())?;
    let Some(path) = to else {
        let mut out = Output::stdout();
        let (written, _, unread) = export_to(&mut out, &from, &group)?;
        let exit = out.end(written)?;
        return Ok(if unread > 0 { Exit::No } else { exit });
    };
    let cannot =
        |error: io::Error| Failure::could_not_run(format!("cannot write {}", path.display())).because(error);
    // A new file that only its owner can read: log lines may contain secrets.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    let mut out = Output::new(BufWriter::new(file));
    let (written, letters, unread) = export_to(&mut out, &from, &group)?;
    let file = written.and_then(|()| out.into_inner().into_inner().map_err(io::IntoInnerError::into_error));
    file.and_then(|file| file.sync_all()).map_err(cannot)?;
    let letters = counted(letters, "dead letter");
    say(format!(
        "{letters} of group {group} written to {}; none was removed from the log",
        escape_path(path)
    ))?;
    Ok(if unread > 0 { Exit::No } else { Exit::Fine })
}

/// Returns how many were written, and for how many of them the line could not be read.
fn export_to(
    out: &mut Output<impl Write>,
    from: &Store,
    group: &str,
) -> Result<(io::Result<()>, u64, u64), Failure> {
    let (mut letters, mut unread) = (0, 0);
    let written = from.each(group, |letter| {
        letters += 1;
        let line = from.line(letter.seq);
        let mut json = serde_json::json!({ "seq": letter.seq });
        match &line {
            Ok(Some(line)) => json = serde_json::json!(line),
            Ok(None) => json["error"] = "the line is not in the log".into(),
            Err(error) => json["error"] = error.as_str().into(),
        }
        unread += u64::from(!matches!(line, Ok(Some(_))));
        json["cause"] = letter.cause.as_str().into();
        json["attempts"] = letter.attempts.into();
        json["dead_since"] = letter.time.as_str().into();
        json["reason"] = letter.reason.as_str().into();
        Ok(out.json(&json))
    })?;
    Ok((written, letters, unread))
}
