//! The times of a file as numbers.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// The modification time in nanoseconds since 1970.
pub(crate) fn mtime_ns(meta: &Metadata) -> i64 {
    meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec())
}

/// When the file or its inode changed, in nanoseconds since 1970, by the clock of the server that has the file. Comparable
/// only with itself.
pub(crate) fn ctime_ns(meta: &Metadata) -> i64 {
    meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec())
}
