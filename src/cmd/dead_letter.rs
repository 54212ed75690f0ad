//! `spillq dead-letter`: lines that were set aside because they failed alone.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use spillq_storage::{Seq, View};

use super::{Exit, Failure, data_dir, store, wrote};
use crate::cli::{DeadLetterArgs, DeadLetterChoiceArgs, DeadLetterCommand, DeadLetterGroupArgs};
use crate::http::{AdminJson, AnswerJson, Client, DeadLetterJson, LineJson, SourceNames};
use crate::plain::plain;
use crate::queue::DEAD_LETTERS_SHOWN_MAX;

/// Lists, shows, exports, retries, discards or parks.
///
/// # Errors
/// When there is no such group or line, or the store cannot be opened.
pub fn run(args: &DeadLetterArgs) -> Result<Exit, Failure> {
    match &args.command {
        DeadLetterCommand::List { group, json } => {
            let mut out = io::stdout().lock();
            let from = Origin::of(&data_dir(group.data_dir.data_dir.as_deref()))?;
            wrote(from.each(&group.group, |letter| {
                Ok(if *json { print_json(&mut out, letter) } else { print(&mut out, letter) })
            })?)
        }
        DeadLetterCommand::Export { group, to } => export(group, to.as_deref()),
        DeadLetterCommand::Show { group, choice, json } => show(group, choice, *json),
        DeadLetterCommand::Retry { group, choice } => {
            let answer = ask(group, AdminJson::Retry { group: group.group.clone(), seqs: seqs(choice) })?;
            told(&format!("{} lines are delivered again", answer.lines))
        }
        DeadLetterCommand::Discard { group, choice, discard_lines } => {
            let (name, discard_lines) = (group.group.clone(), *discard_lines);
            let answer = ask(group, AdminJson::Discard { group: name, seqs: seqs(choice), discard_lines })?;
            told(&format!("{} lines were dropped for good", answer.lines))
        }
        DeadLetterCommand::Park { group, choice } => {
            let wanted = seqs(choice).unwrap_or_else(|| vec![(1, u64::MAX)]);
            let mut parked = 0;
            let ended = loop {
                let request = AdminJson::Park { group: group.group.clone(), seqs: wanted.clone() };
                match ask(group, request) {
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
            let lines = if parked == 1 {
                "1 line is a dead letter".to_owned()
            } else {
                format!("{parked} lines are dead letters")
            };
            // What was done is told also where the rest was refused.
            let done = told(&format!("{lines} now; `spillq dead-letter retry` puts them back"))?;
            ended.map(|()| done)
        }
    }
}

fn told(text: &str) -> Result<Exit, Failure> {
    wrote(writeln!(io::stdout(), "{text}"))
}

fn ask(group: &DeadLetterGroupArgs, request: AdminJson) -> Result<AnswerJson, Failure> {
    store::administer(&data_dir(group.data_dir.data_dir.as_deref()), request)
}

fn seqs(choice: &DeadLetterChoiceArgs) -> Option<Vec<(u64, u64)>> {
    (!choice.all).then(|| choice.seqs.iter().map(|range| (range.first.0, range.last.0)).collect())
}

/// Where dead letters are read: a running service, or a stopped store, which is only looked at.
enum Origin {
    Service(Client),
    Disk(Box<View>),
}

impl Origin {
    fn of(data_dir: &Path) -> Result<Origin, Failure> {
        match Client::connect(data_dir) {
            Some(service) => Ok(Origin::Service(service)),
            None => Ok(Origin::Disk(Box::new(store::view(data_dir)?))),
        }
    }

    /// Some dead letters of a group from a seq on; none where there are no more.
    fn page(&self, group: &str, from: u64) -> Result<Vec<DeadLetterJson>, Failure> {
        match self {
            Origin::Service(service) => {
                let request = AdminJson::DeadLetters { group: group.to_owned(), from };
                Ok(service.post::<AnswerJson>("/v1/admin", &request)?.dead_letters)
            }
            Origin::Disk(view) => {
                let Some((id, _)) = view.state().group(group) else {
                    return Err(Failure::could_not_run(format!("there is no group {group}"))
                        .hint("`spillq group list` names those that there are"));
                };
                let letters =
                    view.dead_letters(id, Seq(from), DEAD_LETTERS_SHOWN_MAX).map_err(store::failure)?;
                Ok(letters.iter().map(Into::into).collect())
            }
        }
    }

    /// A line, or why it cannot be read.
    fn line(&self, seq: u64) -> Result<Option<LineJson>, String> {
        match self {
            Origin::Service(service) => {
                service.get(&format!("/v1/line?seq={seq}")).map_err(|error| error.to_string())
            }
            Origin::Disk(view) => {
                let block = view.reader().block(Seq(seq)).map_err(|error| error.to_string())?;
                let names = SourceNames::of(view.state());
                let line = block.lines().find(|line| line.seq == Seq(seq));
                Ok(line.map(|line| LineJson::new(&line, names.name(line.source), block.append_time_ms())))
            }
        }
    }

    /// All dead letters of a group, some at a time.
    fn each(
        &self,
        group: &str,
        mut take: impl FnMut(&DeadLetterJson) -> Result<io::Result<()>, Failure>,
    ) -> Result<io::Result<()>, Failure> {
        let mut from = 0;
        loop {
            let page = self.page(group, from)?;
            let Some(last) = page.last() else { return Ok(Ok(())) };
            from = last.seq + 1;
            for letter in &page {
                if let Err(error) = take(letter)? {
                    return Ok(Err(error));
                }
            }
        }
    }
}

fn print(out: &mut impl Write, letter: &DeadLetterJson) -> io::Result<()> {
    let reason = plain(letter.reason.lines().next().unwrap_or_default());
    let DeadLetterJson { seq, cause, attempts, time, .. } = letter;
    writeln!(out, "{seq} {cause}, {attempts} attempts, {time}: {reason}")
}

fn print_json(out: &mut impl Write, letter: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, letter)?;
    out.write_all(b"\n")
}

fn show(group: &DeadLetterGroupArgs, choice: &DeadLetterChoiceArgs, json: bool) -> Result<Exit, Failure> {
    let chosen = |seq: u64| choice.all || choice.seqs.iter().any(|range| range.contains(Seq(seq)));
    let from = Origin::of(&data_dir(group.data_dir.data_dir.as_deref()))?;
    let (mut out, mut shown) = (io::stdout().lock(), 0_u64);
    let written = from.each(&group.group, |letter| {
        if !chosen(letter.seq) {
            return Ok(Ok(()));
        }
        shown += 1;
        let line = from.line(letter.seq).map_err(Failure::store)?;
        Ok(if json {
            print_json(
                &mut out,
                &serde_json::json!({ "line": line, "cause": letter.cause, "attempts": letter.attempts, "time": letter.time, "reason": letter.reason }),
            )
        } else {
            let text = line.and_then(|line| line.text.or(line.base64)).unwrap_or_default();
            print(&mut out, letter).and_then(|()| writeln!(out, "  {}", text.escape_debug()))
        })
    })?;
    if shown == 0 && written.is_ok() {
        return Err(Failure::could_not_run(format!("group {} has no such dead letter", group.group))
            .hint("`spillq dead-letter list` names those that there are"));
    }
    wrote(written)
}

/// Writes all of them as JSON lines and removes none. One whose line cannot be read says so, and the exit status is 1.
fn export(group: &DeadLetterGroupArgs, to: Option<&Path>) -> Result<Exit, Failure> {
    let from = Origin::of(&data_dir(group.data_dir.data_dir.as_deref()))?;
    let Some(path) = to else {
        let mut out = BufWriter::new(io::stdout().lock());
        let (written, _, unread) = export_to(&mut out, &from, &group.group)?;
        let exit = wrote(written.and_then(|()| out.flush()))?;
        return Ok(if unread > 0 { Exit::No } else { exit });
    };
    let cannot =
        |error: io::Error| Failure::could_not_run(format!("cannot write {}", path.display())).because(error);
    // A new file, for its owner's eyes: lines may hold what logs hold.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    let mut out = BufWriter::new(file);
    let (written, letters, unread) = export_to(&mut out, &from, &group.group)?;
    let file = written.and_then(|()| out.into_inner().map_err(io::IntoInnerError::into_error));
    file.and_then(|file| file.sync_all()).map_err(cannot)?;
    told(&format!("{letters} dead letters are in {}; they are in the log as before", path.display()))?;
    Ok(if unread > 0 { Exit::No } else { Exit::Fine })
}

/// Gives how many were written, and of how many the line could not be read.
fn export_to(
    out: &mut impl Write,
    from: &Origin,
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
        Ok(print_json(out, &json))
    })?;
    Ok((written, letters, unread))
}
