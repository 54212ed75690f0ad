//! Whether the file system of the data dir is read-only: mounted so, or made so by the kernel after an error.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, major, minor, statvfs};

/// Whether no user can write there. `false` if that cannot be found out.
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
