//! What the targets share: a bound on memory, and choices taken from the input.
//!
//! Both crates forbid `unsafe`, so that there is nothing for a sanitizer of addresses to find in them; what fails here
//! is a property, a panic, a time-out, or this bound.

use std::alloc::System;

use cap::Cap;

pub mod lines;
pub mod store;
pub mod wire;

/// The heap of a run. A parser that trusts a length in its input meets this bound, and ends the process.
const HEAP_BYTES_MAX: usize = 256 << 20;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, HEAP_BYTES_MAX);

/// Takes choices from the front of an input; zeros when it has come to its end.
#[derive(Debug)]
pub struct Choices<'a>(pub &'a [u8]);

impl<'a> Choices<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        let bytes = self.take(4).iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        bytes as usize % end.max(1)
    }

    /// A number below `end`, which is at most 256.
    pub fn few(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The rest, cut into pieces of up to `max` bytes: the first half of what is left says how, the other half is cut.
    pub fn pieces(&mut self, max: usize) -> (&'a [u8], Vec<&'a [u8]>) {
        let mut cuts = Choices(self.take(self.0.len() / 4));
        let bytes = std::mem::take(&mut self.0);
        let (mut pieces, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            let len = if cuts.is_empty() { rest.len() } else { 1 + cuts.few(max) };
            let (piece, more) = rest.split_at(len.min(rest.len()));
            pieces.push(piece);
            rest = more;
        }
        (bytes, pieces)
    }
}
