//! A model of destinations that keep a note: the driver against a server that does what servers do, at random.
//!
//! The server stores a batch in several steps. It applies a step and loses the answer, applies it late, when the connection is
//! long gone, or never; it hangs; it blames a line; it falls back to a replica that was behind; and it is given to another
//! owner. Batches are cut anew at every attempt, have gaps (dead letters) and lines of other sources in them, and the
//! process restarts at random. What a destination promises is modelled as all of them keep it: a step is applied whole, and
//! only to the note that it was made for.

mod server;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use spillq_storage::{Block, Seq, SeqRange};

use self::server::{Fake, Held, OURS, Server, is_own};
use super::driver::Driver;
use super::{Batch, Named, Outcome, Piece, Processor, sample};

const THEIRS: &str = "1-0000000000000008-0";
/// Lines of a history.
const LINES: u64 = 300;
/// Longer than any pause or time-out: the clock of a history stands still otherwise.
const LONG: Duration = Duration::from_secs(3_600);
/// Attempts of a history; each moves on with some probability.
const ATTEMPTS_MAX: u64 = 5_000;

/// A group that delivers, its operator, and what has to be at the destination in the end.
struct World {
    rng: fastrand::Rng,
    to: Fake,
    block: Arc<Block>,
    driver: Driver<Fake>,
    /// Acked, with those that became dead letters.
    done: BTreeSet<u64>,
    dead: BTreeSet<u64>,
    /// How often a line may be at the destination: once, and once more for each time that it was asked for again.
    may: BTreeMap<u64, u64>,
    /// How often at least.
    must: BTreeMap<u64, u64>,
    /// Lines that the server was given and has lost.
    lost: BTreeSet<u64>,
    /// Of targets that somebody else has taken.
    elsewhere: Vec<u64>,
}

