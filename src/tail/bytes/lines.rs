//! Where lines end. Pure, with memchr: a step for each line only where lines are counted.

use memchr::{memchr, memchr_iter, memrchr};
use spillq_storage::LineFlags;

/// What a window that begins at the offset of a source holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// This many bytes of whole lines.
    Lines(usize),
    /// This many bytes that end a line whose earlier parts are stored.
    LastPart(usize),
    /// All of the window is a part of a longer line.
    Part,
    /// No line ends here.
    Incomplete,
}

/// Splits a window. `in_part`: it begins inside a line. `full`: it is as long as a line may be.
pub(crate) fn split(window: &[u8], in_part: bool, full: bool) -> Split {
    let end = if in_part { memchr(b'\n', window) } else { memrchr(b'\n', window) };
    match end {
        Some(newline) if in_part => Split::LastPart(newline + 1),
        Some(newline) => Split::Lines(newline + 1),
        None if full => Split::Part,
        None => Split::Incomplete,
    }
}

/// The flags of a piece of a line. `in_part`: the line begins before it. `ends`: the line ends with it.
pub(crate) fn flags(in_part: bool, ends: bool) -> LineFlags {
    match (in_part, ends) {
        (false, false) => LineFlags::FIRST,
        (true, false) => LineFlags::MIDDLE,
        (true, true) => LineFlags::LAST,
        (false, true) => LineFlags::WHOLE,
    }
}

/// The lines of `whole` that fit in `free` bytes, in bytes; 0 if not even one does.
pub(crate) fn fitting(whole: &[u8], free: usize) -> usize {
    match whole.get(..free) {
        Some(head) => memrchr(b'\n', head).map_or(0, |newline| newline + 1),
        None => whole.len(),
    }
}

/// The length of the first line.
pub(crate) fn first(whole: &[u8]) -> usize {
    memchr(b'\n', whole).map_or(whole.len(), |newline| newline + 1)
}

/// How many lines end in `bytes`.
pub(crate) fn count(bytes: &[u8]) -> u32 {
    // A chunk is at most LINE_BYTES_MAX long, so the count fits.
    memchr_iter(b'\n', bytes).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_end_at_the_last_newline() {
        assert_eq!(split(b"a\r\n\0\nb", false, false), Split::Lines(5));
        assert_eq!(split(b"\n", false, true), Split::Lines(1));
        assert_eq!(split(b"abc", false, false), Split::Incomplete);
        assert_eq!(split(b"", false, false), Split::Incomplete);
    }

    #[test]
    fn a_line_as_long_as_the_limit_is_cut_and_ends_at_the_next_newline() {
        assert_eq!(split(b"abc", false, true), Split::Part);
        assert_eq!(split(b"abc", true, true), Split::Part);
        assert_eq!(split(b"c\nd\n", true, false), Split::LastPart(2));
        assert_eq!(split(b"c", true, false), Split::Incomplete);
    }

    #[test]
    fn what_fits_is_whole_lines() {
        assert_eq!(fitting(b"ab\ncd\n", 6), 6);
        assert_eq!(fitting(b"ab\ncd\n", 100), 6);
        assert_eq!(fitting(b"ab\ncd\n", 5), 3);
        assert_eq!(fitting(b"ab\ncd\n", 2), 0);
        assert_eq!(first(b"ab\ncd\n"), 3);
        assert_eq!(count(b"ab\ncd\n\n"), 3);
    }
}
