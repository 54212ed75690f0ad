//! The receiver: the command that spillq runs for its batches. It judges each line, notes it, and answers.
//!
//! As an `exec` command it gets one batch and ends; as an `exec-stream` command it keeps running and answers each. It
//! reads `ndjson`, so that seqs, offsets and attempts are judged too.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process};
use serde::Deserialize;
use serde_json::json;

use crate::line;
use crate::notes::{self, Delivery, Run};
use crate::outage;

/// EX_DATAERR: the lines are at fault.
const EXIT_REJECTED: u8 = 65;
/// A receiver that has killed something waits this long to be ended as well.
const END_WAIT: Duration = Duration::from_secs(30);

/// What a receiver does with a batch that has a poison line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnPoison {
    /// Fails, and blames nothing
    Fail,
    /// Rejects: exit status 65, or `NAK N` with the number of the first poison line, from 1
    Reject,
    /// Rejects with a number that is one too low: it counts from 0
    RejectFromZero,
    /// Processes the others, and lists the poison lines: `OK LAST_SEQ BAD […]`
    List,
    /// Kills the service
    KillService,
    /// Kills itself
    KillCommand,
}

/// What a receiver does.
#[derive(Clone, Debug, clap::Args)]
pub struct Receive {
    /// The folder of the notes
    #[arg(long)]
    pub notes: PathBuf,
    /// For which group
    #[arg(long)]
    pub group: String,
    /// Keep running, and answer each batch
    #[arg(long)]
    pub stream: bool,
    /// What to do with poison lines [default: process them]
    #[arg(long, value_enum)]
    pub on_poison: Option<OnPoison>,
    /// Fail on everything while there is an outage
    #[arg(long)]
    pub outages: bool,
    /// No other receiver may have a batch of the group meanwhile
    #[arg(long)]
    pub strict: bool,
    /// Time for each batch, in milliseconds
    #[arg(long, default_value_t = 0)]
    pub slow_ms: u64,
    /// Hang on this many batches, at their first attempt
    #[arg(long, default_value_t = 0)]
    pub hangs: u64,
}

#[derive(Deserialize)]
struct Header {
    bytes: usize,
    last_seq: u64,
}

#[derive(Deserialize)]
struct Object {
    seq: u64,
    source: serde_json::Value,
    offset: u64,
    attempt: u32,
    part: Option<String>,
    text: Option<String>,
}

/// Processes standard input; returns the exit status.
pub fn run(args: &Receive) -> io::Result<u8> {
    fs::create_dir_all(&args.notes)?;
    let mut input = io::stdin().lock();
    if !args.stream {
        let mut body = Vec::new();
        input.read_to_end(&mut body)?;
        return Ok(match take(args, &body)? {
            Answer::Done => 0,
            Answer::Failed => 1,
            Answer::Rejected(_) | Answer::Listed(_) => EXIT_REJECTED,
        });
    }
    let mut header = String::new();
    while input.read_line(&mut header)? > 0 {
        let Header { bytes, last_seq } = serde_json::from_str(&header).map_err(io::Error::other)?;
        let mut body = vec![0; bytes];
        input.read_exact(&mut body)?;
        let answer = match take(args, &body)? {
            Answer::Done => format!("OK {last_seq}"),
            Answer::Failed => "NAK cannot process it".to_owned(),
            Answer::Rejected(number) => format!("NAK {number} it is poison"),
            Answer::Listed(places) => {
                let bad: Vec<_> =
                    places.iter().map(|at| json!({"n": at + 1, "reason": "it is poison"})).collect();
                format!("OK {last_seq} BAD {}", serde_json::Value::from(bad))
            }
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
        header.clear();
    }
    Ok(0)
}

/// How a batch is answered.
enum Answer {
    Done,
    Failed,
    /// And the number of the line that is blamed, as this receiver counts.
    Rejected(u64),
    /// Done, except the lines at these places, from 0.
    Listed(Vec<u64>),
}

/// Judges and notes a batch; returns the answer.
fn take(args: &Receive, body: &[u8]) -> io::Result<Answer> {
    let mut batch = Delivery { begun_ns: notes::now_ns(), pid: std::process::id(), ..Delivery::default() };
    let lock = File::create(notes::lock_path(&args.notes, &args.group))?;
    if args.strict && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        batch.complaints.push("I6 another receiver still has a batch of this strict group".to_owned());
    }
    let poison = judge(body, &mut batch);
    batch.note_begin(&args.notes, &args.group)?;
    std::thread::sleep(Duration::from_millis(args.slow_ms));
    let is_down = args.outages && outage::is_on(&args.notes, &args.group);
    if args.hangs > 0 && !is_down && hangs(args, batch.first)? {
        return Err(hang(&args.notes, batch.first));
    }
    let answer = match (args.on_poison, poison.first()) {
        _ if is_down => Answer::Failed,
        (Some(OnPoison::List), Some(_)) => Answer::Listed(poison),
        (Some(OnPoison::Fail), Some(_)) => Answer::Failed,
        (Some(OnPoison::Reject), Some(place)) => Answer::Rejected(place + 1),
        (Some(OnPoison::RejectFromZero), Some(place)) => Answer::Rejected(*place),
        (Some(OnPoison::KillService), Some(_)) => return Err(kill(service()?)),
        (Some(OnPoison::KillCommand), Some(_)) => return Err(kill(getpid())),
        _ => Answer::Done,
    };
    let word = match answer {
        Answer::Done | Answer::Listed(_) => "done",
        Answer::Failed => "failed",
        Answer::Rejected(_) => "rejected",
    };
    batch.note_end(&args.notes, &args.group, word)?;
    if matches!(answer, Answer::Done | Answer::Listed(_)) && args.outages {
        outage::succeeded(&args.notes, &args.group)?;
    }
    Ok(answer)
}

