//! `bench ingest`: how fast lines become durable, compared with a plain copy of the same file that is synced every 4 MiB.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::measure::{ROUNDS, failed, folder, median, peak_rss_mb, print, settings, write_input};
use crate::cli::BenchIngestArgs;
use crate::cmd::{Exit, Failure};
use crate::plain::{counted, number};
use crate::service::{self, Plan};

/// Bytes of the plain copy between two syncs.
const COPY_BYTES: usize = 4 << 20;

/// Measures.
///
/// # Errors
/// When the folder cannot be written, or the store fails.
pub(super) fn run(args: &BenchIngestArgs) -> Result<Exit, Failure> {
    let folder = folder(args.dir.as_deref())?;
    let input = folder.path().join("input.jsonl");
    let bytes = write_input(&input, args.lines)?;
    let (mut copies, mut ingests, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let target = folder.path().join("copy");
        let started = Instant::now();
        copy(&input, &target).map_err(failed("copy to", target.clone()))?;
        let copied = bytes as f64 / started.elapsed().as_secs_f64() / 1e6;
        fs::remove_file(&target).map_err(failed("remove", target))?;

        let settings = settings(folder.path(), &format!("q{round}"), &input);
        let started = Instant::now();
        let ended =
            service::run(&settings, &Plan { follow: true, once: true, ..Plan::default() }, &mut |_| {})?;
        let ingested = bytes as f64 / started.elapsed().as_secs_f64() / 1e6;
        if ended.status.log.next_seq != args.lines + 1 {
            let found = ended.status.log.next_seq - 1;
            return Err(Failure::store(format!(
                "{} in the log, and {} were written",
                counted(found, "line"),
                number(args.lines)
            )));
        }
        fs::remove_dir_all(&settings.data_dir).map_err(failed("remove", settings.data_dir.clone()))?;
        copies.push(copied);
        ingests.push(ingested);
        ratios.push(ingested / copied);
    }
    let (copied, ingested, ratio) = (median(copies), median(ingests), median(ratios));
    let lines_per_s = ingested * 1e6 * args.lines as f64 / bytes as f64;
    let peak = peak_rss_mb();
    print(
        args.json,
        json!({ "mb_per_s": ingested, "lines_per_s": lines_per_s, "peak_rss_mb": peak, "copy_mb_per_s": copied, "ratio_to_copy": ratio }),
        &format!(
            "ingest {ingested:.0} MB/s ({lines_per_s:.0} lines/s), plain synced copy {copied:.0} MB/s: ratio {ratio:.2}; peak {peak:.0} MiB; medians of {ROUNDS}"
        ),
    )
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match from.read(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..filled])?;
        to.sync_data()?;
    }
}
