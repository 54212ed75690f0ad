//! The exec processor: all the ways in which a command can end, and that no process of it is left.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use spillq::processor::{Batch, Epoch, Evidence, Exec, Input, Named, Outcome, Piece, Processor, Program};
use tokio::time::timeout;

use crate::sample;
use crate::support::{Bounded, needs, program};

const GRACE: Duration = Duration::from_millis(200);
/// Much longer than anything here takes: a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(30);

fn shim() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_spillq"))
}

fn exec(command: &[&str]) -> Exec {
    let command = command.iter().map(|arg| (*arg).to_owned()).collect();
    Exec::new(Program::new(command, shim(), GRACE), Input::Lines, Epoch::default())
}

fn sh(script: &str) -> Exec {
    exec(&["sh", "-c", script])
}

fn batch_of(texts: &[&[u8]]) -> Batch {
    let block = sample::block(10, texts);
    let pieces = sample::pieces(&block, &[(10, 9 + texts.len() as u64)], Piece::new);
    Batch::new(Arc::from("default"), 2, pieces).unwrap()
}

fn batch() -> Batch {
    batch_of(&[b"one", b"two", b"three"])
}

async fn process(exec: &mut Exec, batch: &Batch) -> Outcome {
    timeout(DEADLINE, exec.process(batch)).await.expect("the command ended in time")
}

fn failed(outcome: Outcome) -> Evidence {
    match outcome {
        Outcome::Failed(evidence) => evidence,
        other => panic!("expected a failure, not {other:?}"),
    }
}

/// Waits until `condition` holds.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The pids that a script wrote to a file, one per line, once there are `count` of them.
async fn pids(file: &Path, count: usize) -> Vec<Pid> {
    let read = || fs::read_to_string(file).unwrap_or_default();
    until("the command wrote its pids", || read().matches('\n').count() >= count).await;
    read().lines().map(|line| Pid::from_raw(line.trim().parse().unwrap()).unwrap()).collect()
}

/// Whether the process runs. A zombie that its new parent has not reaped yet does not.
fn is_alive(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}

#[tokio::test]
async fn exit_status_0_acks_and_the_command_gets_the_lines_and_variables() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script = format!(
        "{{ echo $SPILLQ_LINES $SPILLQ_BYTES $SPILLQ_FIRST_SEQ $SPILLQ_LAST_SEQ $SPILLQ_EPOCH $SPILLQ_GROUP \
         $SPILLQ_ATTEMPT; cat; }} > {}",
        out.display()
    );
    assert_eq!(process(&mut sh(&script), &batch()).await, Outcome::Done);
    assert_eq!(
        fs::read_to_string(out).unwrap(),
        "3 14 10 12 0-0000000000000000-0 default 2\none\ntwo\nthree\n"
    );
}

