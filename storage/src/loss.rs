//! Lines that the log does not have any more, and how much of `kept/` a commit relies on.

use bincode::{Decode, Encode};

use crate::ids::SeqRange;
use crate::ranges::without;

/// Lines that were lost or dropped, and why.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Loss {
    /// Which lines.
    pub range: SeqRange,
    pub(crate) kind: LossKind,
    /// Why, for people.
    pub reason: String,
}

/// What a loss means for a reader of its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum LossKind {
    /// The lines are damaged or in no file: they cannot be read.
    Unreadable,
    /// A limit dropped the lines for the groups that the reason names; other groups may have them.
    Dropped,
}

impl Loss {
    /// Lines that cannot be read, and why.
    #[must_use]
    pub fn unreadable(range: SeqRange, reason: String) -> Loss {
        Loss { range, kind: LossKind::Unreadable, reason }
    }

    /// Lines that a limit dropped for some groups; other groups may have them.
    #[must_use]
    pub fn dropped(range: SeqRange, groups: &[&str], limit: &str) -> Loss {
        let reason = format!("dropped for {}: {limit}", groups.join(", "));
        Loss { range, kind: LossKind::Dropped, reason }
    }

    /// Whether a limit dropped the lines; otherwise they cannot be read.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.kind == LossKind::Dropped
    }

    /// How far, from the first line of `range` on, `losses` record the lines as lost; `None` if they do not record the
    /// first one.
    pub fn known<'l>(losses: impl IntoIterator<Item = &'l Loss>, range: SeqRange) -> Option<SeqRange> {
        match not_lost(losses, range).first() {
            None => Some(range),
            Some(rest) => SeqRange::new(range.first, rest.first.prev()).filter(|_| rest.first > range.first),
        }
    }
}

/// What of `range` is not recorded as lost. Dropped lines do not count as lost: other groups may have them.
pub(crate) fn not_lost<'l>(losses: impl IntoIterator<Item = &'l Loss>, range: SeqRange) -> Vec<SeqRange> {
    let lost = losses.into_iter().filter(|loss| !loss.is_dropped()).map(|loss| loss.range);
    without(vec![range], lost)
}

/// How much of `kept/` is synced and relied on: an unreadable entry before this is damage, one after it a torn end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RetainedMark {
    /// Which file.
    pub(crate) generation: u64,
    /// How much of it.
    pub(crate) bytes: u64,
}
