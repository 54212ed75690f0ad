//! `group seek`, `disk.keep`, `drop_oldest`, `max_lag` and `rate`, with real processes.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use spillq::http::{GroupJson, StatusJson};

use crate::support::{Bounded, Service, Stage, spillq, write_config};

/// `app.log` is followed, and lines are delivered to `out`.
impl Stage {
    fn write(&self, numbers: std::ops::RangeInclusive<u64>) {
        self.append("app.log", &numbers.map(|number| format!("{number}\n")).collect::<String>());
    }

    /// Starts the service; `default` appends to `out`.
    fn start_with(&self, config: &str) -> Service {
        let text = format!(
            "[[follow]]\ninclude = [\"app.log\"]\n{config}\n[[processor]]\nkind = \"exec\"\n\
             command = [\"sh\", \"-c\", \"cat >> {}\"]\n",
            self.path("out").display()
        );
        self.configure(&text);
        self.start()
    }

    fn delivered(&self) -> Vec<u64> {
        let text = fs::read_to_string(self.path("out")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Runs a `group` command, and gives what it prints.
    fn seek(&self, group: &str, to: &str) -> String {
        let mut command = spillq(&["group", "seek", group, "--to", to, "--discard-lines", "--data-dir"]);
        let output = command.arg(self.path("q")).finished();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn group<'s>(status: &'s StatusJson, name: &str) -> &'s GroupJson {
    status.groups.iter().find(|group| group.group == name).unwrap()
}

#[test]
fn a_group_is_moved_while_the_service_runs_and_while_it_does_not() {
    let stage = Stage::new();
    let config = "[disk]\nkeep = \"24h\"\n[[group]]\nname = \"default\"";
    stage.write(1..=1_000);
    let mut service = stage.start_with(config);
    service.wait("all lines acked", |status| group(status, "default").ack_floor == 1_000);
    let said = stage.seek("default", "501");
    assert_eq!(said, "group default is at line 501: 500 lines wait again, 0 were skipped\n");
    let mut missing = spillq(&["group", "seek", "default", "--to", "1", "--missing", "--data-dir"]);
    let missing = missing.arg(stage.path("q")).finished();
    let told = String::from_utf8_lossy(&missing.stderr);
    assert!(missing.status.code() == Some(2) && told.contains("keeps no note"), "{told}");
    service.wait("half of them acked again", |status| group(status, "default").acked_lines == 1_500);
    let again: Vec<u64> = (1..=1_000).chain(501..=1_000).collect();
    assert_eq!(stage.delivered(), again);
    assert_eq!(stage.seek("default", "1h").split(':').next(), Some("group default is at line 1"));
    service.wait("all of them acked again", |status| group(status, "default").acked_lines == 2_500);
    assert_eq!(service.stop(), 0);

    let said = stage.seek("default", "beginning");
    let (moved, note) = said.split_once('\n').unwrap();
    assert_eq!(moved, "group default is at line 1: 1,000 lines wait again, 0 were skipped");
    assert!(note.contains("seek with --again while the service runs"), "{note}");
    let said = stage.seek("default", "5000");
    let expected = "group default is at line 1,001 (line 5,000 does not exist yet): 0 lines wait again, 1,000 were skipped\n";
    assert_eq!(said, expected);
    let status = stage.status();
    let stopped = group(&status, "default");
    assert_eq!((stopped.lag_lines, stopped.skipped_lines, stopped.acked_lines), (0, 1_000, 2_500));
    stage.seek("default", "999");
    let mut service = stage.start_with(config);
    service.wait("the last two acked again", |status| group(status, "default").acked_lines == 2_502);
    assert_eq!(stage.delivered()[2_500..], [999, 1_000]);
}

/// It said that lines wait again, and delivered none: the sidecar of the file had them.
#[test]
fn a_seek_on_a_destination_that_notes_what_it_was_given_asks_what_to_do_and_does_it_under_load() {
    let stage = Stage::new();
    let out = stage.path("out");
    let text = format!(
        "[disk]\nkeep = \"24h\"\n[[follow]]\ninclude = [\"app.log\"]\n[[group]]\nname = \"default\"\n\
         batch.lines = 100\n[[processor]]\nkind = \"file\"\npath = {:?}\n",
        out.display()
    );
    let config = write_config(stage.folder(), &text);
    let start = || Service::start(&stage.path("q"), &["--config", config.to_str().unwrap()]);
    let seek = |more: &[&str]| {
        let mut command = spillq(&["group", "seek", "default", "--json", "--data-dir"]);
        let output = command.arg(stage.path("q")).args(more).finished();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    stage.write(1..=20_000);
    let mut service = start();
    service.wait("some are acked", |status| group(status, "default").ack_floor >= 2_000);
    // While batches come one after the other.
    let (code, _, told) = seek(&["--to", "501"]);
    assert!(code == 2 && told.contains("--again") && told.contains("--missing"), "{code}: {told}");
    let (code, said, told) = seek(&["--to", "501", "--again"]);
    assert_eq!(code, 0, "{told}");
    let sought: serde_json::Value = serde_json::from_str(&said).unwrap();
    let again = sought["again"].as_u64().unwrap();
    assert!(sought["to"] == 501 && again >= 1_500, "{said}");
    service.wait("all are acked", |status| group(status, "default").ack_floor == 20_000);
    let mut times = [0_u64; 20_001];
    stage.delivered().into_iter().for_each(|line| times[line as usize] += 1);
    let twice = 501..501 + again;
    for (line, times) in (0..).zip(times).skip(1) {
        assert_eq!(
            times,
            if twice.contains(&line) { 2 } else { 1 },
            "line {line}, {again} were to come again"
        );
    }
    // What the file has is not given again where only what is missing is asked for, over a restart either.
    let (code, ..) = seek(&["--to", "beginning", "--missing"]);
    assert_eq!(code, 0);
    assert_eq!(service.stop(), 0);
    let (code, _, told) = seek(&["--to", "beginning", "--again"]);
    assert!(code == 2 && told.contains("spillq run"), "{code}: {told}");
    let mut service = start();
    service.wait("all are acked again", |status| group(status, "default").lag_lines == 0);
    assert_eq!(stage.delivered().len() as u64, 20_000 + again);

    // Also where the lines wait already, as after a seek that did not ask for them.
    let paused = |what: &str| {
        let mut command = spillq(&["group", what, "default", "--data-dir"]);
        assert!(command.arg(stage.path("q")).finished().status.success(), "{what}");
    };
    paused("pause");
    assert_eq!(seek(&["--to", "19901", "--missing"]).0, 0);
    let (code, said, told) = seek(&["--to", "19901", "--again"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap()["again"], 0);
    paused("resume");
    service.wait("they are acked", |status| group(status, "default").lag_lines == 0);
    assert_eq!(stage.delivered().len() as u64, 20_100 + again);
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_batch_that_is_out_when_its_group_is_moved_counts_for_nothing() {
    let stage = Stage::new();
    stage.write(1..=10);
    let gate = stage.path("gate");
    let text = format!(
        "[[follow]]\ninclude = [\"app.log\"]\n[[processor]]\nkind = \"exec\"\n\
         command = [\"sh\", \"-c\", \"cat >> {}; while ! test -e {}; do sleep 0.02; done\"]\n",
        stage.path("out").display(),
        gate.display()
    );
    let config = write_config(stage.folder(), &text);
    let mut service = Service::start(&stage.path("q"), &["--config", config.to_str().unwrap()]);
    service.wait("the batch is out", |status| {
        group(status, "default").leased == 10 && stage.delivered().len() == 10
    });
    stage.seek("default", "4");
    fs::write(&gate, "").unwrap();
    let status = service.wait("the rest acked", |status| group(status, "default").lag_lines == 0);
    let moved = group(&status, "default");
    assert_eq!((moved.acked_lines, moved.skipped_lines), (7, 3), "the first end of the batch was stale");
    assert_eq!(stage.delivered(), (1..=10).chain(4..=10).collect::<Vec<u64>>());
}

/// Lines that do not get smaller when they are compressed.
fn write_random(path: &Path, mib: usize) {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    for _ in 0..mib {
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..).max(b'\n' + 1)).take(1 << 20).collect();
        bytes.iter_mut().skip(1_023).step_by(1_024).for_each(|byte| *byte = b'\n');
        file.write_all(&bytes).unwrap();
    }
}

#[test]
fn a_full_log_drops_the_oldest_lines_for_groups_that_nobody_serves_if_it_may() {
    let stage = Stage::new();
    let limit = 256 << 20;
    write_random(&stage.path("app.log"), 120);
    let lines = 120 * 1_024;
    let config = "[disk]\nlimit = \"256MiB\"\nreserve = \"128MiB\"\nmin_free = \"1MiB\"\nwhen_full = \"drop_oldest\"\n\
                  [[group]]\nname = \"default\"\n[[group]]\nname = \"nobody\"";
    let mut service = stage.start_with(config);
    let status = service.wait("all lines ingested and delivered", |status| {
        status.log.next_seq == lines + 1 && group(status, "default").lag_lines == 0
    });
    let nobody = group(&status, "nobody");
    assert!(nobody.dropped_lines > 0 && status.log.first_seq > 1, "{status:#?}");
    assert_eq!(nobody.dropped_lines, status.log.first_seq - 1);
    assert_eq!((nobody.lag_lines, nobody.ack_floor), (lines - nobody.dropped_lines, nobody.dropped_lines));
    assert!(status.log.disk_bytes <= limit, "{} bytes on disk", status.log.disk_bytes);
    let all = &status.losses;
    assert_eq!(
        (all.dropped_lines, all.lost_lines),
        (nobody.dropped_lines + group(&status, "default").dropped_lines, 0)
    );
    assert!(all.dropped.iter().any(|dropped| dropped.contains("nobody: disk.limit was reached")), "{all:?}");
    let default = group(&status, "default");
    assert_eq!(default.acked_lines + default.dropped_lines, lines);
    service.kill();
    assert_eq!(group(&stage.status(), "nobody").dropped_lines, nobody.dropped_lines);
}

#[test]
fn a_group_past_its_lag_loses_its_oldest_lines_and_no_other_group_does() {
    let stage = Stage::new();
    let config = "[[group]]\nname = \"default\"\n\
                  [[group]]\nname = \"dead\"\nmax_lag = { lines = 320, policy = \"drop\" }";
    stage.write(1..=1_000);
    let mut service = stage.start_with(config);
    let is_done = |status: &StatusJson, lines| {
        group(status, "default").acked_lines == lines && group(status, "dead").lag_lines <= 320
    };
    let status = service.wait("the first lines", |status| is_done(status, 1_000));
    let dead = group(&status, "dead");
    assert_eq!((dead.lag_lines, dead.dropped_lines, dead.ack_floor), (310, 690, 690));
    assert_eq!(status.losses.dropped, ["1-690: dropped for dead: it was past its max_lag"]);
    stage.write(1_001..=2_000);
    let status = service.wait("more lines", |status| is_done(status, 2_000));
    let dead = group(&status, "dead");
    assert_eq!(dead.dropped_lines + dead.lag_lines, 2_000);
    assert_eq!((status.losses.dropped.len(), group(&status, "default").dropped_lines), (1, 0));
}

#[test]
fn a_group_at_its_lag_holds_the_log_and_is_named() {
    let stage = Stage::new();
    let config = "[[group]]\nname = \"default\"\n[[group]]\nname = \"dead\"\nmax_lag = { lines = 100 }";
    stage.write(1..=1_000);
    let mut service = stage.start_with(config);
    service.wait("the first lines", |status| group(status, "default").acked_lines == 1_000);
    stage.write(1_001..=1_010);
    let status = service.wait("a reason", |status| status.log.full.is_some());
    assert_eq!(
        status.log.full.as_deref(),
        Some("group dead is at its max_lag of 100 lines (1,000 waiting)"),
        "{status:#?}"
    );
    assert_eq!(status.log.next_seq, 1_001);
    stage.seek("dead", "end");
    let status = service.wait("the rest", |status| group(status, "default").acked_lines == 1_010);
    assert_eq!((status.log.full.as_deref(), group(&status, "dead").skipped_lines), (None, 1_000));
}

#[test]
fn a_group_passes_its_lag_by_no_more_than_one_append() {
    // 12 MB that hardly compress: six appends, of which a commit takes two, and two more are written meanwhile.
    let mut rng = fastrand::Rng::with_seed(17);
    let mut line = || (0..299).map(|_| rng.alphanumeric()).chain(['\n']).collect::<String>();
    let lines: String = (0..40_000).map(|_| line()).collect();
    // 2 MiB, and the read that filled it.
    const APPEND_LINES: u64 = (2_304 * 1_024) / 300 + 1;
    for bound in ["lines = 500", "bytes = \"150kB\""] {
        let stage = Stage::new();
        stage.append("app.log", &lines);
        stage.configure(&format!(
            "[[follow]]\ninclude = [\"app.log\"]\n[[group]]\nname = \"dead\"\nmax_lag = {{ {bound} }}"
        ));
        let mut service = stage.start();
        let status = service.wait("a reason", |status| status.log.full.is_some());
        let lag = group(&status, "dead").lag_lines;
        assert!((500..500 + APPEND_LINES).contains(&lag), "{bound}: {lag} lines wait");
    }
}

#[test]
fn a_group_gets_as_many_lines_a_second_as_its_rate_and_no_more() {
    let stage = Stage::new();
    stage.write(1..=300);
    let started = Instant::now();
    let mut service = stage.start_with("[[group]]\nname = \"default\"\nrate = 100");
    service.wait("the first lines acked", |status| group(status, "default").acked_lines > 0);
    let first = Instant::now();
    service.wait("all lines acked", |status| group(status, "default").acked_lines == 300);
    // A hundred at once, at 1 s and at 2 s. A third of the rate would take 6 s more: the rest is for a busy machine.
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(first.elapsed() < Duration::from_secs(8), "{:?}", first.elapsed());
}

#[test]
fn groups_are_added_up_to_a_bound() {
    let stage = Stage::new();
    stage.write(1..=1);
    let configured: String = (2..=63).map(|number| format!("[[group]]\nname = \"g{number}\"\n")).collect();
    let mut service = stage.start_with(&format!("{configured}[[group]]\nname = \"default\""));
    service.wait("the line acked", |status| group(status, "default").ack_floor == 1);
    let add = |name: &str| {
        let mut command = spillq(&["group", "add", name, "--data-dir"]);
        let output = command.arg(stage.path("q")).finished();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(add("last"), (Some(0), String::new()));
    let (code, said) = add("more");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there are 64 groups, and 64 at most; `spillq group remove` one"), "{said}");
    assert_eq!(service.stop(), 0);
}

/// `doctor` printed `group remove` as the next step; pasted, it discarded 266,667 waiting lines without a question.
#[test]
fn what_would_discard_lines_is_refused_until_it_is_asked_for_and_recorded_then() {
    let stage = Stage::new();
    stage.write(1..=20);
    let dir = stage.path("q");
    let command = |args: &[&str]| {
        let output = spillq(args).arg("--data-dir").arg(&dir).finished();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let mut service = stage
        .start_with("[[group]]\nname = \"default\"\n[[group]]\nname = \"audit\"\n[[group]]\nname = \"late\"");
    service.wait("all is acked by one group", |status| {
        status.groups.iter().any(|group| group.group == "default" && group.ack_floor == 20)
    });
    assert_eq!(command(&["dead-letter", "park", "--group", "audit", "1", "2"]).0, Some(0));
    let refuses = || {
        for (args, lines) in [
            (&["group", "remove", "audit"][..], "20 lines"),
            (&["group", "seek", "late", "--to", "11"], "10 lines"),
            (&["dead-letter", "discard", "--group", "audit", "--all"], "2 lines"),
        ] {
            let (code, said) = command(args);
            assert_eq!(code, Some(2), "{args:?}: {said}");
            assert!(said.contains(lines) && said.contains("--discard-lines"), "{args:?}: {said}");
        }
    };
    refuses();
    assert_eq!(command(&["group", "seek", "late", "--to", "11", "--discard-lines"]).0, Some(0));
    // What was skipped does not wait any more, and waits again.
    assert_eq!(command(&["group", "seek", "late", "--to", "1"]).0, Some(0));
    assert_eq!(service.stop(), 0);
    refuses();
    assert_eq!(
        command(&["dead-letter", "discard", "--group", "audit", "--all", "--discard-lines"]).0,
        Some(0)
    );
    assert_eq!(command(&["group", "remove", "audit", "--discard-lines"]).0, Some(0));
    let events = String::from_utf8_lossy(&fs::read(dir.join("EVENTS")).unwrap()).into_owned();
    for (group, lines, by) in
        [("late", 10, "group seek"), ("audit", 2, "dead-letter discard"), ("audit", 18, "group remove")]
    {
        let event =
            format!("\"event\":\"discarded\",\"group\":\"{group}\",\"lines\":{lines},\"by\":\"{by}\"");
        assert!(events.contains(&event), "{event}");
    }
}
