//! `bench ingest`: how fast lines become durable, compared with a plain copy of the same file that is synced every 4 MiB.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Instant;

use super::measure::{ROUNDS, Rounds, check_count, failed, folder, mb_per_s, settings, write_input};
use crate::cli::BenchIngestArgs;
use crate::cmd::{Exit, Failure};
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
    let mut rounds = Rounds::default();
    for round in 0..ROUNDS {
        let target = folder.path().join("copy");
        let started = Instant::now();
        copy(&input, &target).map_err(failed("copy to", target.clone()))?;
        let copied = mb_per_s(bytes, started);
        fs::remove_file(&target).map_err(failed("remove", target))?;

        let settings = settings(folder.path(), &format!("q{round}"), &input);
        let started = Instant::now();
        let ended =
            service::run(&settings, &Plan { follow: true, once: true, ..Plan::default() }, &mut |_| {})?;
        let ingested = mb_per_s(bytes, started);
        check_count(ended.status.log.next_seq - 1, "in the log", args.lines)?;
        fs::remove_dir_all(&settings.data_dir).map_err(failed("remove", settings.data_dir.clone()))?;
        rounds.add(ingested, copied);
    }
    rounds.print((args.lines, bytes), ("ingest", "plain synced copy", "copy"), args.json)
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
