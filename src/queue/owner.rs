//! The owner loop: the one thread that holds the log.
//!
//! While a commit is being made durable, commands wait; then all that wait, up to [`GATHERED_COMMANDS_MAX`] and
//! [`GATHERED_BYTES_MAX`], form the next one. Nobody is answered before the sync. A lone command is committed at
//! once: there is no timer. While the log is full, appends stay in hand and everything else goes on.
//!
//! An error of the log ends the loop; nobody is answered any more, and the service ends with it.
// long: the loop and the commit that it forms, whose order matters

mod administer;
mod configure;
mod hold;
mod limits;
mod report;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use spillq_storage::{
    Commit, DeadCause, DeadLetter, Error, GroupChange, GroupId, Log, Loss, REASON_BYTES_MAX, Reader, Seq,
    SeqRange,
};
use tokio::sync::oneshot;

use hold::Hold;

use super::WhenFull;
use super::admin::{Answer, Refusal};
use super::clock;
use super::command::{Append, Appended, Command, Lease, Offer, Settled, Verdict};
use super::group::{Condemned, Group, Idle, View};
use super::phase::WhyFull;
use super::pulse::Pulse;
use super::reason::reason;
use super::settings::GroupSettings;
use super::status::Discarded;
use super::window::Window;

/// Commands in one commit.
const GATHERED_COMMANDS_MAX: usize = 512;
/// Stored bytes of lines in one commit: sled writes large commits with the least amplification, and one of this
/// size leaves room for others in its journal.
pub(super) const GATHERED_BYTES_MAX: usize = 4 << 20;
/// Acts of operators that are kept for the supervisor, who looks at least once a second.
const DISCARDED_MAX: usize = 64;
/// How often a full log is looked at again.
const FULL_RECHECK: Duration = Duration::from_millis(200);

/// How often an idle owner looks whether lines have become too old.
const AGE_RECHECK: Duration = Duration::from_secs(10);

/// What is told once the commit is durable.
enum Reply {
    Appended { reply: SyncSender<Appended>, lines: u64 },
    Lease(oneshot::Sender<Option<Lease>>, Lease),
    Settled(oneshot::Sender<Settled>),
    Admin(oneshot::Sender<Result<Answer, Refusal>>, Answer),
}

/// An append in a commit under way: who waits for it, its lines, and how much of the commit is its own.
type Waiting = (SyncSender<Appended>, u64, (usize, usize, usize));

struct Parked {
    group: GroupId,
    ahead: bool,
    reply: oneshot::Sender<Offer>,
}

/// The loop's state.
pub(super) struct Owner {
    log: Log,
    window: Arc<Window>,
    groups: BTreeMap<GroupId, Group>,
    received: Receiver<Command>,
    /// Commands that were sent and not taken up.
    waiting: Arc<AtomicUsize>,
    /// Stored bytes of the largest commit so far.
    largest_commit: usize,
    /// How long all commits took together, syncs included.
    commit_time: Duration,
    /// Appends that are not durable yet, in order.
    appends: VecDeque<(Append, SyncSender<Appended>)>,
    /// Why they wait.
    full: Option<WhyFull>,
    when_full: WhenFull,
    /// Whether time alone makes lines go.
    ages: bool,
    /// The block in which a group's oldest line is, and when it was appended; for groups whose lag has a bound in age.
    oldest: BTreeMap<GroupId, (SeqRange, u64)>,
    reader: Reader,
    parked: Vec<Parked>,
    /// When the first of those who wait can be offered something, where time alone decides.
    wake_ms: Option<u64>,
    commit: Commit,
    replies: Vec<Reply>,
    next_token: u64,
    hold: Hold,
    /// What operators have discarded, the newest [`DISCARDED_MAX`].
    discarded: VecDeque<Discarded>,
    stopping: bool,
    pulse: Pulse,
}

