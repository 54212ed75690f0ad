//! Faults that the model's random steps found, as the shortest steps that show them: a seed would give other steps as soon as
//! a kind of step is added.

use super::model::Action::{self, *};
use super::model::check;

const A: usize = 0;
const B: usize = 1;

const fn write(lines: usize, partial: bool) -> Action {
    Write { file: A, lines, partial }
}

/// `a.log.2` waits for the incomplete end of `a.log.1`, and is half compressed. `a.log`, which comes after the half
/// compressed file, passed that over, as it cannot be read, and waited for none.
#[test]
fn a_file_that_cannot_be_read_does_not_let_the_next_pass_those_before_it() {
    check(&[
        write(1, true),
        Look,
        RotateCopy { file: A },
        write(1, false),
        RotateCopy { file: A },
        Look,
        write(1, false),
        Compress { half: true, zstd: false },
        RenameOutside { file: A },
    ]);
}

/// `a.log` was copied away, truncated and moved out of the folder, while it waited for the one before it, so that its open file
/// was not looked at. The copy was compressed meanwhile, and taken for a new file.
#[test]
fn a_file_truncated_out_of_sight_continues_in_its_compressed_copy() {
    check(&[
        write(1, false),
        RotateCopy { file: A },
        write(1, false),
        Look,
        RotateCopy { file: A },
        Hide { file: A },
        Compress { half: false, zstd: false },
        Compress { half: false, zstd: false },
        LetPass,
    ]);
}

/// `b.log` was moved out of the folder, and came back as `a.log`, which was copied and truncated before the next scan.
#[test]
fn a_file_that_came_back_elsewhere_and_was_truncated_continues_in_its_compressed_copy() {
    check(&[
        Write { file: B, lines: 1, partial: false },
        Look,
        Hide { file: B },
        LetPass,
        Look,
        Show { file: A },
        RotateCopy { file: A },
        Compress { half: false, zstd: false },
    ]);
}

/// `a.log.1` was compressed after `a.log.2` had been begun, which waited for its incomplete end. The compressed file was put behind
/// `a.log.2`, and `a.log` behind the compressed file; when that was found to be `a.log.1`, `a.log` came after that alone.
#[test]
fn a_source_after_a_compressed_file_comes_after_all_that_it_came_after() {
    check(&[
        write(1, true),
        Look,
        RotateRename { file: A },
        write(2, false),
        Look,
        Compress { half: false, zstd: false },
        RotateRename { file: A },
        write(2, false),
    ]);
}

/// `a.log` had half a line and nothing read of it, was copied away, emptied, moved to `b.log` and written to. It was taken
/// for a new file there, and read from its open descriptor, too.
#[test]
fn a_file_of_which_nothing_was_read_is_known_by_its_inode() {
    check(&[
        write(1, false),
        RollBack { file: A, lose: 1, half: true },
        Look,
        RotateCopy { file: A },
        MoveOver { file: A, other: B },
        Write { file: B, lines: 2, partial: false },
    ]);
}

/// The copy was shorter than what the fingerprint covered, and named as the path that its source had been moved to.
#[test]
fn a_short_copy_is_known_by_the_path_that_its_source_was_moved_to() {
    check(&[
        write(2, false),
        Look,
        MoveOver { file: A, other: B },
        CopyOpen { file: B, shorter: true, stops: false },
    ]);
}

/// `c.log` was allocated, seen, filled, copied away and truncated between two scans. Nothing of it had been read, so that its
/// new content was taken for the old one, and came before what had been copied away.
#[test]
fn a_file_of_which_nothing_was_read_and_that_was_truncated_comes_after_its_copy() {
    check(&[
        Allocate { file: A },
        Look,
        write(1, false),
        RotateCopy { file: A },
        write(1, false),
        Show { file: B },
        RollBack { file: B, lose: 0, half: false },
    ]);
}

/// `a.log` was found, copied away, truncated and written to before a line of it was read. The new content was read as the
/// old one, and the copy came after that.
#[test]
fn a_file_with_unread_lines_that_was_truncated_comes_after_its_copy() {
    check(&[write(1, false), Look, Recreate { file: A }, Step, RotateCopy { file: A }, write(2, false)]);
}

/// `a.log` had half a line and nothing read of it. It grew, was copied away, emptied and written to between two scans: the new
/// content was read as the old one, and the copy came after that.
#[test]
fn a_file_with_an_incomplete_first_line_that_was_truncated_comes_after_its_copy() {
    check(&[
        Write { file: A, lines: 1, partial: true },
        Look,
        write(2, false),
        RotateCopy { file: A },
        write(2, false),
    ]);
}

/// `a.log` was filled in place, renamed, compressed and removed between two scans. It was as long as before, so that the open
/// file was not looked into.
#[test]
fn what_was_filled_into_a_file_that_is_gone_is_read_from_its_descriptor() {
    check(&[
        Allocate { file: A },
        write(1, false),
        Look,
        write(1, false),
        RotateRename { file: A },
        Compress { half: false, zstd: false },
    ]);
}

/// `a.log` was filled in place, copied away, emptied, and the copy compressed between two scans. It continued in the
/// compressed file, of which nothing was read, as the bytes behind the offset had been unwritten before.
#[test]
fn what_was_filled_into_a_file_is_read_from_its_compressed_copy() {
    check(&[
        Allocate { file: A },
        write(1, false),
        Look,
        write(1, false),
        RotateCopy { file: A },
        Compress { half: false, zstd: false },
    ]);
}

/// `a.log` was filled in place, renamed, compressed and removed. Nothing of it had been read, so that the compressed file was
/// not identified.
#[test]
fn a_file_that_was_filled_after_the_first_look_is_known_in_its_compressed_copy() {
    check(&[
        Allocate { file: A },
        RotateRename { file: A },
        Allocate { file: A },
        Step,
        write(1, false),
        RotateRename { file: A },
        Compress { half: false, zstd: false },
    ]);
}

/// `a.log` was found and deleted before a line of it was read, and its path got another file, which was rotated away: the
/// first was taken for the newer one, which the scan had missed.
#[test]
fn a_file_that_was_deleted_unread_comes_before_the_next_one_of_its_path() {
    check(&[
        write(1, false),
        Look,
        Recreate { file: A },
        Step,
        Delete { file: A },
        write(2, false),
        RotateRename { file: A },
    ]);
}

/// `a.log` was filled in place, rotated, compressed, removed and decompressed to another name between two scans.
#[test]
fn a_file_that_was_filled_after_the_first_look_is_known_in_its_copy() {
    check(&[
        Allocate { file: A },
        Look,
        write(1, false),
        RotateRename { file: A },
        Compress { half: false, zstd: false },
        Decompress,
    ]);
}

/// `a.log` was found, not read, and renamed; what its path got next was copied away, and came first.
#[test]
fn a_file_that_was_renamed_unread_comes_before_the_copy_of_the_next_one_of_its_path() {
    check(&[
        write(1, false),
        Look,
        Recreate { file: A },
        Step,
        RotateRename { file: A },
        write(2, false),
        RotateCopy { file: A },
    ]);
}
