//! Delivers to destinations that store each line once: connect, read the note, check its owner, write what is missing.
//!
//! Such a destination keeps a note of the lines that it was given, and changes it in the same step as it stores lines.
//! The note also names the owner (group, store, epoch). If the answer to a step is lost, the next attempt reads the note
//! and writes only what is missing, however the batch is cut. Lines of another owner are refused: equal seqs
//! name other lines there.
//!
//! If the server is unreachable or full, the same lines are delivered again later, in order, and no attempt is counted.
//! A destination that is set up wrongly is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillq_storage::{Seq, SeqRange, SourceId};

use super::given::Given;
use super::outage::Outage;
use super::trouble::{Fault, Trouble};
use super::written::{Written, has_too_many_gaps};
use super::{Batch, Evidence, Forgetting, Outcome, Paths, Piece, Processing, Processor};

/// A destination that keeps a note of the lines that it was given.
pub(super) trait Destination: Send + Sync {
    /// A connection, with what is known of it. Dropping it ends whatever is under way.
    type Session: Send;

    /// The kind of processor, as configured: `redis`.
    const KIND: &'static str;
    /// What happens to lines, for messages: `adding`.
    const VERB: &'static str;
    /// Whether every note says all that was written, so that less than before means a loss.
    const IS_WHOLE: bool = true;
    /// Bounds connecting and logging in: a host that is down answers nothing.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

    /// The target and the server, for messages: `fills on localhost:6379`.
    fn about(&self) -> String;

    /// How messages name the target and its note.
    fn called(&self) -> Called;

    /// The owner to note: an [`Epoch`](super::Epoch) as text.
    fn owner(&self) -> &str;

    /// Connects and logs in. The driver bounds the time.
    fn connect(&self) -> impl Future<Output = Result<Self::Session, Trouble>> + Send;

    /// Whether a session that was kept can still be used, as far as that is known without asking the server.
    fn is_open(&self, _session: &Self::Session) -> bool {
        true
    }

    /// Reads what the note says, at least of the lines of `of`; `None` if the target has none yet. Whoever changes it between this and the next [`write`] or
    /// [`renote`] makes that one fail, or has to wait for it.
    ///
    /// [`write`]: Destination::write
    /// [`renote`]: Destination::renote
    fn note(
        &self,
        session: &mut Self::Session,
        of: SeqRange,
    ) -> impl Future<Output = Result<Option<Note>, Trouble>> + Send;

    /// Stores `lines`, which may be none, and adds them to the note, in steps each of which is done whole or not at all.
    /// `written` is what the note says now. Returns what it says after the last step.
    fn write(
        &self,
        session: &mut Self::Session,
        lines: &Lines<'_>,
        written: Written,
        doing: &mut Doing,
    ) -> impl Future<Output = Result<Written, Trouble>> + Send;

    /// Makes the note say `written`, durably: nothing of the lines from `from` on. The lines at the destination stay.
    fn renote(
        &self,
        session: &mut Self::Session,
        from: Seq,
        written: &Written,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;
}

/// How messages name a target and its note.
pub(super) struct Called {
    /// `the stream fills`.
    pub(super) target: String,
    /// `the key spillq:{fills}`.
    pub(super) note: String,
    /// What the operator can do if the target has another owner: `name another stream, or remove both keys`.
    pub(super) remedy: &'static str,
}

/// What a destination says that it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// By whom.
    pub(super) owner: String,
    /// Which lines: a [`Written`] as text.
    pub(super) written: String,
}

/// Lines to store.
pub(super) struct Lines<'a> {
    /// In seq order.
    pub(super) pieces: &'a [Piece],
    /// The paths of their sources.
    pub(super) names: &'a BTreeMap<SourceId, String>,
}

