//! What a store says after any crash, and how its files are made to agree with it.
//!
//! [`read`] changes nothing: MARK names a journal; its manifest and the whole commits that follow are folded into
//! the state. [`mend`] then makes the segment files what the journal says they are. The journal itself is only
//! removed after a new one has begun, so that a crash anywhere in between starts again from the same original.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::commit::Record;
use crate::disk::Disk;
use crate::error::{Context, Error, Result};
use crate::ids::Seq;
use crate::journal::{self, Reading};
use crate::manifest::State;
use crate::mark::{self, Found, MarkFile};
use crate::segment::{self, Overlay};

/// There until a new store has its MARK: a store without MARK and without this is damaged, not new.
pub(crate) const CREATING: &str = "CREATING";

/// What opening finds.
pub(crate) enum Store {
    /// Nothing, or a creation that a crash cut short: there were no lines in it yet.
    Absent,
    /// A store.
    Recovered(Box<Recovered>),
}

/// A store as its journal tells it.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) journal: u64,
    pub(crate) reading: Reading,
    /// For each segment that the journal writes to, how long it was before.
    bases: BTreeMap<Seq, u64>,
    /// What differs between the readings, for people.
    pub(crate) findings: Vec<String>,
}

/// Reads the store in `disk`, changing nothing.
pub(crate) fn read(disk: &dyn Disk) -> Result<Store> {
    let damaged = |what: String| Error::Damaged { path: "journal".into(), what };
    let mark = match MarkFile::read(disk)? {
        Found::Mark(mark) => mark,
        Found::Version(found) => return Err(mark::unknown(found)),
        Found::Nothing => {
            let names = disk.list("").during("list", "the data dir")?;
            let foreign: Vec<&str> =
                names.iter().map(String::as_str).filter(|name| *name != "LOCK").collect();
            let has_segments = foreign.contains(&segment::FOLDER)
                && !disk.list(segment::FOLDER).during("list", segment::FOLDER)?.is_empty();
            if foreign.is_empty() || (foreign.contains(&CREATING) && !has_segments) {
                return Ok(Store::Absent);
            }
            if foreign.contains(&journal::FOLDER) && foreign.contains(&segment::FOLDER) {
                return Err(damaged("MARK is missing or unreadable in both slots".to_owned()));
            }
            let found = foreign.iter().take(5).copied().collect::<Vec<_>>().join(", ");
            return Err(Error::NotAStore { path: "".into(), found });
        }
    };
    let name = journal::folder(mark.journal);
    if !disk.exists(&name).during("look for", &name)? {
        return Err(damaged(format!("MARK names {name}, which is not there")));
    }
    let reading = Reading::of(disk, mark.store, mark.journal, mark.commit)?;
    let (Some(first), Some(last)) = (reading.first(), reading.last()) else {
        return Err(damaged(format!(
            "{name} shows no whole commit, MARK says that {} was durable",
            mark.commit
        )));
    };
    if last < mark.commit && !cfg!(feature = "fault-no-mark") {
        return Err(damaged(format!(
            "{name} shows whole commits up to {last}, MARK says that {} was durable; sled's copy and the raw scan agree on that",
            mark.commit
        )));
    }
    // Commits are made one at a time: what a crash cuts off is at most the one after the last whole one.
    if let Some(beyond) = reading.newest().filter(|newest| *newest > last + 1) {
        return Err(damaged(format!("{name} has commit {beyond} and lacks {} in both readings", last + 1)));
    }
    let (Record::Manifest(manifest), _) = reading.commit(first)? else {
        return Err(damaged(format!("{name} does not begin with a manifest but with commit {first}")));
    };
    let mut state = *manifest;
    if state.store != mark.store || state.journal != mark.journal || state.commit != first {
        return Err(damaged(format!("the manifest of {name} is another journal's")));
    }
    let base: BTreeMap<Seq, u64> =
        state.segments.iter().map(|segment| (segment.first, segment.bytes)).collect();
    let mut written = BTreeSet::new();
    for commit in first + 1..=last {
        let (Record::Changes(changes), _) = reading.commit(commit)? else {
            return Err(damaged(format!("{name} holds a second manifest, commit {commit}")));
        };
        let newest = state.segments.back().map(|segment| segment.first);
        let begun = changes.blocks.iter().filter(|placed| placed.new_segment).map(|placed| placed.first);
        let continued = newest.filter(|_| changes.blocks.first().is_some_and(|placed| !placed.new_segment));
        written.extend(continued.into_iter().chain(begun));
        state.apply(commit, &changes);
    }
    if state.next_seq < mark.next_seq && !cfg!(feature = "fault-no-mark") {
        return Err(damaged(format!(
            "{name} ends before line {}, MARK says that {} was next",
            state.next_seq, mark.next_seq
        )));
    }
    let bases = state
        .segments
        .iter()
        .filter(|segment| written.contains(&segment.first))
        .map(|segment| (segment.first, base.get(&segment.first).copied().unwrap_or_default()))
        .collect();
    let findings = reading.findings.clone();
    Ok(Store::Recovered(Box::new(Recovered { state, journal: mark.journal, reading, bases, findings })))
}

