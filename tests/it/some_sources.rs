//! Groups over some sources: each gets the lines of its files and no others, in order and once, whatever comes in between.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::json;
use spillq::http::{GroupJson, StatusJson};

use crate::support::web::Web;
use crate::support::{Bounded, SMALL_STORE, Service, Stage, from_env, peak_kib, spillq, wait_for};

const FOLLOWS: &str = "[[follow]]\ninclude = [\"*.log*\"]\nrotate_wait = \"200ms\"\n";

/// Lines of `a.log` and `b.log`, interleaved as far as the tail does that: a few of each at a time.
fn write_both(stage: &Stage, numbers: std::ops::RangeInclusive<u64>, at_once: u64) {
    let (mut from, last) = (*numbers.start(), *numbers.end());
    while from <= last {
        let to = last.min(from + at_once - 1);
        for name in ["a", "b"] {
            let lines: String = (from..=to).map(|number| format!("{name} {number}\n")).collect();
            stage.append(&format!("{name}.log"), &lines);
        }
        from = to + 1;
    }
}

fn expected(name: &str, numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("{name} {number}")).collect()
}

impl Stage {
    fn with_groups(sections: &str) -> Stage {
        let stage = Stage::new();
        stage.write_groups(sections);
        stage
    }

    fn write_groups(&self, sections: &str) {
        self.configure(&format!("data_dir = \"q\"\nstall_after = \"1s\"\n{SMALL_STORE}{FOLLOWS}{sections}"));
    }

    fn lines_of(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn reload_groups(&self, sections: &str) -> Output {
        self.write_groups(sections);
        let reloaded = self.spillq(&["config", "reload"]);
        assert!(reloaded.status.success(), "{reloaded:?}");
        reloaded
    }
}

fn group<'s>(status: &'s StatusJson, name: &str) -> &'s GroupJson {
    status.groups.iter().find(|group| group.group == name).unwrap()
}

fn has_all(status: &StatusJson, lines: u64) -> bool {
    status.log.next_seq > lines
}

fn is_done(group: &GroupJson) -> bool {
    group.lag_lines == 0 && !group.counting
}

/// A group with a processor that appends each batch to a file of the group's name.
fn to_file(name: &str, keys: &str) -> String {
    format!(
        "[[group]]\nname = \"{name}\"\n{keys}\n[[processor]]\ngroup = \"{name}\"\nkind = \"exec\"\n\
         command = [\"sh\", \"-c\", \"cat >> {name}\"]\n"
    )
}

#[test]
fn each_group_gets_the_lines_of_its_files_in_order_and_counts_only_those() {
    let groups = ["of_a\ninclude = [\"a.log\"]", "not_a\nexclude = [\"a.log\"]", "all"].map(|of| {
        let (name, keys) = of.split_once('\n').unwrap_or((of, ""));
        to_file(name, &format!("{keys}\nbatch = {{ lines = 7 }}"))
    });
    let stage = Stage::with_groups(&groups.concat());
    let mut service = stage.start();
    for from in (1..=300).step_by(20) {
        write_both(&stage, from..=from + 19, 3);
        service.wait("they are stored", |status| has_all(status, 2 * from + 38));
    }
    let status = service
        .wait("all groups are done", |status| has_all(status, 600) && status.groups.iter().all(is_done));
    assert_eq!(stage.lines_of("of_a"), expected("a", 1..=300));
    assert_eq!(stage.lines_of("not_a"), expected("b", 1..=300));
    let all = stage.lines_of("all");
    let changes = all.windows(2).filter(|two| two[0].as_bytes()[0] != two[1].as_bytes()[0]).count();
    assert!(all.len() == 600 && changes > 10, "lines of both, in turn: {changes}");
    for (name, acked) in [("of_a", 300), ("not_a", 300), ("all", 600)] {
        assert_eq!(group(&status, name).acked_lines, acked, "{name}");
    }
    service.wait("nothing is kept for lines of others", |status| {
        status.groups.iter().all(|group| group.ack_floor == 600)
    });
    assert_eq!(service.stop(), 0);
    // From the beginning again, after a restart: the same.
    let mut service = stage.start();
    service.wait("it is up", |_| true);
    assert!(stage.spillq(&["group", "seek", "of_a", "--to", "beginning"]).status.success());
    service.wait("it has them again", |_| stage.lines_of("of_a").len() == 600);
    assert_eq!(stage.lines_of("of_a")[300..], expected("a", 1..=300));
    assert_eq!(stage.lines_of("not_a").len(), 300);
}

