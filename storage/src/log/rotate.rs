//! The turn from one journal to the next.
//!
//! The next one is made, and segments are synced, beside the owner; the owner itself only writes the manifest and
//! MARK, which is the commit point.

use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use super::{Log, NextJournal};
use crate::commit::Record;
use crate::create::remove_journal;
use crate::disk::{Disk, JournalDb};
use crate::error::{Context, Result, is_no_space};
use crate::journal::{self, Journal};
use crate::manifest::State;
use crate::segment;
use crate::space::Space;
use crate::spare;

/// sled's file may not outgrow what was set aside for it while small commits go in.
const JOURNAL_FILE_BYTES: u64 = journal::RESERVED_BYTES - 4 * 1024 * 1024;
/// How often the making of a journal is tried on a full disk once the reserve was given back.
const PREPARE_TRIES: u32 = 60;
/// More is given back at every so manieth try only.
const GIVE_BACK_EVERY: u32 = PREPARE_TRIES / 3;
/// Between two tries. What was removed is free for others only when the file system's own journal has committed
/// that, which the sync between two tries hastens.
const PREPARE_AGAIN: Duration = Duration::from_millis(50);

/// Makes a journal that must be made, on a full disk in the place of the reserve.
pub(super) fn prepare(
    disk: &dyn Disk,
    space: &mut Space,
    number: u64,
    long_bytes: u64,
) -> Result<Box<dyn JournalDb>> {
    let name = journal::folder(number);
    let mut tries = 1;
    loop {
        match Journal::prepare(disk, number, long_bytes) {
            Err(error) if is_no_space(&error) && tries < PREPARE_TRIES => {
                if tries % GIVE_BACK_EVERY == 1 {
                    space.give_back(disk, journal::RESERVED_BYTES + long_bytes)?;
                }
                disk.sync_dir(journal::FOLDER).during("sync", journal::FOLDER)?;
                std::thread::sleep(PREPARE_AGAIN);
                tries += 1;
            }
            made => return made.during("create", &name),
        }
    }
}

impl Log {
    /// Whether the journal is full for a commit that stores `bytes` more. A commit never spans two journals.
    pub(super) fn must_rotate(&self, bytes: u64) -> bool {
        let journal = &self.journal;
        // With no bytes given this is asked between commits, when rolling is not yet urgent.
        let options = &self.options;
        let slack = if bytes == 0 { 0 } else { options.journal_bytes / 8 };
        journal.commits > 1
            && (journal.stored_bytes + bytes >= options.journal_bytes + slack
                || journal.commits >= options.journal_commits
                || journal.file_bytes().is_ok_and(|bytes| bytes >= JOURNAL_FILE_BYTES + journal.long_bytes()))
    }

    pub(super) fn prepare_next(&mut self) {
        if matches!(self.next_journal, NextJournal::None) {
            let (disk, number) = (Arc::clone(&self.disk), self.journal.number() + 1);
            let long_bytes = self.journal.long_bytes();
            self.next_journal = NextJournal::Preparing(
                self.background.run(move || Journal::prepare(disk.as_ref(), number, long_bytes)),
            );
        }
    }

    pub(super) fn is_next_ready(&mut self) -> Result<bool> {
        self.prepare_next();
        if let NextJournal::Preparing(receiver) = &self.next_journal {
            match receiver.try_recv() {
                Ok(made) => self.next_journal = self.made(made)?,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.next_journal = NextJournal::None,
            }
        }
        Ok(matches!(self.next_journal, NextJournal::Ready(_)))
    }

    /// Takes a journal made ahead; on a full disk it is made again.
    fn made(&mut self, made: std::io::Result<Box<dyn JournalDb>>) -> Result<NextJournal> {
        let number = self.journal.number() + 1;
        match made {
            Ok(db) => Ok(NextJournal::Ready(db)),
            Err(error) if is_no_space(&error) => {
                prepare(self.disk.as_ref(), &mut self.space, number, self.journal.long_bytes())
                    .map(NextJournal::Ready)
            }
            Err(error) => Err(error).during("create", &journal::folder(number)),
        }
    }

