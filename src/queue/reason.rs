//! The reason that is stored of a failure: its summary, and the end of what the processor printed.

use spillq_storage::DeadLetter;

/// Both together, at most the [`DeadLetter::REASON_BYTES_MAX`] that a dead letter stores. The beginning of the output is
/// left out, because the error comes last.
pub(super) fn reason(summary: &str, tail: &str) -> String {
    let mut text = String::with_capacity(summary.len() + 1 + tail.len());
    text.push_str(summary);
    let left = DeadLetter::REASON_BYTES_MAX.saturating_sub(summary.len() + 1);
    let start = tail.ceil_char_boundary(tail.len().saturating_sub(left));
    let end = tail.get(start..).unwrap_or_default();
    if !end.is_empty() {
        text.push('\n');
        text.push_str(end);
    }
    text.truncate(text.floor_char_boundary(DeadLetter::REASON_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_and_the_end_of_the_output_are_stored() {
        assert_eq!(reason("it failed", ""), "it failed");
        assert_eq!(reason("it failed", "a\nb\n"), "it failed\na\nb\n");
        // The end, where the program printed why it failed, was once cut off.
        let long = format!("{}KeyError: 'price'\n", "ä".repeat(DeadLetter::REASON_BYTES_MAX / 2));
        let found = reason("it failed", &long);
        assert!(
            found.len() <= DeadLetter::REASON_BYTES_MAX && found.len() > DeadLetter::REASON_BYTES_MAX - 4,
            "{}",
            found.len()
        );
        assert!(found.starts_with("it failed\nä") && found.ends_with("KeyError: 'price'\n"), "{found}");
        let found = reason(&"ä".repeat(DeadLetter::REASON_BYTES_MAX), "end");
        assert_eq!(found, "ä".repeat(DeadLetter::REASON_BYTES_MAX / 2));
    }
}
