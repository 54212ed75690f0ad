//! Whose seqs a destination holds: the owner that is noted there, so that no other's lines are taken for these.

use std::fmt;

use spillq_storage::{GroupId, State, StoreId};

/// The group of a store that batches come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The store.
    pub store: StoreId,
    /// How often it was restored from a backup: then it may give seqs again that were delivered before.
    pub restored: u64,
    /// The group; one that is removed and made anew has another number.
    pub group: GroupId,
}

impl Origin {
    /// That of no group yet.
    #[must_use]
    pub fn of_store(state: &State) -> Origin {
        Origin { store: state.store, restored: state.restored(), group: GroupId(0) }
    }

    /// That of `group` of the same store.
    #[must_use]
    pub fn of_group(self, group: GroupId) -> Origin {
        Origin { group, ..self }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}-{}", self.group.0, self.store.0, self.restored)
    }
}
