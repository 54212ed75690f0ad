//! `spillq group`: the groups of the log.

use std::time::UNIX_EPOCH;

use super::output::{print, say, say_json};
use super::store::Store;
use super::{Exit, Failure, lease, store, store_dir};
use crate::cli::{Beginning, GroupArgs, GroupCommand, GroupNameArgs, ListArgs, Place};
use crate::http::{AdminJson, Client, GivenJson, SeekToJson};
use crate::plain::{number, waiting};
use crate::queue::{millis, wall_ms};

/// Lists, adds, removes, pauses, resumes, retries or moves.
///
/// # Errors
/// When the group does not exist, or the store cannot be opened.
pub fn run(args: &GroupArgs) -> Result<Exit, Failure> {
    match &args.command {
        GroupCommand::List(args) => list(args),
        GroupCommand::Add { group, start } => {
            let from_beginning = *start == Beginning::Beginning;
            act(group, AdminJson::AddGroup { name: group.name.clone(), from_beginning }, "was added")
        }
        GroupCommand::Remove { group, discard_lines } => {
            let request = AdminJson::RemoveGroup { name: group.name.clone(), discard_lines: *discard_lines };
            act(group, request, "was removed")
        }
        GroupCommand::Pause(group) => {
            act(group, AdminJson::Pause { name: group.name.clone(), paused: true }, "is paused")
        }
        GroupCommand::Resume(group) => {
            act(group, AdminJson::Pause { name: group.name.clone(), paused: false }, "resumes")
        }
        GroupCommand::RetryNow(group) => {
            // Back-offs exist in a running service only.
            let dir = store_dir(&group.store)?;
            if Client::connect(&dir).is_none() {
                return Err(Failure::could_not_run(format!("no service runs on {}", dir.display()))
                    .hint("start it (`spillq run`) or drain (`spillq drain`): a start delivers waiting lines at once"));
            }
            act(group, AdminJson::RetryNow { name: group.name.clone() }, "retries now")
        }
        GroupCommand::Lease(args) => lease::lease(args),
        GroupCommand::Settle(args) => lease::settle(args),
        GroupCommand::Seek { group, to, again, missing, discard_lines, json } => {
            let given = again.then_some(GivenJson::Again).or(missing.then_some(GivenJson::Missing));
            seek(group, *to, given, *discard_lines, *json)
        }
    }
}

/// After a seek backwards on a store without a service.
const NOTE: &str = "A destination that records what it was given (redis, postgres, nats, file) takes only the lines that it has \
                    not recorded. To deliver all of them, seek with --again while the service runs.";

fn act(group: &GroupNameArgs, request: AdminJson, done: &str) -> Result<Exit, Failure> {
    store::administer(&store_dir(&group.store)?, request)?;
    say(format!("group {} {done}", group.name))
}

fn seek(
    group: &GroupNameArgs,
    place: Place,
    given: Option<GivenJson>,
    discard_lines: bool,
    json: bool,
) -> Result<Exit, Failure> {
    let dir = store_dir(&group.store)?;
    let is_stopped = Client::connect(&dir).is_none();
    if is_stopped && given == Some(GivenJson::Again) {
        let message = format!(
            "no service runs on {}: only its processor can clear the record of the destination",
            dir.display()
        );
        return Err(Failure::could_not_run(message).hint("start it (`spillq run`), and seek then"));
    }
    let to = match place {
        Place::Seq(seq) => SeekToJson::Seq(seq.0),
        Place::Time(time) => SeekToJson::TimeMs(millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())),
        Place::Ago(ago) => SeekToJson::TimeMs(wall_ms().saturating_sub(millis(ago))),
        Place::Beginning => SeekToJson::Beginning,
        Place::End => SeekToJson::End,
    };
    let request = AdminJson::Seek { group: group.name.clone(), to, discard_lines, given };
    let answer = store::administer(&dir, request)?;
    let Some(sought) = answer.sought else {
        return Err(Failure::could_not_run("the service did not answer where the group is now"));
    };
    if json {
        return say_json(&sought);
    }
    let instead = match place {
        Place::Seq(seq) if seq.0 < sought.to => format!(" (line {} is no longer stored)", number(seq.0)),
        Place::Seq(seq) if seq.0 > sought.to => format!(" (line {} does not exist yet)", number(seq.0)),
        _ => String::new(),
    };
    let (to, again) = (number(sought.to), waiting(sought.again));
    let skipped = match sought.skipped {
        1 => "1 was skipped".to_owned(),
        many => format!("{} were skipped", number(many)),
    };
    let name = &group.name;
    let note = match given {
        Some(GivenJson::Missing) if sought.again > 0 => {
            "; the destination takes those that it has not recorded"
        }
        _ => "",
    };
    print(|out| {
        out.line(format!("group {name} is at line {to}{instead}: {again} again, {skipped}{note}"))?;
        // Without the service, the kind of the destination is not known.
        if is_stopped && given.is_none() && sought.again > 0 {
            out.line(NOTE)?;
        }
        Ok(())
    })
}

fn list(args: &ListArgs) -> Result<Exit, Failure> {
    let settings = super::store_settings(&args.store)?;
    let status = Store::of(&store_dir(&args.store)?)?.status_with(settings.as_ref())?;
    print(|out| {
        status.groups.iter().try_for_each(|group| {
            if args.json {
                return out.json(group);
            }
            let floor = number(group.ack_floor);
            let waits =
                format!("{}{}", if group.counting { "at most " } else { "" }, waiting(group.lag_lines));
            out.line(format!("{} {}: acked up to {floor}, {waits}", group.group, group.state))
        })
    })
}
