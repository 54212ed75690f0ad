//! Checks the name of a group: the configuration, the command line and the queue refuse other names with the same message.

/// The name, if it is valid: names appear unquoted in metrics, messages and command lines.
///
/// # Errors
/// The rule for names.
pub fn group_name(text: &str) -> Result<String, String> {
    let may_hold = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if (1..=64).contains(&text.len()) && text.bytes().all(may_hold) {
        return Ok(text.to_owned());
    }
    Err("not a group's name; it takes 1 to 64 of a-z, 0-9, _ and -".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_needs_no_quotes() {
        for name in ["a", "default", "a_1-b", &"x".repeat(64)] {
            assert_eq!(group_name(name).as_deref(), Ok(name));
        }
        for text in ["", "A", "a b", "a.b", "ä", "a\n", &"x".repeat(65)] {
            assert!(group_name(text).is_err(), "{text:?}");
        }
    }
}