/// What is under way, and since when. Read if a batch is cut off.
#[derive(Debug, Default)]
pub(super) struct Doing(Option<(&'static str, Instant)>);

impl Doing {
    /// From now on this: `waiting for the replies`.
    pub(super) fn begin(&mut self, what: &'static str) {
        self.0 = Some((what, Instant::now()));
    }

    fn end(&mut self) {
        self.0 = None;
    }
}

/// The processor for a [`Destination`].
pub(super) struct Driver<D: Destination> {
    to: D,
    /// The paths of sources.
    paths: Paths,
    /// `None` while a batch is under way, so that a batch that is cut off leaves no session behind.
    session: Option<D::Session>,
    given: Given,
    outage: Outage,
    doing: Doing,
}

impl<D: Destination> fmt::Debug for Driver<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Driver").field(&self.name()).finish()
    }
}

impl<D: Destination> Driver<D> {
    /// Connects at the first batch.
    pub(super) fn new(to: D, paths: Paths) -> Driver<D> {
        Driver {
            to,
            paths,
            session: None,
            given: Given::default(),
            outage: Outage::default(),
            doing: Doing::default(),
        }
    }

    async fn run(&mut self, batch: &Batch) -> Outcome {
        let delivered = self.deliver(batch).await;
        self.doing.end();
        match delivered {
            Ok(()) => {
                self.outage.is_over();
                Outcome::Done
            }
            Err(trouble) => {
                let what = format!("{} {} to {}", D::VERB, batch.named(), self.name());
                trouble.outcome(&what, || self.outage.pause())
            }
        }
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<(), Trouble> {
        if has_too_many_gaps(batch) {
            return Err(Trouble::new(Fault::Size, "too many gaps between them"));
        }
        let mut session = self.session().await?;
        let (copy, paths) = (batch.clone(), Arc::clone(&self.paths));
        let names =
            tokio::task::spawn_blocking(move || names(&copy, &paths)).await.map_err(Trouble::server)?;
        let written = self.note(&mut session, batch.range()).await?;
        let missing = written.rest(batch);
        let lines = Lines { pieces: &missing, names: &names };
        let written = self.to.write(&mut session, &lines, written, &mut self.doing).await?;
        self.is_now(&written);
        self.session = Some(session);
        Ok(())
    }

    /// Removes the lines from `from` on from the note.
    async fn unnote(&mut self, from: Seq) -> Result<(), Trouble> {
        let mut session = self.session().await?;
        let mut written = self.note(&mut session, SeqRange::one(from)).await?;
        self.given.forget(from);
        written.forget(from);
        self.to.renote(&mut session, from, &written).await?;
        self.is_now(&written);
        self.session = Some(session);
        Ok(())
    }

    /// The note says this now.
    fn is_now(&mut self, written: &Written) {
        if D::IS_WHOLE {
            self.given.is_now(written);
        }
    }

    /// The session that was kept, or a new one.
    async fn session(&mut self) -> Result<D::Session, Trouble> {
        if let Some(session) = self.session.take().filter(|session| self.to.is_open(session)) {
            return Ok(session);
        }
        self.doing.begin("connecting");
        let connected = tokio::time::timeout(D::CONNECT_TIMEOUT, self.to.connect()).await;
        connected.map_err(|_| Trouble::server(format!("no connection within {:?}", D::CONNECT_TIMEOUT)))?
    }

    /// What the note says, if it is ours.
    async fn note(&mut self, session: &mut D::Session, of: SeqRange) -> Result<Written, Trouble> {
        self.doing.begin("waiting to see what is written");
        let note = self.to.note(session, of).await?;
        let written = check(&self.to, note)?;
        self.is_now(&written);
        Ok(written)
    }
}

/// What `note` says was written, if its owner is that of the lines to come.
pub(super) fn check(to: &impl Destination, note: Option<Note>) -> Result<Written, Trouble> {
    let Some(Note { owner, written }) = note else { return Ok(Written::default()) };
    let Called { target, note, remedy } = to.called();
    if owner != to.owner() {
        return Err(Trouble::setup(format!(
            "{target} belongs to another store or group, or to this one before it was restored: {note} has the owner \
             {}, this is {}; {remedy}",
            owner,
            to.owner()
        )));
    }
    written.parse().map_err(|error| Trouble::setup(format!("{note} has {error}")))
}

/// The paths of the sources of `batch`, or their numbers. May block for half a second: not for a thread of the runtime.
fn names(batch: &Batch, paths: &Paths) -> BTreeMap<SourceId, String> {
    let mut names = BTreeMap::new();
    for line in batch.lines() {
        names.entry(line.source).or_insert_with(|| {
            paths(line.source).map_or_else(|| line.source.0.to_string(), |named| named.path)
        });
    }
    names
}

impl<D: Destination> Processor for Driver<D> {
    fn name(&self) -> String {
        format!("{} {}", D::KIND, self.about())
    }

