//! The follows as they are in force: their settings, and the globs ready to match.

use std::path::PathBuf;

use spillq_storage::BlockBuilder;

use crate::tail::error::TailError;
use crate::tail::find::walk::Discover;
use crate::tail::settings::Follow;

/// Sets of globs: a source names its own in 16 bits.
const FOLLOWS_MAX: usize = 1_000;

/// Follows that make sense, to be taken by a tail that runs.
#[derive(Debug)]
pub struct Follows {
    pub(crate) follows: Vec<Follow>,
    pub(crate) discover: Discover,
}

impl Follows {
    /// Checks them; `never` as in [`crate::tail::Settings`].
    ///
    /// # Errors
    /// When they do not make sense.
    pub fn new(follows: Vec<Follow>, never: &[PathBuf]) -> Result<Follows, TailError> {
        check(&follows)?;
        let of = |one: &Follow| (one.include.clone(), one.exclude.clone(), one.symlinks.clone());
        let globs: Vec<_> = follows.iter().map(of).collect();
        let globs = globs.iter().map(|(include, exclude, symlinks)| {
            (include.as_slice(), exclude.as_slice(), symlinks.as_deref())
        });
        let discover = Discover::new(globs, never)?;
        Ok(Follows { follows, discover })
    }
}

fn check(follows: &[Follow]) -> Result<(), TailError> {
    if follows.len() > FOLLOWS_MAX {
        return Err(TailError::Follows(follows.len()));
    }
    for follow in follows {
        if !(1..=BlockBuilder::LINE_BYTES_MAX).contains(&follow.max_line_bytes) {
            return Err(TailError::LineBytes {
                found: follow.max_line_bytes,
                max: BlockBuilder::LINE_BYTES_MAX,
            });
        }
    }
    Ok(())
}
