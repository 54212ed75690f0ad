//! `spillq repair`: keeps what can be read of a damaged store, and records the rest as lost.

use std::io::{self, Write};

use serde_json::{Value, json};
use spillq_storage::repair::Repaired;

use super::output::{self, Output};
use super::{Exit, Failure, store, store_dir};
use crate::cli::RepairArgs;
use crate::plain::{counted, number};
use crate::tail;

/// Repairs, or prints what a repair would do; status 1 when a dry run finds damage.
///
/// # Errors
/// When the store is in use, does not exist, or cannot be repaired.
pub fn run(args: &RepairArgs) -> Result<Exit, Failure> {
    let data_dir = store_dir(&args.store)?;
    let repaired =
        spillq_storage::repair::repair(&data_dir, args.dry_run, &mut tail::remake).map_err(store::failure)?;
    let exit = output::print(|out| match args.json {
        true => out.json(&to_json(&repaired, args.dry_run)),
        false => print(out, &repaired, args.dry_run),
    })?;
    Ok(if args.dry_run && !repaired.findings.is_empty() { Exit::No } else { exit })
}

fn lost(repaired: &Repaired) -> u64 {
    repaired.losses.iter().map(|loss| loss.range.lines()).sum()
}

fn to_json(repaired: &Repaired, dry_run: bool) -> Value {
    let losses: Vec<_> = repaired
        .losses
        .iter()
        .map(|loss| json!({ "first": loss.range.first.0, "last": loss.range.last.0, "reason": loss.reason }))
        .collect();
    let read_again: Vec<_> = repaired
        .read_again
        .iter()
        .map(|(source, why)| json!({ "source": source.0, "reason": why }))
        .collect();
    json!({
        "sound": repaired.findings.is_empty(),
        "dry_run": dry_run,
        "findings": repaired.findings,
        "lines": repaired.lines,
        "lost_lines": lost(repaired),
        "losses": losses,
        "quarantined": repaired.quarantined,
        "checkpoints_remade": repaired.raised.iter().map(|source| source.0).collect::<Vec<_>>(),
        "read_again": read_again,
    })
}

fn print(out: &mut Output<impl Write>, repaired: &Repaired, dry_run: bool) -> io::Result<()> {
    let lines = counted(repaired.lines, "line");
    if repaired.findings.is_empty() {
        return out.line(format!("sound: {lines} held, nothing to repair"));
    }
    let verdict = if dry_run { "would be repaired, nothing was changed" } else { "repaired" };
    out.line(format!("{verdict}: {lines} held, {} lost", number(lost(repaired))))?;
    for finding in &repaired.findings {
        out.line(format!("  found    {finding}"))?;
    }
    for loss in &repaired.losses {
        out.line(format!("  lost     lines {}: {}", loss.range, loss.reason))?;
    }
    if !repaired.raised.is_empty() {
        out.line(format!(
            "  rebuilt from stored lines: {}",
            counted(repaired.raised.len() as u64, "checkpoint")
        ))?;
    }
    for (source, why) in &repaired.read_again {
        out.line(format!("  read again, so that lines are duplicated: source {source}: {why}"))?;
    }
    for name in &repaired.quarantined {
        out.line(format!("  moved    quarantine/{name}"))?;
    }
    Ok(())
}
