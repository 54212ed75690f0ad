//! Damage, repaired by the built program: a real store, filled by the service, with bits flipped in it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::{Bounded, Service, spillq, write_config};

const LINES: u64 = 60_000;

fn run(args: &[&str]) -> Output {
    spillq(args).finished()
}

#[track_caller]
fn json(args: &[&str], status: i32) -> Value {
    let output = run(args);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A stopped store in `folder/q` with two sources' lines, of which nothing was processed.
fn filled(folder: &Path) -> (PathBuf, PathBuf) {
    for name in ["a", "b"] {
        let mut rng = fastrand::Rng::with_seed(u64::from(name.as_bytes()[0]));
        let lines: String = (0..LINES / 2)
            .map(|number| {
                let filling: String = (0..300).map(|_| rng.alphanumeric()).collect();
                format!("{name} {number} {filling}\n")
            })
            .collect();
        fs::write(folder.join(format!("{name}.log")), lines).unwrap();
    }
    let config = write_config(folder, "data_dir = \"q\"\n[[follow]]\ninclude = [\"*.log\"]\n");
    let data_dir = folder.join("q");
    fill(&data_dir, &config, LINES);
    (data_dir, config)
}

/// Lets the service read until this number of lines is in the log, and stops it.
fn fill(data_dir: &Path, config: &Path, lines: u64) {
    let mut service = Service::start(data_dir, &["--config", text(config)]);
    service.wait("all lines are in", |status| {
        status.log.next_seq > lines && status.sources.iter().all(|source| source.state == "caught_up")
    });
    assert_eq!(service.stop(), 0);
}

fn range(loss: &Value) -> (u64, u64) {
    (loss["first"].as_u64().unwrap(), loss["last"].as_u64().unwrap())
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn only(folder: &Path) -> PathBuf {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names
        .retain(|path| path.file_name().unwrap().to_str().unwrap().bytes().all(|byte| byte.is_ascii_digit()));
    names.sort();
    names.remove(0)
}

#[test]
fn a_damaged_segment_costs_its_block_and_the_group_passes_over_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, config) = filled(folder.path());
    let dir = text(&data_dir);
    let segment = only(&data_dir.join("segments"));
    flip(&segment, fs::metadata(&segment).unwrap().len() / 2);
    let damaged = fs::read(&segment).unwrap();
    assert_eq!(json(&["verify", "--data-dir", dir, "--json"], 1)["sound"], false);
    let dry = json(&["repair", "--data-dir", dir, "--dry-run", "--json"], 1);
    assert_eq!(fs::read(&segment).unwrap(), damaged);
    let done = json(&["repair", "--data-dir", dir, "--json"], 0);
    assert_eq!((&dry["losses"], &dry["findings"]), (&done["losses"], &done["findings"]));
    let lost = done["lost_lines"].as_u64().unwrap();
    assert!(lost > 0 && lost < 2_000, "{done}");
    let aside = data_dir.join("quarantine").join(done["quarantined"][0].as_str().unwrap());
    assert_eq!(fs::read(aside).unwrap(), damaged, "nothing is deleted");
    assert_eq!(json(&["verify", "--data-dir", dir, "--json"], 0)["sound"], true);
    assert_eq!(json(&["repair", "--data-dir", dir, "--json"], 0)["sound"], true);
    let status = json(&["status", "--data-dir", dir, "--json"], 0);
    assert_eq!((&status["losses"]["lost_lines"], &status["quarantine"]["files"]), (&lost.into(), &1.into()));

    // Whoever reads lines is shown all that are left, and told which are not, from disk and by a service.
    let losses: Vec<(u64, u64)> = done["losses"].as_array().unwrap().iter().map(range).collect();
    let inspect = || {
        let output = run(&["inspect", "--data-dir", dir, "--json", "--limit", "1000000"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{told}");
        for (first, last) in &losses {
            assert!(told.contains(&format!("lines {first}-{last} are lost: ")), "{told}");
        }
        let lines = String::from_utf8(output.stdout).unwrap();
        let seq = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap();
        lines.lines().map(seq).collect::<Vec<_>>()
    };
    let is_lost = |seq: &u64| losses.iter().any(|(first, last)| (first..=last).contains(&seq));
    let left: Vec<u64> = (1..=LINES).filter(|seq| !is_lost(seq)).collect();
    assert_eq!(inspect(), left);
    let mut service = Service::start(&data_dir, &["--config", text(&config)]);
    service.wait("it answers", |status| status.losses.lost_lines == lost);
    assert_eq!(inspect(), left);
    assert_eq!(service.stop(), 0);

    // Nothing is read twice, and the group takes all that is left. A new group does, too.
    fill(&data_dir, &config, LINES);
    assert!(run(&["group", "add", "--data-dir", dir, "late"]).status.success());
    for group in ["default", "late"] {
        let out = folder.path().join(group);
        let command = format!("cut -d' ' -f1,2 >> {}", text(&out));
        let drained = run(&["drain", "--data-dir", dir, "--group", group, "--", "sh", "-c", &command]);
        assert!(drained.status.success(), "{group}: {}", String::from_utf8_lossy(&drained.stderr));
        let delivered = fs::read_to_string(out).unwrap();
        let distinct: BTreeSet<&str> = delivered.lines().collect();
        assert_eq!((delivered.lines().count() as u64, distinct.len() as u64), (LINES - lost, LINES - lost));
    }
}

#[test]
fn damage_that_keeps_the_store_from_opening_is_repaired_without_a_loss() {
    for what in ["MARK", "journal", "both"] {
        let folder = tempfile::tempdir().unwrap();
        let (data_dir, config) = filled(folder.path());
        let dir = text(&data_dir);
        if what != "journal" {
            [20, 4_096 + 20].into_iter().for_each(|at| flip(&data_dir.join("MARK"), at));
        }
        if what != "MARK" {
            // Every chunk of the manifest, wherever it is.
            let db = only(&data_dir.join("journal")).join("db");
            let bytes = fs::read(&db).unwrap();
            let magic = b"\xf1SPQJRN\x01";
            let found: Vec<_> = (0..bytes.len() - 8).filter(|at| bytes[*at..*at + 8] == *magic).collect();
            found.iter().for_each(|at| flip(&db, *at as u64 + 60));
        }
        let output = run(&["run", "--data-dir", dir, "--follow", "none"]);
        assert_eq!(output.status.code(), Some(3), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains("spillq repair"), "{what}");
        let done = json(&["repair", "--data-dir", dir, "--json"], 0);
        assert_eq!((&done["lost_lines"], &done["lines"]), (&0.into(), &LINES.into()), "{what}: {done}");
        assert_eq!(done["read_again"].as_array().unwrap().len(), 0, "{what}: {done}");
        assert_eq!(json(&["verify", "--data-dir", dir, "--json"], 0)["sound"], true, "{what}");
        // The files are known again: nothing comes in twice.
        fill(&data_dir, &config, LINES);
        let status = json(&["status", "--data-dir", dir, "--json"], 0);
        assert_eq!(status["log"]["next_seq"], LINES + 1, "{what}: {status}");
    }
}

#[test]
fn checkpoints_are_made_again_from_the_lines_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, config) = filled(folder.path());
    let dir = text(&data_dir);
    fs::remove_file(data_dir.join("SPARE")).unwrap();
    fs::remove_file(data_dir.join("MARK")).unwrap();
    fs::remove_dir_all(data_dir.join("journal")).unwrap();
    let done = json(&["repair", "--data-dir", dir, "--json"], 0);
    assert_eq!(done["checkpoints_remade"].as_array().unwrap().len(), 2, "{done}");
    fill(&data_dir, &config, LINES);
    let status = json(&["status", "--data-dir", dir, "--json"], 0);
    assert_eq!(status["log"]["next_seq"], LINES + 1, "{status}");
    assert_eq!(status["groups"][0]["lag_lines"], LINES, "every line is delivered: {status}");
}

