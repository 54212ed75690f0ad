//! Evidence of a failed delivery, for people: the end of a stream of foreign bytes.
//!
//! Keeps at most [`EVIDENCE_BYTES_MAX`] bytes of it, and makes them safe for a terminal.

use std::collections::VecDeque;

use super::EVIDENCE_BYTES_MAX;
use crate::plain::harmless;

/// The last bytes of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    /// Adds more of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.get(bytes.len().saturating_sub(EVIDENCE_BYTES_MAX)..).unwrap_or_default();
        let excess = (self.0.len() + kept.len()).saturating_sub(EVIDENCE_BYTES_MAX);
        self.0.drain(..excess);
        self.0.extend(kept);
    }

    /// The end of the stream as text that is safe to print, at most [`EVIDENCE_BYTES_MAX`] bytes.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let mut text = harmless(&String::from_utf8_lossy(&bytes));
        // A byte that is not UTF-8 becomes a character of three bytes.
        let mut start = text.len().saturating_sub(EVIDENCE_BYTES_MAX);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text.drain(..start);
        text
    }
}

/// An error with its causes, safe to print.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    harmless(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept() {
        let mut tail = Tail::default();
        for i in 0..10_000 {
            tail.push(format!("line {i}\n").as_bytes());
        }
        let text = tail.text();
        assert_eq!(text.len(), EVIDENCE_BYTES_MAX);
        assert!(text.ends_with("line 9998\nline 9999\n"));
        tail.push(&[b'x'; 3 * EVIDENCE_BYTES_MAX]);
        assert_eq!(tail.text(), "x".repeat(EVIDENCE_BYTES_MAX));
    }

    #[test]
    fn what_a_terminal_acts_on_is_neutralised() {
        let mut tail = Tail::default();
        tail.push(b"\x1b]0;title\x07 10%\r20%\r\nna\xc3\xafve\t\x00\xff\xe2\x80\xae\xc2\x9b31m\n");
        assert_eq!(tail.text(), "?]0;title? 10%\n20%\nna\u{ef}ve\t?\u{fffd}??31m\n");
    }

    #[test]
    fn bytes_that_are_not_text_stay_within_the_limit() {
        let mut tail = Tail::default();
        tail.push(&[0xff; 2 * EVIDENCE_BYTES_MAX]);
        assert!(tail.text().len() <= EVIDENCE_BYTES_MAX);
        assert!(tail.text().starts_with('\u{fffd}'));
    }
}
