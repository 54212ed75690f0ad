//! `spillq test-consumer`: tries a command against the contract of `exec-stream` (docs/how-to/exec.md), before it gets real lines.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::{Errno, ioctl_fionread};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use spillq_storage::{BlockBuilder, Seq, SourceId};

use super::output::Stdout;
use super::{Exit, Failure};
use crate::cli::{InputForm, TestConsumerArgs};
use crate::plain::{counted, duration, harmless};
use crate::processor::{
    Batch, Epoch, Evidence, Exec, ExecStream, Input, Named, Outcome, Piece, Processor, Program, chunks,
    header,
};
use crate::queue::millis;

/// Between SIGTERM and SIGKILL, as a service has it.
const GRACE: Duration = Duration::from_secs(2);
/// How often a process that should end is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// The long line: more than a pipe or a buffer holds.
const LONG_BYTES: usize = 5 << 20;
/// Of half a batch: less than a pipe holds, so that writing it does not wait for the command.
const HALF_BYTES_MAX: usize = 16 << 10;
/// Lines of a batch of samples; a file of samples may have more.
const SAMPLES_MAX: usize = 1_000;
/// A file of samples is shorter; a log file is not meant.
const SAMPLE_BYTES_MAX: u64 = 16 << 20;

/// One batch, and which of its lines a command may reject.
struct Case {
    name: &'static str,
    lines: Vec<Vec<u8>>,
    /// The index of a line that is not like the samples.
    odd: Option<usize>,
    attempt: u32,
}

/// What a case found.
#[derive(Debug, Serialize)]
struct Found {
    case: &'static str,
    passed: bool,
    found: String,
}

/// Runs all cases, and prints what each found. Ends with status 1 if the command breaks the contract.
///
/// # Errors
/// If there is no command, or the samples cannot be read.
pub fn run(args: &TestConsumerArgs) -> Result<Exit, Failure> {
    let words: Vec<String> = args.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if words.first().is_none_or(String::is_empty) {
        return Err(Failure::could_not_run("there is no command to test")
            .hint("spillq test-consumer -- ./consumer.py"));
    }
    let samples = samples(args.lines.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::could_not_run("could not start the runtime").because(error))?;
    let mut out = Stdout::stdout();
    let (mut broken, mut left_out) = (0, 0);
    let written = runtime.block_on(async {
        let mut report = |found: Found| {
            broken += u64::from(!found.passed);
            match args.json {
                true => out.json(&found),
                false => {
                    let verdict = if found.passed { "ok    " } else { "BROKEN" };
                    out.line(format!("{verdict}  {}: {}", found.case, found.found))
                }
            }
        };
        let mut tester = Tester::new(args, &words);
        let mut all = cases(&samples).into_iter();
        while let Some(case) = all.next() {
            let found = tester.deliver(&case).await;
            let is_first = case.odd.is_none() && !found.passed;
            report(found)?;
            if is_first {
                // Without a batch that it acks, nothing else says anything. Two more follow the batches.
                left_out = all.len() as u64 + 2;
                return Ok(());
            }
        }
        report(tester.end().await)?;
        report(tester.terminated(&words, &samples))
    });
    let exit = out.end(written)?;
    if broken == 0 {
        return Ok(exit);
    }
    let left_out = match left_out {
        0 => String::new(),
        cases => format!(", and {} were not tried, as it acks no batch", counted(cases, "case")),
    };
    let broken = counted(broken, "case");
    Err(Failure::new(Exit::No, format!("the command breaks the contract in {broken}{left_out}")).hint(
        "docs/how-to/exec.md#exec-stream has the contract; --lines FILE gives the command lines that it accepts, --input ndjson passes \
         them as JSON objects",
    ))
}

/// The lines of the file, or some that most programs accept.
fn samples(file: Option<&std::path::Path>) -> Result<Vec<Vec<u8>>, Failure> {
    let Some(file) = file else {
        return Ok((1..=3).map(|n| format!("{{\"n\": {n}}}").into_bytes()).collect());
    };
    let fail = |error: io::Error| {
        Failure::could_not_run(format!("could not read {}", file.display())).because(error)
    };
    let mut text = Vec::new();
    // Bounded while it is read, as a device has no length.
    File::open(file).and_then(|file| file.take(SAMPLE_BYTES_MAX).read_to_end(&mut text)).map_err(fail)?;
    if text.len() as u64 == SAMPLE_BYTES_MAX {
        return Err(Failure::could_not_run(format!("{} is too long for samples", file.display()))
            .hint("some lines are enough: head -n 100"));
    }
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let samples: Vec<Vec<u8>> = lines.take(SAMPLES_MAX).map(<[u8]>::to_vec).collect();
    match samples.is_empty() {
        true => Err(Failure::could_not_run(format!("{} has no line", file.display()))),
        false => Ok(samples),
    }
}