#[test]
fn an_older_program_refuses_a_later_format_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, _) = filled(folder.path());
    let mark = data_dir.join("MARK");
    // One slot only, as a later program leaves it after its first commit.
    let mut bytes = fs::read(&mark).unwrap();
    bytes[4..8].copy_from_slice(&4_u32.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[4..64]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    fs::write(&mark, &bytes).unwrap();
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    for command in ["run", "verify", "repair", "status", "inspect"] {
        let follow = ["--follow", "none"];
        let args = if command == "run" { &follow[..] } else { &[] };
        let output = run(&[&[command, "--data-dir", text(&data_dir)], args].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        let told = format!(
            "the store in {} has format version 4, this program reads versions 1 to 3\nhint: nothing was changed; ",
            text(&data_dir)
        );
        assert!(said.contains(&told), "{command}: {said}");
        assert_eq!((fs::read(&mark).unwrap(), names()), (bytes.clone(), before.clone()), "{command}");
    }
}

#[test]
fn a_repair_that_is_killed_is_done_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, _) = filled(folder.path());
    let segment = only(&data_dir.join("segments"));
    flip(&segment, fs::metadata(&segment).unwrap().len() / 3);
    [20, 4_096 + 20].into_iter().for_each(|at| flip(&data_dir.join("MARK"), at));
    let mut rng = fastrand::Rng::with_seed(3);
    let (mut killed, mut expected) = (0, None);
    for round in 0..30 {
        let copy = folder.path().join("copy");
        let _ = fs::remove_dir_all(&copy);
        crate::support::run("cp", &["-a", text(&data_dir), text(&copy)]);
        let mut repair = spillq(&["repair", "--data-dir", text(&copy)]).started();
        if round > 0 {
            std::thread::sleep(std::time::Duration::from_micros(rng.u64(0..250_000)));
            killed += u64::from(repair.exit().is_none());
            repair.killed();
        }
        repair.ended();
        json(&["repair", "--data-dir", text(&copy), "--json"], 0);
        assert_eq!(json(&["verify", "--data-dir", text(&copy), "--json"], 0)["sound"], true, "round {round}");
        let status = json(&["status", "--data-dir", text(&copy), "--json"], 0);
        let found = (status["losses"]["lost"].clone(), status["quarantine"]["files"].clone());
        assert_eq!(*expected.get_or_insert_with(|| found.clone()), found, "round {round}");
    }
    assert!(killed > 3, "{killed}");
}
