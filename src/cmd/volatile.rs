//! Whether a data dir is lost with the container or with the next reboot, because a volume was forgotten.

use std::path::Path;

/// File systems that keep nothing, by the magic numbers of statfs(2).
const VOLATILE: [(u64, &str, &str); 3] = [
    (0x794c_7630, "overlay", "is lost with the container"),
    (0x0102_1994, "tmpfs", "is lost with the next reboot"),
    (0x8584_58f6, "ramfs", "is lost with the next reboot"),
];

/// The warning about a data dir on such a file system. For one that does not exist yet, the folder above it counts.
pub(super) fn volatile(data_dir: &Path) -> Option<String> {
    // If that cannot be read, opening the store reports why.
    let found = data_dir.ancestors().find_map(|folder| rustix::fs::statfs(folder).ok())?;
    let magic = u64::try_from(found.f_type).unwrap_or_default() & 0xffff_ffff;
    let (_, name, goes) = VOLATILE.iter().find(|(volatile, ..)| *volatile == magic)?;
    Some(format!("{} is on {name}: everything in it {goes}", data_dir.display()))
}
