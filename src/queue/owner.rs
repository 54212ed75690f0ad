//! The owner loop: the one thread that holds the log.
//!
//! While a commit is being made durable, commands wait. Then all that wait, up to [`GATHERED_COMMANDS_MAX`] and
//! [`GATHERED_BYTES_MAX`], form the next commit. A command is answered only after the sync. A lone command is committed at
//! once: there is no timer. While the log is full, appends wait and all other commands are carried out.
//!
//! An error of the log ends the loop. No command is answered any more, and the service ends too.

mod administer;
mod commit;
mod configure;
mod leases;
mod limits;
mod lines;
mod report;
mod some;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use spillq_storage::{Commit, Error, GroupId, Log, Reader, Seq, SeqRange, State};
use tokio::sync::oneshot;

use self::lines::Lines;
use super::admin::{AdminError, Answer, Refusal};
use super::clock;
use super::command::{Append, Appended, Command, Counted, Lease, Offer, Settled};
use super::count::{COUNT_LOOK, Counting};
use super::group::{Group, View};
use super::hold::Hold;
use super::phase::WhyFull;
use super::pulse::Pulse;
use super::settings::{GroupSettings, WhenFull};
use super::share::PASSED_WAIT;
use super::sources::{Directory, Origin};
use super::status::Discarded;
use super::window::Window;

/// Commands in one commit.
const GATHERED_COMMANDS_MAX: usize = 512;
/// Stored bytes of lines in one commit: sled writes large commits with the least amplification, and a journal has space for
/// several of this size.
const GATHERED_BYTES_MAX: usize = 4 << 20;
/// Acts of operators that are kept for the supervisor, which reads them at least once a second.
const DISCARDED_MAX: usize = 64;
/// How often the owner checks whether a full log has space again.
const FULL_RECHECK: Duration = Duration::from_millis(200);
/// How often an idle owner checks whether lines have become too old.
const AGE_RECHECK: Duration = Duration::from_secs(10);

/// A worker's request for lines.
struct Asked {
    group: GroupId,
    ahead: bool,
    reply: oneshot::Sender<Offer>,
}

/// An answer that waits until the commit is durable.
enum Pending {
    Appended { reply: SyncSender<Appended>, lines: u64 },
    Lease(oneshot::Sender<Option<Lease>>, Lease),
    Settled(oneshot::Sender<Settled>, GroupId, Counted),
    Admin(oneshot::Sender<Result<Answer, Refusal>>, Answer),
}

impl Pending {
    /// Sends the answer. `seq` is the seq of the first line that no append before this one has got; returns the same for
    /// the next. `state` is that after the commit.
    fn send(self, seq: Seq, state: &State) -> Seq {
        match self {
            Pending::Appended { reply, lines } => {
                let next = seq.plus(lines);
                // As in `send`, for the tail.
                let _ = reply.send(Appended { first: seq, next });
                return next;
            }
            Pending::Lease(reply, lease) => send(reply, Some(lease)),
            Pending::Settled(reply, group, counted) => {
                let ack_floor = state.groups().get(&group).map_or(Seq(0), |group| group.acks().floor());
                send(reply, Settled::Counted(Counted { ack_floor, ..counted }));
            }
            Pending::Admin(reply, answer) => send(reply, Ok(answer)),
        }
        seq
    }
}

