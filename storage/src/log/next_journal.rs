//! The journal after the current one, made ahead of its use in the background.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use crate::background::Background;
use crate::disk::{Disk, JournalDb};
use crate::error::{Context, Result, is_no_space};
use crate::journal::{self, Journal};
use crate::space::Space;

/// How often it is tried to make a journal on a full disk after the reserve was released.
const TRIES: u32 = 60;
/// More of the reserve is released at every twentieth try.
const GIVE_BACK_EVERY: u32 = TRIES / 3;
/// Between two tries. Released space can be allocated after the journal of the file system has committed the release,
/// which the sync between two tries speeds up.
const TRY_AGAIN: Duration = Duration::from_millis(50);

type Made = io::Result<Box<dyn JournalDb>>;

#[derive(Default)]
pub(super) struct NextJournal {
    coming: Option<Receiver<Made>>,
    ready: Option<Box<dyn JournalDb>>,
}

/// Which journal comes next.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) number: u64,
    /// As [`Journal::long_bytes`].
    pub(super) long_bytes: u64,
}

impl NextJournal {
    /// Makes it in the background, unless that has begun.
    pub(super) fn start(&mut self, plan: Plan, disk: &Arc<dyn Disk>, background: &Background) {
        if self.ready.is_none() && self.coming.is_none() {
            let disk = Arc::clone(disk);
            let make = move || Journal::prepare(disk.as_ref(), plan.number, plan.long_bytes);
            self.coming = Some(background.run(make));
        }
    }

    /// Whether it is made, without waiting.
    pub(super) fn is_ready(&mut self, plan: Plan, disk: &dyn Disk, space: &mut Space) -> Result<bool> {
        if let Some(coming) = &self.coming {
            match coming.try_recv() {
                Ok(made) => self.ready = Some(plan.made(made, disk, space)?),
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => {}
            }
            self.coming = None;
        }
        Ok(self.ready.is_some())
    }

    /// Takes it, waiting for it if necessary.
    pub(super) fn take(
        &mut self,
        plan: Plan,
        disk: &Arc<dyn Disk>,
        background: &Background,
        space: &mut Space,
    ) -> Result<Box<dyn JournalDb>> {
        self.start(plan, disk, background);
        if let Some(db) = self.ready.take() {
            return Ok(db);
        }
        let made = self.coming.take().and_then(|coming| coming.recv().ok());
        let made = made.unwrap_or_else(|| Err(io::Error::other("the thread that made it ended")));
        plan.made(made, disk.as_ref(), space)
    }
}

impl Plan {
    /// What the background made. If the disk was full, it is made again.
    fn made(self, made: Made, disk: &dyn Disk, space: &mut Space) -> Result<Box<dyn JournalDb>> {
        match made {
            Err(error) if is_no_space(&error) => self.make(disk, space),
            made => made.during("create", &journal::folder(self.number)),
        }
    }

    /// Makes the journal, on a full disk in the space of the reserve.
    pub(super) fn make(self, disk: &dyn Disk, space: &mut Space) -> Result<Box<dyn JournalDb>> {
        let mut tries = 1;
        loop {
            match Journal::prepare(disk, self.number, self.long_bytes) {
                Err(error) if is_no_space(&error) && tries < TRIES => {
                    if tries % GIVE_BACK_EVERY == 1 {
                        space.release(disk, journal::RESERVED_BYTES + self.long_bytes)?;
                    }
                    disk.sync_dir(journal::FOLDER).during("sync", journal::FOLDER)?;
                    std::thread::sleep(TRY_AGAIN);
                    tries += 1;
                }
                made => return made.during("create", &journal::folder(self.number)),
            }
        }
    }
}