fn cases(samples: &[Vec<u8>]) -> Vec<Case> {
    let first = samples.first().cloned().unwrap_or_default();
    let all = |name, attempt| Case { name, lines: samples.to_vec(), odd: None, attempt };
    let among = |name, odd: Vec<u8>| Case {
        name,
        lines: vec![first.clone(), odd, first.clone()],
        odd: Some(1),
        attempt: 1,
    };
    vec![
        all("acks a batch", 1),
        all("acks the next one", 1),
        all("acks lines that are delivered again", 2),
        Case { name: "acks a batch of one line", lines: vec![first.clone()], odd: None, attempt: 1 },
        among("an empty line", Vec::new()),
        among("bytes that are not UTF-8", b"{\"n\": \"\xc3\x28 \x80\"}".to_vec()),
        among("a line of 5 MiB", vec![b'x'; LONG_BYTES]),
        all("acks a batch after these", 1),
    ]
}

/// A command under test.
struct Tester {
    stream: ExecStream,
    input: Input,
    timeout: Duration,
    next_seq: u64,
}

impl Tester {
    fn new(args: &TestConsumerArgs, words: &[String]) -> Tester {
        let named = Named { path: "/var/log/sample.log".to_owned(), ..Named::default() };
        let input = match args.input {
            InputForm::Lines => Input::Lines,
            InputForm::Ndjson => Input::Ndjson(Arc::new(move |_| Some(named.clone()))),
        };
        let program = Program::new(words.to_vec(), PathBuf::from(Exec::OWN_BINARY), GRACE);
        let stream = ExecStream::new(program, input.clone(), Epoch::default(), Duration::ZERO);
        Tester { stream, input, timeout: args.timeout, next_seq: 1 }
    }

    fn batch(&mut self, case: &Case) -> Option<Batch> {
        let raw: Vec<u8> = case.lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
        let mut builder = BlockBuilder::new();
        let offset = self.next_seq * 100;
        builder.push_whole(SourceId(1), offset, &raw, u32::try_from(case.lines.len()).unwrap_or(u32::MAX));
        let block = Arc::new(builder.build(0).numbered(1, Seq(self.next_seq)));
        self.next_seq = block.range().last.next().0;
        let piece = Piece::new(Arc::clone(&block), block.range())?;
        Batch::new("test".into(), case.attempt, vec![piece])
    }

    async fn deliver(&mut self, case: &Case) -> Found {
        let Some(batch) = self.batch(case) else {
            return Found { case: case.name, passed: false, found: "the batch could not be made".to_owned() };
        };
        let began = Instant::now();
        let answer = tokio::time::timeout(self.timeout, self.stream.process(&batch)).await;
        let judged = match answer {
            Ok(outcome) => judge(case, &batch, outcome),
            Err(_) => {
                let seen = self.stream.interrupted().unwrap_or_default();
                let what = match seen.summary.is_empty() {
                    true => format!("no answer within {}", duration(millis(began.elapsed()))),
                    false => shown(&seen),
                };
                // It is started anew for the next case.
                Err(match self.stream.end().await {
                    Ok(()) => {
                        format!("{what}; is each answer flushed, and does it read no more than `bytes`?")
                    }
                    Err(evidence) => format!("{what}; and it cannot be ended: {}", shown(&evidence)),
                })
            }
        };
        let (passed, found) = judged.map_or_else(|wrong| (false, wrong), |right| (true, right));
        Found { case: case.name, passed, found }
    }

    /// The end of its input ends it.
    async fn end(&mut self) -> Found {
        let began = Instant::now();
        let (passed, found) = match self.stream.end().await {
            Ok(()) if began.elapsed() < GRACE => {
                (true, format!("ended after {}", duration(millis(began.elapsed()))))
            }
            Ok(()) => (false, format!("had to be killed after {}", duration(millis(began.elapsed())))),
            Err(evidence) => (false, shown(&evidence)),
        };
        Found { case: "ends when its input ends", passed, found }
    }

    /// SIGTERM in the middle of a batch ends it, without an ack.
    fn terminated(&mut self, words: &[String], samples: &[Vec<u8>]) -> Found {
        let case =
            Case { name: "SIGTERM in the middle of a batch", lines: samples.to_vec(), odd: None, attempt: 1 };
        let (passed, found) = match self.half_a_batch(words, &case) {
            Ok(Ok(right)) => (true, right),
            Ok(Err(wrong)) => (false, wrong),
            Err(error) => (false, format!("it could not be tried: {error}")),
        };
        Found { case: case.name, passed, found }
    }

