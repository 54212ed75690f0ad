//! Runs a command for each batch: exit status 0 acks it.
//!
//! One process per batch, through the shim (`shim.rs`), which costs a few milliseconds. So while a batch is processed and the
//! lines after it are known, the next shim is started and their file is written. The batch is complete before the command
//! starts. Its standard output is ours, its standard error is passed on to ours, and the last
//! [`EVIDENCE_BYTES_MAX`](super::EVIDENCE_BYTES_MAX) bytes of it are kept as evidence.
//!
//! Dropping the future ends the command with all its descendants: SIGTERM, and SIGKILL after the grace period. Two
//! commands never run at once: the next batch waits until the previous shim has ended, and fails if that takes too
//! long. It must never act on a process that the command did not start.
//!
//! Not covered: work that a command passes to another program (a service manager, a container runtime, `at`);
//! processes of another user that we may not signal (they are waited for, and no command starts meanwhile); and descendants of
//! the command, though not the command itself, if both the shim and the service are killed with SIGKILL, or if the shim
//! is killed and they have cleared their environment.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, getrlimit};
use spillq_storage::SeqRange;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::command::{Launcher, Waiting, cut_off};
use super::dump::{self, Dump, Sent};
use super::evidence::Tail;
use super::input::{Input, memfd, memfd_of};
use super::passthrough::{Passthrough, WholeLines};
use super::report::{REPORT_BYTES_MAX, Report};
use super::{Batch, Epoch, Evidence, Outcome, Piece, Prepare, Processing, Processor, Program};
use crate::file_limit::explained;

/// How long the rest of the standard error is read once all processes of a command have ended. The end of file comes at
/// once, unless an unknown process holds the pipe open.
const STDERR_DRAIN: Duration = Duration::from_millis(100);
/// How much is read at once; a pipe holds 64 KiB.
const STDERR_CHUNK_BYTES: usize = 8 * 1024;
/// Below this limit of descriptors nothing is prepared: that takes three.
const DESCRIPTORS_MIN: u64 = 256;
/// EX_DATAERR of sysexits.h: the command rejects the lines.
const EXIT_POISON: i32 = 65;

/// A command that is run for each batch.
#[derive(Debug)]
pub struct Exec {
    launcher: Launcher,
    input: Input,
    epoch: Epoch,
    passthrough: Passthrough,
    interrupted: Option<Evidence>,
    next: Arc<Next>,
}

/// What is prepared for the next batch.
#[derive(Debug)]
struct Next {
    program: Program,
    input: Input,
    prepared: Mutex<Prepared>,
}

#[derive(Debug, Default)]
struct Prepared {
    shim: Option<Waiting>,
    /// The oldest first. Two, as the lines after the next ones may be read before the next ones are leased.
    files: VecDeque<InputFile>,
}

/// Lines as a file in memory.
#[derive(Debug)]
struct InputFile {
    ranges: Vec<SeqRange>,
    file: OwnedFd,
    bytes: u64,
}

/// Files that are prepared at most.
const FILES_MAX: usize = 2;

impl Next {
    fn prepared(&self) -> MutexGuard<'_, Prepared> {
        // After a panic of another holder each part is whole.
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shim, and the file of this batch. Those before it are not needed any more.
    fn take(&self, batch: &Batch) -> (Option<Waiting>, Option<InputFile>) {
        let mut prepared = self.prepared();
        let ranges = || batch.pieces().iter().map(Piece::range);
        let at = prepared.files.iter().position(|file| ranges().eq(file.ranges.iter().copied()));
        let file = at.and_then(|at| prepared.files.drain(..=at).next_back());
        (prepared.shim.take(), file)
    }

    /// Starts the shim of the next batch, if there is one to start for.
    fn start_shim(&self) {
        if self.prepared().shim.is_none() {
            // Not under the lock: it takes a while.
            let shim = Waiting::start(&self.program, Stdio::inherit()).ok();
            self.prepared().shim = shim;
        }
    }
}