#[tokio::test]
async fn every_exit_status_has_its_outcome() {
    for status in [1, 3, 64, 66, 71, 77, 128, 137, 255] {
        let evidence = failed(process(&mut sh(&format!("exit {status}")), &batch()).await);
        assert_eq!(evidence.summary, format!("sh ended with exit status {status} on lines 10-12"));
    }
    let Outcome::Poison(evidence) = process(&mut sh("echo bad line >&2; exit 65"), &batch()).await else {
        panic!("65 is poison");
    };
    assert_eq!(evidence.summary, "sh ended with exit status 65 on lines 10-12");
    assert_eq!(evidence.tail, "bad line\n");
    for status in [126, 127] {
        let outcome = process(&mut sh(&format!("exit {status}")), &batch()).await;
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_signal_and_an_exit_status_are_reported_differently() {
    for (signal, name) in [("KILL", "9 (SIGKILL)"), ("TERM", "15 (SIGTERM)"), ("PIPE", "13 (SIGPIPE)")] {
        let evidence = failed(process(&mut sh(&format!("kill -{signal} $$")), &batch()).await);
        assert_eq!(evidence.summary, format!("sh was killed by signal {name} on lines 10-12"));
    }
}

#[tokio::test]
async fn a_command_that_is_missing_or_not_a_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let no_program = dir.path().join("data");
    fs::write(&no_program, "not executable").unwrap();
    for (command, tail) in [
        ("/no/such/command", "No such file"),
        ("no-such-command-anywhere", "No such file"),
        (no_program.to_str().unwrap(), "Permission denied"),
        ("/", "Permission denied"),
    ] {
        let outcome = process(&mut exec(&[command]), &batch()).await;
        let Outcome::Refused(evidence) = outcome else {
            panic!("{command}: {outcome:?}");
        };
        assert!(evidence.summary.starts_with(command), "{}", evidence.summary);
        assert!(evidence.tail.contains(tail) && evidence.tail.contains(command), "{}", evidence.tail);
    }
}

/// A shell that runs in `cwd`, with `env`.
fn surrounded(script: &str, cwd: Option<&Path>, env: &[(&str, &str)]) -> Exec {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let program = Program { cwd: cwd.map(Path::to_path_buf), env, ..Program::new(command, shim(), GRACE) };
    Exec::new(program, Input::Lines, Epoch::default())
}

#[tokio::test]
async fn a_command_runs_in_its_folder_and_with_its_variables() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let script = "{ pwd; echo \"$A\" \"$SPILLQ_GROUP\" \"$SPILLQ_RUN\"; } > out";
    // Variables of spillq have spillq's values, whatever is configured.
    let env = [("A", "a b = c"), ("SPILLQ_GROUP", "other"), ("SPILLQ_RUN", "other")];
    let mut exec = surrounded(script, Some(&dir), &env);
    assert_eq!(process(&mut exec, &batch()).await, Outcome::Done);
    let out = fs::read_to_string(dir.join("out")).unwrap();
    let run =
        out.strip_prefix(&format!("{}\na b = c default ", dir.display())).unwrap_or_else(|| panic!("{out}"));
    assert_ne!(run.trim(), "other");
    assert_eq!(run.trim().len(), 16, "{out}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_entered_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for (cwd, why) in [(dir.path().join("gone"), "No such file"), (file, "Not a directory")] {
        let Outcome::Refused(evidence) = process(&mut surrounded("true", Some(&cwd), &[]), &batch()).await
        else {
            panic!("{} is refused", cwd.display());
        };
        let says = format!("spillq: cannot enter {}: {why}", cwd.display());
        assert!(evidence.tail.starts_with(&says), "{evidence:?}");
    }
}

/// Variables may be secrets, so they are not in the arguments, which every user can read.
#[tokio::test]
async fn variables_are_in_no_arguments_that_others_can_read() {
    let dir = tempfile::tempdir().unwrap();
    // The command, its parent, and the parent of that: this test.
    let script = "cat /proc/$$/cmdline /proc/$PPID/cmdline | tr '\\0' ' ' > out";
    let mut exec = surrounded(script, Some(dir.path()), &[("TOKEN", "s3cret")]);
    assert_eq!(process(&mut exec, &batch()).await, Outcome::Done);
    let seen = fs::read_to_string(dir.path().join("out")).unwrap();
    assert!(seen.contains("__exec-shim") && !seen.contains("s3cret"), "{seen}");
}

#[tokio::test]
async fn a_missing_shim_is_a_failure_and_does_not_refuse() {
    let program = Program::new(vec!["true".to_owned()], PathBuf::from("/no/such/shim"), GRACE);
    let mut exec = Exec::new(program, Input::Lines, Epoch::default());
    let evidence = failed(process(&mut exec, &batch()).await);
    assert!(evidence.summary.contains("/no/such/shim"), "{}", evidence.summary);
}

#[tokio::test]
async fn the_end_of_standard_error_is_kept() {
    let evidence = failed(
        process(&mut sh("seq 1 100000 >&2; printf 'last\\033[31m words' >&2; exit 1"), &batch()).await,
    );
    assert_eq!(evidence.tail.len(), spillq::processor::EVIDENCE_BYTES_MAX);
    assert!(evidence.tail.ends_with("99999\n100000\nlast?[31m words"), "{}", evidence.tail);
}

#[tokio::test]
async fn a_large_batch_is_read_whole_or_not_at_all() {
    let line = vec![b'x'; 2 * 1024 * 1024];
    let batch = batch_of(&[&line, b"end"]);
    let script = "test $(wc -c) = $SPILLQ_BYTES && test $SPILLQ_BYTES = 2097157";
    assert_eq!(process(&mut sh(script), &batch).await, Outcome::Done);
    assert_eq!(process(&mut exec(&["true"]), &batch).await, Outcome::Done);
    assert_eq!(process(&mut sh("head -c 10 > /dev/null"), &batch).await, Outcome::Done);
}

#[tokio::test]
async fn a_batch_cannot_be_changed_while_it_is_read() {
    assert_eq!(process(&mut sh("! sh -c 'echo x >&0' && cat > /dev/null"), &batch()).await, Outcome::Done);
}

