//! Kills of the service and of the server that it delivers to, at random, while lines are delivered.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::{Bounded, Service, from_env, run, spillq, wait_for};

/// Kills of both together; `SPILLQ_TEST_KILLS` sets another number, as torture/tiers does.
const KILLS: u64 = 10;
/// Decides when and what is killed; `SPILLQ_TEST_SEED` sets another seed.
const SEED: u64 = 1;
/// At most this many lines wait: the writer follows the service.
const AHEAD: u64 = 2_000;
/// At most this many lines are acked between two kills; the number is random.
const BETWEEN: u64 = 600;

/// A server that is killed and started again with its durable data.
pub trait Server {
    /// Kills all of its processes with SIGKILL, and waits for their end.
    fn kill(&mut self);
    /// Starts it, and waits until it listens.
    fn start(&mut self);
}

/// Line `n`, from 0.
pub fn line(n: u64) -> String {
    format!("{{\"n\":{n},\"text\":\"\u{e4} \\\\ ' \\\"\"}}")
}

/// Kills both while a program writes to `log`, which the configuration follows. Returns the number of lines once all are
/// acked.
pub fn through_kills(log: &Path, data_dir: &Path, config: &Path, server: &mut dyn Server) -> u64 {
    through_kills_of(log, data_dir, config, (server, KILLS))
}

