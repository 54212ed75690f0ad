//! Repair: what of a damaged store can be read is retained, what cannot is named and set aside.
//!
//! Everything is worked out first, changing nothing: [`evidence`] from the journals, [`plan`] from the segment
//! files. [`apply`] then writes, in an order that may be cut short anywhere: MARK, last but one, is the commit
//! point, and what is damaged is moved or linked to `quarantine/` before anything takes its name. Nothing is deleted
//! that is not there under another name.

mod apply;
mod evidence;
mod plan;
mod source_end;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub use source_end::SourceEnd;

use crate::acks::AckSet;
use crate::block::{BLOCK_MAGIC, BlockHeader};
use crate::create::refuse_foreign;
use crate::disk::Disk;
use crate::disk::real::RealDisk;
use crate::error::{Context, Error, Result};
use crate::group_state::GroupState;
use crate::ids::{Seq, SeqRange, SourceId, StoreId};
use crate::journal;
use crate::lock::Lock;
use crate::loss::Loss;
use crate::manifest::{SourceState, State};
use crate::mark::{self, Found, Mark, MarkFile};
use crate::private;
use crate::ranges::{union, without};
use crate::recover::{self, Store};
use crate::retained::survey::Survey;
use crate::segment;
use crate::view::View;
use apply::{Intent, apply};
use evidence::Evidence;
use plan::Plan;
#[cfg(feature = "fuzzing")]
pub(crate) use plan::blocks as scan;

/// What a repair found and did; with `dry_run`, what it would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What is not as it should be. Empty: the store is sound, and nothing was changed.
    pub findings: Vec<String>,
    /// Lines that are lost, in addition to those that were recorded before.
    pub losses: Vec<Loss>,
    /// Names in `quarantine/`.
    pub quarantined: Vec<String>,
    /// Sources whose checkpoint was made again from their stored lines.
    pub raised: Vec<SourceId>,
    /// Sources whose checkpoint is older than their stored lines, or gone, and could not be made again, with the
    /// reason: their files are read again, and lines come twice.
    pub read_again: Vec<(SourceId, String)>,
    /// Lines in segment files afterwards.
    pub lines: u64,
}

/// Makes the checkpoint of a source reach the end of its stored lines: gets that end and the checkpoint, if one is
/// there; gives the new one, `None` where the old one is fine, or why it cannot.
pub type Remake<'a> =
    &'a mut dyn FnMut(&SourceEnd, Option<&[u8]>) -> std::result::Result<Option<Vec<u8>>, String>;

/// Repairs the store in `dir`, which nobody has open. With `dry_run` nothing is changed. May be killed at any point
/// and begun again; a second run finds nothing to do.
///
/// # Errors
/// [`Error::Damaged`] when not even the store's id can be found; and as [`crate::Log::open`].
pub fn repair(dir: &Path, dry_run: bool, remake: Remake<'_>) -> Result<Repaired> {
    if !["MARK", journal::FOLDER, segment::FOLDER].iter().any(|name| dir.join(name).exists()) {
        refuse_foreign(dir)?;
        return Err(Error::Missing { path: dir.to_owned() });
    }
    if !dry_run {
        private::ensure(dir)?;
    }
    let _lock = Lock::take(dir, !dry_run)?;
    on_disk(&(Arc::new(RealDisk::new(dir)) as Arc<dyn Disk>), dry_run, remake)
        .map_err(|error| error.under(dir))
}

