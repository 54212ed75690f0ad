//! The exec-stream processor with a real Python that answers, lies, hangs and dies.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spillq::processor::{Batch, Epoch, Evidence, ExecStream, Input, Outcome, Piece, Processor, Program};
use spillq_storage::Seq;
use tokio::time::timeout;

use crate::sample;
use crate::support::{
    Bounded, PATIENCE, SMALL_STORE, Service, binary, needs, program, spillq, wait_for, write_config,
};

const GRACE: Duration = Duration::from_millis(200);
const RESTART_MAX: Duration = Duration::from_millis(200);

/// The beginning of every program here: it reads batches, and writes a line to standard error at each start.
const READ: &str = "import json, os, sys, time
print('start', os.getpid(), file=sys.stderr, flush=True)
def say(text):
    print(text, flush=True)
def batches():
    while header := sys.stdin.buffer.readline():
        header = json.loads(header)
        yield header, sys.stdin.buffer.read(header['bytes'])
";

fn python(program: &str) -> ExecStream {
    let command = ["python3", "-c", &format!("{READ}{program}")].map(str::to_owned).to_vec();
    ExecStream::new(Program::new(command, binary(), GRACE), Input::Lines, Epoch::default(), RESTART_MAX)
}

fn batch_of(ranges: &[(u64, u64)]) -> Batch {
    let block = sample::block(10, &[b"one", b"two", b"three", b"four", b"five"]);
    Batch::new(Arc::from("default"), 2, sample::pieces(&block, ranges, Piece::new)).unwrap()
}

fn batch() -> Batch {
    batch_of(&[(10, 12)])
}

async fn process(stream: &mut ExecStream, batch: &Batch) -> Outcome {
    timeout(PATIENCE, stream.process(batch)).await.expect("an answer in time")
}

#[track_caller]
fn failed(outcome: Outcome) -> Evidence {
    match outcome {
        Outcome::Failed(evidence) => evidence,
        other => panic!("expected a failure, not {other:?}"),
    }
}

#[tokio::test]
async fn one_process_gets_every_batch_with_its_header() {
    needs!("python3");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut stream = python(&format!(
        "for header, data in batches():
    with open('{}', 'a') as out: print(os.getpid(), json.dumps(header), data, file=out)
    say('OK')",
        out.display()
    ));
    assert_eq!(process(&mut stream, &batch()).await, Outcome::Done);
    assert_eq!(process(&mut stream, &batch_of(&[(10, 10), (13, 14)])).await, Outcome::Done);
    stream.end().await.unwrap();
    let text = fs::read_to_string(out).unwrap();
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(lines[0].0, lines[1].0, "the same process");
    assert_eq!(
        [lines[0].1, lines[1].1],
        [
            r#"{"lines": 3, "bytes": 14, "first_seq": 10, "last_seq": 12, "epoch": "0-0000000000000000-0", "group": "default", "attempt": 2} b'one\ntwo\nthree\n'"#,
            r#"{"lines": 3, "bytes": 14, "first_seq": 10, "last_seq": 14, "epoch": "0-0000000000000000-0", "group": "default", "attempt": 2} b'one\nfour\nfive\n'"#,
        ]
    );
}

#[tokio::test]
async fn an_answer_names_the_bad_line_and_the_process_continues() {
    needs!("python3");
    let mut stream = python(
        "print('hint', file=sys.stderr, flush=True)
for number, (header, data) in enumerate(batches()):
    say(['NAK no database', 'NAK 2 no such coin', 'OK'][number])",
    );
    let evidence = failed(process(&mut stream, &batch()).await);
    assert_eq!(evidence.summary, "python3 answered NAK no database on lines 10-12");
    assert!(evidence.tail.ends_with("hint\n"), "{}", evidence.tail);
    let Outcome::BadLine(seq, evidence) = process(&mut stream, &batch_of(&[(10, 10), (13, 14)])).await else {
        panic!("a line is blamed");
    };
    assert_eq!(seq, Seq(13), "the second line of the batch, whatever is between them");
    assert_eq!(evidence.summary, "python3 says that line 13 is bad: no such coin on lines 10-14");
    assert_eq!(process(&mut stream, &batch()).await, Outcome::Done);
}

