//! Space on the disk: the store's limit, what must stay free, and the reserve that is given back in need.
//!
//! Lines are refused while there is no room; acks, rolls and opening go on, for which the reserve is there. Each
//! journal has its own room set aside when it is made, so the reserve only has to carry the making of the next. It is
//! given back bit by bit, as it is needed: what is given back too early others take.

use crate::disk::Disk;
use crate::error::{Context, Full, Result};
use crate::journal::RESERVED_BYTES;
use crate::manifest::State;
use crate::retained::Retained;

const PATH: &str = "RESERVE";
/// Opening gives the reserve back below this: a copy of the journal, the next journal, and the end of a segment.
const OPEN_BYTES: u64 = 2 * RESERVED_BYTES + 16 * 1024 * 1024;
/// A running log gives some back below this: what acks and dead letters add between two looks.
const RUN_BYTES: u64 = 4 * 1024 * 1024;
/// What a running log does not give back for anything less: the next journal, and its manifest at some length.
const JOURNAL_BYTES: u64 = RESERVED_BYTES + 2 * RUN_BYTES;

/// How much disk a store may use.
#[derive(Clone, Copy, Debug)]
pub struct DiskOptions {
    /// Bytes that the store takes at most; lines wait when it is reached.
    pub limit_bytes: u64,
    /// Bytes of the file system that lines must leave free.
    pub min_free_bytes: u64,
    /// Bytes set aside for opening, acking and draining on a full disk; 0 for none.
    pub reserve_bytes: u64,
    /// What of the lines that every group has settled stays, until there is no room.
    pub keep: Keep,
}

/// How long settled lines stay. Whole segments go, the oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// They go at once.
    #[default]
    Nothing,
    /// Until the newest line of their segment is so many milliseconds old.
    Age(u64),
    /// While their segments take so many bytes at most.
    Bytes(u64),
}

impl Default for DiskOptions {
    fn default() -> DiskOptions {
        DiskOptions {
            limit_bytes: 50 << 30,
            min_free_bytes: 256 << 20,
            reserve_bytes: 64 << 20,
            keep: Keep::Nothing,
        }
    }
}

/// Keeps to them.
pub(crate) struct Space {
    options: DiskOptions,
    /// Bytes of the reserve that are set aside; the rest was given back.
    held: u64,
}

impl Space {
    /// Looks how much of the reserve is there, and gives back at once what opening needs.
    pub(crate) fn open(disk: &dyn Disk, options: DiskOptions) -> Result<Space> {
        let there = reserve(disk)?;
        let mut space = Space { options, held: there.unwrap_or(0) };
        if let Some(held) = there {
            // Of a reserve that was larger the rest goes.
            let needed = OPEN_BYTES.saturating_sub(free(disk)?);
            space.shrink(disk, held.min(options.reserve_bytes).saturating_sub(needed))?;
        }
        Ok(space)
    }

    /// Other limits from now on; the reserve stays as it is.
    pub(crate) fn set_limits(&mut self, limit_bytes: u64, min_free_bytes: u64) {
        self.options = DiskOptions { limit_bytes, min_free_bytes, ..self.options };
    }

    /// Why lines of `bytes` cannot be taken in now; `used` is what the store takes so far. Space for what of the
    /// reserve was given back is not for lines.
    pub(crate) fn refusal(&self, disk: &dyn Disk, used: u64, bytes: u64) -> Result<Option<Full>> {
        let DiskOptions { limit_bytes, min_free_bytes, .. } = self.options;
        if used + bytes > limit_bytes {
            return Ok(Some(Full::Limit { used, limit: limit_bytes }));
        }
        let free = free(disk)?;
        let min_free = min_free_bytes + self.lacking_bytes();
        Ok((free < min_free.saturating_add(bytes)).then_some(Full::MinFree { free, min_free }))
    }