impl Recovered {
    /// Shows every block that the journal holds: its segment, its place there, and its bytes.
    fn each_block(&self, mut show: impl FnMut(Seq, u64, &[u8]) -> Result<()>) -> Result<()> {
        let (Some(first), last) = (self.reading.first(), self.state.commit) else {
            return Ok(());
        };
        let (Record::Manifest(manifest), _) = self.reading.commit(first)? else {
            return Ok(());
        };
        let mut end = manifest.segments.back().map(|segment| (segment.first, segment.bytes));
        for commit in first + 1..=last {
            let (Record::Changes(changes), bytes) = self.reading.commit(commit)? else {
                continue;
            };
            let mut rest = bytes.as_slice();
            for placed in &changes.blocks {
                let (segment, at) = match end {
                    Some(end) if !placed.new_segment => end,
                    _ => (placed.first, 0),
                };
                let (block, behind) =
                    rest.split_at_checked(placed.bytes as usize).ok_or_else(|| Error::Damaged {
                        path: journal::folder(self.journal).into(),
                        what: format!("commit {commit} ends before its blocks do"),
                    })?;
                rest = behind;
                show(segment, at, block)?;
                end = Some((segment, at + u64::from(placed.bytes)));
            }
        }
        Ok(())
    }

    /// What the journal has of each segment, for reading a store without mending it.
    pub(crate) fn overlays(&self) -> Result<BTreeMap<Seq, Overlay>> {
        let mut bytes: BTreeMap<Seq, Vec<u8>> = BTreeMap::new();
        self.each_block(|segment, _, block| {
            if self.bases.contains_key(&segment) {
                bytes.entry(segment).or_default().extend_from_slice(block);
            }
            Ok(())
        })?;
        let base = |segment: &Seq| self.bases.get(segment).copied().unwrap_or_default();
        Ok(bytes
            .into_iter()
            .map(|(segment, bytes)| (segment, Overlay { at: base(&segment), bytes: Arc::new(bytes) }))
            .collect())
    }

    /// Makes the segment files what the journal says, durably. Writing the same bytes again does no harm, so this
    /// may be cut short and begun again any number of times.
    pub(crate) fn mend(&mut self, disk: &dyn Disk) -> Result<()> {
        let mut files = BTreeMap::new();
        for first in self.bases.keys() {
            let name = segment::path(*first);
            let there = disk.exists(&name).during("look for", &name)?;
            let base = self.bases.get(first).copied().unwrap_or_default();
            let len = if there {
                disk.open(&name, false).and_then(|file| file.len()).during("open", &name)?
            } else {
                0
            };
            if len < base {
                self.findings.push(format!("{name} is {len} bytes long, {base} were written and synced"));
            }
            let file = if there { disk.open(&name, true) } else { disk.create(&name) };
            let file = file.during("open", &name)?;
            // What a failed sync lost would not be missed below.
            file.settle().during("sync", &name)?;
            files.insert(*first, file);
        }
        let mut present = Vec::new();
        self.each_block(|segment, at, block| {
            let Some(file) = files.get(&segment) else {
                return Ok(());
            };
            let name = segment::path(segment);
            present.resize(block.len(), 0);
            let read = file.read_at(&mut present, at).during("read", &name)?;
            if present.get(..read) != Some(block) {
                file.write_at(block, at).during("write to", &name)?;
            }
            Ok(())
        })?;
        let known: BTreeMap<Seq, u64> =
            self.state.segments.iter().map(|segment| (segment.first, segment.bytes)).collect();
        for (first, file) in &files {
            let name = segment::path(*first);
            file.set_len(known.get(first).copied().unwrap_or_default()).during("cut", &name)?;
            file.sync().during("sync", &name)?;
        }
        let newest = self.state.segments.back().map(|segment| segment.first);
        for name in disk.list(segment::FOLDER).during("list", segment::FOLDER)? {
            let path = format!("{}/{name}", segment::FOLDER);
            match segment::first_of(&name).and_then(|first| Some((first, *known.get(&first)?))) {
                // Compacted, or begun by a commit that did not become durable.
                None => disk.remove_file(&path).during("remove", &path)?,
                Some((first, bytes)) if !files.contains_key(&first) => {
                    let file = disk.open(&path, Some(first) == newest).during("open", &path)?;
                    let len = file.len().during("read", &path)?;
                    if Some(first) == newest && len > bytes {
                        file.set_len(bytes).during("cut", &path)?;
                        file.sync().during("sync", &path)?;
                    }
                    if len < bytes {
                        self.findings
                            .push(format!("{path} is {len} bytes long, {bytes} were written and synced"));
                    }
                }
                Some(_) => {}
            }
        }
        for segment in &self.state.segments {
            let path = segment::path(segment.first);
            if !disk.exists(&path).during("look for", &path)? {
                self.findings
                    .push(format!("{path} is missing, {} bytes were written and synced", segment.bytes));
            }
        }
        disk.sync_dir(segment::FOLDER).during("sync", segment::FOLDER)
    }
}
