//! Backups of a running service, restored; and hostile archives.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use spillq::http::{AdminJson, AnswerJson, Client};

use crate::support::{Bounded, Service, spillq, write_config};

fn run(args: &[&str]) -> Output {
    spillq(args).finished()
}

#[track_caller]
fn fine(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Writes numbered lines into two files until it is stopped; returns how many each has.
fn write(folder: &Path, stop: Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    let mut files = ["a", "b"].map(|name| (name, File::create(folder.join(format!("{name}.log"))).unwrap()));
    thread::spawn(move || {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            for (name, file) in &mut files {
                let burst: String = (number..number + 500)
                    .map(|number| {
                        let filling: String = (0..400).map(|_| rng.alphanumeric()).collect();
                        format!("{name} {number} {filling}\n")
                    })
                    .collect();
                file.write_all(burst.as_bytes()).unwrap();
            }
            number += 500;
            thread::sleep(Duration::from_millis(10));
        }
        number
    })
}

/// The numbers of the lines in a store, by source.
fn numbers(dir: &str) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in fine(&["inspect", "--data-dir", dir, "--json", "--limit", "100000000"]).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let mut words = line["text"].as_str().unwrap().split(' ');
        let name = words.next().unwrap().to_owned();
        found.entry(name).or_default().push(words.next().unwrap().parse().unwrap());
    }
    found
}

