//! What verdicts need and the owner does not know: the state of the disk, and of the files that the tail reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::read_only::is_read_only;
use crate::plain::{counted, number};
use crate::queue::Status;
use crate::supervise::{AtRisk, LeftOut, Outside, WhyUnreadable};
use crate::tail::{LeftOutFiles, Snapshot, SourceRecord, SourceState, SourceStatus, TailHandle};

/// How many files a finding names.
const FILES_NAMED_MAX: usize = 20;

/// Bytes that the file system of the data dir has free for users other than root.
#[must_use]
pub fn free_bytes(data_dir: &Path) -> Option<u64> {
    rustix::fs::statvfs(data_dir).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The offset up to which the lines of a file are in the log.
fn stored(status: &Status, source: &SourceStatus) -> u64 {
    // The owner sorts them by number.
    let at = status.sources.binary_search_by_key(&source.source, |(id, _)| *id).ok();
    let checkpoint = at.and_then(|at| status.sources.get(at));
    let record = checkpoint.and_then(|(_, bytes)| SourceRecord::decode(bytes).ok());
    record.map_or(0, |record| record.offset).min(source.offset)
}

/// Bytes that the file system has in total, without those reserved for root.
#[must_use]
pub fn file_system_bytes(data_dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(data_dir).ok()?;
    // What only root may use counts neither as free nor as used.
    let reserved = stat.f_bfree.saturating_sub(stat.f_bavail);
    Some(stat.f_blocks.saturating_sub(reserved).saturating_mul(stat.f_frsize))
}

/// What verdicts need and the owner does not know.
#[must_use]
pub fn outside(data_dir: &Path, tail: Option<&TailHandle>, status: &Status) -> Outside {
    look_outside(data_dir, tail, status).0
}

/// The same, and the snapshot of the tail that it was made from.
pub(super) fn look_outside(
    data_dir: &Path,
    tail: Option<&TailHandle>,
    status: &Status,
) -> (Outside, Option<Arc<Snapshot>>) {
    let free_bytes = free_bytes(data_dir);
    let file_system_bytes = file_system_bytes(data_dir);
    let is_read_only = is_read_only(data_dir);
    // Read before the status is requested: answering that must not look like a round that hangs.
    let tail_busy_ms = tail.and_then(TailHandle::busy_ms);
    let Some(snapshot) = tail.map(TailHandle::status) else {
        return (Outside { free_bytes, file_system_bytes, is_read_only, ..Outside::default() }, None);
    };
    let rotated = snapshot.sources.iter().filter(|one| one.rotated);
    let at_risk = rotated.filter_map(|one| {
        // Bytes that were read and wait for the log are as safe as those of an open file: the process has them.
        let bytes = one.size.saturating_sub(stored(status, one));
        let held_open = one.held_open || one.offset >= one.size;
        (bytes > 0).then(|| AtRisk { path: one.path.clone(), bytes, held_open })
    });
    let outside = Outside {
        free_bytes,
        file_system_bytes,
        is_read_only,
        follows_nothing: follows_nothing(&snapshot),
        programs_missing: BTreeMap::new(),
        unread_bytes: snapshot.sources.iter().map(|one| one.size.saturating_sub(one.offset)).sum(),
        tail_busy_ms,
        at_risk: at_risk.collect(),
        unreadable: unreadable_of(&snapshot),
        unreadable_files: unreadable_files(&snapshot),
        left_out: LeftOut {
            files: snapshot.left_out.files as u64,
            named: snapshot.left_out.named.clone(),
            limit: snapshot.left_out.limit as u64,
        },
    };
    (outside, Some(snapshot))
}

/// Whether a scan found nothing that a glob names, not even an empty file, and nothing else is followed.
fn follows_nothing(snapshot: &Snapshot) -> bool {
    snapshot.counters.scans > 0
        && snapshot.matched_files == 0
        && snapshot.sources.is_empty()
        && snapshot.refused.is_empty()
}

/// The matching files that the tail did not read, each with the reason, at most [`FILES_NAMED_MAX`] by name.
#[must_use]
pub fn unread(tail: &TailHandle) -> Vec<String> {
    let snapshot = tail.status();
    let named = unreadable_of(&snapshot);
    let more = unreadable_files(&snapshot).saturating_sub(named.len() as u64);
    let named = named.into_iter().map(|(_, found, _)| found);
    let more = (more > 0).then(|| format!("{} more cannot be read", counted(more, "file")));
    named.chain(more).chain(without_place(&snapshot.left_out)).collect()
}

/// The files beyond the limit of followed files, with an example and the next step.
fn without_place(left_out: &LeftOutFiles) -> Option<String> {
    let example = left_out.named.first()?;
    let (files, limit) = (counted(left_out.files as u64, "file"), counted(left_out.limit as u64, "file"));
    let kept = match left_out.inactive as u64 {
        0 => String::new(),
        kept => format!(", {} of them kept for files that matched in earlier runs", number(kept)),
    };
    Some(format!(
        "{files}, for example {}: at most {limit} are followed for one data dir{kept}; read the others with another \
         data dir and narrower globs, or delete finished files and run again",
        example.display()
    ))
}

/// Files that match and cannot be read, and folders that cannot be listed.
pub(super) fn unreadable_files(snapshot: &Snapshot) -> u64 {
    let failed = snapshot.sources.iter().filter(|one| one.state == SourceState::Failed).count();
    (failed + snapshot.refused_files) as u64
}

fn unreadable_of(snapshot: &Snapshot) -> Vec<(PathBuf, String, WhyUnreadable)> {
    let failed = snapshot.sources.iter().filter(|one| one.state == SourceState::Failed);
    let failed = failed.filter_map(|one| Some((&one.path, one.last_error.as_ref()?)));
    let refused = snapshot.refused.iter().map(|(path, one)| (path, one));
    let all = failed.chain(refused).take(FILES_NAMED_MAX);
    all.map(|(path, one)| (path.clone(), one.found.clone(), one.why)).collect()
}
