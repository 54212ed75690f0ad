//! Runs one long-lived command: each batch is a header line and the lines, and each answer is one line.
//!
//! The header is one JSON object: `lines`, `bytes` (what follows the header's newline), `first_seq`, `last_seq`, `epoch`,
//! `group`, `attempt`. The answer is `OK LAST_SEQ`; `OK LAST_SEQ BAD [{"n":3,"reason":"…"}]`: done, except these lines of
//! the batch, counted from 1; `NAK REASON` (the batch is delivered again); `NAK N REASON`: the N-th line is bad, and *all*
//! lines of the batch are delivered again, cut there; or `LATER MS REASON`. An answer has at most [`REPLY_BYTES_MAX`] bytes.
//! The command must read the whole batch, whatever it answers.
//!
//! `OK` alone is enough for commands that answer once. A command that may answer twice must name the batch: its second
//! answer could be read after the next header was sent, and would ack lines that it has not seen. So a command that
//! has named one batch must name all. An `OK` that comes before the command can have read the batch acks nothing.
//!
//! The command is started at the first batch through the shim, like that of `exec`, and ends with the service. It is
//! ended with all its descendants when the future is dropped (the group's time-out) and after anything that is not an
//! answer: the next bytes could be mistaken for the answer to another batch. It is started again at the next batch, after a
//! pause that doubles while it fails. Its standard output is for answers only; its standard error is free.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::io::ioctl_fionread;
use rustix::process::Pid;
use serde::Serialize;
use spillq_storage::Seq;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::ChildStdout;
use tokio::time::sleep;

use super::command::{Launcher, cut_off};
use super::dump::{self, Sent};
use super::input::{Input, chunks};
use super::reply::{REPLY_BYTES_MAX, Reply};
use super::report::{REPORT_BYTES_MAX, Report};
use super::stderr::Stderr;
use super::{Batch, Epoch, Evidence, Outcome, Processing, Processor, Program};

/// The pause before the first start that follows a failure.
const RESTART_INITIAL: Duration = Duration::from_millis(50);
/// How much of an answer is read at once: most are a few bytes.
const READ_BYTES: usize = 4 * 1024;
/// Doublings that are counted: beyond any longest pause.
const DOUBLINGS_MAX: u32 = 10;

/// A command that processes one batch after the other.
#[derive(Debug)]
pub struct ExecStream {
    launcher: Launcher,
    input: Input,
    epoch: String,
    restart_max: Duration,
    /// Starts in a row that ended without an answer.
    failures: u32,
    running: Option<Running>,
    interrupted: Option<Evidence>,
}

/// A running command. When it is dropped, `control` closes, and the shim ends the command.
#[derive(Debug)]
struct Running {
    control: UnixStream,
    stdin: pipe::Sender,
    stdout: ChildStdout,
    stderr: Stderr,
    /// It has named a batch in an answer.
    names_batches: bool,
}

#[derive(Serialize)]
struct Header<'a> {
    lines: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    epoch: &'a str,
    group: &'a str,
    attempt: u32,
}

/// The header of a batch, with its newline. `bytes` are those of the lines that follow.
pub(crate) fn header(batch: &Batch, bytes: u64, epoch: &str) -> io::Result<Vec<u8>> {
    let range = batch.range();
    let mut header = serde_json::to_vec(&Header {
        lines: batch.line_count(),
        bytes,
        first_seq: range.first.0,
        last_seq: range.last.0,
        epoch,
        group: batch.group(),
        attempt: batch.attempt(),
    })?;
    header.push(b'\n');
    Ok(header)
}

/// Why an answer is missing.
pub(super) enum NoAnswer {
    /// The command and its shim have ended.
    Ended,
    /// It wrote something that is not an answer.
    Garbage(String),
}

impl ExecStream {
    /// Will run `program` as [`Exec`](super::Exec) does. `restart_max` is the longest pause before a start that follows
    /// failures; it counts towards the group's time-out.
    #[must_use]
    pub fn new(program: Program, input: Input, epoch: Epoch, restart_max: Duration) -> ExecStream {
        let launcher = Launcher::new(program);
        ExecStream {
            launcher,
            input,
            epoch: epoch.to_string(),
            restart_max,
            failures: 0,
            running: None,
            interrupted: None,
        }
    }

