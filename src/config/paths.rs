//! Paths and globs as written, made absolute. Pure: nothing is looked up on disk.

use std::path::{Component, Path, PathBuf};

use globset::Glob;

use crate::globs::over_path;

use crate::tail::STDIN;

/// A path, relative to `base` unless absolute. `..` stays: after a symbolic link only the system knows
/// what it means.
pub(super) fn path(base: &Path, written: &str) -> Result<PathBuf, String> {
    refuse_tilde(written)?;
    Ok(base.join(written).components().collect())
}

/// A glob over whole paths, relative to `base` unless absolute, or standard input. Characters of `base` itself match
/// themselves.
pub(super) fn include(base: &Path, written: &str) -> Result<String, String> {
    refuse_tilde(written)?;
    if written == STDIN {
        return Ok(written.to_owned());
    }
    if written.is_empty() {
        return Err("is empty; write a glob such as \"logs/*.log\"".to_owned());
    }
    let whole = if written.starts_with('/') {
        written.to_owned()
    } else {
        let mut folder = base.to_path_buf();
        let mut rest = written;
        loop {
            if let Some(below) = rest.strip_prefix("./") {
                rest = below;
            } else if let Some(below) = rest.strip_prefix("../") {
                rest = below;
                folder.pop();
            } else {
                break;
            }
        }
        let folder = folder
            .to_str()
            .ok_or_else(|| format!("is relative to {}, which is not UTF-8", folder.display()))?;
        format!("{}/{rest}", globset::escape(folder.trim_end_matches('/')))
    };
    glob(&whole).map(|_| whole)
}

/// A glob of files to leave out: without a `/` it matches file names in any folder.
pub(super) fn exclude(base: &Path, written: &str) -> Result<String, String> {
    let whole = match written {
        anywhere if anywhere.starts_with("**/") => anywhere.to_owned(),
        name if !name.contains('/') && !name.is_empty() => format!("**/{name}"),
        _ => return include(base, written),
    };
    glob(&whole).map(|_| whole)
}

/// A glob as spillq understands it: `*` and `?` do not match `/`.
pub(super) fn glob(whole: &str) -> Result<Glob, String> {
    over_path(whole).map_err(|what| format!("not a glob: {what}"))
}

fn refuse_tilde(written: &str) -> Result<(), String> {
    if written == "~" || written.starts_with("~/") {
        Err("\"~\" is not expanded; write the whole path".to_owned())
    } else {
        Ok(())
    }
}

/// A path without `.` and `..`, as globs need it: the paths of found files do not contain them.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_folder() {
        let base = Path::new("/etc/spillq");
        assert_eq!(path(base, "q").unwrap(), Path::new("/etc/spillq/q"));
        assert_eq!(path(base, "./a/../q").unwrap(), Path::new("/etc/spillq/a/../q"));
        assert_eq!(normal(Path::new("/etc/./a/../../../q")), Path::new("/q"));
        assert_eq!(path(base, "/q").unwrap(), Path::new("/q"));
        assert!(path(base, "~/q").is_err());
    }

    #[test]
    fn globs_are_relative_to_the_folder_and_its_own_characters_match_themselves() {
        let base = Path::new("/srv/[x]");
        assert_eq!(include(base, "/a/*.log").unwrap(), "/a/*.log");
        let below = include(base, "./*.log").unwrap();
        let matcher = glob(&below).unwrap().compile_matcher();
        assert!(matcher.is_match("/srv/[x]/a.log"));
        assert!(!matcher.is_match("/srv/x/a.log"));
        assert!(!matcher.is_match("/srv/[x]/b/a.log"), "a star stops at a slash");
        assert_eq!(include(base, "../*.log").unwrap(), "/srv/*.log");
        assert_eq!(include(Path::new("/"), "a*").unwrap(), "/a*");
        assert!(include(base, "a[").is_err());
        assert_eq!(include(base, "-").unwrap(), "-", "standard input");
        assert_eq!(include(Path::new("/srv"), "./-").unwrap(), "/srv/-", "a file of that name");
    }

    #[test]
    fn an_exclude_without_a_slash_matches_names_in_any_folder() {
        let whole = exclude(Path::new("/srv"), "*.tmp").unwrap();
        let matcher = glob(&whole).unwrap().compile_matcher();
        assert!(matcher.is_match("/var/log/a.tmp"));
        assert!(!matcher.is_match("/var/log/a.tmp/b"));
        assert_eq!(exclude(Path::new("/srv"), "old/*").unwrap(), "/srv/old/*");
    }
}