impl Prepare for Next {
    /// An error here leaves it to the delivery to try again, and to say why it fails.
    fn prepare(&self, pieces: &[Piece]) {
        if getrlimit(Resource::Nofile).current.is_some_and(|limit| limit < DESCRIPTORS_MIN) {
            return;
        }
        // Objects have the number of the attempt, which only the lease knows.
        if matches!(self.input, Input::Lines)
            && let Ok((file, bytes)) = memfd_of(pieces)
        {
            let ranges = pieces.iter().map(Piece::range).collect();
            let mut prepared = self.prepared();
            prepared.files.push_back(InputFile { ranges, file, bytes });
            while prepared.files.len() > FILES_MAX {
                prepared.files.pop_front();
            }
        }
        self.start_shim();
    }
}

impl Exec {
    /// The binary of this process, for use as the shim. It works even if the file was replaced or removed.
    pub const OWN_BINARY: &str = "/proc/self/exe";

    /// Will run `program`. The seqs of the batches belong to `epoch`.
    #[must_use]
    pub fn new(program: Program, input: Input, epoch: Epoch) -> Exec {
        let next = Next { program: program.clone(), input: input.clone(), prepared: Mutex::default() };
        Exec {
            next: Arc::new(next),
            launcher: Launcher::new(program),
            input,
            epoch,
            passthrough: Passthrough::to_messages(),
            interrupted: None,
        }
    }

    /// Waits until no process of the latest command is alive. Call it if its future was dropped and no other batch
    /// follows. Takes at most the grace period and 7 seconds.
    ///
    /// # Errors
    /// Names the processes that do not end. The command must not be run again while there are any.
    pub async fn end(&mut self) -> Result<(), Evidence> {
        self.launcher.end().await
    }

    async fn run(&mut self, batch: &Batch) -> Outcome {
        self.interrupted = None;
        if let Err(evidence) = self.end().await {
            return Outcome::Failed(evidence);
        }
        match self.attempt(batch).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(Evidence::new(format!(
                "{} could not be started on {}: {}",
                self.launcher.program(),
                batch.named(),
                // A batch is a file in memory, to which the limit on file size applies too.
                explained(&error)
            ))),
        }
    }

    async fn attempt(&mut self, batch: &Batch) -> io::Result<Outcome> {
        let (shim, file) = self.next.take(batch);
        let (stdin, bytes) = match file {
            Some(InputFile { file, bytes, .. }) => (file, bytes),
            None => {
                let (copy, input) = (batch.clone(), self.input.clone());
                let written = tokio::task::spawn_blocking(move || memfd(&copy, &input)).await;
                written.map_err(io::Error::other)??
            }
        };
        let range = batch.range();
        let variables = [
            ("SPILLQ_LINES", batch.line_count().to_string()),
            ("SPILLQ_BYTES", bytes.to_string()),
            ("SPILLQ_FIRST_SEQ", range.first.to_string()),
            ("SPILLQ_LAST_SEQ", range.last.to_string()),
            ("SPILLQ_EPOCH", self.epoch.to_string()),
            ("SPILLQ_GROUP", batch.group().to_owned()),
            ("SPILLQ_ATTEMPT", batch.attempt().to_string()),
        ];
        self.launcher.begin_batch();
        let mut dump = self.launcher.dump(batch);
        let (control, child) = self.launcher.start(shim, Stdio::inherit(), &variables, stdin)?;
        let stderr = child.stderr.take();
        if !self.next.prepared().files.is_empty() {
            let next = Arc::clone(&self.next);
            drop(tokio::task::spawn_blocking(move || next.start_shim()));
        }
        let program = self.launcher.program();
        let mut watch = Watch {
            shim: self.launcher.shim_pid(),
            what: format!("{program} was cut off on {}", batch.named()),
            since: Instant::now(),
            tail: Tail::default(),
            finished: false,
            dumped: None,
            interrupted: &mut self.interrupted,
            control,
        };
        let shown = self.passthrough.of(batch.group());
        let report = watch.until_report(stderr, shown, &mut dump).await;
        // The shim has ended or is about to: the report is the last thing that it does.
        let end = self.launcher.bury(report).await?;
        // After the signal, an exit status that is an answer still counts. Any other end counts as the hang.
        let says_nothing =
            !matches!(end.code, Some(0 | EXIT_POISON)) && !end.is_refused() && end.oom.is_none();
        if says_nothing && watch.dumped.as_ref().is_some_and(|sent| sent.has_reached) {
            // Some programs end after they have printed where they hang. They are cut off like those that continue to run.
            (watch.what, watch.shim) = (format!("{program} {} on {}", end.what, batch.named()), None);
            std::future::pending::<()>().await;
        }
        watch.finished = true;
        let tail = watch.tail.text();
        let evidence = Evidence { summary: format!("{program} {} on {}", end.what, batch.named()), tail };
        Ok(match end.code {
            Some(0) => Outcome::Done,
            _ if let Some(oom) = end.oom => Outcome::OutOfMemory(oom, evidence),
            Some(EXIT_POISON) => Outcome::Poison(evidence),
            _ if end.is_refused() => Outcome::Refused(evidence),
            _ => Outcome::Failed(evidence),
        })
    }
}

