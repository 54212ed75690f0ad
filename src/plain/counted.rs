//! Numbers in sentences: a count with its noun, and bytes in units that people read.

use bytesize::ByteSize;
use spillq_storage::SeqRange;

/// A number with commas: `1,234,567`.
#[must_use]
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun, in the plural where that is due: `1 line`, `12,000 lines`, `2 batches`, `0 entries`.
///
/// Only for nouns with a regular plural; of several words the last takes it.
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    format!("{} {}", number(count), if count == 1 { noun.to_owned() } else { plural(noun) })
}

/// These lines: `line 7`, `lines 7-9`.
#[must_use]
pub fn span(range: SeqRange) -> String {
    format!("line{} {range}", if range.lines() == 1 { "" } else { "s" })
}

/// Lines that wait, with the verb: `1 line waits`, `2 lines wait`.
#[must_use]
pub fn waiting(lines: u64) -> String {
    format!("{} {}", counted(lines, "line"), if lines == 1 { "waits" } else { "wait" })
}

/// Bytes in IEC units, with one decimal from 1 KiB on: `512 B`, `17.5 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

fn plural(noun: &str) -> String {
    let hisses = ["s", "x", "z", "ch", "sh"].iter().any(|end| noun.ends_with(end));
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{stem}ies"),
        _ if hisses => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_all_others_are_plural() {
        for (count, noun, words) in [
            (0, "line", "0 lines"),
            (1, "line", "1 line"),
            (2, "line", "2 lines"),
            (1_234_567, "dead letter", "1,234,567 dead letters"),
            (1, "batch", "1 batch"),
            (3, "batch", "3 batches"),
            (1, "entry", "1 entry"),
            (2, "entry", "2 entries"),
            (2, "day", "2 days"),
            (2, "process", "2 processes"),
        ] {
            assert_eq!(counted(count, noun), words);
        }
        assert_eq!([0, 1, 2].map(waiting), ["0 lines wait", "1 line waits", "2 lines wait"]);
    }

    #[test]
    fn numbers_have_a_comma_before_every_three_digits() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (123_456, "123,456")] {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn bytes_have_one_decimal_from_a_kibibyte_on() {
        for (bytes, words) in [
            (0, "0 B"),
            (512, "512 B"),
            (1 << 10, "1.0 KiB"),
            (18_362_368, "17.5 MiB"),
            (256 << 20, "256.0 MiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(size(bytes), words);
        }
    }
}
