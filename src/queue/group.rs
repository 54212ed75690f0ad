//! One group: its leases, and what follows when they end. Which lines are offered next is in `group/offer.rs`. Pure: `now`
//! is an argument, and so is the state in the log, which holds all that a crash must not lose.
//!
//! Bounds: at most `in_flight` leases, one more offer to read ahead, and no new lease beyond
//! [`AckSet::RANGES_MAX`](spillq_storage::state::AckSet::RANGES_MAX) ranges of acks.

mod offer;
mod share;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spillq_storage::state::AckSet;
use spillq_storage::{Counts, DeadCause, GroupChange, GroupState, Seq, SeqRange};

use super::command::{Lease, Rejected};
use super::failure::FailureKind;
use super::own::{Own, Taken};
use super::phase::Blocked;
use super::retry::{Delivered, Remembered, Retries};
use super::settings::GroupSettings;
use super::share::Share;
use super::status::Activity;

/// The state of a group at a point in time.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    /// The group in the log.
    pub state: &'a GroupState,
    /// The seq after the last line.
    pub next_seq: Seq,
    /// Milliseconds by the clock for deadlines.
    pub now_ms: u64,
}

/// Why there are no lines to offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    /// No line waits.
    Empty,
    /// The maximum of batches is in flight.
    InFlight,
    /// Nothing before this time: a back-off, a refusal, or lingering.
    Until(u64),
    /// An operator paused the group.
    Paused,
    /// It cannot continue by itself.
    Blocked(Blocked),
}

/// A line that is to become a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condemned {
    /// The line.
    pub seq: Seq,
    /// Why.
    pub cause: DeadCause,
    /// What the processor said of it.
    pub reason: String,
}

/// Counts the rejected dead letters directly below a line, up to a maximum. The log knows them.
pub(super) type RejectedBelow<'a> = &'a dyn Fn(Seq, u32) -> u32;

/// Lines that are offered and not leased yet.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    range: SeqRange,
    /// They were delivered before, or are left over from an earlier run.
    again: bool,
    /// They are read ahead while another batch is in flight, and take its place when it ends.
    ahead: bool,
}

/// Ranges of lines of one lease that may be left when parts of it are acked: each is a lease in every manifest.
const LEFT_MAX: usize = 64;
/// Ranges of acks that acks of parts leave free, for the leases in flight: the end of each adds one.
const RANGES_FREE: usize = 64;

/// A lease.
#[derive(Clone, Debug)]
pub(super) struct ActiveLease {
    /// The lines, as they were leased.
    pub range: SeqRange,
    /// The same, with lines of other sources around them, which are settled together with them.
    pub reach: SeqRange,
    /// Those that are the group's own.
    pub own: Own,
    /// Those that are not acked yet, in rising order; never empty. Each begins and ends with an own line.
    pub left: Vec<SeqRange>,
    /// When it began.
    pub since_ms: u64,
    /// The group has got other sources since.
    pub is_recounted: bool,
}

impl ActiveLease {
    /// How many lines are not acked yet.
    pub(super) fn lines_left(&self) -> u64 {
        self.left.iter().map(|left| self.own.count(*left)).sum()
    }

    /// These lines of it, and if they are at an end of it, what lies around it there.
    fn reach_of(&self, range: SeqRange) -> SeqRange {
        let first = if range.first == self.range.first { self.reach.first } else { range.first };
        let last = if range.last == self.range.last { self.reach.last } else { range.last };
        SeqRange { first, last }
    }
}

/// A group in this run of the process.
#[derive(Debug)]
pub(super) struct Group {
    settings: Arc<GroupSettings>,
    /// Of a group over some sources.
    share: Option<Share>,
    retries: Retries,
    reserved: BTreeMap<u64, Reserved>,
    leases: BTreeMap<u64, ActiveLease>,
    /// Lines settled in the commit that is being gathered: the state in the log does not have them yet.
    settling: Vec<SeqRange>,
    linger_since_ms: Option<u64>,
    /// What was said of condemned lines that are not dead letters yet: a few, see retry.rs.
    reasons: BTreeMap<Seq, String>,
    /// Why its next lines cannot be read, which blocks it.
    pub unreadable: Option<Blocked>,
    /// What it did so far.
    pub activity: Activity,
    /// The text of the last failure.
    pub last_failure: Option<String>,
}

