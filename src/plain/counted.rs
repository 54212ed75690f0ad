//! Numbers in sentences: a count with its noun, and bytes in units that people read.

use bytesize::ByteSize;
use indicatif::HumanCount;

/// A count with its noun, in the plural where that is due: `1 line`, `12,000 lines`, `2 batches`, `0 entries`.
///
/// Only for nouns with a regular plural; of several words the last takes it.
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    format!("{} {}", HumanCount(count), if count == 1 { noun.to_owned() } else { plural(noun) })
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
