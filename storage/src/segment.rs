//! Segment files: blocks one after the other. A file is named by its first seq and removed as a whole.
//!
//! The blocks of a large commit are synced before the journal references them. Those of a small one are not: until the next
//! rotation the journal has the same bytes, and opening restores what a crash lost. At every opening the newest file is cut
//! to what is durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Error, Full, Result, is_no_space};
use crate::ids::Seq;
use crate::manifest::SegmentMeta;

pub(crate) const FOLDER: &str = "segments";

/// The path of the segment that begins with `first`.
pub(crate) fn path(first: Seq) -> String {
    format!("{FOLDER}/{:020}", first.0)
}

/// The first seq of a segment file's name.
pub(crate) fn first_of(name: &str) -> Option<Seq> {
    (name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| name.parse().ok().map(Seq))?
}

/// A block that is to be written.
#[derive(Debug)]
pub(crate) struct Write {
    /// The segment, which is created unless it is the newest.
    pub(crate) segment: Seq,
    /// Where in it.
    pub(crate) at: u64,
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Bytes,
}

/// Appends to the newest segment.
pub(crate) struct SegmentWriter {
    disk: Arc<dyn Disk>,
    current: Option<(Seq, Arc<dyn DiskFile>)>,
    /// Files with bytes that are not synced yet.
    unsynced: Vec<(Seq, Arc<dyn DiskFile>)>,
    /// The folder has new names that are not synced yet.
    folder_unsynced: bool,
    /// Why nothing is written any more. The kernel reports a failed write-back to one sync only: whoever gets that error
    /// has to refuse all others.
    failed: Option<Failed>,
}

enum Failed {
    /// Until [`SegmentWriter::cut`].
    NoSpace,
    ForGood(String),
}

impl SegmentWriter {
    /// Continues the newest segment.
    pub(crate) fn open(disk: Arc<dyn Disk>, newest: Option<&SegmentMeta>) -> Result<SegmentWriter> {
        let mut writer =
            SegmentWriter { disk, current: None, unsynced: Vec::new(), folder_unsynced: false, failed: None };
        writer.reopen(newest)?;
        Ok(writer)
    }

    fn reopen(&mut self, newest: Option<&SegmentMeta>) -> Result<()> {
        self.current = None;
        if let Some(newest) = newest {
            let name = path(newest.first);
            let file: Arc<dyn DiskFile> = self.disk.open(&name, true).during("open", &name)?.into();
            self.current = Some((newest.first, file));
        }
        Ok(())
    }

    /// Writes blocks without a sync.
    ///
    /// # Errors
    /// [`Error::Full`] if the disk is full: [`SegmentWriter::cut`] then removes what was written. Until then, and after any
    /// other error, nothing is written any more.
    pub(crate) fn write(&mut self, blocks: &[Write]) -> Result<()> {
        self.refuse_failed()?;
        let written = blocks.iter().try_for_each(|block| self.write_one(block));
        written.inspect_err(|error| self.fail(error))
    }

    /// Writes blocks, and makes them and the names of their files durable.
    ///
    /// # Errors
    /// As [`SegmentWriter::write`].
    pub(crate) fn write_durably(&mut self, blocks: &[Write]) -> Result<()> {
        self.write(blocks)?;
        if cfg!(feature = "fault-no-segment-sync") {
            return Ok(());
        }
        let first = blocks.first().map_or(Seq(0), |block| block.segment);
        self.sync_from(first).inspect_err(|error| self.fail(error))
    }

    fn write_one(&mut self, block: &Write) -> Result<()> {
        let Write { segment, at, header, payload } = block;
        let name = path(*segment);
        let full_or = |error: std::io::Error, attempted| {
            if is_no_space(&error) {
                Err(Error::Full(Full::NoSpace))
            } else {
                Err(error).during(attempted, &name)
            }
        };
        if self.current.as_ref().is_none_or(|(current, _)| current != segment) {
            match self.disk.create(&name) {
                Ok(file) => self.current = Some((*segment, file.into())),
                Err(error) => return full_or(error, "create"),
            }
            self.folder_unsynced = true;
        }
        let Some((_, file)) = &self.current else {
            return Ok(());
        };
        if self.unsynced.last().is_none_or(|(last, _)| last != segment) {
            self.unsynced.push((*segment, Arc::clone(file)));
        }
        let written =
            file.write_at(header, *at).and_then(|()| file.write_at(payload, at + header.len() as u64));
        written.or_else(|error| full_or(error, "write to"))
    }

