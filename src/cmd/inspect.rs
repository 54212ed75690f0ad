//! `spillq inspect`: prints lines of the log, for people or programs.

use std::io::{self, Write};

use spillq_storage::{Seq, SeqRange, View};

use super::output::Output;
use super::store::Store;
use super::{Exit, Failure};
use crate::cli::InspectArgs;
use crate::http::{Client, LineJson, SourceNames, StatusJson};

/// Lines per request to a running service.
const PAGE_LINES: u64 = 1_000;

/// Prints them.
///
/// # Errors
/// When the store does not exist, or a line cannot be read.
pub fn run(args: &InspectArgs) -> Result<Exit, Failure> {
    let from = args.from.unwrap_or(Seq::FIRST);
    let mut out = Output::stdout();
    let written = match Store::with_labels(&args.store)? {
        Store::Service(service) => from_service(&service, from, args, &mut out)?,
        Store::Disk(_, view, labels) => {
            let names = SourceNames::of(view.state()).with_labels(labels);
            from_disk(&view, &names, from, args, &mut out)?
        }
    };
    out.end(written)
}

fn from_service(
    service: &Client,
    from: Seq,
    args: &InspectArgs,
    out: &mut Output<impl Write>,
) -> Result<io::Result<()>, Failure> {
    let (mut next, mut left) = (from.0, args.limit);
    while left > 0 {
        let lines: Vec<LineJson> =
            service.get(&format!("/v1/lines?from={next}&limit={}", left.min(PAGE_LINES)))?;
        let Some(last) = lines.last() else { break };
        next = last.seq + 1;
        left = left.saturating_sub(lines.len() as u64);
        for line in &lines {
            if let Err(error) = write_line(out, line, args.json) {
                return Ok(Err(error));
            }
        }
    }
    let status: StatusJson = service.get("/v1/status")?;
    let end = if left > 0 { status.log.next_seq } else { next };
    warn_of_lost(from, Seq(end), status.losses.lost_ranges());
    Ok(Ok(()))
}

fn from_disk(
    view: &View,
    names: &SourceNames,
    from: Seq,
    args: &InspectArgs,
    out: &mut Output<impl Write>,
) -> Result<io::Result<()>, Failure> {
    let state = view.state();
    let mut reader = view.reader();
    let (mut seq, mut left) = (from, args.limit);
    while left > 0 && seq < state.next_seq() {
        let block = match reader.block(seq) {
            Ok(block) => block,
            Err(error) => match error.next(seq, state.losses()) {
                Some(next) => {
                    seq = next;
                    continue;
                }
                None => {
                    return Err(Failure::store(format!("line {seq}: {error}"))
                        .hint("`spillq verify` prints everything that is damaged"));
                }
            },
        };
        let start = seq;
        let wanted = block.lines().filter(|line| line.seq >= start);
        for line in wanted.take(usize::try_from(left).unwrap_or(usize::MAX)) {
            left -= 1;
            let json = LineJson::new(&line, names, &block);
            if let Err(error) = write_line(out, &json, args.json) {
                return Ok(Err(error));
            }
            seq = line.seq.next();
        }
    }
    let lost = state.losses().iter().filter(|loss| !loss.is_dropped());
    warn_of_lost(from, seq, lost.map(|loss| (loss.range, loss.reason.clone())));
    Ok(Ok(()))
}

/// Reports lines that are recorded as lost, which are not printed. They are not damage any more.
fn warn_of_lost(from: Seq, end: Seq, lost: impl Iterator<Item = (SeqRange, String)>) {
    let Some(shown) = SeqRange::new(from, end.prev()) else { return };
    for (range, why) in lost {
        if let Some(range) = range.intersection(shown) {
            match range.lines() {
                1 => tracing::warn!("line {range} is lost: {why}"),
                _ => tracing::warn!("lines {range} are lost: {why}"),
            }
        }
    }
}

fn write_line(out: &mut Output<impl Write>, line: &LineJson, json: bool) -> io::Result<()> {
    if json {
        return out.json(line);
    }
    let text = match (&line.text, &line.base64) {
        (Some(text), _) => text.clone(),
        (None, Some(base64)) => format!("(base64) {base64}"),
        (None, None) => String::new(),
    };
    let part = line.part.as_ref().map(|part| format!(" ({part} part)")).unwrap_or_default();
    let end = if line.unterminated { " (unterminated)" } else { "" };
    out.line_with_tabs(format!("{} {}:{}{part}{end} {text}", line.seq, line.source, line.offset))
}
