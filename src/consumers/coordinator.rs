//! The coordinator: where consumers lease lines, settle and extend leases, and leave.
//!
//! Whatever changes something at the owner runs in a separate task, to its end: a client that goes away in the middle
//! leaves no lease that nobody knows.
// long: what a consumer can ask for, from the request to the owner and back

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use spillq_storage::{GroupId, SeqRange, SourceId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::access::{Access, Caller, Denied, Open};
use super::ahead::{Ahead, Ready};
use super::settlement::{Settlement, Wrong, failed};
use super::table::{Gone, Held, Repeated, Table};
use super::token::LeaseToken;
use super::view::Seen;
use super::why::{Why, why};
use crate::plain::{duration, span};
use crate::processor::{Batch, Epoch, Feed, Input, Paths, Piece, Read, chunks};
use crate::queue::{
    Closed, Command, Counted, FailureKind, GroupStatus, Handle, Lent, Offer, Own, Settled, Taken, Verdict,
    Window, now_ms,
};

/// Requests of one group that wait for lines: more consumers than that gain nothing.
const WAITING_OF_GROUP_MAX: usize = 64;
/// The same for all groups: each is a connection and a task.
const WAITING_MAX: usize = 256;
/// Bytes of all bodies that are being sent: a row of the memory budget.
const BODIES_BYTES_MAX: usize = 16 << 20;
/// How long a lease waits for a share of these while slow clients hold it.
const BODY_WAIT: Duration = Duration::from_secs(10);
/// How long a request without time to wait is kept if there are lines: the owner may be in a commit.
const OFFER_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked meanwhile.
const OFFER_LOOK: Duration = Duration::from_millis(20);
/// The unit of that budget.
const KIB: usize = 1_024;
/// What an object has in addition to its text, at most: names of fields, numbers, and a path.
const OBJECT_BYTES: u64 = 512;
/// Feeds that are kept for the next request of a group: each has an open segment file.
const FEEDS_KEPT: usize = 4;
/// How long lines are kept that were read ahead: others cannot be offered them meanwhile.
const AHEAD_KEPT_MS: u64 = 5_000;
/// How often a request that holds such lines asks the owner whether a lease was revoked.
const PLACE_LOOK: Duration = Duration::from_secs(1);
/// How often deadlines are compared with the clock while leases are out: a host that slept finds out.
const EXPIRY_LOOK_MS: u64 = 1_000;

/// The form of the lines in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// A JSON object a line.
    #[default]
    Ndjson,
    /// The bytes as they were in their files.
    Lines,
}

/// A request for lines.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The name of the consumer.
    pub consumer: String,
    /// Lines at most; the group has a bound too.
    pub max_lines: Option<u64>,
    /// Bytes of lines at most; a longer line comes alone.
    pub max_bytes: Option<u64>,
    /// How long to wait for lines.
    pub wait: Duration,
    /// For how long to lease them; the timeout of the group if not given.
    pub lease_ms: Option<u64>,
    /// Names the request, so that it can be repeated.
    pub request: Option<String>,
    /// The form of the body.
    pub form: Form,
    /// The connection with which the lease ends.
    pub connection: Option<u64>,
}

/// Lines that are leased.
#[derive(Debug)]
pub struct Leased {
    /// Settles it.
    pub token: LeaseToken,
    /// What its seqs belong to.
    pub epoch: String,
    /// From the first line to the last.
    pub range: SeqRange,
    /// How many lines the body has.
    pub lines: u64,
    /// How often they were delivered, this time included.
    pub attempt: u32,
    /// The time until the lease expires.
    pub expires_ms: u64,
    /// The lines.
    pub body: Body,
}

/// The lines of a lease, to be sent. Counts in the memory budget until it is dropped.
#[derive(Debug)]
pub struct Body {
    /// The bytes.
    pub chunks: Vec<Bytes>,
    _share: OwnedSemaphorePermit,
}

/// Why there is no lease.
#[derive(Debug)]
pub enum Refusal {
    /// The request is not allowed.
    Denied(Denied),
    /// A processor gets the batches of the group.
    HasProcessor,
    /// The lease of this request has ended.
    Ended(Gone),
    /// There were no lines within the time.
    Nothing(Why),
    /// Too many requests wait.
    TooManyWaiting,
    /// Slow clients hold the memory for bodies.
    Busy,
    /// Parts of the lease were acked: without objects its lines cannot be separated.
    InParts,
    /// The service stops.
    Stopping,
    /// The kernel has no random numbers.
    NoToken(io::Error),
    /// Lines could not be put into their form.
    Form(io::Error),
}

