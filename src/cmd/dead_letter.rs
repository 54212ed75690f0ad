//! `spillq dead-letter`: lines that were set aside because they failed alone.

use std::io::{self, Write};

use spillq_storage::{Seq, SeqRange};

use super::{Exit, Failure, data_dir, store, wrote};
use crate::cli::{DeadLetterArgs, DeadLetterChoiceArgs, DeadLetterCommand, DeadLetterGroupArgs};
use crate::http::{AdminJson, AnswerJson, Client, DeadLetterJson, LineJson, SourceNames};

/// Lists, shows, retries, discards or parks.
///
/// # Errors
/// When there is no such group or line, or the store cannot be opened.
pub fn run(args: &DeadLetterArgs) -> Result<Exit, Failure> {
    match &args.command {
        DeadLetterCommand::List { group, json } => {
            let mut out = io::stdout().lock();
            for letter in letters(group)? {
                let written = if *json { print_json(&mut out, &letter) } else { print(&mut out, &letter) };
                if let Err(error) = written {
                    return wrote(Err(error));
                }
            }
            Ok(Exit::Fine)
        }
        DeadLetterCommand::Show { group, choice, json } => show(group, choice, *json),
        DeadLetterCommand::Retry { group, choice } => {
            let answer = ask(group, AdminJson::Retry { group: group.group.clone(), seqs: seqs(choice) })?;
            told(&format!("{} lines are delivered again", answer.lines))
        }
        DeadLetterCommand::Discard { group, choice } => {
            let answer = ask(group, AdminJson::Discard { group: group.group.clone(), seqs: seqs(choice) })?;
            told(&format!("{} lines were dropped for good", answer.lines))
        }
        DeadLetterCommand::Park { group, seqs } => {
            let mut parked = 0;
            for seq in seqs.iter().flat_map(|range| range.first.0..=range.last.0) {
                parked += ask(group, AdminJson::Park { group: group.group.clone(), seq })?.lines;
            }
            told(&format!("{parked} lines were set aside"))
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

/// All dead letters of a group. A stopped store is only looked at.
fn letters(group: &DeadLetterGroupArgs) -> Result<Vec<DeadLetterJson>, Failure> {
    let data_dir = data_dir(group.data_dir.data_dir.as_deref());
    let Some(service) = Client::connect(&data_dir) else {
        let view = store::view(&data_dir)?;
        let Some((id, _)) = view.state().group(&group.group) else {
            return Err(Failure::could_not_run(format!("there is no group {}", group.group))
                .hint("`spillq group list` names those that there are"));
        };
        let letters = view.dead_letters(id, Seq(0), usize::MAX).map_err(store::failure)?;
        return Ok(letters.iter().map(Into::into).collect());
    };
    let mut all: Vec<DeadLetterJson> = Vec::new();
    loop {
        let from = all.last().map_or(0, |letter| letter.seq + 1);
        let request = AdminJson::DeadLetters { group: group.group.clone(), from };
        let page: AnswerJson = service.post("/v1/admin", &request)?;
        if page.dead_letters.is_empty() {
            return Ok(all);
        }
        all.extend(page.dead_letters);
    }
}

fn print(out: &mut impl Write, letter: &DeadLetterJson) -> io::Result<()> {
    let reason = letter.reason.lines().next().unwrap_or_default();
    writeln!(out, "{} {} attempts, {}: {reason}", letter.seq, letter.attempts, letter.time)
}

fn print_json(out: &mut impl Write, letter: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, letter)?;
    out.write_all(b"\n")
}

fn show(group: &DeadLetterGroupArgs, choice: &DeadLetterChoiceArgs, json: bool) -> Result<Exit, Failure> {
    let chosen = |seq: u64| choice.all || choice.seqs.iter().any(|range| range.contains(Seq(seq)));
    let letters: Vec<DeadLetterJson> =
        letters(group)?.into_iter().filter(|letter| chosen(letter.seq)).collect();
    if letters.is_empty() {
        return Err(Failure::could_not_run(format!("group {} has no such dead letter", group.group))
            .hint("`spillq dead-letter list` names those that there are"));
    }
    let data_dir = data_dir(group.data_dir.data_dir.as_deref());
    let service = Client::connect(&data_dir);
    let view = if service.is_none() { Some(store::view(&data_dir)?) } else { None };
    let mut out = io::stdout().lock();
    for letter in &letters {
        let line = match (&service, &view) {
            (Some(service), _) => service.get::<Option<LineJson>>(&format!("/v1/line?seq={}", letter.seq))?,
            (None, Some(view)) => {
                let seq = Seq(letter.seq);
                let block = view.reader().block(seq).map_err(|error| Failure::store(error.to_string()))?;
                let names = SourceNames::of(view.state());
                let line = block.lines().find(|line| SeqRange::one(seq).contains(line.seq));
                line.map(|line| LineJson::new(&line, names.name(line.source), block.append_time_ms()))
            }
            (None, None) => None,
        };
        let written = if json {
            print_json(
                &mut out,
                &serde_json::json!({ "line": line, "attempts": letter.attempts, "time": letter.time, "reason": letter.reason }),
            )
        } else {
            let text = line.and_then(|line| line.text.or(line.base64)).unwrap_or_default();
            print(&mut out, letter).and_then(|()| writeln!(out, "  {}", text.escape_debug()))
        };
        if let Err(error) = written {
            return wrote(Err(error));
        }
    }
    Ok(Exit::Fine)
}
