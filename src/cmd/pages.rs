//! `spillq completions` and `spillq man`: files that packages install.

use std::fs;
use std::io::{self, Write};

use super::output::wrote;
use super::{Exit, Failure};
use crate::cli::pages::{man_pages, script};
use crate::cli::{CompletionsArgs, ManArgs};

/// Prints a script for a shell.
///
/// # Errors
/// When standard output cannot be written.
pub fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    wrote(io::stdout().write_all(&script(args.shell)))
}

/// Prints the main page, or writes all of them.
///
/// # Errors
/// When they cannot be written.
pub fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let pages =
        man_pages().map_err(|error| Failure::could_not_run("cannot make the manual pages").because(error))?;
    let Some(dir) = &args.dir else {
        let main = pages.first().map(|(_, page)| page.as_slice()).unwrap_or_default();
        return wrote(io::stdout().write_all(main));
    };
    for (name, page) in pages {
        let path = dir.join(name);
        fs::write(&path, page).map_err(|error| {
            Failure::could_not_run(format!("cannot write {}", path.display())).because(error)
        })?;
    }
    Ok(Exit::Fine)
}
