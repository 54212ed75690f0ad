//! What is known of the file of a compressed source. Pure.

use bincode::{Decode, Encode};
use spillq_storage::SourceId;

use crate::tail::clock::Now;

/// A compressed file as it lies there. Behind its content gzip writes the sum of it and zstd may, so two that agree here
/// and in their first bytes have the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Form {
    /// Its length in bytes.
    pub(crate) size: u64,
    /// CRC of its last [`RESUME_POINT_BYTES`].
    pub(crate) end: u32,
}

/// What a compressed file decompresses to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Whole {
    pub(crate) size: u64,
    pub(crate) crc: u32,
    /// CRC of its last bytes, as of a resume point there.
    pub(crate) end: u32,
}

/// What is known of the file of a compressed source.
#[derive(Clone, Debug)]
pub(crate) struct Compressed {
    pub(crate) form: Form,
    pub(crate) state: State,
    /// Since when it waits to be checked.
    pub(crate) since_ms: u64,
    /// Its length and time as last looked at, and since when they are that.
    rest: (u64, i64),
    rest_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Unchecked,
    /// Incomplete, damaged or unreadable as it is: checked again when it has changed, or even unchanged, but not before.
    Bad {
        not_before_ms: u64,
        even_unchanged: bool,
        /// A scan saw it changed since.
        changed: bool,
    },
    /// It has what is in the file of another source, which is still there.
    Duplicate {
        of: SourceId,
        whole: Whole,
    },
    /// Checked, and a source of its own.
    Whole(Whole),
}

impl Compressed {
    pub(crate) fn unchecked(form: Form, since_ms: u64) -> Box<Compressed> {
        Compressed::new(form, State::Unchecked, since_ms)
    }

    pub(crate) fn new(form: Form, state: State, since_ms: u64) -> Box<Compressed> {
        Box::new(Compressed { form, state, since_ms, rest: (0, 0), rest_ms: since_ms })
    }

    /// For how long it has not changed while we looked. The time of its last change is of another clock: that of a server
    /// may be ahead of ours, or behind.
    pub(crate) fn quiet_ms(&mut self, size: u64, mtime_ns: i64, now: Now) -> u64 {
        if self.rest != (size, mtime_ns) {
            (self.rest, self.rest_ms) = ((size, mtime_ns), now.boot_ms);
        }
        now.boot_ms.saturating_sub(self.rest_ms)
    }

    /// It has another length or time than it was checked with.
    pub(crate) fn note_change(&mut self) {
        if let State::Bad { changed, .. } = &mut self.state {
            *changed = true;
        }
    }

    /// As it was found.
    pub(crate) fn found(form: Form, mtime_ns: i64, now_ms: u64) -> Box<Compressed> {
        Box::new(Compressed { rest: (form.size, mtime_ns), ..*Compressed::unchecked(form, now_ms) })
    }

    /// Who it is will be found out, and is not known yet.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Unchecked | State::Bad { changed: true, .. })
    }

    /// What it decompresses to, where it is a source of its own.
    pub(crate) fn whole(&self) -> Option<Whole> {
        match self.state {
            State::Whole(whole) => Some(whole),
            _ => None,
        }
    }
}
