//! Which files exist that globs name.

pub(crate) mod candidates;
pub(crate) mod follows;
pub(crate) mod globs;
pub(crate) mod links;
pub(crate) mod preview;
pub(crate) mod refused;
pub(crate) mod walk;
pub(crate) mod watch;

pub(crate) use candidates::{Candidates, Chosen, LeftOut, Met, Without};
pub(crate) use follows::{Follows, OfSection};
pub(crate) use globs::{DEPTH_MAX, Globs, Include};
pub(crate) use links::RealRoots;
pub(crate) use refused::{Refused, hash};
pub(crate) use walk::{Found, Walked};
pub(crate) use watch::{Wake, Watch};
