//! Retained lines: dead letters and relocated lines, which outlive their segment.
//!
//! One append-only file, `kept/<generation>`, of framed entries: lines (a block as in a segment), dead letters (group,
//! reason and attempts), and the end of a dead letter. An entry is synced before the commit that relies on it, and may be
//! written twice. So a crash in between leaves an entry that nothing refers to. When less than half of the file is live,
//! the live part is written to the next generation.
//!
//! Frame, little endian: magic `SPQK` 4, kind 1, zeros 3, body length 4, CRC32C of kind, length and body 4, body.
//!
//! Bounds: [`DEAD_LETTERS_MAX`] dead letters a group and [`RETAINED_BYTES_MAX`] in all. At either the group stops, and no
//! line is relocated.
// long: one format on disk: what writes, reads and compacts it

pub(crate) mod survey;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::{Decode, Encode};
use bytes::BufMut;

use crate::block::{Block, BlockBuilder, BlockHeader};
use crate::bytes_le::Get;
use crate::codec;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Result};
use crate::ids::{GroupId, Seq, SeqRange, StoreId};
use crate::loss::RetainedMark;
use crate::manifest::State;
use crate::segment::{Index, RetainedPlace};

pub(crate) const FOLDER: &str = "kept";
const MAGIC: [u8; 4] = *b"SPQK";
const FRAME_BYTES: usize = 16;
pub(crate) const DEAD_LETTERS_MAX: usize = 100_000;
pub(crate) const RETAINED_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Of a smaller file, compaction would not free enough to be worth a sync.
const COMPACT_BYTES_MIN: u64 = 1024 * 1024;

/// A line that a group could not process and that it does not wait for any more.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeadLetter {
    /// The group.
    pub group: GroupId,
    /// The line.
    pub seq: Seq,
    /// How often it was delivered by itself.
    pub attempts: u32,
    /// When it became a dead letter: milliseconds since 1970.
    pub time_ms: u64,
    /// Why it became one.
    pub cause: DeadCause,
    /// What the processor reported, at most [`DeadLetter::REASON_BYTES_MAX`].
    pub reason: String,
}

/// Why a line became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum DeadCause {
    /// The processor rejected the line.
    Rejected,
    /// It failed by itself, without being rejected.
    Failed,
    /// The process died too often while it was delivered by itself.
    Died,
    /// An operator parked it.
    Parked,
    /// Not known: format version 1 did not store it.
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Lines = 1,
    Dead = 2,
    Settled = 3,
}

/// Where an entry's body is.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    bytes: u32,
}

/// What is in memory of a dead letter.
#[derive(Clone, Copy, Debug)]
struct Letter {
    place: Place,
    cause: DeadCause,
}

/// The open file, and where its entries are.
pub(crate) struct Retained {
    disk: Arc<dyn Disk>,
    index: Arc<Index>,
    store: StoreId,
    generation: u64,
    file: Box<dyn DiskFile>,
    len: u64,
    /// Something was appended since the last sync.
    is_dirty: bool,
    dead: BTreeMap<GroupId, BTreeMap<Seq, Letter>>,
    /// What could not be read at opening, for people.
    pub(crate) findings: Vec<String>,
}

/// Whether the commit of a dead letter was made: then the group has settled the line, and it was not put back.
fn is_buried(state: &State, (group, seq): (GroupId, Seq)) -> bool {
    state.groups.get(&group).is_some_and(|group| group.acks.contains(seq) && !group.revived.contains(&seq))
}

/// The newest generation in a list of names.
fn newest(names: &[String]) -> Option<u64> {
    names.iter().filter(|name| name.len() == 8).filter_map(|name| name.parse().ok()).max()
}

pub(crate) fn path(generation: u64) -> String {
    format!("{FOLDER}/{generation:08}")
}

pub(crate) fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_BYTES + body.len());
    out.extend_from_slice(&MAGIC);
    out.put_u8(kind as u8);
    out.extend_from_slice(&[0; 3]);
    out.put_u32_le(body.len() as u32);
    out.put_u32_le(crc(kind as u8, body));
    out.extend_from_slice(body);
    out
}

