//! `spillq group lease` and `spillq group settle`: a consumer in a shell, for scripts and for trying it.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::output::{Stdout, say, say_json};
use super::{Exit, Failure, store_dir};
use crate::cli::{Bad, GroupLeaseArgs, GroupSettleArgs};
use crate::http::{
    AckJson, AllJson, Answered, BadLineJson, Client, FailJson, LeaseRequestJson, LeasedLineJson, SettleJson,
    SettledJson, ThroughJson,
};
use crate::plain::{counted, duration, escape_path};
use crate::queue::millis;

/// The name of a consumer that gives none.
const CONSUMER: &str = "spillq-group-lease";
/// A token is shorter; the rest of standard input is not one.
const TOKEN_BYTES_MAX: u64 = 256;

/// What `--json` prints before the lines.
#[derive(Debug, Serialize)]
struct Head<'a> {
    lease: &'a str,
    epoch: &'a str,
    first: u64,
    last: u64,
    lines: u64,
    attempt: u64,
    expires_ms: u64,
}

/// A refusal of the service.
#[derive(Debug, Deserialize)]
struct RefusedJson {
    error: String,
    code: String,
    next: String,
}

/// Leases lines, and prints them.
///
/// # Errors
/// When no service runs, or it refuses.
pub(super) fn lease(args: &GroupLeaseArgs) -> Result<Exit, Failure> {
    let service = running(&args.group.store)?;
    let request = LeaseRequestJson {
        consumer: args.consumer.clone().unwrap_or_else(|| CONSUMER.to_owned()),
        max_lines: args.lines,
        max_bytes: args.bytes,
        wait_ms: Some(millis(args.wait)),
        lease_ms: args.time.map(millis),
        request: None,
    };
    let accept = if args.raw { "application/vnd.spillq.lines" } else { "application/x-ndjson" };
    let path = format!("/v1/groups/{}/lease", args.group.name);
    let answered = done(service.exchange("POST", &path, &[("accept", accept)], &request)?)?;
    let name = &args.group.name;
    if answered.is_empty() {
        let why = answered.header("spillq-why");
        return Err(Failure::new(Exit::No, format!("nothing to lease of group {name}: {why}")));
    }
    let token = answered.header("spillq-lease").to_owned();
    let mut out = Stdout::stdout();
    let written = write(&mut out, args, &answered);
    if args.release {
        let release = SettleJson { release: Some(true), ..SettleJson::default() };
        settled(&service, &token, &release)?;
    } else if !args.json {
        let dir = store_dir(&args.group.store)?;
        // With the lines on standard output it would be taken for one.
        eprintln!(
            "lines {} to {} are leased for {}; settle them: spillq group settle --data-dir {} {token} --ack",
            answered.header("spillq-first-seq"),
            answered.header("spillq-last-seq"),
            duration(answered.number("spillq-expires-ms")),
            escape_path(&dir)
        );
    }
    out.end(written)
}

fn write(out: &mut Stdout, args: &GroupLeaseArgs, answered: &Answered) -> io::Result<()> {
    if args.json {
        out.json(&Head {
            lease: answered.header("spillq-lease"),
            epoch: answered.header("spillq-epoch"),
            first: answered.number("spillq-first-seq"),
            last: answered.number("spillq-last-seq"),
            lines: answered.number("spillq-lines"),
            attempt: answered.number("spillq-attempt"),
            expires_ms: answered.number("spillq-expires-ms"),
        })?;
    }
    if args.raw {
        return out.bytes(&answered.body);
    }
    for line in answered.body.split_inclusive(|byte| *byte == b'\n') {
        out.json(&serde_json::from_slice::<LeasedLineJson>(line)?)?;
    }
    Ok(())
}

/// Settles a lease.
///
/// # Errors
/// When no service runs, or it refuses.
pub(super) fn settle(args: &GroupSettleArgs) -> Result<Exit, Failure> {
    let service = running(&args.store)?;
    let token = match args.token.as_str() {
        "-" => {
            let mut text = String::new();
            let read = io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text);
            read.map_err(|error| {
                Failure::could_not_run("could not read the token from standard input").because(error)
            })?;
            match text.trim() {
                "" => {
                    return Err(Failure::could_not_run("standard input has no token").hint(
                        "`spillq group lease` prints it; with --json it is `lease` in the first line",
                    ));
                }
                token => token.to_owned(),
            }
        }
        token => token.to_owned(),
    };
    let bad = |Bad { seq, reason }: &Bad| BadLineJson { seq: seq.0, reason: reason.clone() };
    let request = SettleJson {
        ack: match args.through {
            Some(seq) => Some(AckJson::Through(ThroughJson { through: seq.0 })),
            None => args.ack.then_some(AckJson::All(AllJson::All)),
        },
        bad: (!args.bad.is_empty()).then(|| args.bad.iter().map(bad).collect()),
        fail: args.fail.clone().map(|reason| FailJson { reason, delay_ms: args.delay.map(millis) }),
        release: args.release.then_some(true),
        ..SettleJson::default()
    };
    let settled = settled(&service, &token, &request)?;
    if args.json {
        return say_json(&settled);
    }
    let SettledJson { acked, dead, again, left, ack_floor, .. } = settled;
    let left: u64 = left.iter().map(|[first, last]| last - first + 1).sum();
    let dead = if dead > 0 { format!(", {} made", counted(dead, "dead letter")) } else { String::new() };
    let left = if left > 0 { format!(", {} still leased", counted(left, "line")) } else { String::new() };
    let again = match again {
        0 => String::new(),
        1 => ", 1 line is delivered again".to_owned(),
        again => format!(", {} are delivered again", counted(again, "line")),
    };
    say(format!("{} acknowledged{dead}{again}{left}; acknowledged up to {ack_floor}", counted(acked, "line")))
}

fn settled(service: &Client, token: &str, request: &SettleJson) -> Result<SettledJson, Failure> {
    let answered = service.exchange("POST", "/v1/leases/settle", &[("spillq-lease", token)], request)?;
    Ok(done(answered)?.json()?)
}

/// The answer, unless it is a refusal.
fn done(answered: Answered) -> Result<Answered, Failure> {
    if (200..300).contains(&answered.status()) {
        return Ok(answered);
    }
    let refused: RefusedJson = answered.json()?;
    // A lease that has ended is an answer: another try, with another lease, may succeed.
    let exit =
        if ["stale", "no-lease"].contains(&refused.code.as_str()) { Exit::No } else { Exit::CouldNotRun };
    Err(Failure::new(exit, refused.error).hint(refused.next))
}

fn running(store: &crate::cli::StoreArgs) -> Result<Client, Failure> {
    let dir = store_dir(store)?;
    if !dir.exists() {
        return Err(Failure::could_not_run(format!("{} does not exist", escape_path(&dir)))
            .hint("name the data dir of the service with --data-dir, or its configuration with --config"));
    }
    Client::connect(&dir).ok_or_else(|| {
        Failure::could_not_run(format!("no service runs on {}", dir.display()))
            .hint("start it (`spillq run`): a lease lasts no longer than the service")
    })
}
