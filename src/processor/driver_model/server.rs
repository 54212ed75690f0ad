//! The server of the model, and what connects to it. A step is applied whole, and only to the note that it was made for.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spillq_storage::{Seq, SeqRange};

use crate::processor::Piece;
use crate::processor::driver::{Called, Destination, Doing, Lines, Note};
use crate::processor::trouble::{Fault, Trouble};
use crate::processor::written::Written;

pub(super) const OURS: &str = "1-0000000000000007-0";

/// What a step changes.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The state that it was made for.
    version: u64,
    lines: Vec<u64>,
    written: Written,
}

/// What the server holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) owner: Option<String>,
    pub(super) written: Written,
    pub(super) stored: Vec<u64>,
}

pub(super) struct Server {
    pub(super) rng: fastrand::Rng,
    /// How often out of 100 something is wrong.
    pub(super) trouble: u64,
    pub(super) held: Held,
    /// Changes with every step.
    pub(super) version: u64,
    /// Steps that were sent, and are on their way.
    pub(super) late: VecDeque<Step>,
    /// What a replica may have: what was held before the last steps.
    pub(super) behind: VecDeque<Held>,
    /// Lines that came later than others that follow them, as an operator wanted it.
    pub(super) exempt: BTreeSet<u64>,
}

impl Server {
    /// One in a hundred times `trouble`.
    fn is_unlucky(&mut self, share: u64) -> bool {
        self.rng.u64(..100) < self.trouble * share / 10
    }

    /// Applies a step if it was made for what is held now; says whether it was.
    fn apply(&mut self, step: &Step) -> bool {
        if step.version != self.version {
            return false;
        }
        self.behind.push_back(self.held.clone());
        self.behind.drain(..self.behind.len().saturating_sub(3));
        for line in &step.lines {
            let last = self.held.stored.iter().rev().find(|stored| !self.exempt.contains(stored));
            assert!(
                self.exempt.contains(line) || last.is_none_or(|last| last < line),
                "{line} overtakes {last:?}"
            );
            self.held.stored.push(*line);
        }
        self.held.owner = Some(OURS.to_owned());
        self.held.written.clone_from(&step.written);
        self.version += 1;
        self.check();
        true
    }

    /// The note claims no line that is not stored.
    pub(super) fn check(&self) {
        let stored: BTreeSet<u64> = self.held.stored.iter().copied().collect();
        for range in self.held.written.ranges() {
            let claimed = (range.first.0..=range.last.0).filter(|seq| is_own(*seq));
            let not: Vec<u64> = claimed.filter(|seq| !stored.contains(seq)).collect();
            assert!(not.is_empty(), "the note claims {range}, and {not:?} are not stored");
        }
    }

    /// What was on its way may arrive whenever something else happens.
    fn some_time_passes(&mut self) {
        while !self.late.is_empty() && self.rng.bool() {
            if let Some(step) = self.late.pop_front() {
                self.apply(&step);
            }
        }
    }
}

/// Every fifth line is of a source that the group does not get.
pub(super) fn is_own(seq: u64) -> bool {
    !seq.is_multiple_of(5)
}

#[derive(Clone)]
pub(super) struct Fake {
    pub(super) server: Arc<Mutex<Server>>,
    /// The note is read when a connection is made, and kept up from then on; otherwise before every batch.
    pub(super) reads_once: bool,
}

/// A connection: the state that the note was read from, and the note then.
pub(super) struct Session {
    version: u64,
    note: Option<Note>,
}

impl Fake {
    pub(super) fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> Session {
        let server = self.server();
        let note =
            server.held.owner.clone().map(|owner| Note { owner, written: server.held.written.to_string() });
        Session { version: server.version, note }
    }

    /// Sends a step.
    async fn step(&self, session: &mut Session, lines: Vec<u64>, written: Written) -> Result<(), Trouble> {
        let after = written.to_string();
        let step = Step { version: session.version, lines, written };
        let hangs = {
            let mut server = self.server();
            server.some_time_passes();
            let is_there = !server.is_unlucky(2);
            if !is_there {
                if server.rng.bool() {
                    server.late.push_back(step);
                }
                if server.rng.bool() {
                    return Err(Trouble::server("connection reset"));
                }
                true
            } else {
                if !server.apply(&step) {
                    return Err(Trouble::server("the note was changed meanwhile"));
                }
                if server.is_unlucky(2) {
                    if server.rng.bool() {
                        return Err(Trouble::server("connection reset"));
                    }
                    true
                } else {
                    session.version = server.version;
                    false
                }
            }
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        session.note = Some(Note { owner: OURS.to_owned(), written: after });
        Ok(())
    }
}

impl Destination for Fake {
    type Session = Session;

    const KIND: &'static str = "fake";
    const VERB: &'static str = "storing";

    fn about(&self) -> String {
        "lines on memory".to_owned()
    }

    fn called(&self) -> Called {
        let [target, note] = ["the list lines", "its note"].map(str::to_owned);
        Called { target, note, remedy: "name another list" }
    }

    fn owner(&self) -> &str {
        OURS
    }

    async fn connect(&self) -> Result<Session, Trouble> {
        let mut server = self.server();
        server.some_time_passes();
        if server.is_unlucky(2) {
            return Err(Trouble::server("connection refused"));
        }
        drop(server);
        Ok(self.look())
    }

    async fn note(&self, session: &mut Session, _: SeqRange) -> Result<Option<Note>, Trouble> {
        if self.server().is_unlucky(1) {
            return Err(Trouble::server("connection reset"));
        }
        if !self.reads_once {
            *session = self.look();
        }
        Ok(session.note.clone())
    }

    async fn write(
        &self,
        session: &mut Session,
        lines: &Lines<'_>,
        mut written: Written,
        doing: &mut Doing,
    ) -> Result<Written, Trouble> {
        doing.begin("storing");
        let mut pieces = lines.pieces;
        while !pieces.is_empty() {
            let some = self.server().rng.usize(1..=pieces.len());
            let (now, later) = pieces.split_at(some);
            pieces = later;
            let seqs: Vec<u64> = now.iter().flat_map(Piece::lines).map(|line| line.seq.0).collect();
            let bad = {
                let mut server = self.server();
                let at = server.rng.usize(..seqs.len());
                server.is_unlucky(1).then_some(seqs[at])
            };
            if let Some(bad) = bad {
                return Err(Trouble::new(Fault::Line(Seq(bad)), "not a line for me"));
            }
            now.iter().for_each(|piece| written.add(piece.covers()));
            self.step(session, seqs, written.clone()).await?;
        }
        Ok(written)
    }

    async fn renote(&self, session: &mut Session, _: Seq, written: &Written) -> Result<(), Trouble> {
        self.step(session, Vec::new(), written.clone()).await
    }
}