#[test]
fn a_bad_line_between_lines_of_others_is_found_and_the_rest_is_delivered_once() {
    // Without a number, so that the batch is bisected.
    let script = "cat > batch; grep -q 'a 41$' batch && exit 65; cat batch >> out";
    let groups = format!(
        "[[group]]\nname = \"of_a\"\ninclude = [\"a.log\"]\nretry = {{ initial = \"20ms\", max = \"50ms\" }}\n\
         [[processor]]\ngroup = \"of_a\"\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\n"
    );
    let stage = Stage::with_groups(&groups);
    let mut service = stage.start();
    service.wait("it is up", |_| true);
    assert!(stage.spillq(&["group", "pause", "of_a"]).status.success());
    for number in 1..=100 {
        write_both(&stage, number..=number, 1);
        service.wait("lines of both in turn", |status| status.log.next_seq > 2 * number);
    }
    assert!(stage.spillq(&["group", "resume", "of_a"]).status.success());
    let status = service.wait("it is done", |status| has_all(status, 200) && is_done(&status.groups[0]));
    assert_eq!(stage.lines_of("out"), expected("a", (1..=100).filter(|number| *number != 41)));
    let of_a = group(&status, "of_a");
    assert_eq!((of_a.dead_letters, of_a.acked_lines), (1, 99));
    let listed = stage.spillq(&["dead-letter", "list", "--group", "of_a"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    // Lines 81 and 82 are the 41st of both.
    assert!(
        listed.starts_with("81 rejected, 2 attempts") || listed.starts_with("82 rejected, 2 attempts"),
        "{listed}"
    );
}

/// With the incident's order of events: kills at any moment, and a destination that stores each line once.
#[test]
fn kills_lose_and_repeat_no_line_of_a_group_over_some_sources() {
    let sections = "[[group]]\nname = \"of_a\"\ninclude = [\"a.log\"]\n\
        [[processor]]\ngroup = \"of_a\"\nkind = \"file\"\npath = \"out/of_a\"\n\
        [[group]]\nname = \"of_b\"\ninclude = [\"b.log\"]\nbatch = { lines = 3 }\n\
        [[processor]]\ngroup = \"of_b\"\nkind = \"file\"\npath = \"out/of_b\"\n";
    let stage = Stage::with_groups(sections);
    fs::create_dir(stage.path("out")).unwrap();
    let kills = from_env("SPILLQ_TEST_KILLS", 8);
    let mut written = 0;
    for _ in 0..kills {
        let mut service = stage.start();
        for _ in 0..10 {
            write_both(&stage, written + 1..=written + 40, 2);
            written += 40;
            if fastrand::bool() {
                service.wait("it has taken some in", |status| status.log.next_seq > written);
            }
        }
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..200)));
        service.kill();
    }
    let mut service = stage.start();
    service.wait("all groups are done", |status| {
        has_all(status, 2 * written) && status.groups.iter().all(is_done)
    });
    assert_eq!(stage.lines_of("out/of_a"), expected("a", 1..=written));
    assert_eq!(stage.lines_of("out/of_b"), expected("b", 1..=written));
}

