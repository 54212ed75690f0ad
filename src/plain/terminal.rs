//! Text from outside made safe for a terminal: file names, lines, and what commands, servers and services answer.
//!
//! [`UNSAFE`] is the only list of characters that a terminal may act on, or that it hides. Each function writes them
//! visibly in its own way. Bytes that are not UTF-8 never reach a terminal: a `str` has none, and [`escape_path`] writes
//! them as numbers.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Unicode's control and format characters (Cc, Cf), its line and paragraph separators (Zl, Zp), and other characters
/// that show as nothing. Left out are number signs of Arabic, Syriac and Kaithi, which are format characters but visible,
/// and the variation selectors of emoji.
pub const UNSAFE: [(RangeInclusive<char>, &str); 20] = [
    ('\u{0}'..='\u{1f}', "C0 controls: escape sequences, newline, carriage return, backspace"),
    ('\u{7f}'..='\u{9f}', "delete, and C1 controls: escape sequences of one character"),
    ('\u{ad}'..='\u{ad}', "soft hyphen"),
    ('\u{34f}'..='\u{34f}', "combining grapheme joiner"),
    ('\u{61c}'..='\u{61c}', "Arabic letter mark, which turns the direction of writing"),
    ('\u{115f}'..='\u{1160}', "fillers of Hangul"),
    ('\u{17b4}'..='\u{17b5}', "invisible vowels of Khmer"),
    ('\u{180b}'..='\u{180f}', "variation selectors and the vowel separator of Mongolian"),
    ('\u{200b}'..='\u{200f}', "zero-width space and joiners, left-to-right and right-to-left marks"),
    ('\u{2028}'..='\u{202e}', "line and paragraph separator, embeddings and overrides of direction"),
    ('\u{2060}'..='\u{206f}', "word joiner, invisible operators, isolates of direction"),
    ('\u{3164}'..='\u{3164}', "filler of Hangul"),
    ('\u{feff}'..='\u{feff}', "byte order mark"),
    ('\u{ffa0}'..='\u{ffa0}', "half-width filler of Hangul"),
    ('\u{fff0}'..='\u{fffb}', "interlinear annotation"),
    ('\u{13430}'..='\u{1343f}', "format controls of hieroglyphs"),
    ('\u{1bca0}'..='\u{1bca3}', "format controls of shorthand"),
    ('\u{1d173}'..='\u{1d17a}', "format controls of music"),
    ('\u{e0000}'..='\u{e007f}', "tags"),
    ('\u{e0100}'..='\u{e01ef}', "variation selectors"),
];

/// Whether a character is in [`UNSAFE`].
#[must_use]
pub fn needs_escape(c: char) -> bool {
    !matches!(c, ' '..='~') && UNSAFE.iter().any(|(range, _)| range.contains(&c))
}

/// Text for one line, each unsafe character written as a program would have it: `\n`, `\x1b`, `\u{202e}`.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_if(text, needs_escape)
}

/// As [`escape`], but tabs stay: the content of lines is often in columns.
#[must_use]
pub fn escape_but_tabs(text: &str) -> Cow<'_, str> {
    escape_if(text, |c| c != '\t' && needs_escape(c))
}

fn escape_if(text: &str, is_unsafe: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing to a string does not fail.
        let _ = match c {
            c if !is_unsafe(c) => shown.write_char(c),
            '\n' | '\t' | '\r' => write!(shown, "{}", c.escape_default()),
            c if c.is_ascii() => write!(shown, r"\x{:02x}", u32::from(c)),
            c => write!(shown, "{}", c.escape_unicode()),
        };
    }
    Cow::Owned(shown)
}

/// The beginning of a text, at most this many bytes, of whole characters.
pub(crate) fn beginning(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

/// Text of several lines within a bound: a carriage return becomes a newline, newlines and tabs stay, and any other
/// unsafe character becomes `?`. Never longer than `text`.
#[must_use]
pub fn harmless(text: &str) -> String {
    text.replace("\r\n", "\n")
        .chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            '\r' => '\n',
            c if needs_escape(c) => '?',
            c => c,
        })
        .collect()
}

