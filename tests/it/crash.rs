//! The real binary, killed again and again while files grow and rotate, acks flow, journals roll and segments are
//! relocated and removed; and killed while it recovers from that.
//!
//! One group records every line into a file, which must then hold each line of each source once and in order.
//! Another, unordered, cannot take some lines, so that holes are relocated. `SPILLQ_KILLS` sets how many kills.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use spillq::http::StatusJson;

use crate::support::{PATIENCE, SMALL_STORE, Service, lines_by_source, spillq, write_config};

/// Sources, written by a thread each.
const WRITERS: usize = 3;
/// Lines of a file before it is renamed away.
const ROTATE_LINES: u64 = 6_000;
/// No writer gets further ahead of the slowest group than its share of so many lines: a few segments, so that what
/// was acked is removed soon also where the machine is slow.
const AHEAD_LINES: u64 = 240_000;
/// Lines between two breaths.
const BURST_LINES: u64 = 100;
/// One line in so many cannot be processed by one of the groups.
const POISON_ONE_IN: u64 = 9_973;

/// What was hit, summed over all runs.
#[derive(Debug, Default)]
struct Phases {
    append: u64,
    roll: u64,
    settle: u64,
    relocate: u64,
    remove: u64,
    recover: u64,
}

/// Writes lines of random letters, which do not compress, until it is told to stop; gives how many. `acked` is what
/// all groups have acked of all sources.
fn write(
    logs: PathBuf,
    writer: usize,
    acked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let mut rng = fastrand::Rng::with_seed(writer as u64);
        let path = logs.join(format!("w{writer}.log"));
        let mut file = File::create(&path).unwrap();
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            if number * WRITERS as u64 > acked.load(Ordering::Relaxed) + AHEAD_LINES {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            let mut burst = Vec::new();
            for _ in 0..BURST_LINES {
                let letters: String = (0..250).map(|_| rng.alphanumeric()).collect();
                let word = if number % POISON_ONE_IN == POISON_ONE_IN / 2 { "POISON" } else { "fine" };
                writeln!(burst, "w{writer} {number} {word} {letters}").unwrap();
                number += 1;
                if number % ROTATE_LINES == 0 {
                    file.write_all(&burst).unwrap();
                    burst.clear();
                    fs::rename(&path, logs.join(format!("w{writer}.log.{}", number / ROTATE_LINES))).unwrap();
                    file = File::create(&path).unwrap();
                }
            }
            // Cut anywhere, so that the end of the file is often half a line.
            let cut = rng.usize(..=burst.len());
            file.write_all(&burst[..cut]).unwrap();
            thread::sleep(Duration::from_millis(5));
            file.write_all(&burst[cut..]).unwrap();
        }
        number
    })
}

fn config(folder: &Path) -> PathBuf {
    write_config(
        folder,
        &format!(
            r#"
        data_dir = "q"
        {SMALL_STORE}
        [[follow]]
        include = ["logs/w*.log*"]
        [[group]]
        name = "record"
        timeout = "20s"
        [[group]]
        name = "default"
        batch = {{ lines = 2000 }}
        [[group]]
        name = "holes"
        order = "none"
        in_flight = 2
        batch = {{ lines = 2000 }}
        retry = {{ initial = "20ms", max = "200ms", attempts = 4 }}
        [[processor]]
        group = "record"
        kind = "file"
        path = "recorded"
        [[processor]]
        group = "default"
        kind = "exec"
        command = ["sh", "-c", "echo $SPILLQ_FIRST_SEQ $SPILLQ_LAST_SEQ >> delivered; cat > /dev/null"]
        [[processor]]
        group = "holes"
        kind = "exec"
        command = ["sh", "-c", "if grep -q POISON; then exit 1; fi"]
        "#
        ),
    )
}

