//! What waits: sources for their turn, and checkpoints for the next append.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use spillq_storage::SourceId;

use crate::tail::known::{Source, SourceRecord, Table};

/// Sources that wait for a turn, each at most once.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    ready: VecDeque<SourceId>,
    /// They have their next turn in the next round.
    later: Vec<SourceId>,
}

impl Turns {
    /// It has a turn in this round.
    pub(crate) fn queue(&mut self, source: &mut Source) {
        if !std::mem::replace(&mut source.queued, true) {
            self.ready.push_back(source.id);
        }
    }

    /// It has its next turn in the next round.
    pub(crate) fn wait(&mut self, source: &mut Source) {
        if !std::mem::replace(&mut source.queued, true) {
            self.later.push(source.id);
        }
    }

    /// It was next and is still queued: the same in the next round.
    pub(crate) fn postpone(&mut self, id: SourceId) {
        self.later.push(id);
    }

    /// Its turn begins.
    pub(crate) fn begin(source: &mut Source) {
        source.queued = false;
    }

    /// A round begins.
    pub(crate) fn begin_round(&mut self) {
        self.ready.extend(self.later.drain(..));
    }

    /// Those that have to wait come back into the next round, so this ends.
    pub(crate) fn next(&mut self) -> Option<SourceId> {
        self.ready.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.later.is_empty()
    }
}

/// Checkpoints that the log does not have yet.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// Sources whose checkpoint goes with the next append.
    owed: VecDeque<SourceId>,
    /// Last checkpoints of sources that have ended.
    last: Vec<(SourceId, Bytes)>,
    /// Copies of an open file that have no checkpoint before the source of that file is read as far as they begin.
    withheld: HashMap<SourceId, SourceId>,
}

impl Checkpoints {
    /// Its checkpoint goes with the next append. A compressed file that is not checked may turn out not to be a source of
    /// its own, and has none.
    pub(crate) fn owe(&mut self, source: &mut Source) {
        if source.stored || !source.is_provisional() {
            source.dirty = true;
            self.owed.push_back(source.id);
        }
    }

    /// It was read: its checkpoint goes with its lines.
    pub(crate) fn note_read(&mut self, id: SourceId) {
        self.owed.push_back(id);
    }

    /// Checkpoints for an append, as they are now and at most this many.
    pub(crate) fn take(&mut self, sources: &mut Table, max: usize) -> Vec<(SourceId, Bytes)> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(id) = self.owed.pop_front()
        {
            // The log may have it by now.
            let Some(source) = sources.get_mut(id).filter(|source| source.dirty) else {
                continue;
            };
            source.dirty = false;
            if let Some(record) = encoded(id, &source.record()) {
                source.stored = true;
                taken.push((id, record));
            }
        }
        taken
    }

    /// The source has ended: the log gets its last checkpoint, if it ever had one.
    pub(crate) fn end(&mut self, source: &Source) {
        self.withheld.remove(&source.id);
        if source.stored || source.dirty {
            let record =
                SourceRecord::of_finished(&source.path, source.rotated_from.as_deref(), source.offset);
            self.last.extend(encoded(source.id, &record).map(|record| (source.id, record)));
        }
    }

    pub(crate) fn take_last(&mut self) -> Vec<(SourceId, Bytes)> {
        std::mem::take(&mut self.last)
    }

    /// `copy` has no checkpoint before `original` is read as far as the copy begins. After a restart nobody has the open
    /// file: what was not read of it is then read from the copy.
    pub(crate) fn withhold(&mut self, copy: &mut Source, original: SourceId) {
        copy.dirty = false;
        self.withheld.insert(copy.id, original);
    }

    /// A source has read on, or ended: copies of what it has read by now get their checkpoint.
    pub(crate) fn release(&mut self, sources: &mut Table, original: SourceId) {
        let read = sources.get(original).map_or(u64::MAX, |source| source.offset);
        let is_due = |copy: &SourceId, of: &mut SourceId| {
            *of == original && sources.get(*copy).is_none_or(|copy| copy.offset <= read)
        };
        let due: Vec<SourceId> = self.withheld.extract_if(is_due).map(|(copy, _)| copy).collect();
        for copy in due {
            if let Some(source) = sources.get_mut(copy) {
                self.owe(source);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.owed.is_empty() && self.last.is_empty()
    }
}

fn encoded(id: SourceId, record: &SourceRecord) -> Option<Bytes> {
    let record = record.encode();
    record.inspect_err(|error| tracing::error!(source = id.0, %error, "a checkpoint cannot be written")).ok()
}
