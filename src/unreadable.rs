//! Why a file that matches is not read: the tail finds it out, verdicts decide by it.

use std::fmt;

/// Why something that matches is not read. The next step depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WhyUnreadable {
    /// A symbolic link that `symlinks` does not allow.
    Link,
    /// A folder, a FIFO that no glob names by its whole path, a socket or a device.
    NotAFile,
    /// Folders below it are deeper than a scan goes.
    TooDeep,
    /// More entries than one scan lists, or more FIFOs than are followed at once.
    TooMany,
    /// A compressed file that is incomplete or damaged.
    Content,
    /// The system refused to read it: permission, or an error of the disk.
    System,
}

/// Something that matches and is not read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unreadable {
    /// What kind of reason it is.
    pub why: WhyUnreadable,
    /// What was attempted, and what was found.
    pub found: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found)
    }
}