/// The kind and the body of the entry that `bytes` begin with, if it is sound.
pub(crate) fn parse(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (kind, len, expected) = parse_head(bytes)?;
    let body = bytes.get(FRAME_BYTES..)?.get(..len)?;
    (crc(kind, body) == expected).then_some((kind, body))
}

/// Kind, body length and checksum.
fn parse_head(bytes: &[u8]) -> Option<(u8, usize, u32)> {
    let mut get = Get::new(bytes.get(..FRAME_BYTES)?);
    let (magic, kind, _) = (get.array::<4>(), get.u8(), get.array::<3>());
    (magic == MAGIC).then(|| (kind, get.u32() as usize, get.u32()))
}

fn crc(kind: u8, body: &[u8]) -> u32 {
    let mut covered = vec![kind];
    covered.put_u32_le(body.len() as u32);
    crc32c::crc32c_append(crc32c::crc32c(&covered), body)
}

impl DeadLetter {
    /// The most bytes of a reason.
    pub const REASON_BYTES_MAX: usize = 4 * 1024;
}

impl Retained {
    /// Makes the folder and the first generation.
    pub(crate) fn create(disk: &dyn Disk) -> Result<()> {
        disk.make_folder(FOLDER).during("create", FOLDER)?;
        disk.create(&path(1)).during("create", &path(1))?.sync().during("sync", &path(1))?;
        disk.sync_dir(FOLDER).during("sync", FOLDER)
    }