#[tokio::test]
async fn an_answer_lists_the_bad_lines_and_the_others_are_done() {
    needs!("python3");
    let mut stream = python(
        "answers = ['BAD [{\"n\":3,\"reason\":\"no such coin\"},{\"n\":1,\"reason\":\"\\\\u001b[2J\"}]', 'BAD []',
    'BAD [{\"n\":0}]', 'BAD [{\"n\":4}]']
for header, data in batches(): say('OK ' + str(header['last_seq']) + ' ' + answers.pop(0))",
    );
    let Outcome::DoneExcept(rejected) = process(&mut stream, &batch_of(&[(10, 10), (13, 14)])).await else {
        panic!("two lines are bad");
    };
    let rejected: Vec<_> = rejected.iter().map(|line| (line.seq.0, line.reason.as_str())).collect();
    let expected = [
        (10, "python3 says that line 10 is bad: ?[2J"),
        (14, "python3 says that line 14 is bad: no such coin"),
    ];
    assert_eq!(rejected, expected, "in the order of the lines, and safe on a terminal");
    assert_eq!(process(&mut stream, &batch()).await, Outcome::Done);
    // A number that no line has: it may count from 0, and nothing of the list can be believed.
    for number in [0, 4] {
        let Outcome::Poison(evidence) = process(&mut stream, &batch()).await else {
            panic!("the batch is blamed");
        };
        let expected = format!("python3 says that line {number} of lines 10-12 is bad, and that has 3 lines");
        assert_eq!(evidence.summary, expected);
    }
}

#[tokio::test]
async fn an_answer_asks_for_a_pause() {
    needs!("python3");
    let mut stream = python("for header, data in batches(): say('LATER 5000 the database restarts')");
    let Outcome::Later(wait, evidence) = process(&mut stream, &batch()).await else {
        panic!("it asks for a pause");
    };
    assert_eq!(wait, Duration::from_secs(5));
    assert_eq!(evidence.summary, "python3 answered LATER 5000 the database restarts on lines 10-12");
}

