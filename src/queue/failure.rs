//! What a failed delivery says of its lines.

use spillq_storage::{Seq, SeqRange};

/// An out-of-memory kill of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomKill {
    /// Kills in its cgroup since its processor got the first batch, this one included.
    pub kills: u64,
    /// The lowest memory limit of that cgroup and those around it; `None` without a limit.
    pub limit_bytes: Option<u64>,
    /// The memory of the service itself.
    pub own_bytes: Option<u64>,
}

/// What a failed delivery says of its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The lines or the destination may be at fault.
    Failed,
    /// The destination cannot be reached, or reports a failure of its own (5xx). Treated as `Failed`, except that doctor
    /// never suggests to park a line for it.
    Down,
    /// The kernel killed the command because memory ran out. Treated as `Failed`.
    OutOfMemory(OomKill),
    /// The processor blames the lines.
    Poison,
    /// The processor blames this line, and says nothing of the lines after it.
    BadLine(Seq),
    /// The batch is too large; a single line that is too large is blamed.
    TooLarge,
    /// The destination is misconfigured.
    Refused,
    /// The destination asks not to be called for this many milliseconds; the first and the longest back-off bound it.
    Later(u64),
}

impl FailureKind {
    /// Whether the destination rejects these lines, or one of them.
    pub(super) fn blames(self, range: SeqRange) -> bool {
        match self {
            FailureKind::Poison | FailureKind::BadLine(_) => true,
            FailureKind::TooLarge => range.lines() == 1,
            _ => false,
        }
    }

    /// Whether it says nothing of the lines: they wait together as they are, and no failure is charged.
    #[must_use]
    pub(super) fn spares_the_lines(self) -> bool {
        matches!(self, FailureKind::Refused | FailureKind::Later(_))
    }
}