#[test]
fn consumers_settle_lines_between_those_of_others() {
    let stage = Stage::with_groups(
        "[[group]]\nname = \"of_a\"\ninclude = [\"a.log\"]\norder = \"none\"\nbatch = { lines = 10 }\n\
         [consumers]\nlisten = [\"unix:c.sock\"]\n",
    );
    let mut service = stage.start();
    service.wait("it is up", |_| true);
    for number in 1..=12 {
        for name in ["b", "a"] {
            stage.append(&format!("{name}.log"), &format!("{name} {number}\n"));
            let next = 2 * number + u64::from(name == "a");
            service.wait("each line in turn", |status| status.log.next_seq == next);
        }
    }
    let status = service.wait("they are counted", |status| !status.groups[0].counting);
    assert_eq!(status.groups[0].lag_lines, 12);
    let mut web = Web::unix(&stage.path("c.sock"));
    let mut ask = |path: &str, lease: &str, body: serde_json::Value| {
        web.ask("POST", path, &[("spillq-lease", lease)], &body.to_string()).unwrap()
    };
    let leased = ask("/v1/groups/of_a/lease", "", json!({"consumer": "w1"}));
    assert_eq!(leased.status, 200, "{leased:?}");
    let headers = ["first-seq", "last-seq", "lines"].map(|name| leased.header(&format!("spillq-{name}")));
    assert_eq!(headers, ["2", "20", "10"]);
    assert_eq!(leased.seqs(), (1..=10).map(|number| 2 * number).collect::<Vec<_>>());
    let lease = leased.header("spillq-lease").to_owned();
    let settle = "/v1/leases/settle";
    let foreign = ask(settle, &lease, json!({"ack": "all", "bad": [{"seq": 5, "reason": "not mine"}]}));
    assert_eq!((foreign.status, foreign.json()["code"].as_str()), (400, Some("settlement")), "{foreign:?}");
    // What is left begins and ends with lines of its own.
    let part = ask(settle, &lease, json!({"ack": {"ranges": [[2, 5], [9, 13]]}}));
    assert_eq!(
        (part.json()["acked"].as_u64(), &part.json()["left"]),
        (Some(4), &json!([[6, 8], [14, 20]])),
        "{part:?}"
    );
    let bad = ask(settle, &lease, json!({"ack": "all", "bad": [{"seq": 16, "reason": "no such coin"}]}));
    assert_eq!((bad.json()["acked"].as_u64(), bad.json()["dead"].as_u64()), (Some(5), Some(1)), "{bad:?}");
    let status = stage.status();
    assert_eq!((status.groups[0].lag_lines, status.groups[0].acked_lines), (2, 9));
    let rest = ask("/v1/groups/of_a/lease", "", json!({"consumer": "w1"}));
    assert_eq!(rest.seqs(), [22, 24]);
    let failed = ask(settle, rest.header("spillq-lease"), json!({"fail": {"reason": "db down"}}));
    assert_eq!(failed.status, 200);
    let again = ask("/v1/groups/of_a/lease", "", json!({"consumer": "w1", "wait_ms": 5_000}));
    assert_eq!((again.seqs(), again.header("spillq-attempt")), (vec![22, 24], "2"));
    ask(settle, again.header("spillq-lease"), json!({"ack": "all"}));
    service.wait("nothing is left", |status| status.groups[0].ack_floor == 24);
}

#[test]
fn a_reload_changes_which_lines_a_group_gets_above_its_floor() {
    let keys = |include: &str| to_file("mine", &format!("include = [\"{include}\"]"));
    let stage = Stage::with_groups(&keys("a.log"));
    let mut service = stage.start();
    write_both(&stage, 1..=10, 2);
    service.wait("it is done", |status| status.groups[0].ack_floor == 20);
    assert!(stage.spillq(&["group", "pause", "mine"]).status.success());
    write_both(&stage, 11..=20, 2);
    let status = service.wait("they wait", |status| has_all(status, 40));
    assert_eq!(status.groups[0].lag_lines, 10);
    stage.reload_groups(&keys("b.log"));
    write_both(&stage, 21..=30, 2);
    service.wait("all are counted", |status| has_all(status, 60) && !status.groups[0].counting);
    assert!(stage.spillq(&["group", "resume", "mine"]).status.success());
    service.wait("it is done", |status| is_done(&status.groups[0]));
    // Lines of b.log that it had passed before the reload stay settled.
    let lines = stage.lines_of("mine");
    let (before, after) = lines.split_at(10);
    assert_eq!(before, expected("a", 1..=10));
    assert!(
        after.ends_with(&expected("b", 21..=30)) && after.iter().all(|line| line.starts_with('b')),
        "{after:?}"
    );
    // A seek brings them back.
    let sought = stage.spillq(&["group", "seek", "mine", "--to", "21"]);
    assert!(sought.status.success(), "{sought:?}");
    service.wait("it has them", |_| stage.lines_of("mine").ends_with(&expected("b", 11..=30)));
    service.wait("nothing is left of others", |status| status.groups[0].ack_floor == 60);
    // Without globs it gets every line again.
    stage.reload_groups(&to_file("mine", ""));
    let delivered = stage.lines_of("mine").len();
    write_both(&stage, 31..=32, 1);
    service.wait("it is done", |status| has_all(status, 64) && is_done(&status.groups[0]));
    assert_eq!(stage.lines_of("mine").len(), delivered + 4);
}

