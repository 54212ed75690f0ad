//! `spillq verify`: read all of the store and check it. Changes nothing.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;
use spillq_storage::{Error, Verified, View};

use super::{Exit, Failure, store, wrote};
use crate::cli::VerifyArgs;
use crate::plain::{counted, size};

/// Verifies; status 1 when something is damaged, 3 when the disk refused to read something: then it is not known.
///
/// # Errors
/// When the store is in use, or is none, or cannot be read at all.
pub fn run(args: &VerifyArgs) -> Result<Exit, Failure> {
    let data_dir = super::store_dir(&args.store)?;
    let (findings, verified) = match View::open(&data_dir) {
        Ok(view) => {
            let target = if io::stderr().is_terminal() {
                ProgressDrawTarget::stderr()
            } else {
                ProgressDrawTarget::hidden()
            };
            let bar = ProgressBar::with_draw_target(Some(0), target);
            let mut last = Verified::default();
            let findings = view.verify(&mut |verified| {
                bar.set_length(verified.lines_total);
                bar.set_position(verified.lines);
                last = verified;
            });
            bar.finish_and_clear();
            (findings, last)
        }
        // Damage that keeps the store from opening is an answer, too.
        Err(error @ Error::Damaged { .. }) => (vec![error.to_string()], Verified::default()),
        Err(error) => return Err(store::failure(error)),
    };
    let sound = findings.is_empty();
    let text = if args.json {
        let Verified { lines, bytes, refused, .. } = verified;
        json!({ "sound": sound, "findings": findings, "refused": refused, "lines": lines, "bytes": bytes })
            .to_string()
            + "\n"
    } else {
        let checked = format!("{} ({}) checked", counted(verified.lines, "line"), size(verified.bytes));
        let verdict = if sound {
            format!("sound: {checked}")
        } else if verified.refused > 0 {
            format!("not known: {checked}, the disk refused {}", counted(verified.refused, "read"))
        } else {
            format!("damaged: {checked}, {}", counted(findings.len() as u64, "finding"))
        };
        let mut text = verdict + "\n";
        findings.iter().for_each(|finding| text.push_str(&format!("  {finding}\n")));
        if verified.refused > 0 {
            text.push_str("see to the disk and verify again: a repair gives up what the disk refuses\n");
        } else if !sound {
            text.push_str("`spillq repair --dry-run` says what can be kept\n");
        }
        text
    };
    let exit = wrote(io::stdout().write_all(text.as_bytes()))?;
    Ok(match (sound, verified.refused) {
        (true, _) => exit,
        (false, 0) => Exit::No,
        (false, _) => Exit::StoreFailed,
    })
}
