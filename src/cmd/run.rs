//! `spillq run`: follows files and delivers their lines, until stopped.

use super::volatile::volatile;
use super::{Exit, Failure};
use crate::cli::RunArgs;
use crate::messages;
use crate::plain::{counted, waiting};
use crate::service::{self, Plan, Reread};
use crate::tail::STDIN;

/// Runs the service.
///
/// # Errors
/// What is wrong with the settings or the store.
pub fn run(args: &RunArgs) -> Result<Exit, Failure> {
    let sources = super::sources(args.config.as_deref(), args.overrides())?;
    let loaded = super::load(&sources)?;
    let settings = loaded.settings;
    let serves = !settings.processors.is_empty() || !settings.consumers.listen.is_empty();
    if settings.follow.is_empty() && !serves {
        return Err(Failure::could_not_run(
            "nothing to do: no file is followed, and no processor is configured",
        )
        .hint("`spillq run --follow 'app*.log' -- ./process.sh`, or a [[follow]] section with --config"));
    }
    if let Some(what) = volatile(&settings.data_dir).filter(|_| !args.allow_volatile) {
        return Err(Failure::could_not_run(what)
            .hint("name a folder on a disk or a mounted volume with --data-dir, or pass --allow-volatile"));
    }
    super::refuse_missing(&settings, args.group.as_deref(), &args.command)?;
    let started = super::started(&settings, args.config.as_deref(), &args.command)?;
    let reread = Reread { sources, text: loaded.text };
    let reread = (!args.once).then_some(reread);
    let plan = Plan { follow: true, once: args.once, reread, started, ..Plan::default() };
    let ended = service::run(&settings, &plan, &mut |_| {})?;
    if args.once && ended.status.sources.is_empty() {
        let globs = settings.follow.iter().flat_map(|follow| &follow.include);
        let globs: Vec<&str> =
            globs.map(|glob| if glob == STDIN { "standard input" } else { glob.as_str() }).collect();
        let globs = globs.join(", ");
        tracing::warn!("no line was found in {globs}; `--log debug` shows which files were examined");
    }
    messages::print_counts();
    for group in &ended.status.groups {
        let (waits, dead) = (waiting(group.lag_lines), counted(group.dead_letters, "dead letter"));
        tracing::info!("stopped; {waits} for group {}, {dead}", group.group);
    }
    if args.once && ended.all_done && !ended.unread.is_empty() {
        let what = "these files matched and were not read; everything else was";
        return Err(Failure::new(Exit::No, what)
            .with_details(ended.unread)
            .hint("to leave a file out, add it to `exclude` in its [[follow]] section"));
    }
    if !ended.stuck.is_empty() {
        return Err(super::stuck(ended.stuck));
    }
    Ok(Exit::Fine)
}