#[tokio::test]
async fn ndjson_has_the_source_of_each_line() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let command = vec!["sh".to_owned(), "-c".to_owned(), format!("cat > {}", out.display())];
    let batch = batch_of(&[b"plain \"text\"", b"\xff\x00"]);
    for (known, source) in [(true, "\"/var/log/a\""), (false, "3")] {
        let labels = Arc::new(BTreeMap::from([("env".to_owned(), "prod".to_owned())]));
        let named = Named { path: "/var/log/a".to_owned(), labels };
        let paths = Arc::new(move |_| known.then(|| named.clone()));
        let labels = if known { "\"labels\":{\"env\":\"prod\"}," } else { "" };
        let mut exec =
            Exec::new(Program::new(command.clone(), shim(), GRACE), Input::Ndjson(paths), Epoch::default());
        assert_eq!(process(&mut exec, &batch).await, Outcome::Done);
        let expected = format!(
            "{{\"seq\":10,\"source\":{source},\"offset\":100,\"time\":\"1970-01-01T00:00:00.000Z\",\"attempt\":2,{labels}\"text\":\"plain \\\"text\\\"\"}}\n\
             {{\"seq\":11,\"source\":{source},\"offset\":113,\"time\":\"1970-01-01T00:00:00.000Z\",\"attempt\":2,{labels}\"base64\":\"/wA=\"}}\n"
        );
        assert_eq!(fs::read_to_string(&out).unwrap(), expected);
    }
}

#[tokio::test]
async fn the_command_has_the_signals_and_descriptors_of_one_that_is_started_directly() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script =
        format!("{{ grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status; ls /proc/self/fd; }} > {}", out.display());
    let direct = program("sh").args(["-c", &script]).stdin(Stdio::null()).finished().status;
    assert!(direct.success());
    let expected = fs::read_to_string(&out).unwrap();
    assert_eq!(process(&mut sh(&script), &batch()).await, Outcome::Done);
    // Under `nohup` the tests ignore SIGHUP, and in the background of a script SIGINT and SIGQUIT. The shim does not pass
    // this on: the service decides.
    let of_others = |text: &str| {
        let (before, rest) = text.split_once("SigIgn:\t").unwrap();
        let (mask, after) = rest.split_once('\n').unwrap();
        format!("{before}{:x}\n{after}", u64::from_str_radix(mask, 16).unwrap() & !0b111)
    };
    assert_eq!(of_others(&fs::read_to_string(&out).unwrap()), of_others(&expected));
    // Rust programs ignore SIGPIPE (13), but not the programs that they start.
    let ignored = expected.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 1 << 12, 0);
}

/// A command that hangs and ignores SIGTERM, with a daemon that forked twice and has a separate session, and a
/// stopped process. All write their pids.
fn stubborn(pids: &Path) -> String {
    format!(
        "trap '' TERM
         echo deep in thought >&2
         echo $$ >> {pids}
         (setsid sh -c 'trap \"\" TERM HUP; echo $$ >> {pids}; while :; do sleep 600; done' &)
         sh -c 'echo $$ >> {pids}; kill -STOP $$' &
         while :; do sleep 600; done",
        pids = pids.display()
    )
}

fn has_a_child_called(pid: Pid, name: &str) -> bool {
    let pid = pid.as_raw_pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let is_called =
        |child: &str| fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm.trim() == name);
    children.split_whitespace().any(is_called)
}

#[tokio::test]
async fn dropping_the_future_ends_the_command_with_all_its_descendants() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let mut exec = sh(&stubborn(&file));
    let batch = batch();
    let hang = async {
        let pids = pids(&file, 3).await;
        // A shell writes its pid before it hangs.
        until("one of them hangs", || pids.iter().any(|pid| has_a_child_called(*pid, "sleep"))).await;
        pids
    };
    let pids = tokio::select! {
        outcome = exec.process(&batch) => panic!("{outcome:?}"),
        pids = hang => pids,
    };
    let evidence = exec.interrupted().expect("a hang leaves evidence");
    assert!(evidence.summary.starts_with("sh was cut off on lines 10-12 after "), "{}", evidence.summary);
    assert!(evidence.summary.contains(" sh (") && evidence.summary.contains("sleep"), "{}", evidence.summary);
    assert_eq!(evidence.tail, "deep in thought\n");
    timeout(DEADLINE, exec.end()).await.unwrap().unwrap();
    for pid in pids {
        assert!(!is_alive(pid), "{pid:?}");
    }
}

