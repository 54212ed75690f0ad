//! Every row of the table, and the controls that must not be called unhealthy.

use std::path::Path;

use spillq_storage::{Seq, SeqRange};

use super::super::commands::{Commands, Started};
use super::super::inputs::{
    AtRisk, DiskSettings, LeftOut, LogInputs, Outside, Pauses, Pinned, Pins, WhyUnreadable,
};
use super::super::judge_log::judge_log;
use super::super::processor::{ProcessorKind, ProcessorName};
use super::*;
use crate::queue::{
    Blocked, EveryLineRejected, Failing, FailureKind, HeldLine, LagReached, OomKill, WhyFull,
};

const T: u64 = 10_000;
const NOW: u64 = 1_000_000;

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::new(Seq(first), Seq(last)).unwrap()
}

fn started() -> Started {
    Started { config: "/q.toml".to_owned(), ..Started::default() }
}

fn settings() -> JudgeSettings {
    JudgeSettings { stall_after_ms: T, commands: Commands::about(Path::new("/a b"), started()) }
}

/// A group with a command that works through a backlog.
fn working() -> GroupInputs {
    GroupInputs {
        group: "default".to_owned(),
        processor: Some(ProcessorName {
            kind: ProcessorKind::Exec,
            about: "./process.sh".to_owned(),
            program: None,
        }),
        has_worker: true,
        lag_lines: 1_000,
        oldest: Some(Seq(11)),
        ack_floor: Seq(10),
        leases: vec![range(11, 20)],
        oldest_lease_ms: Some(NOW - 100),
        timeout_ms: 30_000,
        acks: 1,
        floor_moved_ms: NOW - 100,
        ..GroupInputs::default()
    }
}

#[test]
fn a_destination_that_has_lost_lines_is_reported_whether_lines_wait_or_not() {
    let lost = DestinationLost { first: Seq(3), last: Seq(9), lines: 5 };
    let idle =
        GroupInputs { lag_lines: 0, oldest: None, leases: Vec::new(), oldest_lease_ms: None, ..working() };
    for (inputs, state) in [(working(), State::Running), (idle, State::Idle)] {
        let verdict = judge(&GroupInputs { lost: Some(lost), ..inputs }, NOW, &settings());
        assert_eq!((verdict.state, verdict.cause), (state, Some(Cause::DestinationLost)));
        assert!(verdict.summary.contains("5 lines that it had stored, between lines 3 and 9"), "{verdict:?}");
        assert!(verdict.next.contains("group seek --data-dir '/a b' default --to 3 --missing"));
    }
}

/// The same with nothing in flight for this long.
fn waiting(since: u64) -> GroupInputs {
    GroupInputs {
        leases: Vec::new(),
        oldest_lease_ms: None,
        not_leased_since_ms: Some(NOW - since),
        ..working()
    }
}

fn fails(times: u64, timed_out: bool) -> GroupInputs {
    GroupInputs {
        failing: Some(Failing {
            since_ms: NOW - 500,
            times,
            range: range(11, 20),
            kind: FailureKind::Failed,
            timed_out,
        }),
        last_failure: Some("sh was killed by signal 11 (SIGSEGV) on lines 11-20\nlast words".to_owned()),
        backs_off: Some((range(11, 20), NOW + 400)),
        oldest_waits: true,
        ..waiting(200)
    }
}

