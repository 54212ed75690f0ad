//! Files that gzip and zstd compress, as logrotate does it, while the service runs, is killed and is stopped: every
//! line is in the log once.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::support::{Bounded, Service, needs, peak_kib, program, spillq, wait_for, write_config};

/// Generations of a file, the compressed ones among them, before the oldest is removed.
const KEPT: u32 = 5;

struct Logs {
    folder: PathBuf,
    /// Lines of each file so far.
    written: BTreeMap<&'static str, u64>,
}

impl Logs {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Lines that begin with the name of their file and their number.
    fn write(&mut self, name: &'static str, lines: u64) {
        let next = self.written.entry(name).or_default();
        let text: String = (*next..*next + lines)
            .map(|nth| format!("{name} {nth} {}\n", "x".repeat((nth * 37 % 300) as usize)))
            .collect();
        *next += lines;
        let path = self.folder.join(name);
        OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// What logrotate does: the compressed ones move on, `.1` is compressed, and with `delay` only in the next round.
    fn rotate(&self, name: &str, tool: &str, delay: bool) {
        let suffix = if tool == "gzip" { "gz" } else { "zst" };
        for nth in (1..=KEPT).rev() {
            for suffix in ["", ".gz", ".zst"] {
                let from = self.path(&format!("{name}.{nth}{suffix}"));
                if from.exists() && nth == KEPT {
                    fs::remove_file(from).unwrap();
                } else if from.exists() {
                    fs::rename(from, self.path(&format!("{name}.{}{suffix}", nth + 1))).unwrap();
                }
            }
        }
        fs::rename(self.path(name), self.path(&format!("{name}.1"))).unwrap();
        let plain = self.path(&format!("{name}.{}", if delay { 2 } else { 1 }));
        if plain.exists() {
            pack(tool, &plain);
            assert!(PathBuf::from(format!("{}.{suffix}", plain.display())).exists());
        }
    }
}

fn pack(tool: &str, path: &Path) {
    let mut command = program(tool);
    if tool == "zstd" {
        command.args(["--quiet", "--rm"]);
    }
    assert!(command.arg(path).finished().status.success(), "{tool} {}", path.display());
}

/// The numbers of the lines in the log by the file that they begin with, in the order of the log.
fn in_the_log(data_dir: &Path) -> BTreeMap<String, Vec<u64>> {
    let output =
        spillq(&["inspect", "--json", "--limit", "100000000", "--data-dir"]).arg(data_dir).finished();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = line["text"].as_str().unwrap();
        let mut words = text.split(' ');
        let name = words.next().unwrap().to_owned();
        let number: u64 = words.next().unwrap().parse().unwrap();
        assert_eq!(words.next().unwrap().len() as u64, number * 37 % 300, "{text}");
        found.entry(name).or_default().push(number);
    }
    found
}

#[track_caller]
fn check(data_dir: &Path, logs: &Logs) {
    let found = in_the_log(data_dir);
    for (name, lines) in &logs.written {
        let mut numbers = found.get(*name).cloned().unwrap_or_default();
        numbers.sort_unstable();
        let expected: Vec<u64> = (0..*lines).collect();
        let missing = expected.iter().filter(|nth| numbers.binary_search(nth).is_err()).count();
        let twice = numbers.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(
            numbers == expected,
            "{name}: of {lines} lines {missing} are missing and {twice} are there twice"
        );
    }
}

fn set_up() -> (tempfile::TempDir, Logs, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir(root.join("logs")).unwrap();
    let text = format!(
        "data_dir = \"q\"\n[[follow]]\ninclude = [\"{}/logs/*\"]\nrotate_wait = \"3s\"\n",
        root.display()
    );
    let config = write_config(&root, &text);
    let logs = Logs { folder: root.join("logs"), written: BTreeMap::new() };
    (folder, logs, config, root.join("q"))
}