#[tokio::test]
async fn the_next_batch_waits_for_the_end_of_the_former_command() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("pids"), dir.path().join("out"));
    let script = format!(
        "if test -e {pids}; then kill -0 $(cat {pids}) 2> /dev/null; echo $? > {out}; exit 0; fi; {stubborn}",
        pids = file.display(),
        out = out.display(),
        stubborn = stubborn(&file)
    );
    let mut exec = sh(&script);
    let batch = batch();
    tokio::select! {
        outcome = exec.process(&batch) => panic!("{outcome:?}"),
        _ = pids(&file, 3) => {}
    }
    assert_eq!(process(&mut exec, &batch).await, Outcome::Done);
    assert_eq!(fs::read_to_string(out).unwrap(), "1\n", "the second ran while the first was alive");
}

#[tokio::test]
async fn a_command_that_stops_itself_is_ended_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let mut exec = sh(&format!("echo $$ > {}; kill -STOP $$", file.display()));
    let batch = batch();
    let pids = tokio::select! {
        outcome = exec.process(&batch) => panic!("{outcome:?}"),
        pids = pids(&file, 1) => pids,
    };
    timeout(DEADLINE, exec.end()).await.unwrap().unwrap();
    assert!(!is_alive(pids[0]));
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_ended_before_the_ack() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let script = format!(
        "(setsid sh -c 'echo $$ >> {pids}; exec sleep 600' &)
         while ! test -s {pids}; do sleep 0.01; done",
        pids = file.display()
    );
    assert_eq!(process(&mut sh(&script), &batch()).await, Outcome::Done);
    assert!(!is_alive(pids(&file, 1).await[0]));
}

#[tokio::test]
async fn a_process_may_end_a_moment_after_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script = format!("cat <&0 > /dev/null; (sleep 0.02; echo done > {}) &", out.display());
    assert_eq!(process(&mut sh(&script), &batch()).await, Outcome::Done);
    assert_eq!(fs::read_to_string(out).unwrap(), "done\n");
}

#[tokio::test]
async fn a_shim_that_is_stopped_does_not_save_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let mut exec = sh(&format!("echo $PPID > {pids}; echo $$ >> {pids}; sleep 600", pids = file.display()));
    let batch = batch();
    let pids = tokio::select! {
        outcome = exec.process(&batch) => panic!("{outcome:?}"),
        pids = async {
            let pids = pids(&file, 2).await;
            kill_process(pids[0], Signal::STOP).unwrap();
            pids
        } => pids,
    };
    timeout(DEADLINE, exec.end()).await.unwrap().unwrap();
    assert!(!is_alive(pids[0]) && !is_alive(pids[1]));
}

#[tokio::test]
async fn the_command_and_its_daemons_die_with_their_shim() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let mut exec = sh(&format!("echo $PPID > {}; {}", file.display(), stubborn(&file)));
    let batch = batch();
    let kill_shim = async {
        let pids = pids(&file, 4).await;
        kill_process(pids[0], Signal::KILL).unwrap();
        pids
    };
    let (outcome, pids) = tokio::join!(process(&mut exec, &batch), kill_shim);
    let evidence = failed(outcome);
    assert_eq!(evidence.summary, "sh was lost: its shim was killed by signal 9 (SIGKILL) on lines 10-12");
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn a_command_dies_with_its_shim_even_if_the_service_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let mut exec = sh(&format!("echo $PPID > {}; {}", file.display(), stubborn(&file)));
    let batch = batch();
    let pids = {
        let mut running = exec.process(&batch);
        tokio::select! {
            outcome = &mut running => panic!("{outcome:?}"),
            pids = pids(&file, 4) => {
                kill_process(pids[0], Signal::KILL).unwrap();
                // The service does not run meanwhile: the kernel kills the command.
                let since = Instant::now();
                while is_alive(pids[1]) {
                    assert!(since.elapsed() < DEADLINE, "the command died with its shim");
                    std::thread::yield_now();
                }
                pids
            }
        }
    };
    timeout(DEADLINE, exec.end()).await.unwrap().unwrap();
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn the_shim_ignores_signals_that_are_meant_for_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let (file, go) = (dir.path().join("pids"), dir.path().join("go"));
    let script =
        format!("echo $PPID > {}; while ! test -e {}; do sleep 0.01; done", file.display(), go.display());
    let mut exec = sh(&script);
    let batch = batch();
    let signals = async {
        let shim = pids(&file, 1).await[0];
        for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
            kill_process(shim, signal).unwrap();
        }
        fs::write(&go, "").unwrap();
    };
    let (outcome, ()) = tokio::join!(process(&mut exec, &batch), signals);
    assert_eq!(outcome, Outcome::Done);
}

