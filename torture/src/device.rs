//! A file system on a block device that `qemu-storage-daemon` exports: through FUSE, with a loop device on that, mounted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::need;
use crate::service::{tool, wait_for};
use crate::trouble::{During, Result, Trouble};

/// Why a device cannot be made here.
pub fn lacks() -> Option<String> {
    need::loop_devices()
        .or_else(|| need::tools(&["qemu-storage-daemon", "mkfs.ext4", "losetup", "mount", "umount"]))
        .or_else(|| (!Path::new("/dev/fuse").exists()).then(|| "it needs FUSE".to_owned()))
}

/// An image of `mib` MiB with an empty ext4.
pub fn image(path: &Path, mib: u64) -> Result<()> {
    File::create(path).and_then(|file| file.set_len(mib << 20)).during("make an image file")?;
    // So that nothing is written in the background later.
    let now = "lazy_itable_init=0,lazy_journal_init=0";
    tool("mkfs.ext4", &["-q", "-F", "-E", now, &path.display().to_string()]).map(drop)
}

/// The device: a process, a loop device on what it exports, and a mount. All of it is removed when it is dropped.
pub struct Device {
    daemon: Child,
    export: PathBuf,
    node: String,
    /// Where it is mounted.
    pub mount: PathBuf,
}

impl Device {
    /// Exports the last of `drives`, which are arguments of `--blockdev` and called `out`, and mounts it at `disk` below
    /// `folder`.
    pub fn start(folder: &Path, mib: u64, drives: &[String]) -> Result<Device> {
        let [export, mount] = ["export", "disk"].map(|name| folder.join(name));
        File::create(&export).during("make the export")?;
        fs::create_dir_all(&mount).during("make a mount point")?;
        let mut daemon = Command::new("qemu-storage-daemon");
        daemon.args(drives.iter().flat_map(|drive| ["--blockdev", drive]));
        let export_option =
            format!("type=fuse,id=fuse,node-name=out,mountpoint={},writable=on", export.display());
        let daemon = daemon.args(["--export", &export_option]).stdin(Stdio::null());
        let daemon = daemon.spawn().during("start qemu-storage-daemon")?;
        let mut device = Device { daemon, export, node: String::new(), mount };
        let ready = || fs::metadata(&device.export).is_ok_and(|meta| meta.len() == mib << 20).then_some(());
        wait_for(ready).ok_or_else(|| Trouble::new("qemu-storage-daemon exports nothing"))?;
        let export = device.export.display().to_string();
        device.node = tool("losetup", &["--find", "--show", &export])?.trim().to_owned();
        device.mount()?;
        Ok(device)
    }

    fn mount(&self) -> Result<()> {
        tool("mount", &["-o", "errors=remount-ro", &self.node, &self.mount.display().to_string()]).map(drop)
    }

    /// Unmounts it as soon as it is not in use, and mounts it again: then reads return what the disk has.
    pub fn remount(&self) -> Result<()> {
        let unmount = || Command::new("umount").arg(&self.mount).stderr(Stdio::null()).status();
        wait_for(|| unmount().is_ok_and(|status| status.success()).then_some(()))
            .ok_or_else(|| Trouble::new(format!("{} stays busy", self.mount.display())))?;
        // The loop device reads the export through a separate page cache, which outlives the mount. Without one
        // (`losetup --direct-io`) FUSE changes its small writes.
        let export = File::open(&self.export).during("open the export")?;
        rustix::fs::fadvise(&export, 0, None, rustix::fs::Advice::DontNeed).during("drop its page cache")?;
        self.mount()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Only what the start has made exists.
        let quiet =
            |program: &str, args: &[&str]| Command::new(program).args(args).stderr(Stdio::null()).status();
        let _ = quiet("umount", &[&self.mount.display().to_string()]);
        let _ = quiet("losetup", &["--detach", &self.node]);
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // The loop device may need a moment to release it.
        let _ = quiet("umount", &["--lazy", &self.export.display().to_string()]);
    }
}
