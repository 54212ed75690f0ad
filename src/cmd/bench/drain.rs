//! `bench drain`: how fast a backlog is delivered and acked durably, in three ways. Read, checked and walked line by line in
//! this process, compared with plain decompression of the same blocks; appended to a file, compared with a plain copy
//! that is synced; given to a command in batches of 4 MiB, compared with the file.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use spillq_storage::{Seq, View};

use super::measure::{
    ROUNDS, Rounds, Walk, check_count, copied, failed, folder, mb_per_s, medians_of, print, settings,
    write_input,
};
use crate::cli::BenchDrainArgs;
use crate::cmd::{Exit, Failure, store};
use crate::config::Settings;
use crate::http::AdminJson;
use crate::processor::{AppendFile, Epoch, Exec, Input, Processor, Program};
use crate::queue::GroupSettings;
use crate::service::{self, Drain, Plan};

/// So many that the bytes of a batch, 4 MiB by default, decide where it ends.
const BATCH_LINES: u64 = 100_000;

/// Measures.
///
/// # Errors
/// When the folder cannot be written, or the store fails.
pub(super) fn run(args: &BenchDrainArgs) -> Result<Exit, Failure> {
    let folder = folder(args.dir.as_deref())?;
    let input = folder.path().join("input.jsonl");
    let bytes = write_input(&input, args.lines)?;
    let mut settings = settings(folder.path(), "q", &input);
    service::run(&settings, &Plan { follow: true, once: true, ..Plan::default() }, &mut |_| {})?;
    let frames = folder.path().join("frames.zst");
    let epoch = write_frames(&settings.data_dir, &frames)?;
    let mut rounds = Rounds::new("drain", vec![("zstd", "zstd alone".to_owned())]);
    let mut to_file = Rounds::new("to a file", vec![("copy", "plain synced copy".to_owned())]);
    let mut to_command = Rounds::new("to a command", vec![("file", "to a file".to_owned())]);
    for round in 0..ROUNDS {
        let started = Instant::now();
        let raw = decompress(&frames).map_err(failed("read", frames.clone()))?;
        let zstd = mb_per_s(raw, started);

        let walked = drained(&mut settings, args.lines, bytes, Box::new(Walk::default()))?;
        rounds.add(walked, &[zstd]);

        let copied = copied(&input, bytes)?;
        let target = folder.path().join(format!("out-{round}"));
        let file = AppendFile::new(target.clone(), epoch).map_err(failed("write to", target.clone()))?;
        let filed = drained(&mut settings, args.lines, bytes, Box::new(file))?;
        fs::remove_file(&target).map_err(failed("remove", target))?;
        to_file.add(filed, &[copied]);

        let words = ["sh", "-c", "cat > /dev/null"].map(str::to_owned).to_vec();
        let program = Program::new(words, Exec::OWN_BINARY.into(), Duration::from_secs(5));
        let command = Exec::new(program, Input::Lines, epoch);
        to_command.add(drained(&mut settings, args.lines, bytes, Box::new(command))?, &[filed]);
    }
    let size = (args.lines, bytes);
    let [(mut figures, text), (file, file_text), (command, command_text)] =
        [rounds, to_file, to_command].map(|of| of.medians(size));
    (figures["file"], figures["exec"]) = (file, command);
    print(args.json, &figures, &[text, file_text, command_text, medians_of()])
}

/// Drains all lines through a new group, which reads all of them again: MB/s.
fn drained(
    settings: &mut Settings,
    lines: u64,
    bytes: u64,
    processor: Box<dyn Processor>,
) -> Result<f64, Failure> {
    let name = "measured".to_owned();
    let request = AdminJson::AddGroup { name: name.clone(), from_beginning: true };
    store::administer(&settings.data_dir, request)?;
    settings.groups.retain(|group| group.name == crate::config::DEFAULT_GROUP);
    let group = GroupSettings { name: name.clone(), batch_lines: BATCH_LINES, ..settings.groups[0].clone() };
    settings.groups.push(group);
    let plan =
        Plan { drain: Some(Drain { group: Some(name.clone()), ..Drain::default() }), ..Plan::default() };
    let started = Instant::now();
    let ended = service::run_with(settings, &plan, vec![(name.clone(), processor)], &mut |_| {})?;
    let rate = mb_per_s(bytes, started);
    check_count(ended.progress.lines, "drained", lines)?;
    store::administer(&settings.data_dir, AdminJson::RemoveGroup { name, discard_lines: true })?;
    Ok(rate)
}

/// The blocks of the log as zstd frames behind one another, each with its length before it. Returns the epoch of the store.
fn write_frames(data_dir: &Path, to: &Path) -> Result<Epoch, Failure> {
    let view: View = store::view(data_dir)?;
    let (mut reader, state) = (view.reader(), view.state());
    let file = File::create(to).map_err(failed("create", to.to_owned()))?;
    let mut out = BufWriter::new(file);
    let mut seq: Seq = state.first_seq();
    while seq < state.next_seq() {
        let block = reader.block(seq).map_err(|error| Failure::store(error.to_string()))?;
        let frame = zstd::bulk::compress(block.raw(), 1).map_err(failed("compress for", to.to_owned()))?;
        let head = [frame.len() as u32, block.raw().len() as u32].map(u32::to_le_bytes).concat();
        out.write_all(&head).and_then(|()| out.write_all(&frame)).map_err(failed("write", to.to_owned()))?;
        seq = block.range().last.next();
    }
    out.flush().map_err(failed("write", to.to_owned()))?;
    Ok(Epoch::of_store(state))
}

/// Decompresses all frames one by one; gives the bytes that came out.
fn decompress(path: &Path) -> io::Result<u64> {
    let mut input = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    let mut total = 0;
    loop {
        let mut head = [0; 8];
        match input.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(total),
            Err(error) => return Err(error),
        }
        let [a, b, c, d, e, f, g, h] = head;
        let (stored, raw) =
            (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize);
        let mut frame = vec![0; stored];
        input.read_exact(&mut frame)?;
        total += std::hint::black_box(decompressor.decompress(&frame, raw)?).len() as u64;
    }
}