pub(crate) fn on_disk(disk: &Arc<dyn Disk>, dry_run: bool, remake: Remake<'_>) -> Result<Repaired> {
    let (trusted, mut findings) = match recover::read(disk.as_ref()) {
        Ok(Store::Absent) => return Err(Error::Missing { path: "".into() }),
        Ok(Store::Recovered(recovered)) => {
            let view = View::on_disk(Arc::clone(disk), Path::new(""), None);
            let found = view.map_or_else(|error| vec![error.to_string()], |view| view.verify(&mut |_| {}));
            if found.is_empty() {
                let state = &recovered.state;
                let lines = state.next_seq.0 - state.first_seq().0;
                return Ok(Repaired { lines, ..Repaired::default() });
            }
            (Some(recovered.state), found)
        }
        Err(error @ (Error::Damaged { .. } | Error::NotAStore { .. })) => (None, vec![error.to_string()]),
        Err(error) => return Err(error),
    };
    let (mut repaired, intent) = prepare(disk.as_ref(), trusted, remake)?;
    findings.append(&mut repaired.findings);
    repaired.findings = findings;
    if !dry_run {
        repaired.quarantined = apply(disk.as_ref(), intent)?;
        let view = View::on_disk(Arc::clone(disk), Path::new(""), None)?;
        if let Some(left) = view.verify(&mut |_| {}).into_iter().next() {
            return Err(Error::Damaged { path: "".into(), what: format!("after the repair: {left}") });
        }
    }
    Ok(repaired)
}

fn prepare(disk: &dyn Disk, trusted: Option<State>, remake: Remake<'_>) -> Result<(Repaired, Intent)> {
    let marks = marks(disk)?;
    let newest_mark = marks.iter().max_by_key(|mark| mark.commit);
    let mut evidence = Evidence::gather(disk)?;
    let mut repaired = Repaired::default();
    let store = match trusted.as_ref().map(|state| state.store).or(newest_mark.map(|mark| mark.store)) {
        Some(store) => store,
        None => match evidence.store() {
            Some(store) => store,
            None => store_of_segments(disk)?,
        },
    };
    let newest_commit = evidence.newest_commit(store).max(newest_mark.map_or(0, |mark| mark.commit));
    let is_trusted = trusted.is_some();
    let plan = Plan::of(disk, store, trusted.as_ref(), evidence.pieces(store))?;
    let mut derived = match trusted {
        Some(state) => evidence::Derived::certain(state),
        None => evidence.derive(store, newest_mark.map_or(0, |mark| mark.commit)),
    };
    let state = &mut derived.state;
    let retained = Survey::of(disk, store, state.retained)?;
    if !is_trusted {
        repaired.findings.append(&mut evidence.findings);
        repaired.findings.extend(plan.findings.iter().chain(&retained.findings).cloned());
    }
    state.next_seq = [
        Some(state.next_seq),
        marks.iter().map(|mark| mark.next_seq).max(),
        plan.held.last().map(|range| range.last.next()),
        retained.lines.iter().map(|range| range.last.next()).max(),
        retained.letters.iter().map(|(_, seq)| seq.next()).max(),
        state.groups.values().map(|group| group.acks.last().next()).max(),
    ]
    .into_iter()
    .flatten()
    .max()
    .unwrap_or(Seq::FIRST);
    // Where no journal says it, older files that are not there were compacted: only what a group waits for is
    // missed.
    let known = is_trusted.then(|| state.first_seq());
    let there = plan.files.iter().find(|file| !file.pieces.is_empty()).map(|file| file.meta.first);
    let first = known.or(there).unwrap_or(state.next_seq);
    if !derived.has_manifest {
        remember_groups(state, &retained, first);
    }
    for range in lost(state, &plan.held, &retained, first) {
        let reason = "no file holds them in a form that can be read; set aside by repair".to_owned();
        repaired.losses.push(Loss::unreadable(range, reason));
    }
    repaired.losses.iter().for_each(|loss| state.lose(loss.clone()));
    state.segments = plan.files.iter().filter(|file| !file.pieces.is_empty()).map(|file| file.meta).collect();
    repaired.lines = plan.held.iter().map(|range| range.lines()).sum();
    state.run = state.run.max(1);
    state.journal = evidence
        .newest_journal
        .max(state.journal)
        .max(marks.iter().map(|mark| mark.journal).max().unwrap_or(0))
        + 1;
    state.commit = newest_commit.max(state.commit).max(plan.newest_commit) + 1;
    let Plan { ends, .. } = &plan;
    for end in ends.ends() {
        let known = derived.checkpoint_commits.get(&end.source).copied().unwrap_or_default();
        checkpoint(state, &end, !is_trusted && end.commit > known, remake, &mut repaired);
    }
    let damaged_journals = if derived.is_whole { Vec::new() } else { evidence.journals };
    let mark_is_damaged = marks.is_empty();
    Ok((repaired, Intent { state: derived.state, plan, retained, damaged_journals, mark_is_damaged }))
}

