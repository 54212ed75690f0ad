//! `spillq verify`: read all of the store and check it. Changes nothing.

use std::io::{self, IsTerminal, Write};

use bytesize::ByteSize;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget};
use serde_json::json;
use spillq_storage::{Error, View};

use super::{Exit, Failure, store, wrote};
use crate::cli::VerifyArgs;

/// Verifies; status 1 when something is damaged.
///
/// # Errors
/// When the store is in use, or is none.
pub fn run(args: &VerifyArgs) -> Result<Exit, Failure> {
    let data_dir = super::data_dir(args.data_dir.data_dir.as_deref());
    let (findings, verified) = match View::open(&data_dir) {
        Ok(view) => {
            let target = if io::stderr().is_terminal() {
                ProgressDrawTarget::stderr()
            } else {
                ProgressDrawTarget::hidden()
            };
            let bar = ProgressBar::with_draw_target(Some(0), target);
            let mut last = spillq_storage::Verified::default();
            let findings = view.verify(&mut |verified| {
                bar.set_length(verified.lines_total);
                bar.set_position(verified.lines);
                last = verified;
            });
            bar.finish_and_clear();
            (findings, last)
        }
        // Damage that keeps the store from opening is an answer, too.
        Err(error @ Error::Damaged { .. }) => (vec![error.to_string()], spillq_storage::Verified::default()),
        Err(error) => return Err(store::failure(error)),
    };
    let sound = findings.is_empty();
    let text = if args.json {
        json!({ "sound": sound, "findings": findings, "lines": verified.lines, "bytes": verified.bytes })
            .to_string()
            + "\n"
    } else {
        let checked = format!("{} lines ({}) checked", HumanCount(verified.lines), ByteSize(verified.bytes));
        let verdict = if sound {
            format!("sound: {checked}")
        } else {
            format!("damaged: {checked}, {} findings", findings.len())
        };
        let mut text = verdict + "\n";
        findings.iter().for_each(|finding| text.push_str(&format!("  {finding}\n")));
        if !sound {
            text.push_str("`spillq repair --dry-run` says what can be kept\n");
        }
        text
    };
    let exit = wrote(io::stdout().write_all(text.as_bytes()))?;
    Ok(if sound { exit } else { Exit::No })
}