#[test]
fn a_rotated_file_counts_by_its_first_name_even_after_it_is_gone() {
    let stage = Stage::with_groups("[[group]]\nname = \"of_a\"\ninclude = [\"a.log\"]\n");
    let mut service = stage.start();
    write_both(&stage, 1..=5, 5);
    service.wait("they are stored", |status| has_all(status, 10));
    fs::rename(stage.path("a.log"), stage.path("a.log.1")).unwrap();
    stage.append("a.log.1", "a 6\n");
    service.wait("the last line under another name", |status| has_all(status, 11));
    stage.append("a.log", "a 7\n");
    service.wait("the next file", |status| has_all(status, 12));
    fs::remove_file(stage.path("a.log.1")).unwrap();
    let finished =
        |status: &StatusJson| status.sources.iter().all(|source| !source.path.ends_with("a.log.1"));
    service.wait("it is finished", finished);
    service.kill();
    stage.write_groups(&to_file("of_a", "include = [\"a.log\"]"));
    let mut service = stage.start();
    service.wait("it is done", |status| is_done(&status.groups[0]));
    assert_eq!(stage.lines_of("of_a"), expected("a", 1..=7));
}

/// The whole backlog is of others: nothing keeps it, and nobody spins.
#[test]
fn a_group_that_gets_nothing_keeps_nothing_and_does_not_spin() {
    let sections = format!(
        "[[group]]\nname = \"none\"\ninclude = [\"nothing.log\"]\n[[group]]\nname = \"one\"\ninclude = [\"one.log\"]\n{}",
        to_file("all", "")
    );
    let stage = Stage::with_groups(&sections);
    stage.append("one.log", "the only line\n");
    let mut service = stage.start();
    service.wait("the first line", |status| has_all(status, 1));
    // More than one segment.
    let line = |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut line: String = std::iter::repeat_with(|| random.alphanumeric()).take(999).collect();
        line.push('\n');
        line
    };
    for part in 0..40 {
        let lines: String = (0..1_000).map(|number| line(part * 1_000 + number)).collect();
        stage.append("big.log", &lines);
    }
    let status = service.wait("all is settled", |status| {
        has_all(status, 40_001)
            && group(status, "all").lag_lines == 0
            && group(status, "none").ack_floor == 40_001
    });
    assert_eq!((group(&status, "none").lag_lines, group(&status, "one").lag_lines), (0, 1));
    let status = service.wait("the segments are removed", |status| status.log.segments <= 2);
    assert!(group(&status, "one").ack_floor < 2, "its line waits, and nobody takes it");
    // A second of rest: no commit, and next to no processor time.
    let used = |service: &Service| cpu_ms(service.status().unwrap().pid);
    let before = (used(&service), service.status().unwrap().log.commits);
    let since = Instant::now();
    wait_for(|| (since.elapsed() >= Duration::from_secs(2)).then_some(()));
    let after = (used(&service), service.status().unwrap().log.commits);
    assert_eq!(after.1, before.1, "commits");
    assert!(after.0 - before.0 < 400, "{} ms of processor time in two seconds", after.0 - before.0);
}

/// Lines that were not counted because of damage counted as none: they were settled, and nobody knew.
#[test]
fn own_lines_in_a_damaged_block_are_reported_and_not_passed() {
    let stage = Stage::with_groups(&to_file("of_a", "include = [\"a.log\"]"));
    let mut service = stage.start();
    service.wait("it is up", |_| true);
    assert!(stage.spillq(&["group", "pause", "of_a"]).status.success());
    let mut next = 1;
    for name in ["b.log", "a.log", "b.log"] {
        let mut random = fastrand::Rng::with_seed(next);
        for _ in 0..4 {
            let line: String = std::iter::repeat_with(|| random.alphanumeric()).take(200_000).collect();
            stage.append(name, &(line + "\n"));
        }
        next += 4;
        service.wait("four long lines", |status| status.log.next_seq == next);
    }
    assert_eq!(service.stop(), 0);
    let segment = fs::read_dir(stage.path("q/segments")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&segment).unwrap();
    let blocks: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"SPQB")).collect();
    for at in blocks {
        let first = u64::from_le_bytes(bytes[at + 24..at + 32].try_into().unwrap());
        bytes[at + 40] ^= if (5..=8).contains(&first) { 0xff } else { 0 };
    }
    fs::write(&segment, bytes).unwrap();
    let mut service = stage.start();
    service.wait("they are counted", |status| !status.groups[0].counting);
    assert!(stage.spillq(&["group", "resume", "of_a"]).status.success());
    let status = service.wait("it is blocked", |status| status.groups[0].state == "blocked");
    assert!(status.groups[0].reason.as_ref().unwrap().starts_with("damage: lines 5"), "{status:?}");
    assert!(status.groups[0].lag_lines >= 4 && status.groups[0].ack_floor < 5, "{status:?}");
}