impl Group {
    /// The group at the start of a run. Lines that were in flight in an earlier run are suspects.
    pub(super) fn new(settings: GroupSettings, state: &GroupState) -> Group {
        let retries = left_over(&settings, state);
        Group {
            settings: Arc::new(settings),
            share: None,
            retries,
            reserved: BTreeMap::new(),
            leases: BTreeMap::new(),
            settling: Vec::new(),
            linger_since_ms: None,
            reasons: BTreeMap::new(),
            unreadable: None,
            activity: Activity::default(),
            last_failure: None,
        }
    }

    /// Its settings.
    pub(super) fn settings(&self) -> &Arc<GroupSettings> {
        &self.settings
    }

    /// Changes the settings. Leases continue as they began; nothing is forgotten about lines that wait.
    pub(super) fn set(&mut self, settings: GroupSettings) {
        self.retries.set(settings.retry, settings.strict);
        if settings.skip_damage {
            // The next attempt to read the lines skips them.
            self.unreadable = None;
        }
        if *self.settings != settings {
            self.settings = Arc::new(settings);
        }
    }

    /// Blocks the group at lines that cannot be read: damage, or with `is_refused` an error of the disk.
    pub(super) fn block_unreadable(&mut self, what: String, is_refused: bool) {
        self.unreadable = Some(if is_refused { Blocked::DiskError(what) } else { Blocked::Damage(what) });
    }

    /// The leases.
    pub(super) fn leases(&self) -> impl Iterator<Item = &ActiveLease> {
        self.leases.values()
    }

    /// The tokens of the leases, in rising order.
    pub(super) fn tokens(&self) -> impl Iterator<Item = u64> {
        self.leases.keys().copied()
    }

    /// Lines in flight.
    pub(super) fn leased_lines(&self) -> u64 {
        self.leases.values().map(ActiveLease::lines_left).sum()
    }

    /// The lines that failed and wait: for the status.
    pub(super) fn retries(&self) -> &Retries {
        &self.retries
    }

    /// The next line that is to become a dead letter. One below which too many in a row were rejected is not: the group is
    /// refused instead.
    pub(super) fn condemned(&mut self, now_ms: u64, rejected_below: RejectedBelow<'_>) -> Option<Condemned> {
        let (seq, cause) = loop {
            let (seq, cause) = self.retries.condemned()?;
            if cause != DeadCause::Rejected || !self.exceeds_rejects(seq, rejected_below) {
                break (seq, cause);
            }
            self.retries.refuse(seq, now_ms);
            self.reasons.remove(&seq);
        };
        let reason = self.reasons.get(&seq).cloned().unwrap_or_else(|| match cause {
            DeadCause::Died => "the service died each time while only this line was in flight".to_owned(),
            _ => self.last_failure.clone().unwrap_or_default(),
        });
        Some(Condemned { seq, cause, reason })
    }

    /// Whether as many lines directly below this one were rejected as `retry.rejects` allows, so that it is not blamed if
    /// it is rejected too.
    fn exceeds_rejects(&self, seq: Seq, rejected_below: RejectedBelow<'_>) -> bool {
        let most = self.retries.rejects_max();
        let below = self.rejected_in_a_row().unwrap_or_else(|| rejected_below(seq, most));
        !self.retries.is_revived(seq) && below >= most
    }