impl Processor for Exec {
    fn name(&self) -> String {
        format!("exec {}", self.about())
    }

    fn about(&self) -> String {
        self.launcher.words()
    }

    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a> {
        Box::pin(self.run(batch))
    }

    fn prepares(&self) -> Option<Arc<dyn Prepare>> {
        Some(Arc::clone(&self.next) as Arc<dyn Prepare>)
    }

    fn interrupted(&mut self) -> Option<Evidence> {
        self.interrupted.take()
    }
}

/// Watches a command. If it is dropped before the command has finished, it notes where the command hangs. Then `control`
/// closes, and the shim ends the command.
struct Watch<'a> {
    shim: Option<Pid>,
    what: String,
    since: Instant,
    tail: Tail,
    finished: bool,
    /// The result of the signal that is sent before the time-out.
    dumped: Option<Sent>,
    interrupted: &'a mut Option<Evidence>,
    control: UnixStream,
}

impl Watch<'_> {
    /// Reads the shim's report, and meanwhile the standard error.
    async fn until_report(
        &mut self,
        mut stderr: Option<impl AsyncRead + Unpin>,
        mut shown: WholeLines,
        dump: &mut Option<Dump>,
    ) -> Option<Report> {
        let mut text = Vec::new();
        let mut buffer = vec![0; STDERR_CHUNK_BYTES];
        {
            let mut control = (&mut self.control).take(REPORT_BYTES_MAX);
            let report = control.read_to_end(&mut text);
            tokio::pin!(report);
            loop {
                tokio::select! {
                    read = read_some(&mut stderr, &mut buffer), if stderr.is_some() => match read {
                        Some(chunk) => {
                            self.tail.push(chunk);
                            shown.push(chunk);
                        }
                        None => stderr = None,
                    },
                    sent = dump::sent(dump, self.shim) => self.dumped = Some(sent),
                    // After an error the report is missing or incomplete.
                    _ = &mut report => break,
                }
            }
        }
        let drain = async {
            while let Some(chunk) = read_some(&mut stderr, &mut buffer).await {
                self.tail.push(chunk);
                shown.push(chunk);
            }
        };
        let _ = timeout(STDERR_DRAIN, drain).await;
        Report::parse(&text)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let summary = cut_off(&self.what, self.since, self.shim, self.dumped.as_ref());
        *self.interrupted = Some(Evidence { summary, tail: self.tail.text() });
    }
}

/// The next bytes; `None` at the end, after an error, and without a stream.
async fn read_some<'b>(from: &mut Option<impl AsyncRead + Unpin>, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let read = from.as_mut()?.read(buffer).await.ok()?;
    buffer.get(..read).filter(|chunk| !chunk.is_empty())
}
