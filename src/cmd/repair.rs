//! `spillq repair`: keep what can be read of a damaged store, name what cannot, set it aside.

use std::fmt::Write as _;
use std::io::{self, Write};

use indicatif::HumanCount;
use serde_json::json;
use spillq_storage::Repaired;

use super::{Exit, Failure, store, store_dir, wrote};
use crate::cli::RepairArgs;
use crate::plain::counted;
use crate::tail;

/// Repairs, or tells what would be done; status 1 when a dry run finds damage.
///
/// # Errors
/// When the store is in use, is none, or cannot be repaired.
pub fn run(args: &RepairArgs) -> Result<Exit, Failure> {
    let data_dir = store_dir(&args.store)?;
    let repaired =
        spillq_storage::repair(&data_dir, args.dry_run, &mut tail::remake).map_err(store::failure)?;
    let text = if args.json { to_json(&repaired, args.dry_run) } else { tell(&repaired, args.dry_run) };
    let exit = wrote(io::stdout().write_all(text.as_bytes()))?;
    Ok(if args.dry_run && !repaired.findings.is_empty() { Exit::No } else { exit })
}

fn lost(repaired: &Repaired) -> u64 {
    repaired.losses.iter().map(|loss| loss.range.lines()).sum()
}

fn to_json(repaired: &Repaired, dry_run: bool) -> String {
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
    .to_string()
        + "\n"
}

fn tell(repaired: &Repaired, dry_run: bool) -> String {
    let lines = counted(repaired.lines, "line");
    if repaired.findings.is_empty() {
        return format!("sound: {lines} held, nothing to repair\n");
    }
    let mut out = String::new();
    // Writing to a string does not fail.
    let verdict = if dry_run { "would be repaired, nothing was changed" } else { "repaired" };
    let _ = writeln!(out, "{verdict}: {lines} held, {} lost", HumanCount(lost(repaired)));
    for finding in &repaired.findings {
        let _ = writeln!(out, "  found    {finding}");
    }
    for loss in &repaired.losses {
        let _ = writeln!(out, "  lost     lines {}: {}", loss.range, loss.reason);
    }
    if !repaired.raised.is_empty() {
        let _ = writeln!(
            out,
            "  made again from stored lines: {}",
            counted(repaired.raised.len() as u64, "checkpoint")
        );
    }
    for (source, why) in &repaired.read_again {
        let _ = writeln!(out, "  read again, lines come twice: source {source}: {why}");
    }
    for name in &repaired.quarantined {
        let _ = writeln!(out, "  aside    quarantine/{name}");
    }
    out
}
