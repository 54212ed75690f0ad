//! A worker: asks for the next lines of a group, reads and leases them, delivers them to its processor, and reports the
//! outcome to the owner.
//!
//! While one batch is in flight, the next is read and decompressed, so that its lease goes into the same commit as the ack
//! before it: one sync per batch. If a processor panics or takes too long, the delivery has failed; the worker continues.
// long: one delivery, from the offer to the verdict

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use spillq_storage::{GroupId, SeqRange};
use tokio::sync::{mpsc, oneshot, watch};

use super::feed::{Feed, Leasing, Read};
use super::{Batch, Evidence, Outcome, Pace, Prepare, Processing, Processor};
use crate::queue::{
    Closed, Command, FailureKind, GroupSettings, Handle, Offer, Replay, ReplayError, Settled, Verdict,
    Window, millis,
};

/// How long a destination may take to change its note. The caller also waits for the batch in flight.
const FORGET_WAIT: Duration = Duration::from_secs(20);

/// What a worker has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Orders {
    /// Work.
    #[default]
    Work,
    /// Finish the batch in flight, and start no other.
    Finish,
    /// Cut off the batch in flight: its lines are delivered again.
    GiveUp,
}

/// The settings that a group's batches are delivered with. Changes apply from the next batch on.
#[derive(Clone, Debug)]
pub struct DeliverySettings {
    /// The settings of the group.
    pub settings: Arc<GroupSettings>,
    /// The rate of all workers that share it.
    pub pace: Option<Pace>,
}

/// Limits on what is delivered.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// How many lines all workers together may still deliver; `None` for no limit.
    pub lines_left: Option<Arc<AtomicU64>>,
}

/// One processor at work for one group.
pub struct Worker {
    processor: Box<dyn Processor>,
    source: Source,
    limits: Limits,
    orders: watch::Receiver<Orders>,
    replays: mpsc::Receiver<Replay>,
}

impl Limits {
    /// Gives back lines that were counted and not delivered.
    fn refund(&self, lines: u64) {
        if let Some(left) = &self.lines_left {
            left.fetch_add(lines, Ordering::AcqRel);
        }
    }
}

/// Where the lines come from.
struct Source {
    feed: Feed,
    delivery: watch::Receiver<DeliverySettings>,
    /// What prepares the delivery of lines that are read ahead.
    prepare: Option<Arc<dyn Prepare>>,
}

impl Worker {
    /// A worker for `group`.
    pub fn new(
        processor: Box<dyn Processor>,
        handle: Handle,
        (group, delivery): (GroupId, watch::Receiver<DeliverySettings>),
        window: Arc<Window>,
        limits: Limits,
        (orders, replays): (watch::Receiver<Orders>, mpsc::Receiver<Replay>),
    ) -> Worker {
        let name = Arc::from(delivery.borrow().settings.name.as_str());
        let prepare = processor.prepares();
        let source = Source { feed: Feed::new(handle, group, name, window), delivery, prepare };
        Worker { processor, source, limits, orders, replays }
    }

    /// Works until its orders are to end, it may deliver no more lines, or the owner has ended.
    pub async fn run(mut self) {
        // The owner reports why the log is closed; the worker just ends.
        if let Err(Closed) = self.work().await {
            tracing::debug!(group = %self.source.feed.name, "the log is closed: the worker ends");
        }
    }

    async fn work(&mut self) -> Result<(), Closed> {
        let mut leasing: Option<Leasing> = None;
        let mut settling: Option<Settling> = None;
        loop {
            let started = Instant::now();
            let Leasing { read, asked } = match leasing.take() {
                Some(leasing) => leasing,
                None => {
                    finish(settling.take()).await?;
                    match self.next().await? {
                        Some(read) => self.source.feed.lease(read)?,
                        None => return Ok(()),
                    }
                }
            };
            let budget = self.limits.lines_left.as_ref().map(|left| left.load(Ordering::Acquire));
            let DeliverySettings { settings, pace } = self.source.delivery.borrow().clone();
            let may_read_ahead = budget != Some(0) && pace.is_none();
            let lines = read.line_count();
            let ahead = {
                let Worker { processor, source, limits, orders, .. } = self;
                let (handle, group) = (source.feed.handle.clone(), source.feed.group);
                let (name, timeout) =
                    (Arc::clone(&source.feed.name), Duration::from_millis(settings.timeout_ms));
                let offered = AtomicBool::new(false);
                let mut ahead =
                    Ahead { reading: pin!(source.read_ahead(&offered, limits, may_read_ahead)), read: None };
                let leased = ahead.meanwhile(asked).await?.map_err(|_| Closed)?;
                // It is in the same commit as the lease, so this does not wait.
                finish(settling.take()).await?;
                let Read { pieces, lent: _lent, .. } = read;
                let batch = leased.and_then(|lease| {
                    let batch = Batch::new(Arc::clone(&name), lease.attempt, pieces)?;
                    Some((lease.token, batch.with_deadline(tokio::time::Instant::now() + timeout)))
                });
                match batch {
                    None => limits.refund(lines),
                    Some((token, batch)) => {
                        let delivered = deliver(processor.as_mut(), &batch, timeout, orders);
                        let verdict = ahead.meanwhile(delivered).await?;
                        report_lost(processor.as_mut(), &handle, group)?;
                        let (reply, answer) = oneshot::channel();
                        handle.send(Command::Settle { group, token, verdict, reply })?;
                        settling = Some(Settling { group: name, range: batch.range(), answer });
                    }
                }
                // Lines that are being read are worth waiting for; an offer that has not come yet is not.
                ahead.end(&offered).await?
            };
            if let Some(read) = ahead {
                // If the batch could not be leased, the lines after it cannot be leased either.
                let continues = *self.orders.borrow() == Orders::Work && self.replays.is_empty();
                if settling.is_some() && continues {
                    leasing = Some(self.source.feed.lease(read)?);
                } else {
                    self.limits.refund(read.line_count());
                    self.source.feed.release(read.offer)?;
                }
            }
            if let Some(pace) = &pace {
                tokio::time::sleep_until(pace.book(lines, started).into()).await;
            }
        }
    }