    /// Leases lines of an offer; `None` if the offer is no longer valid.
    pub(super) fn lease(
        &mut self,
        view: View<'_>,
        reservation: u64,
        taken: impl Into<Taken>,
        token: u64,
    ) -> Option<(Lease, GroupChange)> {
        let reserved = self.reserved.remove(&reservation)?;
        let first = reserved.range.first;
        let (range, to, own) = match taken.into() {
            Taken::UpTo(last) => (SeqRange { first, last }, last, Own::default()),
            Taken::Own { own, to } => (own.whole().unwrap_or(SeqRange { first, last: to }), to, own),
        };
        // In a strict group, lines that were read ahead while the batch before them failed, or was released.
        let is_before = |first: Seq| first < reserved.range.first;
        let waits_before = || self.retries.first().is_some_and(is_before) || self.is_free_before(view, first);
        let overtakes = self.settings.strict && !reserved.again && waits_before();
        let is_offered =
            reserved.range.contains(range.first) && reserved.range.contains(to) && range.last <= to;
        let is_full = self.leases.len() >= self.settings.in_flight;
        if overtakes || is_full || !is_offered || view.state.is_paused() {
            self.retries.release(reserved.range);
            return None;
        }
        let mut reach = SeqRange { first, last: to };
        if reserved.again {
            if to < reserved.range.last {
                self.retries.cut(reserved.range, to);
                self.retries.begin(reach);
            }
            self.retries.trim(reach, range);
            reach = self.retries.reach(range);
        } else if reach.first < range.first && view.state.acks().contains(reach.first.prev()) {
            // It adds no range of acks, and the group's oldest line is its own.
            self.pass(SeqRange { first, last: range.first.prev() });
            reach.first = range.first;
        }
        let failures = self.retries.failures(range);
        // The `attempt` of a line alone never falls for a receiver, over restarts too: the log remembers its failures.
        let attempt =
            1 + if range.lines() == 1 { failures.max(view.state.attempts(range.first)) } else { failures };
        let left = vec![range];
        let lease = ActiveLease { range, reach, own, left, since_ms: view.now_ms, is_recounted: false };
        self.leases.insert(token, lease);
        self.activity.leases += 1;
        Some((Lease { token, range, attempt }, GroupChange::Lease { range }))
    }

    /// Releases an offer without leasing it.
    pub(super) fn release_offer(&mut self, reservation: u64) {
        if let Some(reserved) = self.reserved.remove(&reservation) {
            self.retries.release(reserved.range);
        }
    }

    /// A lease; `None` if it is stale.
    pub(super) fn leased(&self, token: u64) -> Option<&ActiveLease> {
        self.leases.get(&token)
    }

    /// Takes a lease to end it; `None` if it is stale.
    pub(super) fn take(&mut self, token: u64) -> Option<ActiveLease> {
        if cfg!(feature = "fault-no-token") {
            return self.leases.remove(&token).or_else(|| self.leases.pop_first().map(|(_, lease)| lease));
        }
        self.leases.remove(&token)
    }

    /// The lines of a lease are acked.
    pub(super) fn acked(&mut self, lease: ActiveLease, now_ms: u64) -> Vec<GroupChange> {
        self.activity.acked();
        lease.left.iter().map(|left| self.acked_part(*left, &lease, now_ms)).collect()
    }

    /// These lines of a lease are acked, and the others stay leased, under the same token. Returns the changes and what is
    /// left; `None` if that were too many ranges, and nothing is changed. All changes go into one commit.
    pub(super) fn acked_some(
        &mut self,
        view: View<'_>,
        token: u64,
        done: &[SeqRange],
    ) -> Option<(Vec<GroupChange>, Vec<SeqRange>)> {
        let lease = self.leases.get(&token)?.clone();
        let left: Vec<SeqRange> =
            outside(&lease.left, done).into_iter().filter_map(|left| lease.own.span(left)).collect();
        let acked = outside(&lease.left, &left);
        // In strict order a part from the beginning on adds no range.
        let ranges = if self.settings.strict { 0 } else { view.state.acks().ranges() + acked.len() };
        if left.len() > LEFT_MAX || ranges > AckSet::RANGES_MAX - RANGES_FREE {
            return None;
        }
        let mut changes: Vec<GroupChange> =
            acked.iter().map(|part| self.acked_part(*part, &lease, view.now_ms)).collect();
        if acked.iter().any(|part| lease.own.count(*part) > 0) {
            self.activity.acked();
        }
        // An ack of a part ends the lease of its range in the log.
        let before =
            self.leases.get_mut(&token).map(|lease| std::mem::replace(&mut lease.left, left.clone()));
        for part in left.iter().filter(|part| !before.iter().flatten().any(|before| before == *part)) {
            self.retries.begin(*part);
            changes.push(GroupChange::Lease { range: *part });
        }
        if left.is_empty() {
            self.leases.remove(&token);
        }
        Some((changes, left))
    }

    /// Whether a list of rejected lines is believed, so that [`Group::acked_except`] may follow.
    pub(super) fn believes_lists(&self, by_seq: bool) -> bool {
        self.retries.believes_lists(by_seq)
    }