#[test]
fn an_out_of_memory_kill_of_a_command_is_reported_with_what_to_change() {
    let oom = |range, limit_bytes| {
        let kill = OomKill { kills: 12, limit_bytes, own_bytes: Some(40 << 20) };
        let inputs = fails(1, false);
        let failing =
            Failing { kind: FailureKind::OutOfMemory(kill), range, ..inputs.failing.clone().unwrap() };
        GroupInputs { failing: Some(failing), ..inputs }
    };
    // After the first kill, while `crashing` needs three failures.
    let verdict =
        check(&oom(range(11, 20), Some(160 << 20)), "crashing", Some("B"), Some(Cause::ProcessorOom));
    assert_eq!(
        verdict.summary,
        "the kernel killed the command of group default (exec ./process.sh) because memory ran out, once, last on lines \
         11-20: the limit of its cgroup is 160.0 MiB; OOM kills in the cgroup: 12; spillq itself used 40.0 MiB"
    );
    assert!(verdict.next.starts_with("set a smaller `batch` for group default in /q.toml"), "{verdict:?}");
    assert_eq!(verdict.or, "raise MemoryMax= of the unit, or --memory of the container");
    // For a line that holds its group because it takes too much, a smaller batch does not help.
    let held = HeldLine { seq: Seq(11), failures: 5, for_ms: T, deaths: 0, is_given_up: false };
    let inputs = oom(range(11, 11), None);
    let failing = Failing { times: 9, ..inputs.failing.clone().unwrap() };
    let alone = GroupInputs { held: Some(held), failing: Some(failing), ..inputs };
    let verdict = check(&alone, "crashing", Some("B"), Some(Cause::ProcessorOom));
    assert!(
        verdict.summary.contains(
            "9 times in a row, last on line 11: its cgroup has no limit, so the host ran out of memory"
        ),
        "{verdict:?}"
    );
    assert!(verdict.next.ends_with("this line alone takes too much memory"), "{verdict:?}");
    assert!(verdict.or.starts_with("spillq inspect "), "{verdict:?}");
    // A later failure of another kind is reported as such.
    check(&fails(3, false), "crashing", Some("B"), Some(Cause::Crashing));
}

#[track_caller]
fn check(inputs: &GroupInputs, state: &str, hypothesis: Option<&str>, cause: Option<Cause>) -> Verdict {
    let verdict = judge(inputs, NOW, &settings());
    assert_eq!(
        (verdict.state.word(), verdict.hypothesis, verdict.cause),
        (state, hypothesis, cause),
        "{verdict:#?}"
    );
    assert_eq!(verdict.is_healthy(), verdict.evidence.is_empty() && verdict.next.is_empty(), "{verdict:#?}");
    for step in [&verdict.next, &verdict.or] {
        let is_command = ["", "spillq", "curl", "ls"].contains(&step.split(' ').next().unwrap());
        let is_change = step.contains(" in /q.toml; the service applies it")
            || step.starts_with("stop the service, and start it")
            || step.starts_with("see the verdict on group ")
            || step.starts_with("put the program there")
            || step.starts_with("raise MemoryMax=");
        assert!(is_command || is_change, "neither a command to paste nor a change: {verdict:#?}");
        assert!(
            !step.starts_with("spillq doctor") && !step.starts_with("spillq status"),
            "the step changes nothing: {verdict:#?}"
        );
    }
    verdict
}

#[test]
fn a_group_that_works_or_idles_is_healthy() {
    check(&working(), "running", None, None);
    let idle = GroupInputs { lag_lines: 0, oldest: None, not_leased_since_ms: None, ..waiting(0) };
    check(&idle, "idle", None, None);
    check(&waiting(T - 1), "running", None, None);
}

#[test]
fn a_long_lease_within_its_timeout_is_slow_and_healthy() {
    let long = GroupInputs { oldest_lease_ms: Some(NOW - 25_000), ..working() };
    check(&long, "slow", None, None);
    // Acks cannot raise the floor past a line that is in flight.
    check(&GroupInputs { acks_since_floor: 9, floor_moved_ms: 0, ..long }, "slow", None, None);
}

#[test]
fn one_failure_in_back_off_is_healthy() {
    check(&fails(1, false), "retrying", None, None);
    // Even if the back-off is longer than `stall_after`.
    let long = GroupInputs {
        not_leased_since_ms: Some(NOW - 2 * T),
        failing: Some(Failing {
            since_ms: NOW - 2 * T,
            times: 1,
            range: range(11, 20),
            kind: FailureKind::Failed,
            timed_out: false,
        }),
        backs_off: Some((range(11, 20), NOW + 20_000)),
        ..fails(1, false)
    };
    check(&long, "retrying", None, None);
}

#[test]
fn a_line_in_back_off_that_blocks_the_floor_is_healthy() {
    let inputs =
        GroupInputs { acks_since_floor: 9, floor_moved_ms: NOW - 2 * T, failing: None, ..fails(1, false) };
    check(&inputs, "retrying", None, None);
    // Other lines are retried before it.
    check(&GroupInputs { backs_off: Some((range(31, 40), NOW + 400)), ..inputs }, "retrying", None, None);
}

