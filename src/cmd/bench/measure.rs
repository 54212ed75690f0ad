//! What the measurements share. Each figure is measured in turn with that of a yardstick, in the same run: on a shared
//! machine only their ratio means something.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::{generate, yardstick};
use crate::cmd::output;
use crate::cmd::{Exit, Failure};
use crate::config::Settings;
use crate::metrics::{Process, written_bytes};
use crate::plain::{counted, number};
use crate::processor::{Batch, Outcome, Processing, Processor};
use crate::tail::Follow;

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

pub(super) fn mb_per_s(bytes: u64, started: Instant) -> f64 {
    bytes as f64 / started.elapsed().as_secs_f64() / 1e6
}

/// What a figure is compared with: its name in JSON and in text.
pub(super) type Yardstick = (&'static str, String);

/// The figures of all rounds in MB/s, each with those of its yardsticks.
pub(super) struct Rounds {
    what: &'static str,
    yardsticks: Vec<Yardstick>,
    measured: Vec<f64>,
    /// Of each yardstick, and the ratios to it.
    compared: Vec<[Vec<f64>; 2]>,
    /// Bytes written to the disk for each byte of the lines.
    written: Vec<f64>,
}

impl Rounds {
    pub(super) fn new(what: &'static str, yardsticks: Vec<Yardstick>) -> Rounds {
        let compared = yardsticks.iter().map(|_| Default::default()).collect();
        Rounds { what, yardsticks, measured: Vec::new(), compared, written: Vec::new() }
    }

    /// A round, with the figure of each yardstick. Who waits at a terminal sees it.
    pub(super) fn add(&mut self, measured: f64, yardsticks: &[f64]) {
        self.measured.push(measured);
        progress(&format!("round {} of {ROUNDS}: {} {measured:.0} MB/s", self.measured.len(), self.what));
        for ([figures, ratios], figure) in self.compared.iter_mut().zip(yardsticks) {
            figures.push(*figure);
            ratios.push(measured / figure);
        }
    }

    /// How much was written in a round of `bytes`, since the kernel counted `before`. It does not count everywhere.
    pub(super) fn add_written_since(&mut self, before: Option<f64>, bytes: u64) {
        self.written
            .extend(before.zip(written_bytes()).map(|(before, after)| (after - before) / bytes as f64));
    }

    /// Prints the medians.
    pub(super) fn print(self, size: (u64, u64), json: bool) -> Result<Exit, Failure> {
        let (mut figures, text) = self.medians(size);
        let peak = Process::of_self().peak_bytes.unwrap_or_default() / f64::from(1 << 20);
        figures["peak_rss_mb"] = peak.into();
        print(json, &figures, &[format!("{text}; peak {peak:.0} MiB"), medians_of()])
    }

    /// The medians as JSON, and as text. `lines` and bytes are those of a round.
    pub(super) fn medians(mut self, (lines, bytes): (u64, u64)) -> (Value, String) {
        let rate = percentile(&mut self.measured, 50);
        let lines_per_s = rate * 1e6 * lines as f64 / bytes as f64;
        let mut figures = json!({ "mb_per_s": rate, "lines_per_s": lines_per_s });
        let mut text = format!("{} {rate:.0} MB/s ({lines_per_s:.0} lines/s)", self.what);
        for ((key, name), compared) in self.yardsticks.iter().zip(&mut self.compared) {
            let [figure, ratio] = compared.each_mut().map(|figures| percentile(figures, 50));
            figures[format!("{key}_mb_per_s")] = figure.into();
            figures[format!("ratio_to_{key}")] = ratio.into();
            text += &format!("; {name} {figure:.0} MB/s: ratio {ratio:.2}");
        }
        if !self.written.is_empty() {
            let written = percentile(&mut self.written, 50);
            figures["written_per_byte"] = written.into();
            text += &format!("; {written:.2} bytes written for each byte");
        }
        (figures, text)
    }
}

/// A plain copy of a file, synced every 4 MiB, in the same folder: MB/s.
pub(super) fn copied(input: &Path, bytes: u64) -> Result<f64, Failure> {
    let target = input.with_file_name("copy");
    let started = Instant::now();
    yardstick::copy(input, &target).map_err(failed("copy to", target.clone()))?;
    let rate = mb_per_s(bytes, started);
    std::fs::remove_file(&target).map_err(failed("remove", target))?;
    Ok(rate)
}

/// Refuses to measure a part of the lines.
pub(super) fn check_count(found: u64, place: &str, written: u64) -> Result<(), Failure> {
    if found == written {
        return Ok(());
    }
    Err(Failure::store(format!("{} {place}, and {} were written", counted(found, "line"), number(written))))
}

/// The figure that `percent` of all are below; sorts them.
pub(super) fn percentile(figures: &mut [f64], percent: usize) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() * percent / 100).copied().unwrap_or_default()
}

/// A processor that looks at every line, and accepts all.
#[derive(Default)]
pub(super) struct Walk {
    lines: u64,
}

impl Processor for Walk {
    fn name(&self) -> String {
        "a walk over all lines".to_owned()
    }

    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a> {
        Box::pin(async move {
            for line in batch.lines() {
                self.lines += u64::from(std::hint::black_box(line.bytes).last() == Some(&b'\n'));
            }
            Outcome::Done
        })
    }
}

/// Prints figures for programs, or lines for people.
pub(super) fn print(json: bool, figures: &Value, lines: &[String]) -> Result<Exit, Failure> {
    if json {
        return output::say_json(figures);
    }
    output::print(|out| lines.iter().try_for_each(|line| out.line(line)))
}

/// The last line of what is printed for people.
pub(super) fn medians_of() -> String {
    format!("medians of {ROUNDS} rounds")
}

/// A line for who waits at a terminal.
pub(super) fn progress(line: &str) {
    if io::stderr().is_terminal() {
        eprintln!("{line}");
    }
}

pub(super) fn failed(what: &str, path: PathBuf) -> impl FnOnce(io::Error) -> Failure {
    let message = format!("could not {what} {}", path.display());
    move |error| Failure::could_not_run(message).because(error)
}