/// Whether to hang on the batch that begins with this line: not twice on the same, as what is bisected begins with it too.
fn hangs(args: &Receive, first: u64) -> io::Result<bool> {
    let text = match fs::read_to_string(args.notes.join("hung")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let has_hung = |line: &str| line.split_once(' ').is_some_and(|(_, at)| at == first.to_string());
    Ok((text.lines().count() as u64) < 2 * args.hangs && !text.lines().any(has_hung))
}

/// The service: the parent of the shim, which is the parent of this process. Both run the same program; this is
/// checked so that no other process is killed if the service is gone and the shim has another parent.
fn service() -> io::Result<Pid> {
    let gone = || io::Error::other("the service is gone");
    let shim = getppid().ok_or_else(gone)?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", shim.as_raw_nonzero()))?;
    let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
    let service = parent.and_then(Pid::from_raw).ok_or_else(gone)?;
    let program = |pid: Pid| fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()));
    if program(shim)? == program(service)? { Ok(service) } else { Err(gone()) }
}

/// Kills it, and waits to be ended without an answer. Returns why it still runs.
fn kill(victim: Pid) -> io::Error {
    if let Err(error) = kill_process(victim, Signal::KILL) {
        return error.into();
    }
    std::thread::sleep(END_WAIT);
    io::Error::other("this process was not ended")
}

/// Becomes a process that has forked a daemon in a new session, ignores SIGTERM, and sleeps or is stopped. Returns why it
/// could not.
fn hang(notes: &Path, first: u64) -> io::Error {
    let how = if first % 2 == 1 { "while :; do sleep 600; done" } else { "kill -STOP $$" };
    let script = format!(
        "trap '' TERM HUP
         (setsid sh -c 'trap \"\" TERM HUP; echo $$ {first} >> {hung}; while :; do sleep 600; done' &)
         echo $$ {first} >> {hung}; {how}",
        hung = notes.join("hung").display()
    );
    Command::new("sh").args(["-c", &script]).exec()
}

/// Reads the lines of a batch; gives the places of those that are poison, from 0.
fn judge(body: &[u8], batch: &mut Delivery) -> Vec<u64> {
    let mut poison = Vec::new();
    let mut next = None;
    for (at, line) in (0..).zip(body.split_inclusive(|byte| *byte == b'\n')) {
        let object: Object = match serde_json::from_slice(line) {
            Ok(object) => object,
            Err(error) => {
                batch.complaints.push(format!("I4 not ndjson: {error}"));
                continue;
            }
        };
        if next.is_none() {
            (batch.first, batch.attempt) = (object.seq, object.attempt);
        } else if next.is_some_and(|next| object.seq < next) {
            batch.complaints.push(format!("I3 seq {} came after {}", object.seq, batch.last));
        }
        batch.last = object.seq;
        next = Some(object.seq + 1);
        let text = object.text.as_deref().unwrap_or_default();
        match line::parse(text) {
            Ok(place) => {
                poison.extend(place.poison.then_some(at));
                if place.offset != object.offset || object.part.is_some() {
                    let Object { seq, offset, .. } = object;
                    batch
                        .complaints
                        .push(format!("I5 seq {seq}: offset {offset}, but it is {}", place.offset));
                }
                let named = format!("/w{}.log", place.source);
                if object.source.as_str().is_some_and(|path| !path.contains(&named)) {
                    batch
                        .complaints
                        .push(format!("I5 seq {}: of {}, but it is {named}", object.seq, object.source));
                }
                push(&mut batch.runs, object.seq, place.source, place.number);
            }
            Err(what) => batch.complaints.push(format!("I4 seq {}: {what}", object.seq)),
        }
    }
    poison
}

/// Adds a line to the previous run of lines, if it follows that.
fn push(runs: &mut Vec<Run>, seq: u64, source: u32, number: u64) {
    match runs.last_mut() {
        Some(run)
            if run.source == source && run.seq + run.count == seq && run.number + run.count == number =>
        {
            run.count += 1;
        }
        _ => runs.push(Run { seq, source, number, count: 1 }),
    }
}