    /// The next lines; `None` if it is time to end.
    async fn next(&mut self) -> Result<Option<Read>, Closed> {
        loop {
            if *self.orders.borrow() != Orders::Work
                || self.limits.lines_left.as_ref().is_some_and(|left| left.load(Ordering::Acquire) == 0)
            {
                return Ok(None);
            }
            let mut asked = self.source.feed.ask(false)?;
            let offer = tokio::select! {
                biased;
                Some(replay) = self.replays.recv() => {
                    drop(asked);
                    self.replay(replay).await?;
                    continue;
                }
                offer = &mut asked.answer => offer.map_err(|_| Closed)?,
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return Ok(None);
                    }
                    continue;
                }
            };
            if let Some(read) = self.source.read(offer, &self.limits, None).await? {
                return Ok(Some(read));
            }
        }
    }

    /// Called between two batches, when their outcomes are durable.
    async fn replay(&mut self, Replay { from, seek, reply }: Replay) -> Result<(), Closed> {
        if reply.is_closed() {
            return Ok(());
        }
        let forgotten = tokio::time::timeout(FORGET_WAIT, self.processor.forget(from)).await;
        // Losses are reported before the seek, which resets them.
        report_lost(self.processor.as_mut(), &self.source.feed.handle, self.source.feed.group)?;
        let answer = match forgotten {
            _ if reply.is_closed() => return Ok(()),
            Ok(Ok(())) => {
                let answer = self.source.feed.handle.ask(|reply| Command::Admin(seek, reply)).await?;
                answer.map_err(ReplayError::Refused)
            }
            Ok(Err(evidence)) => Err(ReplayError::Note(evidence.summary)),
            Err(_) => Err(ReplayError::Note(format!("it did not answer within {FORGET_WAIT:?}"))),
        };
        // The caller may have gone; the log has the group's new position.
        let _ = reply.send(answer);
        Ok(())
    }
}

/// Reads the next lines while something else is waited for.
struct Ahead<'a, F> {
    reading: Pin<&'a mut F>,
    /// The result; `None` while it is still reading.
    read: Option<Option<Read>>,
}

impl<F: Future<Output = Result<Option<Read>, Closed>>> Ahead<'_, F> {
    /// Waits for `main`, reading meanwhile.
    async fn meanwhile<T>(&mut self, main: impl Future<Output = T>) -> Result<T, Closed> {
        let mut main = pin!(main);
        loop {
            tokio::select! {
                biased;
                done = &mut main => return Ok(done),
                read = self.reading.as_mut(), if self.read.is_none() => self.read = Some(read?),
            }
        }
    }

    /// What was read. Waits for it if lines were `offered`.
    async fn end(self, offered: &AtomicBool) -> Result<Option<Read>, Closed> {
        match self.read {
            Some(read) => Ok(read),
            None if offered.load(Ordering::Acquire) => self.reading.await,
            None => Ok(None),
        }
    }
}

/// Reports to the owner what the destination has lost since the last call.
fn report_lost(processor: &mut dyn Processor, handle: &Handle, group: GroupId) -> Result<(), Closed> {
    match processor.lost() {
        ranges if ranges.is_empty() => Ok(()),
        ranges => handle.send(Command::Lost { group, ranges }),
    }
}

/// A batch whose outcome was sent to the owner, and may not be durable yet.
struct Settling {
    group: Arc<str>,
    range: SeqRange,
    answer: oneshot::Receiver<Settled>,
}

