//! Repair of a damaged store: what can be read is kept, other lines are recorded as lost, and damaged files are moved to
//! `quarantine/`.
//!
//! The new state is worked out first, changing nothing: from the journals (`evidence.rs`) and from the segment files
//! (`plan.rs`). Then it is written (`apply.rs`), in an order that a kill may interrupt anywhere: MARK, last but one, is the
//! commit point, and a damaged file is moved or linked to `quarantine/` before another takes its name. No damaged file is
//! deleted that does not exist there.

mod apply;
mod evidence;
mod plan;
mod source_end;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub use source_end::SourceEnd;

pub use crate::quarantine::Quarantined;

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

/// What a repair found and did; in a dry run, what it would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What is wrong. If empty, the store is sound, and nothing was changed.
    pub findings: Vec<String>,
    /// Lines that are lost, in addition to those that were recorded before.
    pub losses: Vec<Loss>,
    /// Names of the files moved to `quarantine/`.
    pub quarantined: Vec<String>,
    /// Sources whose checkpoint was made from their stored lines.
    pub raised: Vec<SourceId>,
    /// Sources whose checkpoint is older than their stored lines, or lost, and why no other could be made: they are read
    /// again, and their lines are stored twice.
    pub read_again: Vec<(SourceId, String)>,
    /// Lines in segment files afterwards.
    pub lines: u64,
}

/// Makes a checkpoint that reaches the end of the stored lines of a source. It gets that end, and the checkpoint if there
/// is one. It returns the new checkpoint, `None` if the old one is right, or why it cannot make one.
pub type Remake<'a> =
    &'a mut dyn FnMut(&SourceEnd, Option<&[u8]>) -> std::result::Result<Option<Vec<u8>>, String>;

/// Repairs the store in `dir`, which must not be open. With `dry_run` nothing is changed. After a kill at any point it can
/// be started again; on a repaired store it does nothing.
///
/// # Errors
/// [`Error::Damaged`] if not even the identity of the store is known; and as [`crate::Log::open`].
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
    // Without a journal, older segments that do not exist may have been compacted: only lines that a group waits for
    // count as lost.
    let known = is_trusted.then(|| state.first_seq());
    let oldest = plan.files.iter().find(|file| !file.pieces.is_empty()).map(|file| file.meta.first);
    let first = known.or(oldest).unwrap_or(state.next_seq);
    if !derived.has_manifest {
        make_groups(state, &retained, first);
    }
    for range in lost(state, &plan.held, &retained, first) {
        let reason = "no file holds them in a form that can be read; found by repair".to_owned();
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
        let known = state.sources.get(&end.source).map_or(Seq(0), |source| source.last_seq);
        checkpoint(state, &end, !is_trusted && end.last_seq > known, remake, &mut repaired);
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

/// The identity of the store, from its blocks.
fn store_of_segments(disk: &dyn Disk) -> Result<StoreId> {
    for name in disk.list_if_exists(segment::FOLDER).during("list", segment::FOLDER)? {
        let name = format!("{}/{name}", segment::FOLDER);
        let bytes = disk.open(&name, false).and_then(|file| file.read_all()).during("read", &name)?;
        let store = |at| BlockHeader::store(bytes.get(at..).unwrap_or_default());
        if let Some(store) = memchr::memmem::find_iter(&bytes, &BLOCK_MAGIC).find_map(store) {
            return Ok(store);
        }
    }
    let what = "neither MARK nor a journal nor a segment has the identity of the store: nothing can be read"
        .to_owned();
    Err(Error::Damaged { path: "".into(), what })
}

/// Makes groups if there is no manifest: `default`, for which every line that is held waits, and for each group that has
/// dead letters a group `lost-N`, so that they can be shown and exported.
fn make_groups(state: &mut State, retained: &Survey, first: Seq) {
    let ids: std::collections::BTreeSet<_> = retained.letters.iter().map(|letter| letter.0).collect();
    for id in ids {
        let group = GroupState::empty(&format!("lost-{}", id.0), state.next_seq.prev());
        state.readd_group(id, group);
    }
    let mut acks = AckSet::default();
    let below = SeqRange::new(Seq::FIRST, first.prev()).into_iter().collect();
    for range in without(below, retained.lines.iter().copied()) {
        acks.insert(range);
    }
    state.add_group(GroupState { acks, ..GroupState::empty("default", Seq(0)) });
}

/// Lines that no file holds and that a group could need.
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

/// Records the last line of a source, and makes its checkpoint again if that of a later commit was lost.
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