/// A bad line that had become another's made the number of waiting lines too low, and the next one was settled undelivered.
#[test]
fn what_a_reload_excludes_is_neither_counted_nor_held_nor_taken_from_others() {
    let groups = |include: &str| {
        format!(
            "[[group]]\nname = \"g\"\norder = \"none\"\nin_flight = 4\ninclude = {include}\n\
             batch = {{ lines = 1 }}\n[consumers]\nlisten = [\"unix:c.sock\"]\n"
        )
    };
    let stage = Stage::with_groups(&groups("[\"a.log\", \"b.log\"]"));
    let mut service = stage.start();
    service.wait("it is up", |_| true);
    let mut web = Web::unix(&stage.path("c.sock"));
    let mut ask = |path: &str, lease: &str, body: serde_json::Value| {
        web.ask("POST", path, &[("spillq-lease", lease)], &body.to_string()).unwrap()
    };
    let (lease, settle) = ("/v1/groups/g/lease", "/v1/leases/settle");
    stage.append("a.log", "a 1\n");
    let first = ask(lease, "", json!({"consumer": "w"}));
    assert_eq!(ask(settle, first.header("spillq-lease"), json!({"ack": "all"})).status, 200);
    stage.append("b.log", "b 1\n");
    let second = ask(lease, "", json!({"consumer": "w"}));
    assert_eq!(second.seqs(), [2]);
    stage.reload_groups(&groups("[\"a.log\"]"));
    service.wait("they are counted", |status| !status.groups[0].counting);
    let bad = json!({"ack": "all", "bad": [{"seq": 2, "reason": "x"}]});
    let bad = ask(settle, second.header("spillq-lease"), bad);
    assert_eq!(bad.json()["dead"].as_u64(), Some(1), "{bad:?}");
    stage.append("a.log", "a 2\n");
    service.wait("it is stored", |status| has_all(status, 3));
    let third = ask(lease, "", json!({"consumer": "w", "wait_ms": 5_000}));
    assert_eq!(third.seqs(), [3]);
    assert_eq!(stage.status().groups[0].lag_lines, 1);
    assert_eq!(ask(settle, third.header("spillq-lease"), json!({"ack": "all"})).status, 200);
    // An operator asks for the dead letter: it is delivered, whatever the globs say.
    assert!(stage.spillq(&["dead-letter", "retry", "--group", "g", "2"]).status.success());
    assert_eq!(stage.status().groups[0].lag_lines, 1);
    let again = ask(lease, "", json!({"consumer": "w", "wait_ms": 5_000}));
    assert_eq!(again.seqs(), [2]);
    assert_eq!(ask(settle, again.header("spillq-lease"), json!({"ack": "all"})).status, 200);
    let status = service.wait("nothing is left", |status| is_done(&status.groups[0]));
    assert_eq!((status.groups[0].dead_letters, status.groups[0].acked_lines), (0, 3));
}

