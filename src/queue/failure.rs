//! What a failed delivery says of its lines, and what is stored of it.

use spillq_storage::{DeadLetter, Seq, SeqRange};

use crate::plain::beginning;

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
    /// The same, by a consumer that names the line by its seq: no number has to prove right.
    BadSeq(Seq),
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
            FailureKind::Poison | FailureKind::BadLine(_) | FailureKind::BadSeq(_) => true,
            FailureKind::TooLarge => range.lines() == 1,
            _ => false,
        }
    }

    /// The line that it names, if it names one.
    pub(super) fn named(self) -> Option<Seq> {
        match self {
            FailureKind::BadLine(seq) | FailureKind::BadSeq(seq) => Some(seq),
            _ => None,
        }
    }

    /// Whether it says nothing of the lines: they wait together as they are, and no failure is charged.
    pub(super) fn spares_the_lines(self) -> bool {
        matches!(self, FailureKind::Refused | FailureKind::Later(_))
    }
}

/// The reason that is stored of a failure: its summary, and the end of what the processor printed, together at most the
/// [`DeadLetter::REASON_BYTES_MAX`] that a dead letter stores. The beginning of the output is left out, because the error
/// comes last.
pub(super) fn reason(summary: &str, tail: &str) -> String {
    let mut text = String::with_capacity(summary.len() + 1 + tail.len());
    text.push_str(summary);
    let left = DeadLetter::REASON_BYTES_MAX.saturating_sub(summary.len() + 1);
    let start = tail.ceil_char_boundary(tail.len().saturating_sub(left));
    let end = tail.get(start..).unwrap_or_default();
    if !end.is_empty() {
        text.push('\n');
        text.push_str(end);
    }
    beginning(text, DeadLetter::REASON_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_and_the_end_of_the_output_are_stored() {
        assert_eq!(reason("it failed", ""), "it failed");
        assert_eq!(reason("it failed", "a\nb\n"), "it failed\na\nb\n");
        // The end, where the program printed why it failed, was once cut off.
        let long = format!("{}KeyError: 'price'\n", "ä".repeat(DeadLetter::REASON_BYTES_MAX / 2));
        let found = reason("it failed", &long);
        assert!(
            found.len() <= DeadLetter::REASON_BYTES_MAX && found.len() > DeadLetter::REASON_BYTES_MAX - 4,
            "{}",
            found.len()
        );
        assert!(found.starts_with("it failed\nä") && found.ends_with("KeyError: 'price'\n"), "{found}");
        let found = reason(&"ä".repeat(DeadLetter::REASON_BYTES_MAX), "end");
        assert_eq!(found, "ä".repeat(DeadLetter::REASON_BYTES_MAX / 2));
    }
}