    /// Ends the command and waits until none of its processes is alive. Takes at most the grace period and 7 seconds.
    ///
    /// # Errors
    /// Names the processes that do not end.
    pub async fn end(&mut self) -> Result<(), Evidence> {
        self.running = None;
        self.launcher.end().await
    }

    async fn run(&mut self, batch: &Batch) -> Outcome {
        self.interrupted = None;
        match self.attempt(batch).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let program = self.launcher.program();
                Outcome::Failed(Evidence::new(format!(
                    "{program} could not be given {}: {error}",
                    batch.named()
                )))
            }
        }
    }

    async fn attempt(&mut self, batch: &Batch) -> io::Result<Outcome> {
        let (copy, input) = (batch.clone(), self.input.clone());
        let chunks =
            tokio::task::spawn_blocking(move || chunks(&copy, &input)).await.map_err(io::Error::other)??;
        let mut running = match self.take_running().await? {
            Some(running) => running,
            None => {
                if let Err(evidence) = self.launcher.end().await {
                    return Ok(Outcome::Failed(evidence));
                }
                sleep(self.pause()).await;
                self.start(batch.group())?
            }
        };
        self.launcher.begin_batch();
        let mut dump = self.launcher.dump(batch);
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let header = header(batch, bytes, &self.epoch)?;
        let program = self.launcher.program();
        let answer = {
            let mut hang = Hang {
                shim: self.launcher.shim_pid(),
                what: format!("{program} gave no answer on {}", batch.named()),
                since: Instant::now(),
                stderr: &running.stderr.clone(),
                finished: false,
                dumped: None,
                interrupted: &mut self.interrupted,
            };
            let answer = {
                let mut exchange = pin!(running.exchange(header.into(), chunks));
                loop {
                    tokio::select! {
                        answer = &mut exchange => break answer,
                        sent = dump::sent(&mut dump, hang.shim) => hang.dumped = Some(sent),
                    }
                }
            };
            if hang.dumped.as_ref().is_some_and(|sent| sent.has_reached)
                && matches!(answer, Err(NoAnswer::Ended))
            {
                // As in `exec`: the command may end after it has printed where it hangs.
                std::future::pending::<()>().await;
            }
            hang.finished = true;
            answer
        };
        let evidence = |what: String, tail: String| Evidence {
            summary: format!("{program} {what} on {}", batch.named()),
            tail,
        };
        let fault = match answer {
            Ok(reply) => match running.misnamed(&reply, batch.range().last) {
                None => {
                    // What a command prints about a batch that is done is no evidence.
                    let tail = if reply.acks() { String::new() } else { running.stderr.tail().await };
                    (self.failures, self.running) = (0, Some(running));
                    return Ok(reply.outcome(batch, &program, tail));
                }
                Some(what) => NoAnswer::Garbage(what),
            },
            Err(fault) => fault,
        };
        self.failures = self.failures.saturating_add(1);
        Ok(match fault {
            NoAnswer::Garbage(what) => Outcome::Failed(evidence(what, running.stderr.tail().await)),
            NoAnswer::Ended => {
                let report = running.report().await;
                let end = self.launcher.bury(report).await?;
                let evidence =
                    evidence(format!("{} before it answered", end.what), running.stderr.end().await);
                match end.oom {
                    Some(oom) => Outcome::OutOfMemory(oom, evidence),
                    None if end.is_refused() => Outcome::Refused(evidence),
                    None => Outcome::Failed(evidence),
                }
            }
        })
    }

    /// The command of the earlier batches; `None` if it has ended, or wrote something between batches.
    async fn take_running(&mut self) -> io::Result<Option<Running>> {
        let Some(mut running) = self.running.take() else { return Ok(None) };
        let program = self.launcher.program();
        if ioctl_fionread(&running.control)? > 0 {
            let report = running.report().await;
            let end = self.launcher.bury(report).await?;
            self.failures = if end.code == Some(0) { 0 } else { self.failures.saturating_add(1) };
            let stderr = running.stderr.end().await;
            tracing::warn!(command = program, stderr, "{} between batches; starting it again", end.what);
            return Ok(None);
        }
        if ioctl_fionread(&running.stdout)? > 0 {
            self.failures = self.failures.saturating_add(1);
            tracing::warn!(
                command = program,
                "the command wrote to standard output between batches; standard output is for answers only; starting it again"
            );
            return Ok(None);
        }
        Ok(Some(running))
    }

    /// How long to wait before the next start.
    fn pause(&self) -> Duration {
        match self.failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => (RESTART_INITIAL * (1 << doublings.min(DOUBLINGS_MAX))).min(self.restart_max),
        }
    }

    fn start(&mut self, group: &str) -> io::Result<Running> {
        // A pipe, not a socket, so that /dev/stdin can be opened.
        let (theirs, ours) = io::pipe()?;
        let (control, child) = self.launcher.start(None, Stdio::piped(), &[], OwnedFd::from(theirs))?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe to its standard output"))?;
        let stderr = Stderr::follow(child.stderr.take(), group);
        let stdin = pipe::Sender::from_owned_fd(ours.into())?;
        Ok(Running { control, stdin, stdout, stderr, names_batches: false })
    }
}

