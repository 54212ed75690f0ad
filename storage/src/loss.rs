//! Lines that the log does not have any more, and how far the file in `kept/` is relied on.

use bincode::{Decode, Encode};

use crate::ids::SeqRange;
use crate::ranges::without;

/// Lines that will not be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Loss {
    /// Which seqs.
    pub range: SeqRange,
    /// Whether others may still have them.
    pub kind: LossKind,
    /// Why, for people.
    pub reason: String,
}

/// What a loss means for those who ask for its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LossKind {
    /// The lines are damaged or in no file: nobody can read them.
    Unreadable,
    /// A limit dropped the lines for the groups that the reason names; other groups may have them.
    Dropped,
}

impl Loss {
    /// Lines that nobody can read, and why.
    #[must_use]
    pub fn unreadable(range: SeqRange, reason: String) -> Loss {
        Loss { range, kind: LossKind::Unreadable, reason }
    }

    /// Lines that a limit dropped for some groups; others may have them.
    #[must_use]
    pub fn dropped(range: SeqRange, groups: &[&str], limit: &str) -> Loss {
        let reason = format!("dropped for {}: {limit}", groups.join(", "));
        Loss { range, kind: LossKind::Dropped, reason }
    }

    /// How far the lines of `range` are recorded in `losses` as lost, from its first one on; `None` where that one is
    /// not.
    pub fn known<'l>(losses: impl IntoIterator<Item = &'l Loss>, range: SeqRange) -> Option<SeqRange> {
        match not_lost(losses, range).first() {
            None => Some(range),
            Some(rest) => SeqRange::new(range.first, rest.first.prev()).filter(|_| rest.first > range.first),
        }
    }

    /// Whether a limit dropped the lines; otherwise they cannot be read.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.kind == LossKind::Dropped
    }
}

/// What of `range` is not recorded as lost. Dropped lines are not counted as lost: other groups may have them.
pub(crate) fn not_lost<'l>(losses: impl IntoIterator<Item = &'l Loss>, range: SeqRange) -> Vec<SeqRange> {
    let lost = losses.into_iter().filter(|loss| !loss.is_dropped()).map(|loss| loss.range);
    without(vec![range], lost)
}

/// So much of `kept/` is synced and relied on: what cannot be read below is damage, behind it a torn end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct RetainedMark {
    /// Which file.
    pub generation: u64,
    /// How much of it.
    pub bytes: u64,
}
