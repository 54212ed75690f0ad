//! Recovery: what state a store is in after any crash, and how its segment files are made to agree with it.
//!
//! [`read`] changes nothing. MARK names a journal; the manifest in it and the whole commits that follow are folded into
//! the state. [`Recovered::restore_segments`] then gives the segment files what the journal has of them. The journal
//! is only removed after a new one has begun, so that a crash anywhere in between starts again from the same original.
//!
//! Bytes that the journal references were synced before; like those of older journals, they are not read here.
//!
//! The blocks in the journal are in memory meanwhile: as much as the journal stores, some 6 MiB.

use std::collections::{BTreeMap, BTreeSet};

use crate::commit::Changes;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Error, Result};
use crate::ids::{Seq, SeqRange};
use crate::journal::{self, Reading};
use crate::manifest::State;
use crate::mark::{self, Found, Mark, MarkFile};
use crate::record::Record;
use crate::segment::{self, Overlay};

/// Exists until a new store has its MARK: a store with neither is damaged, not new.
pub(crate) const CREATING: &str = "CREATING";
/// Compared with a segment file at once.
const COMPARED_BYTES: usize = 256 * 1024;

/// What opening finds.
pub(crate) enum Store {
    /// Nothing, or a creation that a crash cut short: there were no lines in it yet.
    Absent,
    /// A store.
    Recovered(Box<Recovered>),
}

/// A store as its journal describes it.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) journal: u64,
    /// What the journal has of each segment that it writes to.
    pub(crate) overlays: BTreeMap<Seq, Overlay>,
    /// The blocks that it references.
    pub(crate) references: Vec<Reference>,
    /// What differs between the two readings of the journal, for people.
    pub(crate) findings: Vec<String>,
    /// As [`Reading::is_refused`].
    pub(crate) is_refused: bool,
}

/// A block of which the journal has a checksum and not the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference {
    pub(crate) segment: Seq,
    pub(crate) at: u64,
    pub(crate) lines: SeqRange,
    pub(crate) crc: u32,
}

impl Reference {
    /// What is wrong if the sound block in its place has this checksum: it is another one.
    pub(crate) fn mismatch(&self, found: u32) -> Option<String> {
        let Reference { segment, at, lines, crc } = self;
        let path = segment::path(*segment);
        (found != *crc).then(|| {
            format!("{path} at byte {at}: another block than the one that was written for lines {lines}: checksum {found:#010x} does not match {crc:#010x}")
        })
    }
}

fn damaged(what: String) -> Error {
    Error::Damaged { path: "journal".into(), what }
}

/// Reads the store in `disk`, changing nothing.
pub(crate) fn read(disk: &dyn Disk) -> Result<Store> {
    let mark = match MarkFile::read(disk)? {
        Found::Mark(mark) => mark,
        Found::Version(found) => return Err(mark::unknown(found)),
        Found::Nothing => return without_mark(disk),
    };
    let name = journal::folder(mark.journal);
    if !disk.exists(&name).during("look for", &name)? {
        return Err(damaged(format!("MARK names {name}, which does not exist")));
    }
    let reading = Reading::of(disk, mark.store, mark.journal, mark.commit)?;
    let (first, last) = whole_commits(&reading, mark, &name)?;
    let (Record::Manifest(manifest), _) = reading.commit(first)? else {
        return Err(damaged(format!("{name} does not begin with a manifest but with commit {first}")));
    };
    let mut state = *manifest;
    if state.store != mark.store || state.journal != mark.journal || state.commit != first {
        return Err(damaged(format!("the manifest of {name} is another journal's")));
    }
    let mut overlays = Overlays::default();
    for commit in first + 1..=last {
        let (Record::Changes(changes), blocks) = reading.commit(commit)? else {
            return Err(damaged(format!("{name} holds a second manifest, commit {commit}")));
        };
        if !overlays.add(&state, &changes, &blocks) {
            return Err(damaged(format!("{name}: commit {commit} ends before its blocks do")));
        }
        state.apply(commit, &changes);
    }
    if state.next_seq < mark.next_seq && !cfg!(feature = "fault-no-mark") {
        return Err(damaged(format!(
            "{name} ends before line {}, but MARK records {} as the next line",
            state.next_seq, mark.next_seq
        )));
    }
    let (overlays, references) = overlays.of_segments(&state);
    let Reading { findings, is_refused, .. } = reading;
    let journal = mark.journal;
    Ok(Store::Recovered(Box::new(Recovered { state, journal, overlays, references, findings, is_refused })))
}

/// A folder without a readable MARK: not a store yet, or damage.
fn without_mark(disk: &dyn Disk) -> Result<Store> {
    let names = disk.list("").during("list", "the data dir")?;
    let foreign: Vec<&str> = names.iter().map(String::as_str).filter(|name| *name != "LOCK").collect();
    let has_segments = foreign.contains(&segment::FOLDER)
        && !disk.list(segment::FOLDER).during("list", segment::FOLDER)?.is_empty();
    if foreign.is_empty() || (foreign.contains(&CREATING) && !has_segments) {
        return Ok(Store::Absent);
    }
    if foreign.contains(&journal::FOLDER) && foreign.contains(&segment::FOLDER) {
        return Err(damaged("MARK is missing or unreadable in both slots".to_owned()));
    }
    let found = foreign.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    Err(Error::NotAStore { path: "".into(), found })
}

