//! Numbers as types of their own, so that a seq cannot be taken for an offset.

use std::fmt;

use bincode::{Decode, Encode};

/// The number of a line in the log: from 1 on, rising, never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Seq(pub u64);

impl Seq {
    /// The first seq that a log gives out.
    pub const FIRST: Seq = Seq(1);

    /// The seq after this one. Saturates: at a million lines a second, 2^64 lasts 580,000 years.
    #[must_use]
    pub const fn next(self) -> Seq {
        Seq(self.0.saturating_add(1))
    }

    /// The seq before this one; before 1 is 0, which means "none".
    #[must_use]
    pub const fn prev(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }

    /// The seq `lines` after this one.
    #[must_use]
    pub const fn plus(self, lines: u64) -> Seq {
        Seq(self.0.saturating_add(lines))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Consecutive seqs, both ends included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct SeqRange {
    /// The first seq of the range.
    pub first: Seq,
    /// The last seq of the range, at least `first`.
    pub last: Seq,
}

impl SeqRange {
    /// The range `first..=last`; `None` where that is empty.
    #[must_use]
    pub const fn new(first: Seq, last: Seq) -> Option<SeqRange> {
        if first.0 <= last.0 { Some(SeqRange { first, last }) } else { None }
    }

    /// The range that holds one seq.
    #[must_use]
    pub const fn one(seq: Seq) -> SeqRange {
        SeqRange { first: seq, last: seq }
    }

    /// How many seqs it holds, at least 1.
    #[must_use]
    pub const fn lines(self) -> u64 {
        self.last.0 - self.first.0 + 1
    }

    /// Whether `seq` lies in it.
    #[must_use]
    pub const fn contains(self, seq: Seq) -> bool {
        self.first.0 <= seq.0 && seq.0 <= self.last.0
    }

    /// What both ranges hold.
    #[must_use]
    pub fn intersection(self, other: SeqRange) -> Option<SeqRange> {
        SeqRange::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// What of it lies outside `hole`: at most two ranges.
    pub fn without(self, hole: SeqRange) -> impl Iterator<Item = SeqRange> {
        let before =
            SeqRange::new(self.first, self.last.min(hole.first.prev())).filter(|_| hole.first > self.first);
        let after =
            SeqRange::new(self.first.max(hole.last.next()), self.last).filter(|_| hole.last < self.last);
        before.into_iter().chain(after)
    }
}

impl fmt::Display for SeqRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// Where lines come from, for example a file. The number is the caller's choice: see [`crate::State::next_source`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct SourceId(pub u64);

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A group of one store. Never used twice: a group that is removed and created again has another id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct GroupId(pub u32);

/// The identity of a store, random at creation, so that blocks of another store are recognized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct StoreId(pub u64);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