#[test]
fn a_line_that_killed_the_service_holds_no_group_that_does_not_get_it_any_more() {
    let script = "read line; case $line in b*) sleep 60;; esac; echo $line >> out";
    let groups = |include: &str| {
        format!(
            "[[group]]\nname = \"g\"\ninclude = {include}\nbatch = {{ lines = 1 }}\nretry = {{ attempts = 1 }}\n\
             [[processor]]\ngroup = \"g\"\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\n"
        )
    };
    let stage = Stage::with_groups(&groups("[\"a.log\", \"b.log\"]"));
    stage.append("b.log", "b 1\n");
    let mut service = stage.start();
    service.wait("it is in flight", |status| status.groups[0].leased == 1);
    service.kill();
    let mut service = stage.start();
    service.wait("it holds", |status| status.groups[0].reason.as_deref() == Some("held by line 1"));
    stage.reload_groups(&groups("[\"a.log\"]"));
    stage.append("a.log", "a 1\n");
    service.wait("the other is delivered", |status| status.groups[0].ack_floor == 2);
    assert_eq!(stage.lines_of("out"), ["a 1"]);
}

/// Each line kept its block of 256 KiB in memory.
#[test]
fn a_few_lines_of_many_blocks_take_little_memory() {
    let keys = "include = [\"a.log\"]";
    let script = "wc -l >> counted";
    let group = |keys: &str| {
        format!(
            "[[group]]\nname = \"of_a\"\n{keys}\n[[processor]]\ngroup = \"of_a\"\nkind = \"exec\"\n\
             command = [\"sh\", \"-c\", {script:?}]\n"
        )
    };
    let stage = Stage::with_groups(&group(keys));
    let mut service = stage.start();
    service.wait("it is up", |_| true);
    assert!(stage.spillq(&["group", "pause", "of_a"]).status.success());
    let others = "x".repeat(9_999) + "\n";
    let mut next = 1;
    for number in 0..250 {
        stage.append("a.log", &format!("a {number}\n"));
        stage.append("b.log", &others.repeat(26));
        next += 27;
        service.wait("both are stored", |status| status.log.next_seq == next);
    }
    assert_eq!(service.stop(), 0);
    let mut service = stage.start();
    service
        .wait("they are counted", |status| !status.groups[0].counting && status.groups[0].lag_lines == 250);
    let before = peak_kib(service.status().unwrap().pid);
    assert!(stage.spillq(&["group", "resume", "of_a"]).status.success());
    let status = service.wait("they are delivered", |status| is_done(&status.groups[0]));
    assert_eq!(
        stage.lines_of("counted").iter().map(|line| line.trim()).collect::<Vec<_>>(),
        ["250"],
        "in one batch"
    );
    let peak = peak_kib(status.pid);
    assert!(peak < before + 24 * 1024, "{before} KiB before, {peak} KiB at the peak");
}

#[test]
fn what_a_seek_skips_and_a_limit_drops_is_counted_and_recorded_as_its_own() {
    let groups = |keys: &str| format!("[[group]]\nname = \"g\"\ninclude = [\"a.log\"]\n{keys}\n");
    let stage = Stage::with_groups(&groups(""));
    let mut service = stage.start();
    service.wait("it is up", |_| true);
    for number in 1..=10 {
        write_both(&stage, number..=number, 1);
        service.wait("lines of both in turn", |status| status.log.next_seq > 2 * number);
    }
    let asked = stage.spillq(&["group", "seek", "g", "--to", "11"]);
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(!asked.status.success() && said.contains("5 lines"), "{said}");
    assert!(stage.spillq(&["group", "seek", "g", "--to", "11", "--discard-lines"]).status.success());
    let status = service.wait("they are counted", |status| !status.groups[0].counting);
    assert_eq!((status.groups[0].skipped_lines, status.groups[0].lag_lines), (5, 5));
    let sought = stage.spillq(&["group", "seek", "g", "--to", "5"]);
    let said = format!("{sought:?}");
    assert!(said.contains("3 lines"), "of lines 5 to 10 three are its own: {said}");
    service.wait("they are counted", |status| !status.groups[0].counting && status.groups[0].lag_lines == 8);
    stage.reload_groups(&groups("max_lag = { lines = 2, policy = \"drop\" }"));
    let status = service.wait("some are dropped", |status| status.groups[0].lag_lines <= 2);
    assert_eq!(status.groups[0].dropped_lines + status.groups[0].lag_lines, 8);
    let dropped = &status.losses.dropped;
    let begins = dropped.first().map(|dropped| dropped.starts_with("5-") || dropped.starts_with("6-"));
    assert!(dropped.len() == 1 && begins == Some(true), "{dropped:?}");
}

/// Processor time of a process.
fn cpu_ms(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum();
    ticks * 10
}