    fn about(&self) -> String {
        self.to.about()
    }

    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a> {
        Box::pin(self.run(batch))
    }

    fn lost(&mut self) -> Vec<SeqRange> {
        self.given.take_lost()
    }

    fn keeps_note(&self) -> bool {
        true
    }

    fn forget(&mut self, from: Seq) -> Forgetting<'_> {
        Box::pin(async move {
            let was_open = self.session.is_some();
            let mut forgotten = self.unnote(from).await;
            // The server may have closed a connection that was not used for long.
            if was_open && forgotten.is_err() {
                forgotten = self.unnote(from).await;
            }
            self.doing.end();
            forgotten.map_err(|trouble| trouble.evidence(&self.name()))
        })
    }

    fn interrupted(&mut self) -> Option<Evidence> {
        let (doing, since) = self.doing.0.take()?;
        let summary = format!("it was {doing} for {:.1} s", since.elapsed().as_secs_f64());
        Some(Evidence::new(summary))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard};

    use super::super::{Named, sample};
    use super::*;

    const OURS: &str = "1-0000000000000007-0";

    /// A server in memory, and what it does next.
    #[derive(Default)]
    struct Server {
        note: Option<(String, Written)>,
        stored: Vec<u64>,
        connections: u64,
        next: Next,
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    enum Next {
        #[default]
        Answers,
        /// It refuses connections and drops those that there are.
        IsDown,
        /// It does what is asked, once, and the answer is lost.
        LosesAnswer,
        /// It does what is asked and never answers.
        Hangs,
        /// It stores nothing, for this reason.
        Fails(Fault),
    }

    #[derive(Clone)]
    struct Fake {
        server: Arc<Mutex<Server>>,
    }

    impl Fake {
        fn new() -> Fake {
            Fake { server: Arc::default() }
        }

        fn server(&self) -> MutexGuard<'_, Server> {
            self.server.lock().unwrap()
        }

        fn driver(&self) -> Driver<Fake> {
            let path = |source: SourceId| format!("/log/{}", source.0);
            Driver::new(
                self.clone(),
                Arc::new(move |source| Some(Named { path: path(source), ..Named::default() })),
            )
        }

        /// The answer to a step that has been done.
        async fn answer(&self) -> Result<(), Trouble> {
            let next = self.server().next;
            match next {
                Next::Hangs => std::future::pending().await,
                Next::LosesAnswer => {
                    self.server().next = Next::Answers;
                    Err(Trouble::server("connection reset"))
                }
                _ => Ok(()),
            }
        }
    }

    impl Destination for Fake {
        type Session = ();

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

        async fn connect(&self) -> Result<(), Trouble> {
            let mut server = self.server();
            if server.next == Next::IsDown {
                return Err(Trouble::server("connection refused"));
            }
            server.connections += 1;
            Ok(())
        }

        async fn note(&self, (): &mut (), _: SeqRange) -> Result<Option<Note>, Trouble> {
            let server = self.server();
            if server.next == Next::IsDown {
                return Err(Trouble::server("connection reset"));
            }
            let note = server.note.clone();
            Ok(note.map(|(owner, written)| Note { owner, written: written.to_string() }))
        }

