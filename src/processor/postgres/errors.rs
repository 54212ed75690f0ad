//! What an error of PostgreSQL means, by its SQLSTATE.

use spillq_storage::Seq;
use tokio_postgres::Error;
use tokio_postgres::error::DbError;

use super::super::evidence::{Tail, chain};
use super::super::trouble::{Fault, Trouble};

/// During what an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Something that the lines have nothing to do with.
    Around,
    /// Copying the lines, or committing them.
    Lines,
}

/// What an error means. `line` gives the seq of a row by its number, from 1.
pub(super) fn judge(error: &Error, stage: Stage, line: impl Fn(u64) -> Option<Seq>) -> Trouble {
    let Some(said) = error.as_db_error() else {
        let source = std::error::Error::source(error);
        let is_broken = error.is_closed() || source.is_some_and(|source| source.is::<std::io::Error>());
        // Not said by a server: the connection broke. Otherwise a password is missing, or this is not PostgreSQL.
        return Trouble::new(if is_broken { Fault::Server } else { Fault::Setup }, chain(error));
    };
    let code = said.code().code();
    let fault = match fault(code, stage, is_about_seq(said)) {
        Fault::Lines => {
            row(said.where_().unwrap_or_default()).and_then(line).map_or(Fault::Lines, Fault::Line)
        }
        fault => fault,
    };
    Trouble { more: more(said), ..Trouble::new(fault, format!("{} (SQLSTATE {code})", said.message())) }
}

fn fault(code: &str, stage: Stage, is_about_seq: bool) -> Fault {
    match (code.get(..2).unwrap_or_default(), stage) {
        // The table has a line with that seq that did not come from here: no line is to blame.
        _ if code == "23505" && is_about_seq => Fault::Setup,
        // A column has another type than the lines are sent in.
        _ if matches!(code, "22P03" | "22P04") => Fault::Setup,
        // A line is not text of that encoding, or a column, a constraint or a trigger does not take it.
        ("22" | "23" | "P0", Stage::Lines) => Fault::Lines,
        _ if code == "54000" && stage == Stage::Lines => Fault::Lines,
        _ if code == "57014" => Fault::Time,
        // Read-only: a standby, until it is promoted.
        _ if code == "25006" => Fault::Server,
        ("08" | "22" | "23" | "40" | "53" | "55" | "57" | "58" | "XX", _) => Fault::Server,
        _ => Fault::Setup,
    }
}

/// Whether a unique key over `seq` alone refused. The server names the columns only in the detail.
fn is_about_seq(error: &DbError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("(seq)="))
}

/// The number of the row, from 1, if the server names it: `COPY fills, line 7, column line`. Above that may be what
/// parsed the row, with numbers of lines that mean something else: `JSON data, line 1: no...`.
fn row(context: &str) -> Option<u64> {
    let (_, rest) = context.lines().rev().find(|line| line.starts_with("COPY "))?.split_once(", line ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn more(error: &DbError) -> String {
    let mut tail = Tail::default();
    for (name, text) in [("detail", error.detail()), ("hint", error.hint()), ("where", error.where_())] {
        if let Some(text) = text {
            tail.push(format!("{name}: {text}\n").as_bytes());
        }
    }
    tail.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_errors_has_its_fault() {
        for (code, stage, expected) in [
            ("22021", Stage::Lines, Fault::Lines),
            ("22P02", Stage::Lines, Fault::Lines),
            ("23514", Stage::Lines, Fault::Lines),
            ("23505", Stage::Lines, Fault::Lines),
            ("P0001", Stage::Lines, Fault::Lines),
            ("54000", Stage::Lines, Fault::Lines),
            ("23505", Stage::Around, Fault::Server),
            ("28P01", Stage::Around, Fault::Setup),
            ("42P01", Stage::Around, Fault::Setup),
            ("42P01", Stage::Lines, Fault::Setup),
            ("42501", Stage::Lines, Fault::Setup),
            ("3D000", Stage::Around, Fault::Setup),
            ("3F000", Stage::Around, Fault::Setup),
            ("53100", Stage::Lines, Fault::Server),
            ("53300", Stage::Around, Fault::Server),
            ("57P01", Stage::Lines, Fault::Server),
            ("57P03", Stage::Around, Fault::Server),
            ("40001", Stage::Lines, Fault::Server),
            ("55P03", Stage::Around, Fault::Server),
            ("25006", Stage::Around, Fault::Server),
            ("08006", Stage::Lines, Fault::Server),
            ("57014", Stage::Lines, Fault::Time),
            ("22P03", Stage::Lines, Fault::Setup),
            ("", Stage::Lines, Fault::Setup),
        ] {
            assert_eq!(fault(code, stage, false), expected, "{code} {stage:?}");
        }
        assert_eq!(fault("23505", Stage::Lines, true), Fault::Setup, "the seq is taken");
    }

    #[test]
    fn the_row_is_found_if_the_server_names_it() {
        assert_eq!(row("COPY fills, line 7, column line: \"x, line 9\""), Some(7));
        assert_eq!(row("COPY fills, line 12"), Some(12));
        assert_eq!(row("JSON data, line 1: no...\nCOPY fills, line 12"), Some(12));
        assert_eq!(row("PL/pgSQL function f() line 3 at RAISE\nCOPY fills, line 12"), Some(12));
        for none in [
            "",
            "COPY fills, Zeile 7",
            "PL/pgSQL function f() line 3 at RAISE",
            "COPY fills, line x",
            "JSON data, line 1: no...",
        ] {
            assert_eq!(row(none), None, "{none}");
        }
    }
}
