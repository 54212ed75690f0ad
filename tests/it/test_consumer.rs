//! `spillq test-consumer`, with a command that keeps the contract of `exec-stream`, and with one for each rule that it breaks.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::support::{Bounded, needs, program, spillq};

const FIRST: &str = "acks a batch";
const ODD: [&str; 3] = ["an empty line", "bytes that are not UTF-8", "a line of 5 MiB"];
const ENDS: &str = "ends when its input ends";
const HALF: &str = "SIGTERM in the middle of a batch";

/// Reads batches whole, acks them, and names the lines that are not JSON, counted from 1.
const GOOD: &str = "
import json, sys
def is_bad(line):
    try:
        json.loads(line)
    except ValueError:
        return True
while header := sys.stdin.buffer.readline():
    batch = json.loads(header)
    lines = sys.stdin.buffer.read(batch['bytes']).split(b'\\n')[:-1]
    if len(lines) < batch['lines']:
        break
    bad = [{'n': n, 'reason': 'not JSON'} for n, line in enumerate(lines, 1) if is_bad(line)]
    print('OK', batch['last_seq'], *(['BAD', json.dumps(bad)] if bad else []), flush=True)
";

#[derive(Deserialize)]
struct Case {
    case: String,
    passed: bool,
    found: String,
}

/// The exit status, and the cases with what was found.
fn tested(options: &[&str], command: &[&str]) -> (i32, BTreeMap<String, (bool, String)>) {
    let mut test = spillq(&[&["test-consumer", "--json"], options, &["--"], command].concat());
    let output = test.env_remove("PYTHONUNBUFFERED").finished();
    let cases = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Case>();
    let cases = cases.map(|case| case.unwrap()).map(|case| (case.case, (case.passed, case.found)));
    (output.status.code().unwrap(), cases.collect())
}

/// Runs this program, and expects that just these cases are broken, each with these words.
#[track_caller]
fn breaks(program: &str, options: &[&str], expected: &[(&str, &str)]) {
    let (status, cases) = tested(options, &["python3", "-c", program]);
    let broken: Vec<_> = cases.iter().filter(|(_, (passed, _))| !passed).collect();
    assert_eq!(broken.len(), expected.len(), "{broken:?}");
    for (case, words) in expected {
        let (passed, found) = &cases[*case];
        assert!(!passed && found.contains(words), "{case}: {found}");
    }
    assert_eq!(status, i32::from(!expected.is_empty()));
}

#[test]
fn a_command_that_keeps_the_contract_passes_every_case() {
    needs!("python3");
    for form in ["lines", "ndjson"] {
        let (status, cases) = tested(&["--input", form], &["python3", "-c", GOOD]);
        let broken: Vec<_> = cases.iter().filter(|(_, (passed, _))| !passed).collect();
        assert_eq!((status, cases.len(), broken), (0, 10, vec![]), "{form}");
        let named = ODD.map(|case| cases[case].1.starts_with("rejected line 2 of 3"));
        // As objects all lines are JSON.
        assert_eq!(named, [form == "lines"; 3], "{form}");
    }
}

#[test]
fn a_command_that_counts_lines_from_0_is_told() {
    needs!("python3");
    let program = GOOD.replace("enumerate(lines, 1)", "enumerate(lines)");
    let words = "says that line 1 of the batch is bad, and it is line 2";
    breaks(&program, &[], &ODD.map(|case| (case, words)));
}

#[test]
fn a_command_that_does_not_flush_its_answers_is_told() {
    needs!("python3");
    breaks(&GOOD.replace(", flush=True", ""), &["--timeout", "1s"], &[(FIRST, "is each answer flushed")]);
}

#[test]
fn a_command_that_acks_before_it_has_read_is_told() {
    needs!("python3");
    let program = GOOD.replace("    lines =", "    print('OK', batch['last_seq'], flush=True)\n    lines =");
    let program = program.split("    if len(lines)").next().unwrap();
    breaks(program, &[], &[(ODD[2], "before it was given all lines"), (HALF, "of which it had half")]);
}

#[test]
fn a_command_that_does_not_end_is_told() {
    needs!("python3");
    let deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n";
    let program = format!("{deaf}{GOOD}\ntime.sleep(600)\n");
    breaks(&program, &[], &[(ENDS, "had to be killed"), (HALF, "did not end within")]);
}

#[test]
fn a_command_that_rejects_the_samples_is_told_and_lines_of_its_own_are_taken() {
    needs!("python3");
    let program = GOOD
        .replace("json.loads(line)", "json.loads(line)['coin']")
        .replace("ValueError", "(ValueError, KeyError)");
    breaks(&program, &[], &[(FIRST, "line 1 is bad: not JSON")]);
    let folder = tempfile::tempdir().unwrap();
    let samples = folder.path().join("samples.log");
    std::fs::write(&samples, "{\"coin\":\"ETH\"}\n{\"coin\":\"BTC\"}\n").unwrap();
    breaks(&program, &["--lines", samples.to_str().unwrap()], &[]);
}

#[test]
fn what_cannot_be_tested_is_said() {
    for (command, words) in [("/does/not/exist", "exit status 127"), ("true", "exit status 0")] {
        let (status, cases) = tested(&[], &[command]);
        assert_eq!((status, cases.len()), (1, 1));
        assert!(!cases[FIRST].0 && cases[FIRST].1.contains(words), "{}", cases[FIRST].1);
    }
    for (lines, words) in
        [("/dev/zero", "too long"), ("/dev/null", "has no line"), ("/does/not/exist", "could not read")]
    {
        let output = spillq(&["test-consumer", "--lines", lines, "--", "true"]).finished();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{lines}");
    }
}

#[test]
fn the_examples_pass() {
    needs!("python3");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python/ten_lines.py");
    let (status, _) = tested(&[], &["python3", example]);
    assert_eq!(status, 0);
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/src");
    let handler = "from spillq_client.stdio import run\nrun(lambda line: line.json())";
    let mut output = program("env");
    output.arg(format!("PYTHONPATH={client}")).arg(crate::support::binary());
    let output = output.args(["test-consumer", "--", "python3", "-c", handler]).finished();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
