//! Disk space: the limit of the store, what must stay free, and the reserve.
//!
//! Lines are refused when there is too little free space; acks, rotations and opening continue. Each journal has its space
//! allocated when it is made, so the reserve must only suffice to make the next one. It is released in steps, as it is
//! needed, because other programs may take what is released too early.

use crate::disk::Disk;
use crate::error::{Context, Full, Result};
use crate::journal::RESERVED_BYTES;
use crate::manifest::State;
use crate::retained::Retained;

const PATH: &str = "RESERVE";
/// Free bytes that opening needs, and releases the reserve for: a copy of the journal, the next journal, and the end of a
/// segment.
const OPEN_BYTES: u64 = 2 * RESERVED_BYTES + 16 * 1024 * 1024;
/// Free bytes that a running log needs: what acks and dead letters add between two checks.
const RUN_BYTES: u64 = 4 * 1024 * 1024;
/// What of the reserve a running log keeps for the next journal and a long manifest in it.
const JOURNAL_BYTES: u64 = RESERVED_BYTES + 2 * RUN_BYTES;

/// How much disk space a store may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// The most bytes that the store takes; above it lines are refused with [`crate::Error::Full`].
    pub limit_bytes: u64,
    /// Free bytes of the file system below which lines are refused.
    pub min_free_bytes: u64,
    /// Bytes preallocated so that opening, acks and leases work on a full disk; 0 for none.
    pub reserve_bytes: u64,
    /// How long lines stay that every group has settled. If space is needed, they are removed earlier.
    pub keep: Keep,
}

/// How long settled lines stay. Whole segments are removed, the oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// They are removed at once.
    #[default]
    Nothing,
    /// Until the newest line of their segment is this many milliseconds old.
    Age(u64),
    /// While their segments are at most this many bytes.
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

/// The limits, and the reserve that is left.
pub(crate) struct Space {
    options: DiskOptions,
    /// Bytes of the reserve that are allocated; the rest was released.
    held: u64,
}

impl Space {
    /// Finds out how much of the reserve is allocated, and releases what opening needs.
    pub(crate) fn open(disk: &dyn Disk, options: DiskOptions) -> Result<Space> {
        let allocated = reserve(disk)?;
        let mut space = Space { options, held: allocated.unwrap_or(0) };
        if let Some(held) = allocated {
            // If the configured size is smaller than before, the difference is released too.
            let needed = OPEN_BYTES.saturating_sub(free(disk)?);
            space.shrink(disk, held.min(options.reserve_bytes).saturating_sub(needed))?;
        }
        Ok(space)
    }

    /// Changes the limits; the reserve stays as it is.
    pub(crate) fn set_limits(&mut self, limit_bytes: u64, min_free_bytes: u64) {
        self.options = DiskOptions { limit_bytes, min_free_bytes, ..self.options };
    }

    /// Why lines of `bytes` cannot be appended now; `used` is what the store takes so far. The free space that is needed to
    /// allocate the whole reserve again is not available to lines.
    pub(crate) fn refusal(&self, disk: &dyn Disk, used: u64, bytes: u64) -> Result<Option<Full>> {
        let DiskOptions { limit_bytes, min_free_bytes, .. } = self.options;
        if used + bytes > limit_bytes {
            return Ok(Some(Full::Limit { used, limit: limit_bytes }));
        }
        let free = free(disk)?;
        let min_free = min_free_bytes + self.lacking_bytes();
        Ok((free < min_free.saturating_add(bytes)).then_some(Full::MinFree { free, min_free }))
    }

    /// Bytes of the reserve that are allocated.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held
    }

    fn lacking_bytes(&self) -> u64 {
        self.options.reserve_bytes.saturating_sub(self.held)
    }

    /// Releases some of the reserve if acks may need it, but not the part that the next journal needs: other programs could
    /// take it, and then neither a rotation nor opening would succeed.
    pub(crate) fn relieve(&mut self, disk: &dyn Disk) -> Result<()> {
        let spare = self.held.saturating_sub(JOURNAL_BYTES);
        if spare > 0 && free(disk)? < RUN_BYTES { self.release(disk, spare.min(RUN_BYTES)) } else { Ok(()) }
    }

    /// Releases as much of the reserve as is needed to write `bytes`.
    pub(crate) fn release_for(&mut self, disk: &dyn Disk, bytes: u64) -> Result<()> {
        let needed = bytes.saturating_add(RUN_BYTES);
        if self.held > 0 {
            let lacking = needed.saturating_sub(free(disk)?);
            if lacking > 0 {
                return self.release(disk, lacking);
            }
        }
        Ok(())
    }

    /// Releases `bytes` of the reserve, or all that is left.
    pub(crate) fn release(&mut self, disk: &dyn Disk, bytes: u64) -> Result<()> {
        if self.held > 0 {
            let bytes = bytes.min(self.held);
            tracing::warn!(bytes, "the disk is full: released a part of disk.reserve");
            self.shrink(disk, self.held - bytes)?;
        }
        Ok(())
    }

    fn shrink(&mut self, disk: &dyn Disk, to: u64) -> Result<()> {
        if to == 0 {
            disk.remove_file(PATH).during("shrink", PATH)?;
        } else if to < self.held {
            disk.open(PATH, true).and_then(|file| file.set_len(to)).during("shrink", PATH)?;
        }
        self.held = to;
        Ok(())
    }

    /// Allocates again what was released: all of it if lines could still be appended then, otherwise the part that the
    /// next journal needs, from whatever is free, such as the space of a removed journal.
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
            // Other programs took the space; the next call tries again.
            Err(error) if crate::error::is_no_space(&error) => {
                let held = self.held;
                file.set_len(held).during("cut", PATH)?;
                self.shrink(disk, held)?;
            }
            Err(error) => return Err(error).during("extend", PATH),
        }
        Ok(())
    }
}

/// Bytes of the reserve that are allocated on the disk; `None` if there is no reserve.
pub(crate) fn reserve(disk: &dyn Disk) -> Result<Option<u64>> {
    if !disk.exists(PATH).during("look for", PATH)? {
        return Ok(None);
    }
    disk.open(PATH, false).and_then(|file| file.len()).during("open", PATH).map(Some)
}

/// Bytes that a store takes, which its limit bounds: segments, retained lines, the space of two journals, and the reserve.
/// The next journal counts before it is made.
pub(crate) fn used_bytes(state: &State, retained: &Retained, reserve: u64) -> u64 {
    state.segment_bytes() + retained.bytes() + 2 * RESERVED_BYTES + reserve
}

fn free(disk: &dyn Disk) -> Result<u64> {
    disk.free_bytes().during("ask for the free space of", "the data dir")
}