#[test]
fn nothing_is_lost_or_repeated_whatever_kills_the_process() {
    let kills = std::env::var("SPILLQ_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(100);
    let seed = std::env::var("SPILLQ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut rng = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let (logs, data_dir) = (folder.path().join("logs"), folder.path().join("q"));
    fs::create_dir(&logs).unwrap();
    let config = config(folder.path());
    let delivered = folder.path().join("delivered");
    let stop = Arc::new(AtomicBool::new(false));
    let floor = Arc::new(AtomicU64::new(0));
    let begin = |writer| write(logs.clone(), writer, Arc::clone(&floor), Arc::clone(&stop));
    let writers: Vec<_> = (0..WRITERS).map(begin).collect();
    let start = || Service::start(&data_dir, &["--config", config.to_str().unwrap()]);

    let mut phases = Phases::default();
    let mut acked = 0;
    for kill in 0..kills {
        let _ = fs::remove_file(&delivered);
        let service = start();
        // Early, while it recovers; after a while; or right after something rare, however long the first of it takes.
        let rare: fn(&StatusJson) -> u64 = match kill / 8 % 3 {
            0 => |status| status.log.rolls,
            1 => |status| status.log.segments_removed,
            _ => |status| status.log.lines_relocated,
        };
        let for_it = kill % 8 == 7;
        let hit_before = [phases.roll, phases.remove, phases.relocate][kill / 8 % 3] > 0;
        let early = rng.u8(..4) == 0;
        let wait = match (for_it, hit_before) {
            (true, false) => PATIENCE,
            (true, true) => Duration::from_secs(6),
            _ => Duration::from_millis(rng.u64(if early { 5..80 } else { 150..600 })),
        };
        let until = Instant::now() + wait;
        let mut seen: Option<StatusJson> = None;
        while Instant::now() < until && !(for_it && seen.as_ref().is_some_and(|status| rare(status) > 0)) {
            seen = service.status().or(seen);
            let slowest = seen.iter().flat_map(|status| &status.groups).map(|group| group.ack_floor).min();
            floor.fetch_max(slowest.unwrap_or(0), Ordering::Relaxed);
            thread::sleep(Duration::from_millis(rng.u64(1..20)));
        }
        service.kill();
        match &seen {
            None => phases.recover += 1,
            Some(status) => {
                phases.append += u64::from(status.log.commits > 0);
                phases.roll += status.log.rolls;
                phases.settle += u64::from(status.log.rolls > 0);
                phases.remove += status.log.segments_removed;
                phases.relocate += status.log.lines_relocated;
            }
        }
        // Told as durably acked by an earlier run: never delivered again.
        for batch in fs::read_to_string(&delivered).unwrap_or_default().lines() {
            let first: u64 = batch.split(' ').next().unwrap().parse().unwrap();
            assert!(first > acked, "lines from {first} came again, all up to {acked} had been acked");
        }
        let default = seen.iter().flat_map(|status| &status.groups).find(|group| group.group == "default");
        acked = acked.max(default.map_or(0, |group| group.ack_floor));
    }
    stop.store(true, Ordering::Relaxed);
    let written: Vec<u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    let total: u64 = written.iter().sum();
    let mut service = start();
    service.wait("everything is in the log and recorded", |status| {
        let idle = |name: &str| status.groups.iter().any(|group| group.group == name && group.lag_lines == 0);
        status.log.next_seq == total + 1 && idle("record") && idle("default")
    });
    assert_eq!(service.stop(), 0);
    let recorded = lines_by_source(&folder.path().join("recorded"));
    for (writer, written) in written.iter().enumerate() {
        let numbers = &recorded[&format!("w{writer}")];
        let wrong = numbers.iter().zip(0..).find(|(number, expected)| *number != expected);
        assert_eq!((numbers.len() as u64, wrong), (*written, None), "source w{writer}, seed {seed}");
    }
    println!("{kills} kills, {total} lines, seed {seed}: {phases:?}");
    let hit = [phases.append, phases.roll, phases.settle, phases.relocate, phases.remove, phases.recover];
    assert!(kills < 100 || hit.iter().all(|count| *count > 0), "a phase was never hit: {phases:?}");
}

#[test]
fn a_socket_that_a_killed_service_left_to_its_child_is_no_service() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, input) = (folder.path().join("q"), folder.path().join("input"));
    fs::write(&input, "one\n").unwrap();
    let config = write_config(folder.path(), SMALL_STORE);
    let mut once = spillq(&["run", "--once", "--config", config.to_str().unwrap(), "--data-dir"]);
    once.arg(&data_dir).arg("--follow").arg(&input);
    assert!(once.status().unwrap().success());
    // Who listens dies; its child holds the socket until the test has ended.
    let program = "import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
os.chdir(sys.argv[1])
listener.bind('spillq.sock')
listener.listen()
if os.fork() == 0:
    sys.stdin.read()";
    let mut parent = Command::new("python3");
    parent.args(["-c", program]).arg(&data_dir).stdin(Stdio::piped());
    let mut parent = parent.spawn().unwrap();
    let held = parent.stdin.take();
    assert!(parent.wait().unwrap().success());
    let mut status = spillq(&["status", "--json", "--data-dir"]);
    let output = status.arg(&data_dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status: StatusJson = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status.log.next_seq, 2, "it is read from disk");
    drop(held);
}