#[test]
fn a_group_without_a_processor_is_reported_at_once_whether_lines_wait_or_not() {
    let none = GroupInputs { processor: None, has_worker: false, ..waiting(0) };
    let verdict = check(&none, "never_called", Some("A"), Some(Cause::NeverCalled));
    assert_eq!(verdict.summary, "group default has no processor: 1,000 lines wait");
    let change = "add a [[processor]] with group = \"default\" in /q.toml; the service applies it when the file changes";
    assert_eq!(verdict.next, change);
    let nothing = GroupInputs { lag_lines: 0, oldest: None, not_leased_since_ms: None, ..none.clone() };
    let verdict = check(&nothing, "never_called", Some("A"), Some(Cause::NeverCalled));
    assert_eq!(verdict.summary, "group default has no processor: new lines will wait");
    // A command line without a configuration.
    let started = Started { typed: "spillq run --follow '*.log'".to_owned(), ..Started::default() };
    let commands = Commands::about(Path::new("/q"), started);
    let verdict = judge(&nothing, NOW, &JudgeSettings { stall_after_ms: T, commands });
    assert!(verdict.next.ends_with("with a command: spillq run --follow '*.log' -- COMMAND"), "{verdict:#?}");
    // A drain of other groups.
    check(&GroupInputs { is_left_out: true, ..none }, "running", None, None);
}

#[test]
fn a_processor_that_gets_no_lines_is_never_called() {
    let silent = GroupInputs { has_worker: false, ..waiting(T) };
    let verdict = check(&silent, "never_called", Some("A"), Some(Cause::NeverCalled));
    assert!(
        verdict.summary.contains("is never called: 1,000 lines waiting, nothing delivered for 10.0 s"),
        "{verdict:#?}"
    );
    assert!(verdict.summary.contains("does not ask"), "{verdict:#?}");
    check(&waiting(T), "never_called", Some("A"), Some(Cause::NeverCalled));
}

#[test]
fn a_missing_program_is_reported_before_it_is_run() {
    let idle =
        GroupInputs { lag_lines: 0, oldest: None, leases: Vec::new(), oldest_lease_ms: None, ..working() };
    let why = Some("/p.sh: No such file or directory".to_owned());
    let verdict = check(&GroupInputs { program_missing: why, ..idle }, "idle", None, Some(Cause::Refused));
    let summary = "the command of group default cannot be run: /p.sh: No such file or directory";
    assert_eq!(verdict.summary, summary);
}

#[test]
fn dead_letters_are_reported_until_an_operator_decides() {
    let idle =
        GroupInputs { lag_lines: 0, oldest: None, leases: Vec::new(), oldest_lease_ms: None, ..working() };
    let verdict =
        check(&GroupInputs { dead_letters: 53, ..idle.clone() }, "idle", None, Some(Cause::DeadLetters));
    let summary = "group default has 53 dead letters: they were not delivered, and stay until you retry or discard them";
    assert_eq!(verdict.summary, summary);
    assert!(
        verdict.next.starts_with("spillq dead-letter list --data-dir '/a b' --group default"),
        "{verdict:#?}"
    );
    assert!(verdict.or.starts_with("spillq dead-letter retry --data-dir '/a b' --all"), "{verdict:#?}");
    let one = check(&GroupInputs { dead_letters: 1, ..working() }, "running", None, Some(Cause::DeadLetters));
    assert!(one.summary.contains("has 1 dead letter: it was not delivered, and stays until"), "{one:#?}");
    let paused = GroupInputs { phase: Phase::Paused, dead_letters: 1, ..idle };
    check(&paused, "idle", None, Some(Cause::DeadLetters));
    // Even in back-off, which is healthy by itself.
    check(&GroupInputs { dead_letters: 1, ..fails(1, false) }, "running", None, Some(Cause::DeadLetters));
}

#[test]
fn a_group_without_a_processor_that_keeps_acked_lines_on_disk_pins_the_log() {
    let pins = Pins { segment: range(1, 9), since_ms: NOW - T, groups: vec!["default".to_owned()] };
    let nobody = GroupInputs { processor: None, has_worker: false, group: "audit".to_owned(), ..waiting(T) };
    let with = |pins: Pins| GroupInputs { pins: Some(pins), ..nobody.clone() };
    let verdict = check(&with(pins.clone()), "never_called", Some("A"), Some(Cause::PinsLog));
    assert!(verdict.summary.contains("although group default has acked it"), "{verdict:#?}");
    assert!(verdict.next.contains("group = \"audit\""), "{verdict:#?}");
    let young = Pins { since_ms: NOW - T + 1, ..pins };
    check(&with(young), "never_called", Some("A"), Some(Cause::NeverCalled));
}