async fn finish(settling: Option<Settling>) -> Result<(), Closed> {
    if let Some(Settling { group, range, answer }) = settling
        && answer.await.map_err(|_| Closed)? == Settled::Stale
    {
        tracing::warn!(%group, lines = %range, "a lease was revoked before the outcome of its batch was known");
    }
    Ok(())
}

impl Source {
    async fn read_ahead(
        &mut self,
        offered: &AtomicBool,
        limits: &Limits,
        may: bool,
    ) -> Result<Option<Read>, Closed> {
        if !may {
            return Ok(None);
        }
        let mut asked = self.feed.ask(true)?;
        let offer = (&mut asked.answer).await.map_err(|_| Closed)?;
        offered.store(true, Ordering::Release);
        self.read(offer, limits, self.prepare.clone()).await
    }

    /// Reads the lines of an offer that fit in a batch. `None` if the first of them cannot be read, or if no more lines may be
    /// delivered.
    async fn read(
        &mut self,
        offer: Offer,
        limits: &Limits,
        prepare: Option<Arc<dyn Prepare>>,
    ) -> Result<Option<Read>, Closed> {
        let mut lines_max = offer.lines_max;
        if let Some(left) = &limits.lines_left {
            // Counted before the delivery, so that several workers together do not exceed the limit.
            let taken = left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| {
                Some(left.saturating_sub(lines_max))
            });
            let taken = taken.unwrap_or_default().min(lines_max);
            if taken == 0 {
                self.feed.release(offer)?;
                return Ok(None);
            }
            lines_max = taken;
        }
        let bytes_max = self.delivery.borrow().settings.batch_bytes;
        let read = self.feed.read(offer, lines_max, bytes_max, prepare).await?;
        limits.refund(lines_max - read.as_ref().map_or(0, |read| read.line_count()));
        Ok(read)
    }
}

/// Delivers a batch: how its lease ends. At its time-out, or if the service stops, it is cut off.
async fn deliver(
    processor: &mut dyn Processor,
    batch: &Batch,
    timeout: Duration,
    orders: &mut watch::Receiver<Orders>,
) -> Verdict {
    let ended = {
        let mut processing = pin!(tokio::time::timeout(timeout, CatchPanic(processor.process(batch))));
        loop {
            if *orders.borrow_and_update() == Orders::GiveUp {
                break None;
            }
            tokio::select! {
                ended = &mut processing => break Some(ended),
                changed = orders.changed() => {
                    if changed.is_err() {
                        break None;
                    }
                }
            }
        }
    };
    match ended {
        None => Verdict::Released,
        Some(Ok(Ok(outcome))) => verdict(outcome),
        Some(Ok(Err(panic))) => {
            let summary = format!(
                "{} panicked on {}: {}",
                processor.name(),
                batch.named(),
                panic_message(panic.as_ref())
            );
            verdict(Outcome::Failed(Evidence::new(summary)))
        }
        Some(Err(_)) => {
            let seen = processor.interrupted().unwrap_or_default();
            let summary = format!(
                "{} took longer than {timeout:?} on {} and was ended{}{}",
                processor.name(),
                batch.named(),
                if seen.summary.is_empty() { "" } else { ": " },
                seen.summary
            );
            Verdict::Failed { kind: FailureKind::Failed, summary, tail: seen.tail, timed_out: true }
        }
    }
}

fn verdict(outcome: Outcome) -> Verdict {
    let failed = |kind, Evidence { summary, tail }| Verdict::Failed { kind, summary, tail, timed_out: false };
    match outcome {
        Outcome::Done => Verdict::Done,
        Outcome::DoneExcept(rejected) => Verdict::DoneExcept { rejected, by_seq: false },
        Outcome::Failed(evidence) => failed(FailureKind::Failed, evidence),
        Outcome::OutOfMemory(oom, evidence) => failed(FailureKind::OutOfMemory(oom), evidence),
        Outcome::Down(evidence) => failed(FailureKind::Down, evidence),
        Outcome::Poison(evidence) => failed(FailureKind::Poison, evidence),
        Outcome::BadLine(seq, evidence) => failed(FailureKind::BadLine(seq), evidence),
        Outcome::TooLarge(evidence) => failed(FailureKind::TooLarge, evidence),
        Outcome::Later(wait, evidence) => failed(FailureKind::Later(millis(wait)), evidence),
        Outcome::Refused(evidence) => failed(FailureKind::Refused, evidence),
    }
}

/// The message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// A future that returns its panic as an error.
struct CatchPanic<'a>(Processing<'a>);

impl Future for CatchPanic<'_> {
    type Output = Result<Outcome, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // After a panic the future is not polled again: the delivery is over.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(Poll::Ready(outcome)) => Poll::Ready(Ok(outcome)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