#[tokio::test]
async fn a_killed_service_ends_its_command() {
    let dir = tempfile::tempdir().unwrap();
    let (file, input) = (dir.path().join("pids"), dir.path().join("input"));
    std::fs::write(&input, "a line\n").unwrap();
    let script = stubborn(&file);
    let args = ["--follow", input.to_str().unwrap(), "--", "sh", "-c", script.as_str()];
    let service = crate::support::Service::start(&dir.path().join("q"), &args);
    let pids = pids(&file, 3).await;
    service.kill();
    until("the command died with the service", || !pids.iter().any(|pid| is_alive(*pid))).await;
}

#[tokio::test]
async fn a_batch_costs_a_few_milliseconds() {
    let (mut exec, batch) = (exec(&["true"]), batch());
    let mut fastest = DEADLINE;
    for _ in 0..20 {
        let since = Instant::now();
        assert_eq!(process(&mut exec, &batch).await, Outcome::Done);
        fastest = fastest.min(since.elapsed());
    }
    println!("{fastest:?} a batch");
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
}

/// Runs this script in a shell on a batch that is cut off after `secs`, as a worker does it. Returns the evidence.
async fn cut_off_after(secs: f64, script: &str, signal: Option<Signal>) -> Evidence {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let program = Program { dump_signal: signal, ..Program::new(command, shim(), GRACE) };
    let mut exec = Exec::new(program, Input::Lines, Epoch::default());
    let deadline = tokio::time::Instant::now() + Duration::from_secs_f64(secs);
    let batch = batch().with_deadline(deadline);
    let ended = tokio::time::timeout_at(deadline, exec.process(&batch)).await;
    assert!(ended.is_err(), "it hangs: {ended:?}");
    let evidence = exec.interrupted().expect("a hang leaves evidence");
    exec.end().await.unwrap();
    evidence
}

#[tokio::test]
async fn a_python_that_hangs_prints_where_before_it_is_ended() {
    needs!("python3");
    // The shell around it would end at the signal.
    let script = "python3 -c 'import faulthandler, signal, time
faulthandler.register(signal.SIGUSR1, all_threads=True)
def waits_for_an_answer():
    time.sleep(600)
waits_for_an_answer()'; true";
    let evidence = cut_off_after(4.0, script, Some(Signal::USR1)).await;
    assert!(evidence.tail.contains("in waits_for_an_answer"), "{evidence:?}");
    let (doing, sent) = evidence.summary.split_once("; SIGUSR1 was sent to ").unwrap();
    assert!(sent.ends_with(" python3") && !sent.contains(','), "to it alone: {evidence:?}");
    assert!(doing.contains(" sh (S") && doing.contains(" python3 (S"), "{evidence:?}");
    // Without the setting no signal is sent.
    let evidence = cut_off_after(1.0, script, None).await;
    assert!(!evidence.summary.contains("SIGUSR1") && evidence.tail.is_empty(), "{evidence:?}");
}

#[tokio::test]
async fn a_command_that_does_not_catch_the_signal_is_not_ended_by_it() {
    let evidence = cut_off_after(1.0, "sleep 600; true", Some(Signal::USR1)).await;
    let says = "SIGUSR1 was not sent: no process of the command catches it";
    assert!(evidence.summary.ends_with(says), "{evidence:?}");
    assert!(evidence.summary.contains(" sleep (S"), "it is there to the end: {evidence:?}");
}

/// At SIGQUIT Go prints all stacks and exits with status 2: this is reported as a hang, not a crash.
#[tokio::test]
async fn a_command_that_ends_after_it_printed_where_it_hangs_has_timed_out() {
    let script = "trap 'echo here >&2; exit 2' QUIT; sleep 600 & wait";
    let evidence = cut_off_after(2.0, script, Some(Signal::QUIT)).await;
    assert_eq!(evidence.tail, "here\n");
    let begin = "sh ended with exit status 2 on lines 10-12 after ";
    assert!(
        evidence.summary.starts_with(begin) && evidence.summary.contains("; SIGQUIT was sent to "),
        "{evidence:?}"
    );
}
