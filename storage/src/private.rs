//! A data dir belongs to the user who writes in it, and other users have no access: lines may be secrets, and whoever can
//! write there can destroy them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::create::holds;
use crate::error::{Error, Result};

/// Permissions of the group and of others.
const OF_OTHERS: u32 = 0o077;

/// Refuses a store that other users can access, or that another user owns: if root wrote in it, its owner could not open
/// the new files. A folder that is not a store yet loses the permissions of others instead.
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
        .map_err(|source| io("remove permissions of other users from", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_of_others_are_removed_from_an_empty_folder_and_refused_on_a_store() {
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