    fn half_a_batch(&mut self, words: &[String], case: &Case) -> io::Result<Result<String, String>> {
        let Some(batch) = self.batch(case) else {
            return Err(io::Error::other("the batch could not be made"));
        };
        let body = chunks(&batch, &self.input)?.concat();
        let header = header(&batch, body.len() as u64, &Epoch::default().to_string())?;
        let (program, arguments) =
            words.split_first().ok_or_else(|| io::Error::other("there is no command"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Of its own, as under a service: a signal reaches what it has started, and not this program.
            .process_group(0)
            .spawn()?;
        let group = Pid::from_child(&child);
        let mut stdin = child.stdin.take().ok_or_else(|| io::Error::other("no pipe to it"))?;
        let part = body.get(..HALF_BYTES_MAX.min(body.len() / 2)).unwrap_or_default();
        let written = stdin.write_all(&[&header, part].concat());
        let read = written.and_then(|()| until(GRACE, || Ok((ioctl_fionread(&stdin)? == 0).then_some(()))));
        // Whether it has read all of it or not: it has to end.
        let told = kill_process_group(group, Signal::TERM);
        let ended = until(GRACE, || child.try_wait());
        drop(stdin);
        let left = kill_process_group(group, Signal::KILL);
        let said = child.wait_with_output()?.stdout;
        // Of a group without processes they say so, which is what is hoped for here.
        for result in [told, left] {
            if let Err(error) = result
                && error != Errno::SRCH
            {
                return Err(error.into());
            }
        }
        let said = harmless(&String::from_utf8_lossy(&said));
        Ok(match (ended?, read) {
            (None, _) => Err(format!("it did not end within {}, and was killed", duration(millis(GRACE)))),
            (Some(status), Err(error)) => Err(format!("it ended with {status} before it had read: {error}")),
            (Some(_), _) if said.lines().any(|line| line.starts_with("OK")) => {
                Err(format!("it said {:?} of a batch of which it had half", said.trim()))
            }
            (Some(status), Ok(None)) => Ok(format!("ended with {status}, without reading")),
            (Some(status), Ok(Some(()))) => Ok(format!("ended with {status}, without an ack")),
        })
    }
}

/// What `look` finds, looking again until then; `None` if it takes longer than `most`.
fn until<T>(most: Duration, mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    let began = Instant::now();
    loop {
        match look()? {
            Some(found) => return Ok(Some(found)),
            None if began.elapsed() > most => return Ok(None),
            None => std::thread::sleep(LOOK),
        }
    }
}

/// Whether the answer is one that the contract has for this batch.
fn judge(case: &Case, batch: &Batch, outcome: Outcome) -> Result<String, String> {
    let odd = case.odd.and_then(|index| batch.nth(index as u64));
    let place = |seq: Seq| seq.0 - batch.range().first.0 + 1;
    let lines = case.lines.len();
    let named = |seqs: &[Seq], reason: &str| match (odd, seqs) {
        (Some(odd), [only]) if *only == odd => {
            Ok(format!("rejected line {} of {lines}: {reason}", place(odd)))
        }
        (Some(odd), _) => {
            let places: Vec<String> = seqs.iter().map(|seq| place(*seq).to_string()).collect();
            Err(format!(
                "says that line {} of the batch is bad, and it is line {}: lines are counted from 1",
                places.join(", "),
                place(odd)
            ))
        }
        (None, _) => Err(format!("rejects a sample: {reason}")),
    };
    match outcome {
        Outcome::Done if odd.is_some() => Ok("acked all lines, the odd one too".to_owned()),
        Outcome::Done => Ok(format!("acked {}", counted(lines as u64, "line"))),
        Outcome::DoneExcept(rejected) => {
            let seqs: Vec<Seq> = rejected.iter().map(|line| line.seq).collect();
            let reason = rejected.first().map(|line| line.reason.clone()).unwrap_or_default();
            named(&seqs, &reason).map(|found| format!("{found}; and acked the others"))
        }
        Outcome::BadLine(seq, evidence) => named(&[seq], &shown(&evidence)),
        Outcome::Poison(evidence) | Outcome::TooLarge(evidence) => match odd {
            Some(_) => Ok(format!(
                "rejected the batch without naming a line, which then is bisected: {}",
                shown(&evidence)
            )),
            None => Err(format!("rejects the samples: {}", shown(&evidence))),
        },
        Outcome::Later(pause, evidence) => {
            Err(format!("asks for a pause of {}: {}", duration(millis(pause)), shown(&evidence)))
        }
        Outcome::Failed(evidence)
        | Outcome::Down(evidence)
        | Outcome::OutOfMemory(_, evidence)
        | Outcome::Refused(evidence) => Err(shown(&evidence)),
    }
}

/// The summary, and the last line that the command printed.
fn shown(Evidence { summary, tail }: &Evidence) -> String {
    match tail.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(last) => format!("{summary}; it printed: {}", last.trim()),
        None => summary.clone(),
    }
}
