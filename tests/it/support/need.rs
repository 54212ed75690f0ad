//! What a test needs of the machine in addition to the built program and what every Debian has. If it is missing, the test is
//! skipped by name, and the run ends with the list and what to install.

use std::path::Path;

use super::skipped::{self, Skipped};

/// Programs and their packages, also for `.ci/run`.
const PROGRAMS: &str = include_str!("../../programs");

/// To be root, with all that root may do.
pub const ROOT: &str = "root";
/// To mount an image file.
pub const LOOP_DEVICES: &str = "loop devices";
/// A file that another user owns, or a program that runs as one.
pub const POSTGRES: &str = "/usr/lib/postgresql/*/bin/postgres";
/// A clock that is not the machine's.
pub const FAKETIME: &str = "/usr/lib/*/faketime/libfaketimeMT.so.1";

/// Ends a test at once, noted as skipped, if one of these is absent: `needs!("strace", ROOT)`.
macro_rules! needs {
    ($($what:expr),+ $(,)?) => {
        if $crate::support::need::is_skipped(|| {}, &[$($what),+]) {
            return;
        }
    };
}
pub(crate) use needs;

/// Whether one of these is absent; then that is noted. `_of` is a closure in the test, which has its name.
pub fn is_skipped<F>(_of: F, whats: &[&str]) -> bool {
    let absent: Vec<&str> = whats.iter().copied().filter(|what| !is_there(what)).collect();
    for what in &absent {
        let package = package(what).map(str::to_owned);
        skipped::note(&Skipped { what: test::<F>(), lacks: short(what).to_owned(), package });
    }
    !absent.is_empty()
}

/// Notes a test as skipped for a reason that only trying it shows.
pub fn skip<F>(_of: F, lacks: &str) {
    skipped::note(&Skipped { what: test::<F>(), lacks: lacks.to_owned(), package: None });
}

/// The name of the test that has this closure.
fn test<F>() -> String {
    let name = std::any::type_name::<F>();
    format!("test {}", name.split("::{{closure}}").next().unwrap_or(name))
}

fn is_there(what: &str) -> bool {
    match what {
        ROOT => rustix::process::geteuid().is_root(),
        LOOP_DEVICES => is_there(ROOT) && Path::new("/dev/loop-control").exists(),
        _ => {
            assert!(package(what).is_some(), "{what} is not in tests/programs");
            find(what).is_some()
        }
    }
}

/// Where a program is: in PATH, or where its pattern says.
pub fn find(what: &str) -> Option<std::path::PathBuf> {
    if what.contains('/') {
        return matching(Path::new("/"), what.trim_start_matches('/'));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(what)).find(|path| path.is_file())
}

/// The last path, by name, that a pattern with `*` for whole names has: of versions the highest.
fn matching(folder: &Path, pattern: &str) -> Option<std::path::PathBuf> {
    let (name, rest) = pattern.split_once('/').unwrap_or((pattern, ""));
    let below = |path: std::path::PathBuf| match rest {
        "" => Some(path).filter(|path| path.exists()),
        _ => matching(&path, rest),
    };
    if name != "*" {
        return below(folder.join(name));
    }
    let entries = folder.read_dir().ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    entries.filter_map(below).max()
}

fn package(what: &str) -> Option<&'static str> {
    let rows = PROGRAMS.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == what).map(|(_, name)| name.trim())
}

/// The name that a person knows it by.
fn short(what: &str) -> &str {
    what.rsplit('/').next().unwrap_or(what)
}

#[test]
fn what_is_needed_is_found_named_and_has_a_package() {
    assert!(is_there("setsid") && find("no such program").is_none() && find("/no/*/such").is_none());
    assert_eq!(package("mkfs.ext4"), Some("e2fsprogs"));
    assert_eq!(package(POSTGRES), Some("postgresql"));
    assert_eq!((short(POSTGRES), short("curl")), ("postgres", "curl"));
    fn test_of<F>(_of: F) -> String {
        test::<F>()
    }
    let expected = "test it::support::need::what_is_needed_is_found_named_and_has_a_package";
    assert_eq!(test_of(|| {}), expected);
    for line in PROGRAMS.lines().filter(|line| !line.starts_with('#')) {
        assert_eq!(line.split_whitespace().count(), 2, "a program and its package: {line}");
    }
    let folder = tempfile::tempdir().unwrap();
    for version in ["9/bin", "15/bin"] {
        std::fs::create_dir_all(folder.path().join(version)).unwrap();
    }
    std::fs::write(folder.path().join("15/bin/postgres"), "").unwrap();
    assert_eq!(
        matching(folder.path(), "*/bin/postgres"),
        Some(folder.path().join("15/bin/postgres")),
        "where it is, not only where its folder is"
    );
}
