//! `spillq bench`: it measures what it says, prints it for people and for programs, leaves nothing behind, and refuses what it
//! cannot measure.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::{Bounded, spillq};

fn bench(folder: &Path, args: &[&str]) -> Output {
    spillq(&["bench"]).args(args).current_dir(folder).finished()
}

/// Figures of a run that succeeds: the names in `keys` are positive numbers. Nothing else is printed, and nothing is left.
#[track_caller]
fn figures(args: &[&str], keys: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), &[args, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{args:?}: {said}");
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in keys {
        let figure = figures.pointer(key).and_then(Value::as_f64);
        assert!(figure.is_some_and(|figure| figure > 0.0), "{key} in {figures}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    figures
}

#[track_caller]
fn is_ratio(figures: &Value, of: &str, ratio: &str, to: &str) {
    let [of, ratio, to] = [of, ratio, to].map(|key| figures.pointer(key).and_then(Value::as_f64).unwrap());
    // Medians of five: the ratio is that of one round, between the least and the greatest of all.
    assert!(ratio > of / to / 5.0 && ratio < of / to * 5.0, "{figures}");
}

#[test]
fn ingestion_is_compared_with_a_copy_and_with_zstd() {
    let keys =
        ["/mb_per_s", "/lines_per_s", "/peak_rss_mb", "/copy_mb_per_s", "/zstd_mb_per_s", "/ratio_to_zstd"];
    let figures = figures(&["ingest", "--lines", "20_000"], &keys);
    is_ratio(&figures, "/mb_per_s", "/ratio_to_copy", "/copy_mb_per_s");
    let bytes_per_line =
        figures["mb_per_s"].as_f64().unwrap() * 1e6 / figures["lines_per_s"].as_f64().unwrap();
    assert!((bytes_per_line - 350.0).abs() < 0.01, "{figures}");
}

#[test]
fn a_drain_is_measured_in_three_ways() {
    let keys = ["/mb_per_s", "/zstd_mb_per_s", "/file/mb_per_s", "/file/copy_mb_per_s", "/exec/mb_per_s"];
    let figures = figures(&["drain", "--lines", "20_000"], &keys);
    is_ratio(&figures, "/exec/mb_per_s", "/exec/ratio_to_file", "/exec/file_mb_per_s");
}

#[test]
fn single_lines_and_many_are_followed_from_end_to_end() {
    let keys = ["/p50_ms", "/p99_ms", "/fdatasync_p99_ms", "/through/mb_per_s", "/through/copy_mb_per_s"];
    let figures = figures(&["end-to-end", "--lines", "20_000", "--single-lines", "20"], &keys);
    assert_eq!(figures["single_lines"], 20);
    let [half, most, sync, allowed] =
        ["p50_ms", "p99_ms", "fdatasync_p99_ms", "allowed_ms"].map(|key| figures[key].as_f64().unwrap());
    assert!(half <= most && (allowed - 2.0 * sync - 5.0).abs() < 1e-9, "{figures}");
}

#[test]
fn people_get_a_line_for_each_figure() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("disk")).unwrap();
    let output = bench(folder.path(), &["drain", "--lines", "5_000", "--dir", "disk"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let beginnings: Vec<&str> =
        text.lines().map(|line| line.split(|c: char| c.is_ascii_digit()).next().unwrap()).collect();
    assert_eq!(beginnings, ["drain ", "to a file ", "to a command ", "medians of "], "{text}");
    assert_eq!(fs::read_dir(folder.path().join("disk")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for command in ["ingest", "drain", "end-to-end"] {
        for (args, said) in [
            (["--dir", "missing"], "spillq: could not make a folder in missing: No such file or directory"),
            (["--dir", "file"], "spillq: could not make a folder in file: Not a directory"),
            (["--lines", "0"], "spillq: --lines 0: without a line there is nothing to measure"),
            (["--lines", "many"], "spillq: --lines many: not a number of lines"),
        ] {
            let output = bench(folder.path(), &[&[command], &args[..]].concat());
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(stderr.starts_with(said) && output.stdout.is_empty(), "{command} {args:?}: {stderr}");
            assert_eq!(output.status.code(), Some(2), "{command} {args:?}");
        }
    }
}
