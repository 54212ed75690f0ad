//! Rotation: the change from one journal to the next.
//!
//! The background thread makes the next journal and syncs sealed segments. A rotation itself syncs the newest segment, and
//! writes the manifest and MARK, which is the commit point.

use std::sync::Arc;

use super::Log;
use super::next_journal::Plan;
use crate::create::remove_journal;
use crate::error::Result;
use crate::journal::{self, Journal};
use crate::spare;

/// sled's file must not outgrow what was preallocated for it, however small the commits are.
const JOURNAL_FILE_BYTES: u64 = journal::RESERVED_BYTES - 4 * 1024 * 1024;

impl Log {
    /// Whether the journal is full for a commit that stores `bytes` more in it: a commit is in one journal. Between commits,
    /// with `None`, it is full earlier.
    pub(super) fn must_rotate(&self, bytes: Option<u64>) -> bool {
        let journal = &self.journal;
        let options = &self.options;
        let slack = if bytes.is_none() { 0 } else { options.journal_bytes / 8 };
        journal.commits > 1
            && (journal.stored_bytes + bytes.unwrap_or(0) >= options.journal_bytes + slack
                || journal.commits >= options.journal_commits
                || journal.file_bytes().is_ok_and(|bytes| bytes >= JOURNAL_FILE_BYTES + journal.long_bytes()))
    }

    fn next_plan(&self) -> Plan {
        Plan { number: self.journal.number() + 1, long_bytes: self.journal.long_bytes() }
    }

    pub(super) fn prepare_next(&mut self) {
        self.next_journal.start(self.next_plan(), &self.disk, &self.background);
    }

    pub(super) fn is_next_ready(&mut self) -> Result<bool> {
        self.prepare_next();
        self.next_journal.is_ready(self.next_plan(), self.disk.as_ref(), &mut self.space)
    }

    /// Begins the next journal. The commit point is the sync of MARK: after a crash before it the old journal counts, after
    /// it the new one.
    pub(super) fn rotate(&mut self) -> Result<()> {
        self.sync_segments()?;
        let plan = self.next_plan();
        let db = self.next_journal.take(plan, &self.disk, &self.background, &mut self.space)?;
        let old = self.journal.number();
        (self.state.journal, self.state.commit) = (plan.number, self.state.commit + 1);
        let next = Journal::begin(self.disk.as_ref(), db, &self.state)?;
        self.write_mark()?;
        self.mark.sync()?;
        let closed = std::mem::replace(&mut self.journal, next);
        self.keep_spare();
        self.discard_journal(old, Some(closed));
        self.counters.rotations += 1;
        Ok(())
    }

    /// Writes SPARE in the background, before the old journal is removed. The store does not depend on it.
    pub(super) fn keep_spare(&self) {
        let Some(bytes) = spare::encode(&self.state) else { return };
        let disk = Arc::clone(&self.disk);
        drop(self.background.run(move || {
            if let Err(error) = spare::write(disk.as_ref(), &bytes) {
                tracing::warn!(%error, "could not write SPARE, the copy of the manifest; the next rotation tries again");
            }
        }));
    }

    /// Closes and removes a journal that MARK does not name any more, in the background. If a crash prevents that, the next
    /// opening removes it.
    pub(super) fn discard_journal(&self, number: u64, open: Option<Journal>) {
        let disk = Arc::clone(&self.disk);
        drop(self.background.run(move || {
            drop(open);
            if let Err(error) = remove_journal(disk.as_ref(), &journal::folder(number)) {
                tracing::warn!(%error, number, "could not remove an old journal; the next start tries again");
            }
        }));
    }
}
