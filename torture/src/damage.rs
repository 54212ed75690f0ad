//! Damage: one bit flipped, or a file cut or zeroed from any byte on, in a copy of a store; I9.
//!
//! `verify` must find it, or everything must be there as before. What can still be read must be as it was. Then `repair`
//! must leave a sound store with every line as it was, or named as lost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::campaign::{Setup, Tally};
use crate::line::{self, Place};
use crate::service::tool;
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;

/// Some are in segments only: every opening begins a new journal.
const LINES: u64 = 20_000;
/// The group has acked this many of them, so that acks are damaged too.
const ACKED: &str = "5000";
/// Content without meaning, or for people only.
const WITHOUT_LINES: &[&str] = &["RESERVE", "EVENTS", "LOCK"];
/// One damaged block holds at most its 256 KiB of lines, and one flip damages one.
const LOST_MAX: u64 = 4_000;

/// What is done to the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One bit.
    Flip,
    /// A file is cut, or zeroed from somewhere on, or a stretch of it is zeroed.
    Tear,
}

/// Everything that a store contains: lines by seq, and the status without counters of runs.
#[derive(PartialEq, Eq)]
struct Content {
    lines: BTreeMap<u64, String>,
    status: serde_json::Value,
    letters: String,
}

/// The results of cases.
#[derive(Default)]
struct Seen {
    harmless: u64,
    repaired_clean: u64,
    lossy: u64,
}

/// Runs the campaign.
pub fn run(setup: &Setup, kind: Kind, tally: &mut Tally) {
    let name = if kind == Kind::Flip { "flip" } else { "tear" };
    let prepared = setup.folder(name).and_then(|folder| Ok((prepare(setup, &folder)?, folder)));
    let ((store, content), folder) = match prepared {
        Ok(prepared) => prepared,
        Err(trouble) => return tally.fail(&trouble, &setup.work, name),
    };
    let mut seen = Seen::default();
    for seed in setup.seed..setup.seed + setup.count {
        let copy = folder.join(format!("copy-{seed}"));
        match one(setup, kind, &store, &copy, &content, seed, &mut seen) {
            Ok(()) => {
                tally.pass(1);
                // Nothing is left to look at.
                let _ = fs::remove_dir_all(&copy);
            }
            Err(trouble) => tally.fail(&trouble, &copy, &format!("{name} --count 1 --seed {seed}")),
        }
    }
    let Seen { harmless, repaired_clean, lossy } = seen;
    println!(
        "{} of {name}, seed {}: {harmless} harmless, {repaired_clean} reported and repaired without a loss, {lossy} reported and repaired with a named loss",
        counted(setup.count, "case"),
        setup.seed
    );
}

/// A store with lines in a journal and in segments, acks and a dead letter.
fn prepare(setup: &Setup, folder: &Path) -> Result<(PathBuf, Content)> {
    let (store, log) = (folder.join("q"), folder.join("w0.log"));
    let mut rng = fastrand::Rng::with_seed(1);
    let mut text = Vec::new();
    for number in 0..LINES {
        let letters: String = (0..rng.usize(..300)).map(|_| rng.alphanumeric()).collect();
        let place = Place { run: 1, source: 0, number, file: 0, offset: text.len() as u64, poison: false };
        line::write(&mut text, &place, &letters);
    }
    fs::write(&log, text).during("write the followed file")?;
    let config = folder.join("spillq.toml");
    fs::write(&config, "[disk]\nmin_free = \"16MiB\"\nreserve = \"1MiB\"\n")
        .during("write the configuration")?;
    let [config, log] = [config, log].map(|path| path.display().to_string());
    for (args, code) in [
        (&["run", "--config", &config, "--once", "--follow", &log][..], 0),
        (&["dead-letter", "park", "6000"][..], 0),
    ] {
        let output = setup.program.on(&store, args)?;
        if output.code != code {
            return Err(Trouble::new(format!("{args:?} ended with {}: {}", output.code, output.err)));
        }
    }
    let mut drain =
        setup.program.command(&["drain", "--config", &config, "--max-lines", ACKED, "--data-dir"]);
    drain.arg(&store).args(["--", "true"]);
    let drained = crate::service::run(drain)?;
    if drained.code != 1 {
        return Err(Trouble::new(format!("drain ended with {}: {}", drained.code, drained.err)));
    }
    let content = content(setup, &store, &[])?;
    let verified = setup.program.on(&store, &["verify"])?;
    if content.lines.len() < 10_000 || verified.code != 0 {
        let (lines, out) = (content.lines.len(), verified.out);
        return Err(Trouble::new(format!("the store to damage holds {lines} lines, {out}")));
    }
    Ok((store, content))
}