    /// The lines of a lease are acked, except those that the processor rejects, in rising order. All changes go into one
    /// commit.
    pub(super) fn acked_except(
        &mut self,
        lease: ActiveLease,
        rejected: Vec<Rejected>,
        now_ms: u64,
    ) -> Vec<GroupChange> {
        // First: an ack of a part would end the lease, and leave the return without one.
        let ends = |left: &SeqRange| GroupChange::Return { range: *left, failed_for_ms: None };
        let mut changes: Vec<GroupChange> = lease.left.iter().map(ends).collect();
        let bad: Vec<SeqRange> = rejected.iter().map(|line| SeqRange::one(line.seq)).collect();
        let done = outside(&lease.left, &bad);
        let mut rejected =
            rejected.into_iter().filter(|line| lease.left.iter().any(|left| left.contains(line.seq)));
        let mut next = rejected.next();
        for part in &done {
            while let Some(line) = next.take_if(|line| line.seq < part.first) {
                self.rejected(line, lease.range, now_ms);
                next = rejected.next();
            }
            changes.push(self.acked_part(*part, &lease, now_ms));
        }
        next.into_iter().chain(rejected).for_each(|line| self.rejected(line, lease.range, now_ms));
        if done.iter().any(|part| lease.own.count(*part) > 0) {
            self.activity.acked();
        }
        changes
    }

    fn rejected(&mut self, Rejected { seq, reason }: Rejected, whole: SeqRange, now_ms: u64) {
        self.retries.rejected(seq, whole, now_ms);
        self.reasons.insert(seq, reason);
    }

    /// These lines of a lease are acked, and what lies around it if they are at its end.
    fn acked_part(&mut self, range: SeqRange, lease: &ActiveLease, now_ms: u64) -> GroupChange {
        let lines = lease.own.count(range);
        self.retries.settled(range, lines > 0, now_ms);
        let reach = lease.reach_of(range);
        self.settling.push(reach);
        self.acked_own(lines, lease.is_recounted);
        if lease.own.is_all() {
            return GroupChange::Ack { range };
        }
        GroupChange::Some { range: reach, lines, counts: Counts::Acked }
    }

    /// A lease ends without a delivery.
    pub(super) fn released(&mut self, lease: ActiveLease) -> Vec<GroupChange> {
        lease.left.into_iter().map(|left| self.released_part(left)).collect()
    }

    fn released_part(&mut self, range: SeqRange) -> GroupChange {
        self.retries.release(range);
        GroupChange::Return { range, failed_for_ms: None }
    }

    /// A delivery failed; `said` is what the processor said. [`Group::condemned`] tells whether a line becomes a dead
    /// letter because of it. If acks have cut the lease into parts, only a part whose line is named has failed: of the others
    /// it is not known which is at fault.
    pub(super) fn failed(
        &mut self,
        view: View<'_>,
        lease: ActiveLease,
        (kind, said): (FailureKind, &str),
        rejected_below: RejectedBelow<'_>,
    ) -> Vec<GroupChange> {
        let is_named = |part: &SeqRange| kind.named().is_some_and(|bad| part.contains(bad));
        let mut parts = lease.left.clone();
        let at_fault = if parts.len() == 1 { Some(0) } else { parts.iter().position(is_named) };
        let Some(part) = at_fault.map(|at| parts.remove(at)) else {
            self.retries.failed_in_parts(&parts, kind, view.now_ms);
            return parts
                .into_iter()
                .map(|range| GroupChange::Return { range, failed_for_ms: None })
                .collect();
        };
        let mut changes: Vec<GroupChange> = parts.into_iter().map(|part| self.released_part(part)).collect();
        let seq = part.first;
        let known = view.state.failures().get(&seq).copied().unwrap_or_default();
        let remembered = Remembered {
            failures: known.times,
            for_ms: known.for_ms,
            exceeds_rejects: part.lines() == 1 && self.exceeds_rejects(seq, rejected_below),
        };
        let delivered =
            Delivered { range: part, reach: lease.reach_of(part), middle: lease.own.middle(part) };
        let failed = self.retries.failed(delivered, kind, view.now_ms, remembered);
        if let Some(seq) = failed.condemned {
            self.reasons.insert(seq, said.to_owned());
        }
        changes.push(GroupChange::Return { range: part, failed_for_ms: failed.charged_ms });
        changes
    }