impl World {
    fn new(seed: u64, trouble: u64, reads_once: bool) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let server = Server {
            rng: rng.fork(),
            trouble,
            held: Held::default(),
            version: 0,
            late: VecDeque::new(),
            behind: VecDeque::new(),
            exempt: BTreeSet::new(),
        };
        let to = Fake { server: Arc::new(Mutex::new(server)), reads_once };
        let block = sample::block(1, &[&b"x"[..]; LINES as usize]);
        let may: BTreeMap<u64, u64> = (1..=LINES).filter(|seq| is_own(*seq)).map(|seq| (seq, 1)).collect();
        World {
            driver: driver(&to),
            rng,
            to,
            block,
            done: BTreeSet::new(),
            dead: BTreeSet::new(),
            must: may.clone(),
            may,
            lost: BTreeSet::new(),
            elsewhere: Vec::new(),
        }
    }

    fn waiting(&self) -> impl Iterator<Item = u64> {
        self.may.keys().copied().filter(|seq| !self.done.contains(seq))
    }

    /// The next lines in order, some of them; each piece covers the lines of others up to the next line of the group.
    fn cut(&mut self) -> Option<Batch> {
        let count = self.rng.usize(1..=40);
        let seqs: Vec<u64> = self.waiting().take(count).collect();
        let pieces = seqs.iter().filter_map(|seq| {
            let range = SeqRange::new(Seq(*seq), Seq(*seq))?;
            let covers = SeqRange::new(Seq(*seq), Seq(if is_own(seq + 1) { *seq } else { seq + 1 }))?;
            Some(Piece::new(Arc::clone(&self.block), range)?.covering(covers))
        });
        Batch::new(Arc::from("default"), 1, pieces.collect())
    }

    async fn deliver(&mut self) {
        let Some(batch) = self.cut() else { return };
        let seqs: Vec<u64> = batch.lines().map(|line| line.seq.0).collect();
        let before = self.to.server().held.clone();
        let delivered = tokio::time::timeout(LONG, self.driver.process(&batch)).await;
        let Ok(outcome) = delivered else {
            assert!(self.driver.interrupted().is_some(), "a batch that is cut off was doing something");
            return;
        };
        match outcome {
            Outcome::Done => {
                let mut held: BTreeSet<u64> = self.to.server().held.stored.iter().copied().collect();
                // An open session may remember what the server has lost since: that is reported when the note is read again.
                held.extend(self.lost.iter().chain(&self.elsewhere));
                let missing: Vec<u64> = seqs.iter().copied().filter(|seq| !held.contains(seq)).collect();
                assert!(missing.is_empty(), "acked, and not stored: {missing:?}");
                self.done.extend(seqs);
            }
            Outcome::BadLine(seq, _) => {
                assert!(seqs.contains(&seq.0));
                self.dead.insert(seq.0);
                self.done.insert(seq.0);
            }
            Outcome::Later(..) => {}
            Outcome::Refused(evidence) => {
                let mut server = self.to.server();
                assert_eq!(server.held.owner.as_deref(), Some(THEIRS), "{evidence:?}");
                assert_eq!(server.held.stored, before.stored, "nothing is added to what belongs to others");
                // The operator names another target.
                server.held = Held::default();
                server.version += 1;
                server.behind.clear();
                drop(server);
                self.driver = driver(&self.to);
            }
            other => panic!("{other:?}"),
        }
        // What is reported as lost was there, and is not any more.
        let held: BTreeSet<u64> = self.to.server().held.stored.iter().copied().collect();
        for range in self.driver.lost() {
            for seq in (range.first.0..=range.last.0).filter(|seq| is_own(*seq)) {
                assert!(
                    self.lost.contains(&seq) || held.contains(&seq),
                    "{seq} is reported, and was not lost"
                );
            }
        }
    }

    /// Something happens to the server, the process, or by an operator.
    async fn something(&mut self) {
        match self.rng.u8(..60) {
            0..3 => self.driver = driver(&self.to),
            3 => {
                let mut server = self.to.server();
                // A failover loses the last steps, and the note of them.
                let steps = server.behind.len();
                let at = steps - server.rng.usize(..=steps);
                let held =
                    server.behind.get(at).filter(|held| held.owner.as_deref() != Some(THEIRS)).cloned();
                if let Some(held) = held {
                    self.lost.extend(server.held.stored.split_off(held.stored.len()));
                    server.held = held;
                    server.behind.clear();
                    server.version += 1;
                    // The step that forgot lines may be among those that are lost: they count as written again.
                    self.must.values_mut().for_each(|must| *must = 1);
                }
            }
            4 => {
                let mut server = self.to.server();
                if server.held.owner.as_deref() == Some(OURS) {
                    let stored = std::mem::take(&mut server.held.stored);
                    server.held = Held { owner: Some(THEIRS.to_owned()), ..Held::default() };
                    server.behind.clear();
                    server.version += 1;
                    drop(server);
                    for seq in &stored {
                        // What was not acked comes again at the next target.
                        let again = u64::from(!self.done.contains(seq));
                        *self.may.entry(*seq).or_default() += again;
                    }
                    self.elsewhere.extend(stored);
                }
            }
            5 => {
                // A dead letter is put back: it comes late.
                let Some(seq) = self.dead.pop_first() else { return };
                self.to.server().exempt.insert(seq);
                self.done.remove(&seq);
            }
            6 => self.seek().await,
            _ => {}
        }
    }

    /// Lines are asked for again, as `group seek --again` does it: first the note forgets them.
    async fn seek(&mut self) {
        let from = self.rng.u64(1..=LINES);
        let mut tries = 0;
        loop {
            let forgotten = tokio::time::timeout(LONG, self.driver.forget(Seq(from))).await;
            if forgotten.is_ok_and(|forgotten| forgotten.is_ok()) {
                break;
            }
            tries += 1;
            if self.to.server().held.owner.as_deref() == Some(THEIRS) || tries > 100 {
                return;
            }
        }
        let there = self.there();
        for (seq, may) in self.may.range_mut(from..) {
            *may += 1;
            self.must.insert(*seq, there.get(seq).copied().unwrap_or_default() + 1);
            self.done.remove(seq);
            self.dead.remove(seq);
            // All of it comes after what is there.
            self.to.server().exempt.insert(*seq);
        }
    }

    fn check(&self) {
        self.to.server().check();
        let there = self.there();
        for (seq, may) in &self.may {
            let times = there.get(seq).copied().unwrap_or_default();
            assert!(times <= *may, "line {seq} is there {times} times, and may be {may} times");
            let is_exempt = self.dead.contains(seq) || self.lost.contains(seq);
            let must = self.must[seq];
            assert!(
                times >= must || is_exempt,
                "line {seq} is there {times} times, and must be {must} times"
            );
        }
    }

    /// How often each line is at this target and those before it.
    fn there(&self) -> BTreeMap<u64, u64> {
        let server = self.to.server();
        let mut there = BTreeMap::new();
        for seq in self.elsewhere.iter().chain(&server.held.stored) {
            *there.entry(*seq).or_default() += 1;
        }
        there
    }
}

fn driver(to: &Fake) -> Driver<Fake> {
    Driver::new(to.clone(), Arc::new(|_| Some(Named { path: "/log/3".to_owned(), ..Named::default() })))
}

fn run(seed: u64, trouble: u64, reads_once: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread").block_on(async {
        let mut world = World::new(seed, trouble, reads_once);
        let mut attempts = 0;
        while world.waiting().next().is_some() {
            attempts += 1;
            assert!(attempts < ATTEMPTS_MAX, "{} lines wait still", world.waiting().count());
            world.something().await;
            world.deliver().await;
        }
        world.check();
    });
}

fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(19),
        fixed @ RngSeed::Fixed(_) => fixed,
    };
    ProptestConfig { cases: config.cases.max(1_000), rng_seed, failure_persistence: None, ..config }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn each_line_is_stored_once_and_the_note_never_claims_more(seed: u64, trouble in 0_u64..40, reads_once: bool) {
        run(seed, trouble, reads_once);
    }
}
