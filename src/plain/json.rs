//! JSON that is as safe on a terminal as other text.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::needs_escape;

/// Writes a value as one line of JSON. Unsafe characters can be in strings only, and are written as `\u202e`, which every
/// reader of JSON takes for the same string.
///
/// # Errors
/// Those of writing, and those of serializing the value.
pub fn json_line(out: &mut impl io::Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(&mut *out, Escaping))?;
    out.write_all(b"\n")
}

struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, out: &mut W, text: &str) -> io::Result<()> {
        let mut from = 0;
        for (at, found) in text.match_indices(needs_escape) {
            out.write_all(&text.as_bytes()[from..at])?;
            for unit in found.encode_utf16() {
                write!(out, "\\u{unit:04x}")?;
            }
            from = at + found.len();
        }
        out.write_all(&text.as_bytes()[from..])
    }
}

#[cfg(test)]
mod tests {
    use super::super::UNSAFE;
    use super::*;

    #[test]
    fn json_has_no_unsafe_character_and_reads_back_the_same() {
        let all: String = UNSAFE.into_iter().flat_map(|(range, _)| range).collect();
        let value = serde_json::json!({ &all: [&all, "ä \"quoted\" \\ 🦀"] });
        let mut line = Vec::new();
        json_line(&mut line, &value).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert!(!line.trim_end_matches('\n').contains(needs_escape), "{line}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
    }
}