    /// Has sealed segments synced beside the owner, so that a roll waits for the newest bytes only.
    pub(super) fn sync_in_background(&mut self) -> Result<()> {
        if let Some((before, receiver)) = &self.settling {
            match receiver.try_recv() {
                Ok(result) => {
                    let before = *before;
                    self.settling = None;
                    result?;
                    self.writer.synced_before(before);
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => self.settling = None,
            }
        }
        // Not after every commit: that would double the syncs that the disk has to do.
        if self.journal.stored_bytes < self.settled_bytes + self.options.journal_bytes / 4 {
            return Ok(());
        }
        self.settled_bytes = self.journal.stored_bytes;
        let unsynced = self.writer.unsynced();
        let Some((newest, _)) = unsynced.last().cloned() else {
            return Ok(());
        };
        let receiver = self.background.run(move || {
            unsynced.iter().try_for_each(|(first, file)| file.sync().during("sync", &segment::path(*first)))
        });
        self.settling = Some((newest, receiver));
        Ok(())
    }

    /// Begins the next journal. MARK, synced, is the commit point; a crash before it starts from the old journal
    /// again, a crash after it from the new one.
    pub(super) fn rotate(&mut self) -> Result<()> {
        // Whatever a sync beside us found, the sync below would not find again.
        if let Some((_, receiver)) = self.settling.take()
            && let Ok(result) = receiver.recv()
        {
            result?;
        }
        self.writer.sync()?;
        self.prepare_next();
        let db = match std::mem::replace(&mut self.next_journal, NextJournal::None) {
            NextJournal::Ready(db) => db,
            NextJournal::Preparing(receiver) => {
                let lost = || Err(std::io::Error::other("the thread that made it ended"));
                match self.made(receiver.recv().unwrap_or_else(|_| lost()))? {
                    NextJournal::Ready(db) => db,
                    _ => unreachable!("made gives a journal or an error"),
                }
            }
            NextJournal::None => unreachable!("one was prepared above"),
        };
        let old = self.journal.number();
        (self.state.journal, self.state.commit) = (old + 1, self.state.commit + 1);
        let (store, commit) = (self.state.store, self.state.commit);
        // Lent to the record instead of copied: it may be megabytes. An error poisons the log, so that nobody
        // looks at the stand-in.
        let manifest = Record::Manifest(Box::new(std::mem::replace(&mut self.state, State::new(store))));
        let next = Journal::begin(self.disk.as_ref(), db, store, old + 1, commit, &manifest)?;
        let Record::Manifest(state) = manifest else { unreachable!("it was made three lines above") };
        self.state = *state;
        self.settled_bytes = 0;
        self.write_mark()?;
        self.mark.sync()?;
        let closed = std::mem::replace(&mut self.journal, next);
        self.keep_spare();
        self.discard_journal(old, Some(closed));
        self.counters.rotations += 1;
        Ok(())
    }

    /// Has a copy of the manifest written beside the owner, before the old journal goes. Nothing rests on it.
    pub(super) fn keep_spare(&self) {
        let Some(bytes) = spare::encode(&self.state) else { return };
        let disk = Arc::clone(&self.disk);
        drop(self.background.run(move || {
            if let Err(error) = spare::write(disk.as_ref(), &bytes) {
                tracing::warn!(%error, "could not keep a copy of the manifest; tried again with the next journal");
            }
        }));
    }

    /// Closes and removes a journal that MARK names no more, beside the owner. What a crash leaves of it is
    /// removed at the next opening.
    pub(super) fn discard_journal(&self, number: u64, open: Option<Journal>) {
        let disk = Arc::clone(&self.disk);
        drop(self.background.run(move || {
            drop(open);
            if let Err(error) = remove_journal(disk.as_ref(), &journal::folder(number)) {
                tracing::warn!(%error, number, "could not remove a journal that is done with; tried again at the next start");
            }
        }));
    }
}
