//! The answers of a command of `exec-stream`, in pieces of any size.
//!
//! An answer is a whole line `OK`, `OK SEQ`, `OK SEQ BAD […]`, `NAK …` or `LATER …`, alone, and nothing else acks a batch. At
//! most 64 KiB are accepted. What is shown is short and safe for a terminal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq::plain::harmless;
use spillq::processor::fuzzing::{Said, exec_answer};
use spillq_fuzz::Choices;
use spillq_fuzz::wire::{Wire, run};

const REPLY_BYTES_MAX: usize = 64 * 1_024;
const READ_BYTES: usize = 4 * 1_024;
const REASON_BYTES_MAX: usize = 4 * 1_024;

fuzz_target!(|data: &[u8]| {
    let (_, pieces) = Choices(data).pieces(256);
    // What the reader sees: pieces up to the one with a newline, or up to the bound.
    let mut seen = Vec::new();
    let mut is_over = false;
    for piece in pieces.iter().flat_map(|piece| piece.chunks(READ_BYTES)) {
        if !is_over {
            seen.extend_from_slice(piece);
            is_over = seen.contains(&b'\n') || seen.len() >= REPLY_BYTES_MAX;
        }
    }
    let said = run(exec_answer(Wire::of(&pieces)));
    let line = seen.strip_suffix(b"\n").filter(|line| !line.contains(&b'\n'));
    let line = line.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    match said {
        Said::Ended => assert!(!is_over),
        Said::Ok(None) => assert_eq!(line, Some(&b"OK"[..])),
        Said::Ok(Some(seq)) => {
            let text = std::str::from_utf8(line.unwrap()).unwrap();
            assert_eq!(text.strip_prefix("OK ").unwrap().parse(), Ok(seq));
        }
        Said::Nak(_, reason) => {
            assert!(line.unwrap().starts_with(b"NAK"));
            assert!(reason.len() <= REASON_BYTES_MAX && harmless(&reason) == reason);
            assert!(!reason.contains('\r'));
        }
        Said::Later(_, reason) => {
            assert!(line.unwrap().starts_with(b"LATER "));
            assert!(reason.len() <= REASON_BYTES_MAX && harmless(&reason) == reason);
        }
        Said::Bad(seq, _) => {
            let text = String::from_utf8_lossy(line.unwrap());
            let named = text.strip_prefix("OK ").and_then(|rest| rest.split_once(" BAD [")).unwrap();
            assert_eq!(named.0.parse(), Ok(seq));
        }
        Said::Garbage(what) => {
            assert!(is_over && what.len() < 700, "{what}");
            assert!(what.chars().all(|c| !c.is_control()), "{what:?}");
        }
    }
});