/// The same with another number of kills, where none is set.
pub fn through_kills_of(
    log: &Path,
    data_dir: &Path,
    config: &Path,
    (server, kills): (&mut dyn Server, u64),
) -> u64 {
    let (kills, seed) = (from_env("SPILLQ_TEST_KILLS", kills), from_env("SPILLQ_TEST_SEED", SEED));
    println!("SPILLQ_TEST_KILLS={kills} SPILLQ_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let start = || Service::start(data_dir, &["--config", config.to_str().unwrap()]);
    let writer = Writer::start(log);
    let mut service = start();
    let seen = Arc::clone(&writer.acked);
    let floor = |service: &mut Service, above: u64| {
        let status = service.wait("more lines are acked", |status| status.groups[0].ack_floor >= above);
        seen.store(status.groups[0].ack_floor, Ordering::Release);
        assert_eq!(status.groups[0].dead_letters, 0, "no line is blamed");
        status.groups[0].ack_floor
    };
    let mut acked = 0;
    for _ in 0..kills {
        acked = floor(&mut service, acked + random.u64(1..BETWEEN));
        // Not directly after an ack, but at any point after it.
        thread::sleep(Duration::from_micros(random.u64(0..20_000)));
        match random.u8(0..3) {
            0 => {
                service.kill();
                service = start();
            }
            1 => {
                server.kill();
                server.start();
            }
            _ => {
                server.kill();
                service.kill();
                service = start();
                server.start();
            }
        }
    }
    let written = writer.stop();
    floor(&mut service, written);
    assert_eq!(service.stop(), 0);
    written
}

/// A program that appends lines, as long as few enough wait.
struct Writer {
    acked: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Writer {
    fn start(log: &Path) -> Writer {
        let (acked, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut file = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let (seen, ends) = (Arc::clone(&acked), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let mut written = 0;
            while !ends.load(Ordering::Acquire) {
                if written < seen.load(Ordering::Acquire) + AHEAD {
                    let some: String = (written..written + 50).map(|n| line(n) + "\n").collect();
                    file.write_all(some.as_bytes()).unwrap();
                    written += 50;
                }
                thread::sleep(Duration::from_millis(1));
            }
            written
        });
        Writer { acked, is_over, thread }
    }

    fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

/// A certificate for `localhost` in `folder`: `ca.pem` to trust, `leaf.pem` and `leaf.key` for the server.
pub fn certificates(folder: &Path) {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let new =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let make = |name: &str, more: &[&str]| {
        let (key, cert, subject) =
            (path(&format!("{name}.key")), path(&format!("{name}.pem")), format!("/CN={name}"));
        run("openssl", &[&new[..], &["-subj", &subject, "-keyout", &key, "-out", &cert], more].concat());
    };
    make("ca", &[]);
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost"];
    make("leaf", &[&["-CA", &path("ca.pem"), "-CAkey", &path("ca.key")], &leaf[..]].concat());
}

/// The beginning of the configuration in tests of such servers.
pub fn settings() -> &'static str {
    r#"
    data_dir = "q"
    [disk]
    min_free = "64MiB"
    reserve = "8MiB"
    [[follow]]
    include = ["*.log"]
    [[group]]
    name = "default"
    batch = { lines = 200 }
    retry = { initial = "10ms", max = "100ms", attempts = 3 }
    [[processor]]
    "#
}

/// Starts the service of `folder`, whose data dir is `q`.
pub fn start(folder: &Path, config: &Path) -> Service {
    Service::start(&folder.join("q"), &["--config", config.to_str().unwrap()])
}

/// Appends to `a.log`, which the configuration follows.
pub fn append(folder: &Path, text: &str) {
    let mut log = OpenOptions::new().create(true).append(true).open(folder.join("a.log")).unwrap();
    log.write_all(text.as_bytes()).unwrap();
}

/// Seqs and lines, as a destination has them.
pub fn owned(lines: &[(u64, &str)]) -> Vec<(u64, String)> {
    lines.iter().map(|(seq, line)| (*seq, (*line).to_owned())).collect()
}

/// Checks that a destination has the lines of [`through_kills`], each once and in order.
#[track_caller]
pub fn every_line_once(found: Vec<(u64, String)>, lines: u64) {
    assert_eq!(found.len() as u64, lines);
    for (n, message) in found.into_iter().enumerate() {
        assert_eq!(message, (n as u64 + 1, line(n as u64)));
    }
}

/// Waits until the last failure of the group contains `word`, without dead letters.
#[track_caller]
pub fn wait_for_word(service: &mut Service, word: &str) {
    let what = format!("{word:?} is reported");
    service.wait(&what, |status| {
        let group = &status.groups[0];
        group.dead_letters == 0 && format!("{:?}", group.last_failure).contains(word)
    });
}

/// Waits until `look` is `expected`.
#[track_caller]
pub fn wait_until<T: PartialEq + std::fmt::Debug>(expected: &T, look: impl Fn() -> T) {
    let found = wait_for(|| (look() == *expected).then_some(()));
    assert!(found.is_some(), "{:?} where {expected:?} was expected", look());
}

/// Runs a command on the data dir `q` until it succeeds: a line in flight cannot be parked, for example.
#[track_caller]
pub fn command(folder: &Path, args: &[&str]) {
    let data_dir = folder.join("q");
    let done = || spillq(args).arg("--data-dir").arg(&data_dir).finished().status.success();
    assert!(wait_for(|| done().then_some(())).is_some(), "{args:?}");
}

/// A store that was made from a backup gives seqs to other lines than the original: a destination that has lines of the original
/// refuses it, and says so with `word`. The service of `folder` is stopped. The new store runs with the configuration that
/// `config` writes into its folder.
pub fn a_restored_store_is_refused(folder: &Path, config: impl Fn(&Path) -> PathBuf, word: &str) {
    let (backup, restored) = (folder.join("backup"), tempfile::tempdir().unwrap());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    run_spillq(&["backup", "--data-dir", &text(&folder.join("q")), "--to", &text(&backup)]);
    let data_dir = restored.path().join("q");
    run_spillq(&["restore", "--from", &text(&backup), "--data-dir", &text(&data_dir)]);
    fs::write(restored.path().join("new.log"), "of the restored store\n").unwrap();
    let mut service = Service::start(&data_dir, &["--config", config(restored.path()).to_str().unwrap()]);
    wait_for_word(&mut service, word);
    service.wait("it is refused", |status| status.groups[0].state == "refused");
    assert_eq!(service.stop(), 0);
}

fn run_spillq(args: &[&str]) {
    let output = spillq(args).finished();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A server whose `data` falls back to an earlier state, as after a failover to a replica that was behind, or a crash without a
/// sync: lines 4 and 5 of 6 are gone. They are reported, and delivered again on request, last. `lines` are the seqs and the
/// lines at the destination.
pub fn lines_are_lost_and_delivered_again<S: Server>(
    folder: &Path,
    config: &Path,
    (server, data): (&mut S, &Path),
    lines: impl Fn(&S) -> Vec<(u64, String)>,
) {
    let (now, before) = (data.to_str().unwrap(), data.with_extension("before"));
    let mut service = Service::start(&folder.join("q"), &["--config", config.to_str().unwrap()]);
    let mut give = |name: &str, lines: &str, floor: u64| {
        fs::write(folder.join(name), lines).unwrap();
        service.wait(name, |status| status.groups[0].ack_floor == floor);
    };
    give("a.log", "one\ntwo\nthree\n", 3);
    server.kill();
    run("cp", &["-r", now, before.to_str().unwrap()]);
    server.start();
    give("b.log", "four\nfive\n", 5);
    server.kill();
    fs::remove_dir_all(now).unwrap();
    fs::rename(&before, now).unwrap();
    server.start();
    give("c.log", "six\n", 6);

    let data_dir = folder.join("q");
    let doctor = || {
        let output = spillq(&["doctor", "--json", "--data-dir"]).arg(&data_dir).finished();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(wait_for(|| doctor().contains("destination_lost").then_some(())).is_some(), "{}", doctor());
    let told = doctor();
    assert!(told.contains("has lost 2 lines") && told.contains("between lines 4 and 5"), "{told}");
    let sought = spillq(&["group", "seek", "default", "--to", "4", "--missing", "--data-dir"])
        .arg(&data_dir)
        .finished();
    assert!(sought.status.success(), "{}", String::from_utf8_lossy(&sought.stderr));
    service.wait("they are done", |status| status.groups[0].lag_lines == 0);
    let expected = [(1, "one"), (2, "two"), (3, "three"), (6, "six"), (4, "four"), (5, "five")];
    assert_eq!(lines(server), expected.map(|(seq, line)| (seq, line.to_owned())));
    assert!(!doctor().contains("destination_lost"), "{}", doctor());
    assert_eq!(service.stop(), 0);
}
