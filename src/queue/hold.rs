//! The hold of a backup: while it copies files, none is removed. Pure: `now` is an argument.

use std::time::Duration;

/// How long a hold lasts without being renewed: a copy that died does not keep files for ever.
const LASTS: Duration = Duration::from_secs(60);

/// At most one hold at a time.
#[derive(Debug, Default)]
pub(super) struct Hold {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    token: u64,
    until_ms: u64,
}

impl Hold {
    /// Whether files are held.
    pub(super) fn is_active(&self) -> bool {
        self.current.is_some()
    }

    /// Begins a hold, unless there is one.
    pub(super) fn begin(&mut self, token: u64, now_ms: u64) -> bool {
        let is_free = self.current.is_none();
        if is_free {
            self.current = Some(Current { token, until_ms: until(now_ms) });
        }
        is_free
    }

    /// Renews the hold of `token`, if it is still active.
    pub(super) fn renew(&mut self, token: u64, now_ms: u64) -> bool {
        match &mut self.current {
            Some(current) if current.token == token => {
                current.until_ms = until(now_ms);
                true
            }
            _ => false,
        }
    }

    /// Ends the hold of `token`. Returns whether it was active.
    pub(super) fn end(&mut self, token: u64) -> bool {
        self.current.take_if(|current| current.token == token).is_some()
    }

    /// Ends a hold that was not renewed in time. Returns whether there was one.
    pub(super) fn expire(&mut self, now_ms: u64) -> bool {
        self.current.take_if(|current| current.until_ms <= now_ms).is_some()
    }
}

fn until(now_ms: u64) -> u64 {
    now_ms + LASTS.as_millis() as u64
}
