//! Whether a source's file is where it was, as far as scans found out.

/// Where the file of a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// At its path. `scan` found it there last, or has yet to look for it: 0 until the first scan of a run.
    Here { scan: u32 },
    /// One scan has not found it. That proves nothing: a rename during the walk hides a file from one scan.
    Missing { since_ms: u64 },
    /// Two scans in a row have not found it.
    Gone { since_ms: u64 },
    /// Its file has another content. The next scan after `scan` looks for the old content in copies; a source whose
    /// content is in none ends. `searched_since_ms`: since when copies are searched, once that began.
    Replaced { scan: u32, searched_since_ms: Option<u64> },
    /// No follow names it: it is not read, and not looked for. Its checkpoint stays in the log.
    Inactive,
}

impl Presence {
    /// Whether this scan found the file where it was.
    pub(crate) fn is_found_by(self, scan: u32) -> bool {
        self == Presence::Here { scan }
    }

    pub(crate) fn is_replaced(self) -> bool {
        matches!(self, Presence::Replaced { .. })
    }

    pub(crate) fn is_missing_once(self) -> bool {
        matches!(self, Presence::Missing { .. })
    }

    pub(crate) fn is_gone(self) -> bool {
        matches!(self, Presence::Gone { .. })
    }

    /// Since when no scan has found the file.
    pub(crate) fn missing_since_ms(self) -> Option<u64> {
        match self {
            Presence::Missing { since_ms } | Presence::Gone { since_ms } => Some(since_ms),
            _ => None,
        }
    }

    /// A scan did not find the file.
    pub(crate) fn missed(self, now_ms: u64) -> Presence {
        match self {
            Presence::Here { .. } => Presence::Missing { since_ms: now_ms },
            Presence::Missing { since_ms } => Presence::Gone { since_ms },
            other => other,
        }
    }
}
