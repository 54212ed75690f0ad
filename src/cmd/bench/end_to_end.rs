//! `bench end-to-end`: how long a lone line takes on an idle service, from its write to its durable ack by a
//! processor in this process, compared with one sync of this disk, measured in turn; and how fast many lines go from a
//! file through the log to another file, compared with a plain copy that is synced.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use spillq_storage::{Log, Options};
use tokio::sync::{mpsc, watch};

use super::measure::{
    ROUNDS, Rounds, Walk, check_count, copied, failed, folder, mb_per_s, medians_of, percentile, print,
    progress, settings, write_input,
};
use crate::cli::BenchEndToEndArgs;
use crate::cmd::{Exit, Failure, store};
use crate::metrics::written_bytes;
use crate::plain::number;
use crate::processor::{AppendFile, DeliverySettings, Epoch, Limits, Orders, Worker};
use crate::queue::{Command, GroupSettings, Queue, WhenFull};
use crate::service::{self, Plan};
use crate::tail::{Follow, SCAN_INTERVAL, Settings, TailHandle};

/// Between two lines: the service is idle when the next one comes.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two looks at whether a line is acked: so much a figure can be too high.
const LOOK: Duration = Duration::from_micros(100);
/// What the yardstick writes before each sync.
const SYNCED_BYTES: usize = 4_096;

/// Measures.
///
/// # Errors
/// When the folder cannot be written, or the store fails.
pub(super) fn run(args: &BenchEndToEndArgs) -> Result<Exit, Failure> {
    let folder = folder(args.dir.as_deref())?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::could_not_run("could not start the runtime").because(error))?;
    let (mut lines, mut syncs) = runtime.block_on(measure(folder.path(), args.single_lines))?;
    let (line, half, sync) =
        (percentile(&mut lines, 99), percentile(&mut lines, 50), percentile(&mut syncs, 99));
    let allowed = 2.0 * sync + 5.0;
    progress(&format!("{} lines one by one: half of them within {half:.1} ms", args.single_lines));
    let (through, text) = through(folder.path(), args.lines)?;
    print(
        args.json,
        &json!({ "single_lines": args.single_lines, "p99_ms": line, "p50_ms": half, "fdatasync_p99_ms": sync, "allowed_ms": allowed,
            "through": through }),
        &[
            format!(
                "a single line, write to durable ack: 99 % within {line:.1} ms, half within {half:.1} ms, of {}",
                number(args.single_lines)
            ),
            format!("fdatasync: 99 % within {sync:.1} ms; two of them and 5 ms are {allowed:.1} ms"),
            text,
            medians_of(),
        ],
    )
}

/// From a file through the log to a file, both at the same time.
fn through(folder: &Path, lines: u64) -> Result<(serde_json::Value, String), Failure> {
    let input = folder.join("input.jsonl");
    let bytes = write_input(&input, lines)?;
    let mut rounds = Rounds::new("through the log to a file", vec![("copy", "plain synced copy".to_owned())]);
    for round in 0..ROUNDS {
        let copied = copied(&input, bytes)?;
        let settings = settings(folder, &format!("through-{round}"), &input);
        let target = folder.join(format!("out-{round}.jsonl"));
        let log = Log::open_or_create(&settings.data_dir, Options::default()).map_err(store::failure)?;
        let epoch = Epoch::of_store(log.state());
        drop(log);
        let file = AppendFile::new(target.clone(), epoch).map_err(failed("write to", target.clone()))?;
        let group = settings.groups[0].name.clone();
        let (before, started) = (written_bytes(), Instant::now());
        let plan = Plan { follow: true, once: true, ..Plan::default() };
        let ended = service::run_with(&settings, &plan, vec![(group, Box::new(file))], &mut |_| {})?;
        let rate = mb_per_s(bytes, started);
        rounds.add_written_since(before, bytes);
        check_count(ended.progress.lines, "delivered", lines)?;
        let found = fs::metadata(&target).map_err(failed("look at", target.clone()))?.len();
        if found != bytes {
            return Err(Failure::store(format!("{found} bytes came out, and {bytes} were written")));
        }
        fs::remove_file(&target).map_err(failed("remove", target))?;
        fs::remove_dir_all(&settings.data_dir).map_err(failed("remove", settings.data_dir.clone()))?;
        rounds.add(rate, &[copied]);
    }
    Ok(rounds.medians((lines, bytes)))
}

async fn measure(folder: &Path, count: u64) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let (input, yardstick) = (folder.join("input.log"), folder.join("yardstick"));
    File::create(&input).map_err(failed("create", input.clone()))?;
    let log = Log::open_or_create(&folder.join("q"), Options::default()).map_err(store::failure)?;
    let groups = vec![GroupSettings::named(crate::config::DEFAULT_GROUP)];
    let next_source = log.state().next_source();
    let queue = Queue::start(log, groups, 1 << 20, WhenFull::Pause, |_| None).map_err(store::failure)?;
    let handle = queue.handle();
    let follow = Follow::new(vec![input.to_string_lossy().into_owned()]);
    let settings = Settings {
        follows: vec![follow],
        never: Vec::new(),
        scan_interval: SCAN_INTERVAL,
        once: false,
        first_start: true,
    };
    let tail = TailHandle::start(settings, Vec::new(), next_source, handle.clone())
        .map_err(|error| Failure::could_not_run(error.to_string()))?;
    let closed = |closed: crate::queue::Closed| Failure::store(closed.to_string());
    let (group, settings) = handle.ask(Command::Groups).await.map_err(closed)?.remove(0);
    let (orders, listens) = watch::channel(Orders::Work);
    let (_delivery, delivery) = watch::channel(DeliverySettings { settings, pace: None });
    let lent = (group, delivery);
    let asked = (listens, mpsc::channel(1).1);
    let worker = Worker::new(
        Box::new(Walk::default()),
        handle.clone(),
        lent,
        queue.window(),
        Limits::default(),
        asked,
    );
    let worker = tokio::spawn(worker.run());

    let mut out = OpenOptions::new().append(true).open(&input).map_err(failed("open", input.clone()))?;
    let mut synced = File::create(&yardstick).map_err(failed("create", yardstick.clone()))?;
    let (mut lines, mut syncs) = (Vec::new(), Vec::new());
    for number in 1..=count {
        tokio::time::sleep(PAUSE).await;
        let started = Instant::now();
        writeln!(out, "a lone line, number {number}").map_err(failed("write", input.clone()))?;
        while handle.ask(Command::Status).await.map_err(closed)?.groups[0].acked_lines < number {
            // Not at once: questions without a pause would keep the owner from its work. Timers of the runtime are too coarse.
            std::thread::sleep(LOOK);
        }
        lines.push(started.elapsed().as_secs_f64() * 1e3);

        let started = Instant::now();
        let write = synced.write_all(&[1; SYNCED_BYTES]).and_then(|()| synced.sync_data());
        write.map_err(failed("write", yardstick.clone()))?;
        syncs.push(started.elapsed().as_secs_f64() * 1e3);
    }
    orders.send_replace(Orders::Finish);
    worker.await.map_err(|error| Failure::could_not_run("the worker failed").because(error))?;
    let stopping = Arc::new(tail);
    tokio::task::spawn_blocking(move || (stopping.stop(), queue.stop()))
        .await
        .map_err(|error| Failure::could_not_run("could not stop").because(error))?
        .1
        .map_err(store::failure)?;
    Ok((lines, syncs))
}