impl Owner {
    /// Creates the groups that are missing, and makes dead letters of lines that are condemned already.
    pub(super) fn new(
        log: Log,
        window: Arc<Window>,
        settings: Vec<GroupSettings>,
        when_full: WhenFull,
        (received, waiting): (Receiver<Command>, Arc<AtomicUsize>),
        pulse: Pulse,
    ) -> Result<Owner, Error> {
        let ages = log.keeps_by_age() || settings.iter().any(|group| group.max_lag.age_ms.is_some());
        let mut owner = Owner {
            reader: log.reader(),
            log,
            window,
            groups: BTreeMap::new(),
            received,
            waiting,
            appends: VecDeque::new(),
            full: None,
            when_full,
            ages,
            oldest: BTreeMap::new(),
            largest_commit: 0,
            commit_time: Duration::ZERO,
            parked: Vec::new(),
            wake_ms: None,
            commit: Commit::default(),
            replies: Vec::new(),
            next_token: 1,
            hold: None,
            discarded: VecDeque::new(),
            stopping: false,
            pulse,
        };
        owner.add_missing(&settings)?;
        for (id, state) in &owner.log.state().groups {
            let settings = settings.iter().find(|settings| settings.name == state.name).cloned();
            let settings = settings.unwrap_or_else(|| GroupSettings::named(&state.name));
            owner.groups.insert(*id, Group::new(settings, state));
        }
        owner.bury_condemned()?;
        owner.make_durable()?;
        Ok(owner)
    }

    /// Where a new group begins.
    fn start(&self, from_beginning: bool) -> Seq {
        let state = self.log.state();
        if from_beginning { state.first_seq().prev() } else { state.next_seq.prev() }
    }

