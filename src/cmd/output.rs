//! Standard output of a command: lines for people and JSON for programs. A terminal acts on nothing in either.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use super::{Exit, Failure};
use crate::plain::{escape, escape_but_tabs, json_line};

/// Where lines are written, whole.
pub(super) struct Output<W>(W);

/// Standard output.
pub(super) type Stdout = Output<BufWriter<StdoutLock<'static>>>;

impl Stdout {
    pub(super) fn stdout() -> Self {
        Output(BufWriter::new(io::stdout().lock()))
    }

    /// Ends a command that has written all of its output.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) fn end(mut self, written: io::Result<()>) -> Result<Exit, Failure> {
        wrote(written.and_then(|()| self.0.flush()))
    }

    /// Clears the screen for what follows.
    pub(super) fn clear_screen(&mut self) -> io::Result<()> {
        self.0.write_all(b"\x1b[H\x1b[2J")
    }
}

impl<W: Write> Output<W> {
    pub(super) fn new(out: W) -> Output<W> {
        Output(out)
    }

    /// A line for people: a newline within `text` ends no line.
    pub(super) fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.0, "{}", escape(text.as_ref()))
    }

    /// The same, with tabs as they are.
    pub(super) fn line_with_tabs(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.0, "{}", escape_but_tabs(text.as_ref()))
    }

    /// A value for programs, on one line.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        json_line(&mut self.0, value)
    }

    /// Bytes as they are, for programs.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    pub(super) fn into_inner(self) -> W {
        self.0
    }
}

/// Prints what `write` writes, and ends the command.
///
/// # Errors
/// Those of writing.
pub(super) fn print(write: impl FnOnce(&mut Stdout) -> io::Result<()>) -> Result<Exit, Failure> {
    let mut out = Output::stdout();
    let written = write(&mut out);
    out.end(written)
}

/// Prints one line, and ends the command.
///
/// # Errors
/// Those of writing.
pub(super) fn say(text: impl AsRef<str>) -> Result<Exit, Failure> {
    print(|out| out.line(text))
}

/// Prints one value for programs, and ends the command.
///
/// # Errors
/// Those of writing.
pub(super) fn say_json(value: &impl Serialize) -> Result<Exit, Failure> {
    print(|out| out.json(value))
}

/// Ends a command whose output went to standard output. A reader that went away, as `head` does, is not a failure.
///
/// # Errors
/// Any other error of writing.
pub(super) fn wrote(result: io::Result<()>) -> Result<Exit, Failure> {
    match result {
        Ok(()) => Ok(Exit::Fine),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Fine),
        Err(error) => Err(Failure::could_not_run("cannot write to standard output").because(error)),
    }
}
