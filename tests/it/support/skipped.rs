//! The list of what this run of `cargo test` skipped. Each test program is a separate process: they append to one file,
//! whose name is that of the process that runs them all, so that no list of another run is ever taken for this one's. The
//! last of them, torture/tests/what_was_skipped.rs, prints it.

#![allow(dead_code, reason = "one crate writes the list, another one reads it")]
#![allow(clippy::unwrap_used, reason = "tests may stop at the first surprise")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What was skipped, for lack of what, and how to get that; as a line of the list.
pub struct Skipped {
    pub what: String,
    pub lacks: String,
    /// A Debian package, if one has it.
    pub package: Option<String>,
}

impl Skipped {
    fn line(&self) -> String {
        format!("{}\t{}\t{}\n", self.what, self.lacks, self.package.as_deref().unwrap_or_default())
    }

    fn of(line: &str) -> Skipped {
        let mut columns = line.split('\t').map(str::to_owned);
        let mut next = || columns.next().unwrap_or_default();
        Skipped { what: next(), lacks: next(), package: Some(next()).filter(|name| !name.is_empty()) }
    }
}

/// Notes it in the list of this run, and in the one that SPILLQ_TEST_SKIPPED names.
pub fn note(skipped: &Skipped) {
    fs::create_dir_all(folder()).unwrap();
    let asked = std::env::var_os("SPILLQ_TEST_SKIPPED").map(PathBuf::from);
    for list in asked.into_iter().chain([folder().join(run())]) {
        let mut list = OpenOptions::new().create(true).append(true).open(list).unwrap();
        // In one write: others append too.
        list.write_all(skipped.line().as_bytes()).unwrap();
    }
}

/// The list of this run, which is over: it is removed, and those of processes that are gone.
pub fn taken() -> Vec<Skipped> {
    let mut lines: Vec<String> = Vec::new();
    for list in fs::read_dir(folder()).into_iter().flatten() {
        let list = list.unwrap().path();
        let name = list.file_name().unwrap().to_str().unwrap().to_owned();
        if name == run() {
            lines = fs::read_to_string(&list).unwrap().lines().map(str::to_owned).collect();
        }
        if name == run() || !is_running(&name) {
            // Another run may remove it at the same time.
            let _ = fs::remove_file(list);
        }
    }
    lines.sort();
    lines.dedup();
    lines.iter().map(|line| Skipped::of(line)).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped")
}

/// The process that runs the test programs, named so that no other one ever has the name: its pid, and when it began.
fn run() -> String {
    named(std::os::unix::process::parent_id()).expect("the process that runs the tests is there")
}

fn named(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The 22nd word is when it began; the second, in parentheses, may hold blanks.
    let began = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.to_owned();
    Some(format!("{pid}-{began}"))
}

fn is_running(name: &str) -> bool {
    let pid = name.split('-').next().and_then(|pid| pid.parse().ok());
    pid.and_then(named).is_some_and(|now| now == name)
}