#[test]
fn a_pause_is_healthy_until_lines_have_waited() {
    check(&GroupInputs { phase: Phase::Paused, ..waiting(T - 1) }, "paused", None, None);
    let verdict = check(
        &GroupInputs { phase: Phase::Paused, ..waiting(T) },
        "paused",
        Some("A"),
        Some(Cause::NeverCalled),
    );
    assert_eq!(verdict.next, "spillq group resume --data-dir '/a b' default");
}

#[test]
fn failures_in_a_row_are_a_crash_with_the_end_of_its_output() {
    let verdict = check(&fails(3, false), "crashing", Some("B"), Some(Cause::Crashing));
    assert!(verdict.evidence.iter().any(|line| line.contains("SIGSEGV")), "{verdict:#?}");
    assert!(verdict.evidence.contains(&"stderr: last words".to_owned()), "{verdict:#?}");
    let since = Failing {
        since_ms: NOW - T,
        times: 2,
        range: range(11, 20),
        kind: FailureKind::Failed,
        timed_out: false,
    };
    check(
        &GroupInputs { failing: Some(since), ..fails(1, false) },
        "crashing",
        Some("B"),
        Some(Cause::Crashing),
    );
}

#[test]
fn a_batch_that_is_bisected_to_its_rejected_line_is_not_a_crash() {
    for kind in [FailureKind::Poison, FailureKind::BadLine(Seq(11)), FailureKind::TooLarge] {
        let inputs = fails(11, false);
        let failing = Failing { kind, ..inputs.failing.clone().unwrap() };
        check(&GroupInputs { failing: Some(failing), ..inputs }, "retrying", None, None);
    }
}

#[test]
fn a_command_that_asks_for_pauses_is_not_a_crash_but_an_outage_once_it_lasts() {
    let inputs = fails(50, false);
    let later = Failing { kind: FailureKind::Later(5_000), ..inputs.failing.clone().unwrap() };
    check(&GroupInputs { failing: Some(later.clone()), ..inputs.clone() }, "retrying", None, None);
    let lasts = Failing { since_ms: NOW - T, ..later };
    check(&GroupInputs { failing: Some(lasts), ..inputs }, "retrying", None, Some(Cause::Outage));
}

#[test]
fn failures_of_a_destination_are_an_outage() {
    let url =
        ProcessorName { kind: ProcessorKind::Http, about: "http://127.0.0.1:1".to_owned(), program: None };
    let http = GroupInputs { processor: Some(url), ..fails(50, false) };
    // During a restart it may fail many times: that is not an outage yet.
    check(&http, "retrying", None, None);
    let lasts = Failing {
        since_ms: NOW - T,
        times: 50,
        range: range(11, 20),
        kind: FailureKind::Failed,
        timed_out: false,
    };
    let verdict = check(&GroupInputs { failing: Some(lasts), ..http }, "retrying", None, Some(Cause::Outage));
    assert!(verdict.next.starts_with("curl -sS -m 5 -o /dev/null http://127.0.0.1:1 "), "{verdict:#?}");
}

#[test]
fn a_batch_past_its_timeout_is_hung() {
    check(&fails(1, true), "hung", Some("C"), Some(Cause::Hung));
    let stuck = GroupInputs { oldest_lease_ms: Some(NOW - 30_000 - T - 1), ..working() };
    check(&stuck, "hung", Some("C"), Some(Cause::Hung));
}

#[test]
fn acks_that_do_not_raise_the_floor_are_reported() {
    let inputs = GroupInputs {
        acks_since_floor: 9,
        floor_moved_ms: NOW - T,
        leases: vec![range(500, 600)],
        ..working()
    };
    let verdict = check(&inputs, "not_clearing", Some("D"), Some(Cause::NotClearing));
    assert!(verdict.summary.contains("line 11 blocks it"), "{verdict:#?}");
    check(&GroupInputs { floor_moved_ms: NOW - T + 1, ..inputs }, "running", None, None);
}

