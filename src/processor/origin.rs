//! Whose seqs a destination holds: the owner that is noted there, so that no other's lines are taken for these.

use std::fmt;

use spillq_storage::{GroupId, State, StoreId};

/// The group of a store that batches come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The store.
    pub store: StoreId,
    /// Which restoration from a backup it comes from: with each, seqs are given again that were delivered before.
    pub restoration: u64,
    /// The group; one that is removed and made anew has another number.
    pub group: GroupId,
}

impl Origin {
    /// That of no group yet.
    #[must_use]
    pub fn of_store(state: &State) -> Origin {
        Origin { store: state.store, restoration: state.restoration(), group: GroupId(0) }
    }

    /// That of `group` of the same store.
    #[must_use]
    pub fn of_group(self, group: GroupId) -> Origin {
        Origin { group, ..self }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}-{}", self.group.0, self.store.0, self.restoration)
    }
}
