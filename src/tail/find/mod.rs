//! Which files exist that globs name.

pub(crate) mod candidates;
pub(crate) mod follows;
pub(crate) mod globs;
pub(crate) mod links;
pub(crate) mod preview;
pub(crate) mod refused;
pub(crate) mod walk;
pub(crate) mod watch;
