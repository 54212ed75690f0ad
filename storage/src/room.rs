//! Room on the disk: the store's limit, what must stay free, and the reserve that is given back in need.
//!
//! Lines are refused while there is no room; acks, rolls and opening go on, for which the reserve is there. Each
//! journal has its own room set aside when it is made, so the reserve only has to carry the making of the next.

use crate::disk::Disk;
use crate::error::{Context, Full, Result};
use crate::journal::RESERVED_BYTES;

const PATH: &str = "RESERVE";
/// Opening gives the reserve back below this: a copy of the journal, the next journal, and the end of a segment.
const OPEN_BYTES: u64 = 2 * RESERVED_BYTES + 16 * 1024 * 1024;
/// A running log gives it back below this: what acks and dead letters add between two looks.
const RUN_BYTES: u64 = 4 * 1024 * 1024;

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
pub(crate) struct Room {
    options: DiskOptions,
    held: bool,
}

impl Room {
    /// Looks whether the reserve is there, and gives it back at once where opening needs it.
    pub(crate) fn open(disk: &dyn Disk, options: DiskOptions) -> Result<Room> {
        let there = disk.exists(PATH).during("look for", PATH)?;
        let bytes =
            if there { disk.open(PATH, false).and_then(|file| file.len()).during("open", PATH)? } else { 0 };
        let mut room = Room { options, held: bytes > 0 && bytes == options.reserve_bytes };
        if there && (!room.held || free(disk)? < OPEN_BYTES) {
            room.give_back(disk)?;
        }
        Ok(room)
    }

    /// Other limits from now on; the reserve stays as it is.
    pub(crate) fn set_limits(&mut self, limit_bytes: u64, min_free_bytes: u64) {
        self.options = DiskOptions { limit_bytes, min_free_bytes, ..self.options };
    }

    /// Why lines of `bytes` cannot be taken in now; `used` is what the store takes so far. Room for a reserve that
    /// was given back is not for lines.
    pub(crate) fn refusal(&self, disk: &dyn Disk, used: u64, bytes: u64) -> Result<Option<Full>> {
        let DiskOptions { limit_bytes, min_free_bytes, reserve_bytes, .. } = self.options;
        if used + bytes > limit_bytes {
            return Ok(Some(Full::Limit { used, limit: limit_bytes }));
        }
        let free = free(disk)?;
        let min_free = min_free_bytes + reserve_bytes - self.held_bytes();
        Ok((free < min_free.saturating_add(bytes)).then_some(Full::MinFree { free, min_free }))
    }

    /// Bytes of the reserve that are held.
    pub(crate) fn held_bytes(&self) -> u64 {
        if self.held { self.options.reserve_bytes } else { 0 }
    }

    /// Gives the reserve back where a running log has too little room left.
    pub(crate) fn relieve(&mut self, disk: &dyn Disk) -> Result<()> {
        if self.held && free(disk)? < RUN_BYTES { self.give_back(disk) } else { Ok(()) }
    }

    /// Gives the reserve back, because something that must not fail did for lack of room.
    pub(crate) fn give_back(&mut self, disk: &dyn Disk) -> Result<()> {
        if self.held {
            tracing::warn!(bytes = self.options.reserve_bytes, "the disk is full: the reserve is given back");
        }
        self.held = false;
        disk.remove_file(PATH).during("give back", PATH)
    }

    /// Sets the reserve aside again once lines would be taken in with it.
    pub(crate) fn restore(&mut self, disk: &dyn Disk) -> Result<()> {
        let bytes = self.options.reserve_bytes;
        if self.held || bytes == 0 || free(disk)? < bytes.saturating_add(self.options.min_free_bytes) {
            return Ok(());
        }
        let file = disk.create(PATH).during("create", PATH)?;
        match file.allocate(bytes) {
            Ok(()) => self.held = true,
            // Others were faster; tried again later.
            Err(error) if crate::error::is_no_space(&error) => {
                disk.remove_file(PATH).during("remove", PATH)?
            }
            Err(error) => return Err(error).during("set aside", PATH),
        }
        Ok(())
    }
}

fn free(disk: &dyn Disk) -> Result<u64> {
    disk.free_bytes().during("ask for the free space of", "the data dir")
}
