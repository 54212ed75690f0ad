//! Why a campaign stopped: a broken invariant, or something that kept it from judging.

use std::fmt;

/// What happened, as text. Everything that is not a pass is printed and counts as a failure.
#[derive(Debug)]
pub struct Trouble(String);

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Trouble>;

impl Trouble {
    /// In these words.
    pub fn new(what: impl Into<String>) -> Trouble {
        Trouble(what.into())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Trouble {}

/// Adds what was attempted to an error.
pub trait During<T> {
    /// Puts `what` before the reason.
    fn during(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> During<T> for std::result::Result<T, E> {
    fn during(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Trouble(format!("{what}: {error}")))
    }
}
