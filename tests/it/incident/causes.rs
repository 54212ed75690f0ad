//! Causes beside A, B, C and D, and the controls that must not be called ill.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::time::{Duration, Instant};

use super::*;

/// Lines that do not compress, 300 bytes each, in a file of their own.
fn write_dense(stage: &Stage, lines: u64) {
    let mut rng = fastrand::Rng::with_seed(3);
    let text: String = (0..lines)
        .map(|number| {
            let filling: String = (0..290).map(|_| rng.alphanumeric()).collect();
            format!("dense {number} {filling}\n")
        })
        .collect();
    fs::write(stage.path("in-dense.log"), text).unwrap();
}

#[test]
fn a_command_that_is_missing_is_refused() {
    let retry = "[[group]]\nname = \"default\"\nretry = { max = \"1s\" }\n";
    let stage = Stage::new(&format!(
        "{retry}[[processor]]\ngroup = \"default\"\nkind = \"exec\"\ncommand = [\"./later\"]\n"
    ));
    let mut service = stage.start();
    let verdict = stage.verdict("default", "refused", None, "refused");
    assert!(verdict.evidence.join("\n").contains("later"), "{verdict:#?}");
    let command = stage.path("later.new");
    fs::write(&command, "#!/bin/sh\ncat >> out\n").unwrap();
    fs::set_permissions(&command, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(&command, stage.path("later")).unwrap();
    stage.is_cured(&mut service);
}

#[test]
fn a_pause_is_told_and_taken_back_by_what_doctor_says() {
    let stage = Stage::new(&processor(&ill_until_cured("exit 3")));
    let mut service = stage.start();
    service.wait("a batch failed", |status| status.groups[0].last_failure.is_some());
    let pause = spillq(&["group", "pause", "default", "--data-dir"]).arg(stage.path("q")).output().unwrap();
    assert!(pause.status.success(), "{pause:?}");
    let verdict = stage.verdict("default", "paused", Some("A"), "never_called");
    assert!(verdict.summary.contains("an operator paused it"), "{verdict:#?}");
    fs::write(stage.path("cured"), "").unwrap();
    stage.paste(&verdict.next);
    stage.is_cured(&mut service);
}

#[test]
fn a_flipped_bit_holds_the_group_until_the_repair() {
    const DENSE: u64 = 60_000;
    let stage = Stage::new("");
    write_dense(&stage, DENSE);
    let mut service = stage.start();
    service.wait("all lines are in", |status| {
        status.log.next_seq > LINES + DENSE && status.sources.iter().all(|one| one.state == "caught_up")
    });
    assert_eq!(service.stop(), 0);
    let mut segments: Vec<_> =
        fs::read_dir(stage.path("q/segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let segment = fs::OpenOptions::new().read(true).write(true).open(&segments[0]).unwrap();
    let (mut byte, at) = ([0], segment.metadata().unwrap().len() / 2);
    segment.read_exact_at(&mut byte, at).unwrap();
    segment.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    let with = fs::read_to_string(stage.path("spillq.toml")).unwrap() + &processor("cat >> out");
    fs::write(stage.path("spillq.toml"), with).unwrap();

    let service = stage.start();
    let verdict = stage.verdict("default", "blocked", None, "damage");
    assert_eq!(service.stop(), 0);
    assert!(verdict.next.contains("spillq repair --data-dir '/"), "{verdict:#?}");
    let repaired = spillq(&["repair", "--json", "--data-dir"]).arg(stage.path("q")).output().unwrap();
    let repaired: serde_json::Value = serde_json::from_slice(&repaired.stdout).unwrap();
    let lost = repaired["lost_lines"].as_u64().unwrap();
    assert!(lost > 0 && lost < 2_000, "{repaired}");
    let mut service = stage.start();
    service.wait("nothing waits", |status| {
        status.groups[0].lag_lines == 0 && status.log.next_seq > LINES + DENSE
    });
    let mut arrived = Vec::new();
    for (source, numbers) in lines_by_source(&stage.path("out")) {
        arrived.extend(numbers.into_iter().map(|number| (source.clone(), number)));
    }
    let all = arrived.len() as u64;
    arrived.sort();
    arrived.dedup();
    assert_eq!((arrived.len() as u64, all), (LINES + DENSE - lost, LINES + DENSE - lost));
    stage.is_well();
}

#[test]
fn a_service_that_is_killed_again_and_again_is_a_crash_loop() {
    let stage = Stage::new(&processor(&ill_until_cured("exit 3")));
    for _ in 0..3 {
        let mut service = stage.start();
        service.wait("it works", |status| status.groups[0].last_failure.is_some());
        service.kill();
    }
    let found = stage.finding("crash_loop");
    assert!(found.summary.contains("the last 3 runs"), "{found:#?}");
    stage.finding("killed");
    fs::write(stage.path("cured"), "").unwrap();
    let mut service = stage.start();
    stage.finding("crash_loop");
    service
        .wait("everything is acked", |status| status.log.next_seq > LINES && status.groups[0].lag_lines == 0);
    assert_eq!(service.stop(), 0);
    stage.is_well();
    stage.is_cured(&mut stage.start());
}

#[test]
fn a_line_that_is_set_aside_makes_nobody_ill() {
    let group =
        "[[group]]\nname = \"default\"\nretry = { initial = \"10ms\", max = \"100ms\", attempts = 2 }\n";
    let script = "cat > batch; test -e cured || ! grep -q '^node 7 ' batch || exit 65; cat batch >> out";
    let stage = Stage::new(&(group.to_owned() + &processor(script)));
    let mut service = stage.start();
    service.wait("all others are acked", |status| {
        status.groups[0].dead_letters == 1 && status.groups[0].lag_lines == 0 && status.log.next_seq > LINES
    });
    assert_eq!(stage.is_well().groups[0].state, "idle");
    fs::write(stage.path("cured"), "").unwrap();
    let retry =
        spillq(&["dead-letter", "retry", "--all", "--data-dir"]).arg(stage.path("q")).output().unwrap();
    assert!(retry.status.success(), "{retry:?}");
    service.wait("it is acked too", |status| {
        status.groups[0].dead_letters == 0 && status.groups[0].lag_lines == 0
    });
    let mut arrived = lines_by_source(&stage.path("out"))["node"].clone();
    arrived.sort_unstable();
    assert_eq!(arrived, (0..LINES).collect::<Vec<_>>());
    stage.is_well();
}

#[test]
fn who_backs_off_or_idles_is_not_ill() {
    let group = "[[group]]\nname = \"default\"\nretry = { initial = \"4s\", max = \"4s\" }\n";
    let stage = Stage::new(&(group.to_owned() + &processor(&ill_until_cured("exit 3"))));
    let mut service = stage.start();
    service.wait("a batch failed", |status| status.groups[0].last_failure.is_some());
    fs::write(stage.path("cured"), "").unwrap();
    let (mut states, until) = (Vec::new(), Instant::now() + Duration::from_secs(2));
    while Instant::now() < until {
        states.push(stage.is_well().groups[0].state.clone());
    }
    assert!(states.contains(&"retrying".to_owned()), "{states:?}");
    stage.is_cured(&mut service);
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert_eq!(stage.is_well().groups[0].state, "idle");
    }
}