/// Backs up under load, three times, into folders or tar files, and restores each.
fn check(suffix: &str, processor: &str) {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(
        folder.path(),
        &format!("data_dir = \"q\"\n[[follow]]\ninclude = [\"*.log\"]\n{processor}"),
    );
    let data_dir = folder.path().join("q");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = write(folder.path(), Arc::clone(&stop));
    let mut service = Service::start(&data_dir, &["--config", text(&config)]);
    let mut backups = Vec::new();
    for number in 1..=3 {
        service.wait("it has taken some in", |status| status.log.next_seq > number * 40_000);
        let to = folder.path().join(format!("backup-{number}{suffix}"));
        fine(&["backup", "--data-dir", text(&data_dir), "--to", text(&to)]);
        assert_eq!(run(&["backup", "--data-dir", text(&data_dir), "--to", text(&to)]).status.code(), Some(2));
        backups.push(to);
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().unwrap();
    service.wait("all is in, and what was processed is removed", |status| {
        status.log.next_seq == 2 * written + 1 && (processor.is_empty() || status.log.segments_removed > 0)
    });
    assert_eq!(service.stop(), 0);
    let stopped = folder.path().join(format!("stopped{suffix}"));
    fine(&["backup", "--data-dir", text(&data_dir), "--to", text(&stopped)]);
    backups.push(stopped);
    for (number, backup) in backups.iter().enumerate() {
        let restored = folder.path().join(format!("restored-{number}"));
        fine(&["restore", "--from", text(backup), "--data-dir", text(&restored)]);
        let verified: Value =
            serde_json::from_str(&fine(&["verify", "--data-dir", text(&restored), "--json"])).unwrap();
        assert_eq!(verified["sound"], true);
        let status: Value =
            serde_json::from_str(&fine(&["status", "--data-dir", text(&restored), "--json"])).unwrap();
        assert!(status["log"]["runs"].as_u64().unwrap() >= 1_000_000, "another run than any of the original");
        let next_seq = status["log"]["next_seq"].as_u64().unwrap();
        let held = numbers(text(&restored));
        for (source, numbers) in &held {
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{source} has a hole or a repeat");
            assert!(numbers[0] == 0 || !processor.is_empty(), "{source}: nothing was acked");
        }
        let ends: u64 = held.values().map(|numbers| numbers.last().unwrap() + 1).sum();
        assert_eq!(ends + 1, next_seq, "each source is a prefix of what was written");
        assert!(number < 3 || ends == 2 * written);
        // What was written later is read from the files, once.
        let config = fs::read_to_string(&config).unwrap().replace("\"q\"", &format!("{:?}", text(&restored)));
        let config = write_config(folder.path(), &config);
        let mut service = Service::start(&restored, &["--config", text(&config)]);
        service.wait("the rest is in", |status| {
            status.log.next_seq == 2 * written + 1
                && status.sources.iter().all(|source| source.state == "caught_up")
        });
        assert_eq!(service.stop(), 0);
        let again = run(&["restore", "--from", text(backup), "--data-dir", text(&restored)]);
        assert_eq!(again.status.code(), Some(2), "nothing is restored over a store");
    }
}

#[test]
fn a_backup_under_load_is_a_prefix_of_every_source() {
    check("", "");
}

#[test]
fn a_backup_while_lines_are_processed_and_removed() {
    check(".tar", "[[processor]]\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", \"cat > /dev/null\"]\n");
}

#[test]
fn lines_of_a_restored_store_are_not_taken_for_those_that_had_their_seqs_before() {
    let folder = tempfile::tempdir().unwrap();
    let (log, out) = (folder.path().join("a.log"), folder.path().join("out"));
    let write = |name: &str, lines: u64| -> String {
        let written: String = (1..=lines).map(|number| format!("{name} {number}\n")).collect();
        let mut file = File::options().append(true).create(true).open(&log).unwrap();
        file.write_all(written.as_bytes()).unwrap();
        written
    };
    let deliver = |data_dir: &str| {
        let config = format!(
            "data_dir = {data_dir:?}\n[[follow]]\ninclude = [\"*.log\"]\n[[processor]]\nkind = \"file\"\n\
             path = {:?}\n",
            text(&out)
        );
        let config = write_config(folder.path(), &config);
        fine(&["run", "--config", text(&config), "--once"]);
    };
    let q = folder.path().join("q");
    let mut expected = write("first", 100);
    deliver(text(&q));
    let backup = folder.path().join("backup");
    fine(&["backup", "--data-dir", text(&q), "--to", text(&backup)]);
    let kept = fs::read(&log).unwrap();
    expected += &write("second", 100);
    deliver(text(&q));
    // Twice the host is lost, with what the file had after the backup: other lines get the seqs of those.
    for name in ["third", "fourth"] {
        fs::write(&log, &kept).unwrap();
        expected += &write(name, 60);
        let restored = folder.path().join(name);
        fine(&["restore", "--from", text(&backup), "--data-dir", text(&restored)]);
        deliver(text(&restored));
        assert_eq!(fs::read_to_string(&out).unwrap(), expected);
    }
}

#[test]
fn no_path_in_an_archive_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("a.log");
    fs::write(&log, "one\ntwo\n").unwrap();
    let data_dir = folder.path().join("q");
    let mut service = Service::start(&data_dir, &["--follow", text(&log)]);
    service.wait("the lines are in", |status| status.log.next_seq == 3);
    assert_eq!(service.stop(), 0);
    let good = folder.path().join("good");
    fine(&["backup", "--data-dir", text(&data_dir), "--to", text(&good)]);
    let manifest = fs::read(good.join("MANIFEST")).unwrap();
    let inside = folder.path().join("inside");
    fs::create_dir(&inside).unwrap();
    type Add<'a> = &'a dyn Fn(&mut tar::Builder<Vec<u8>>);
    let hostile: [Add<'_>; 5] = [
        &|tar| add(tar, b"../evil", b"evil"),
        &|tar| add(tar, b"segments/../../evil", b"evil"),
        &|tar| add(tar, b"segments/00000000000000000009", b"evil"),
        &|tar| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, "segments/00000000000000000001", "/etc/passwd").unwrap();
        },
        &|_| {},
    ];
    for (number, entry) in hostile.into_iter().enumerate() {
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, b"MANIFEST", &manifest);
        entry(&mut tar);
        let archive = folder.path().join("hostile.tar");
        fs::write(&archive, tar.into_inner().unwrap()).unwrap();
        let output = run(&["restore", "--from", text(&archive), "--data-dir", text(&inside.join("new"))]);
        assert_eq!(output.status.code(), Some(2), "{number}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 0, "{number}: nothing is left");
        assert!(!folder.path().join("evil").exists(), "{number}");
    }
}

#[test]
fn one_backup_is_made_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("q");
    let mut service = Service::start(&data_dir, &["--follow", "none"]);
    service.wait("it is up", |status| status.pid > 0);
    let client = Client::connect(&data_dir).unwrap();
    let ask = |request: AdminJson| client.post::<AnswerJson>("/v1/admin", &request);
    let token = ask(AdminJson::Hold { token: None }).unwrap().hold.unwrap();
    let to = folder.path().join("backup");
    let backup = || run(&["backup", "--data-dir", text(&data_dir), "--to", text(&to)]);
    let refused = backup();
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(String::from_utf8(refused.stderr).unwrap(), "spillq: a backup is being made already\n");
    assert_eq!(ask(AdminJson::Hold { token: Some(token) }).unwrap().hold, Some(token), "renewed");
    assert!(ask(AdminJson::Hold { token: Some(token + 1) }).is_err(), "another's");
    ask(AdminJson::LetGo { token }).unwrap();
    assert!(backup().status.success());
    assert_eq!(service.stop(), 0);
}

/// An entry with an unchanged name, which the library would refuse to write.
fn add(tar: &mut tar::Builder<Vec<u8>>, name: &[u8], content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}
