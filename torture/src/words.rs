//! Counts in sentences.

/// A count with its noun, in the plural if needed: `1 line`, `2 lines`, `3 deliveries`, `0 flushes`. Of several
/// words the last has the plural.
pub fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {}", plural(noun)),
    }
}

/// The verb after a count.
pub fn is_or_are(count: u64) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// The same in the past.
pub fn was_or_were(count: u64) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

fn plural(noun: &str) -> String {
    let hisses = ["s", "x", "ch", "sh"].iter().any(|end| noun.ends_with(end));
    match noun.strip_suffix("ry") {
        Some(stem) => format!("{stem}ries"),
        None if hisses => format!("{noun}es"),
        None => format!("{noun}s"),
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
            (2, "power cut", "2 power cuts"),
            (1, "delivery", "1 delivery"),
            (3, "delivery", "3 deliveries"),
            (2, "flush", "2 flushes"),
            (2, "process", "2 processes"),
            (2, "breach", "2 breaches"),
        ] {
            assert_eq!(counted(count, noun), words);
        }
        assert_eq!([0, 1, 2].map(is_or_are), ["are", "is", "are"]);
        assert_eq!([0, 1, 2].map(was_or_were), ["were", "was", "were"]);
    }
}
