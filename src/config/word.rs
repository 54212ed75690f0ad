//! Settings that are a choice among words.

/// A choice among words.
pub trait Word: Copy + PartialEq + 'static {
    /// Each word with its meaning.
    const ALL: &'static [(&'static str, Self)];

    /// The word for it.
    #[must_use]
    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// `"a", "b" or "c"`.
pub(super) fn quoted<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let mut words: Vec<String> = words.map(|word| format!("{word:?}")).collect();
    let last = words.pop().unwrap_or_default();
    if words.is_empty() { last } else { format!("{} or {last}", words.join(", ")) }
}
