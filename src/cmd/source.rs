//! `spillq source`: lists the followed files, and continues one of them in another file.

use std::path::Path;

use spillq_storage::{Commit, Log, Options, SourceId};

use super::output::{print, say};
use super::store::Store;
use super::{Exit, Failure, store, store_dir};
use crate::cli::{ListArgs, SourceArgs, SourceCommand};
use crate::http::Client;
use crate::plain::{escape_path, size};
use crate::tail;

/// Lists, or adopts.
///
/// # Errors
/// When the store or the source does not exist, or the file does not begin with what was read of the source.
pub fn run(args: &SourceArgs) -> Result<Exit, Failure> {
    match &args.command {
        SourceCommand::List(args) => list(args),
        SourceCommand::Adopt { store, source, path } => adopt(&store_dir(store)?, SourceId(*source), path),
    }
}

fn list(args: &ListArgs) -> Result<Exit, Failure> {
    let sources = Store::of(&store_dir(&args.store)?)?.status()?.sources;
    print(|out| {
        sources.iter().try_for_each(|source| match args.json {
            true => out.json(source),
            false => out.line(format!(
                "{} {} {} {}",
                source.source,
                source.path,
                size(source.offset),
                source.state
            )),
        })
    })
}

fn adopt(data_dir: &Path, source: SourceId, path: &Path) -> Result<Exit, Failure> {
    if Client::connect(data_dir).is_some() {
        return Err(Failure::could_not_run("a service runs on this store")
            .hint("stop it, adopt the file, and start it again"));
    }
    let mut log = Log::open(data_dir, Options::default()).map_err(store::failure)?;
    let Some(known) = log.state().sources().get(&source) else {
        return Err(Failure::could_not_run(format!("source {source} does not exist"))
            .hint("`spillq source list` prints those that exist"));
    };
    let checkpoint = tail::adopt(&known.checkpoint, path)
        .map_err(|why| Failure::could_not_run(format!("source {source} cannot continue there: {why}")))?;
    let checkpoints = vec![(source, checkpoint)];
    log.commit(&Commit { checkpoints, ..Commit::default() }).map_err(store::failure)?;
    say(format!("source {source} continues in {}", escape_path(path)))
}
