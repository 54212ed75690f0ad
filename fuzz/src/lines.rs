//! What lines are, implemented once more in a slow and simple way; and files in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use spillq_storage::{BlockBuilder, LineFlags, NewBlock, Seq};

/// Where it begins, what it is, its bytes.
pub type Line = (u64, LineFlags, Vec<u8>);

/// Byte by byte: a line ends with its newline; a part where it is `line_max` long; the last one with the bytes.
pub fn expected(bytes: &[u8], line_max: usize) -> Vec<Line> {
    let (mut lines, mut line, mut in_part) = (Vec::<Line>::new(), Vec::new(), false);
    let mut end = 0;
    let mut push = |line: &mut Vec<u8>, flags| {
        let bytes = std::mem::take(line);
        end += bytes.len() as u64;
        lines.push((end - bytes.len() as u64, flags, bytes));
    };
    for byte in bytes {
        line.push(*byte);
        if *byte == b'\n' {
            push(&mut line, if in_part { LineFlags::LAST } else { LineFlags::WHOLE });
            in_part = false;
        } else if line.len() == line_max {
            push(&mut line, if in_part { LineFlags::MIDDLE } else { LineFlags::FIRST });
            in_part = true;
        }
    }
    if !line.is_empty() {
        let flags = if in_part { LineFlags::LAST } else { LineFlags::WHOLE };
        push(&mut line, flags.unterminated());
    }
    lines
}

/// Of a file. Zeros at its end were allocated and never written: no line or part has them, or begins among them.
pub fn expected_of_file(bytes: &[u8], line_max: usize) -> Vec<Line> {
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    expected(&bytes[..written], line_max)
}

/// The lines of blocks, whose bounds hold.
pub fn lines(blocks: &[NewBlock]) -> Vec<Line> {
    let mut lines = Vec::new();
    for block in blocks {
        assert!(block.raw_bytes() <= BlockBuilder::TARGET_BYTES || block.lines() == 1);
        let stored = block.numbered(0, Seq::FIRST);
        lines.extend(stored.lines().map(|line| (line.offset, line.flags, line.bytes.to_vec())));
    }
    lines
}

/// One file in memory for all runs, with this content.
pub fn with_file<T>(content: &[u8], run: impl FnOnce(&File) -> T) -> T {
    thread_local! {
        static FILE: File = tempfile::tempfile_in("/dev/shm").unwrap();
    }
    FILE.with(|file| {
        file.set_len(0).unwrap();
        file.write_all_at(content, 0).unwrap();
        run(file)
    })
}
