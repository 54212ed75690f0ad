//! A store that is read without being opened: nothing in it is changed.
//!
//! After a crash a view shows what opening would restore: the newest lines are read from the journal.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::block::BlockError;
use crate::create::refuse_absent;
use crate::disk::Disk;
use crate::disk::real::RealDisk;
use crate::error::{Error, Result};
use crate::ids::{GroupId, Seq, SeqRange};
use crate::lock::Lock;
use crate::loss::RetainedMark;
use crate::manifest::State;
use crate::quarantine::Quarantined;
use crate::reader::{ReadError, Reader};
use crate::recover::{self, Reference, Store};
use crate::retained::{DeadLetter, Retained};
use crate::segment::{self, Index, Overlay};
use crate::space::{reserve, used_bytes};

/// A store that is open for reading only. It cannot be opened as a [`crate::Log`] meanwhile.
pub struct View {
    disk: Arc<dyn Disk>,
    index: Arc<Index>,
    state: State,
    retained: Retained,
    references: Vec<Reference>,
    findings: Vec<String>,
    /// Bytes of the reserve that are allocated.
    reserve_bytes: u64,
    /// How many of them are errors of the disk.
    refused: u64,
    _lock: Option<Lock>,
}

/// The progress of [`View::verify`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Lines whose block was decoded and checked.
    pub lines: u64,
    /// Lines to check.
    pub lines_total: u64,
    /// Raw bytes of the lines checked.
    pub bytes: u64,
    /// Findings that are errors of the disk: the data may be sound, and another try may read it.
    pub refused: u64,
}

impl View {
    /// Opens the store in `dir` for reading.
    ///
    /// # Errors
    /// As [`crate::Log::open`].
    pub fn open(dir: &Path) -> Result<View> {
        refuse_absent(dir)?;
        let lock = Lock::take(dir, false)?;
        View::on_disk(Arc::new(RealDisk::new(dir)), dir, Some(lock)).map_err(|error| error.under(dir))
    }

    pub(crate) fn on_disk(disk: Arc<dyn Disk>, dir: &Path, lock: Option<Lock>) -> Result<View> {
        let Store::Recovered(recovered) = recover::read(disk.as_ref())? else {
            return Err(Error::Missing { path: dir.to_owned() });
        };
        let index = Arc::new(Index::default());
        {
            let mut inner = index.lock();
            inner.overlays = recovered.overlays;
            inner.segments = recovered.state.segments.clone();
            inner.next_seq = recovered.state.next_seq;
        }
        let refused = u64::from(recovered.is_refused);
        let (state, references, mut findings) = (recovered.state, recovered.references, recovered.findings);
        let retained = Retained::open(Arc::clone(&disk), Arc::clone(&index), &state, false)?;
        findings.extend(retained.findings.iter().cloned());
        let reserve_bytes = reserve(disk.as_ref())?.unwrap_or(0);
        Ok(View { disk, index, state, retained, references, findings, reserve_bytes, refused, _lock: lock })
    }

    /// All that is stored besides the lines.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is wrong in the journal and in `kept/`.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// A reader of all lines.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.disk), Arc::clone(&self.index), self.state.store)
    }

    /// The dead letters of a group from `from` on, at most `limit`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn dead_letters(&self, group: GroupId, from: Seq, limit: usize) -> Result<Vec<DeadLetter>> {
        self.retained.dead(group, from, limit)
    }

    /// How many dead letters a group has.
    #[must_use]
    pub fn dead_count(&self, group: GroupId) -> usize {
        self.retained.dead_count(group)
    }

    /// The end of a segment file as the journal has it.
    pub(crate) fn overlay(&self, name: &str) -> Option<Overlay> {
        let first = name.strip_prefix(segment::FOLDER)?.strip_prefix('/').and_then(segment::first_of)?;
        self.index.lock().overlays.get(&first).cloned()
    }

    pub(crate) fn retained_mark(&self) -> RetainedMark {
        self.retained.mark()
    }

    /// The damaged files that repairs have moved to `quarantine/`.
    #[must_use]
    pub fn quarantined(&self) -> Quarantined {
        Quarantined::count(self.disk.as_ref())
    }

    /// Bytes that the store takes on disk, as [`crate::Log::disk_bytes`] counts them.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        used_bytes(&self.state, &self.retained, self.reserve_bytes)
    }

    /// Reads and decodes every block, and checks both checksums, that no seq is missing in a segment or between two, that
    /// the blocks are those which the journal references, and that every retained line is there. Returns what is wrong;
    /// nothing if the store is sound. Calls `progress` before the first block and after each.
    #[must_use]
    pub fn verify(&self, progress: &mut dyn FnMut(Verified)) -> Vec<String> {
        let mut findings = self.findings.clone();
        let mut reader = self.reader();
        let references: BTreeMap<Seq, &Reference> =
            self.references.iter().map(|reference| (reference.lines.first, reference)).collect();
        let (first, next) = (self.state.first_seq(), self.state.next_seq);
        let retained: Vec<(Seq, u32)> =
            self.index.lock().retained.iter().map(|(first, place)| (*first, place.lines)).collect();
        let retained_lines = retained.iter().map(|(_, lines)| u64::from(*lines)).sum::<u64>();
        let lines_total = next.0.saturating_sub(first.0) + retained_lines;
        let mut verified = Verified { lines_total, refused: self.refused, ..Verified::default() };
        progress(verified);
        let mut stretches = vec![(first, next)];
        stretches.extend(
            retained
                .into_iter()
                .filter(|(seq, _)| *seq < first)
                .map(|(seq, lines)| (seq, seq.plus(u64::from(lines)))),
        );
        for (mut seq, end) in stretches {
            while seq < end {
                match reader.block(seq) {
                    Ok(block) => {
                        verified.lines += block.range().lines();
                        verified.bytes += block.raw().len() as u64;
                        let reference = references.get(&block.range().first);
                        findings.extend(reference.zip(reader.crc()).and_then(|(of, crc)| of.mismatch(crc)));
                        seq = block.range().last.next();
                    }
                    Err(error) => {
                        let behind = match &error {
                            ReadError::Damaged { range, .. } => range.last.next().max(seq.next()),
                            // The rest of the segment: where the next block begins is not known.
                            _ => self.segment_behind(seq).unwrap_or(end).min(end),
                        };
                        verified.refused += u64::from(error.is_refused());
                        if !self.is_known(&error) {
                            let lines = SeqRange { first: seq, last: behind.prev() };
                            findings.push(finding(&error, lines));
                        }
                        seq = behind;
                    }
                }
                progress(verified);
            }
        }
        findings
    }

    /// Whether the lines are recorded as lost already.
    fn is_known(&self, error: &ReadError) -> bool {
        let ReadError::Damaged { what: BlockError::Missing, range, .. } = error else { return false };
        let index = self.index.lock();
        let is_retained = |seq: Seq| {
            let before = index.retained.range(..=seq).next_back();
            before.is_some_and(|(first, place)| first.plus(u64::from(place.lines)) > seq)
        };
        self.state
            .not_lost(*range)
            .iter()
            .all(|rest| (rest.first.0..=rest.last.0).all(|seq| is_retained(Seq(seq))))
    }

    fn segment_behind(&self, seq: Seq) -> Option<Seq> {
        self.state.segments.iter().map(|segment| segment.first).find(|first| *first > seq)
    }
}

fn finding(error: &ReadError, lines: SeqRange) -> String {
    match error {
        ReadError::Damaged { range, .. } => format!("{error}; lines {range} are lost"),
        _ => format!("{error}; lines {lines} were not checked"),
    }
}
