//! A URL that may contain a secret.

use std::fmt;

/// A URL whose query may contain a secret: it is shown without the query, also in `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// Is shown in place of the query. It is not valid in a URL, so a shown URL cannot be used by mistake.
    pub const HIDDEN: char = '\u{2026}';

    /// This URL.
    #[must_use]
    pub fn new(whole: String) -> Url {
        Url(whole)
    }

    /// The whole URL, to connect to.
    #[must_use]
    pub fn whole(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once('?') {
            Some((shown, _)) => write!(f, "{shown}?{}", Url::HIDDEN),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