#[test]
fn a_segment_that_another_group_keeps_on_disk_is_named_with_the_group() {
    let pinned = Pinned { segment: range(1, 9), since_ms: NOW - T, held_by: vec!["audit".to_owned()] };
    let verdict = check(
        &GroupInputs { pinned: Some(pinned.clone()), ..working() },
        "not_clearing",
        Some("D"),
        Some(Cause::NotClearing),
    );
    assert!(verdict.summary.contains("segments/00000000000000000001 is held by group audit"), "{verdict:#?}");
    let young = Pinned { since_ms: NOW - T + 1, ..pinned };
    check(&GroupInputs { pinned: Some(young), ..working() }, "running", None, None);
}

#[test]
fn a_blocked_phase_comes_first() {
    let with = |why| GroupInputs { phase: Phase::Blocked(why), ..fails(9, true) };
    let damage = Blocked::Damage("lines 11-12: checksum".to_owned());
    let damage = check(&with(damage), "blocked", None, Some(Cause::Damage));
    assert_eq!(damage.summary, "group default is blocked at a damaged block: lines 11-12: checksum");
    let refused = Blocked::DiskError("lines 11-12: EIO".to_owned());
    let refused = check(&with(refused), "blocked", None, Some(Cause::Damage));
    assert!(!refused.next.contains("repair"), "the disk may read them later: {refused:#?}");
    let full = GroupInputs { dead_letters: 10_000, ..with(Blocked::DeadLettersFull) };
    let full = check(&full, "blocked", None, Some(Cause::DeadLettersFull));
    let summary = "group default is blocked: dead letters full (10,000 dead letters), and another line is to become one";
    assert_eq!(full.summary, summary);
    check(&with(Blocked::AckWindow), "blocked", Some("D"), Some(Cause::NotClearing));
    let refused = Phase::Refused { until_ms: NOW + 3_000, rejected: None };
    let refused = GroupInputs { phase: refused, ..fails(9, false) };
    let refused = check(&refused, "refused", None, Some(Cause::Refused));
    let summary = "the command of group default refuses every delivery: sh was killed by signal 11 (SIGSEGV) on lines 11-20; retried in 3.0 s";
    assert_eq!(refused.summary, summary);
}

/// Line 11 holds a strict group: it failed this often, the last time in this way.
fn held(failures: u32, kind: FailureKind, timed_out: bool) -> GroupInputs {
    let line = HeldLine { seq: Seq(11), failures, for_ms: 150_000, deaths: 0, is_given_up: false };
    let failing =
        Failing { since_ms: NOW - 500, times: failures.into(), range: range(11, 11), kind, timed_out };
    GroupInputs {
        phase: Phase::Blocked(Blocked::HeldBy(Seq(11))),
        held: Some(line),
        attempts_max: 8,
        failing: Some(failing),
        ..fails(9, false)
    }
}

#[test]
fn a_held_line_is_named_and_may_be_parked_only_after_its_attempts_and_never_in_an_outage() {
    let failed = held(8, FailureKind::Failed, false);
    let verdict = check(&failed, "blocked", Some("B"), Some(Cause::HeldLine));
    assert!(
        verdict
            .summary
            .contains("is blocked by line 11: it failed 8 times as a single-line batch, for 2 min;"),
        "{verdict:#?}"
    );
    assert!(verdict.evidence.iter().any(|line| line == "stderr: last words"), "{verdict:#?}");
    assert!(verdict.next.starts_with("spillq inspect --data-dir '/a b' --from 11 --limit 1"), "{verdict:#?}");
    assert!(
        verdict.or.starts_with("spillq dead-letter park --data-dir '/a b' 11 --group default "),
        "{verdict:#?}"
    );
    let early = check(&held(7, FailureKind::Failed, false), "blocked", Some("B"), Some(Cause::HeldLine));
    assert!(!early.or.contains("park"), "{early:#?}");
    check(&held(2, FailureKind::Failed, false), "retrying", None, None);

    let url =
        ProcessorName { kind: ProcessorKind::Http, about: "http://127.0.0.1:1".to_owned(), program: None };
    let down = GroupInputs { processor: Some(url), ..held(50, FailureKind::Down, false) };
    check(&down, "retrying", None, None);
    let lasts = Failing { since_ms: NOW - T, ..down.failing.clone().unwrap() };
    let outage = check(&GroupInputs { failing: Some(lasts), ..down }, "retrying", None, Some(Cause::Outage));
    assert!(!outage.or.contains("park"), "{outage:#?}");

    let hung = check(&held(8, FailureKind::Failed, true), "hung", Some("C"), Some(Cause::Hung));
    assert!(hung.or.contains("dead-letter park"), "{hung:#?}");

    let killer = HeldLine { seq: Seq(11), failures: 0, for_ms: 0, deaths: 8, is_given_up: true };
    let killer = GroupInputs { held: Some(killer), failing: None, ..failed };
    let verdict = check(&killer, "blocked", Some("B"), Some(Cause::HeldLine));
    assert!(verdict.summary.contains("the service died 8 times while it was in flight"), "{verdict:#?}");
    assert!(verdict.or.contains("dead-letter park"), "{verdict:#?}");
}