#[test]
fn lines_that_wait_are_counted_again_after_a_restart_and_dropped_as_its_own() {
    let groups = |keys: &str| format!("[[group]]\nname = \"of_a\"\ninclude = [\"a.log\"]\n{keys}\n");
    let stage = Stage::with_groups(&groups(""));
    let mut service = stage.start();
    write_both(&stage, 1..=1_000, 10);
    service.wait("they are stored", |status| has_all(status, 2_000));
    service.kill();
    let asked = |command: &str| {
        let output = spillq(&[command, "--config"]).arg(stage.config()).finished();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for command in ["status", "doctor"] {
        let said = asked(command);
        assert!(said.contains("1,000 lines wait") && !said.contains("2,000 lines wait"), "{command}: {said}");
    }
    let mut service = stage.start();
    let status = service.wait("they are counted", |status| !status.groups[0].counting);
    let of_a = group(&status, "of_a");
    assert_eq!(of_a.lag_lines, 1_000);
    let bytes: u64 = (1..=1_000_u64).map(|number| format!("a {number}\n").len() as u64).sum();
    assert!(of_a.lag_bytes.abs_diff(bytes) < bytes / 50, "{} of {bytes}", of_a.lag_bytes);
    stage.reload_groups(&groups("max_lag = { lines = 100, policy = \"drop\" }"));
    let status = service.wait("the oldest are dropped", |status| status.groups[0].lag_lines <= 100);
    let of_a = group(&status, "of_a");
    assert_eq!(of_a.dropped_lines + of_a.lag_lines, 1_000, "lines of others are not counted");
    assert!(of_a.lag_lines >= 90, "{}", of_a.lag_lines);
    service.kill();
    let mut service = stage.start();
    let status = service.wait("they are counted", |status| !status.groups[0].counting);
    assert_eq!(group(&status, "of_a").lag_lines, of_a.lag_lines, "as before the restart");
}

#[test]
fn a_reload_says_that_a_group_gets_nothing_any_more() {
    let stage =
        Stage::with_groups("[[group]]\nname = \"of_a\"\ninclude = [\"a.log\"]\n[[group]]\nname = \"all\"\n");
    write_both(&stage, 1..=1, 1);
    let mut service = stage.start();
    service.wait("the lines", |status| status.log.next_seq == 3);
    let typo = "[[group]]\nname = \"of_a\"\ninclude = [\"aa.log\"]\n[[group]]\nname = \"all\"\n";
    let reloaded = stage.reload_groups(typo);
    let said = String::from_utf8_lossy(&reloaded.stdout).into_owned();
    assert!(
        said.contains("note: group of_a gets the lines of none of the 2 files that are followed"),
        "{said}"
    );
    service.kill();
}

#[test]
fn config_check_says_if_a_group_gets_nothing_and_which_glob_is_wrong() {
    let stage = Stage::with_groups("[[group]]\nname = \"of_a\"\ninclude = [\"c.log\"]\n");
    write_both(&stage, 1..=1, 1);
    let check = || {
        let checked = spillq(&["config", "check"]).arg(stage.config()).finished();
        (
            checked.status.code(),
            String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout),
        )
    };
    let (_, said) = check();
    assert!(said.contains("group of_a gets the lines of none of the 2 files that are followed"), "{said}");
    stage.write_groups("[[group]]\nname = \"of_a\"\ninclude = [\"a[.log\"]\n");
    let (code, said) = check();
    assert!(code == Some(2) && said.contains("a[.log") && said.contains("not a glob"), "{code:?}: {said}");
    stage.write_groups("[[group]]\nname = \"of_a\"\ninclude = [\"a.log\"]\n");
    let (code, said) = check();
    assert!(code == Some(0) && !said.contains("none of"), "{code:?}: {said}");
    assert!(
        said.contains("no group gets the lines of 1 followed file, such as /") && said.contains("b.log"),
        "{said}"
    );
    stage.write_groups("[[group]]\nname = \"none\"\nexclude = [\"*.log\"]\n[[group]]\nname = \"all\"\n");
    let (code, said) = check();
    assert!(
        code == Some(0) && said.contains("group none gets the lines of none of the 2 files"),
        "{code:?}: {said}"
    );
    assert!(!said.contains("no group gets"), "{said}");
    assert!(Path::new(&stage.path("a.log")).exists());
}
