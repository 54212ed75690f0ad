//! The epoch of a seq: a seq names one line only together with the store, the epoch of the store and the group that it comes from.

use std::fmt;

use spillq_storage::{GroupId, State, StoreId};

/// What the seqs of a group's batches belong to. A destination notes it as the owner of the lines that it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// The store.
    pub store: StoreId,
    /// The epoch of the store: every restore from a backup begins another, in which seqs that were delivered before
    /// are given to other lines.
    pub number: u64,
    /// The group. A group that is removed and made again has another number.
    pub group: GroupId,
}

impl Epoch {
    /// The epoch of a store, with no group yet.
    #[must_use]
    pub fn of_store(state: &State) -> Epoch {
        Epoch { store: state.store(), number: state.epoch(), group: GroupId(0) }
    }

    /// The same, for `group`.
    #[must_use]
    pub fn of_group(self, group: GroupId) -> Epoch {
        Epoch { group, ..self }
    }
}

/// `GROUP-STORE-NUMBER`, as destinations store it.
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}-{}", self.group.0, self.store.0, self.number)
    }
}
