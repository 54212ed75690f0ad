//! `spillq verify`: reads the whole store and checks it. Changes nothing.

use std::io::{self, Write};

use serde_json::json;
use spillq_storage::{Error, Verified, View};

use super::output::{self, Output};
use super::progress::Bar;
use super::{Exit, Failure, store};
use crate::cli::VerifyArgs;
use crate::plain::{counted, size};

/// Verifies; status 1 when the store is damaged, 3 when the disk refused to read a part, whose state is then unknown.
///
/// # Errors
/// When the store is in use, does not exist, or cannot be read at all.
pub fn run(args: &VerifyArgs) -> Result<Exit, Failure> {
    let data_dir = super::store_dir(&args.store)?;
    let (findings, verified) = match View::open(&data_dir) {
        Ok(view) => {
            let progress = Bar::start();
            let mut last = Verified::default();
            let findings = view.verify(&mut |verified| {
                progress.show(verified.lines, verified.lines_total, size(verified.bytes));
                last = verified;
            });
            progress.end();
            (findings, last)
        }
        // Damage that prevents opening is a finding too.
        Err(error @ Error::Damaged { .. }) => (vec![error.to_string()], Verified::default()),
        Err(error) => return Err(store::failure(error)),
    };
    let sound = findings.is_empty();
    let Verified { lines, bytes, refused, .. } = verified;
    let exit = output::print(|out| {
        match args.json {
        true => out.json(
            &json!({ "sound": sound, "findings": findings, "refused": refused, "lines": lines, "bytes": bytes }),
        ),
        false => print(out, verified, &findings),
    }
    })?;
    Ok(match (sound, refused) {
        (true, _) => exit,
        (false, 0) => Exit::No,
        (false, _) => Exit::StoreFailed,
    })
}

fn print(out: &mut Output<impl Write>, verified: Verified, findings: &[String]) -> io::Result<()> {
    let checked = format!("{} ({}) checked", counted(verified.lines, "line"), size(verified.bytes));
    if findings.is_empty() {
        return out.line(format!("sound: {checked}"));
    }
    out.line(match verified.refused {
        0 => format!("damaged: {checked}, {}", counted(findings.len() as u64, "finding")),
        refused => format!("not known: {checked}, the disk refused {}", counted(refused, "read")),
    })?;
    findings.iter().try_for_each(|finding| out.line(format!("  {finding}")))?;
    out.line(match verified.refused {
        0 => "`spillq repair --dry-run` prints what can be kept",
        _ => "repair or replace the disk and verify again: `spillq repair` would give up what the disk refuses to read",
    })
}
