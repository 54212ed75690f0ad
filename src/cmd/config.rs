//! `spillq config`: checks, shows and writes configuration files, and makes a service read its file again.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use super::output::{print, say, say_json, wrote};
use super::{Exit, Failure, settings};
use crate::cli::{ConfigArgs, ConfigCommand, ConfigFileArgs};
use crate::config::{Kind, Loaded, Overrides, as_json, as_toml, documented};
use crate::http::{Client, ReloadJson};
use crate::plain::escape_path;
use crate::processor::urls;
use crate::service::preview;

/// Where a configuration is written, and looked for by `config check`, when none is named.
const USUAL_FILE: &str = "spillq.toml";

/// Runs `spillq config ...`.
///
/// # Errors
/// What is wrong with the configuration, or why a file could not be read or written.
pub fn run(args: &ConfigArgs) -> Result<Exit, Failure> {
    match &args.command {
        ConfigCommand::Check(args) => check(args),
        ConfigCommand::Show { file, json } => show(file, *json),
        ConfigCommand::Reload { store, json } => reload(&super::store_dir(store)?, *json),
        ConfigCommand::Init { path } => init(path.as_deref().unwrap_or(Path::new(USUAL_FILE))),
    }
}

fn check(args: &ConfigFileArgs) -> Result<Exit, Failure> {
    let file = args.named().unwrap_or(Path::new(USUAL_FILE));
    let loaded = settings(Some(file), Overrides::default())?;
    let warnings = preview(&loaded.settings)
        .map_err(|error| Failure::could_not_run(format!("{} is not valid", file.display())).because(error))?;
    let mut lines = vec![format!("{}: valid", escape_path(file))];
    lines.extend(summary(&loaded));
    lines.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
    print(|out| lines.iter().try_for_each(|line| out.line(line)))
}

/// A few lines for people: what would run.
fn summary(loaded: &Loaded) -> Vec<String> {
    let settings = &loaded.settings;
    let mut lines = vec![format!("data dir: {}", settings.data_dir.display())];
    for follow in &settings.follow {
        lines.push(format!("follows: {}", follow.include.join(", ")));
    }
    if settings.follow.is_empty() {
        lines.push("follows: nothing; add a [[follow]] section, or use --follow".to_owned());
    }
    for group in &settings.groups {
        let processor = match settings.processor(&group.name).map(|processor| &processor.kind) {
            Some(kind @ (Kind::Exec(to) | Kind::ExecStream(to))) => {
                let words: Vec<_> = to.command.iter().map(|word| word.to_string_lossy()).collect();
                format!("{} {}", kind.of().word(), words.join(" "))
            }
            Some(Kind::Redis(to)) => format!("redis {} on {}", to.stream, to.server),
            Some(Kind::Postgres(to)) => format!("postgres {} on {}", to.table, to.server),
            Some(Kind::Nats(to)) => format!("nats {} on {}", to.subject, urls(&to.servers)),
            Some(Kind::Kafka(to)) => format!("kafka {} on {}", to.topic, to.brokers.join(",")),
            Some(Kind::S3(to)) => format!("s3 {}", to.url),
            Some(Kind::Http(to)) => format!("http {}", to.url),
            Some(Kind::Stdout) => "stdout".to_owned(),
            Some(Kind::File(to)) => format!("file {}", to.path.display()),
            None if !settings.consumers.listen.is_empty() => "consumers lease its lines".to_owned(),
            None => "no processor: its lines wait".to_owned(),
        };
        lines.push(format!("group {}: {processor}", group.name));
    }
    lines
}

fn show(args: &ConfigFileArgs, json: bool) -> Result<Exit, Failure> {
    let loaded = settings(args.named(), Overrides::default())?;
    let text = if json { format!("{:#}\n", as_json(&loaded)) } else { as_toml(&loaded) };
    wrote(io::stdout().lock().write_all(text.as_bytes()))
}

fn reload(data_dir: &Path, json: bool) -> Result<Exit, Failure> {
    let none = || Failure::could_not_run(format!("{}: no service runs on it", data_dir.display()));
    let answer: ReloadJson = Client::connect(data_dir).ok_or_else(none)?.post("/v1/reload", &())?;
    if json {
        let exit = say_json(&answer)?;
        return Ok(if answer.taken { exit } else { Exit::CouldNotRun });
    }
    if !answer.taken {
        return Err(Failure::could_not_run("the configuration is refused, and nothing was changed")
            .with_details(answer.problems));
    }
    let live = answer.changes.iter().filter(|change| !change.needs_restart);
    let mut lines: Vec<String> = live.map(|change| change.what.clone()).collect();
    if answer.changes.is_empty() {
        lines.push("nothing has changed".to_owned());
    }
    let later = answer.changes.iter().filter(|change| change.needs_restart);
    lines.extend(later.map(|change| format!("needs a restart: {}", change.what)));
    lines.extend(answer.notes.iter().map(|note| format!("note: {note}")));
    print(|out| lines.iter().try_for_each(|line| out.line(line)))
}

fn init(path: &Path) -> Result<Exit, Failure> {
    let cannot = |error: io::Error| {
        let failure = Failure::could_not_run(format!("cannot write the configuration {}", path.display()));
        match error.kind() {
            io::ErrorKind::AlreadyExists => failure
                .because("it exists, and is never overwritten")
                .hint("name another: `spillq config init PATH`"),
            _ => failure.because(error),
        }
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(cannot)?;
    file.write_all(documented().as_bytes()).map_err(cannot)?;
    let path = escape_path(path);
    say(format!("{path}: written, every key with its default; `spillq config check {path}` after changes"))
}
