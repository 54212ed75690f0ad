//! The reply of an HTTP server to a batch, in pieces of any size.
//!
//! Only a whole reply whose status is 2xx acks; the outcome of every other is that of its status, or a failure. What is
//! shown is at most 4 KiB of it, and safe for a terminal. So is a reply of 2xx that a format reads: of `_bulk`, and of OTLP.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq::plain::harmless;
use spillq::processor::fuzzing::http_outcome;
use spillq::processor::{EVIDENCE_BYTES_MAX, Form, Outcome};
use spillq_fuzz::Choices;
use spillq_fuzz::wire::{Wire, run};

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let is_plain = choices.few(4) > 0;
    let form = [Form::Ndjson, Form::Elasticsearch, Form::Otlp, Form::Loki][usize::from(choices.few(4))];
    let is_read = matches!(form, Form::Elasticsearch | Form::Otlp);
    let (bytes, pieces) = choices.pieces(256);
    // Most inputs begin as a reply does, with a status.
    let status =
        format!("HTTP/1.1 {}", 100 + 50 * usize::from(bytes.first().copied().unwrap_or_default() % 10));
    let mut all = if is_plain { vec![status.as_bytes()] } else { Vec::new() };
    all.extend(pieces);
    let outcome = run(http_outcome(Wire::of(&all), form));
    let text = all.concat();
    let has_status = |statuses: &[&str]| {
        let lines = text.split(|byte| *byte == b'\n').map(String::from_utf8_lossy);
        let is_one = |line: &str| {
            let status = line.strip_prefix("HTTP/1.1 ").or(line.strip_prefix("HTTP/1.0 "));
            status.is_some_and(|status| statuses.iter().any(|one| status.starts_with(one)))
        };
        lines.into_iter().any(|line| is_one(&line))
    };
    let evidence = match outcome {
        Outcome::Done => {
            assert!(has_status(&["2"]));
            return;
        }
        Outcome::DoneExcept(_) => {
            assert!(has_status(&["2", "422"]));
            return;
        }
        Outcome::Poison(evidence) => {
            // With 2xx if a list of bad lines cannot be read.
            assert!(has_status(&["400", "422"]) || has_status(&["2"]) && (is_read || text.contains(&b'{')));
            evidence
        }
        Outcome::TooLarge(evidence) => {
            assert!(has_status(&["413"]) || is_read && has_status(&["2"]));
            evidence
        }
        Outcome::Refused(evidence) => {
            let is_setup = has_status(&["3", "401", "403", "404", "405", "407", "410", "421"]);
            assert!(is_setup || is_read && has_status(&["2"]));
            evidence
        }
        Outcome::Failed(evidence) | Outcome::Down(evidence) | Outcome::Later(_, evidence) => evidence,
        Outcome::BadLine(..) => panic!("a server cannot blame a line"),
        Outcome::OutOfMemory(..) => panic!("the kernel kills no server of somebody else's"),
    };
    assert!(evidence.tail.len() <= EVIDENCE_BYTES_MAX && evidence.summary.len() <= 1_000);
    assert_eq!((harmless(&evidence.tail), harmless(&evidence.summary)), (evidence.tail, evidence.summary));
});