/// The state of the loop.
pub(super) struct Owner {
    log: Log,
    window: Arc<Window>,
    groups: BTreeMap<GroupId, Group>,
    received: Receiver<Command>,
    /// Commands that were sent, and not received yet.
    commands: Arc<AtomicUsize>,
    /// Stored bytes of the largest commit so far.
    largest_commit: usize,
    /// The duration of all commits together, including syncs.
    commit_time: Duration,
    /// Appends that are not durable yet, in order.
    appends: VecDeque<(Append, SyncSender<Appended>)>,
    /// The lines of the next commit, if they are on their way to disk.
    ahead: Option<Lines>,
    /// A command that was received while lines were written, and has to wait for them.
    deferred: Option<Command>,
    /// Why they wait.
    full: Option<WhyFull>,
    when_full: WhenFull,
    /// Whether lines are removed by age.
    removes_by_age: bool,
    /// The block of a group's oldest line, and when it was appended; for groups with a `max_lag.age`.
    oldest: BTreeMap<GroupId, (SeqRange, u64)>,
    reader: Reader,
    /// Workers that wait for lines.
    asked: Vec<Asked>,
    /// When the first of them can be offered lines, if only time is missing.
    wake_ms: Option<u64>,
    /// The commit that is being gathered, and the answers that wait for it.
    commit: Commit,
    answers: Vec<Pending>,
    next_token: u64,
    hold: Hold,
    /// Whose lines groups over some sources get.
    directory: Directory,
    /// The count of one of these groups.
    counting: Option<Counting>,
    /// The group whose lines could not be counted last time.
    uncounted: Option<GroupId>,
    /// No count begins before this time.
    count_from_ms: u64,
    /// Since when such a group has passed lines that are not settled.
    passed_since_ms: Option<u64>,
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
        (received, commands): (Receiver<Command>, Arc<AtomicUsize>),
        (pulse, origin): (Pulse, Origin),
    ) -> Result<Owner, Error> {
        let mut owner = Owner {
            reader: log.reader(),
            log,
            window,
            groups: BTreeMap::new(),
            received,
            commands,
            appends: VecDeque::new(),
            ahead: None,
            deferred: None,
            full: None,
            when_full,
            removes_by_age: false,
            oldest: BTreeMap::new(),
            largest_commit: 0,
            commit_time: Duration::ZERO,
            asked: Vec::new(),
            wake_ms: None,
            commit: Commit::default(),
            answers: Vec::new(),
            next_token: 1,
            hold: Hold::default(),
            directory: Directory::new(origin),
            counting: None,
            uncounted: None,
            count_from_ms: 0,
            passed_since_ms: None,
            discarded: VecDeque::new(),
            stopping: false,
            pulse,
        };
        owner.set_groups(&settings)?;
        owner.dead_letter_condemned()?;
        owner.make_durable()?;
        Ok(owner)
    }

    /// All groups with their settings.
    fn group_settings(&self) -> Vec<(GroupId, Arc<GroupSettings>)> {
        self.groups.iter().map(|(id, group)| (*id, Arc::clone(group.settings()))).collect()
    }

    /// Runs until a stop, or until all handles are dropped, or until the log fails.
    pub(super) fn run(mut self) -> Result<(), Error> {
        loop {
            self.pulse.idle();
            let received = self.receive();
            self.pulse.busy(clock::now_ms());
            match received {
                Ok(command) => self.gather(command)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            }
            if self.stopping {
                self.make_durable()?
            } else {
                self.make_durable_ahead()?
            }
            // An ack or an operator may have made space for more dead letters.
            self.dead_letter_condemned()?;
            if !self.commit.is_empty() {
                self.make_durable()?;
            }
            self.offer_waiting();
            self.keep_within_lag()?;
            self.settle_passed_in_time()?;
            self.count();
            let next_seq = self.log.state().next_seq();
            self.maintain()?;
            // Appends that waited for space were committed.
            if self.log.state().next_seq() != next_seq {
                self.offer_waiting();
            }
            if self.stopping {
                return Ok(());
            }
        }
    }

    /// The next command. Does not wait for one while lines are on their way to disk.
    fn receive(&mut self) -> Result<Command, RecvTimeoutError> {
        if let Some(deferred) = self.deferred.take() {
            return Ok(deferred);
        }
        if self.is_ahead() {
            return self.received.recv_timeout(Duration::ZERO);
        }
        match self.wait_for() {
            Some(timeout) => self.received.recv_timeout(timeout),
            None => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// For how long the loop can wait for commands: until a back-off ends, or a check is due.
    fn wait_for(&self) -> Option<Duration> {
        let due = self.wake_ms.map(|at| Duration::from_millis(at.saturating_sub(clock::now_ms()).max(1)));
        let full = self.full.as_ref().map(|_| FULL_RECHECK);
        let passed = self.passed_since_ms.map(|_| PASSED_WAIT);
        let counted = self.counting.as_ref().map(|_| COUNT_LOOK);
        let wanted = self.groups.values().any(Group::wants_count).then_some(COUNT_LOOK);
        let age = self.removes_by_age.then_some(AGE_RECHECK);
        due.into_iter().chain(full).chain(age).chain(passed).chain(counted).chain(wanted).min()
    }

    /// Carries out a command and those that wait behind it, as far as they fit into one commit.
    fn gather(&mut self, first: Command) -> Result<(), Error> {
        let mut next = Some(first);
        let (mut commands, mut bytes) = (0, 0);
        while let Some(command) = next {
            commands += 1;
            if let Command::Append(append, _) = &command {
                bytes += append.disk_bytes();
            }
            self.handle(command)?;
            let fits = commands < GATHERED_COMMANDS_MAX && bytes < GATHERED_BYTES_MAX && !self.stopping;
            next = if fits { self.received.try_recv().ok() } else { None };
        }
        Ok(())
    }

    /// Carries out the commands that came while lines were written. One that needs a commit of its own waits for the next
    /// round, with those behind it.
    fn gather_meanwhile(&mut self) -> Result<(), Error> {
        for _ in 0..GATHERED_COMMANDS_MAX {
            if self.deferred.is_some() {
                break;
            }
            match self.received.try_recv() {
                Ok(command @ (Command::Admin(..) | Command::Configure(..) | Command::Stop)) => {
                    self.deferred = Some(command);
                }
                Ok(command) => self.handle(command)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn handle(&mut self, command: Command) -> Result<(), Error> {
        self.commands.fetch_sub(1, Ordering::Relaxed);
        match command {
            Command::Append(append, reply) => self.appends.push_back((append, reply)),
            Command::Next { group, ahead, reply } => self.next(Asked { group, ahead, reply }),
            Command::Lease { group, reservation, taken, reply } => {
                self.lease(group, reservation, taken, reply);
            }
            Command::Pass { group, reservation, to } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.pass_offered(reservation, to);
                }
            }
            Command::Release { group, reservation } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.release_offer(reservation);
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
                    tracing::warn!(group = name, %first, lines, "the destination lost lines that it had stored");
                    group.activity.lost(&ranges);
                }
            }
            Command::Settle { group, token, verdict, reply } => self.settle(group, token, verdict, reply)?,
            Command::Admin(admin, reply) => {
                // The answer may depend on what was gathered before.
                self.make_durable()?;
                match self.administer(admin) {
                    Ok(answer) => self.answers.push(Pending::Admin(reply, answer)),
                    Err(AdminError::Refused(refusal)) => send(reply, Err(refusal)),
                    Err(AdminError::Log(error)) => return Err(error),
                }
            }
            Command::Group { group, range, reply } => {
                let status = self.groups.get(&group).and_then(|of| self.group_status(group, of));
                let settled = range.map_or_else(Vec::new, |range| self.settled_of(group, range));
                send(reply, status.map(|status| (status, settled)));
            }
            Command::Status(reply) => send(reply, self.status()),
            Command::Reader(reply) => send(reply, self.log.reader()),
            Command::Groups(reply) => send(reply, self.group_settings()),
            Command::Configure(to, reply) => {
                self.configure(*to)?;
                send(reply, self.group_settings());
            }
            Command::Stop => self.stopping = true,
        }
        Ok(())
    }

    /// A group with its state in the log.
    fn group(&mut self, id: GroupId) -> Option<(&mut Group, View<'_>, &Log)> {
        Some((self.groups.get_mut(&id)?, view(&self.log, id)?, &self.log))
    }

    /// Removes the files that are due, and commits appends for which that has freed space.
    fn maintain(&mut self) -> Result<(), Error> {
        self.expire_hold();
        while self.log.maintain(clock::wall_ms())? {}
        if self.full.is_some() && self.log.refusal()?.is_none() { self.make_durable() } else { Ok(()) }
    }
}

fn view(log: &Log, id: GroupId) -> Option<View<'_>> {
    let state = log.state();
    Some(View { state: state.groups().get(&id)?, next_seq: state.next_seq(), now_ms: clock::now_ms() })
}

/// Sends an answer. A client that has gone away does not get it; what was done stays done.
fn send<T>(reply: oneshot::Sender<T>, answer: T) {
    let _ = reply.send(answer);
}
