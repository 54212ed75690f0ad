//! What the measurements share. Each figure is measured in turn with that of a yardstick, in the same run: on a shared
//! machine only their ratio means something.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::generate;
use crate::cmd::output::{say, say_json};
use crate::cmd::{Exit, Failure};
use crate::config::{Follow, Settings};

/// Rounds of a measurement. The result is their median.
pub(super) const ROUNDS: usize = 5;

/// A folder that is removed after the measurement.
pub(super) fn folder(dir: Option<&Path>) -> Result<tempfile::TempDir, Failure> {
    let dir = dir.unwrap_or(Path::new("."));
    let made = tempfile::Builder::new().prefix("spillq-bench-").tempdir_in(dir);
    made.map_err(|error| {
        Failure::could_not_run(format!("could not make a folder in {}", dir.display())).because(error)
    })
}

/// Writes the lines to measure with.
pub(super) fn write_input(path: &Path, lines: u64) -> Result<u64, Failure> {
    let write = || -> io::Result<u64> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let mut records = generate::Records::new(1);
        for _ in 0..lines {
            out.write_all(records.next_line())?;
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    };
    write()
        .map_err(|error| Failure::could_not_run(format!("could not write {}", path.display())).because(error))
}

/// Settings that ingest one file into a store in the same folder. The store may fill the disk that the user chose.
pub(super) fn settings(folder: &Path, name: &str, input: &Path) -> Settings {
    let mut settings = Settings::default_with(folder);
    settings.data_dir = folder.join(name);
    let include = vec![input.to_string_lossy().into_owned()];
    settings.follow = vec![Follow { max_line_bytes: 1 << 20, ..Follow::new(include) }];
    settings
}

/// Peak memory of this process, in MiB.
pub(super) fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

pub(super) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

pub(super) fn print(json: bool, figures: serde_json::Value, text: &str) -> Result<Exit, Failure> {
    if json { say_json(&figures) } else { say(text) }
}

pub(super) fn failed(what: &str, path: PathBuf) -> impl FnOnce(io::Error) -> Failure {
    let message = format!("could not {what} {}", path.display());
    move |error| Failure::could_not_run(message).because(error)
}