/// The first and the last of the commits that are whole and follow one another, which must reach as far as MARK does.
fn whole_commits(reading: &Reading, mark: Mark, name: &str) -> Result<(u64, u64)> {
    let durable = mark.commit;
    let (Some(first), Some(last)) = (reading.first(), reading.last()) else {
        return Err(damaged(format!(
            "{name} has no whole commit, but MARK records commit {durable} as durable"
        )));
    };
    if last < durable && !cfg!(feature = "fault-no-mark") {
        return Err(damaged(format!(
            "{name} has whole commits up to {last}, but MARK records commit {durable} as durable; sled's copy and the raw scan agree on that",
        )));
    }
    // Commits are made one at a time: what a crash cuts off is at most the one after the last whole one.
    if let Some(beyond) = reading.newest().filter(|newest| *newest > last + 1) {
        return Err(damaged(format!("{name} has commit {beyond} and lacks {} in both readings", last + 1)));
    }
    Ok((first, last))
}

/// The bytes that a journal has of each segment file, by their places in it, and what it references.
#[derive(Default)]
struct Overlays {
    pieces: BTreeMap<Seq, BTreeMap<u64, Vec<u8>>>,
    references: Vec<Reference>,
    /// The segment that grows, and its length.
    newest: Option<(Seq, u64)>,
}

impl Overlays {
    /// Adds the blocks of a commit, which is to be applied to `state`; false where they are fewer bytes than it says.
    fn add(&mut self, state: &State, changes: &Changes, mut blocks: &[u8]) -> bool {
        let manifest_end = || state.segments.back().map(|segment| (segment.first, segment.bytes));
        self.newest = self.newest.or_else(manifest_end);
        for placed in &changes.blocks {
            let (segment, at) = self.newest.filter(|_| !placed.new_segment).unwrap_or((placed.first, 0));
            self.newest = Some((segment, at + u64::from(placed.bytes)));
            if let Some(crc) = placed.reference {
                self.references.push(Reference { segment, at, lines: placed.range(), crc });
                continue;
            }
            let Some((block, behind)) = blocks.split_at_checked(placed.bytes as usize) else { return false };
            blocks = behind;
            let pieces = self.pieces.entry(segment).or_default();
            match pieces.last_entry().filter(|last| last.key() + last.get().len() as u64 == at) {
                Some(mut last) => last.get_mut().extend_from_slice(block),
                None => drop(pieces.insert(at, block.to_vec())),
            }
        }
        true
    }

    /// Those of segments that still exist.
    fn of_segments(self, state: &State) -> (BTreeMap<Seq, Overlay>, Vec<Reference>) {
        let Overlays { pieces, mut references, .. } = self;
        let known: BTreeSet<Seq> = state.segments.iter().map(|segment| segment.first).collect();
        references.retain(|reference| known.contains(&reference.segment));
        let pieces = pieces.into_iter().filter(|(first, _)| known.contains(first));
        (pieces.map(|(first, pieces)| (first, Overlay::new(pieces))).collect(), references)
    }
}

impl Recovered {
    /// Makes the segment files what the journal says they are, durably. Writing the same bytes again does no harm, so
    /// a kill in the middle is followed by another try.
    pub(crate) fn restore_segments(&mut self, disk: &dyn Disk) -> Result<()> {
        let known: BTreeMap<Seq, u64> =
            self.state.segments.iter().map(|segment| (segment.first, segment.bytes)).collect();
        for (first, overlay) in &self.overlays {
            let name = segment::path(*first);
            let exists = disk.exists(&name).during("look for", &name)?;
            let file =
                if exists { disk.open(&name, true) } else { disk.create(&name) }.during("open", &name)?;
            let len = file.len().during("open", &name)?;
            let end = known.get(first).copied().unwrap_or_default();
            let needed = overlay.needed(end);
            if len < needed {
                self.findings.push(too_short(&name, len, needed));
            }
            // Otherwise bytes that a failed sync lost would be compared with what the page cache shows of them.
            file.settle().during("sync", &name)?;
            for (at, bytes) in overlay.pieces() {
                write_differences(file.as_ref(), at, bytes, &name)?;
            }
            file.set_len(end).during("cut", &name)?;
            file.sync().during("sync", &name)?;
        }
        let newest = self.state.segments.back().map(|segment| segment.first);
        for name in disk.list(segment::FOLDER).during("list", segment::FOLDER)? {
            let path = format!("{}/{name}", segment::FOLDER);
            match segment::first_of(&name).and_then(|first| Some((first, *known.get(&first)?))) {
                // Compacted, or begun by a commit that did not become durable.
                None => disk.remove_file(&path).during("remove", &path)?,
                Some((first, bytes)) if !self.overlays.contains_key(&first) => {
                    let file = disk.open(&path, Some(first) == newest).during("open", &path)?;
                    let len = file.len().during("read", &path)?;
                    if Some(first) == newest && len > bytes {
                        file.set_len(bytes).during("cut", &path)?;
                        file.sync().during("sync", &path)?;
                    }
                    if len < bytes {
                        self.findings.push(too_short(&path, len, bytes));
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

fn too_short(name: &str, len: u64, synced: u64) -> String {
    format!("{name} is {len} bytes long, {synced} were written and synced")
}

/// Writes what of a segment is not in its file as the journal has it.
fn write_differences(file: &dyn DiskFile, begin: u64, bytes: &[u8], name: &str) -> Result<()> {
    for (nth, expected) in bytes.chunks(COMPARED_BYTES).enumerate() {
        let at = begin + (nth * COMPARED_BYTES) as u64;
        if file.read_range(at, expected.len()).during("read", name)? != expected {
            file.write_at(expected, at).during("write to", name)?;
        }
    }
    Ok(())
}
