//! The folder of damaged files, `quarantine/`. Only their number and size are read; nothing in it is ever removed.

use crate::disk::Disk;

/// Where damaged files go.
pub(crate) const FOLDER: &str = "quarantine";

/// Damaged files that repairs have moved to `quarantine/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// How many files, including those of journals.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Quarantined {
    /// Counts them. Files that cannot be opened are not counted.
    pub(crate) fn count(disk: &dyn Disk) -> Quarantined {
        let mut counted = Quarantined::default();
        // A journal is a folder with a folder for blobs: at most two levels.
        let mut folders = vec![FOLDER.to_owned()];
        while let Some(folder) = folders.pop() {
            for name in disk.list(&folder).unwrap_or_default() {
                let path = format!("{folder}/{name}");
                if disk.list(&path).is_ok() {
                    folders.push(path);
                } else if let Ok(bytes) = disk.open(&path, false).and_then(|file| file.len()) {
                    counted.files += 1;
                    counted.bytes += bytes;
                }
            }
        }
        counted
    }
}
