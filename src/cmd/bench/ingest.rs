//! `bench ingest`: how fast lines become durable, compared with a plain copy of the same file, and with one that is compressed on
//! all processors.

use std::fs;
use std::thread;
use std::time::Instant;

use super::measure::{ROUNDS, Rounds, check_count, copied, failed, folder, mb_per_s, settings, write_input};
use super::yardstick;
use crate::cli::BenchIngestArgs;
use crate::cmd::{Exit, Failure};
use crate::metrics::written_bytes;
use crate::plain::counted;
use crate::service::{self, Plan};

/// Measures.
///
/// # Errors
/// When the folder cannot be written, or the store fails.
pub(super) fn run(args: &BenchIngestArgs) -> Result<Exit, Failure> {
    let folder = folder(args.dir.as_deref())?;
    let input = folder.path().join("input.jsonl");
    let bytes = write_input(&input, args.lines)?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let zstd = format!("zstd -1 on {}, synced", counted(threads as u64, "thread"));
    let mut rounds = Rounds::new("ingest", vec![("copy", "plain synced copy".to_owned()), ("zstd", zstd)]);
    let compressed_to = folder.path().join("compressed");
    for round in 0..ROUNDS {
        let copied = copied(&input, bytes)?;
        let started = Instant::now();
        yardstick::compress(&input, &compressed_to, threads)
            .map_err(failed("compress to", compressed_to.clone()))?;
        let compressed = mb_per_s(bytes, started);

        let settings = settings(folder.path(), &format!("q{round}"), &input);
        let (before, started) = (written_bytes(), Instant::now());
        let ended =
            service::run(&settings, &Plan { follow: true, once: true, ..Plan::default() }, &mut |_| {})?;
        let ingested = mb_per_s(bytes, started);
        rounds.add_written_since(before, bytes);
        fs::remove_file(&compressed_to).map_err(failed("remove", compressed_to.clone()))?;
        check_count(ended.status.log.next_seq - 1, "in the log", args.lines)?;
        fs::remove_dir_all(&settings.data_dir).map_err(failed("remove", settings.data_dir.clone()))?;
        rounds.add(ingested, &[copied, compressed]);
    }
    rounds.print((args.lines, bytes), args.json)
}