/// Why a lease was not settled or extended.
#[derive(Debug)]
pub enum SettleRefusal {
    /// The request is not allowed.
    Denied(Denied),
    /// The token counts no more. With what of the lines in question is settled by now, if the request named lines.
    Gone(Gone, Option<Vec<SeqRange>>),
    /// The request says nothing, or several things, of the lines.
    Request(String),
    /// The settlement does not fit the lease.
    Wrong(Wrong),
    /// The request names other lines than the lease has.
    OtherLines(SeqRange),
    /// The acks would have too many ranges, or too many rejected lines wait already.
    NoRoom,
    /// The service stops.
    Stopping,
}

/// The lines that a settlement claims to be about.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// What the seqs belong to.
    pub epoch: Option<String>,
    /// From the first line to the last.
    pub range: Option<SeqRange>,
}

/// A group, as its consumers see it.
#[derive(Debug)]
pub struct GroupView {
    /// Its status.
    pub status: GroupStatus,
    /// Why it has no lines to lease; `None` if it has some.
    pub why: Option<Why>,
    /// Its consumers.
    pub seen: Seen,
    /// Now, by the clock for deadlines.
    pub now_ms: u64,
}

impl From<Closed> for Refusal {
    fn from(Closed: Closed) -> Refusal {
        Refusal::Stopping
    }
}

impl From<Closed> for SettleRefusal {
    fn from(Closed: Closed) -> SettleRefusal {
        SettleRefusal::Stopping
    }
}

/// What changes while requests wait.
#[derive(Clone, Debug, Default)]
struct Now {
    access: Arc<Access>,
    stopping: bool,
}

/// The coordinator. One for the service.
pub struct Coordinator {
    handle: Handle,
    window: Arc<Window>,
    epoch: Epoch,
    run: u64,
    paths: Paths,
    now: watch::Sender<Now>,
    table: Mutex<Table>,
    /// A deadline is new, or a lease has ended.
    changed: Notify,
    bodies: Arc<Semaphore>,
    feeds: Mutex<BTreeMap<GroupId, Vec<Feed>>>,
    ahead: Ahead,
    /// Requests that wait for lines.
    waiting: Mutex<BTreeMap<GroupId, usize>>,
    /// When the rate of a group allows the next lease.
    next_lease: Mutex<BTreeMap<GroupId, Instant>>,
}

