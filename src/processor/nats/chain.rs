//! What a stream holds, by its last messages. Pure.
//!
//! A message says what is stored with it as its sender expects it: all that it sent before is in front of it. The condition on the
//! sequence makes sure of that, unless a message of another connection, which comes late, takes the place of one of them. So of the
//! messages that were not acknowledged when a message was sent, each has to be of the same connection. From one that is
//! not, the note holds, and each message behind it adds the line that it carries and no more.

use std::ops::RangeInclusive;

use spillq_storage::{Seq, SeqRange};

use super::message::Told;
use crate::processor::driver::Note;
use crate::processor::written::Written;

/// The last messages of a stream, looked at from the newest down.
pub(super) struct Chain {
    /// The message whose note counts, as far as was looked.
    top: Told,
    /// The lines of all messages that were looked at, the newest first. Those of one window, or of few.
    lines: Vec<Seq>,
    /// So many of them are of messages behind `top`.
    behind: usize,
    /// The sequence of the next message to look at.
    next: u64,
}

impl Chain {
    /// A chain that ends with the message `last`, which has the sequence `at`.
    pub(super) fn new(at: u64, last: Told) -> Chain {
        Chain { lines: Vec::from_iter(last.line), top: last, behind: 0, next: at.saturating_sub(1) }
    }

    /// The sequences of messages to look at before the note can be believed. Empty if there are none.
    pub(super) fn in_doubt(&self) -> RangeInclusive<u64> {
        self.top.acked + 1..=self.next
    }

    /// Looks at the next message; `None` if it was removed.
    pub(super) fn look_at(&mut self, told: Option<Told>) {
        self.next = self.next.saturating_sub(1);
        let Some(told) = told else { return };
        let line = told.line;
        if told.by != self.top.by {
            self.behind = self.lines.len();
            self.top = told;
        }
        self.lines.extend(line);
    }