#[test]
fn a_group_whose_every_line_is_rejected_is_reported_with_the_next_step() {
    let rejected = Some(EveryLineRejected { seq: Seq(11), dead: 100 });
    let phase = Phase::Refused { until_ms: NOW + 3_000, rejected };
    let verdict =
        check(&GroupInputs { phase, ..fails(9, false) }, "refused", None, Some(Cause::EveryLineRejected));
    let expected =
        "rejects every line: 100 lines in a row became dead letters, and line 11 was rejected too;";
    assert!(verdict.summary.contains(expected), "{verdict:#?}");
    assert!(verdict.next.starts_with("spillq dead-letter list "), "{verdict:#?}");
    assert!(verdict.or.starts_with("spillq dead-letter retry --data-dir '/a b' --all"), "{verdict:#?}");
}

/// A lag that has grown for this long, by nine in ten of the lines that arrived.
fn grows(ms: u64) -> Behind {
    Behind {
        since_ms: NOW - ms,
        grown_lines: 900,
        lines_in: 1_000,
        oldest_since_ms: None,
        lines_in_per_s: 1_000.0,
        lines_out_per_s: 100.0,
        full_in_s: None,
    }
}

#[test]
fn a_lag_that_grows_is_reported_after_a_minute_or_when_its_lines_are_old_or_the_disk_fills() {
    let group = |behind: Behind| GroupInputs { behind: Some(behind), ..working() };
    let is_behind = |behind: Behind| check(&group(behind), "slow", None, Some(Cause::FallingBehind));
    let is_not = |behind: Behind| check(&group(behind), "running", None, None);
    let verdict = is_behind(grows(60_000));
    let summary = "its lag has grown for 60.0 s to 1,000 lines; 1000 lines/s arrive, and 100 are acked";
    assert!(verdict.summary.ends_with(summary), "{verdict:#?}");
    is_not(grows(59_999));
    // A few lines are not reported, nor a lag of the lines of a moment.
    is_not(Behind { lines_in: 99, grown_lines: 99, ..grows(60_000) });
    is_not(Behind { grown_lines: 49, ..grows(60_000) });
    // Unless it keeps growing: 96 of 100 lines are acked.
    is_behind(Behind { grown_lines: 40, ..grows(300_000) });
    // A large batch was just acked.
    is_not(Behind { lines_out_per_s: 1_000.0, ..grows(60_000) });
    // The oldest line is older than `stall_after`.
    let old = |ms| Behind { oldest_since_ms: Some(NOW - ms), lines_in: 99, grown_lines: 9, ..grows(T) };
    is_behind(old(T));
    is_not(old(T - 1));
    is_not(Behind { since_ms: NOW - T + 1, ..old(T) });
    // The disk will be full within a day.
    let fills = |in_s| Behind { full_in_s: Some(in_s), ..grows(T) };
    let verdict = is_behind(fills(3_600.0));
    let full = "; at this rate the log is full in about 60 min, and ingestion pauses";
    assert!(verdict.summary.ends_with(full), "{verdict:#?}");
    is_not(fills(1e6));
    is_not(Behind { since_ms: NOW - T + 1, ..fills(3_600.0) });
    // Nothing was acked, for less time than a batch may take.
    let silent = |ms| Behind { lines_out_per_s: 0.0, since_ms: NOW - ms, ..fills(3_600.0) };
    is_not(silent(T));
    is_behind(silent(30_000));
}

