//! Whether a data dir goes with the container or with the next reboot: a volume that was forgotten.

use std::path::Path;

use super::Failure;

/// File systems that keep nothing, by the magic numbers of statfs(2).
const VOLATILE: [(u64, &str, &str); 3] = [
    (0x794c_7630, "overlay", "goes with the container"),
    (0x0102_1994, "tmpfs", "goes with the next reboot"),
    (0x8584_58f6, "ramfs", "goes with the next reboot"),
];

/// The sentence that says so, where it is on a file system that keeps nothing. One that does not exist yet is where its
/// folder is.
pub(super) fn volatile(data_dir: &Path) -> Option<String> {
    // What cannot be looked at is not held against it: opening says what is wrong.
    let found = data_dir.ancestors().find_map(|folder| rustix::fs::statfs(folder).ok())?;
    let magic = u64::try_from(found.f_type).unwrap_or_default() & 0xffff_ffff;
    let (_, name, goes) = VOLATILE.iter().find(|(volatile, ..)| *volatile == magic)?;
    Some(format!("{} is on {name}: everything in it {goes}", data_dir.display()))
}

/// Refuses such a data dir.
///
/// # Errors
/// With the name of the file system, and what to do.
pub(super) fn refuse_volatile(data_dir: &Path) -> Result<(), Failure> {
    volatile(data_dir).map_or(Ok(()), |what| {
        Err(Failure::could_not_run(what)
            .hint("name a folder on a disk or a mounted volume with --data-dir, or say --allow-volatile"))
    })
}