fn marks(disk: &dyn Disk) -> Result<Vec<Mark>> {
    let mut marks = Vec::new();
    for slot in MarkFile::slots(disk)? {
        match slot {
            Found::Mark(mark) => marks.push(mark),
            Found::Version(found) => return Err(mark::unknown(found)),
            Found::Nothing => {}
        }
    }
    Ok(marks)
}

/// Whose store it is, by its blocks alone.
fn store_of_segments(disk: &dyn Disk) -> Result<StoreId> {
    if disk.exists(segment::FOLDER).during("look for", segment::FOLDER)? {
        for name in disk.list(segment::FOLDER).during("list", segment::FOLDER)? {
            let name = format!("{}/{name}", segment::FOLDER);
            let bytes = disk.open(&name, false).and_then(|file| file.read_all()).during("read", &name)?;
            for at in memchr::memmem::find_iter(&bytes, &BLOCK_MAGIC) {
                let rest = bytes.get(at..).unwrap_or_default();
                if let Some(store) = BlockHeader::store(rest) {
                    return Ok(store);
                }
            }
        }
    }
    let what =
        "neither MARK nor a journal nor a segment says whose store it is: nothing can be read".to_owned();
    Err(Error::Damaged { path: "".into(), what })
}

/// Without a manifest nothing says which groups there were. `default` gets every line that is held, and each group
/// that has dead letters is there again under a name of its own, so that they can be looked at and exported.
fn remember_groups(state: &mut State, retained: &Survey, first: Seq) {
    let ids: std::collections::BTreeSet<_> = retained.letters.iter().map(|letter| letter.0).collect();
    for id in ids {
        let group = GroupState::empty(&format!("lost-{}", id.0), state.next_seq.prev());
        state.restore_group(id, group);
    }
    let mut acks = AckSet::default();
    let below = SeqRange::new(Seq::FIRST, first.prev()).into_iter().collect();
    for range in without(below, retained.lines.iter().copied()) {
        acks.insert(range);
    }
    state.add_group(GroupState { acks, ..GroupState::empty("default", Seq(0)) });
}

/// Seqs that nobody holds and that somebody could ask for.
fn lost(state: &State, held: &[SeqRange], retained: &Survey, first: Seq) -> Vec<SeqRange> {
    let is_held = |seq: Seq| held.iter().any(|range| range.contains(seq));
    let all = SeqRange::new(first, state.next_seq.prev());
    let below = SeqRange::new(Seq::FIRST, first.prev());
    let mut missing = without(all.into_iter().collect(), held.iter().copied());
    let mut alone: Vec<Seq> = retained.letters.iter().map(|(_, seq)| *seq).collect();
    for group in state.groups.values() {
        missing.extend(below.into_iter().flat_map(|below| group.acks.gaps(below)));
        alone.extend(&group.revived);
    }
    missing.extend(alone.into_iter().filter(|seq| !is_held(*seq)).map(SeqRange::one));
    let missing = without(union(missing), retained.lines.iter().copied());
    missing.into_iter().flat_map(|range| state.not_lost(range)).collect()
}

/// Notes the last line of a source, and raises its checkpoint where a later commit's was lost.
fn checkpoint(
    state: &mut State,
    end: &SourceEnd,
    is_behind: bool,
    remake: Remake<'_>,
    repaired: &mut Repaired,
) {
    state.next_source = SourceId(state.next_source.0.max(end.source.0 + 1));
    if is_behind {
        let there = state.sources.get(&end.source).map(|source| source.checkpoint.clone());
        match remake(end, there.as_deref()) {
            Ok(Some(checkpoint)) => {
                let raised = SourceState { checkpoint, last_seq: end.last_seq, forgotten: false };
                state.sources.insert(end.source, raised);
                repaired.raised.push(end.source);
            }
            Ok(None) => {}
            Err(why) => repaired.read_again.push((end.source, why)),
        }
    }
    if let Some(source) = state.sources.get_mut(&end.source) {
        source.last_seq = source.last_seq.max(end.last_seq);
    }
}