    /// Records that nothing may be relied on any more.
    pub(crate) fn fail(&mut self, error: &Error) {
        match error {
            Error::Full(_) => self.failed = Some(Failed::NoSpace),
            error => self.failed = Some(Failed::ForGood(error.to_string())),
        }
    }

    fn refuse_failed(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(Failed::NoSpace) => Err(Error::Full(Full::NoSpace)),
            Some(Failed::ForGood(why)) => Err(Error::Poisoned(why.clone())),
        }
    }

    /// Undoes writes that did not become a commit: the newest segment is `meta` again.
    pub(crate) fn cut(&mut self, meta: Option<&SegmentMeta>) -> Result<()> {
        let newest = meta.map_or(Seq(0), |meta| meta.first);
        for name in self.disk.list(FOLDER).during("list", FOLDER)? {
            if first_of(&name).is_some_and(|first| first > newest) {
                let name = format!("{FOLDER}/{name}");
                self.disk.remove_file(&name).during("remove", &name)?;
            }
        }
        self.unsynced.retain(|(unsynced, _)| *unsynced <= newest);
        if self.current.as_ref().is_some_and(|(first, _)| *first > newest) {
            self.reopen(meta)?;
        }
        if let (Some((first, file)), Some(meta)) = (&self.current, meta) {
            file.set_len(meta.bytes).during("cut", &path(*first))?;
        }
        if let Some(Failed::NoSpace) = self.failed {
            self.failed = None;
        }
        Ok(())
    }

    /// Files that are to be synced by the caller, who then calls [`SegmentWriter::synced_before`].
    pub(crate) fn unsynced(&self) -> Vec<(Seq, Arc<dyn DiskFile>)> {
        self.unsynced.clone()
    }

    /// Records that the segments before `first` are durable.
    pub(crate) fn synced_before(&mut self, first: Seq) {
        self.unsynced.retain(|(unsynced, _)| *unsynced >= first);
    }

    /// Syncs what is not synced, and the folder. After a full disk too: what was written then is cut off later, and the bytes
    /// before it are sound.
    pub(crate) fn sync(&mut self) -> Result<()> {
        match self.failed {
            None | Some(Failed::NoSpace) => self.sync_from(Seq(0)),
            Some(Failed::ForGood(_)) => self.refuse_failed(),
        }
    }

    fn sync_from(&mut self, segment: Seq) -> Result<()> {
        for (first, file) in self.unsynced.iter().filter(|(first, _)| *first >= segment) {
            file.sync().during("sync", &path(*first))?;
        }
        self.unsynced.retain(|(first, _)| *first < segment);
        if self.folder_unsynced {
            self.disk.sync_dir(FOLDER).during("sync", FOLDER)?;
            self.folder_unsynced = false;
        }
        Ok(())
    }
}

/// What readers may read. Only the log changes it.
#[derive(Default)]
pub(crate) struct Index {
    inner: Mutex<IndexInner>,
}

#[derive(Default)]
pub(crate) struct IndexInner {
    pub(crate) segments: VecDeque<SegmentMeta>,
    /// The seq after the last durable line.
    pub(crate) next_seq: Seq,
    /// Relocated lines and those of dead letters: from the first seq of each entry to its place in `kept/`.
    pub(crate) retained: BTreeMap<Seq, RetainedPlace>,
    /// What only the journal has of segments, in a store that is viewed without being opened.
    pub(crate) overlays: BTreeMap<Seq, Overlay>,
}

/// Where consecutive retained lines are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RetainedPlace {
    pub(crate) path: String,
    pub(crate) at: u64,
    pub(crate) bytes: u32,
    pub(crate) lines: u32,
}

/// What only the journal has of a segment: the bytes of small commits since it began, by their place in the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay(Arc<BTreeMap<u64, Vec<u8>>>);

