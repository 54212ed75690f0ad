//! Order, failure, blame and dead letters (docs/explanation/delivery.md), with the built program and real commands.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use spillq::http::StatusJson;

use crate::support::{Bounded, Stage, spillq, wait_for};

/// Follows a file `app.log` of numbered lines. `group` has keys of the section of its group; `sh -c` runs `script` in the folder
/// for each batch.
fn staged(lines: u64, group: &str, script: &str) -> Stage {
    let stage = Stage::new();
    stage.append("app.log", &numbered(1..=lines));
    stage.configure(&format!(
        "data_dir = \"q\"\nstall_after = \"1s\"\n[[follow]]\ninclude = [\"app*.log\"]\n\
         [[group]]\nname = \"default\"\n{group}\n\
         [[processor]]\ngroup = \"default\"\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\n"
    ));
    stage
}

impl Stage {
    /// Runs `run --once` or `drain`. Returns its exit status and output.
    fn to_the_end(&self, args: &[&str]) -> (Option<i32>, String) {
        let config = self.config();
        let mut command = spillq(args);
        let output = command.arg("--config").arg(config).current_dir(self.folder()).finished();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn arrived(&self) -> Vec<u64> {
        numbers(&self.path("out"))
    }

    /// Waits until doctor names this cause. Returns the summary, the evidence and the next step as one text.
    #[track_caller]
    fn explained(&self, cause: &str) -> String {
        let mut last = None;
        let found = wait_for(|| {
            last = self.doctor().map(|(doctor, _)| doctor);
            let verdict = last.as_ref()?.groups.iter().find(|group| group.cause.as_deref() == Some(cause))?;
            let evidence = verdict.evidence.join("\n");
            Some(format!("{}\n{evidence}\n{}\n{}", verdict.summary, verdict.next, verdict.or))
        });
        found.unwrap_or_else(|| panic!("doctor never said {cause}, but {last:#?}"))
    }
}

fn numbered(numbers: impl IntoIterator<Item = u64>) -> String {
    numbers.into_iter().map(|number| format!("{number}\n")).collect()
}

fn numbers(file: &Path) -> Vec<u64> {
    fs::read_to_string(file).unwrap_or_default().lines().map(|line| line.parse().unwrap()).collect()
}

fn is_done(status: &StatusJson) -> bool {
    status.log.next_seq > 1 && status.groups[0].lag_lines == 0
}

const QUICK: &str = "retry = { initial = \"20ms\", max = \"100ms\", attempts = 3 }";
/// Appends the batch to `out`, unless there is a file `down`. Each delivery adds a line to `calls`.
const DOWN: &str = "cat > batch; echo >> calls; test ! -e down && cat batch >> out";

/// Before the rules were changed, line 20,000 arrived first: a line after the one that failed was delivered to find out
/// whether the destination was down.
#[test]
fn an_outage_overtakes_no_line_makes_no_dead_letter_and_costs_one_delivery_per_back_off() {
    let stage = staged(20_000, "", DOWN);
    fs::write(stage.path("down"), "").unwrap();
    let mut service = stage.start();
    let began = Instant::now();
    let calls = || fs::read_to_string(stage.path("calls")).unwrap_or_default().lines().count();
    assert!(wait_for(|| (calls() >= 5).then_some(())).is_some(), "it is tried again and again");
    // At 0, 0.2, 0.6, 1.4 and 3 s. A busy machine is later, never earlier.
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    fs::remove_file(stage.path("down")).unwrap();
    let status =
        service.wait("everything is acked", |status| status.log.next_seq > 20_000 && is_done(status));
    assert_eq!(status.groups[0].dead_letters, 0);
    assert_eq!(stage.arrived(), (1..=20_000).collect::<Vec<_>>(), "in order");
}

#[test]
fn a_line_that_fails_without_blame_holds_the_group_until_it_is_parked() {
    let stage = staged(
        50,
        QUICK,
        "cat > batch; if grep -qx 17 batch; then echo no seventeen >&2; exit 1; fi; cat batch >> out",
    );
    let mut service = stage.start();
    let status =
        service.wait("it is held", |status| status.groups[0].reason.as_deref() == Some("held by line 17"));
    assert_eq!((status.groups[0].state.as_str(), status.groups[0].dead_letters), ("blocked", 0));
    assert_eq!(stage.arrived(), (1..17).collect::<Vec<_>>(), "nothing overtakes it");
    let said =
        wait_for(|| Some(stage.explained("held_line")).filter(|said| said.contains("dead-letter park")))
            .unwrap();
    assert!(said.contains("group default is blocked by line 17: it failed "), "{said}");
    assert!(said.contains("no seventeen"), "what the command printed: {said}");
    assert!(said.contains("inspect") && said.contains("--from 17 --limit 1"), "{said}");
    // It is refused while the line is out.
    let parked = wait_for(|| stage.spillq(&["dead-letter", "park", "17"]).status.success().then_some(()));
    parked.expect("it is parked between two attempts");
    let status = service.wait("the others are acked", is_done);
    assert_eq!(status.groups[0].dead_letters, 1);
    assert_eq!(stage.arrived(), (1..=50).filter(|number| *number != 17).collect::<Vec<_>>());
    // After a retry it fails again: it is a dead letter again, and does not hold the group.
    assert!(stage.spillq(&["dead-letter", "retry", "17"]).status.success());
    fs::write(stage.path("app2.log"), "51\n").unwrap();
    service.wait("a line behind it is acked", |status| status.groups[0].ack_floor == 51 && is_done(status));
    service.wait("it is a dead letter again", |status| status.groups[0].dead_letters == 1);
    assert_eq!(stage.arrived().last(), Some(&51));
}

#[test]
fn retry_now_skips_a_back_off() {
    let stage = staged(5, "retry = { initial = \"1h\", max = \"1h\" }", DOWN);
    fs::write(stage.path("down"), "").unwrap();
    let mut service = stage.start();
    service
        .wait("it backs off", |status| status.groups[0].state == "retrying" && status.groups[0].leased == 0);
    fs::remove_file(stage.path("down")).unwrap();
    let output = stage.spillq(&["group", "retry-now", "default"]);
    assert!(output.status.success(), "{output:?}");
    service.wait("everything is acked", is_done);
    assert_eq!(service.stop(), 0);
    let output = stage.spillq(&["group", "retry-now", "default"]);
    assert_eq!(output.status.code(), Some(2), "without a service there is nothing to skip: {output:?}");
}

/// `run --once` and `drain` never ended: the line waited for other lines to show that the destination works.
#[test]
fn once_and_drain_end_with_status_1_and_say_why_when_a_line_only_fails() {
    let script = "cat > batch; if grep -qx 242 batch; then exit 1; fi; cat batch >> out";
    let stage = staged(1_000, QUICK, script);
    let (code, said) = stage.to_the_end(&["run", "--once"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("held by line 242"), "{said}");
    assert_eq!(stage.arrived(), (1..242).collect::<Vec<_>>());
    let (code, said) = stage.to_the_end(&["drain"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("held by line 242") && said.contains("759"), "{said}");

    // Without order the others are done first, so that no other line succeeds once this line fails alone.
    let stage = staged(1_000, &format!("{QUICK}\norder = \"none\""), script);
    let (code, said) = stage.to_the_end(&["run", "--once"]);
    let status = stage.status();
    let (lag, dead) = (status.groups[0].lag_lines, status.groups[0].dead_letters);
    assert_eq!(
        lag + dead,
        1,
        "it waits, or is a dead letter if another line was acked since it failed: {said}"
    );
    assert_eq!(code, Some(i32::from(lag > 0)), "{said}");
    assert_eq!(stage.arrived().len(), 999);
}

#[test]
fn a_rejected_line_becomes_a_dead_letter_at_once_and_a_strict_group_does_not_wait_for_it() {
    let stage = staged(
        3_000,
        "batch = { lines = 1500 }",
        "cat > batch; if grep -qx 700 batch || grep -qx 2200 batch; then exit 65; fi; cat batch >> out",
    );
    // With back-offs of 200 ms and more, the earlier rules took seconds for each.
    let mut service = stage.start();
    let status =
        service.wait("everything is settled", |status| status.log.next_seq > 3_000 && is_done(status));
    assert_eq!(status.groups[0].dead_letters, 2);
    let expected: Vec<u64> = (1..=3_000).filter(|number| ![700, 2_200].contains(number)).collect();
    assert_eq!(stage.arrived(), expected, "in order, each once");
    let list = stage.spillq(&["dead-letter", "list", "--json"]);
    let causes: Vec<serde_json::Value> = String::from_utf8_lossy(&list.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(causes.iter().all(|letter| letter["cause"] == "rejected"), "{causes:?}");
}

#[test]
fn if_every_line_is_rejected_the_group_is_refused_over_restarts_until_the_command_is_fixed() {
    let stage = staged(20, QUICK, "cat > batch; test -e fixed || exit 65; cat batch >> out");
    let mut service = stage.start();
    let refused = |status: &StatusJson| status.groups[0].state == "refused";
    let status = service.wait("it is refused", refused);
    assert_eq!(
        (status.groups[0].dead_letters, status.groups[0].lag_lines),
        (1, 19),
        "one is enough for a new command"
    );
    assert!(status.groups[0].reason.as_deref().unwrap().contains("every line is rejected"), "{status:?}");
    let said = stage.explained("every_line_rejected");
    assert!(said.contains("line 2 was rejected too") && said.contains("dead-letter"), "{said}");
    assert_eq!(service.stop(), 0);
    let mut service = stage.start();
    let status = service.wait("it is refused again", refused);
    assert_eq!(status.groups[0].dead_letters, 1, "the count is stored");
    fs::write(stage.path("fixed"), "").unwrap();
    service.wait("the others are acked", is_done);
    assert!(stage.spillq(&["dead-letter", "retry", "--all"]).status.success());
    let status =
        service.wait("it is acked as well", |status| is_done(status) && status.groups[0].dead_letters == 0);
    assert_eq!(status.groups[0].acked_lines, 20);
    let mut arrived = stage.arrived();
    arrived.sort_unstable();
    assert_eq!(arrived, (1..=20).collect::<Vec<_>>());
}

/// Kills the service that started it, the parent of its shim.
const KILLS: &str = "cat > batch; if grep -qx 5 batch && test ! -e cured; then kill -9 $(cut -d' ' -f4 /proc/$PPID/stat); sleep 60; fi; cat batch >> out";

#[test]
fn a_line_that_kills_the_service_does_not_make_it_crash_for_ever() {
    let stage = staged(8, QUICK, KILLS);
    let mut deaths = 0;
    let mut service = loop {
        let mut service = stage.start();
        let held = wait_for(|| match service.status() {
            Some(status) if status.groups[0].reason.as_deref() == Some("held by line 5") => Some(true),
            _ => (!service.is_alive()).then_some(false),
        });
        if held == Some(true) {
            break service;
        }
        deaths += 1;
        assert!(deaths < 12, "it dies again and again");
    };
    assert_eq!(stage.arrived(), [1, 2, 3, 4]);
    let said = stage.explained("held_line");
    assert!(said.contains("the service died 3 times while it was in flight"), "{said}");
    let (code, told) = {
        assert_eq!(service.stop(), 0);
        stage.to_the_end(&["drain"])
    };
    assert_eq!(code, Some(1), "{told}");
    service = stage.start();
    fs::write(stage.path("cured"), "").unwrap();
    let output = wait_for(|| {
        Some(stage.spillq(&["group", "retry-now", "default"])).filter(|output| output.status.success())
    });
    assert!(output.is_some(), "it is delivered once more");
    service.wait("everything is acked", is_done);
    assert_eq!(stage.arrived(), (1..=8).collect::<Vec<_>>());
}

#[test]
fn with_stuck_dead_letter_a_line_that_kills_the_service_becomes_a_dead_letter() {
    let stage = staged(8, &format!("{QUICK}\nstuck = \"dead_letter\""), KILLS);
    for _ in 0..12 {
        let mut service = stage.start();
        let done = wait_for(|| match service.status() {
            Some(status) if is_done(&status) => Some(true),
            _ => (!service.is_alive()).then_some(false),
        });
        if done == Some(true) {
            assert_eq!(stage.arrived(), [1, 2, 3, 4, 6, 7, 8]);
            let list = stage.spillq(&["dead-letter", "list", "--json"]);
            let letter: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
            assert_eq!(
                (&letter["seq"], &letter["cause"], &letter["attempts"]),
                (&5.into(), &"died".into(), &3.into())
            );
            return;
        }
    }
    panic!("it dies again and again");
}

#[test]
fn a_line_that_kills_its_command_holds_the_group() {
    let stage = staged(8, QUICK, "cat > batch; if grep -qx 5 batch; then kill -9 $$; fi; cat batch >> out");
    let mut service = stage.start();
    service.wait("it is held", |status| status.groups[0].reason.as_deref() == Some("held by line 5"));
    assert!(stage.explained("held_line").contains("signal 9"));
    assert_eq!(stage.arrived(), [1, 2, 3, 4]);
}

#[test]
fn stuck_dead_letter_gives_up_on_a_line_after_attempts_and_time() {
    let group = "retry = { initial = \"20ms\", max = \"100ms\", attempts = 3, give_up_after = \"1s\" }\nstuck = \"dead_letter\"";
    let stage = staged(20, group, "cat > batch; if grep -qx 7 batch; then exit 1; fi; cat batch >> out");
    let mut service = stage.start();
    let status = service.wait("all are settled", |status| status.log.next_seq > 20 && is_done(status));
    assert_eq!(status.groups[0].dead_letters, 1);
    assert_eq!(stage.arrived(), (1..=20).filter(|number| *number != 7).collect::<Vec<_>>());
}

#[test]
fn max_lag_with_drop_ends_a_hold_and_with_block_doctor_names_the_line() {
    let drops = format!("{QUICK}\nmax_lag = {{ lines = 10, policy = \"drop\" }}");
    let script = "cat > batch; if grep -qx 3 batch; then exit 1; fi; cat batch >> out";
    let stage = staged(8, &drops, script);
    let mut service = stage.start();
    service.wait("it is held", |status| status.groups[0].reason.as_deref() == Some("held by line 3"));
    fs::write(stage.path("app2.log"), numbered(9..=30)).unwrap();
    let status = service
        .wait("the line is dropped, and the others continue", |status| status.groups[0].ack_floor == 30);
    assert!(status.groups[0].dropped_lines > 0 && status.groups[0].dead_letters == 0, "{status:?}");
    assert_eq!(stage.arrived().last(), Some(&30));

    let stage = staged(8, &format!("{QUICK}\nmax_lag = {{ lines = 4 }}"), script);
    let mut service = stage.start();
    service.wait("it is held", |status| status.groups[0].reason.as_deref() == Some("held by line 3"));
    fs::write(stage.path("app2.log"), numbered(9..=30)).unwrap();
    let found = wait_for(|| {
        let (doctor, _) = stage.doctor()?;
        doctor.findings.iter().find(|found| found.cause.as_deref() == Some("max_lag")).cloned()
    });
    let found = found.expect("ingestion is paused for the group");
    let said = format!("{}\n{}\n{}", found.summary, found.evidence.join("\n"), found.next);
    assert!(said.contains("blocked by line 3"), "{said}");
}

#[test]
fn linger_gathers_lines_in_strict_order_too() {
    let stage = staged(
        1,
        "batch = { lines = 5, linger = \"60s\" }",
        "cat > batch; wc -l < batch >> sizes; cat batch >> out",
    );
    let mut service = stage.start();
    service.wait("the line is in the log", |status| status.log.next_seq == 2);
    for number in 2..=5 {
        assert!(!stage.path("sizes").exists(), "it waits for more");
        fs::write(stage.path(&format!("app{number}.log")), format!("{number}\n")).unwrap();
        service.wait("another line is in the log", |status| status.log.next_seq == number + 1);
    }
    service.wait("everything is acked", is_done);
    assert_eq!(fs::read_to_string(stage.path("sizes")).unwrap().trim(), "5", "one batch");
    assert_eq!(service.stop(), 0);
    fs::write(stage.path("app6.log"), "6\n").unwrap();
    let began = Instant::now();
    assert_eq!(stage.to_the_end(&["run", "--once"]).0, Some(0));
    assert!(began.elapsed() < Duration::from_secs(30), "a run that is to end never lingers");
}

/// Parking stopped at the first line of a range that does not wait.
#[test]
fn a_range_is_parked_except_for_the_lines_that_do_not_wait() {
    let stage = staged(1_200, QUICK, "cat > batch; exit 1");
    let config = fs::read_to_string(stage.path("spillq.toml")).unwrap();
    fs::write(stage.path("spillq.toml"), config.split("[[processor]]").next().unwrap()).unwrap();
    let mut service = stage.start();
    service.wait("all are in the log", |status| status.log.next_seq == 1_201);
    let park = |args: &[&str]| {
        let output = stage.spillq(&[&["dead-letter", "park"], args].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(park(&["5"]).0, Some(0));
    let (code, said) = park(&["3-8"]);
    assert!(
        code == Some(0) && said.starts_with("5 lines moved to the dead letters of group default"),
        "{said}"
    );
    assert_eq!(park(&["3-8"]).0, Some(2), "none of them waits any more");
    let (code, said) = park(&["--all"]);
    assert!(
        code == Some(0) && said.starts_with("1,194 lines moved to the dead letters of group default"),
        "{said}"
    );
    let status = service.wait("nothing waits", is_done);
    assert_eq!(status.groups[0].dead_letters, 1_200);
}

/// `inspect --from N`, which doctor prints, showed another line: N had been retried, and its segment was gone.
#[test]
fn lines_that_outlive_their_segment_are_shown_by_inspect() {
    let stage = staged(3, QUICK, "if grep -qx -e 1 -e 3; then exit 65; fi");
    // Segments have 16 MiB, and these lines hardly compress.
    let mut rng = fastrand::Rng::with_seed(1);
    let mut line = || format!("{}\n", (0..1_000).map(|_| rng.alphanumeric()).collect::<String>());
    fs::write(stage.path("app2.log"), (0..30_000).map(|_| line()).collect::<String>()).unwrap();
    let mut service = stage.start();
    let status = service.wait("the segment of the dead letters is gone", |status| {
        status.log.first_seq > 3 && status.groups[0].dead_letters == 2 && is_done(status)
    });
    let left = [1, 3, status.log.first_seq];
    let inspects = |what: &str| {
        let output = stage.spillq(&["inspect", "--limit", "3", "--json"]);
        assert!(output.status.success(), "{what}: {output:?}");
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let shown: Vec<(u64, String)> = lines
            .map(|line| (line["seq"].as_u64().unwrap(), line["text"].as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(shown.iter().map(|line| line.0).collect::<Vec<_>>(), left, "{what}");
        assert_eq!((shown[0].1.as_str(), shown[1].1.as_str()), ("1", "3"), "{what}");
    };
    inspects("dead letters");
    assert!(stage.spillq(&["group", "pause", "default"]).status.success());
    assert!(stage.spillq(&["dead-letter", "retry", "1"]).status.success());
    inspects("one that was put back");
    assert_eq!(service.stop(), 0);
    inspects("on a stopped store");
}
