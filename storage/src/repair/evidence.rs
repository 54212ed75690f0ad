//! What a damaged store still has: every chunk of every journal, SPARE, and the best state that follows from them.
//!
//! The sound chunks of all journals are in memory: some 10 MiB each, of rarely more than two journals.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec;
use crate::commit::Changes;
use crate::disk::Disk;
use crate::error::{Context, Result};
use crate::ids::StoreId;
use crate::journal::{self, ChunkHeader};
use crate::manifest::State;
use crate::record::Record;
use crate::spare;

/// Chunks of one store's journals, by commit and chunk.
#[derive(Default)]
struct Commit {
    chunks: u32,
    payloads: BTreeMap<u32, Vec<u8>>,
}

/// What journals and SPARE have.
#[derive(Default)]
pub(crate) struct Evidence {
    commits: BTreeMap<(StoreKey, u64), Commit>,
    spare: Option<State>,
    /// The folders of journals.
    pub(crate) journals: Vec<String>,
    /// The highest number of a journal seen anywhere.
    pub(crate) newest_journal: u64,
    pub(crate) findings: Vec<String>,
}

/// The number of a [`StoreId`], which has no order.
type StoreKey = u64;

/// The state that follows from the evidence, and how much of it is certain.
pub(crate) struct Derived {
    pub(crate) state: State,
    /// Whether there was a manifest.
    pub(crate) has_manifest: bool,
    /// Whether nothing in the journals is damaged.
    pub(crate) is_whole: bool,
}

impl Derived {
    /// The state of a store that opens.
    pub(crate) fn certain(state: State) -> Derived {
        Derived { state, has_manifest: true, is_whole: true }
    }
}

impl Evidence {
    pub(crate) fn gather(disk: &dyn Disk) -> Result<Evidence> {
        let mut evidence = Evidence::default();
        match spare::read(disk)? {
            Ok(state) => evidence.spare = Some(state),
            Err(what) => evidence.findings.push(what),
        }
        for name in disk.list_if_exists(journal::FOLDER).during("list", journal::FOLDER)? {
            let folder = format!("{}/{name}", journal::FOLDER);
            evidence.newest_journal =
                evidence.newest_journal.max(journal::number_of(&name).unwrap_or_default());
            if let Ok(raw) = disk.open_journal_raw(&folder) {
                raw.forget_cached().during("drop the cached pages of", &folder)?;
                journal::scan(raw.as_ref(), |header, _, payload| evidence.note(&header, payload))
                    .during("read", &folder)?;
            }
            // sled may show chunks that the scan does not find. Its errors add nothing.
            let copy = disk.read_journal_copy(&folder, &mut |value| {
                if let Some((header, payload)) = journal::sound_chunk(value) {
                    evidence.note(&header, payload);
                }
            });
            if let Err(error) = copy {
                tracing::debug!(folder, %error, "sled does not open the copy of a journal");
            }
            evidence.journals.push(folder);
        }
        Ok(evidence)
    }

    fn note(&mut self, header: &ChunkHeader, payload: &[u8]) {
        self.newest_journal = self.newest_journal.max(header.journal);
        let commit = self.commits.entry((header.store.0, header.commit)).or_default();
        commit.chunks = header.chunks;
        commit.payloads.entry(header.chunk).or_insert_with(|| payload.to_owned());
    }

    /// The store of most chunks.
    pub(crate) fn store(&self) -> Option<StoreId> {
        let mut counts = BTreeMap::<u64, usize>::new();
        for ((store, _), commit) in &self.commits {
            *counts.entry(*store).or_default() += commit.payloads.len();
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(store, _)| StoreId(store));
        most.or(self.spare.as_ref().map(|state| state.store))
    }

    pub(crate) fn newest_commit(&self, store: StoreId) -> u64 {
        self.newest_chunk(store).max(self.spare.as_ref().map_or(0, |state| state.commit))
    }

    fn newest_chunk(&self, store: StoreId) -> u64 {
        self.commits.range((store.0, 0)..=(store.0, u64::MAX)).next_back().map_or(0, |(key, _)| key.1)
    }

    /// The consecutive bytes of each commit: one piece of a whole commit, several of another.
    pub(crate) fn pieces(&self, store: StoreId) -> impl Iterator<Item = Vec<u8>> {
        let commits = self.commits.range((store.0, 0)..=(store.0, u64::MAX));
        commits.flat_map(|(_, commit)| {
            let mut pieces: Vec<Vec<u8>> = Vec::new();
            let mut next = None;
            for (chunk, payload) in &commit.payloads {
                match pieces.last_mut().filter(|_| next == Some(*chunk)) {
                    Some(piece) => piece.extend_from_slice(payload),
                    None => pieces.push(payload.clone()),
                }
                next = Some(chunk + 1);
            }
            pieces
        })
    }

    /// The best state: from the newest manifest, and every whole commit after it. `durable` is the newest commit that MARK
    /// has: a later one that is not whole was interrupted by a crash, and not acknowledged.
    pub(crate) fn derive(&mut self, store: StoreId, durable: u64) -> Derived {
        let durable = durable.max(self.newest_chunk(store).saturating_sub(1));
        let mut records = BTreeMap::new();
        let mut broken = BTreeSet::new();
        for ((_, number), commit) in self.commits.range((store.0, 0)..=(store.0, u64::MAX)) {
            let whole = (0..commit.chunks).all(|chunk| commit.payloads.contains_key(&chunk));
            let bytes: Vec<u8> = commit.payloads.values().flatten().copied().collect();
            match codec::decode::<Record>(&bytes) {
                // The record comes first: it may be whole although a block after it is not.
                Ok((record, _)) if whole || *number <= durable => {
                    records.insert(*number, record);
                }
                _ if *number <= durable => drop(broken.insert(*number)),
                _ => {}
            }
        }
        let newest = records.iter().rev().find_map(|(number, record)| match record {
            Record::Manifest(state) if state.store == store && state.commit == *number => {
                Some((**state).clone())
            }
            _ => None,
        });
        let spare = self.spare.take().filter(|state| state.store == store);
        let base = newest.into_iter().chain(spare).max_by_key(|state| state.commit);
        let has_manifest = base.is_some();
        let mut state = base.unwrap_or_else(|| State::new(store));
        let (begin, mut gap) = (state.commit, !has_manifest);
        for (number, record) in records {
            let Record::Changes(changes) = record else { continue };
            if number <= begin && has_manifest {
                continue;
            }
            gap |= number != state.commit + 1;
            let changes = if gap { certain(changes) } else { changes };
            state.apply(number, &changes);
        }
        let lost: Vec<String> =
            broken.iter().filter(|number| **number > begin).map(ToString::to_string).collect();
        if !lost.is_empty() {
            self.findings.push(format!(
                "commits that cannot be read: {}; acks in them are lost, so those lines are delivered again",
                lost.join(", ")
            ));
        }
        if !has_manifest {
            self.findings.push(
                "no manifest can be read: all acks are lost, and every line that is held is delivered again"
                    .to_owned(),
            );
        }
        let is_whole = broken.is_empty() && !gap;
        Derived { state, has_manifest, is_whole }
    }
}

/// What of a commit is certain without those before it. Blocks are found by the scan of segments, and the number of a new
/// group depends on earlier groups.
fn certain(changes: Changes) -> Changes {
    Changes { blocks: Vec::new(), add_groups: Vec::new(), ..changes }
}
