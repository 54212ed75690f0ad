//! Text that others chose, made fit to be shown: on one line, and nothing in it that a terminal acts on.
//!
//! Names of files, what commands and servers say, and lines pass through here on their way to a screen or a message.

mod counted;

use std::borrow::Cow;
use std::fmt::Write;

pub use counted::{counted, size, waiting};

/// Whether a character moves the cursor, ends a line or turns the direction of writing, instead of being seen.
#[must_use]
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The same text with each such character written as a program would have it: `\n`, `\x1b`, `\u{202e}`.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing to a string does not fail.
        let _ = match c {
            '\n' => shown.write_str(r"\n"),
            '\t' => shown.write_str(r"\t"),
            '\r' => shown.write_str(r"\r"),
            c if acts(c) && c.is_ascii() => write!(shown, r"\x{:02x}", u32::from(c)),
            c if acts(c) => write!(shown, "{}", c.escape_unicode()),
            c => shown.write_char(c),
        };
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_written_out_and_all_else_stays() {
        for same in ["", "plain", "ä → 日本 🦀", r"a\b"] {
            assert!(matches!(plain(same), Cow::Borrowed(text) if text == same), "{same}");
        }
        assert_eq!(plain("a\x1b[2Jb\nc\td\re\x7f"), r"a\x1b[2Jb\nc\td\re\x7f");
        assert_eq!(plain("a\u{9b}31m\u{202e}b"), r"a\u{9b}31m\u{202e}b");
    }
}