        async fn write(
            &self,
            (): &mut (),
            lines: &Lines<'_>,
            mut written: Written,
            doing: &mut Doing,
        ) -> Result<Written, Trouble> {
            doing.begin("storing");
            {
                let mut server = self.server();
                if let Next::Fails(fault) = server.next {
                    return Err(Trouble { more: "more\n".to_owned(), ..Trouble::new(fault, "no") });
                }
                for line in lines.pieces.iter().flat_map(Piece::lines) {
                    assert_eq!(lines.names[&line.source], "/log/3");
                    server.stored.push(line.seq.0);
                }
                lines.pieces.iter().for_each(|piece| written.add(piece.covers()));
                server.note = Some((OURS.to_owned(), written.clone()));
            }
            self.answer().await?;
            Ok(written)
        }

        async fn renote(&self, (): &mut (), _: Seq, written: &Written) -> Result<(), Trouble> {
            self.server().note = Some((OURS.to_owned(), written.clone()));
            self.answer().await
        }
    }

    fn batch(ranges: &[(u64, u64)]) -> Batch {
        let block = sample::block(1, &[&b"x"[..]; 400]);
        Batch::new(Arc::from("default"), 1, sample::pieces(&block, ranges, Piece::new)).unwrap()
    }

    #[tokio::test]
    async fn a_line_whose_answer_was_lost_is_stored_once_however_the_batch_is_cut_again() {
        let fake = Fake::new();
        let mut driver = fake.driver();
        assert_eq!(driver.process(&batch(&[(1, 4)])).await, Outcome::Done);
        fake.server().next = Next::LosesAnswer;
        let Outcome::Later(_, evidence) = driver.process(&batch(&[(5, 8)])).await else {
            panic!("the server is at fault")
        };
        assert_eq!(evidence.summary, "storing lines 5-8 to fake lines on memory failed: connection reset");
        for cut in [(3, 6), (7, 12), (1, 12)] {
            assert_eq!(driver.process(&batch(&[cut])).await, Outcome::Done);
        }
        // A line that was dead-lettered comes late, in a new run of the process.
        let mut driver = fake.driver();
        assert_eq!(driver.process(&batch(&[(14, 14)])).await, Outcome::Done);
        assert_eq!(driver.process(&batch(&[(13, 14)])).await, Outcome::Done);
        let server = fake.server();
        assert_eq!(server.stored, (1..=12).chain([14, 13]).collect::<Vec<_>>());
        assert_eq!(server.connections, 3, "a session is kept while nothing fails");
    }

    #[tokio::test]
    async fn what_belongs_to_another_owner_is_refused_and_left_as_it_is() {
        for (owner, written, why) in [
            ("1-0000000000000008-0", "1-9", "its note has the owner 1-0000000000000008-0, this is 1-"),
            ("1-0000000000000007-1", "1-9", "before it was restored"),
            ("2-0000000000000007-0", "", "name another list"),
        ] {
            let fake = Fake::new();
            let note = Some((owner.to_owned(), written.parse().unwrap()));
            fake.server().note.clone_from(&note);
            let mut driver = fake.driver();
            let Outcome::Refused(evidence) = driver.process(&batch(&[(1, 4)])).await else {
                panic!("{owner}: not refused")
            };
            assert!(evidence.summary.contains(why), "{}", evidence.summary);
            assert!(driver.forget(Seq(1)).await.unwrap_err().summary.contains(why));
            let server = fake.server();
            assert_eq!((&server.note, server.stored.as_slice()), (&note, &[][..]));
        }
        let torn = Some(Note { owner: OURS.to_owned(), written: "12-1".to_owned() });
        let trouble = check(&Fake::new(), torn).unwrap_err();
        assert_eq!(trouble.fault, Fault::Setup);
        assert!(trouble.why.starts_with("its note has not the lines"), "{}", trouble.why);
    }

