//! `spillq drain`: delivers the lines that wait while the service is down.

use std::time::{Duration, Instant};

use super::progress::Bar;
use super::{Exit, Failure};
use crate::cli::DrainArgs;
use crate::messages;
use crate::plain::{counted, number, size};
use crate::service::{self, Drain, Plan, Progress};
use crate::supervise::Started;

/// Time between two messages about progress if there is no terminal.
const REPORT: Duration = Duration::from_secs(10);

/// Drains.
///
/// # Errors
/// What is wrong with the settings or the store.
pub fn run(args: &DrainArgs) -> Result<Exit, Failure> {
    let loaded = super::settings(args.config.as_deref(), args.overrides())?;
    let settings = loaded.settings;
    if settings.processors.is_empty() {
        return Err(Failure::could_not_run("no processor is configured that could get the lines").hint(
            "`spillq drain --data-dir DIR -- ./process.sh`, or a [[processor]] section with --config",
        ));
    }
    super::refuse_missing(&settings, args.group.as_deref(), &args.command)?;
    let of_command = (!args.command.is_empty()).then(|| crate::config::DEFAULT_GROUP.to_owned());
    let group = args.group.clone().or(of_command);
    for processor in settings
        .processors
        .iter()
        .filter(|processor| group.as_ref().is_none_or(|only| *only == processor.group))
    {
        if let Some(why) = service::command_missing(&processor.kind) {
            let what = format!("the command of group {} cannot be run: {why}", processor.group);
            return Err(Failure::could_not_run(what)
                .hint("nothing was drained; correct `command` under [[processor]]"));
        }
    }
    // The command that was typed is a drain, and must not be suggested as the start of the service.
    let started = super::started(&settings, args.config.as_deref(), &args.command)?;
    let started = Started { typed: String::new(), ..started };
    let drain = Drain { group, max_lines: args.max_lines, time_max: args.duration, rate: args.rate };
    let plan = Plan { drain: Some(drain), started, ..Plan::default() };
    let started = Instant::now();
    let bar = Bar::start();
    let mut reported = Instant::now();
    let ended = service::run(&settings, &plan, &mut |progress| {
        bar.show(progress.lines, progress.lines + progress.lines_left, size(progress.bytes));
        if bar.is_hidden() && reported.elapsed() >= REPORT {
            reported = Instant::now();
            tracing::info!("{}", sentence(progress, started.elapsed()));
        }
    });
    bar.end();
    let ended = ended?;
    messages::print_counts();
    eprintln!("{}", sentence(ended.progress, started.elapsed()));
    if !ended.stuck.is_empty() {
        return Err(super::stuck(ended.stuck));
    }
    Ok(if ended.progress.lines_left == 0 { Exit::Fine } else { Exit::No })
}

fn sentence(progress: Progress, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    let rate = (progress.lines as f64 / seconds) as u64;
    let left = match progress.lines_left {
        0 => "nothing is left".to_owned(),
        lines => format!("{} ({}) left", counted(lines, "line"), size(progress.bytes_left)),
    };
    format!(
        "drained {} ({}) in {seconds:.1} s, {} lines/s; {left}",
        counted(progress.lines, "line"),
        size(progress.bytes),
        number(rate)
    )
}