impl Processor for ExecStream {
    fn name(&self) -> String {
        format!("exec-stream {}", self.about())
    }

    fn about(&self) -> String {
        self.launcher.words()
    }

    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a> {
        Box::pin(self.run(batch))
    }

    fn interrupted(&mut self) -> Option<Evidence> {
        let interrupted = self.interrupted.take();
        self.failures = self.failures.saturating_add(u32::from(interrupted.is_some()));
        interrupted
    }
}

impl Running {
    /// Writes a batch and reads the answer at the same time: a command may find a bad line before it has read everything.
    async fn exchange(&mut self, header: Bytes, chunks: Vec<Bytes>) -> Result<Reply, NoAnswer> {
        let Running { stdin, stdout, .. } = self;
        let written = AtomicBool::new(false);
        let write = async {
            for chunk in std::iter::once(header).chain(chunks) {
                if stdin.write_all(&chunk).await.is_err() {
                    // It has ended or closed its input: its answer decides.
                    return Ok(());
                }
            }
            // This is set before the command can have read the last byte, and so before any honest answer.
            written.store(true, Ordering::Release);
            Ok(())
        };
        let answer = async {
            match answer(stdout).await? {
                reply if reply.acks() && !written.load(Ordering::Acquire) => {
                    Err(NoAnswer::Garbage("answered OK before it was given all lines".to_owned()))
                }
                reply => Ok(reply),
            }
        };
        tokio::try_join!(write, answer).map(|((), reply)| reply)
    }

    /// What is wrong with an `OK` that names a batch or does not, for the batch that ends with `last`.
    fn misnamed(&mut self, reply: &Reply, last: Seq) -> Option<String> {
        let named = match reply {
            Reply::Ok(named) => *named,
            Reply::Bad(named, _) => Some(*named),
            Reply::Later(..) | Reply::Nak { .. } => return None,
        };
        match named {
            Some(seq) if seq != last => {
                Some(format!("answered OK {seq}, and the batch ends with line {last}"))
            }
            None if self.names_batches => {
                Some("answered OK alone, and had named its batches before".to_owned())
            }
            named => {
                self.names_batches |= named.is_some();
                None
            }
        }
    }

    /// The shim's report on the end.
    async fn report(&mut self) -> Option<Report> {
        let mut text = Vec::new();
        // After an error the report is missing or incomplete.
        let _ = (&mut self.control).take(REPORT_BYTES_MAX).read_to_end(&mut text).await;
        Report::parse(&text)
    }
}

/// Reads one answer.
pub(super) async fn answer(stdout: &mut (impl AsyncRead + Unpin)) -> Result<Reply, NoAnswer> {
    let mut line = Vec::new();
    let mut buffer = [0; READ_BYTES];
    loop {
        let room = READ_BYTES.min(REPLY_BYTES_MAX - line.len());
        match stdout.take(room as u64).read(&mut buffer).await {
            Ok(read) if read > 0 => line.extend(buffer.iter().take(read)),
            _ => return Err(NoAnswer::Ended),
        }
        if line.contains(&b'\n') || line.len() >= REPLY_BYTES_MAX {
            return Reply::parse(&line).map_err(NoAnswer::Garbage);
        }
    }
}

/// If it is dropped before the answer came, it notes where the command hangs.
struct Hang<'a> {
    shim: Option<Pid>,
    what: String,
    since: Instant,
    stderr: &'a Stderr,
    finished: bool,
    dumped: Option<Sent>,
    interrupted: &'a mut Option<Evidence>,
}

impl Drop for Hang<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let summary = cut_off(&self.what, self.since, self.shim, self.dumped.as_ref());
            *self.interrupted = Some(Evidence { summary, tail: self.stderr.seen() });
        }
    }
}
