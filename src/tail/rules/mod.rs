//! What the tail decides about the files that it found.

pub(crate) mod compressed;
pub(crate) mod identify;
pub(crate) mod inactive;
pub(crate) mod opened;
pub(crate) mod order;
pub(crate) mod verdict;
