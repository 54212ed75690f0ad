//! What is in `quarantine/`: counted for `status`. Nothing in there is ever read or removed.

use crate::disk::Disk;

/// Where damaged files go.
pub(crate) const FOLDER: &str = "quarantine";

/// Files that a repair set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// How many files, those in folders of journals among them.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Quarantined {
    /// Counts them; what cannot be looked at counts as nothing.
    pub(crate) fn count(disk: &dyn Disk) -> Quarantined {
        let mut counted = Quarantined::default();
        // A journal's folder holds a folder for blobs: no deeper than that.
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