    /// Makes dead letters of all condemned lines whose turn it is, in the commit that is being gathered.
    fn bury_condemned(&mut self) -> Result<(), Error> {
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.bury_condemned_of(id))
    }

    /// The same for one group. Where there is no place for another dead letter, the line stays condemned, and the group
    /// is blocked.
    fn bury_condemned_of(&mut self, id: GroupId) -> Result<(), Error> {
        loop {
            let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
            let log = &self.log;
            let rejected_below = |seq: Seq, most: u32| log.rejected_below(id, seq, most);
            let Some(condemned) = group.condemned(clock::now_ms(), &rejected_below) else { return Ok(()) };
            if self.log.is_dead_full(id) || !self.set_aside(id, condemned)? {
                return Ok(());
            }
        }
    }

    /// Runs until it is told to stop, or nobody is left to ask, or the log fails.
    pub(super) fn run(mut self) -> Result<(), Error> {
        loop {
            self.pulse.idle();
            let received = match self.wait_for() {
                Some(timeout) => self.received.recv_timeout(timeout),
                None => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            self.pulse.busy(clock::now_ms());
            match received {
                Ok(command) => self.gather(command)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            }
            self.make_durable()?;
            // What an ack or an operator has made room for.
            self.bury_condemned()?;
            if !self.commit.is_empty() {
                self.make_durable()?;
            }
            self.offer_parked();
            self.keep_within_lag()?;
            let next_seq = self.log.state().next_seq;
            self.maintain()?;
            // Lines that had waited for room came in meanwhile.
            if self.log.state().next_seq != next_seq {
                self.offer_parked();
            }
            if self.stopping {
                return Ok(());
            }
        }
    }

    /// How long nothing happens by itself: until a back-off ends, or a full log is looked at again.
    fn wait_for(&self) -> Option<Duration> {
        let due = self.wake_ms.map(|at| Duration::from_millis(at.saturating_sub(clock::now_ms()).max(1)));
        let full = self.full.as_ref().map(|_| FULL_RECHECK);
        due.into_iter().chain(full).chain(self.ages.then_some(AGE_RECHECK)).min()
    }

    fn gather(&mut self, first: Command) -> Result<(), Error> {
        let mut next = Some(first);
        let (mut commands, mut bytes) = (0, 0);
        while let Some(command) = next {
            commands += 1;
            if let Command::Append(append, _) = &command {
                bytes += append.blocks.iter().map(spillq_storage::NewBlock::disk_bytes).sum::<usize>();
            }
            self.handle(command)?;
            let room = commands < GATHERED_COMMANDS_MAX && bytes < GATHERED_BYTES_MAX && !self.stopping;
            next = if room { self.received.try_recv().ok() } else { None };
        }
        Ok(())
    }

    fn handle(&mut self, command: Command) -> Result<(), Error> {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        match command {
            Command::Append(append, reply) => self.appends.push_back((append, reply)),
            Command::Next { group, ahead, reply } => self.next(Parked { group, ahead, reply }),
            Command::Lease { group, reservation, last, reply } => self.lease(group, reservation, last, reply),
            Command::Release { group, reservation } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.release(reservation);
                }
            }
            Command::Unreadable { group, reservation, range, what, is_refused } => {
                self.unreadable(group, reservation, range, what, is_refused);
            }
            Command::Lost { group, ranges } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    let lines: u64 = ranges.iter().map(|range| range.lines()).sum();
                    let first = ranges.first().map_or(Seq(0), |range| range.first);
                    let name = &group.settings().name;
                    tracing::warn!(group = name, %first, lines, "the destination lost lines that it had accepted");
                    group.activity.lost(&ranges);
                }
            }
            Command::Settle { group, token, verdict, reply } => self.settle(group, token, verdict, reply)?,
            Command::Admin(admin, reply) => {
                // What was gathered before counts: an answer here may depend on it.
                self.make_durable()?;
                match self.administer(admin)? {
                    Ok(answer) => self.replies.push(Reply::Admin(reply, answer)),
                    Err(refusal) => tell(reply, Err(refusal)),
                }
            }
            Command::Status(reply) => tell(reply, self.status()),
            Command::Reader(reply) => tell(reply, self.log.reader()),
            Command::Groups(reply) => tell(reply, self.group_settings()),
            Command::Configure(to, reply) => {
                self.configure(*to)?;
                tell(reply, self.group_settings());
            }
            Command::Stop => self.stopping = true,
        }
        Ok(())
    }

    /// Lines are offered once the commit is durable; but what can be read ahead is read while it is synced.
    fn next(&mut self, asked: Parked) {
        let token = self.next_token;
        let view = view(&self.log, asked.group).filter(|_| asked.ahead);
        let offer = match (self.groups.get_mut(&asked.group), view) {
            (Some(group), Some(view)) => group.offer_ahead(view, token),
            _ => None,
        };
        match offer {
            Some(offer) => {
                self.next_token += 1;
                self.offer(asked, offer);
            }
            None => self.parked.push(asked),
        }
    }

    fn offer(&mut self, to: Parked, offer: Offer) {
        if to.reply.send(offer).is_err()
            && let Some(group) = self.groups.get_mut(&to.group)
        {
            group.release(offer.reservation);
        }
    }

    /// The group notes an ack when it is gathered, so that the lease of the next batch, sent behind it, goes into the
    /// same commit: one sync a batch.
    fn lease(&mut self, id: GroupId, reservation: u64, last: Seq, reply: oneshot::Sender<Option<Lease>>) {
        let token = self.next_token;
        let view = view(&self.log, id);
        let leased = match (self.groups.get_mut(&id), view) {
            (Some(group), Some(view)) => group.lease(view, reservation, last, token),
            _ => None,
        };
        match leased {
            Some((lease, change)) => {
                self.next_token += 1;
                self.commit.groups.push((id, change));
                self.replies.push(Reply::Lease(reply, lease));
            }
            None => tell(reply, None),
        }
    }

    fn settle(
        &mut self,
        id: GroupId,
        token: u64,
        verdict: Verdict,
        reply: oneshot::Sender<Settled>,
    ) -> Result<(), Error> {
        let view = view(&self.log, id);
        let (Some(group), Some(view)) = (self.groups.get_mut(&id), view) else {
            tell(reply, Settled::Stale);
            return Ok(());
        };
        let Some(out) = group.take(token) else {
            tell(reply, Settled::Stale);
            return Ok(());
        };
        let change = match verdict {
            Verdict::Done => group.acked(out, view.now_ms),
            Verdict::GivenBack => group.given_back(out),
            Verdict::Failed { kind, summary, tail, timed_out } => {
                group.activity.failed(out.range, (kind, timed_out), view.now_ms);
                tracing::warn!(group = group.settings().name, lines = %out.range, "{summary}");
                let said = reason(&summary, &tail);
                let log = &self.log;
                let rejected_below = |seq: Seq, most: u32| log.rejected_below(id, seq, most);
                let change = group.failed(view, out, (kind, &said), &rejected_below);
                group.last_failure = Some(said);
                change
            }
        };
        self.commit.groups.push((id, change));
        // Into the same commit as the end of the lease.
        self.bury_condemned_of(id)?;
        self.replies.push(Reply::Settled(reply));
        Ok(())
    }

    /// Puts a line into `kept/`, durably, and its end into the commit that is being gathered. A line that cannot be
    /// read stays.
    fn set_aside(&mut self, id: GroupId, condemned: Condemned) -> Result<bool, Error> {
        let Condemned { seq, cause, mut reason } = condemned;
        let block = match self.log.reader().block(seq) {
            Ok(block) => block,
            Err(error) => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.hold(format!("line {seq} is to be set aside: {error}"), error.is_refused());
                }
                return Ok(false);
            }
        };
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        // The failure that led here may be in the same commit.
        let line = SeqRange::one(seq);
        let is_failure = |(of, change): &&(GroupId, GroupChange)| {
            *of == id
                && matches!(change, GroupChange::Return { range, failed_for_ms: Some(_) } if *range == line)
        };
        let gathered = self.commit.groups.iter().filter(is_failure).count();
        let attempts = self.log.state().groups.get(&id).map_or(0, |group| group.attempts(seq));
        let attempts = attempts.saturating_add(u32::try_from(gathered).unwrap_or(u32::MAX));
        let letter = DeadLetter { group: id, seq, cause, attempts, time_ms: clock::wall_ms(), reason };
        self.log.bury(&letter, &block)?;
        self.commit.groups.push((id, GroupChange::Dead { seq }));
        if let Some(group) = self.groups.get_mut(&id) {
            group.settled(SeqRange::one(seq), clock::now_ms());
            // Of many that an operator moves there is one message, with their count.
            if cause != DeadCause::Parked {
                tracing::warn!(group = group.settings().name, %seq, attempts, "line moved to the dead letters");
            }
        }
        Ok(true)
    }

    fn unreadable(&mut self, id: GroupId, reservation: u64, range: SeqRange, what: String, is_refused: bool) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.release(reservation);
        // Recorded as lost before this group was made: it passes over them, as the others did.
        let losses = self.log.state().losses.iter();
        let known: Vec<SeqRange> = losses.filter_map(|loss| loss.range.intersection(range)).collect();
        let waits =
            self.log.state().groups.get(&id).and_then(|state| state.acks.gap(range.first, range.last));
        if waits.is_some_and(|waits| known.iter().any(|known| known.contains(waits.first))) {
            for range in known {
                group.settled(range, clock::now_ms());
                self.commit.groups.push((id, GroupChange::Ack { range }));
            }
            return;
        }
        if is_refused || !group.settings().skip_damage {
            tracing::error!(group = group.settings().name, lines = %range, "{what}; the group stops here");
            group.hold(format!("lines {range}: {what}"), is_refused);
            return;
        }
        tracing::error!(group = group.settings().name, lines = %range, "{what}; the lines are lost");
        group.settled(range, clock::now_ms());
        self.commit.groups.push((id, GroupChange::Ack { range }));
        self.commit.losses.push(Loss::unreadable(range, what));
    }

    /// Commits what was gathered and tells those who wait for it.
    fn make_durable(&mut self) -> Result<(), Error> {
        let mut waiting = Vec::new();
        let mut full = if self.appends.is_empty() { None } else { self.log.refusal()? };
        let held = if self.appends.is_empty() || full.is_some() { None } else { self.held_by_lag() };
        let mut commit = std::mem::take(&mut self.commit);
        if held.is_some() {
            self.note_full(held);
        } else if full.is_none() {
            let mut bytes = 0;
            while bytes < GATHERED_BYTES_MAX {
                let Some((append, reply)) = self.appends.pop_front() else { break };
                bytes += append.blocks.iter().map(spillq_storage::NewBlock::disk_bytes).sum::<usize>();
                let lines = append.blocks.iter().map(|block| u64::from(block.lines())).sum();
                let (blocks, checkpoints, forget) =
                    (append.blocks.len(), append.checkpoints.len(), append.forget.len());
                commit.blocks.extend(append.blocks);
                commit.checkpoints.extend(append.checkpoints);
                commit.forget.extend(append.forget);
                waiting.push((reply, lines, (blocks, checkpoints, forget)));
            }
        }
        if commit.is_empty() {
            debug_assert!(waiting.iter().all(|(_, lines, _)| *lines == 0));
            for (reply, ..) in waiting {
                let next = self.log.state().next_seq;
                tell_appended(&reply, Appended { first: next, next });
            }
            self.tell(self.log.state().next_seq);
            return full.map_or(Ok(()), |full| self.make_room(full));
        }
        let bytes = commit.blocks.iter().map(spillq_storage::NewBlock::disk_bytes).sum();
        self.largest_commit = self.largest_commit.max(bytes);
        let began = Instant::now();
        let committed = self.log.commit(&commit);
        self.commit_time += began.elapsed();
        let first = match committed {
            Ok(committed) => {
                committed.blocks.into_iter().for_each(|block| self.window.push(block));
                if !waiting.is_empty() {
                    self.note_full(None);
                }
                self.replies
                    .extend(waiting.into_iter().map(|(reply, lines, _)| Reply::Appended { reply, lines }));
                committed.first
            }
            Err(Error::Full(found)) => {
                full = Some(found);
                self.take_back(&mut commit, waiting);
                if commit.is_empty() { self.log.state().next_seq } else { self.log.commit(&commit)?.first }
            }
            Err(error) => return Err(error),
        };
        self.tell(first);
        if let Some(full) = full {
            return self.make_room(full);
        }
        // More lines than one commit takes are waiting.
        if self.full.is_none() && !self.appends.is_empty() { self.make_durable() } else { Ok(()) }
    }

    /// Lines that did not fit go back to the front, each append as it was.
    fn take_back(&mut self, commit: &mut Commit, waiting: Vec<Waiting>) {
        let mut blocks = std::mem::take(&mut commit.blocks).into_iter();
        let mut checkpoints = std::mem::take(&mut commit.checkpoints).into_iter();
        let mut forget = std::mem::take(&mut commit.forget).into_iter();
        let mut back = VecDeque::with_capacity(waiting.len());
        for (reply, _, counts) in waiting {
            let append = Append {
                blocks: blocks.by_ref().take(counts.0).collect(),
                checkpoints: checkpoints.by_ref().take(counts.1).collect(),
                forget: forget.by_ref().take(counts.2).collect(),
            };
            back.push_back((append, reply));
        }
        back.append(&mut self.appends);
        self.appends = back;
    }

    pub(super) fn note_full(&mut self, full: Option<WhyFull>) {
        match (&self.full, &full) {
            (None, Some(why @ WhyFull::Disk(_))) => {
                tracing::warn!("ingestion paused: {why}; it resumes when space is freed")
            }
            (None, Some(why)) => {
                tracing::warn!("ingestion paused: {why}; it resumes when the group has caught up")
            }
            (Some(_), None) => tracing::info!("ingestion resumed"),
            _ => {}
        }
        self.full = full;
    }

    /// Everything gathered is durable. Whoever asked and went away does not hear it.
    fn tell(&mut self, mut seq: Seq) {
        self.groups.values_mut().for_each(Group::made_durable);
        for reply in self.replies.drain(..) {
            match reply {
                Reply::Appended { reply, lines } => {
                    let first = seq;
                    seq = seq.plus(lines);
                    tell_appended(&reply, Appended { first, next: seq });
                }
                Reply::Lease(reply, lease) => tell(reply, Some(lease)),
                Reply::Settled(reply) => tell(reply, Settled::Counted),
                Reply::Admin(reply, answer) => tell(reply, Ok(answer)),
            }
        }
    }

    fn offer_parked(&mut self) {
        self.wake_ms = None;
        for parked in std::mem::take(&mut self.parked) {
            if self.stopping || parked.reply.is_closed() {
                continue;
            }
            let token = self.next_token;
            let view = view(&self.log, parked.group);
            let (Some(group), Some(view)) = (self.groups.get_mut(&parked.group), view) else { continue };
            match group.offer(view, parked.ahead, token) {
                Ok(offer) => {
                    self.next_token += 1;
                    self.offer(parked, offer);
                }
                Err(idle) => {
                    if let Idle::Until(at) = idle {
                        self.wake_ms = Some(self.wake_ms.map_or(at, |wake| wake.min(at)));
                    }
                    self.parked.push(parked);
                }
            }
        }
    }

    fn maintain(&mut self) -> Result<(), Error> {
        self.remove_due()?;
        if self.full.is_some() && self.log.refusal()?.is_none() { self.make_durable() } else { Ok(()) }
    }
}

/// Who asked and went away does not hear the answer; what was done stays done.
fn tell<T>(reply: oneshot::Sender<T>, with: T) {
    let _ = reply.send(with);
}

/// The same for the tail.
fn tell_appended(reply: &SyncSender<Appended>, with: Appended) {
    let _ = reply.send(with);
}

fn view(log: &Log, id: GroupId) -> Option<View<'_>> {
    let state = log.state();
    Some(View { state: state.groups.get(&id)?, next_seq: state.next_seq, now_ms: clock::now_ms() })
}
