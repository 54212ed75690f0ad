//! What is known of the compressed file of a source. Pure.

use bincode::{Decode, Encode};
use spillq_storage::SourceId;

use crate::tail::clock::Now;

/// A compressed file as it is on disk. gzip writes a checksum behind its content, and zstd may: two files that agree here
/// and in their first bytes have the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Form {
    /// Its length.
    pub(crate) size: u64,
    /// CRC of its last [`RESUME_POINT_BYTES`].
    pub(crate) end: u32,
}

/// The content of a compressed file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Whole {
    pub(crate) size: u64,
    pub(crate) crc: u32,
    /// CRC of its last bytes, as of a resume point there.
    pub(crate) end: u32,
}

/// The compressed file of a source.
#[derive(Clone, Debug)]
pub(crate) struct Compressed {
    pub(crate) form: Form,
    pub(crate) state: State,
    /// Since when it waits to be checked.
    pub(crate) since_ms: u64,
    /// Its length and time as last looked at, and since when it has them.
    last_seen: (u64, i64),
    last_seen_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Unchecked,
    /// Incomplete, damaged or unreadable. Checked again after `not_before_ms`, if it has changed or `even_unchanged` is set.
    Bad {
        not_before_ms: u64,
        even_unchanged: bool,
        /// A scan found it changed since.
        changed: bool,
    },
    /// Its content is in the file of another source, which is still there.
    Duplicate {
        of: SourceId,
        whole: Whole,
    },
    /// Checked, and not a duplicate.
    Whole(Whole),
}

impl Compressed {
    pub(crate) fn new(form: Form, state: State, since_ms: u64) -> Box<Compressed> {
        Box::new(Compressed { form, state, since_ms, last_seen: (0, 0), last_seen_ms: since_ms })
    }

    /// For how long it has not changed, by our clock. The time of its last change is of another clock: that of a server may be
    /// ahead of ours, or behind.
    pub(crate) fn quiet_ms(&mut self, size: u64, mtime_ns: i64, now: Now) -> u64 {
        if self.last_seen != (size, mtime_ns) {
            (self.last_seen, self.last_seen_ms) = ((size, mtime_ns), now.boot_ms);
        }
        now.boot_ms.saturating_sub(self.last_seen_ms)
    }

    /// As a scan found it.
    pub(crate) fn found(form: Form, mtime_ns: i64, now_ms: u64) -> Box<Compressed> {
        Box::new(Compressed {
            last_seen: (form.size, mtime_ns),
            ..*Compressed::new(form, State::Unchecked, now_ms)
        })
    }

    /// Which source it is, a check will find out.
    pub(crate) fn is_to_be_checked(&self) -> bool {
        matches!(self.state, State::Unchecked | State::Bad { changed: true, .. })
    }

    /// Its content, if it is checked and not a duplicate.
    pub(crate) fn whole(&self) -> Option<Whole> {
        match self.state {
            State::Whole(whole) => Some(whole),
            _ => None,
        }
    }
}
