//! Files as programs really write them, followed, rotated, drained, and compared byte for byte.
//!
//! `SPILLQ_TEST_LOGS` names a folder with real log files to use in addition to those that the test makes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::support::{Bounded, PEAK_KIB, Service, peak_kib, program, spillq};

/// Files with every oddity: CRLF, lone CR, NUL, bytes that are not UTF-8, empty lines, long lines, no newline.
fn odd_files(logs: &Path) -> Vec<PathBuf> {
    let long = [vec![b'x'; 700_000], b"\n".to_vec()].concat();
    let all_bytes: Vec<u8> = (0..=255).collect();
    let files: [(&str, Vec<u8>); 6] = [
        ("crlf.log", b"one\r\ntwo\r\nthree\r\n".repeat(700)),
        ("no_newline.log", b"first\nsecond\nhalf a li".to_vec()),
        ("empty_lines.log", b"\n\n\r\n\na\n\n".to_vec()),
        ("bytes.log", [all_bytes.clone(), b"\n".to_vec(), all_bytes, b"\n".to_vec()].concat()),
        ("long.log", [b"short\n".to_vec(), long.clone(), b"short\n".to_vec(), long].concat()),
        ("lone_cr.log", b"a\rb\rc\nd\re\n".to_vec()),
    ];
    for (name, bytes) in &files {
        fs::write(logs.join(name), bytes).unwrap();
    }
    let mut paths: Vec<PathBuf> = files.iter().map(|(name, _)| logs.join(name)).collect();
    if let Some(real) = std::env::var_os("SPILLQ_TEST_LOGS") {
        for entry in fs::read_dir(real).unwrap() {
            let entry = entry.unwrap();
            let path = logs.join(entry.file_name());
            fs::copy(entry.path(), &path).unwrap();
            paths.push(path);
        }
    }
    paths
}

/// What the log holds.
#[derive(Default)]
struct Stored {
    /// All bytes in seq order, as a processor gets them.
    all: Vec<u8>,
    /// The bytes of each path in seq order.
    by_path: BTreeMap<PathBuf, Vec<u8>>,
}

fn in_the_log(data_dir: &Path) -> Stored {
    use base64::Engine;
    let mut command = spillq(&["inspect", "--json", "--limit", "100000000", "--data-dir"]);
    let output = command.arg(data_dir).finished();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut stored = Stored::default();
    let mut last = 0;
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let seq = line["seq"].as_u64().unwrap();
        assert_eq!(seq, last + 1, "seqs are dense");
        last = seq;
        let mut bytes = match line["text"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => {
                base64::engine::general_purpose::STANDARD.decode(line["base64"].as_str().unwrap()).unwrap()
            }
        };
        let of_source = stored.by_path.entry(PathBuf::from(line["source"].as_str().unwrap())).or_default();
        assert_eq!(
            line["offset"].as_u64().unwrap(),
            of_source.len() as u64,
            "seq {seq}: offsets follow one another"
        );
        let continues = matches!(line["part"].as_str(), Some("first" | "middle"));
        if !continues && line["unterminated"].as_bool() != Some(true) {
            bytes.push(b'\n');
        }
        of_source.extend(&bytes);
        stored.all.extend(bytes);
    }
    stored
}

/// A file up to its last newline.
fn whole_lines(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes[..end].to_vec()
}

#[track_caller]
fn check_all(data_dir: &Path, paths: &[PathBuf]) {
    let found = in_the_log(data_dir).by_path;
    for path in paths {
        let expected = whole_lines(path);
        let stored = found.get(path).cloned().unwrap_or_default();
        assert!(
            stored == expected,
            "{}: {} bytes in the log, {} written",
            path.display(),
            stored.len(),
            expected.len()
        );
    }
}

fn once(data_dir: &Path, glob: &str) {
    let mut command = spillq(&["--log", "warn", "run", "--once", "--data-dir"]);
    let output = command.arg(data_dir).args(["--follow", glob]).finished();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_byte_up_to_the_last_newline_is_in_the_log_and_the_rest_follows() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, data_dir) = (folder.path().join("logs"), folder.path().join("q"));
    fs::create_dir(&logs).unwrap();
    let logs = logs.canonicalize().unwrap();
    let paths = odd_files(&logs);
    let glob = format!("{}/*.log", logs.display());
    once(&data_dir, &glob);
    check_all(&data_dir, &paths);
    for path in &paths {
        OpenOptions::new().append(true).open(path).unwrap().write_all(b"\n").unwrap();
    }
    once(&data_dir, &glob);
    check_all(&data_dir, &paths);
    once(&data_dir, &glob);
    check_all(&data_dir, &paths);
}

