//! Small file systems in image files, on loop devices: they fill up, and they lose power.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::need;
use crate::service::{tool, wait_for};
use crate::trouble::{During, Result, Trouble};

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The usual one
    Ext4,
    /// The other one that is supported
    Xfs,
}

/// Why small file systems cannot be made here, or cannot lose power; tries to make one below `work`.
pub fn lacks(kind: Kind, work: &Path) -> Option<String> {
    need::tools(&["xfs_io"]).or_else(|| lacks_mounts(kind, work))
}

/// Why small file systems cannot be made here; tries to make one below `work`.
pub fn lacks_mounts(kind: Kind, work: &Path) -> Option<String> {
    need::loop_devices().or_else(|| need::tools(&["mount", "umount", mkfs(kind)])).or_else(|| {
        let folder = work.join("probe");
        let probe = || {
            fs::create_dir_all(&folder).during("make a folder")?;
            // The smallest that mkfs.xfs makes.
            SmallDisk::new(&folder, kind, 320)?.unmount()
        };
        let why = probe().err().map(|trouble| format!("no small file system can be made: {trouble}"));
        // Leftovers do not matter to the campaign.
        let _ = fs::remove_dir_all(&folder);
        why
    })
}

fn mkfs(kind: Kind) -> &'static str {
    match kind {
        Kind::Ext4 => "mkfs.ext4",
        Kind::Xfs => "mkfs.xfs",
    }
}

/// A file system in an image file, mounted; unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    image: PathBuf,
    /// Where it is mounted.
    pub mount: PathBuf,
}

impl SmallDisk {
    /// Makes and mounts it.
    pub fn new(folder: &Path, kind: Kind, mib: u64) -> Result<SmallDisk> {
        let (image, mount) = (folder.join("image"), folder.join("disk"));
        fs::File::create(&image).and_then(|file| file.set_len(mib << 20)).during("make an image file")?;
        fs::create_dir(&mount).during("make a mount point")?;
        let force = if kind == Kind::Ext4 { "-F" } else { "-f" };
        tool(mkfs(kind), &["-q", force, &image.display().to_string()])?;
        let disk = SmallDisk { image, mount };
        disk.mount()?;
        Ok(disk)
    }

    /// Mounts it again.
    pub fn mount(&self) -> Result<()> {
        let [image, mount] = [&self.image, &self.mount].map(|path| path.display().to_string());
        tool("mount", &["-o", "loop", &image, &mount]).map(drop)
    }

    /// The power fails: nothing more reaches the disk, and its journal is not flushed. All processes must release
    /// the file system before [`SmallDisk::unmount`].
    pub fn cut(&self) -> Result<()> {
        tool("xfs_io", &["-x", "-c", "shutdown", &self.mount.display().to_string()]).map(drop)
    }

    /// Unmounts it as soon as it is not in use.
    pub fn unmount(&self) -> Result<()> {
        let unmount = || Command::new("umount").arg(&self.mount).stderr(Stdio::null()).status();
        let done = wait_for(|| unmount().is_ok_and(|status| status.success()).then_some(()));
        done.ok_or_else(|| Trouble::new(format!("{} stays busy", self.mount.display())))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The loop device is removed with the last mount.
        let _ = Command::new("umount").arg("-l").arg(&self.mount).stderr(Stdio::null()).status();
    }
}