/// Once a number was right, each batch is delivered once, however many of its lines are bad.
#[test]
fn listed_lines_become_dead_letters_and_no_batch_is_delivered_twice_for_them() {
    needs!("python3");
    const LINES: u64 = 6_000;
    const BATCH: u64 = 500;
    let is_bad = |number: u64| number.is_multiple_of(97) || number == 98;
    let folder = tempfile::tempdir().unwrap();
    let lines: String =
        (1..=LINES).map(|number| format!("{number}{}\n", if is_bad(number) { " bad" } else { "" })).collect();
    fs::write(folder.path().join("in.log"), lines).unwrap();
    fs::write(
        folder.path().join("receive.py"),
        format!(
            "{READ}out, headers = open('out', 'ab'), open('headers', 'a')
for header, data in batches():
    print(header['lines'], file=headers, flush=True)
    lines = data.split(b'\\n')[:-1]
    bad = [{{'n': n, 'reason': 'it says bad'}} for n, line in enumerate(lines, 1) if line.endswith(b'bad')]
    out.write(b''.join(line + b'\\n' for line in lines if not line.endswith(b'bad')))
    out.flush()
    say(f\"OK {{header['last_seq']}} BAD {{json.dumps(bad)}}\")
"
        ),
    )
    .unwrap();
    let config = write_config(
        folder.path(),
        &format!(
            "data_dir = \"q\"\n[[follow]]\ninclude = [\"in.log\"]\n[[group]]\nname = \"default\"\nbatch = {{ lines = {BATCH} }}\n\
             [[processor]]\nkind = \"exec-stream\"\ncommand = [\"python3\", \"receive.py\"]\n"
        ),
    );
    let data_dir = folder.path().join("q");
    let start = || Service::start(&data_dir, &["--config", config.to_str().unwrap()]);
    let mut service = start();
    service.wait("some lines are settled", |status| status.groups[0].ack_floor >= 2 * BATCH);
    service.kill();
    let mut service = start();
    let status = service.wait("all lines are settled", |status| status.groups[0].ack_floor == LINES);
    assert_eq!(status.groups[0].dead_letters, (1..=LINES).filter(|number| is_bad(*number)).count() as u64);
    assert_eq!(service.stop(), 0);

    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let mut out: Vec<u64> = read("out").lines().map(|line| line.parse().unwrap()).collect();
    out.sort_unstable();
    out.dedup();
    assert_eq!(out, (1..=LINES).filter(|number| !is_bad(*number)).collect::<Vec<_>>());
    let delivered: Vec<u64> = read("headers").lines().map(|line| line.parse().unwrap()).collect();
    // In each run the first batch comes again, cut at its first bad line, which comes alone, and the batch in flight at the
    // kill comes again, in halves.
    assert!(delivered.iter().filter(|lines| **lines == 1).count() <= 4, "{delivered:?}");
    assert!(delivered.len() as u64 <= LINES / BATCH + 2 * 4 + 3, "{delivered:?}");

    let letters = spillq(&["dead-letter", "list", "--data-dir"]).arg(&data_dir).finished();
    let letters = String::from_utf8(letters.stdout).unwrap();
    assert!(letters.contains("python3 says that line 97 is bad: it says bad"), "{letters}");
}

/// A command that counted from 0 could not blame the first line of a batch, and the line held the group.
#[tokio::test]
async fn a_number_that_no_line_has_blames_the_batch_and_the_process_continues() {
    needs!("python3");
    for number in [0, 4] {
        let dir = tempfile::tempdir().unwrap();
        let starts = dir.path().join("starts");
        let mut stream = python(&format!(
            "open('{}', 'a').write('x')\nanswers = ['NAK {number} x', 'OK']\nfor header, data in batches(): say(answers.pop(0))",
            starts.display()
        ));
        let Outcome::Poison(evidence) = process(&mut stream, &batch()).await else {
            panic!("the batch is blamed");
        };
        let expected = format!("python3 answered NAK {number}, and the batch has 3 lines: x on lines 10-12");
        assert_eq!(evidence.summary, expected);
        assert_eq!(process(&mut stream, &batch()).await, Outcome::Done);
        assert_eq!(fs::read_to_string(starts).unwrap(), "x", "one process");
    }
}

#[tokio::test]
async fn what_is_not_an_answer_ends_the_process_and_the_next_batch_gets_a_new_one() {
    needs!("python3");
    for (said, found) in [
        ("say('processed 3 lines')", "said \"processed 3 lines\\n\""),
        ("say('OK 11')", "answered OK 11, and the batch ends with line 12"),
        ("say('OK fine')", "instead of OK LAST_SEQ"),
        ("os.write(1, b'OK\\nOK\\n')", "said more than one answer"),
        ("os.write(1, b'x' * 100000)", "gave an answer without an end within 65536 bytes"),
        ("os.write(1, b'\\xff\\x00\\n')", "instead of OK"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("second");
        let mut stream = python(&format!(
            "second = os.path.exists('{0}')
open('{0}', 'w').close()
for header, data in batches():
    if second: say('OK')
    else: {said}",
            marker.display()
        ));
        let evidence = failed(process(&mut stream, &batch()).await);
        assert!(evidence.summary.contains(found), "{said}: {}", evidence.summary);
        assert_eq!(process(&mut stream, &batch()).await, Outcome::Done, "{said}");
    }
}

#[tokio::test]
async fn an_answer_between_batches_acks_nothing() {
    needs!("python3");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (taken, said, seen) = (path("taken"), path("said"), path("seen"));
    let mut stream = python(&format!(
        "for header, data in batches():
    say('OK')
    with open('{seen}', 'a') as out: print(header['first_seq'], file=out)
    if not os.path.exists('{said}'):
        while not os.path.exists('{taken}'): time.sleep(0.01)
        say('OK')
        open('{said}', 'w').close()",
        taken = taken.display(),
        seen = seen.display(),
        said = said.display()
    ));
    assert_eq!(process(&mut stream, &batch()).await, Outcome::Done);
    fs::write(&taken, "").unwrap();
    assert!(wait_for(|| said.exists().then_some(())).is_some());
    assert_eq!(process(&mut stream, &batch_of(&[(13, 14)])).await, Outcome::Done);
    let seen = wait_for(|| fs::read_to_string(&seen).ok().filter(|text| text.lines().count() == 2));
    assert_eq!(seen.as_deref(), Some("10\n13\n"), "the second batch was read by a new process");
}

#[tokio::test]
async fn a_late_second_answer_does_not_ack_the_next_batch() {
    needs!("python3");
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    // The second answer to the first batch is written after the header of the second batch was read.
    for (second, found) in [
        ("say(f'OK {header[\"last_seq\"]}')", "answered OK 12, and the batch ends with line 14"),
        ("say('OK')", "answered OK alone, and had named its batches before"),
    ] {
        let _ = fs::remove_file(&gate);
        let mut stream = python(&format!(
            "calm = os.path.exists('{gate}')
open('{gate}', 'w').close()
for header, data in batches():
    say(f'OK {{header[\"last_seq\"]}}')
    if not calm:
        sys.stdin.buffer.readline()
        {second}
        time.sleep(600)",
            gate = gate.display()
        ));
        assert_eq!(process(&mut stream, &batch()).await, Outcome::Done);
        let evidence = failed(process(&mut stream, &batch_of(&[(13, 14)])).await);
        assert!(evidence.summary.contains(found), "{}", evidence.summary);
        assert_eq!(process(&mut stream, &batch_of(&[(13, 14)])).await, Outcome::Done, "by a new process");
    }
}

#[tokio::test]
async fn its_end_is_reported_with_the_end_of_its_standard_error() {
    needs!("python3");
    for (end, what) in [
        ("sys.exit(3)", "ended with exit status 3"),
        ("sys.exit(0)", "ended with exit status 0"),
        ("os.kill(os.getpid(), 9)", "was killed by signal 9 (SIGKILL)"),
    ] {
        let mut stream = python(&format!(
            "next(batches())
print('last words', file=sys.stderr, flush=True)
{end}"
        ));
        let evidence = failed(process(&mut stream, &batch()).await);
        assert_eq!(evidence.summary, format!("python3 {what} before it answered on lines 10-12"));
        assert!(evidence.tail.ends_with("last words\n"), "{}", evidence.tail);
    }
    let command = vec!["/no/such/command".to_owned()];
    let mut missing =
        ExecStream::new(Program::new(command, binary(), GRACE), Input::Lines, Epoch::default(), RESTART_MAX);
    let outcome = process(&mut missing, &batch()).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

#[tokio::test]
async fn an_end_between_two_batches_costs_no_attempt() {
    needs!("python3");
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let mut stream = python(&format!(
        "for header, data in batches():
    open('{}', 'w').write(str(os.getppid()))
    say('OK')
    sys.exit(1)",
        pid.display()
    ));
    for _ in 0..3 {
        let _ = fs::remove_file(&pid);
        assert_eq!(process(&mut stream, &batch()).await, Outcome::Done);
        // When the shim, its parent, has ended, it has reported the end.
        let shim = fs::read_to_string(&pid).unwrap();
        let stat = || fs::read_to_string(format!("/proc/{shim}/stat")).unwrap_or_default();
        let ended = wait_for(|| (stat().is_empty() || stat().contains(") Z ")).then_some(()));
        assert!(ended.is_some());
    }
}

#[tokio::test]
async fn a_command_that_hangs_is_ended_with_all_its_processes_and_started_again() {
    needs!("python3");
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let mut stream = python(&format!(
        "import subprocess
first = not os.path.exists('{0}')
for header, data in batches():
    if first:
        child = subprocess.Popen(['sh', '-c', 'trap \"\" TERM; setsid sleep 600'])
        open('{0}', 'w').write(f'{{os.getpid()}} {{child.pid}}\\n')
        time.sleep(600)
    say('OK')",
        pids.display()
    ));
    let batch = batch();
    let written = || fs::read_to_string(&pids).ok().filter(|text| text.ends_with('\n'));
    tokio::select! {
        outcome = stream.process(&batch) => panic!("{outcome:?}"),
        () = async { while written().is_none() { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
    }
    let evidence = stream.interrupted().expect("a hang leaves evidence");
    assert!(
        evidence.summary.starts_with("python3 gave no answer on lines 10-12 after"),
        "{}",
        evidence.summary
    );
    assert!(evidence.summary.contains(" python3 ("), "{}", evidence.summary);
    assert!(evidence.tail.starts_with("start "), "{}", evidence.tail);
    assert_eq!(process(&mut stream, &batch).await, Outcome::Done);
    for pid in written().unwrap().split_whitespace() {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} is ended before the next begins");
    }
}

#[tokio::test]
async fn a_large_batch_passes_and_may_be_refused_before_it_is_read() {
    needs!("python3");
    let line = vec![b'x'; 4 * 1024 * 1024];
    let block = sample::block(10, &[&line, b"end"]);
    let batch = Batch::new(Arc::from("default"), 1, sample::pieces(&block, &[(10, 11)], Piece::new)).unwrap();
    let mut stream =
        python("for header, data in batches(): say('OK' if len(data) == header['bytes'] else 'no')");
    assert_eq!(process(&mut stream, &batch).await, Outcome::Done);
    let mut hasty = python("os.read(0, 1)\nsay('NAK 2 no')\nos.close(0)\ntime.sleep(600)");
    assert!(matches!(process(&mut hasty, &batch).await, Outcome::BadLine(Seq(11), _)));
    let mut liar = python("os.read(0, 1)\nos.close(0)\nsay('OK')\ntime.sleep(600)");
    let evidence = failed(process(&mut liar, &batch).await);
    assert!(evidence.summary.contains("answered OK before it was given all lines"), "{}", evidence.summary);
    for mut stream in [hasty, liar] {
        stream.end().await.unwrap();
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python").join(name)
}

#[test]
fn the_ten_lines_of_python_are_ten_and_process() {
    needs!("python3");
    let text = fs::read_to_string(example("ten_lines.py")).unwrap();
    assert!(text.lines().filter(|line| !line.starts_with('#')).count() <= 10, "{text}");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\ntwo\n").unwrap();
    let config = write_config(
        folder.path(),
        &format!(
            "[[follow]]\ninclude = [\"*.log\"]\n[[processor]]\nkind = \"exec-stream\"\ncommand = [{:?}]\n",
            example("ten_lines.py")
        ),
    );
    let output = program(binary()).args(["run", "--once", "--config"]).arg(config).finished();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("2 lines, 6 bytes in all"), "{said}");
}

#[test]
fn the_service_of_the_incident_keeps_each_fill_once_whatever_is_killed() {
    needs!("python3");
    const LINES: u64 = 20_000;
    const BAD: u64 = 7_777;
    let folder = tempfile::tempdir().unwrap();
    let hours = folder.path().join("hourly/20251007");
    fs::create_dir_all(&hours).unwrap();
    for hour in 0..4 {
        let fill = |number: u64| match number {
            BAD => "{\"coin\":\"BTC\"}\n".to_owned(),
            _ => format!("{{\"coin\":\"C{}\",\"sz\":\"1.5\",\"n\":{number}}}\n", number % 7),
        };
        let lines: String = (hour * LINES / 4..(hour + 1) * LINES / 4).map(fill).collect();
        fs::write(hours.join(hour.to_string()), lines).unwrap();
    }
    let config = write_config(
        folder.path(),
        &format!(
            r#"
            data_dir = "q"
            {SMALL_STORE}
            [[follow]]
            include = ["hourly/*/*"]
            [[group]]
            name = "default"
            batch = {{ lines = 500 }}
            retry = {{ initial = "10ms", max = "100ms", attempts = 3 }}
            [[processor]]
            kind = "exec-stream"
            command = [{:?}, "fills.db"]
            input = "ndjson"
            "#,
            example("node_fills.py")
        ),
    );
    let data_dir = folder.path().join("q");
    let start = || Service::start(&data_dir, &["--config", config.to_str().unwrap()]);
    for kill in 1..=5u64 {
        let mut service = start();
        service.wait("some lines are acked", |status| status.groups[0].ack_floor >= kill * 1_000);
        service.kill();
    }
    let mut service = start();
    let status = service.wait("all lines are settled", |status| status.groups[0].ack_floor == LINES);
    assert_eq!(status.groups[0].dead_letters, 1);
    assert_eq!(service.stop(), 0);
    let query = "import sqlite3,sys; print(*sqlite3.connect(sys.argv[1]).execute(\
        'SELECT count(*), count(DISTINCT seq), sum(size) FROM fill').fetchone())";
    let output = program("python3").args(["-c", query]).arg(folder.path().join("fills.db")).finished();
    let expected = format!("{0} {0} {1:.1}\n", LINES - 1, (LINES - 1) as f64 * 1.5);
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[tokio::test]
async fn a_command_that_hangs_prints_where_before_it_is_ended() {
    let program = format!(
        "{READ}import faulthandler, signal
faulthandler.register(signal.SIGUSR1, all_threads=True)
def waits_for_an_answer(): time.sleep(600)
for header, data in batches(): waits_for_an_answer()"
    );
    let command = ["python3", "-c", &program].map(str::to_owned).to_vec();
    let program = Program {
        dump_signal: Some(rustix::process::Signal::USR1),
        ..Program::new(command, binary(), GRACE)
    };
    let mut stream = ExecStream::new(program, Input::Lines, Epoch::default(), RESTART_MAX);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(4);
    let batch = batch().with_deadline(deadline);
    assert!(tokio::time::timeout_at(deadline, stream.process(&batch)).await.is_err());
    let evidence = stream.interrupted().expect("a hang leaves evidence");
    assert!(evidence.tail.contains("in waits_for_an_answer"), "{evidence:?}");
    assert!(evidence.summary.contains("; SIGUSR1 was sent to "), "{evidence:?}");
    stream.end().await.unwrap();
}