impl Overlay {
    /// Of these bytes, which do not overlap.
    pub(crate) fn new(pieces: BTreeMap<u64, Vec<u8>>) -> Overlay {
        Overlay(Arc::new(pieces))
    }

    /// The bytes, each with its place, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.0.iter().map(|(at, bytes)| (*at, bytes.as_slice()))
    }

    /// Whether the file begins with these bytes: then it may not exist yet.
    pub(crate) fn begins_file(&self) -> bool {
        self.0.contains_key(&0)
    }

    /// The next place behind `at` that the journal has.
    pub(crate) fn next(&self, at: u64) -> Option<u64> {
        self.0.range(at + 1..).next().map(|(at, _)| *at)
    }

    /// What the journal has from `at` on, without a gap.
    fn at(&self, at: u64) -> &[u8] {
        let before = self.0.range(..=at).next_back();
        before.and_then(|(begin, bytes)| bytes.get((at - begin) as usize..)).unwrap_or_default()
    }

    /// How long a file must be at least, whose content then ends at `end`: all before is in the file or in the journal.
    pub(crate) fn needed(&self, end: u64) -> u64 {
        let mut needed = end;
        for (at, bytes) in self.0.range(..end).rev() {
            if at + bytes.len() as u64 != needed {
                break;
            }
            needed = *at;
        }
        needed
    }

    /// Reads from `at`, each byte from the journal if that has it: until `buffer` is full, or the file ends.
    pub(crate) fn read_at(
        &self,
        file: Option<&dyn DiskFile>,
        buffer: &mut [u8],
        at: u64,
    ) -> std::io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let now = at + filled as u64;
            let rest = buffer.get_mut(filled..).unwrap_or_default();
            let held = self.at(now);
            let count = held.len().min(rest.len());
            if count > 0 {
                rest.get_mut(..count)
                    .unwrap_or_default()
                    .copy_from_slice(held.get(..count).unwrap_or_default());
                filled += count;
                continue;
            }
            let Some(file) = file else { break };
            let wanted = self.next(now).map_or(rest.len(), |next| rest.len().min((next - now) as usize));
            let read = file.read_at(rest.get_mut(..wanted).unwrap_or_default(), now)?;
            filled += read;
            if read < wanted {
                break;
            }
        }
        Ok(filled)
    }
}

impl Index {
    pub(crate) fn lock(&self) -> MutexGuard<'_, IndexInner> {
        // After a panic of another holder the values are whole: each is replaced in one step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::MemoryDisk;

    #[test]
    fn an_overlay_shows_the_journals_bytes_in_their_places_and_the_files_elsewhere() {
        let disk = MemoryDisk::new(1 << 20);
        let file = disk.create("file").unwrap();
        file.write_at(b"............", 0).unwrap();
        let pieces = [(2, b"bc".to_vec()), (6, b"g".to_vec()), (11, b"lmn".to_vec()), (16, b"q".to_vec())];
        let overlay = Overlay::new(BTreeMap::from(pieces));
        let read = |at, len| {
            let mut buffer = vec![0; len];
            let read = overlay.read_at(Some(file.as_ref()), &mut buffer, at).unwrap();
            String::from_utf8(buffer[..read].to_vec()).unwrap()
        };
        assert_eq!(read(0, 30), "..bc..g....lmn", "it ends where neither has a byte");
        for (at, len, expected) in [(3, 2, "c."), (4, 3, "..g"), (12, 9, "mn"), (14, 2, ""), (16, 2, "q")] {
            assert_eq!(read(at, len), expected, "{len} at {at}");
        }
        assert_eq!((overlay.needed(14), overlay.needed(15), overlay.needed(17)), (11, 15, 16));
        assert_eq!((overlay.next(2), overlay.next(16)), (Some(6), None));
        let mut buffer = [0; 8];
        assert_eq!(overlay.read_at(None, &mut buffer, 0).unwrap(), 0);
        assert_eq!(overlay.read_at(None, &mut buffer, 11).unwrap(), 3);
        let whole = Overlay::new(BTreeMap::from([(0, b"ab".to_vec()), (2, b"c".to_vec())]));
        assert_eq!((whole.needed(3), whole.begins_file(), overlay.begins_file()), (0, true, false));
    }
}
