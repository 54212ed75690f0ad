//! The answer of a long-lived command to a batch: one line, and what it means. Pure.

use std::time::Duration;

use spillq_storage::Seq;

use super::bad_lines::{BadLine, done_except};
use super::{Batch, Evidence, Outcome};
use crate::plain::{beginning, harmless};

/// The longest answer, with its newline: some hundred bad lines with their reasons. More belongs on standard error.
pub(super) const REPLY_BYTES_MAX: usize = 64 * 1024;
/// How much of a reason counts: a sentence.
const REASON_BYTES_MAX: usize = 4 * 1024;
/// How much is shown of what is not an answer.
const SHOWN_BYTES: usize = 80;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The batch is done. The answer may name it by its last seq.
    Ok(Option<Seq>),
    /// The batch that ends with this seq is done, except these lines.
    Bad(Seq, Vec<BadLine>),
    /// The batch is to be delivered again after this time.
    Later(Duration, String),
    /// The batch is not done.
    Nak {
        /// The number of the first bad line in the batch, from 1, as written; `None` if no line is blamed.
        line: Option<u64>,
        /// The reason, for people.
        reason: String,
    },
}

impl Reply {
    /// Parses one line with its newline. The error says what was found instead.
    pub(super) fn parse(bytes: &[u8]) -> Result<Reply, String> {
        let shown = || {
            let start = bytes.get(..SHOWN_BYTES).unwrap_or(bytes);
            format!("{:?}", harmless(&String::from_utf8_lossy(start)))
        };
        let Some(line) = bytes.strip_suffix(b"\n") else {
            return Err(match bytes.contains(&b'\n') {
                true => format!("said more than one answer: {}", shown()),
                false => format!("gave an answer without an end within {REPLY_BYTES_MAX} bytes: {}", shown()),
            });
        };
        if line.contains(&b'\n') {
            return Err(format!("said more than one answer: {}", shown()));
        }
        let text = harmless(&String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)));
        if text == "OK" {
            return Ok(Reply::Ok(None));
        }
        match text.split_once(' ').unwrap_or((&text, "")) {
            ("OK", seq) if seq.parse::<u64>().is_ok() => Ok(Reply::Ok(seq.parse().ok().map(Seq))),
            ("OK", named) => {
                let (seq, list) = named.split_once(" BAD ").unwrap_or((named, ""));
                let seq = seq.parse().ok().map(Seq).filter(|_| !list.is_empty());
                let seq = seq.ok_or_else(|| instead(&shown()))?;
                let bad = serde_json::from_str(list).map_err(|error| {
                    format!("said {}, and the list behind BAD cannot be read: {error}", shown())
                })?;
                Ok(Reply::Bad(seq, bad))
            }
            ("LATER", rest) => {
                let (millis, said) = rest.split_once(' ').unwrap_or((rest, ""));
                let millis = millis.parse().map_err(|_| instead(&shown()))?;
                Ok(Reply::Later(Duration::from_millis(millis), reason(said)))
            }
            ("NAK", rest) => {
                let (first, behind) = rest.split_once(' ').unwrap_or((rest, ""));
                Ok(match first.parse::<u64>() {
                    Ok(line) => Reply::Nak { line: Some(line), reason: reason(behind) },
                    Err(_) => Reply::Nak { line: None, reason: reason(rest) },
                })
            }
            _ => Err(instead(&shown())),
        }
    }

    /// Whether it ends lines of the batch as done.
    pub(super) fn acks(&self) -> bool {
        matches!(self, Reply::Ok(_) | Reply::Bad(..))
    }

    /// What it means for a batch that `program` was given; `tail` is the end of what it printed.
    pub(super) fn outcome(self, batch: &Batch, program: &str, tail: String) -> Outcome {
        let evidence =
            |what: String| Evidence { summary: format!("{program} {what} on {}", batch.named()), tail };
        match self {
            Reply::Ok(_) => Outcome::Done,
            Reply::Bad(_, bad) => done_except(batch, &bad, program),
            Reply::Later(wait, reason) => {
                Outcome::Later(wait, evidence(format!("answered LATER {} {reason}", wait.as_millis())))
            }
            Reply::Nak { line: None, reason } => Outcome::Failed(evidence(format!("answered NAK {reason}"))),
            Reply::Nak { line: Some(number), reason } => {
                match number.checked_sub(1).and_then(|skip| batch.nth(skip)) {
                    Some(seq) => {
                        Outcome::BadLine(seq, evidence(format!("says that line {seq} is bad: {reason}")))
                    }
                    // It blames a line with a wrong number: it may count from 0. Bisecting finds the line.
                    None => {
                        let lines = batch.line_count();
                        let what =
                            format!("answered NAK {number}, and the batch has {lines} lines: {reason}");
                        Outcome::Poison(evidence(what))
                    }
                }
            }
        }
    }
}

