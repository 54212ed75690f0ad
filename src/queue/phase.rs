//! What a group does, and what stops it: facts, without words.

use spillq_storage::Seq;

/// What stops a group until somebody acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// x
    Damage(String),
    /// x
    DiskError(String),
    /// x
    AckWindow,
    /// x
    DeadLettersFull,
    /// x
    HeldBy(Seq),
}