/// Hostile lines: of 0 bytes, of NUL, of escapes, and one of 64 MiB, whose newline comes later.
#[test]
fn hostile_lines_come_through_byte_for_byte_within_the_memory_that_is_promised() {
    let folder = tempfile::tempdir().unwrap();
    let (path, data_dir) = (folder.path().canonicalize().unwrap().join("in.log"), folder.path().join("q"));
    let mut rng = fastrand::Rng::with_seed(1);
    let mut bytes = b"\n\0\0\n\x1b]0;title\x07\x1b[2J\r\n".to_vec();
    bytes.extend((0..64 << 20).map(|_| *rng.choice(b"a\0\x1b\r\xff").unwrap()));
    fs::write(&path, &bytes).unwrap();
    let mut service = Service::start(&data_dir, &["--follow", path.to_str().unwrap()]);
    let in_parts = service.wait("its parts are ingested", |status| status.log.next_seq > 4);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"\nthe last\n").unwrap();
    let size = fs::metadata(&path).unwrap().len();
    service.wait("all of it is ingested", |status| status.sources.iter().any(|source| source.offset == size));
    let peak = peak_kib(in_parts.pid);
    assert!(peak < PEAK_KIB, "{peak} KiB");
    service.stop();
    check_all(&data_dir, &[path]);
    let output = folder.path().join("out");
    let command = format!("cat >> {}", output.display());
    let drained =
        spillq(&["drain", "--data-dir"]).arg(&data_dir).args(["--", "sh", "-c", &command]).finished();
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    let last = fs::read(&output).unwrap();
    assert!(last.ends_with(b"\nthe last\n"));
}

#[test]
fn a_drain_delivers_every_byte_that_was_ingested_in_seq_order() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, data_dir) = (folder.path().join("logs"), folder.path().join("q"));
    fs::create_dir(&logs).unwrap();
    let paths = odd_files(&logs);
    once(&data_dir, &format!("{}/*.log", logs.display()));
    let output = folder.path().join("output");
    let command = format!("cat >> {}", output.display());
    let status =
        spillq(&["drain", "--data-dir"]).arg(&data_dir).args(["--", "sh", "-c", &command]).finished().status;
    assert!(status.success());
    let drained = fs::read(&output).unwrap();
    check_all(&data_dir, &paths);
    let stored = in_the_log(&data_dir).all;
    let written: usize = paths.iter().map(|path| whole_lines(path).len()).sum();
    assert_eq!(stored.len(), written);
    assert!(drained == stored, "{} bytes were drained, {} are in the log", drained.len(), stored.len());
    let again = spillq(&["drain", "--data-dir"]).arg(&data_dir).args(["--", "false"]).finished().status;
    assert!(again.success(), "nothing is left, so the command is not even run");
}

#[test]
fn files_that_grow_and_rotate_while_they_are_read_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, data_dir) = (folder.path().join("logs"), folder.path().join("q"));
    fs::create_dir_all(logs.join("hourly")).unwrap();
    let output = folder.path().join("output");
    let glob = format!("{}/**", logs.display());
    let command = format!("cat >> {}", output.display());
    let mut service = Service::start(&data_dir, &["--follow", &glob, "--", "sh", "-c", &command]);
    service.wait("it is ready", |_| true);
    let mut total = 0;
    for hour in 0..4 {
        // A folder that appears later, as a node makes one a day and a file an hour.
        let day = logs.join(format!("hourly/2025100{hour}"));
        fs::create_dir(&day).unwrap();
        let path = day.join("15");
        let mut file = File::create(&path).unwrap();
        for part in 0..30 {
            for number in 0..100 {
                writeln!(file, "h{hour} {}", part * 100 + number).unwrap();
                total += 1;
            }
            if part == 15 {
                fs::rename(&path, day.join("15.1")).unwrap();
                file = File::create(&path).unwrap();
            }
        }
    }
    service.wait("all is processed", |status| {
        status.log.next_seq == total + 1 && status.groups[0].lag_lines == 0
    });
    assert_eq!(service.stop(), 0);
    let found = crate::support::lines_by_source(&output);
    for hour in 0..4 {
        assert_eq!(found[&format!("h{hour}")], (0..3_000).collect::<Vec<u64>>(), "hour {hour}");
    }
}

#[test]
fn a_clean_stop_finishes_the_batch_that_is_out() {
    let folder = tempfile::tempdir().unwrap();
    let (input, data_dir, output) =
        (folder.path().join("input"), folder.path().join("q"), folder.path().join("output"));
    fs::write(&input, "1\n2\n3\n").unwrap();
    let command = format!("touch {0}.begun; cat > {0}.part; sleep 1; mv {0}.part {0}", output.display());
    let mut service =
        Service::start(&data_dir, &["--follow", input.to_str().unwrap(), "--", "sh", "-c", &command]);
    service.wait("the batch is out", |status| status.groups[0].leased == 3);
    assert_eq!(service.stop(), 0);
    assert_eq!(fs::read_to_string(&output).unwrap(), "1\n2\n3\n");
    let status =
        program(crate::support::binary()).args(["status", "--json", "--data-dir"]).arg(&data_dir).finished();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((status["groups"][0]["lag_lines"].as_u64(), status["from"].as_str()), (Some(0), Some("disk")));
}
