//! What a campaign needs of the machine. If it is missing the campaign is skipped, and prints why.

use std::path::Path;

/// Why these programs cannot be used, if one of them is not in PATH.
pub fn tools(names: &[&str]) -> Option<String> {
    let paths: Vec<_> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let lacks: Vec<&str> =
        names.iter().copied().filter(|name| !paths.iter().any(|path| path.join(name).is_file())).collect();
    (!lacks.is_empty()).then(|| format!("it needs {}", lacks.join(", ")))
}

/// Why loop devices cannot be used.
pub fn loop_devices() -> Option<String> {
    root().or_else(|| (!Path::new("/dev/loop-control").exists()).then(|| "it needs loop devices".to_owned()))
}

/// Why the rights of root are missing.
pub fn root() -> Option<String> {
    (!rustix::process::geteuid().is_root()).then(|| "it needs root".to_owned())
}