fn surroundings(outside: Outside) -> LogInputs {
    LogInputs { outside, ..LogInputs::default() }
}

#[test]
fn a_full_log_and_a_disk_filled_by_other_files_have_different_causes() {
    let causes = |log: &LogInputs| {
        judge_log(log, &settings()).iter().filter_map(|found| found.cause).collect::<Vec<_>>()
    };
    assert_eq!(causes(&LogInputs::default()), []);
    let ours = LogInputs {
        full: Some(Pauses::AtLimit),
        disk_bytes: 100,
        disk: DiskSettings { limit_bytes: 100, min_free_bytes: 10, retains: false },
        outside: Outside { free_bytes: Some(1_000), ..Outside::default() },
        ..LogInputs::default()
    };
    assert_eq!(causes(&ours), [Cause::DiskFull]);
    let outside = Outside { free_bytes: Some(5), ..Outside::default() };
    let theirs = LogInputs { disk_bytes: 1, outside: outside.clone(), ..ours.clone() };
    assert_eq!(causes(&theirs), [Cause::DiskFilledByOthers]);
    // A limit that the disk has no space for: the log fills it.
    let outside = Outside { file_system_bytes: Some(100), ..outside };
    let mostly_ours = LogInputs { disk_bytes: 60, outside, ..theirs.clone() };
    assert_eq!(causes(&mostly_ours), [Cause::DiskFull]);
    let mostly_theirs = LogInputs { disk_bytes: 40, ..mostly_ours };
    assert_eq!(causes(&mostly_theirs), [Cause::DiskFilledByOthers]);
    let reached = LagReached::Lines { bound: 9, found: 9 };
    let full = Pauses::Now(WhyFull::MaxLag { group: "a".to_owned(), reached });
    assert_eq!(full.to_string(), "group a is at its max_lag of 9 lines (9 waiting)");
    let waits = LogInputs { full: Some(full), ..theirs };
    assert_eq!(causes(&waits), [Cause::MaxLag]);
    let file = |path: &str, held_open| AtRisk { path: path.into(), bytes: 100, held_open };
    let at_risk = vec![file("/a", true), file("/b", false)];
    let rotated = LogInputs { outside: Outside { at_risk, ..ours.outside.clone() }, ..ours };
    assert_eq!(causes(&rotated), [Cause::DiskFull, Cause::RotationRisk]);
    let found = judge_log(&rotated, &settings()).pop().unwrap();
    assert!(found.summary.starts_with("2 files were renamed or deleted with 200 B unread"), "{found:#?}");
    assert!(
        found.summary.contains(": 1 held open") && found.summary.contains("; 1 not held open, lost"),
        "{found:#?}"
    );
    assert_eq!(found.evidence, ["/a: 100 B unread, held open", "/b: 100 B unread, not held open"]);
    // During ingestion they are just read.
    assert_eq!(causes(&LogInputs { full: None, ..rotated }), []);
    let loops = LogInputs {
        unclean_runs: 3,
        killers: vec![("default".to_owned(), Seq(7), 2)],
        outside: Outside {
            tail_busy_ms: Some(T),
            unreadable: vec![("/b c".into(), "permission denied".to_owned(), WhyUnreadable::System)],
            ..Outside::default()
        },
        ..LogInputs::default()
    };
    let ours = judge_log(&loops, &settings());
    assert!(!ours.iter().any(|found| found.summary.contains("2 times")), "deaths are not counted: {ours:#?}");
    let all = [Cause::TailHung, Cause::SourceUnreadable, Cause::KillerLine, Cause::CrashLoop];
    assert_eq!(causes(&loops), all);
}

#[test]
fn a_full_log_names_the_group_that_lags() {
    let full = LogInputs {
        full: Some(Pauses::AtLimit),
        disk_bytes: 100,
        disk: DiskSettings { limit_bytes: 100, ..DiskSettings::default() },
        lags_most: Some(("audit".to_owned(), 1, 3 << 20)),
        ..LogInputs::default()
    };
    let found = judge_log(&full, &settings()).pop().unwrap();
    assert!(found.summary.ends_with("; group audit lags most, by 1 line (about 3.0 MiB)"), "{found:#?}");
    assert!(
        found.next.starts_with("spillq drain --data-dir '/a b' --config /q.toml --group audit"),
        "{found:#?}"
    );
    assert!(found.or.starts_with("raise `disk.limit`"), "{found:#?}");
}