    /// What is stored, once nothing is in doubt.
    ///
    /// # Errors
    /// If the note is not one.
    pub(super) fn note(&self) -> Result<Note, String> {
        let Note { owner, written } = &self.top.note;
        let mut written: Written = written.parse()?;
        for line in &self.lines[..self.behind] {
            written.add(SeqRange::one(*line));
        }
        Ok(Note { owner: owner.clone(), written: written.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;
    use crate::processor::run::Run;

    const WINDOW: usize = 4;

    /// A message on its way, with the sequence that the stream has to end with.
    #[derive(Clone, Debug)]
    struct Sent {
        behind: u64,
        told: Told,
    }

    /// A stream, connections that come and go and whose messages arrive late, and lines whose order changes: lines are put back (retried),
    /// left out for now (parked) and asked for again.
    struct World {
        rng: fastrand::Rng,
        stream: Vec<Told>,
        /// What is on its way, of each connection.
        on_the_way: Vec<VecDeque<Sent>>,
    }

    impl World {
        fn truth(&self) -> BTreeSet<u64> {
            let mut truth = BTreeSet::new();
            for told in &self.stream {
                match told.line {
                    Some(line) => truth.insert(line.0),
                    // A note without a line: what was asked for again.
                    None => {
                        truth = seqs(&told.note.written);
                        true
                    }
                };
            }
            truth
        }

        fn look(&self) -> Note {
            let Some(last) = self.stream.last() else {
                return Note { owner: "us".to_owned(), written: String::new() };
            };
            let mut chain = Chain::new(self.stream.len() as u64, last.clone());
            while !chain.in_doubt().is_empty() {
                let at = *chain.in_doubt().end();
                chain.look_at(Some(self.stream[at as usize - 1].clone()));
            }
            chain.note().unwrap()
        }

        /// The next message of a connection arrives. Whether it was taken; `None` if there is none.
        fn arrive(&mut self, connection: usize) -> Option<bool> {
            let sent = self.on_the_way[connection].pop_front()?;
            let is_taken = sent.behind == self.stream.len() as u64;
            if is_taken {
                self.stream.push(sent.told);
            }
            Some(is_taken)
        }

        /// A connection: looks, sends some lines, and is gone at some point.
        fn connect(&mut self, number: u64) {
            let note = self.look();
            let truth: Vec<u64> = self.truth().into_iter().collect();
            let told: Vec<u64> = seqs(&note.written).into_iter().collect();
            assert_eq!(told, truth, "{:#?}", self.stream);
            let mut written: Written = note.written.parse().unwrap();
            let by = Run { number, id: "run".to_owned() };
            let (mut end, mut acked) = (self.stream.len() as u64, self.stream.len() as u64);
            self.on_the_way.push(VecDeque::new());
            let own = self.on_the_way.len() - 1;
            let first = (1..).find(|seq| !told.contains(seq)).unwrap();
            let missing = (first..first + 12).filter(|seq| !told.contains(seq));
            let mut lines: VecDeque<u64> = missing.filter(|_| self.rng.u8(0..8) > 0).collect();
            // One at a time at first, so that no line is sent behind one that was refused.
            let alone = end + self.rng.u64(0..2 * WINDOW as u64);
            while let Some(line) = lines.pop_front() {
                let window = if end < alone { 1 } else { WINDOW };
                while self.on_the_way[own].len() >= window {
                    // Somebody else's may come first.
                    for other in 0..own {
                        if self.rng.u8(0..4) == 0 {
                            self.arrive(other);
                        }
                    }
                    match self.arrive(own) {
                        Some(true) => acked = self.stream.len() as u64,
                        _ => return,
                    }
                }
                if self.rng.u8(0..10) == 0 {
                    return;
                }
                let line = if self.rng.u8(0..12) == 0 {
                    // Only what is acked is forgotten, with nothing on its way.
                    while let Some(is_taken) = self.arrive(own) {
                        if !is_taken {
                            return;
                        }
                        acked = self.stream.len() as u64;
                    }
                    written.forget(Seq(line));
                    None
                } else {
                    written.add(SeqRange::one(Seq(line)));
                    Some(Seq(line))
                };
                let note = Note { owner: "us".to_owned(), written: written.to_string() };
                let told = Told { by: by.clone(), acked, line, note };
                self.on_the_way[own].push_back(Sent { behind: end, told });
                end += 1;
            }
        }
    }

    fn seqs(written: &str) -> BTreeSet<u64> {
        let written: Written = written.parse().unwrap();
        written.ranges().iter().flat_map(|range| range.first.0..=range.last.0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_the_last_messages_say_is_what_is_stored_whatever_arrives_late(seed in any::<u64>()) {
            let rng = fastrand::Rng::with_seed(seed);
            let mut world = World { rng, stream: Vec::new(), on_the_way: Vec::new() };
            for number in 0..12 {
                world.connect(number);
            }
        }
    }

    #[test]
    fn a_late_message_behind_another_line_does_not_claim_the_line_that_was_refused() {
        let told = |number, acked, line, written: &str| Told {
            by: Run { number, id: "run".to_owned() },
            acked,
            line: Some(Seq(line)),
            note: Note { owner: "us".to_owned(), written: written.to_owned() },
        };
        // Line 7 had been put back when 10 and 11 were on their way; 10 was refused behind it, and 11 was not.
        let stream = [
            told(1, 7, 8, "1-6,8"),
            told(1, 7, 9, "1-6,8-9"),
            told(2, 9, 7, "1-9"),
            told(1, 7, 11, "1-6,8-11"),
        ];
        let mut chain = Chain::new(11, stream[3].clone());
        assert_eq!(chain.in_doubt(), 8..=10);
        chain.look_at(Some(stream[2].clone()));
        assert!(chain.in_doubt().is_empty());
        assert_eq!(chain.note().unwrap().written, "1-9,11");
        // A window as it should be: the last note counts.
        let mut chain = Chain::new(9, stream[1].clone());
        chain.look_at(Some(stream[0].clone()));
        assert_eq!(chain.note().unwrap().written, "1-6,8-9");
    }
}
