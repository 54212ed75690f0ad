//! `bench drain`: how fast a backlog is read, checked, walked line by line and acked durably, compared with plain
//! decompression of the same blocks.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::Instant;

use spillq_storage::{Seq, View};

use super::measure::{ROUNDS, Rounds, Walk, check_count, failed, folder, mb_per_s, settings, write_input};
use crate::cli::BenchDrainArgs;
use crate::cmd::{Exit, Failure, store};
use crate::http::AdminJson;
use crate::processor::Processor;
use crate::service::{self, Drain, Plan};

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
    write_frames(&settings.data_dir, &frames)?;
    let mut rounds = Rounds::new(vec![("zstd", "zstd alone".to_owned())]);
    for round in 0..ROUNDS {
        let started = Instant::now();
        let raw = decompress(&frames).map_err(failed("read", frames.clone()))?;
        let zstd = mb_per_s(raw, started);

        // A new group for each round reads all of it again.
        let name = format!("round-{round}");
        let request = AdminJson::AddGroup { name: name.clone(), from_beginning: true };
        store::administer(&settings.data_dir, request)?;
        settings.groups.retain(|group| group.name == crate::config::DEFAULT_GROUP);
        let group = crate::queue::GroupSettings { name: name.clone(), ..settings.groups[0].clone() };
        settings.groups.push(group);
        let plan =
            Plan { drain: Some(Drain { group: Some(name.clone()), ..Drain::default() }), ..Plan::default() };
        let own: Vec<(String, Box<dyn Processor>)> = vec![(name.clone(), Box::new(Walk::default()))];
        let started = Instant::now();
        let ended = service::run_with(&settings, &plan, own, &mut |_| {})?;
        let rate = mb_per_s(bytes, started);
        check_count(ended.progress.lines, "drained", args.lines)?;
        store::administer(&settings.data_dir, AdminJson::RemoveGroup { name, discard_lines: true })?;
        rounds.add(rate, &[zstd]);
    }
    rounds.print("drain", (args.lines, bytes), args.json)
}

/// The blocks of the log as zstd frames behind one another, each with its length before it.
fn write_frames(data_dir: &Path, to: &Path) -> Result<(), Failure> {
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
    out.flush().map_err(failed("write", to.to_owned()))
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