    /// Lines were settled by other means than a lease: dead-lettered, or lost.
    pub(super) fn settled(&mut self, range: SeqRange, now_ms: u64) {
        // An operator may act between an offer and its lease.
        self.withdraw(|offered| offered.intersection(range).is_some());
        self.retries.settled(range, false, now_ms);
        self.reasons.retain(|seq, _| !range.contains(*seq));
        self.settling.push(range);
    }

    /// Invalidates offers.
    fn withdraw(&mut self, is_over: impl Fn(SeqRange) -> bool) {
        let offered = self.reserved.values().map(|reserved| reserved.range);
        let over: Vec<SeqRange> = offered.filter(|range| is_over(*range)).collect();
        self.reserved.retain(|_, reserved| !is_over(reserved.range));
        over.into_iter().for_each(|over| self.retries.release(over));
    }

    /// The commit that was being gathered is durable.
    pub(super) fn made_durable(&mut self) {
        self.settling.clear();
    }

    /// Lines were dropped: leases and offers of them end, and the rest of these is free again. Returns what ends the leases of
    /// that rest in the log.
    pub(super) fn dropped(&mut self, range: SeqRange, now_ms: u64) -> Vec<GroupChange> {
        let touches = |other: SeqRange| other.intersection(range).is_some();
        let is_touched = |lease: &ActiveLease| lease.left.iter().any(|left| touches(*left));
        let over = self.leases.extract_if(.., |_, lease| is_touched(lease));
        let revoked: Vec<SeqRange> = over.flat_map(|(_, lease)| lease.left).collect();
        revoked.iter().for_each(|revoked| self.retries.release(*revoked));
        // The rest of a revoked batch comes before lines that were read ahead behind it.
        self.withdraw(|offered| !revoked.is_empty() || touches(offered));
        self.retries.settled(range, false, now_ms);
        self.reasons.retain(|seq, _| !range.contains(*seq));
        let rest = revoked.into_iter().filter(|revoked| !touches(*revoked));
        rest.map(|rest| GroupChange::Return { range: rest, failed_for_ms: None }).collect()
    }

    /// A dead letter is to be delivered again.
    pub(super) fn revive(&mut self, seq: Seq) {
        self.retries.revive(seq, 0);
        self.revived_own();
    }

    /// Ends all back-offs.
    pub(super) fn retry_now(&mut self, now_ms: u64) {
        self.retries.retry_now(now_ms);
    }
}

/// What of `ranges` lies outside `holes`.
pub(super) fn outside(ranges: &[SeqRange], holes: &[SeqRange]) -> Vec<SeqRange> {
    let cut = |rest: Vec<SeqRange>, hole: &SeqRange| {
        rest.into_iter().flat_map(|range| range.without(*hole)).collect()
    };
    holes.iter().fold(ranges.to_vec(), cut)
}

/// What earlier runs leave to the group, which is delivered before fresh lines: suspects, lines that failed alone or killed,
/// revived lines, and in a strict group all lines that wait before the last of these. Part of a batch may be suspect while
/// lines of it further ahead were released, and are not.
fn left_over(settings: &GroupSettings, state: &GroupState) -> Retries {
    let mut retries = Retries::new(settings.retry, settings.strict);
    for suspect in state.suspects() {
        retries.add_suspect(*suspect);
    }
    let deaths = |seq: Seq| state.deaths().get(&seq).copied().unwrap_or_default();
    let alone: BTreeSet<Seq> = state.failures().keys().chain(state.deaths().keys()).copied().collect();
    for seq in alone.iter().filter(|seq| !state.acks().contains(**seq)) {
        let failures = state.failures().get(seq).map_or(0, |failures| failures.times);
        retries.add_line(*seq, failures, deaths(*seq));
    }
    let last = state.suspects().iter().map(|suspect| suspect.last).chain(alone.last().copied()).max();
    if let Some(last) = last.filter(|_| settings.strict) {
        let first = state.acks().floor().next();
        for mut gap in SeqRange::new(first, last).into_iter().flat_map(|range| state.acks().gaps(range)) {
            while let Some(untried) = retries.skip(gap) {
                retries.add_untried(untried);
                gap.first = untried.last.next();
            }
        }
    }
    for seq in state.revived() {
        retries.revive(*seq, deaths(*seq));
    }
    retries
}
