//! Segment files: blocks one after the other. A file is named by its first seq and removed as a whole.
//!
//! Appends are not synced: until the next rotation the journal has the same blocks, and opening restores what a crash
//! lost. At every opening the newest file is cut to what is durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Appends to the newest segment.
pub(crate) struct SegmentWriter {
    disk: Arc<dyn Disk>,
    current: Option<(Seq, Arc<dyn DiskFile>)>,
    /// Files with bytes that are not synced yet, including the current one.
    unsynced: Vec<(Seq, Arc<dyn DiskFile>)>,
    /// The folder has new names that are not synced yet.
    folder_unsynced: bool,
}

impl SegmentWriter {
    /// Continues the newest segment.
    pub(crate) fn open(disk: Arc<dyn Disk>, newest: Option<&SegmentMeta>) -> Result<SegmentWriter> {
        let mut writer = SegmentWriter { disk, current: None, unsynced: Vec::new(), folder_unsynced: false };
        if let Some(newest) = newest {
            let name = path(newest.first);
            let file: Arc<dyn DiskFile> = writer.disk.open(&name, true).during("open", &name)?.into();
            writer.current = Some((newest.first, file));
        }
        Ok(writer)
    }

    /// Writes `bytes` at `at` of the segment `first`, which is created unless it is the current one.
    ///
    /// # Errors
    /// [`Error::Full`] if the disk is full: [`SegmentWriter::cut`] then removes what was written.
    pub(crate) fn append(&mut self, first: Seq, at: u64, bytes: &[u8]) -> Result<()> {
        let name = path(first);
        let full_or = |error: std::io::Error, attempted| {
            if is_no_space(&error) {
                Err(Error::Full(Full::NoSpace))
            } else {
                Err(error).during(attempted, &name)
            }
        };
        if self.current.as_ref().is_none_or(|(current, _)| *current != first) {
            match self.disk.create(&name) {
                Ok(file) => self.current = Some((first, file.into())),
                Err(error) => return full_or(error, "create"),
            }
            self.folder_unsynced = true;
        }
        let Some((_, file)) = &self.current else {
            return Ok(());
        };
        if self.unsynced.last().is_none_or(|(last, _)| *last != first) {
            self.unsynced.push((first, Arc::clone(file)));
        }
        file.write_at(bytes, at).or_else(|error| full_or(error, "write to"))
    }

    /// Undoes appends that did not become a commit: the newest segment is `meta` again.
    pub(crate) fn cut(&mut self, meta: Option<&SegmentMeta>) -> Result<()> {
        let newest = meta.map_or(Seq(0), |meta| meta.first);
        if let Some((first, _)) = &self.current
            && *first > newest
        {
            let name = path(*first);
            self.unsynced.retain(|(unsynced, _)| *unsynced <= newest);
            self.disk.remove_file(&name).during("remove", &name)?;
            *self = SegmentWriter {
                unsynced: std::mem::take(&mut self.unsynced),
                folder_unsynced: self.folder_unsynced,
                ..SegmentWriter::open(Arc::clone(&self.disk), meta)?
            };
        }
        if let (Some((first, file)), Some(meta)) = (&self.current, meta) {
            file.set_len(meta.bytes).during("cut", &path(*first))?;
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

    /// Syncs the other files, and the folder.
    pub(crate) fn sync(&mut self) -> Result<()> {
        for (first, file) in &self.unsynced {
            file.sync().during("sync", &path(*first))?;
        }
        self.unsynced.clear();
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
    /// The ends of segments that only the journal has, in a store that is viewed without being opened.
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

/// The end of a segment, from byte `at`, as the journal has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    pub(crate) at: u64,
    pub(crate) bytes: Arc<Vec<u8>>,
}

impl Overlay {
    /// Reads from `at` of the file and then of what the journal has: until `buffer` is full, or the end is reached.
    pub(crate) fn read_at(
        &self,
        file: Option<&dyn DiskFile>,
        buffer: &mut [u8],
        at: u64,
    ) -> std::io::Result<usize> {
        let is_alone = self.bytes.is_empty();
        let mut filled = 0;
        if let Some(file) = file.filter(|_| is_alone || at < self.at) {
            let before = if is_alone { buffer.len() } else { buffer.len().min((self.at - at) as usize) };
            filled = file.read_at(buffer.get_mut(..before).unwrap_or_default(), at)?;
            if filled < before {
                return Ok(filled);
            }
        }
        let from = (at + filled as u64).checked_sub(self.at);
        let rest = from.and_then(|from| self.bytes.get(from as usize..)).unwrap_or_default();
        let count = rest.len().min(buffer.len() - filled);
        for (to, from) in buffer.iter_mut().skip(filled).zip(rest) {
            *to = *from;
        }
        Ok(filled + count)
    }
}

impl Index {
    pub(crate) fn lock(&self) -> MutexGuard<'_, IndexInner> {
        // After a panic of another holder the values are whole: each is replaced in one step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