    /// Bytes of the reserve that are held.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held
    }

    fn lacking_bytes(&self) -> u64 {
        self.options.reserve_bytes.saturating_sub(self.held)
    }

    /// Gives some of the reserve back where a running log has less room left than acks take, and never what making
    /// a journal takes: others may be faster, and without that neither a roll nor an opening goes through.
    pub(crate) fn relieve(&mut self, disk: &dyn Disk) -> Result<()> {
        let spare = self.held.saturating_sub(JOURNAL_BYTES);
        if spare > 0 && free(disk)? < RUN_BYTES { self.give_back(disk, spare.min(RUN_BYTES)) } else { Ok(()) }
    }

    /// Gives so much of the reserve back that `bytes` can be written which must not fail for lack of room.
    pub(crate) fn make(&mut self, disk: &dyn Disk, bytes: u64) -> Result<()> {
        let needed = bytes.saturating_add(RUN_BYTES);
        if self.held > 0 {
            let lacking = needed.saturating_sub(free(disk)?);
            if lacking > 0 {
                return self.give_back(disk, lacking);
            }
        }
        Ok(())
    }

    /// Gives `bytes` of the reserve back, or what there is, because something that must not fail needs the room.
    pub(crate) fn give_back(&mut self, disk: &dyn Disk, bytes: u64) -> Result<()> {
        if self.held > 0 {
            let bytes = bytes.min(self.held);
            tracing::warn!(bytes, "the disk is full: some of the reserve is given back");
            self.shrink(disk, self.held - bytes)?;
        }
        Ok(())
    }

    fn shrink(&mut self, disk: &dyn Disk, to: u64) -> Result<()> {
        if to == 0 {
            disk.remove_file(PATH).during("give back", PATH)?;
        } else if to < self.held {
            disk.open(PATH, true).and_then(|file| file.set_len(to)).during("give back", PATH)?;
        }
        self.held = to;
        Ok(())
    }

    /// Sets aside again what was given back: all of it once lines would be taken in with it, and before that what
    /// making a journal takes, of any room that there is, such as that of a journal that was removed.
    pub(crate) fn restore(&mut self, disk: &dyn Disk) -> Result<()> {
        let lacking = self.lacking_bytes();
        if lacking == 0 {
            return Ok(());
        }
        let free = free(disk)?;
        let more = if free >= lacking.saturating_add(self.options.min_free_bytes) {
            lacking
        } else {
            lacking.min(JOURNAL_BYTES.saturating_sub(self.held)).min(free)
        };
        if more == 0 {
            return Ok(());
        }
        let file =
            if self.held > 0 { disk.open(PATH, true) } else { disk.create(PATH) }.during("open", PATH)?;
        match file.allocate(self.held + more) {
            Ok(()) => self.held += more,
            // Others were faster; tried again later.
            Err(error) if crate::error::is_no_space(&error) => {
                let held = self.held;
                file.set_len(held).during("cut", PATH)?;
                self.shrink(disk, held)?;
            }
            Err(error) => return Err(error).during("set aside", PATH),
        }
        Ok(())
    }
}

/// Bytes of the reserve that are set aside on the disk; `None` where it is not there.
pub(crate) fn reserve(disk: &dyn Disk) -> Result<Option<u64>> {
    if !disk.exists(PATH).during("look for", PATH)? {
        return Ok(None);
    }
    disk.open(PATH, false).and_then(|file| file.len()).during("open", PATH).map(Some)
}

/// Bytes that a store takes, which its limit bounds: segments, retained lines, the space of two journals, and the reserve.
/// Two journals count whether or not the next one is made yet: it is always about to be.
pub(crate) fn used_bytes(state: &State, retained: &Retained, reserve: u64) -> u64 {
    state.segment_bytes() + retained.bytes() + 2 * RESERVED_BYTES + reserve
}

fn free(disk: &dyn Disk) -> Result<u64> {
    disk.free_bytes().during("ask for the free space of", "the data dir")
}
