//! The answer of a long-lived command to a batch: one short line. Pure.

use spillq_storage::Seq;

use crate::plain::harmless;

/// The longest answer, with its newline: a reason is a sentence; more belongs on standard error.
pub(super) const REPLY_BYTES_MAX: usize = 4 * 1024;
/// How much is shown of what is not an answer.
const SHOWN_BYTES: usize = 80;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The batch is done. The answer may name it by its last seq.
    Ok(Option<Seq>),
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
            ("NAK", rest) => {
                let (first, behind) = rest.split_once(' ').unwrap_or((rest, ""));
                Ok(match first.parse::<u64>() {
                    Ok(line) => Reply::Nak { line: Some(line), reason: behind.to_owned() },
                    Err(_) => Reply::Nak { line: None, reason: rest.to_owned() },
                })
            }
            _ => Err(format!("said {} instead of OK LAST_SEQ, NAK REASON or NAK N REASON", shown())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nak(line: Option<u64>, reason: &str) -> Result<Reply, String> {
        Ok(Reply::Nak { line, reason: reason.to_owned() })
    }

    #[test]
    fn answers_are_read() {
        for (line, reply) in [
            ("OK\n", Ok(Reply::Ok(None))),
            ("OK\r\n", Ok(Reply::Ok(None))),
            ("OK 12\n", Ok(Reply::Ok(Some(Seq(12))))),
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
