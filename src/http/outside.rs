//! What verdicts need and the owner does not know: the state of the disk, and of the files that the tail reads.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{StatVfsMountFlags, major, minor, statvfs};

use crate::plain::{counted, number};
use crate::queue::Status;
use crate::supervise::{AtRisk, LeftOut, Outside, WhyUnreadable};
use crate::tail::{LeftOutFiles, Snapshot, SourceRecord, SourceState, SourceStatus, TailHandle};

/// How many files a finding names.
const FILES_NAMED_MAX: usize = 20;

/// Bytes that the file system of the data dir has free for users other than root.
#[must_use]
pub fn free_bytes(data_dir: &Path) -> Option<u64> {
    statvfs(data_dir).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
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
    let stat = statvfs(data_dir).ok()?;
    // What only root may use counts neither as free nor as used.
    let reserved = stat.f_bfree.saturating_sub(stat.f_bavail);
    Some(stat.f_blocks.saturating_sub(reserved).saturating_mul(stat.f_frsize))
}

/// Whether the file system of the data dir is read-only: mounted so, or made so by the kernel after an error. `false` if that
/// cannot be found out.
#[must_use]
pub fn is_read_only(data_dir: &Path) -> bool {
    let Ok(stat) = statvfs(data_dir) else { return false };
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return true;
    }
    let Ok(folder) = fs::metadata(data_dir) else { return false };
    let device = format!("{}:{}", major(folder.dev()), minor(folder.dev()));
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| was_made_read_only(&mounts, &device))
}

/// Whether a device's options in `/proc/self/mountinfo` say so. Since Linux 6.14 ext4 shows it only there, and not in
/// statvfs(3).
fn was_made_read_only(mounts: &str, device: &str) -> bool {
    let options = |line: &str| {
        let mut fields = line.split(' ');
        (fields.nth(2) == Some(device)).then(|| line.rsplit(' ').next().unwrap_or_default().to_owned())
    };
    let is_so = |options: String| options.split(',').any(|option| ["ro", "emergency_ro"].contains(&option));
    mounts.lines().filter_map(options).any(is_so)
}

/// What verdicts need and the owner does not know, and the snapshot of the tail that it was made from.
#[must_use]
pub fn outside(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emergency_is_found_in_the_options_of_the_device_alone() {
        let mounts = "42 27 7:0 / /m rw,relatime - ext4 /dev/loop0 rw,abort,errors=remount-ro,emergency_ro\n\
                      43 27 7:1 / /emergency_ro rw,relatime - ext4 /dev/loop1 rw,errors=remount-ro\n\
                      44 27 7:2 / /bind ro,relatime - ext4 /dev/loop2 rw\n\
                      45 27 7:3 / /x rw - ext4 /dev/loop3 ro\n";
        let found = ["7:0", "7:1", "7:2", "7:3", "7:4"].map(|device| was_made_read_only(mounts, device));
        // A read-only bind mount does not make the device read-only: statvfs answers for the mount itself.
        assert_eq!(found, [true, false, false, true, false]);
        assert!(!was_made_read_only("torn", "7:0"));
    }
}
