//! What the name of a rotated file says about the path that it was written at. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A name without the suffix of a compressed file.
pub(crate) fn uncompressed(path: &Path) -> Option<PathBuf> {
    let is_suffix = |suffix: &OsStr| suffix == "gz" || suffix == "zst";
    path.extension().is_some_and(is_suffix).then(|| path.with_extension(""))
}

/// A name without the number or the date that a rotation gave it, and the numbers in that. The suffix of a compressed file
/// goes too, and may be all.
pub(crate) fn unrotated(path: &Path) -> Option<(PathBuf, Vec<u64>)> {
    match uncompressed(path) {
        Some(plain) => Some(unnumbered(&plain).unwrap_or((plain, Vec::new()))),
        None => unnumbered(path),
    }
}

fn unnumbered(path: &Path) -> Option<(PathBuf, Vec<u64>)> {
    let name = path.file_name()?.as_bytes();
    let is_of_suffix = |byte: &u8| byte.is_ascii_digit() || b".-_:T".contains(byte);
    let mut at = name.len() - name.iter().rev().take_while(|byte| is_of_suffix(byte)).count();
    // It begins with the character that separates it from the name: the 4 of `h4.1` belongs to the name.
    loop {
        match name.get(at..)? {
            [b'.' | b'-' | b'_', b'0'..=b'9', ..] => break,
            [_, ..] => at += 1,
            [] => return None,
        }
    }
    let (base, suffix) = name.split_at_checked(at).filter(|(base, _)| !base.is_empty())?;
    let numbers = suffix
        .split(|byte| !byte.is_ascii_digit())
        .filter_map(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .collect();
    Some((path.with_file_name(OsStr::from_bytes(base)), numbers))
}

/// The path that a file was written at, by its name alone.
pub(crate) fn base(path: &Path) -> PathBuf {
    unrotated(path).map_or_else(|| path.to_owned(), |(base, _)| base)
}

/// Whether a compressed file has the name of another file, with a suffix.
pub(crate) fn is_named_as(compressed: &Path, plain: &Path) -> bool {
    uncompressed(compressed).is_some_and(|name| name == plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_name_is_the_name_and_a_number_or_a_date() {
        let check = |name: &str, expected: Option<(&str, &[u64])>| {
            let found = unrotated(&Path::new("/logs").join(name));
            let expected = expected.map(|(base, numbers)| (Path::new("/logs").join(base), numbers.to_vec()));
            assert_eq!(found, expected, "{name}");
        };
        check("app.log.1", Some(("app.log", &[1])));
        check("app.log-20240131", Some(("app.log", &[20_240_131])));
        check("app.log.2024-01-31T12:00", Some(("app.log", &[2024, 1, 31, 12, 0])));
        check("h4.1", Some(("h4", &[1])));
        check("app.log.1.gz", Some(("app.log", &[1])));
        check("app.log-20240131.zst", Some(("app.log", &[20_240_131])));
        check("app.log.gz", Some(("app.log", &[])));
        for name in ["app.log", "app1", "10", ".1", "app.log.", ".gz", "app-1.log"] {
            check(name, None);
        }
    }
}
