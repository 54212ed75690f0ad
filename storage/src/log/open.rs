//! Opening: the order of its steps is what makes a crash in any of them harmless (docs/explanation/design.md).

use std::path::Path;
use std::sync::Arc;

use super::next_journal::{NextJournal, Plan};
use super::staged::Segments;
use super::{Counters, Log, Options};
use crate::background::Background;
use crate::create::{create, refuse_absent, refuse_foreign, remove_other_journals};
use crate::disk::Disk;
use crate::disk::real::RealDisk;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Context, Result};
use crate::journal::{self, Journal};
use crate::lock::Lock;
use crate::manifest::State;
use crate::mark::{Mark, MarkFile};
use crate::private;
use crate::quarantine::Quarantined;
use crate::recover::{self, CREATING, Store};
use crate::retained::Retained;
use crate::segment::Index;
use crate::space::Space;

impl Log {
    /// Opens the store in `dir`, after a clean stop or a crash, or creates one.
    ///
    /// # Errors
    /// The folder is as it was after [`Error::InUse`], [`Error::NotAStore`], [`Error::OfAnotherUser`],
    /// [`Error::OpenToOthers`], [`Error::Version`] and [`Error::Damaged`]. Otherwise [`Error::Io`].
    pub fn open_or_create(dir: &Path, options: Options) -> Result<Log> {
        let disk = Arc::new(RealDisk::new(dir));
        disk.make_folder("").during("create", &dir.to_string_lossy())?;
        refuse_foreign(dir)?;
        private::ensure(dir)?;
        let lock = Lock::take(dir, true)?;
        Log::on_disk(disk, options, Some(lock)).map_err(|error| error.under(dir))
    }

    /// Opens the store in `dir`, which must exist.
    ///
    /// # Errors
    /// As [`Log::open_or_create`], and [`Error::Missing`].
    pub fn open(dir: &Path, options: Options) -> Result<Log> {
        refuse_absent(dir)?;
        Log::open_or_create(dir, options)
    }

    pub(crate) fn on_disk(disk: Arc<dyn Disk>, options: Options, lock: Option<Lock>) -> Result<Log> {
        let mut space = Space::open(disk.as_ref(), options.disk)?;
        MarkFile::settle(disk.as_ref())?;
        let (state, old_journal, findings) = match recover::read(disk.as_ref())? {
            Store::Absent => (create(disk.as_ref())?, None, Vec::new()),
            Store::Recovered(mut recovered) => {
                remove_other_journals(disk.as_ref(), recovered.journal)?;
                recovered.restore_segments(disk.as_ref())?;
                // Left by a crash right after MARK got its name.
                if disk.exists(CREATING).during("look for", CREATING)? {
                    disk.remove_file(CREATING).during("remove", CREATING)?;
                    disk.sync_dir("").during("sync", "the data dir")?;
                }
                (recovered.state, Some(recovered.journal), recovered.findings)
            }
        };
        let background =
            Background::new(disk.as_ref(), "spillq-journals").during("start a thread for", "the log")?;
        let index = Arc::new(Index::default());
        let retained = Retained::open(Arc::clone(&disk), Arc::clone(&index), &state, true)?;
        let mut state = state;
        state.begin_run();
        let number = old_journal.map_or(1, |old| old + 1);
        (state.journal, state.commit) = (number, state.commit + 1);
        let db = Plan { number, long_bytes: 0 }.make(disk.as_ref(), &mut space)?;
        let journal = Journal::begin(disk.as_ref(), db, &state)?;
        let State { store, commit, next_seq, .. } = state;
        let mark = Mark { store, journal: number, commit, next_seq };
        let mark_file = match old_journal {
            Some(old) => {
                if cfg!(feature = "fault-removal-first") {
                    disk.remove_folder(&journal::folder(old)).during("remove", journal::FOLDER)?;
                }
                let file = MarkFile::open(disk.as_ref())?;
                file.write(mark)?;
                file.sync()?;
                file
            }
            None => {
                let file = MarkFile::create(disk.as_ref(), mark)?;
                disk.remove_file(CREATING).during("remove", CREATING)?;
                disk.sync_dir("").during("sync", "the data dir")?;
                file
            }
        };
        let mut findings = findings;
        findings.extend(retained.findings.iter().cloned());
        let mut log = Log {
            quarantined: Quarantined::count(disk.as_ref()),
            segments: Segments::open(&disk, state.segments.back())?,
            disk,
            options,
            state,
            journal,
            mark: mark_file,
            index,
            retained,
            space,
            next_journal: NextJournal::default(),
            stuck: None,
            begun: None,
            counters: Counters::default(),
            findings,
            poisoned: None,
            removal_held: false,
            background,
            _lock: lock,
        };
        log.publish();
        log.keep_spare();
        if let Some(old) = old_journal {
            log.discard_journal(old, None);
        }
        log.space.restore(log.disk.as_ref())?;
        Ok(log)
    }
}
