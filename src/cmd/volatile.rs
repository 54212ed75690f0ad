//! Whether a data dir goes with the container or with the next reboot: a volume that was forgotten.

use std::path::Path;

use super::Failure;

/// File systems that keep nothing, by the magic numbers of statfs(2).
const VOLATILE: [(u64, &str, &str); 3] = [
    (0x794c_7630, "overlay", "goes with the container"),
    (0x0102_1994, "tmpfs", "goes with the next reboot"),
    (0x8584_58f6, "ramfs", "goes with the next reboot"),
];

/// Refuses a data dir on a file system that keeps nothing. One that does not exist yet is where its folder is.
///
/// # Errors
/// With the name of the file system, and what to do.
pub(super) fn refuse_volatile(data_dir: &Path) -> Result<(), Failure> {
    // What cannot be looked at is not held against it: opening says what is wrong.
    let found = data_dir.ancestors().find_map(|folder| rustix::fs::statfs(folder).ok());
    let magic = found.map(|found| u64::try_from(found.f_type).unwrap_or_default() & 0xffff_ffff);
    let Some((_, name, goes)) = VOLATILE.iter().find(|(volatile, ..)| Some(*volatile) == magic) else {
        return Ok(());
    };
    Err(Failure::could_not_run(format!("{} is on {name}: everything in it {goes}", data_dir.display()))
        .hint("name a folder on a disk or a mounted volume with --data-dir, or say --allow-volatile"))
}