/// One request that waits for lines.
struct Waiting<'a>(&'a Coordinator, GroupId);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(of) = lock(&self.0.waiting).get_mut(&self.1) {
            *of = of.saturating_sub(1);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Coordinator {
    /// A coordinator of this run of the service, with no group yet. Its owner is asked through `handle`.
    #[must_use]
    pub fn new(
        handle: Handle,
        window: Arc<Window>,
        epoch: Epoch,
        run: u64,
        paths: Paths,
    ) -> Arc<Coordinator> {
        Arc::new(Coordinator {
            handle,
            window,
            epoch,
            run,
            paths,
            now: watch::Sender::default(),
            table: Mutex::default(),
            changed: Notify::new(),
            bodies: Arc::new(Semaphore::new(BODIES_BYTES_MAX / KIB)),
            feeds: Mutex::default(),
            ahead: Ahead::default(),
            waiting: Mutex::default(),
            next_lease: Mutex::default(),
        })
    }

    /// The labels of a source, as lines of it are delivered.
    #[must_use]
    pub fn labels(&self, source: SourceId) -> BTreeMap<String, String> {
        (self.paths)(source).map(|named| (*named.labels).clone()).unwrap_or_default()
    }

    /// Groups were added or removed by an operator.
    pub async fn groups_changed(&self) {
        if let Ok(groups) = self.handle.ask(Command::Groups).await {
            let access = self.now.borrow().access.with_groups(&groups);
            self.set(access);
        }
    }

    /// Sets what consumers may do from now on. Leases continue; waiting requests are checked again.
    pub fn set(&self, mut access: Access) {
        self.now.send_modify(|now| {
            access.keep_paces_of(&now.access);
            now.access = Arc::new(access);
        });
        self.ahead.clear();
    }

    /// Expires leases, until it is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            let changed = self.changed.notified();
            let next = self.table().next_expiry().into_iter().chain(self.ahead.next_expiry()).min();
            let wait =
                next.map(|at| Duration::from_millis(at.saturating_sub(now_ms()).clamp(1, EXPIRY_LOOK_MS)));
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
            self.ahead.expire(now_ms());
            let due = self.table().groups_due(now_ms());
            self.reconcile(due).await;
            let expired = self.table().expire(now_ms());
            if !expired.is_empty() {
                self.changed.notify_waiters();
            }
            for held in expired {
                let (lasted, lines) =
                    (duration(held.until_ms.saturating_sub(held.since_ms)), span(held.span()));
                let summary = format!(
                    "consumer {} did not settle {lines} within {lasted}: the lease has expired",
                    held.consumer
                );
                let kind = FailureKind::Failed;
                self.end(&held, Verdict::Failed { kind, summary, tail: String::new(), timed_out: true });
            }
        }
    }

    /// Ends all leases: first their consumers get this time to settle them. No other begins.
    pub async fn stop(&self, wait: Duration) {
        self.now.send_modify(|now| now.stopping = true);
        self.ahead.clear();
        let held = self.table().groups_held();
        self.reconcile(held).await;
        let all_ended = async {
            loop {
                let changed = self.changed.notified();
                if self.table().len() == 0 {
                    return;
                }
                changed.await;
            }
        };
        let in_time = tokio::time::timeout(wait, all_ended).await.is_ok();
        let left = self.table().end_all(Gone::Restarted, |_| true);
        if !in_time {
            tracing::warn!(
                leases = left.len(),
                "consumers did not settle in time; their lines come again at the next start"
            );
        }
        for held in left {
            let (group, token) = (held.group, held.lease);
            let released = |reply| Command::Settle { group, token, verdict: Verdict::Released, reply };
            // If the owner has ended, there is nothing to release.
            drop(self.handle.ask(released).await);
        }
    }

    /// Leases the next lines of a group, as soon as there are some.
    ///
    /// # Errors
    /// See [`Refusal`]; [`Refusal::Nothing`] is the usual one.
    pub async fn lease(
        self: &Arc<Self>,
        group: &str,
        caller: Caller<'_>,
        ask: Ask,
    ) -> Result<Leased, Refusal> {
        let until = tokio::time::Instant::now() + ask.wait;
        let mut now = self.now.subscribe();
        let open = self.open_for(&now.borrow_and_update(), group, caller)?;
        let repeated = self.table().asks(open.id, &ask.consumer, ask.request.as_deref(), now_ms());
        let number = match repeated {
            Repeated::No(number) => number,
            Repeated::Gone(gone) => return Err(Refusal::Ended(gone)),
            Repeated::Lease(token) => return self.lease_again(token, &open, &ask).await,
        };
        let _waiting = self.wait_for_lines(open.id)?;
        if let Some(ready) = self.read_ahead(&open, &ask).await
            && self.has_place(&open, (group, caller), &mut now, until).await?
            && let Some((feed, read)) = ready.take()
        {
            let leased = self.in_task(&ask, |coordinator, ask| {
                let open = open.clone();
                async move { coordinator.take_read(feed, read, &open, (&ask, number)).await }
            });
            if let Some(leased) = leased.await? {
                return Ok(leased);
            }
        }
        loop {
            if tokio::time::Instant::now() > until + OFFER_WAIT {
                return Err(self.nothing(open.id).await.unwrap_or(Refusal::Nothing(Why::busy())));
            }
            let may_ask = lock(&self.next_lease).get(&open.id).copied().filter(|next| *next > Instant::now());
            if let Some(next) = may_ask {
                if tokio::time::Instant::from_std(next) > until {
                    tokio::time::sleep_until(until).await;
                    return Err(Refusal::Nothing(Why::rate()));
                }
                tokio::time::sleep_until(next.into()).await;
            }
            let feed = self.feed(&open);
            let (mut asked, mut deadline) = (feed.ask(false)?, until);
            let offer = loop {
                tokio::select! {
                    biased;
                    offer = &mut asked.answer => match offer {
                        Ok(offer) => break offer,
                        // The group was removed, or the owner has ended.
                        Err(_) => return Err(self.nothing(open.id).await.unwrap_or(Refusal::Stopping)),
                    },
                    changed = now.changed() => {
                        changed.map_err(|_| Refusal::Stopping)?;
                        self.open_for(&now.borrow_and_update(), group, caller)?;
                    }
                    () = tokio::time::sleep_until(deadline) => match self.nothing(open.id).await {
                        // There are lines, and the owner is about to offer them.
                        None if deadline < until + OFFER_WAIT => deadline = deadline.max(tokio::time::Instant::now()) + OFFER_LOOK,
                        None => return Err(Refusal::Nothing(Why::busy())),
                        Some(refusal) => return Err(refusal),
                    },
                }
            };
            drop(asked);
            let leased = self.in_task(&ask, |coordinator, ask| {
                let open = open.clone();
                async move { coordinator.take(feed, &open, offer, (&ask, number)).await }
            });
            if let Some(leased) = leased.await? {
                return Ok(leased);
            }
        }
    }

    /// Leases in a task of its own, which goes on if the request is dropped.
    async fn in_task<F>(
        self: &Arc<Self>,
        ask: &Ask,
        lease: impl FnOnce(Arc<Self>, Ask) -> F,
    ) -> Result<Option<Leased>, Refusal>
    where
        F: Future<Output = Result<Option<Leased>, Refusal>> + Send + 'static,
    {
        let (send, leased) = oneshot::channel();
        let coordinator = Arc::clone(self);
        let is_bound_or_unnamed = ask.request.is_none() || ask.connection.is_some();
        let lease = lease(Arc::clone(self), ask.clone());
        tokio::spawn(async move {
            if let Err(Ok(Some(unsent))) = send.send(lease.await)
                && is_bound_or_unnamed
            {
                // Nobody knows its token, or the connection is gone with which it ends.
                coordinator.give_back(unsent.token);
            }
        });
        leased.await.map_err(|_| Refusal::Stopping)?
    }

    /// Lines that were read before they are asked for.
    async fn read_ahead(&self, open: &Open, ask: &Ask) -> Option<Ready> {
        let task = self.ahead.take(open.id, (ask.max_lines, ask.max_bytes))?;
        task.await.ok()?.filter(|_| open.pace.is_none())
    }

    /// Waits until the group may have one more lease; `false` if that is not so within the time.
    async fn has_place(
        &self,
        open: &Open,
        (group, caller): (&str, Caller<'_>),
        now: &mut watch::Receiver<Now>,
        until: tokio::time::Instant,
    ) -> Result<bool, Refusal> {
        loop {
            let changed = self.changed.notified();
            if self.table().held_of(open.id) < open.settings.in_flight {
                return Ok(true);
            }
            tokio::select! {
                () = changed => {}
                changed = now.changed() => {
                    changed.map_err(|_| Refusal::Stopping)?;
                    self.open_for(&now.borrow_and_update(), group, caller)?;
                }
                () = tokio::time::sleep_until(until) => return Ok(false),
                // The owner may have revoked a lease: an operator moved the group.
                () = tokio::time::sleep(PLACE_LOOK) => self.reconcile([open.id]).await,
            }
        }
    }

    /// Reads and leases the lines of an offer. `None` if there is nothing to lease of it.
    async fn take(
        &self,
        mut feed: Feed,
        open: &Open,
        offer: Offer,
        (ask, number): (&Ask, u64),
    ) -> Result<Option<Leased>, Refusal> {
        let lines_max = ask.max_lines.unwrap_or(u64::MAX).min(offer.lines_max).max(1);
        let bytes_max = bytes_max_of(ask, open);
        let share = match self.share(body_bytes(ask.form, bytes_max, lines_max)).await {
            Ok(share) => share,
            Err(busy) => {
                feed.release(offer)?;
                return Err(busy);
            }
        };
        let Some(read) = feed.read(offer, lines_max, bytes_max, None).await? else {
            // It counts the reads that failed.
            self.keep(feed);
            return Ok(None);
        };
        self.lease_read(feed, read, share, open, (ask, number)).await
    }

    /// Leases lines that were read ahead. `None` if they cannot be leased any more.
    async fn take_read(
        &self,
        feed: Feed,
        read: Read,
        open: &Open,
        asked: (&Ask, u64),
    ) -> Result<Option<Leased>, Refusal> {
        match self.share(0).await {
            Ok(share) => self.lease_read(feed, read, share, open, asked).await,
            Err(busy) => {
                feed.release(read.offer)?;
                Err(busy)
            }
        }
    }

    /// Leases lines that were read.
    async fn lease_read(
        &self,
        feed: Feed,
        read: Read,
        mut share: OwnedSemaphorePermit,
        open: &Open,
        (ask, number): (&Ask, u64),
    ) -> Result<Option<Leased>, Refusal> {
        // A line may be longer than what was asked for.
        let bytes = read.pieces.iter().map(|piece| piece.bytes().len() as u64).sum();
        if let Err(busy) = self.enlarge(&mut share, body_bytes(ask.form, bytes, read.line_count())).await {
            feed.release(read.offer)?;
            return Err(busy);
        }
        let leasing = feed.lease(read)?;
        let leased = leasing.asked.await.map_err(|_| Closed)?;
        let Some(lease) = leased else {
            self.keep(feed);
            return Ok(None);
        };
        let own = match &leasing.read.taken {
            Taken::UpTo(_) => Own::default(),
            Taken::Own { own, .. } => own.clone(),
        };
        let (since_ms, lease_ms) = (now_ms(), ask.lease_ms.unwrap_or(open.settings.timeout_ms));
        let held = Held {
            group: open.id,
            lease: lease.token,
            range: lease.range,
            own,
            left: vec![lease.range],
            attempt: lease.attempt,
            consumer: ask.consumer.clone(),
            since_ms,
            until_ms: since_ms.saturating_add(lease_ms),
            connection: ask.connection,
            settling: 0,
        };
        let token = match LeaseToken::new(self.run) {
            Ok(token) => token,
            Err(error) => {
                self.end(&held, Verdict::Released);
                return Err(Refusal::NoToken(error));
            }
        };
        let (pieces, lent) = (leasing.read.pieces, leasing.read.lent);
        if let Some(pace) = &open.pace {
            let next = pace.book(held.lines_left(), Instant::now());
            lock(&self.next_lease).insert(open.id, next);
        }
        if !self.table().leased(token, held.clone(), (ask.request.as_deref(), number)) {
            self.end(&held, Verdict::Released);
            return Err(Refusal::Ended(Gone::Left));
        }
        if ask.connection.is_some_and(|connection| !self.table().is_open(connection)) {
            self.give_back(token);
            return Err(Refusal::Ended(Gone::Left));
        }
        if open.pace.is_none() && lock(&self.waiting).get(&open.id).is_some_and(|waiting| *waiting == 1) {
            let limits = (ask.max_lines, ask.max_bytes);
            let batch = (held.lines_left(), bytes_max_of(ask, open));
            let until_ms = held.until_ms.min(now_ms() + AHEAD_KEPT_MS);
            self.ahead.begin(feed, limits, batch, until_ms);
            // One that has come meanwhile may not have found it.
            if lock(&self.waiting).get(&open.id).is_some_and(|waiting| *waiting != 1) {
                self.ahead.release(open.id);
            }
        } else {
            self.keep(feed);
        }
        self.changed.notify_waiters();
        let (range, attempt) = (lease.range, lease.attempt);
        let answer =
            self.answer(token, open, (range, attempt, lease_ms), (pieces, lent, share), ask.form).await;
        if answer.is_err() {
            self.give_back(token);
        }
        answer.map(Some)
    }

    /// The lease that an earlier request with the same name got: its answer was lost.
    async fn lease_again(&self, token: LeaseToken, open: &Open, ask: &Ask) -> Result<Leased, Refusal> {
        let held = self.table().held(token).cloned().ok_or(Refusal::Ended(Gone::Settled))?;
        if ask.form == Form::Lines && held.left.len() > 1 {
            return Err(Refusal::InParts);
        }
        if let Some(connection) = ask.connection {
            self.table().bind(token, connection);
        }
        let lines = held.lines_left();
        let share = self.share(body_bytes(ask.form, open.settings.batch_bytes, lines)).await?;
        let mut feed = self.feed(open);
        let ranges = held.left.iter().flat_map(|left| held.own.ranges(*left)).collect();
        let (pieces, lent) = feed.read_leased(ranges).await?;
        self.keep(feed);
        if pieces.iter().map(|piece| piece.range().lines()).sum::<u64>() < lines {
            if let Some(held) = self.table().end(token, Gone::Left) {
                let summary =
                    format!("lines {} of consumer {} cannot be read again", held.span(), held.consumer);
                self.end(&held, failed(FailureKind::Failed, summary));
            }
            return Err(Refusal::Form(io::Error::other("the lines of the lease cannot be read again")));
        }
        let expires_ms = held.until_ms.saturating_sub(now_ms());
        self.answer(token, open, (held.span(), held.attempt, expires_ms), (pieces, lent, share), ask.form)
            .await
    }

    async fn answer(
        &self,
        token: LeaseToken,
        open: &Open,
        (range, attempt, expires_ms): (SeqRange, u32, u64),
        (pieces, lent, mut share): (Vec<Piece>, Lent, OwnedSemaphorePermit),
        form: Form,
    ) -> Result<Leased, Refusal> {
        let nothing = || Refusal::Form(io::Error::other("the lines of the lease cannot be read any more"));
        let batch = Batch::new(open.settings.name.as_str().into(), attempt, pieces).ok_or_else(nothing)?;
        let lines = batch.line_count();
        let input = match form {
            Form::Lines => Input::Lines,
            Form::Ndjson => Input::Ndjson(self.paths.clone()),
        };
        let formed = tokio::task::spawn_blocking(move || chunks(&batch, &input)).await;
        let chunks = formed.map_err(|_| Refusal::Stopping)?.map_err(Refusal::Form)?;
        // Control characters take more than was assumed.
        self.enlarge(&mut share, chunks.iter().map(|chunk| chunk.len() as u64).sum()).await?;
        let epoch = self.epoch.of_group(open.id).to_string();
        drop(lent);
        let body = Body { chunks, _share: share };
        Ok(Leased { token, epoch, range, lines, attempt, expires_ms, body })
    }

    /// Settles a lease, or a part of it. The answer is durable.
    ///
    /// # Errors
    /// See [`SettleRefusal`]: nothing was changed.
    pub async fn settle(
        self: &Arc<Self>,
        caller: Caller<'_>,
        token: Option<LeaseToken>,
        claim: Claim,
        settlement: Result<Settlement, String>,
    ) -> Result<Counted, SettleRefusal> {
        let held = self.check(caller, token).map_err(SettleRefusal::Denied)?;
        let Some((token, held, strict)) = held else { return Err(self.gone(caller, token, &claim).await) };
        // Last: whoever has no lease learns only that.
        let settlement = settlement.map_err(SettleRefusal::Request)?;
        if claim.range.is_some_and(|range| range != held.range && range != held.span()) {
            return Err(SettleRefusal::OtherLines(held.range));
        }
        let settlement = settlement.said_by(&held.consumer);
        let verdict =
            settlement.verdict(held.range, (&held.left, &held.own), strict).map_err(SettleRefusal::Wrong)?;
        if self.table().begin_settling(token, now_ms()).is_none() {
            return Err(self.gone(caller, Some(token), &claim).await);
        }
        let coordinator = Arc::clone(self);
        let settled = tokio::spawn(async move {
            let (group, lease) = (held.group, held.lease);
            let settled =
                coordinator.handle.ask(|reply| Command::Settle { group, token: lease, verdict, reply }).await;
            match &settled {
                Ok(Settled::Counted(Counted { left, acked, .. })) => {
                    coordinator.table().settled(token, left.clone(), *acked, now_ms());
                }
                Ok(Settled::Stale) => coordinator.table().stale(token),
                Ok(Settled::NoRoom) | Err(Closed) => coordinator.table().not_settled(token),
            }
            coordinator.changed.notify_waiters();
            settled
        });
        match settled.await.map_err(|_| SettleRefusal::Stopping)?? {
            Settled::Counted(counted) => Ok(counted),
            Settled::Stale => Err(self.gone(caller, Some(token), &claim).await),
            Settled::NoRoom => Err(SettleRefusal::NoRoom),
        }
    }

    /// Sets a new deadline, from now on; returns the time until it.
    ///
    /// # Errors
    /// See [`SettleRefusal`].
    pub async fn extend(
        &self,
        caller: Caller<'_>,
        token: Option<LeaseToken>,
        lease_ms: Option<u64>,
    ) -> Result<u64, SettleRefusal> {
        let held = self.check(caller, token).map_err(SettleRefusal::Denied)?;
        if let Some((_, held, _)) = &held {
            self.reconcile([held.group]).await;
        }
        let Some((token, held, _)) = held else {
            return Err(self.gone(caller, token, &Claim::default()).await);
        };
        let timeout_ms =
            |access: &Access| access.group_of(held.group).map_or(0, |(_, open)| open.settings.timeout_ms);
        let lease_ms = lease_ms.unwrap_or_else(|| timeout_ms(&self.now.borrow().access));
        let now_ms = now_ms();
        if !self.table().extend(token, now_ms.saturating_add(lease_ms), now_ms) {
            return Err(self.gone(caller, Some(token), &Claim::default()).await);
        }
        self.changed.notify_waiters();
        Ok(lease_ms)
    }

    /// A consumer stops: its lines are delivered to others at once. Returns how many.
    ///
    /// # Errors
    /// [`Refusal::Denied`].
    pub fn leave(&self, group: &str, caller: Caller<'_>, consumer: &str) -> Result<u64, Refusal> {
        let now = self.now.borrow().clone();
        let open = now.access.group(group, caller).map_err(Refusal::Denied)?;
        let ended = self.table().leave(open.id, consumer);
        self.release(&ended);
        Ok(ended.iter().map(Held::lines_left).sum())
    }

    /// A connection begins with which leases may end.
    pub fn connected(&self, connection: u64) {
        self.table().connected(connection);
    }

    /// A connection is gone: the deliveries that are bound to it have failed.
    pub fn disconnected(&self, connection: u64) {
        let ended = self.table().disconnected(connection);
        for held in &ended {
            let summary =
                format!("consumer {} closed its connection with {} leased", held.consumer, span(held.span()));
            self.end(held, failed(FailureKind::Failed, summary));
        }
        self.changed.notify_waiters();
    }

    /// A group and its consumers.
    ///
    /// # Errors
    /// [`Refusal::Denied`], [`Refusal::Stopping`].
    pub async fn view(&self, group: &str, caller: Caller<'_>) -> Result<GroupView, Refusal> {
        let access = Arc::clone(&self.now.borrow().access);
        let id = access.group(group, caller).map_err(Refusal::Denied)?.id;
        let found = self.handle.ask(|reply| Command::Group { group: id, range: None, reply }).await?;
        let (status, _) = found.ok_or(Refusal::Denied(Denied::NoGroup))?;
        self.table().reconcile(id, &status.lease_tokens, status.next_token);
        let (seen, now_ms) = (self.table().seen(id), now_ms());
        let why = why(&status, &seen, now_ms);
        Ok(GroupView { status, why, seen, now_ms })
    }

    /// What is known of the consumers of the groups that have no processor, by name. Without a socket for consumers only of
    /// groups of which somebody leased lines.
    #[must_use]
    pub fn seen(&self, has_socket: bool) -> BTreeMap<String, Seen> {
        let access = Arc::clone(&self.now.borrow().access);
        let table = self.table();
        let seen = access.open().map(|(name, id, is_open)| (name.to_owned(), table.seen(id), is_open));
        let seen = seen.filter(|(_, seen, is_open)| has_socket && *is_open || seen.leased > 0);
        seen.map(|(name, seen, _)| (name, seen)).collect()
    }

    /// Whether the caller may use a group, before more of the request is read.
    ///
    /// # Errors
    /// [`Refusal::Denied`].
    pub fn check_group(&self, group: &str, caller: Caller<'_>) -> Result<(), Refusal> {
        self.now.borrow().access.group(group, caller).map(drop).map_err(Refusal::Denied)
    }

    /// Whether the caller may use any group.
    ///
    /// # Errors
    /// [`Refusal::Denied`].
    pub fn check_any(&self, caller: Caller<'_>) -> Result<(), Refusal> {
        if self.now.borrow().access.is_known(caller) { Ok(()) } else { Err(Refusal::Denied(Denied::Token)) }
    }

    /// Bytes of bodies that are being sent, and their bound: a row of the memory budget.
    #[must_use]
    pub fn bodies_bytes(&self) -> (u64, u64) {
        let free = self.bodies.available_permits() * KIB;
        (BODIES_BYTES_MAX.saturating_sub(free) as u64, BODIES_BYTES_MAX as u64)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// The group, if consumers may lease from it now.
    fn open_for(&self, now: &Now, group: &str, caller: Caller<'_>) -> Result<Open, Refusal> {
        let open = now.access.group(group, caller).map_err(Refusal::Denied)?;
        if open.has_processor {
            return Err(Refusal::HasProcessor);
        }
        if now.stopping { Err(Refusal::Stopping) } else { Ok(open.clone()) }
    }

    fn wait_for_lines(&self, group: GroupId) -> Result<Waiting<'_>, Refusal> {
        let (all, of_group) = {
            let mut waiting = lock(&self.waiting);
            let of_group = waiting.entry(group).or_default();
            *of_group += 1;
            let of_group = *of_group;
            (waiting.values().sum::<usize>(), of_group)
        };
        let waiting = Waiting(self, group);
        match all <= WAITING_MAX && of_group <= WAITING_OF_GROUP_MAX {
            true => Ok(waiting),
            false => Err(Refusal::TooManyWaiting),
        }
    }

    /// A share of the memory for bodies.
    async fn share(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let kib = usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(KIB).clamp(1, BODIES_BYTES_MAX / KIB);
        let wanted = Arc::clone(&self.bodies).acquire_many_owned(u32::try_from(kib).unwrap_or(u32::MAX));
        match tokio::time::timeout(BODY_WAIT, wanted).await {
            Ok(Ok(share)) => Ok(share),
            _ => Err(Refusal::Busy),
        }
    }

    /// Makes a share large enough for this number of bytes.
    async fn enlarge(&self, share: &mut OwnedSemaphorePermit, bytes: u64) -> Result<(), Refusal> {
        let has = share.num_permits() as u64 * KIB as u64;
        let most = BODIES_BYTES_MAX as u64;
        if bytes.min(most) > has {
            share.merge(self.share(bytes.min(most) - has).await?);
        }
        Ok(())
    }

    fn feed(&self, open: &Open) -> Feed {
        let kept = lock(&self.feeds).get_mut(&open.id).and_then(Vec::pop);
        let new = || {
            Feed::new(
                self.handle.clone(),
                open.id,
                open.settings.name.as_str().into(),
                Arc::clone(&self.window),
            )
        };
        kept.unwrap_or_else(new)
    }

    fn keep(&self, feed: Feed) {
        let mut feeds = lock(&self.feeds);
        let of_group = feeds.entry(feed.group).or_default();
        if of_group.len() < FEEDS_KEPT {
            of_group.push(feed);
        }
    }

    /// Why there is nothing to lease; `None` if there is something.
    async fn nothing(&self, group: GroupId) -> Option<Refusal> {
        match self.handle.ask(|reply| Command::Group { group, range: None, reply }).await {
            Ok(Some((status, _))) => {
                self.table().reconcile(group, &status.lease_tokens, status.next_token);
                let seen = self.table().seen(group);
                why(&status, &seen, now_ms()).map(Refusal::Nothing)
            }
            Ok(None) => Some(Refusal::Denied(Denied::NoGroup)),
            Err(Closed) => Some(Refusal::Stopping),
        }
    }

    /// A lease that is out, if the caller may settle it, and whether its group is in strict order.
    fn check(
        &self,
        caller: Caller<'_>,
        token: Option<LeaseToken>,
    ) -> Result<Option<(LeaseToken, Held, bool)>, Denied> {
        let access = Arc::clone(&self.now.borrow().access);
        let held = token.and_then(|token| Some((token, self.table().held(token)?.clone())));
        let Some((token, held)) = held else {
            return if access.is_known(caller) { Ok(None) } else { Err(Denied::Token) };
        };
        let Some((name, open)) = access.group_of(held.group) else { return Err(Denied::NoGroup) };
        access.group(name, caller)?;
        Ok(Some((token, held, open.settings.strict)))
    }

    /// Why a token counts no more, and what of the lines in question is settled.
    async fn gone(&self, caller: Caller<'_>, token: Option<LeaseToken>, claim: &Claim) -> SettleRefusal {
        let gone = match token {
            None => Gone::Unknown,
            Some(token) if token.run() != self.run => Gone::Restarted,
            Some(token) => self.table().gone(token),
        };
        let access = Arc::clone(&self.now.borrow().access);
        let may_see =
            |group| access.group_of(group).is_some_and(|(name, _)| access.group(name, caller).is_ok());
        let of_token = token.and_then(|token| self.table().group_of_ended(token));
        let settled = match (claim.range, claim.epoch.as_deref().and_then(|epoch| self.group_of_epoch(epoch)))
        {
            // Of another group it says nothing of these lines.
            (Some(range), Some(group))
                if of_token.is_none_or(|of_token| of_token == group) && may_see(group) =>
            {
                let found =
                    self.handle.ask(|reply| Command::Group { group, range: Some(range), reply }).await;
                found.ok().flatten().map(|(_, settled)| settled)
            }
            _ => None,
        };
        SettleRefusal::Gone(gone, settled)
    }

    /// The group of an epoch, if it is one of this store as it is now.
    fn group_of_epoch(&self, epoch: &str) -> Option<GroupId> {
        let group = GroupId(epoch.split_once('-')?.0.parse().ok()?);
        (self.epoch.of_group(group).to_string() == epoch).then_some(group)
    }

    /// Releases a lease that no consumer knows of.
    fn give_back(&self, token: LeaseToken) {
        let ended = self.table().end(token, Gone::Left);
        self.release(ended.as_slice());
    }

    fn release(&self, ended: &[Held]) {
        ended.iter().for_each(|held| self.end(held, Verdict::Released));
        self.changed.notify_waiters();
    }

    /// Ends the leases of these groups that the owner has revoked: an operator moved the group, or lines were dropped.
    async fn reconcile(&self, groups: impl IntoIterator<Item = GroupId>) {
        for group in groups {
            let asked = self.handle.ask(|reply| Command::Group { group, range: None, reply }).await;
            match asked {
                Ok(Some((status, _))) => {
                    self.table().reconcile(group, &status.lease_tokens, status.next_token);
                }
                // The group was removed.
                Ok(None) => self.table().reconcile(group, &[], u64::MAX),
                Err(Closed) => return,
            }
        }
    }

    /// Ends a lease at the owner. Nobody waits for the answer: if the process dies before it is durable, the lease ends with
    /// the process.
    fn end(&self, held: &Held, verdict: Verdict) {
        let (reply, _) = oneshot::channel();
        // If the owner has ended, so has the lease.
        let _ = self.handle.send(Command::Settle { group: held.group, token: held.lease, verdict, reply });
    }
}

/// Bytes of lines in one lease.
fn bytes_max_of(ask: &Ask, open: &Open) -> u64 {
    ask.max_bytes.unwrap_or(u64::MAX).min(open.settings.batch_bytes).max(1)
}

/// What a body may take in memory.
fn body_bytes(form: Form, bytes: u64, lines: u64) -> u64 {
    match form {
        Form::Lines => bytes,
        // base64 and escapes; control characters are longer still.
        Form::Ndjson => bytes.saturating_mul(2).saturating_add(lines.saturating_mul(OBJECT_BYTES)),
    }
}
