//! Causes other than A, B, C and D that need no other program.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};

use super::*;

#[test]
fn a_command_that_is_missing_is_refused() {
    let retry = "[[group]]\nname = \"default\"\nretry = { max = \"1s\" }\n";
    let stage = staged(&format!(
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
fn a_pause_is_reported_and_the_suggested_command_ends_it() {
    let stage = staged(&processor(&fails_until_cured("exit 3")));
    let mut service = stage.start();
    service.wait("a batch failed", |status| status.groups[0].last_failure.is_some());
    let pause = spillq(&["group", "pause", "default", "--data-dir"]).arg(stage.path("q")).finished();
    assert!(pause.status.success(), "{pause:?}");
    let verdict = stage.verdict("default", "paused", Some("A"), "never_called");
    assert!(verdict.summary.contains("an operator paused the group"), "{verdict:#?}");
    stage.cure();
    stage.paste(&verdict.next);
    stage.is_cured(&mut service);
}

#[test]
fn a_flipped_bit_blocks_the_group_until_the_repair() {
    const DENSE: u64 = 60_000;
    let stage = staged("");
    stage.append("in-dense.log", dense(DENSE));
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
    stage.add_sections(&processor("cat >> out"));

    let service = stage.start();
    let verdict = stage.verdict("default", "blocked", None, "damage");
    assert_eq!(service.stop(), 0);
    assert!(verdict.next.contains("spillq repair --data-dir '/"), "{verdict:#?}");
    let repaired = spillq(&["repair", "--json", "--data-dir"]).arg(stage.path("q")).finished();
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
    stage.is_healthy();
}

#[test]
fn a_service_that_is_killed_repeatedly_is_a_crash_loop() {
    let stage = staged(&processor(&fails_until_cured("exit 3")));
    for _ in 0..3 {
        let mut service = stage.start();
        service.wait("it works", |status| status.groups[0].last_failure.is_some());
        service.kill();
    }
    let found = stage.finding("crash_loop");
    assert!(found.summary.contains("the last 3 runs"), "{found:#?}");
    stage.finding("killed");
    stage.cure();
    let mut service = stage.start();
    stage.finding("crash_loop");
    service
        .wait("everything is acked", |status| status.log.next_seq > LINES && status.groups[0].lag_lines == 0);
    assert_eq!(service.stop(), 0);
    stage.is_healthy();
    stage.is_cured(&mut stage.start());
}

#[test]
fn a_link_that_is_not_followed_is_reported() {
    let stage = staged(&processor("cat >> out"));
    let mut service = stage.start();
    stage.append("elsewhere", "node 0 fill\n");
    std::os::unix::fs::symlink(stage.path("elsewhere"), stage.path("in-link.log")).unwrap();
    let found = stage.finding("source_unreadable");
    assert_eq!(
        found.evidence.join("\n").matches("in-link.log").count(),
        1,
        "its path is named once: {found:#?}"
    );
    assert!(found.next.starts_with("set `symlinks = FOLDER`"), "{found:#?}");
    assert!(found.or.starts_with("add the link to `exclude` of [[follow]]"), "{found:#?}");
    let file = stage.config();
    let config = fs::read_to_string(&file).unwrap();
    fs::write(file, config.replace("[[follow]]\n", "[[follow]]\nexclude = [\"in-link.log\"]\n")).unwrap();
    stage.is_cured(&mut service);
}

#[test]
fn a_group_at_its_max_lag_pauses_ingestion() {
    const DENSE: u64 = 20_000;
    let group = "[[group]]\nname = \"default\"\ntimeout = \"5m\"\nmax_lag = { lines = 500 }\n";
    let stage = staged(&(group.to_owned() + &processor(&held_until_cured())));
    stage.append("in-dense.log", dense(DENSE));
    let mut service = stage.start();
    let found = stage.finding("max_lag");
    assert!(found.summary.contains("group default is at its max_lag of 500 lines"), "{found:#?}");
    assert!(found.next.starts_with("see the verdict on group default"), "{found:#?}");
    stage.cure();
    stage.is_cured_of(&mut service, DENSE);
}