    /// Reads the newest generation. With `write` a torn end is cut off and what a compaction left is removed; otherwise
    /// nothing is changed.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        index: Arc<Index>,
        state: &State,
        write: bool,
    ) -> Result<Retained> {
        let names = disk.list(FOLDER).during("list", FOLDER)?;
        let generation = newest(&names).unwrap_or_default();
        let name = path(generation);
        let file = disk.open(&name, write).during("open", &name)?;
        if write {
            // Otherwise an entry that a failed sync lost would still be in the page cache, and not be written again.
            file.settle().during("sync", &name)?;
        }
        let mut retained = Retained {
            disk: Arc::clone(&disk),
            index,
            store: state.store,
            generation,
            file,
            len: 0,
            is_dirty: false,
            dead: BTreeMap::new(),
            findings: Vec::new(),
        };
        retained.load(state.retained)?;
        if write {
            for other in names.iter().filter(|other| **other != format!("{generation:08}")) {
                let other = format!("{FOLDER}/{other}");
                disk.remove_file(&other).during("remove", &other)?;
            }
            retained.file.set_len(retained.len).during("cut", &name)?;
            retained.end_unburied(state)?;
        }
        retained
            .dead
            .iter_mut()
            .for_each(|(group, dead)| dead.retain(|seq, _| is_buried(state, (*group, *seq))));
        Ok(retained)
    }

    fn load(&mut self, relied: RetainedMark) -> Result<()> {
        let name = path(self.generation);
        let end = self.file.len().during("read", &name)?;
        if self.generation < relied.generation || (self.generation == relied.generation && end < relied.bytes)
        {
            self.findings.push(format!(
                "{name} is {end} bytes long, {} of {} were written",
                relied.bytes,
                path(relied.generation)
            ));
        }
        let mut at = 0;
        while at < end {
            match self.entry(at)? {
                Some((kind, body)) => {
                    let place = Place { at: at + FRAME_BYTES as u64, bytes: body.len() as u32 };
                    at = place.at + u64::from(place.bytes);
                    if let Err(what) = self.note(kind, &body, place) {
                        self.findings.push(format!("{name}: the entry at {}: {what}", place.at));
                    }
                    self.len = at;
                }
                // A torn end is normal after a crash: no commit relies on it. After a failed write there may be sound entries
                // after it, which are removed with it. A generation that no commit relies on yet was written and synced as a
                // whole: in this one, sound entries after an unreadable one show that it is damage and not a torn end.
                None => {
                    let is_known = relied.generation == self.generation;
                    if is_known && at >= relied.bytes {
                        break;
                    }
                    let next = self.next_entry(at + 1, end)?;
                    if is_known || next.is_some() {
                        let bytes = next.unwrap_or(relied.bytes.max(at)) - at;
                        self.findings.push(format!("{name}: {bytes} bytes at {at} cannot be read"));
                    }
                    match next {
                        Some(next) => at = next,
                        None => break,
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends dead letters whose commit a crash prevented: otherwise they would count from the moment the line is acked.
    fn end_unburied(&mut self, state: &State) -> Result<()> {
        let all = self.dead.iter().flat_map(|(group, dead)| dead.keys().map(|seq| (*group, *seq)));
        let unburied: Vec<_> = all.filter(|key| !is_buried(state, *key)).collect();
        for (group, seq) in &unburied {
            self.end_letter(*group, *seq)?;
        }
        if unburied.is_empty() { Ok(()) } else { self.sync() }
    }

    /// Adds an entry to what is known.
    ///
    /// # Errors
    /// What does not match, if the checksum of the entry is right: another version of the program wrote it.
    fn note(&mut self, kind: u8, body: &[u8], place: Place) -> std::result::Result<(), String> {
        if kind == Kind::Lines as u8 {
            if let Ok(header) = BlockHeader::parse(body, self.store) {
                let retained = RetainedPlace {
                    path: path(self.generation),
                    at: place.at,
                    bytes: place.bytes,
                    lines: header.lines,
                };
                let mut index = self.index.lock();
                // Shorter entries within this one are removed from the index: a reader looks at the nearest start only.
                let range = header.range();
                let covered: Vec<Seq> = index
                    .retained
                    .range(range.first..=range.last)
                    .filter(|(first, place)| first.plus(u64::from(place.lines)) <= range.last.next())
                    .map(|(first, _)| *first)
                    .collect();
                for first in covered {
                    index.retained.remove(&first);
                }
                index.retained.insert(header.first, retained);
            }
        } else if kind == Kind::Dead as u8 {
            let (DeadLetter { group, seq, cause, .. }, _) = codec::decode(body)?;
            self.dead.entry(group).or_default().insert(seq, Letter { place, cause });
        } else {
            let ((group, seq), _) = codec::decode::<(GroupId, Seq)>(body)?;
            if let Some(dead) = self.dead.get_mut(&group) {
                dead.remove(&seq);
            }
        }
        Ok(())
    }

    /// The sound entry at `at`, if there is one.
    fn entry(&self, at: u64) -> Result<Option<(u8, Vec<u8>)>> {
        let name = path(self.generation);
        let head = self.file.read_range(at, FRAME_BYTES).during("read", &name)?;
        let end = self.file.len().during("read", &name)?;
        let Some((kind, len, expected)) =
            parse_head(&head).filter(|head| head.1 as u64 <= end.saturating_sub(at))
        else {
            return Ok(None);
        };
        let body = self.file.read_range(at + FRAME_BYTES as u64, len).during("read", &name)?;
        Ok((body.len() == len && crc(kind, &body) == expected).then_some((kind, body)))
    }

    /// The body of an entry that was sound when it was added.
    fn body(&self, place: &Place) -> Result<Vec<u8>> {
        let at = place.at - FRAME_BYTES as u64;
        let entry = self.entry(at)?.filter(|(_, body)| body.len() == place.bytes as usize);
        entry.map(|(_, body)| body).ok_or_else(|| self.damaged(format!("the entry at byte {at} has changed")))
    }

    fn damaged(&self, what: String) -> crate::Error {
        crate::Error::Damaged { path: path(self.generation).into(), what }
    }

    /// The place of the next sound entry from `at` on.
    fn next_entry(&self, mut at: u64, end: u64) -> Result<Option<u64>> {
        let mut buffer = vec![0; 64 * 1024];
        while at < end {
            let read = self.file.read_at(&mut buffer, at).during("read", &path(self.generation))?;
            for found in memchr::memmem::find_iter(buffer.get(..read).unwrap_or_default(), &MAGIC) {
                if self.entry(at + found as u64)?.is_some() {
                    return Ok(Some(at + found as u64));
                }
            }
            if read < buffer.len() {
                break;
            }
            at += (read - MAGIC.len()) as u64;
        }
        Ok(None)
    }

    /// How far a commit may rely on the file after a sync.
    pub(crate) fn mark(&self) -> RetainedMark {
        RetainedMark { generation: self.generation, bytes: self.len }
    }

    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.len
    }

    /// How many dead letters a group has.
    pub(crate) fn dead_count(&self, group: GroupId) -> usize {
        self.dead.get(&group).map_or(0, BTreeMap::len)
    }

    /// The dead letters of a group from `from`, at most `limit`.
    pub(crate) fn dead(&self, group: GroupId, from: Seq, limit: usize) -> Result<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        for place in self
            .dead
            .get(&group)
            .into_iter()
            .flat_map(|dead| dead.range(from..))
            .map(|(_, letter)| &letter.place)
            .take(limit)
        {
            let body = self.body(place)?;
            let decoded = codec::decode::<DeadLetter>(&body).map_err(|what| self.damaged(what))?;
            letters.push(decoded.0);
        }
        Ok(letters)
    }

    /// The seqs of a group's dead letters within `range`.
    pub(crate) fn dead_seqs(&self, group: GroupId, range: SeqRange) -> impl Iterator<Item = Seq> {
        self.dead
            .get(&group)
            .into_iter()
            .flat_map(move |dead| dead.range(range.first..=range.last))
            .map(|(seq, _)| *seq)
    }

    /// As [`crate::Log::rejected_below`].
    pub(crate) fn rejected_below(&self, group: GroupId, seq: Seq, most: u32) -> u32 {
        let Some(dead) = self.dead.get(&group) else { return 0 };
        let mut count = 0;
        let mut above = seq;
        for (below, letter) in dead.range(..seq).rev() {
            if count == most || below.next() != above || letter.cause != DeadCause::Rejected {
                break;
            }
            count += 1;
            above = *below;
        }
        count
    }

    /// Appends the lines of `block` within `range`, unless it has them; durable after [`Retained::sync`].
    pub(crate) fn keep(&mut self, block: &Block, range: SeqRange) -> Result<()> {
        let is_retained = {
            let index = self.index.lock();
            let before = index.retained.range(..=range.first).next_back();
            before.is_some_and(|(first, place)| first.plus(u64::from(place.lines)) > range.last)
        };
        if is_retained {
            return Ok(());
        }
        let mut builder = BlockBuilder::new();
        for line in block.lines().filter(|line| range.contains(line.seq)) {
            match line.flags == crate::LineFlags::WHOLE {
                true => builder.push_whole(line.source, line.offset, line.bytes, 1),
                false => builder.push_marked(line.source, line.offset, line.bytes, line.flags),
            }
        }
        if builder.is_empty() {
            return Ok(());
        }
        let mut body = Vec::new();
        builder.build(block.append_time_ms()).encode(&mut body, self.store, block.commit(), range.first);
        self.append(Kind::Lines, &body)
    }

    /// Appends a dead letter; durable after [`Retained::sync`].
    pub(crate) fn bury(&mut self, letter: &DeadLetter) -> Result<()> {
        let body = codec::encode(letter).map_err(std::io::Error::other).during("encode", "a dead letter")?;
        self.append(Kind::Dead, &body)
    }

    /// Appends the end of a dead letter; durable after [`Retained::sync`].
    pub(crate) fn end_letter(&mut self, group: GroupId, seq: Seq) -> Result<()> {
        let body = codec::encode(&(group, seq)).map_err(std::io::Error::other);
        let body = body.during("encode", "the end of a dead letter")?;
        self.append(Kind::Settled, &body)
    }

    fn append(&mut self, kind: Kind, body: &[u8]) -> Result<()> {
        let bytes = frame(kind, body);
        let name = path(self.generation);
        self.is_dirty = true;
        self.file.write_at(&bytes, self.len).during("write to", &name)?;
        let place = Place { at: self.len + FRAME_BYTES as u64, bytes: body.len() as u32 };
        self.len += bytes.len() as u64;
        self.note(kind as u8, body, place).map_err(std::io::Error::other).during("read back from", &name)
    }

    /// Makes everything durable that was appended. Without an addition since the last one it does nothing.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.is_dirty {
            self.file.sync().during("sync", &path(self.generation))?;
            self.is_dirty = false;
        }
        Ok(())
    }

    /// Whether a group still needs one of these lines.
    fn is_live(&self, state: &State, first: Seq, lines: u32) -> bool {
        let range = SeqRange { first, last: first.plus(u64::from(lines) - 1) };
        state.groups.iter().any(|(id, group)| {
            self.dead_seqs(*id, range).next().is_some()
                || group.acks.gap(range.first, range.last).is_some()
                || group.revived.range(range.first..=range.last).next().is_some()
        })
    }

    /// Writes the live part to a new generation if it is less than half of the file. A crash in between leaves the old
    /// generation, or both, of which opening takes the newer. A damaged entry is an error: in the new generation it would
    /// have a correct checksum.
    pub(crate) fn compact(&mut self, state: &State) -> Result<()> {
        if self.len < COMPACT_BYTES_MIN {
            return Ok(());
        }
        self.dead.retain(|group, _| state.groups.contains_key(group));
        let places = self.index.lock().retained.clone();
        let live: Vec<(Seq, RetainedPlace)> =
            places.into_iter().filter(|(first, place)| self.is_live(state, *first, place.lines)).collect();
        let letters = self.dead.values().flat_map(BTreeMap::values).map(|letter| letter.place.bytes);
        let bodies = live.iter().map(|(_, place)| place.bytes).chain(letters);
        let live_bytes: u64 = bodies.map(|bytes| u64::from(bytes) + FRAME_BYTES as u64).sum();
        if live_bytes > self.len / 2 {
            return Ok(());
        }
        let generation = self.generation + 1;
        let (temporary, name) = (format!("{FOLDER}/.tmp-{generation:08}"), path(generation));
        let file = self.disk.create(&temporary).during("create", &temporary)?;
        let mut len = 0;
        let mut retained = BTreeMap::new();
        let mut dead: BTreeMap<GroupId, BTreeMap<Seq, Letter>> = BTreeMap::new();
        let mut copy = |kind: Kind, at: u64, bytes: u32| -> Result<Place> {
            let framed = frame(kind, &self.body(&Place { at, bytes })?);
            file.write_at(&framed, len).during("write to", &temporary)?;
            let place = Place { at: len + FRAME_BYTES as u64, bytes };
            len += framed.len() as u64;
            Ok(place)
        };
        for (first, place) in live {
            let at = copy(Kind::Lines, place.at, place.bytes)?.at;
            retained.insert(first, RetainedPlace { path: name.clone(), at, ..place });
        }
        for (group, letters) in &self.dead {
            for (seq, Letter { place, cause }) in letters {
                // Byte for byte: a letter of version 1 stays in version 1.
                let place = copy(Kind::Dead, place.at, place.bytes)?;
                dead.entry(*group).or_default().insert(*seq, Letter { place, cause: *cause });
            }
        }
        file.sync().during("sync", &temporary)?;
        self.disk.rename(&temporary, &name).during("rename", &temporary)?;
        self.disk.sync_dir(FOLDER).during("sync", FOLDER)?;
        let old = path(self.generation);
        (self.generation, self.file, self.len, self.dead) = (generation, file, len, dead);
        self.index.lock().retained = retained;
        self.disk.remove_file(&old).during("remove", &old)
    }
}
