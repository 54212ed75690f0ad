//! The receiver: the command that spillq runs for its batches. It judges each line, notes it, and answers.
//!
//! As an `exec` command it gets one batch and ends; as an `exec-stream` command it lives on and answers each. It
//! reads `ndjson`, so that seqs, offsets and attempts are on trial too.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use crate::line;
use crate::notes::{self, Delivery, Run};

/// While this file is among the notes, those that fail on poison fail on everything.
pub const OUTAGE: &str = "outage";

/// What a receiver does.
#[derive(Clone, Debug, clap::Args)]
pub struct Receive {
    /// Where it notes
    #[arg(long)]
    pub notes: PathBuf,
    /// For which group
    #[arg(long)]
    pub group: String,
    /// Live on, and answer each batch
    #[arg(long)]
    pub stream: bool,
    /// Fail on poison lines
    #[arg(long)]
    pub fails_on_poison: bool,
    /// Nobody else may have a batch of the group meanwhile
    #[arg(long)]
    pub strict: bool,
    /// Take so long over each batch, in milliseconds
    #[arg(long, default_value_t = 0)]
    pub slow_ms: u64,
    /// Hang on so many batches, at their first attempt
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

/// Takes what comes on standard input; gives the exit status.
pub fn run(args: &Receive) -> io::Result<u8> {
    fs::create_dir_all(&args.notes)?;
    let mut input = io::stdin().lock();
    if !args.stream {
        let mut body = Vec::new();
        input.read_to_end(&mut body)?;
        return Ok(u8::from(!take(args, &body)?));
    }
    let mut header = String::new();
    while input.read_line(&mut header)? > 0 {
        let Header { bytes, last_seq } = serde_json::from_str(&header).map_err(io::Error::other)?;
        let mut body = vec![0; bytes];
        input.read_exact(&mut body)?;
        let answer =
            if take(args, &body)? { format!("OK {last_seq}") } else { "NAK cannot take it".to_owned() };
        let mut out = io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
        header.clear();
    }
    Ok(0)
}

/// Judges and notes a batch; says whether it is done.
fn take(args: &Receive, body: &[u8]) -> io::Result<bool> {
    let mut batch = Delivery { begun_ns: notes::now_ns(), pid: std::process::id(), ..Delivery::default() };
    let lock = File::create(notes::lock_path(&args.notes, &args.group))?;
    if args.strict && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        batch.complaints.push("I6 another receiver still has a batch of this strict group".to_owned());
    }
    let poison = judge(body, &mut batch);
    batch.note_begin(&args.notes, &args.group)?;
    std::thread::sleep(Duration::from_millis(args.slow_ms));
    if batch.attempt == 1 && hung(&args.notes)? < 2 * args.hangs {
        return Err(hang(&args.notes, batch.first));
    }
    let down = args.notes.join(OUTAGE).exists();
    let done = !(args.fails_on_poison && (poison || down));
    batch.note_end(&args.notes, &args.group, done)?;
    Ok(done)
}

/// Processes that have hung so far.
fn hung(notes: &Path) -> io::Result<u64> {
    match fs::read_to_string(notes.join("hung")) {
        Ok(text) => Ok(text.lines().count() as u64),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Becomes a process that has forked a daemon with a session of its own, minds no SIGTERM, and sleeps or is stopped.
/// Gives why it could not.
fn hang(notes: &Path, first: u64) -> io::Error {
    let how = if first % 2 == 1 { "while :; do sleep 600; done" } else { "kill -STOP $$" };
    let script = format!(
        "trap '' TERM HUP
         (setsid sh -c 'trap \"\" TERM HUP; echo $$ >> {hung}; while :; do sleep 600; done' &)
         echo $$ >> {hung}; {how}",
        hung = notes.join("hung").display()
    );
    Command::new("sh").args(["-c", &script]).exec()
}

/// Reads the lines of a batch; says whether one is poison.
fn judge(body: &[u8], batch: &mut Delivery) -> bool {
    let mut poison = false;
    let mut next = None;
    for line in body.split_inclusive(|byte| *byte == b'\n') {
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
            batch.complaints.push(format!("I3 seq {} came behind {}", object.seq, batch.last));
        }
        batch.last = object.seq;
        next = Some(object.seq + 1);
        let text = object.text.as_deref().unwrap_or_default();
        match line::parse(text) {
            Ok(place) => {
                poison |= place.poison;
                if place.offset != object.offset || object.part.is_some() {
                    let Object { seq, offset, .. } = object;
                    batch
                        .complaints
                        .push(format!("I5 seq {seq}: offset {offset}, and it is {}", place.offset));
                }
                let named = format!("/w{}.log", place.source);
                if object.source.as_str().is_some_and(|path| !path.contains(&named)) {
                    batch
                        .complaints
                        .push(format!("I5 seq {}: of {}, and it is {named}", object.seq, object.source));
                }
                push(&mut batch.runs, object.seq, place.source, place.number);
            }
            Err(what) => batch.complaints.push(format!("I4 seq {}: {what}", object.seq)),
        }
    }
    poison
}

/// Adds a line to the run before it, where it follows that.
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