/// A path for one line, from which its bytes can be read back: a byte that is unsafe or not UTF-8 is `\xNN`, and a
/// backslash is doubled, so that no two paths look alike.
#[must_use]
pub fn escape_path(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str(r"\\"),
                c if needs_escape(c) => {
                    c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_number(&mut text, byte));
                }
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_number(&mut text, *byte));
    }
    text
}

fn push_number(text: &mut String, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(text, r"\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn no_unsafe_character_passes_and_everything_else_stays() {
        for c in UNSAFE.into_iter().flat_map(|(range, _)| range) {
            let text = format!("a{c}b");
            assert!(!escape(&text).contains(needs_escape), "{c:?}");
            assert!(!escape_but_tabs(&text).contains(|c| c != '\t' && needs_escape(c)), "{c:?}");
            assert!(!harmless(&text).contains(|c| !matches!(c, '\t' | '\n') && needs_escape(c)), "{c:?}");
            assert!(harmless(&text).len() <= text.len(), "{c:?}");
            assert!(!escape_path(Path::new(&text)).contains(needs_escape), "{c:?}");
        }
        for same in ["", "plain", "ä → 日本 🦀 ❤\u{fe0f} e\u{301}", r"a\b"] {
            assert!(matches!(escape(same), Cow::Borrowed(text) if text == same), "{same}");
            assert_eq!(harmless(same), same);
        }
    }

    #[test]
    fn all_controls_are_unsafe() {
        assert!((char::MIN..=char::MAX).filter(|c| c.is_control()).all(needs_escape));
    }

    #[test]
    fn escaped_text_reads_as_a_program_writes_it() {
        assert_eq!(escape("a\x1b[2Jb\nc\td\re\x7f"), r"a\x1b[2Jb\nc\td\re\x7f");
        assert_eq!(escape("a\u{9b}31m\u{202e}b"), r"a\u{9b}31m\u{202e}b");
        assert_eq!(escape_but_tabs("a\tb\n"), "a\tb\\n");
        assert_eq!(harmless("\x1b]0;title\x07 10%\r20%\r\n\u{202e}"), "?]0;title? 10%\n20%\n?");
    }

    /// The bytes that were shown.
    fn read_back(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, more @ ..] = rest {
            rest = more;
            match (first, more) {
                (b'\\', [b'\\', more @ ..]) => {
                    bytes.push(b'\\');
                    rest = more;
                }
                (b'\\', [b'x', high, low, more @ ..]) => {
                    let digits = [*high, *low];
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                    rest = more;
                }
                (b'\\', _) => panic!("a lone backslash in {text}"),
                _ => bytes.push(*first),
            }
        }
        bytes
    }

    #[test]
    fn a_path_is_shown_as_it_is_and_unsafe_bytes_as_numbers() {
        assert_eq!(escape_path(Path::new("/var/log/ä.log")), "/var/log/ä.log");
        assert_eq!(escape_path(Path::new(OsStr::from_bytes(b"/a\xff\\b"))), r"/a\xff\\b");
        assert_eq!(escape_path(Path::new(r"/a\xff")), r"/a\\xff");
        assert_eq!(escape_path(Path::new("/a\x1b[2J\n\u{9b}\u{202e}")), r"/a\x1b[2J\x0a\xc2\x9b\xe2\x80\xae");
    }

    proptest::proptest! {
        #[test]
        fn the_bytes_of_any_path_can_be_read_back(bytes in proptest::collection::vec(0_u8.., 0..40)) {
            proptest::prop_assert_eq!(read_back(&escape_path(Path::new(OsStr::from_bytes(&bytes)))), bytes);
        }
    }
}
