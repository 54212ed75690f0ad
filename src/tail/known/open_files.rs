//! Which sources have their file open. The files are here and nowhere else, so that their number is right.

use std::collections::BTreeMap;
use std::fs::File;

use spillq_storage::SourceId;

use crate::tail::known::Source;

/// One descriptor in this many is made free when all are in use.
const RESERVE: usize = 8;

/// The open files of sources. A file is open while it has unread bytes, and longer while there are descriptors.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    files: BTreeMap<SourceId, File>,
    /// How many are kept open. One more is open while it is read.
    pub(crate) max: usize,
}

impl OpenFiles {
    pub(crate) fn new(max: usize) -> OpenFiles {
        OpenFiles { files: BTreeMap::new(), max }
    }

    /// The file of a source, from now on.
    pub(crate) fn attach(&mut self, source: &mut Source, file: File) {
        source.closed_early = false;
        self.files.insert(source.id, file);
    }

    /// The same, unless too many are open: then the source opens it when its turn comes.
    pub(crate) fn attach_if_free(&mut self, source: &mut Source, file: File) {
        match self.files.len() >= self.max {
            true => source.closed_early = true,
            false => self.attach(source, file),
        }
    }

    /// Closes the file of a source, if it is open.
    pub(crate) fn close(&mut self, id: SourceId) -> Option<File> {
        self.files.remove(&id)
    }

    /// Closes it because descriptors run short.
    pub(crate) fn close_early(&mut self, source: &mut Source) {
        source.closed_early |= self.close(source.id).is_some();
    }

    pub(crate) fn get(&self, id: SourceId) -> Option<&File> {
        self.files.get(&id)
    }

    pub(crate) fn has(&self, id: SourceId) -> bool {
        self.files.contains_key(&id)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = SourceId> + '_ {
        self.files.keys().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn has_too_many(&self) -> bool {
        self.files.len() > self.max
    }

    /// How many a scan closes when all are in use. Some are then free for what is opened before the next scan: closing
    /// those would hit the files written last.
    pub(crate) fn surplus(&self) -> usize {
        match self.files.len() < self.max {
            true => 0,
            false => self.files.len() - (self.max - self.max / RESERVE),
        }
    }
}
