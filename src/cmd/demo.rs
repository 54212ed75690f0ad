//! `spillq demo`: a writer that rotates its file, a slow processor, a kill -9 in the middle, a restart, and the count of
//! missing and repeated lines in the log: none.
//!
//! The writer is this process; the service is the installed program, run as a user would run it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Exit, Failure, store};
use crate::cli::DemoArgs;
use crate::http::{Client, StatusJson};
use crate::plain::{counted, number};

/// Lines that the writer writes, and at which it rotates its file.
const LINES: u64 = 200_000;
const ROTATE_LINES: u64 = 40_000;
/// Lines between two pauses of the writer: about 60,000 lines per second.
const BURST_LINES: u64 = 600;
const PAUSE: Duration = Duration::from_millis(10);
/// Lines in the log when it is killed.
const KILL_AT: u64 = LINES / 2;
/// The longest that a step may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs it.
///
/// # Errors
/// When a part cannot be started.
pub fn run(_: &DemoArgs) -> Result<Exit, Failure> {
    let folder = tempfile::Builder::new()
        .prefix("spillq-demo-")
        .tempdir()
        .map_err(|error| Failure::could_not_run("could not make a temporary folder").because(error))?;
    let (logs, data_dir) = (folder.path().join("logs"), folder.path().join("q"));
    let failed = |what: &str| {
        let what = format!("the demo could not {what}");
        move |error: std::io::Error| Failure::could_not_run(what).because(error)
    };
    fs::create_dir(&logs).map_err(failed("make a folder"))?;
    say("a program writes 200,000 lines to app.log, and renames it away every 40,000");
    let writing = logs.clone();
    let writer = thread::spawn(move || write_lines(&writing));
    say("spillq follows the files; its processor is slow: 0.2 s for each batch");
    let mut service = start(&logs, &data_dir).map_err(failed("start spillq"))?;
    let before = wait(&mut service, &data_dir, |status| status.log.next_seq > KILL_AT)?;
    service.kill().and_then(|()| service.wait()).map_err(failed("kill spillq"))?;
    let waits = before.groups.first().map_or(0, |group| group.lag_lines);
    say(&format!(
        "kill -9: {} in the log, {} of them not processed yet. The writer continues",
        counted(before.log.next_seq - 1, "line"),
        number(waits)
    ));
    let started = Instant::now();
    let mut service = start(&logs, &data_dir).map_err(failed("start spillq again"))?;
    wait(&mut service, &data_dir, |_| true)?;
    say(&format!("started again: ready after {} ms", started.elapsed().as_millis()));
    let written = writer.join().map_err(|_| Failure::could_not_run("the writer of the demo panicked"))?;
    written.map_err(failed("write its lines"))?;
    let done = wait(&mut service, &data_dir, |status| {
        status.log.next_seq > LINES && status.groups.iter().all(|group| group.lag_lines == 0)
    })?;
    let stop = Command::new("kill").arg(service.id().to_string()).status();
    stop.and_then(|_| service.wait()).map_err(failed("stop spillq"))?;
    account(&data_dir, &done)
}

fn say(text: &str) {
    println!("- {text}");
}

fn write_lines(logs: &Path) -> std::io::Result<()> {
    let path = logs.join("app.log");
    let mut file = File::create(&path)?;
    for first in (0..LINES).step_by(BURST_LINES as usize) {
        let mut burst = Vec::new();
        for number in first..LINES.min(first + BURST_LINES) {
            writeln!(burst, "{number} a line of the demo")?;
            if number % ROTATE_LINES == ROTATE_LINES - 1 && number + 1 < LINES {
                file.write_all(&burst)?;
                burst.clear();
                fs::rename(&path, logs.join(format!("app.log.{}", number / ROTATE_LINES + 1)))?;
                file = File::create(&path)?;
            }
        }
        file.write_all(&burst)?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn start(logs: &Path, data_dir: &Path) -> std::io::Result<Child> {
    let follow: PathBuf = logs.join("app.log*");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--log", "error", "run", "--data-dir"]).arg(data_dir).arg("--follow").arg(follow);
    command.args(["--", "sh", "-c", "cat > /dev/null; sleep 0.2"]).stdin(Stdio::null()).spawn()
}

/// Waits until the status of the service is as wanted.
fn wait(
    service: &mut Child,
    data_dir: &Path,
    is_so: impl Fn(&StatusJson) -> bool,
) -> Result<StatusJson, Failure> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(client) = Client::connect(data_dir)
            && let Ok(status) = client.get::<StatusJson>("/v1/status")
            && is_so(&status)
        {
            return Ok(status);
        }
        if let Ok(Some(status)) = service.try_wait() {
            return Err(Failure::could_not_run(format!("the service of the demo ended: {status}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(Failure::could_not_run(format!("the service of the demo made no progress within {PATIENCE:?}")))
}

/// Reads the whole log and counts.
fn account(data_dir: &Path, done: &StatusJson) -> Result<Exit, Failure> {
    let view = store::view(data_dir)?;
    let (mut reader, state) = (view.reader(), view.state());
    let mut times = vec![0_u32; LINES as usize];
    let (mut seq, mut out_of_order, mut last) = (state.first_seq(), 0_u64, None);
    while seq < state.next_seq() {
        let block = reader.block(seq).map_err(|error| Failure::store(error.to_string()))?;
        for line in block.lines() {
            let number = std::str::from_utf8(line.bytes)
                .ok()
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
            if let Some(count) = number.and_then(|number| times.get_mut(number as usize)) {
                *count += 1;
            }
            out_of_order += u64::from(number < last);
            last = number;
        }
        seq = block.range().last.next();
    }
    let missing = times.iter().filter(|times| **times == 0).count();
    let repeated = times.iter().filter(|times| **times > 1).count();
    let acked: u64 = done.groups.iter().map(|group| group.acked_lines).sum();
    say(&format!(
        "result: {} lines written, {} in the log, {missing} missing, {repeated} repeated, {out_of_order} out of order; {} processed",
        number(LINES),
        number(state.next_seq().prev().0),
        number(acked)
    ));
    Ok(if missing == 0 && repeated == 0 && out_of_order == 0 { Exit::Fine } else { Exit::No })
}