/// `losses` are those that a repair has named: first and last seq of each.
fn content(setup: &Setup, store: &Path, losses: &[(u64, u64)]) -> Result<Content> {
    let ask = |args: &[&str]| -> Result<String> {
        let output = setup.program.on(store, args)?;
        match output.code {
            0 | 1 => Ok(output.out),
            code => Err(Trouble::new(format!("{args:?} ended with {code}: {}", output.err))),
        }
    };
    let mut lines = BTreeMap::new();
    let mut from = 1;
    loop {
        let first = from.to_string();
        let output =
            setup.program.on(store, &["inspect", "--json", "--limit", "100000000", "--from", &first])?;
        for text in output.out.lines() {
            let shown: serde_json::Value = serde_json::from_str(text).during("read the output of inspect")?;
            let seq = shown.get("seq").and_then(serde_json::Value::as_u64).unwrap_or_default();
            lines.insert(seq, text.to_owned());
            from = seq + 1;
        }
        // It ends at lost lines, and continues after them when asked to.
        match losses.iter().find(|(first, last)| (*first..=*last).contains(&from) || *first == from) {
            _ if output.code == 0 => break,
            Some((_, last)) if output.code == 3 => from = last + 1,
            _ => return Err(Trouble::new(format!("I9 inspect ended with {}: {}", output.code, output.err))),
        }
    }
    let mut status: serde_json::Value =
        serde_json::from_str(&ask(&["status", "--json"])?).during("read the status")?;
    for (part, key) in [("", "pid"), ("log", "runs"), ("log", "commits"), ("log", "disk_bytes")] {
        let part = if part.is_empty() { Some(&mut status) } else { status.get_mut(part) };
        if let Some(object) = part.and_then(serde_json::Value::as_object_mut) {
            object.remove(key);
        }
    }
    if let Some(groups) = status.get_mut("groups").and_then(serde_json::Value::as_array_mut) {
        for group in groups.iter_mut().filter_map(serde_json::Value::as_object_mut) {
            // Grows with time.
            group.remove("lag_seconds");
        }
    }
    Ok(Content { lines, status, letters: ask(&["dead-letter", "list", "--json"])? })
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).during(folder.display())? {
        let path = entry.during(folder.display())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if !WITHOUT_LINES.contains(&name.as_str())
            && fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() > 0)
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Damages one file; returns how.
fn hurt(kind: Kind, path: &Path, rng: &mut fastrand::Rng) -> Result<String> {
    let file = File::options().read(true).write(true).open(path).during("open the file to damage")?;
    let len = file.metadata().during("look at the file to damage")?.len();
    let at = rng.u64(..len);
    let zero = |count: u64| file.write_all_at(&vec![0; count as usize], at);
    let what = match (kind, rng.u8(..3)) {
        (Kind::Flip, _) => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).during("read a byte")?;
            let bit = rng.u8(..8);
            file.write_all_at(&[byte.first().copied().unwrap_or_default() ^ 1 << bit], at)
                .during("flip a bit")?;
            format!("bit {bit} of byte {at} flipped")
        }
        (Kind::Tear, 0) => file.set_len(at).map(|()| format!("cut at byte {at}")).during("cut a file")?,
        (Kind::Tear, 1) => {
            zero(len - at).map(|()| format!("zeroed from byte {at} on")).during("zero a file")?
        }
        (Kind::Tear, _) => {
            let count = rng.u64(1..=8).saturating_mul(512).min(len - at);
            zero(count).map(|()| format!("{count} bytes from {at} on zeroed")).during("zero a file")?
        }
    };
    Ok(format!("{} ({len} bytes): {what}", path.display()))
}

fn one(
    setup: &Setup,
    kind: Kind,
    store: &Path,
    copy: &Path,
    whole: &Content,
    seed: u64,
    seen: &mut Seen,
) -> Result<()> {
    let [from, to] = [store, copy].map(|path| path.display().to_string());
    tool("cp", &["-a", "--sparse=auto", &from, &to])?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let all = files(copy)?;
    let path = rng.choice(&all).ok_or_else(|| Trouble::new("the store has no files"))?;
    let what = hurt(kind, path, &mut rng)?;
    let verified = setup.program.on(copy, &["verify"])?;
    if verified.code == 0 {
        if content(setup, copy, &[]).during(&what)? != *whole {
            return Err(Trouble::new(format!("I9 silent: {what}")));
        }
        seen.harmless += 1;
        return Ok(());
    }
    if !matches!(verified.code, 1..=3) {
        return Err(Trouble::new(format!(
            "I9 {what}: verify ended with {}: {}",
            verified.code, verified.err
        )));
    }
    // It looks like another version: neither opened nor repaired.
    if verified.code == 2 {
        seen.repaired_clean += 1;
        return Ok(());
    }
    let repaired = setup.program.on(copy, &["repair", "--json"])?;
    if repaired.code != 0 {
        return Err(Trouble::new(format!(
            "I9 {what}: repair ended with {}: {}",
            repaired.code, repaired.err
        )));
    }
    let report: serde_json::Value =
        serde_json::from_str(&repaired.out).during("read the report of repair")?;
    let named = report.get("lost_lines").and_then(serde_json::Value::as_u64).unwrap_or_default();
    let losses = report.get("losses").and_then(serde_json::Value::as_array).into_iter().flatten();
    let number = |loss: &serde_json::Value, key: &str| {
        loss.get(key).and_then(serde_json::Value::as_u64).unwrap_or_default()
    };
    let losses: Vec<(u64, u64)> = losses.map(|loss| (number(loss, "first"), number(loss, "last"))).collect();
    let after = content(setup, copy, &losses).during(&what)?;
    let changed = after.lines.iter().find(|(seq, line)| whole.lines.get(seq) != Some(line));
    if let Some((seq, line)) = changed {
        return Err(Trouble::new(format!("I4 {what}: repaired, seq {seq} is {line}")));
    }
    // A dead letter is in another file, and can be read there when its segment is gone.
    let letters = after.letters.lines().filter_map(|text| serde_json::from_str(text).ok());
    let kept = letters
        .filter(|letter: &serde_json::Value| !after.lines.contains_key(&number(letter, "seq")))
        .count();
    let lost = (whole.lines.len() - after.lines.len()).saturating_sub(kept) as u64;
    if lost > named || (kind == Kind::Flip && named > LOST_MAX) {
        return Err(Trouble::new(format!("I9 {what}: gone: {}; named: {named}", counted(lost, "line"))));
    }
    let again = setup.program.on(copy, &["verify"])?;
    if again.code != 0 {
        return Err(Trouble::new(format!(
            "I9 {what}: repaired, but verify ends with {}: {}",
            again.code, again.out
        )));
    }
    *if named == 0 { &mut seen.repaired_clean } else { &mut seen.lossy } += 1;
    Ok(())
}
