//! How the tail splits bytes into lines: of a pipe, and of a file that grows while it is read.
//!
//! However the bytes come, the same lines come out: those that a loop over all bytes finds. Together they are all of
//! the bytes, but for zeros at the end of a file, which was allocated and not written there. Each begins where the one
//! before it ends, none is longer than `max_line_bytes`, no block longer than a block but for one line, and what waits in
//! memory for its newline is less than a line may be. A file's checkpoint may be taken anywhere between. Reads are of 256
//! bytes here, and blocks of 256.
#![no_main]

use std::cell::RefCell;
use std::os::unix::fs::FileExt;

use libfuzzer_sys::fuzz_target;
use spillq::tail::fuzzing::{Files, stream};
use spillq_fuzz::Choices;
use spillq_fuzz::lines::{expected, expected_of_file, lines, with_file};

thread_local! {
    static FILES: RefCell<Files> = RefCell::default();
}

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let (line_max, again) = (1 + choices.few(128), choices.few(2) == 1);
    // Shorter than a read, or longer.
    let line_max = if choices.few(2) == 1 { 8 * line_max } else { line_max };
    let (bytes, pieces) = choices.pieces(48);
    check(bytes, &pieces, line_max, again);
});

fn check(bytes: &[u8], pieces: &[&[u8]], line_max: usize, again: bool) {
    let expected = expected(bytes, line_max);
    let all: Vec<u8> = expected.iter().flat_map(|line| line.2.clone()).collect();
    assert_eq!(all, bytes);
    let nothing = with_file(b"", |file| file.try_clone().unwrap());
    let of_pipe = stream(nothing, pieces, line_max, &mut |held| assert!(held < line_max));
    assert_eq!(lines(&of_pipe), expected);
    let of_file = with_file(b"", |file| {
        let (mut rest, mut end) = (pieces.iter(), 0);
        let mut grow = || {
            let Some(piece) = rest.next() else { return Ok(false) };
            file.write_all_at(piece, end)?;
            end += piece.len() as u64;
            Ok(true)
        };
        FILES.with_borrow_mut(|files| files.read(file, line_max, again, &mut grow)).unwrap()
    });
    assert_eq!(lines(&of_file), expected_of_file(bytes, line_max));
}
