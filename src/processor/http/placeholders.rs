//! `{first_seq}`, `{last_seq}` and `{key}` in the query of a URL and in headers. Pure.

use spillq_storage::SeqRange;

/// Names of placeholders, and what each becomes.
const NAMES: [&str; 3] = ["first_seq", "last_seq", "key"];

/// A text with placeholders, or without. It may be a URL with a secret in its query, so it has no `Debug`.
pub(super) struct Template(String);

impl Template {
    pub(super) fn new(text: &str) -> Template {
        Template(text.to_owned())
    }

    /// The text for the lines of `range`. All that is filled in is safe in a URL and a header: numbers, names of groups, `-`.
    pub(super) fn filled(&self, range: SeqRange, key: &str) -> String {
        let values = [range.first.0.to_string(), range.last.0.to_string(), key.to_owned()];
        NAMES
            .iter()
            .zip(values)
            .fold(self.0.clone(), |text, (name, value)| text.replace(&format!("{{{name}}}"), &value))
    }
}

/// Checks that every placeholder of a text is known, and that there is none in a part that takes none.
///
/// # Errors
/// What is wrong, as a part of a sentence.
pub(crate) fn check(text: &str, takes_some: bool) -> Result<(), String> {
    let ends = |rest: &str| rest.split_once('}').map(|(name, _)| name.to_owned());
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    for name in text.split('{').skip(1).filter_map(ends).filter(|name| is_name(name)) {
        if !takes_some {
            return Err(format!("{{{name}}} belongs in the query, behind a ?"));
        }
        if !NAMES.contains(&name.as_str()) {
            let known: Vec<String> = NAMES.iter().map(|name| format!("{{{name}}}")).collect();
            return Err(format!("{{{name}}} is not a placeholder; there are {}", known.join(", ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use spillq_storage::Seq;

    use super::*;

    #[test]
    fn placeholders_are_filled_in() {
        let range = SeqRange { first: Seq(7), last: Seq(12) };
        let filled = |text| Template::new(text).filled(range, "fills-1-07-0-7-12");
        assert_eq!(filled("token={key}&a={first_seq}-{last_seq}"), "token=fills-1-07-0-7-12&a=7-12");
        assert_eq!(filled("{}{\"a\":1}{keys}"), "{}{\"a\":1}{keys}");
    }

    #[test]
    fn what_is_no_placeholder_is_told() {
        for text in ["", "{key}", "{}", "{\"a\":1}", "a{first_seq}{last_seq}b", "{Key}", "{key"] {
            assert_eq!(check(text, true), Ok(()), "{text}");
        }
        assert_eq!(
            check("a={index}", true).unwrap_err(),
            "{index} is not a placeholder; there are {first_seq}, {last_seq}, {key}"
        );
        assert_eq!(check("/{key}/in", false).unwrap_err(), "{key} belongs in the query, behind a ?");
    }
}