#[test]
fn a_disk_that_became_read_only_is_reported_before_all_that_follows_from_it() {
    let log =
        LogInputs { read_only: Some("/a".to_owned()), full: Some(Pauses::AtLimit), ..LogInputs::default() };
    let causes: Vec<_> = judge_log(&log, &settings()).iter().filter_map(|found| found.cause).collect();
    assert_eq!(causes, [Cause::DiskReadOnly, Cause::DiskFull]);
}

#[test]
fn files_that_cannot_be_read_or_are_not_followed_are_counted() {
    let of = |unreadable_files, files| {
        let named =
            |nth: u64| (format!("/{nth}.log").into(), "permission denied".to_owned(), WhyUnreadable::System);
        let left_out =
            LeftOut { files, named: (0..files.min(20)).map(|nth| named(nth).0).collect(), limit: 10_000 };
        let unreadable = (0..unreadable_files).take(20).map(named).collect();
        judge_log(
            &surroundings(Outside { unreadable, unreadable_files, left_out, ..Outside::default() }),
            &settings(),
        )
    };
    let many = of(5_000, 490_000);
    assert_eq!((many[0].cause, many[1].cause), (Some(Cause::SourceUnreadable), Some(Cause::TooManyFiles)));
    assert_eq!((many[0].summary.as_str(), many[0].evidence.len()), ("5,000 files cannot be read", 21));
    assert_eq!(many[0].evidence[20], "and 4,980 files more");
    assert_eq!(
        many[1].summary,
        "490,000 files match and are not followed: at most 10,000 files are followed at once"
    );
    assert_eq!(many[1].evidence.last().unwrap(), "and 489,997 files more");
    let one = of(1, 1);
    assert_eq!(one[0].summary, "1 file cannot be read");
    assert!(one[1].summary.starts_with("1 file matches and is not followed"), "{one:#?}");
    assert_eq!((one[0].evidence.len(), one[1].evidence.len()), (1, 1));
    assert!(of(0, 0).is_empty());
}

/// The step for a link, a folder or a FIFO was once `ls -ld`, which changes nothing.
#[test]
fn the_step_for_an_unreadable_file_depends_on_the_reason() {
    let step = |why| {
        let unreadable = vec![("/l/a b".into(), "open /l/a b: as text".to_owned(), why)];
        let outside = Outside { unreadable, ..Outside::default() };
        let found = judge_log(&surroundings(outside), &settings()).pop().unwrap();
        assert_eq!(found.evidence, ["open /l/a b: as text"], "the path is named once");
        (found.next, found.or)
    };
    for (why, next, or) in [
        (
            WhyUnreadable::Link,
            "set `symlinks = FOLDER`, a folder that holds the target",
            "add the link to `exclude`",
        ),
        (WhyUnreadable::NotAFile, "name regular files in `include`", "add '/l/a b' to `exclude`"),
        (WhyUnreadable::TooDeep, "add a glob that names more of the folders", ""),
        (WhyUnreadable::TooMany, "narrow `include` of [[follow]]", ""),
        (WhyUnreadable::Content, "replace '/l/a b' by a complete copy", "add it to `exclude`"),
        (WhyUnreadable::System, "ls -ld '/l/a b'    # make it readable", ""),
    ] {
        let found = step(why);
        assert!(found.0.starts_with(next) && found.1.starts_with(or), "{why:?}: {found:?}");
        assert_eq!(
            (found.0.contains("ls -ld"), found.1.is_empty()),
            (why == WhyUnreadable::System, or.is_empty())
        );
    }
}

#[test]
fn a_turn_of_the_tail_that_does_not_end_is_reported() {
    let busy = |ms| surroundings(Outside { tail_busy_ms: Some(ms), ..Outside::default() });
    assert!(judge_log(&busy(T - 1), &settings()).is_empty());
    assert_eq!(judge_log(&busy(T), &settings())[0].cause, Some(Cause::TailHung));
}
