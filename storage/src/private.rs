//! A data dir belongs to the user who writes in it and is closed to all others: the lines in it may be secrets, and
//! who can write there can lose them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::create::holds;
use crate::error::{Error, Result};

/// What the group and others may do.
const OF_OTHERS: u32 = 0o077;

/// Refuses a store that others can reach or that somebody else owns: root that writes in it would leave files
/// that its owner cannot open. A folder that is no store yet, made with `mkdir`, is closed instead.
pub(crate) fn ensure(dir: &Path) -> Result<()> {
    let io = |attempted, source| Error::Io { attempted, path: dir.to_owned(), source };
    let folder = fs::metadata(dir).map_err(|source| io("look at", source))?;
    let own = rustix::process::geteuid().as_raw();
    if folder.uid() != own {
        return Err(Error::OfAnotherUser { path: dir.to_owned(), owner: folder.uid(), own });
    }
    let mode = folder.permissions().mode() & 0o7777;
    if mode & OF_OTHERS == 0 {
        return Ok(());
    }
    if holds(dir, "MARK")? {
        return Err(Error::OpenToOthers { path: dir.to_owned(), mode });
    }
    fs::set_permissions(dir, Permissions::from_mode(mode & !OF_OTHERS))
        .map_err(|source| io("close to other users", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_closed_before_it_is_a_store_and_refused_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let open = || fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        open();
        ensure(dir.path()).unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o7777, 0o700);
        fs::write(dir.path().join("MARK"), "").unwrap();
        ensure(dir.path()).unwrap();
        open();
        assert!(matches!(ensure(dir.path()), Err(Error::OpenToOthers { mode: 0o755, .. })));
    }
}
