//! A batch: the lines of one lease, as references into the blocks that hold them.

use std::sync::Arc;

use bytes::Bytes;
use spillq_storage::{Block, Line, Seq, SeqRange};

use crate::plain::span;
use tokio::time::Instant;

/// Consecutive lines of one block.
#[derive(Clone, Debug)]
pub struct Piece {
    block: Arc<Block>,
    range: SeqRange,
    covers: SeqRange,
    bytes: Bytes,
}

impl Piece {
    /// The lines of `range` that are in `block`; `None` if there are none.
    #[must_use]
    pub fn new(block: Arc<Block>, range: SeqRange) -> Option<Piece> {
        let range = block.range().intersection(range)?;
        let bytes = block.slice(range);
        Some(Piece { block, range, covers: range, bytes })
    }

    /// The same, covering lines of other sources around it.
    pub(crate) fn covering(self, covers: SeqRange) -> Piece {
        Piece { covers, ..self }
    }

    /// Those of its lines that are in `range`; `None` if there are none.
    #[must_use]
    pub fn within(&self, range: SeqRange) -> Option<Piece> {
        let range = self.range.intersection(range)?;
        let first = if range.first == self.range.first { self.covers.first } else { range.first };
        let last = if range.last == self.range.last { self.covers.last } else { range.last };
        Some(Piece::new(Arc::clone(&self.block), range)?.covering(SeqRange { first, last }))
    }

    /// The seqs of its lines.
    #[must_use]
    pub fn range(&self) -> SeqRange {
        self.range
    }

    /// The seqs of its lines, and of lines around them that are of other sources than the group's: a destination that notes what
    /// it was given notes these too, or the note would have as many ranges as the sources take turns.
    #[must_use]
    pub fn covers(&self) -> SeqRange {
        self.covers
    }

    /// What one of its lines covers, as in [`Piece::covers`].
    pub(crate) fn covered_by(&self, seq: Seq) -> SeqRange {
        let first = if seq == self.range.first { self.covers.first } else { seq };
        let last = if seq == self.range.last { self.covers.last } else { seq };
        SeqRange { first, last }
    }

    /// When its lines were appended, in milliseconds since 1970.
    #[must_use]
    pub fn append_time_ms(&self) -> u64 {
        self.block.append_time_ms()
    }

    /// The bytes of its lines, one after the other, as they were in their files.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its lines.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.block.lines_within(self.range)
    }
}

/// The lines of one lease, in seq order. Never empty.
#[derive(Clone, Debug)]
pub struct Batch {
    group: Arc<str>,
    attempt: u32,
    pieces: Vec<Piece>,
    deadline: Option<Instant>,
}

impl Batch {
    /// A batch of `group`; `attempt` is 1 at the first delivery. `None` if `pieces` is empty.
    #[must_use]
    pub fn new(group: Arc<str>, attempt: u32, pieces: Vec<Piece>) -> Option<Batch> {
        if pieces.is_empty() { None } else { Some(Batch { group, attempt, pieces, deadline: None }) }
    }

    /// The same batch, whose delivery is cut off at `deadline`.
    #[must_use]
    pub fn with_deadline(self, deadline: Instant) -> Batch {
        Batch { deadline: Some(deadline), ..self }
    }

    /// The same batch with only these of its lines; `None` if there are none.
    pub(super) fn with_pieces(&self, pieces: Vec<Piece>) -> Option<Batch> {
        let batch = Batch::new(Arc::clone(&self.group), self.attempt, pieces)?;
        Some(Batch { deadline: self.deadline, ..batch })
    }

    /// When its delivery is cut off; `None` if nothing does that.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The group that it was leased to.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// How many times these lines were delivered, including this time.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// From the first seq to the last. Seqs in between are missing if their lines were acked before, or lost, or are of other
    /// sources than the group's.
    #[must_use]
    pub fn range(&self) -> SeqRange {
        let first = self.pieces.first().map(|piece| piece.range().first).unwrap_or_default();
        let last = self.pieces.last().map(|piece| piece.range().last).unwrap_or_default();
        SeqRange { first, last }
    }

    /// Its lines, for messages: `line 7`, `lines 10-20`.
    pub(super) fn named(&self) -> String {
        span(self.range())
    }

    /// How many lines it holds.
    #[must_use]
    pub fn line_count(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.range().lines()).sum()
    }

    /// How many bytes these lines have.
    #[must_use]
    pub fn byte_count(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes().len() as u64).sum()
    }

    /// The seq of the line after the first `skip` lines.
    #[must_use]
    pub fn nth(&self, mut skip: u64) -> Option<Seq> {
        for range in self.pieces.iter().map(Piece::range) {
            if skip < range.lines() {
                return Some(range.first.plus(skip));
            }
            skip -= range.lines();
        }
        None
    }

    /// Its lines, piece by piece.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Its lines.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.pieces.iter().flat_map(Piece::lines)
    }
}