fn instead(shown: &str) -> String {
    format!("said {shown} instead of OK LAST_SEQ, NAK REASON, NAK N REASON or LATER MS REASON")
}

fn reason(text: &str) -> String {
    beginning(text.to_owned(), REASON_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nak(line: Option<u64>, reason: &str) -> Result<Reply, String> {
        Ok(Reply::Nak { line, reason: reason.to_owned() })
    }

    fn bad(n: u64, reason: &str) -> BadLine {
        BadLine { n, reason: Some(reason.to_owned()) }
    }

    fn later(millis: u64, reason: &str) -> Result<Reply, String> {
        Ok(Reply::Later(Duration::from_millis(millis), reason.to_owned()))
    }

    #[test]
    fn answers_are_read() {
        for (line, reply) in [
            ("OK\n", Ok(Reply::Ok(None))),
            ("OK\r\n", Ok(Reply::Ok(None))),
            ("OK 12\n", Ok(Reply::Ok(Some(Seq(12))))),
            ("OK 12 BAD []\n", Ok(Reply::Bad(Seq(12), vec![]))),
            (
                "OK 12 BAD [{\"n\":3,\"reason\":\"no such coin\"}, {\"reason\":\"\\u001b[31m\",\"n\":4,\"more\":1},{\"n\":5}]\n",
                Ok(Reply::Bad(
                    Seq(12),
                    vec![bad(3, "no such coin"), bad(4, "\u{1b}[31m"), BadLine { n: 5, reason: None }],
                )),
            ),
            ("LATER 5000 the database restarts\n", later(5_000, "the database restarts")),
            ("LATER 0\n", later(0, "")),
            ("NAK\n", nak(None, "")),
            ("NAK database is down\n", nak(None, "database is down")),
            ("NAK 3 no such coin\n", nak(Some(3), "no such coin")),
            ("NAK 3\n", nak(Some(3), "")),
            ("NAK 3rd\n", nak(None, "3rd")),
            ("NAK a \x1b[31m\n", nak(None, "a ?[31m")),
        ] {
            assert_eq!(Reply::parse(line.as_bytes()), reply, "{line:?}");
        }
    }

    /// `echo "OK $last"` with `last` unset: the answer was meant to name a batch, and it is not known which.
    #[test]
    fn an_ok_that_names_nothing_is_not_an_answer() {
        for line in ["OK \n", "OK  \n", "OK \r\n", "OK \t\n"] {
            let found = Reply::parse(line.as_bytes()).unwrap_err();
            assert!(found.contains("instead of OK LAST_SEQ"), "{line:?}: {found}");
        }
    }

    #[test]
    fn anything_else_is_not_an_answer() {
        let long = "x".repeat(REPLY_BYTES_MAX);
        for line in [
            "",
            "\n",
            "ok\n",
            "OK fine\n",
            "OK 1 2\n",
            "OK -1\n",
            "OK BAD [{\"n\":1}]\n",
            "OK 12 BAD\n",
            "OK 12 BAD \n",
            "OK 12 BAD {\"n\":1}\n",
            "OK 12 BAD [1]\n",
            "OK 12 BAD [{\"n\":-1}]\n",
            "OK 12 BAD [{\"n\":1}\n",
            "OK 12 BAD [{\"n\":1}] and more\n",
            "LATER\n",
            "LATER soon\n",
            "LATER -1 x\n",
            "OK 99999999999999999999\n",
            "OKAY\n",
            "OK\nOK\n",
            "OK\nO",
            "processed 3 lines\n",
            &long,
        ] {
            let found = Reply::parse(line.as_bytes()).unwrap_err();
            assert!(found.len() < 300, "{found}");
        }
    }
}