#[test]
fn files_packed_in_rotation_while_the_service_is_killed_and_stopped_are_read_once() {
    needs!("gzip", "zstd");
    let (_folder, mut logs, config, data_dir) = set_up();
    let start = || Service::start(&data_dir, &["--config", config.to_str().unwrap()]);
    let mut random = fastrand::Rng::with_seed(fastrand::u64(..));
    println!("seed {}", random.get_seed());
    let files = [("one.log", "gzip", true), ("two.log", "gzip", false), ("three.log", "zstd", true)];
    let mut service = Some(start());
    // As many rounds as keep the first generation: what is removed must have been read.
    for round in 0..KEPT {
        for (name, tool, delay) in files {
            logs.write(name, random.u64(1..3_000));
            if let Some(service) = service.as_mut().filter(|_| random.bool()) {
                // Read in part, or to its end, when it is rotated.
                let lines: u64 = logs.written.values().sum();
                let at = random.u64(..=lines);
                service.wait("some lines are read", |status| status.log.next_seq > at);
            }
            if round > 0 && random.u8(..4) > 0 {
                logs.rotate(name, tool, delay);
                logs.write(name, random.u64(1..500));
            }
            match (service.take(), random.u8(..4)) {
                (Some(running), 0) => running.kill(),
                (Some(mut running), 1) => {
                    // Before it answers it does not know SIGTERM either.
                    running.wait("it answers", |_| true);
                    assert_eq!(running.stop(), 0);
                }
                (Some(running), _) => service = Some(running),
                (None, _) => service = Some(start()),
            }
        }
    }
    let mut service = service.unwrap_or_else(start);
    let lines: u64 = logs.written.values().sum();
    service.wait("all lines are read", |status| status.log.next_seq > lines);
    // What is read twice would be read in the next scans, when compressed files are unchanged and rotations waited for.
    service.wait("every file is settled", |status| {
        status.sources.iter().all(|source| source.state == "caught_up") && status.sources.len() > files.len()
    });
    assert_eq!(service.stop(), 0);
    check(&data_dir, &logs);
    // And a service that knows all of it from its log alone reads nothing more.
    let status = spillq(&["run", "--once", "--config"]).arg(&config).finished().status;
    assert!(status.success());
    check(&data_dir, &logs);
}

#[test]
fn packed_while_stopped_reading_goes_on_where_it_ended_and_once_waits_for_all_but_the_incomplete() {
    needs!("gzip", "zstd");
    let (_folder, mut logs, config, data_dir) = set_up();
    let once = || spillq(&["--log", "warn", "run", "--once", "--config"]).arg(&config).finished();
    logs.write("app.log", 2_000);
    assert!(once().status.success());
    check(&data_dir, &logs);
    logs.write("app.log", 1_000);
    fs::rename(logs.path("app.log"), logs.path("app.log.2")).unwrap();
    pack("gzip", &logs.path("app.log.2"));
    logs.write("app.log", 500);
    fs::rename(logs.path("app.log"), logs.path("app.log.1")).unwrap();
    pack("zstd", &logs.path("app.log.1"));
    logs.write("app.log", 10);
    // Another one, of which the end is missing.
    logs.write("broken.log", 5_000);
    pack("gzip", &logs.path("broken.log"));
    let whole = fs::read(logs.path("broken.log.gz")).unwrap();
    fs::write(logs.path("broken.log.gz"), &whole[..whole.len() - 5]).unwrap();
    let broken = logs.written.remove("broken.log").unwrap();
    let output = once();
    assert_eq!(output.status.code(), Some(1), "it ends, and says that not all was read");
    let said = String::from_utf8(output.stderr).unwrap();
    let (warned, told) = said.split_once("these files matched and were not read").unwrap();
    for part in [warned, told] {
        assert_eq!(part.matches("the file is incomplete, it ends after").count(), 1, "{said}");
    }
    check(&data_dir, &logs);
    let found = in_the_log(&data_dir);
    assert!(found["app.log"].is_sorted(), "from the oldest to the newest");
    assert!(!found.contains_key("broken.log"), "nothing of it before it is complete");
    fs::write(logs.path("broken.log.gz"), &whole).unwrap();
    logs.written.insert("broken.log", broken);
    assert!(once().status.success());
    check(&data_dir, &logs);
}

#[test]
fn a_small_file_that_expands_a_thousandfold_is_read_in_little_memory() {
    needs!("zstd");
    let (_folder, logs, config, data_dir) = set_up();
    let path = logs.path("bomb.log");
    let mut file = fs::File::create(&path).unwrap();
    let piece = format!("{}\n", "y".repeat(1_023)).repeat(1 << 10);
    for _ in 0..200 {
        file.write_all(piece.as_bytes()).unwrap();
    }
    drop(file);
    pack("zstd", &path);
    assert!(logs.path("bomb.log.zst").metadata().unwrap().len() < 1_000_000);
    let mut service = Service::start(&data_dir, &["--config", config.to_str().unwrap()]);
    let peak_kib = wait_for(|| {
        let status = service.status()?;
        (status.log.next_seq > 200 << 10).then(|| peak_kib(status.pid))
    });
    let peak_kib = peak_kib.expect("all of its lines are in the log");
    assert!(peak_kib <= 96 * 1_024, "{peak_kib} KiB");
    service.wait("it is caught up", |status| status.sources.iter().all(|source| source.state == "caught_up"));
}