    #[tokio::test]
    async fn a_server_that_is_down_is_left_alone_for_longer_each_time() {
        let fake = Fake::new();
        let mut driver = fake.driver();
        assert_eq!(driver.process(&batch(&[(1, 1)])).await, Outcome::Done);
        fake.server().next = Next::IsDown;
        let mut pauses = Vec::new();
        for _ in 0..3 {
            match driver.process(&batch(&[(2, 3)])).await {
                Outcome::Later(pause, _) => pauses.push(pause),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pauses, [pauses[0], pauses[0] * 2, pauses[0] * 4]);
        fake.server().next = Next::Answers;
        assert_eq!(driver.process(&batch(&[(2, 3)])).await, Outcome::Done);
        fake.server().next = Next::LosesAnswer;
        assert!(
            matches!(driver.process(&batch(&[(4, 4)])).await, Outcome::Later(pause, _) if pause == pauses[0])
        );
        assert_eq!(fake.server().stored, [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn every_fault_has_its_outcome_and_what_the_server_said_with_it() {
        let fake = Fake::new();
        let mut driver = fake.driver();
        let evidence = Evidence {
            summary: "storing lines 1-2 to fake lines on memory failed: no".to_owned(),
            tail: "more\n".to_owned(),
        };
        for (fault, outcome) in [
            (Fault::Setup, Outcome::Refused(evidence.clone())),
            (Fault::Size, Outcome::TooLarge(evidence.clone())),
            (Fault::Time, Outcome::Failed(evidence.clone())),
            (Fault::Line(Seq(2)), Outcome::BadLine(Seq(2), evidence.clone())),
            (Fault::Lines, Outcome::Poison(evidence.clone())),
        ] {
            fake.server().next = Next::Fails(fault);
            assert_eq!(driver.process(&batch(&[(1, 2)])).await, outcome);
        }
        let gaps: Vec<_> = (1..=200).map(|at| (2 * at, 2 * at)).collect();
        assert!(matches!(driver.process(&batch(&gaps)).await, Outcome::TooLarge(_)));
        assert!(fake.server().stored.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_cut_off_says_what_was_under_way_and_leaves_no_session() {
        let fake = Fake::new();
        let mut driver = fake.driver();
        fake.server().next = Next::Hangs;
        let first = batch(&[(1, 2)]);
        tokio::time::timeout(Duration::from_secs(30), driver.process(&first)).await.unwrap_err();
        let seen = driver.interrupted().unwrap();
        assert!(seen.summary.starts_with("it was storing for "), "{}", seen.summary);
        assert_eq!((driver.interrupted(), driver.session), (None, None));
        fake.server().next = Next::Answers;
        assert_eq!(driver.process(&first).await, Outcome::Done);
        let server = fake.server();
        assert_eq!((server.stored.as_slice(), server.connections), (&[1, 2][..], 2));
    }

    #[tokio::test]
    async fn lines_that_are_removed_from_the_note_are_stored_again_and_are_not_lost() {
        let fake = Fake::new();
        let mut driver = fake.driver();
        assert_eq!(driver.process(&batch(&[(1, 4)])).await, Outcome::Done);
        // The kept connection is stale: the second attempt has a new one.
        fake.server().next = Next::LosesAnswer;
        assert_eq!(driver.forget(Seq(3)).await, Ok(()));
        assert_eq!(driver.process(&batch(&[(1, 4)])).await, Outcome::Done);
        assert_eq!(fake.server().stored, [1, 2, 3, 4, 3, 4]);
        assert_eq!(driver.lost(), []);
        // A new connection is not tried twice.
        fake.server().next = Next::IsDown;
        let mut fresh = fake.driver();
        assert_eq!(
            fresh.forget(Seq(1)).await.unwrap_err().summary,
            "fake lines on memory: connection refused"
        );
    }

    #[tokio::test]
    async fn lines_that_a_destination_has_lost_are_reported_once() {
        let fake = Fake::new();
        let mut driver = fake.driver();
        assert_eq!(driver.process(&batch(&[(1, 9)])).await, Outcome::Done);
        // A failover to a replica that was behind.
        fake.server().note = Some((OURS.to_owned(), "1-6".parse().unwrap()));
        assert_eq!(driver.process(&batch(&[(10, 12)])).await, Outcome::Done);
        assert_eq!(driver.lost(), [SeqRange { first: Seq(7), last: Seq(9) }]);
        assert_eq!(driver.lost(), []);
    }
}
