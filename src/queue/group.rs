//! One group: which lines may be offered next, and what follows from how a lease ended. Pure: time is an argument,
//! and what a crash must remember is in the log's own state, which is handed in.
//!
//! Bounds: at most `in_flight` leases, one offer more to read ahead, and no new lease past
//! [`ACK_RANGES_MAX`] ranges of acks.
// long: one state, and every way in which a lease begins and ends

use std::collections::BTreeMap;

use spillq_storage::{ACK_RANGES_MAX, DeadCause, GroupChange, GroupState, Seq, SeqRange};

use super::command::{Lease, Offer};
use super::phase::Blocked;
use super::retry::{FailureKind, Next, Remembered, Rest, Retries};
use super::settings::GroupSettings;
use super::status::Activity;
use super::suspects::left_over;

/// What the log knows, at a time.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    /// The group in the log.
    pub state: &'a GroupState,
    /// The seq after the last line.
    pub next_seq: Seq,
    /// Milliseconds of a clock that runs on while the host sleeps.
    pub now_ms: u64,
}

/// Why there is nothing to offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    /// No line waits.
    Empty,
    /// As many batches are out as may be.
    InFlight,
    /// Until a time: a back-off, a refusal, or lingering.
    Until(u64),
    /// An operator paused it.
    Paused,
    /// It cannot go on by itself, and why.
    Blocked(Blocked),
}

/// A line that is to become a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condemned {
    /// Which.
    pub seq: Seq,
    /// Why.
    pub cause: DeadCause,
    /// What the processor said of it, for people.
    pub reason: String,
}

/// How many lines directly below a line are rejected dead letters, counted up to a bound: the log knows.
pub(super) type RejectedBelow<'a> = &'a dyn Fn(Seq, u32) -> u32;

#[derive(Clone, Copy, Debug)]
struct Reserved {
    range: SeqRange,
    /// It was delivered before, or is left over from an earlier run.
    again: bool,
    /// Read beside a batch that is out: it takes the place of that one, not a place of its own.
    ahead: bool,
}

/// A lease that is out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    /// The lines.
    pub range: SeqRange,
    /// Since when it is out.
    pub since_ms: u64,
}

/// What a group does in this run of the process.
#[derive(Debug)]
pub(super) struct Group {
    settings: std::sync::Arc<GroupSettings>,
    retries: Retries,
    reserved: BTreeMap<u64, Reserved>,
    leases: BTreeMap<u64, Out>,
    /// Settled in the commit that is being gathered: the log does not say so yet.
    settling: Vec<SeqRange>,
    linger_since_ms: Option<u64>,
    /// What was said of lines that are condemned and not dead letters yet: a few, see retry.rs.
    reasons: BTreeMap<Seq, String>,
    /// Why its next lines cannot be read, which holds it.
    pub unreadable: Option<Blocked>,
    /// What it did so far.
    pub activity: Activity,
    /// The last failure, for people.
    pub last_failure: Option<String>,
}

impl Group {
    /// The group as the log has it: what an earlier run had out is suspect.
    #[must_use]
    pub(super) fn new(settings: GroupSettings, state: &GroupState) -> Group {
        let retries = left_over(&settings, state);
        Group {
            settings: std::sync::Arc::new(settings),
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

    /// What it is set to.
    #[must_use]
    pub(super) fn settings(&self) -> &std::sync::Arc<GroupSettings> {
        &self.settings
    }

    /// Other settings from now on. What is out ends as it was lent; of what waits nothing is forgotten.
    pub(super) fn set(&mut self, settings: GroupSettings) {
        self.retries.set(settings.retry, settings.strict);
        if settings.skip_damage {
            // Met again, it is passed over.
            self.unreadable = None;
        }
        if *self.settings != settings {
            self.settings = std::sync::Arc::new(settings);
        }
    }

    /// It stops in front of lines that cannot be read: damage, or, where `is_refused`, an error of the disk.
    pub(super) fn hold(&mut self, what: String, is_refused: bool) {
        self.unreadable = Some(if is_refused { Blocked::DiskError(what) } else { Blocked::Damage(what) });
    }

    /// Leases that are out.
    pub(super) fn out(&self) -> impl Iterator<Item = &Out> {
        self.leases.values()
    }

    /// Lines that are out.
    #[must_use]
    pub(super) fn leased_lines(&self) -> u64 {
        self.leases.values().map(|out| out.range.lines()).sum()
    }

    /// What failed and waits: for status.
    #[must_use]
    pub(super) fn retries(&self) -> &Retries {
        &self.retries
    }

    /// Why nothing would be offered, if so: for status.
    #[must_use]
    pub(super) fn idle(&self, view: View<'_>) -> Option<Idle> {
        if is_full(view) && self.free(view).is_none() {
            return Some(Idle::Blocked(Blocked::AckWindow));
        }
        if self.retries.condemned().is_some() {
            return Some(Idle::Blocked(Blocked::DeadLettersFull));
        }
        match self.again(view) {
            Err(idle @ Idle::Blocked(_)) => Some(idle),
            _ if view.state.lag_lines(view.next_seq) == 0 => Some(Idle::Empty),
            _ => None,
        }
    }

    /// Whether nothing that waits can be delivered before an operator acts, or all of it has failed alone as often as a
    /// run that is to end by itself tries.
    #[must_use]
    pub(super) fn is_exhausted(&self, view: View<'_>) -> bool {
        if !self.leases.is_empty() || !self.reserved.is_empty() {
            return false;
        }
        let is_stopped = view.state.paused || self.unreadable.is_some() || self.retries.condemned().is_some();
        let waits = view.state.lag_lines(view.next_seq) > 0;
        waits
            && (is_stopped
                || self.retries.is_exhausted() && (self.settings.strict || self.free(view).is_none()))
    }

    /// The line that is to become a dead letter next. Where too many in a row were rejected, it is not: the group is
    /// refused.
    pub(super) fn condemned(&mut self, now_ms: u64, rejected_below: RejectedBelow<'_>) -> Option<Condemned> {
        let (seq, cause) = self.retries.condemned()?;
        if cause == DeadCause::Rejected && self.is_last_straw(seq, rejected_below) {
            self.retries.refuse(seq, now_ms);
            self.reasons.remove(&seq);
            return None;
        }
        let reason = self.reasons.get(&seq).cloned().unwrap_or_else(|| match cause {
            DeadCause::Died => "the service died every time while this line was in flight alone".to_owned(),
            _ => self.last_failure.clone().unwrap_or_default(),
        });
        Some(Condemned { seq, cause, reason })
    }

    /// Whether as many lines in a row as may be were rejected, so that this one, rejected too, is not blamed.
    fn is_last_straw(&self, seq: Seq, rejected_below: RejectedBelow<'_>) -> bool {
        let most = self.retries.rejects_max();
        !self.retries.is_put_back(seq) && rejected_below(seq, most) >= most
    }

    /// The next lines to read, under a new reservation number.
    ///
    /// # Errors
    /// Why there are none now.
    pub(super) fn offer(&mut self, view: View<'_>, ahead: bool, reservation: u64) -> Result<Offer, Idle> {
        if view.state.paused {
            return Err(Idle::Paused);
        }
        if let Some(unreadable) = &self.unreadable {
            return Err(Idle::Blocked(unreadable.clone()));
        }
        if self.retries.condemned().is_some() {
            // The owner makes dead letters before it offers anything: there is no place for this one.
            return Err(Idle::Blocked(Blocked::DeadLettersFull));
        }
        let out = self.leases.len() + self.reserved.len();
        if out > 0 && self.retries.has_suspects() {
            return Err(Idle::InFlight);
        }
        // In strict order it keeps its place: nobody overtakes it.
        let placeless = self.reserved.values().filter(|reserved| reserved.ahead && !self.settings.strict);
        let placeless = placeless.count();
        // A second one read ahead would keep a worker from the place that is left for it.
        let is_full = if ahead { placeless > 0 } else { out - placeless >= self.settings.in_flight };
        if is_full || out > self.settings.in_flight {
            return Err(Idle::InFlight);
        }
        // What is read ahead is fresh lines only: what comes again depends on how the lease before it ends.
        let is_before = self.before_parts(view).is_some();
        let again = match is_before {
            true if !self.rests(view.now_ms) => None,
            _ if out < self.settings.in_flight => self.again(view)?,
            _ => None,
        };
        let reserved = match again {
            Some(again) => {
                let mut last = again.range.last;
                // What failed comes as it was; what was never tried is no longer than a batch.
                if again.range.lines() > self.settings.batch_lines && self.retries.failures(again.range) == 0
                {
                    last = again.range.first.plus(self.settings.batch_lines - 1);
                    self.retries.cut(again.range, last);
                }
                Reserved { range: SeqRange { last, ..again.range }, ahead, ..again }
            }
            None => {
                if self.settings.strict && !self.retries.is_empty() && !is_before {
                    return Err(Idle::InFlight);
                }
                if self.retries.has_suspects() && !self.settings.strict {
                    return Err(self.nothing(view));
                }
                if let Some(until) = self.retries.fresh_waits(view.now_ms).filter(|_| !self.settings.strict) {
                    return Err(Idle::Until(until));
                }
                Reserved { range: self.fresh(view)?, again: false, ahead }
            }
        };
        self.retries.begin(reserved.range);
        self.reserved.insert(reservation, reserved);
        Ok(Offer { reservation, range: reserved.range })
    }

    /// The next lines to read while all batches are out, before the commit that is being gathered is durable: so a
    /// read overlaps with the sync. Fresh lines only; what comes again depends on that commit.
    pub(super) fn offer_ahead(&mut self, view: View<'_>, reservation: u64) -> Option<Offer> {
        let out = self.leases.len() + self.reserved.len();
        let is_full = out == self.settings.in_flight && self.retries.is_empty();
        is_full.then(|| self.offer(view, true, reservation).ok()).flatten()
    }

    /// In strict order, lines that were never delivered and lie before all that comes again: a dead letter that was put
    /// back from further on waits for its turn.
    fn before_parts(&self, view: View<'_>) -> Option<SeqRange> {
        let first = self.retries.first().filter(|_| self.settings.strict)?;
        self.free(view).filter(|free| free.first < first)
    }

    /// Lines that were delivered before, if some are due.
    fn again(&self, view: View<'_>) -> Result<Option<Reserved>, Idle> {
        match self.retries.next(view.now_ms) {
            Next::Deliver(range) => Ok(Some(Reserved { range, again: true, ahead: false })),
            Next::Wait(until) if self.settings.strict || self.rests(view.now_ms) => Err(Idle::Until(until)),
            Next::Held(seq) => Err(Idle::Blocked(Blocked::HeldBy(seq))),
            Next::Wait(_) | Next::Nothing => Ok(None),
        }
    }

    /// Whether the whole group waits, so that an unordered one takes no fresh lines either.
    fn rests(&self, now_ms: u64) -> bool {
        match self.retries.rest() {
            Some((_, Rest::EveryLineRejected(_))) => true,
            Some((until, _)) => until > now_ms,
            None => false,
        }
    }

    /// Lines that were never delivered.
    fn fresh(&mut self, view: View<'_>) -> Result<SeqRange, Idle> {
        let Some(free) = self.free(view) else {
            self.linger_since_ms = None;
            return Err(if is_full(view) { Idle::Blocked(Blocked::AckWindow) } else { self.nothing(view) });
        };
        let last = free.last.min(free.first.plus(self.settings.batch_lines - 1));
        let range = SeqRange { first: free.first, last };
        let is_small = range.lines() < self.settings.batch_lines && free.last == view.next_seq.prev();
        if self.settings.linger_ms > 0 && is_small {
            let until = *self.linger_since_ms.get_or_insert(view.now_ms) + self.settings.linger_ms;
            if view.now_ms < until {
                return Err(Idle::Until(until));
            }
        }
        self.linger_since_ms = None;
        Ok(range)
    }

    /// The first stretch of lines that are not acked, out, or waiting to come again. When the ack window is full only
    /// lines right behind acked ones, with others above them: their acks make no range more. They may be all that it
    /// is full of, as what failed before a restart is fresh after it.
    fn free(&self, view: View<'_>) -> Option<SeqRange> {
        let acks = &view.state.acks;
        let end = if is_full(view) { acks.last() } else { view.next_seq.prev() };
        let mut from = acks.floor().next();
        let taken: Vec<SeqRange> = self
            .leases
            .values()
            .map(|out| out.range)
            .chain(self.reserved.values().map(|reserved| reserved.range))
            .chain(self.settling.iter().copied())
            .collect();
        loop {
            let gap = acks.gap(from, end)?;
            let Some(free) = self.retries.skip(gap) else {
                from = gap.last.next();
                continue;
            };
            // What is out lies before, within or behind; the first stretch that is free of it counts.
            let free = taken.iter().try_fold(free, |free, taken| free.without(*taken).next());
            match free {
                Some(free) if taken.iter().all(|taken| free.intersection(*taken).is_none()) => {
                    if is_full(view) && !acks.contains(free.first.prev()) {
                        from = gap.last.next();
                        continue;
                    }
                    return Some(free);
                }
                Some(free) => from = free.first,
                None => {
                    from = gap.first.max(
                        taken
                            .iter()
                            .map(|taken| taken.last.next())
                            .filter(|next| gap.contains(next.prev()))
                            .max()
                            .unwrap_or(gap.last.next()),
                    )
                }
            }
        }
    }

    /// In an unordered group parts may wait while there is nothing fresh.
    fn nothing(&self, view: View<'_>) -> Idle {
        match self.retries.waiting() {
            Some((_, until)) if until > view.now_ms => Idle::Until(until),
            _ if self.leases.is_empty() => Idle::Empty,
            _ => Idle::InFlight,
        }
    }

    /// An offer becomes a lease of its lines up to `last`; `None` where it does not stand any more.
    pub(super) fn lease(
        &mut self,
        view: View<'_>,
        reservation: u64,
        last: Seq,
        token: u64,
    ) -> Option<(Lease, GroupChange)> {
        let reserved = self.reserved.remove(&reservation)?;
        // Read ahead in a strict group, and the batch before it failed.
        let is_before = |first: Seq| first < reserved.range.first;
        let overtaken =
            self.settings.strict && !reserved.again && self.retries.first().is_some_and(is_before);
        if overtaken || self.leases.len() >= self.settings.in_flight || !reserved.range.contains(last) {
            self.retries.give_back(reserved.range);
            return None;
        }
        let range = SeqRange { first: reserved.range.first, last };
        if last < reserved.range.last && reserved.again {
            self.retries.cut(reserved.range, last);
            self.retries.begin(range);
        }
        let failures = self.retries.failures(range);
        // What a receiver reads as `attempt` never falls, over restarts too, where the log remembers it.
        let attempt =
            1 + if range.lines() == 1 { failures.max(view.state.attempts(range.first)) } else { failures };
        self.leases.insert(token, Out { range, since_ms: view.now_ms });
        self.activity.leases += 1;
        Some((Lease { token, range, attempt }, GroupChange::Lease { range }))
    }

    /// An offer is not taken up.
    pub(super) fn release(&mut self, reservation: u64) {
        if let Some(reserved) = self.reserved.remove(&reservation) {
            self.retries.give_back(reserved.range);
        }
    }

    /// Takes a lease back to end it; `None` where it is stale.
    pub(super) fn take(&mut self, token: u64) -> Option<Out> {
        if cfg!(feature = "fault-no-token") {
            return self.leases.remove(&token).or_else(|| self.leases.pop_first().map(|(_, out)| out));
        }
        self.leases.remove(&token)
    }

    /// The lines of a lease are done with.
    pub(super) fn acked(&mut self, out: Out, now_ms: u64) -> GroupChange {
        self.activity.acked();
        self.retries.settled(out.range, true, now_ms);
        self.settling.push(out.range);
        GroupChange::Ack { range: out.range }
    }

    /// A lease came back untried.
    pub(super) fn given_back(&mut self, out: Out) -> GroupChange {
        self.retries.give_back(out.range);
        GroupChange::Return { range: out.range, failed_for_ms: None }
    }

    /// A delivery failed; `said` is what the processor said. Whether a line is to become a dead letter because of it,
    /// [`Group::condemned`] says.
    pub(super) fn failed(
        &mut self,
        view: View<'_>,
        out: Out,
        (kind, said): (FailureKind, &str),
        rejected_below: RejectedBelow<'_>,
    ) -> GroupChange {
        let seq = out.range.first;
        let known = view.state.failures.get(&seq).copied().unwrap_or_default();
        let remembered = Remembered {
            failures: known.times,
            for_ms: known.for_ms,
            is_last_straw: out.range.lines() == 1 && self.is_last_straw(seq, rejected_below),
        };
        let failed = self.retries.failed(out.range, kind, view.now_ms, remembered);
        if let Some(seq) = failed.condemned {
            self.reasons.insert(seq, said.to_owned());
        }
        GroupChange::Return { range: out.range, failed_for_ms: failed.charged_ms }
    }

    /// Lines were settled by other means than a lease: set aside, or lost.
    pub(super) fn settled(&mut self, range: SeqRange, now_ms: u64) {
        // An operator may act between an offer and its lease.
        self.withdraw(|offered| offered.intersection(range).is_some());
        self.retries.settled(range, false, now_ms);
        self.reasons.retain(|seq, _| !range.contains(*seq));
        self.settling.push(range);
    }

    /// Offers that do not stand any more.
    fn withdraw(&mut self, is_over: impl Fn(SeqRange) -> bool) {
        let offered = self.reserved.values().map(|reserved| reserved.range);
        let over: Vec<SeqRange> = offered.filter(|range| is_over(*range)).collect();
        self.reserved.retain(|_, reserved| !is_over(reserved.range));
        over.into_iter().for_each(|over| self.retries.give_back(over));
    }

    /// What was gathered is durable.
    pub(super) fn made_durable(&mut self) {
        self.settling.clear();
    }

    /// Lines were dropped: what was lent or offered of them is over, and the rest of it is free again.
    pub(super) fn dropped(&mut self, range: SeqRange, now_ms: u64) {
        let touches = |other: SeqRange| other.intersection(range).is_some();
        let revoked: Vec<SeqRange> =
            self.leases.values().map(|out| out.range).filter(|out| touches(*out)).collect();
        self.leases.retain(|_, out| !touches(out.range));
        revoked.iter().for_each(|revoked| self.retries.give_back(*revoked));
        // The rest of a batch that is revoked comes before what was read ahead behind it.
        self.withdraw(|offered| !revoked.is_empty() || touches(offered));
        self.retries.settled(range, false, now_ms);
        self.reasons.retain(|seq, _| !range.contains(*seq));
    }

    /// A dead letter is to be delivered again.
    pub(super) fn revive(&mut self, seq: Seq) {
        self.retries.put_back(seq, 0);
    }

    /// An operator does not want to wait for a back-off.
    pub(super) fn retry_now(&mut self, now_ms: u64) {
        self.retries.retry_now(now_ms);
    }
}

/// Whether no more ranges of acks may come.
fn is_full(view: View<'_>) -> bool {
    view.state.acks.ranges() >= ACK_RANGES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> GroupState {
        GroupState::empty("default", Seq(0))
    }

    fn view(state: &GroupState, next_seq: u64) -> View<'_> {
        View { state, next_seq: Seq(next_seq), now_ms: 0 }
    }

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq(first), Seq(last)).unwrap()
    }

    const FAILED: (FailureKind, &str) = (FailureKind::Failed, "it failed");
    const NONE_REJECTED: fn(Seq, u32) -> u32 = |_, _| 0;

    #[test]
    fn a_strict_group_has_one_lease_and_one_offer_read_ahead() {
        let state = state();
        let mut group =
            Group::new(GroupSettings { batch_lines: 10, ..GroupSettings::named("default") }, &state);
        let first = group.offer(view(&state, 26), false, 1).unwrap();
        assert_eq!(first.range, range(1, 10));
        group.lease(view(&state, 26), 1, Seq(8), 100).unwrap();
        assert_eq!(group.offer(view(&state, 26), false, 2), Err(Idle::InFlight));
        assert_eq!(
            group.offer(view(&state, 26), true, 3).unwrap().range,
            range(9, 18),
            "behind what was leased"
        );
        assert_eq!(group.offer(view(&state, 26), true, 4), Err(Idle::InFlight));
        assert!(group.lease(view(&state, 26), 3, Seq(18), 101).is_none(), "not before the first has ended");
    }

    #[test]
    fn a_strict_group_keeps_its_order_over_a_crash_with_lines_that_were_given_back_before_it() {
        // 11-20 were out, and spared; 21-30 are the other half, suspect from the run before; 41 was put back.
        let mut state = state();
        state.acks.insert(range(1, 10));
        state.acks.insert(range(35, 36));
        state.suspects = vec![range(21, 30), range(41, 41)];
        let mut group =
            Group::new(GroupSettings { batch_lines: 6, ..GroupSettings::named("default") }, &state);
        let mut found = Vec::new();
        for number in 0..9 {
            let offer = group.offer(view(&state, 51), false, number).unwrap();
            let (lease, _) = group.lease(view(&state, 51), number, offer.range.last, 100 + number).unwrap();
            assert!(lease.range.lines() <= 6, "{}", lease.range);
            let out = group.take(100 + number).unwrap();
            group.acked(out, 0);
            group.made_durable();
            state.acks.insert(lease.range);
            found.push((lease.range.first.0, lease.range.last.0));
        }
        let expected =
            [(11, 16), (17, 20), (21, 26), (27, 30), (31, 34), (37, 40), (41, 41), (42, 47), (48, 50)];
        assert_eq!(found, expected);
    }

    /// Found by staging it: lines that had failed between acked ones were fresh after a restart, and as the window was
    /// full they never came again.
    #[test]
    fn a_full_ack_window_is_worked_off_from_within() {
        let mut state = state();
        for even in 1..=ACK_RANGES_MAX as u64 {
            state.acks.insert(range(even * 2 + 1, even * 2 + 1));
        }
        let end = ACK_RANGES_MAX as u64 * 2 + 100;
        let settings = GroupSettings { strict: false, in_flight: 3, ..GroupSettings::named("a") };
        let mut group = Group::new(settings, &state);
        assert_eq!(group.offer(view(&state, end), false, 1).unwrap().range, range(1, 2));
        group.lease(view(&state, end), 1, Seq(1), 1).unwrap();
        // Behind what is out an ack would be a range more.
        assert_eq!(group.offer(view(&state, end), false, 2).unwrap().range, range(4, 4));
        group.settling.push(range(5, end - 100));
        let full = || Idle::Blocked(Blocked::AckWindow);
        assert_eq!(group.offer(view(&state, end), false, 3), Err(full()), "nothing above it");
        assert_eq!(group.idle(view(&state, end)), Some(full()));
        let out = group.take(1).unwrap();
        assert_eq!(group.acked(out, 0), GroupChange::Ack { range: range(1, 1) });
        state.acks.insert(range(1, 1));
        assert_eq!(group.offer(view(&state, end), false, 3).unwrap().range, range(2, 2));
    }

    #[test]
    fn what_was_read_ahead_does_not_stand_when_the_batch_before_it_fails() {
        let state = state();
        let mut group =
            Group::new(GroupSettings { batch_lines: 10, ..GroupSettings::named("default") }, &state);
        group.offer(view(&state, 26), false, 1).unwrap();
        group.lease(view(&state, 26), 1, Seq(10), 100).unwrap();
        group.offer(view(&state, 26), true, 2).unwrap();
        let out = group.take(100).unwrap();
        group.failed(view(&state, 26), out, FAILED, &NONE_REJECTED);
        assert!(group.lease(view(&state, 26), 2, Seq(20), 101).is_none());
        assert_eq!(group.offer(view(&state, 26), false, 3), Err(Idle::Until(200)));
        let later = View { now_ms: 200, ..view(&state, 26) };
        assert_eq!(group.offer(later, false, 4).unwrap().range, range(1, 10), "the same lines come again");
    }

    #[test]
    fn what_is_out_of_dropped_lines_is_over_and_the_rest_is_offered_again() {
        let mut state = state();
        let mut group =
            Group::new(GroupSettings { batch_lines: 10, ..GroupSettings::named("default") }, &state);
        group.offer(view(&state, 41), false, 1).unwrap();
        group.lease(view(&state, 41), 1, Seq(10), 100).unwrap();
        group.offer(view(&state, 41), true, 2).unwrap();
        state.acks.insert(range(1, 5));
        group.dropped(range(1, 5), 0);
        assert!(group.take(100).is_none(), "its token is stale");
        let ahead = group.lease(view(&state, 41), 2, Seq(20), 101);
        assert!(ahead.is_none(), "in a strict group what was read ahead would overtake the rest");
        assert_eq!(group.offer(view(&state, 41), false, 3).unwrap().range, range(6, 15));
        assert!(group.lease(view(&state, 41), 3, Seq(15), 102).is_some());
    }

    #[test]
    fn what_is_acked_and_not_durable_yet_is_not_read_again() {
        let mut state = state();
        let mut group =
            Group::new(GroupSettings { batch_lines: 10, ..GroupSettings::named("default") }, &state);
        group.offer(view(&state, 41), false, 1).unwrap();
        group.lease(view(&state, 41), 1, Seq(10), 100).unwrap();
        group.offer(view(&state, 41), true, 2).unwrap();
        assert_eq!(group.offer_ahead(view(&state, 41), 3), None, "one is read ahead already");
        let out = group.take(100).unwrap();
        group.acked(out, 0);
        assert_eq!(group.offer_ahead(view(&state, 41), 3).map(|offer| offer.range), Some(range(21, 30)));
        group.release(3);
        group.lease(view(&state, 41), 2, Seq(20), 101).unwrap();
        assert_eq!(group.offer_ahead(view(&state, 41), 4).map(|offer| offer.range), Some(range(21, 30)));
        group.release(4);
        state.acks.insert(range(1, 10));
        group.made_durable();
        assert_eq!(group.offer_ahead(view(&state, 41), 5).map(|offer| offer.range), Some(range(21, 30)));
    }

    #[test]
    fn an_unordered_group_leases_past_what_is_out() {
        let mut state = state();
        let settings =
            GroupSettings { strict: false, in_flight: 3, batch_lines: 5, ..GroupSettings::named("default") };
        let mut group = Group::new(settings, &state);
        for (reservation, expected) in [(1, range(1, 5)), (2, range(6, 10)), (3, range(11, 15))] {
            assert_eq!(group.offer(view(&state, 31), false, reservation).unwrap().range, expected);
            group.lease(view(&state, 31), reservation, expected.last, reservation).unwrap();
        }
        let out = group.take(2).unwrap();
        let change = group.acked(out, 0);
        assert_eq!(change, GroupChange::Ack { range: range(6, 10) });
        state.acks.insert(range(6, 10));
        assert_eq!(group.offer(view(&state, 31), false, 4).unwrap().range, range(16, 20));
    }

    /// Found by kills: a line alone came as attempt 3, and after a restart, between lines that were acked, as 1.
    #[test]
    fn attempts_of_a_line_alone_never_fall_over_a_restart() {
        let mut state = state();
        let mut told = Vec::new();
        let mut deliver = |group: &mut Group, state: &mut GroupState, now_ms| {
            let view = View { now_ms, ..view(state, 2) };
            group.offer(view, false, now_ms).unwrap();
            let (lease, leased) = group.lease(view, now_ms, Seq(1), now_ms).unwrap();
            told.push(lease.attempt);
            state.apply(&leased);
            let out = group.take(now_ms).unwrap();
            let view = View { state, next_seq: Seq(2), now_ms };
            let change = group.failed(view, out, FAILED, &NONE_REJECTED);
            state.apply(&change);
        };
        let settings = GroupSettings { strict: false, ..GroupSettings::named("default") };
        for hour in 0..3 {
            let mut group = Group::new(settings.clone(), &state);
            for delivery in 1..4 {
                deliver(&mut group, &mut state, hour * 3_600_000 + delivery * 600_000);
            }
        }
        assert_eq!(told, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn what_is_read_ahead_takes_no_place_in_flight() {
        let state = state();
        let settings =
            GroupSettings { strict: false, in_flight: 2, batch_lines: 5, ..GroupSettings::named("a") };
        let mut group = Group::new(settings, &state);
        group.offer(view(&state, 31), false, 1).unwrap();
        group.lease(view(&state, 31), 1, Seq(5), 100).unwrap();
        assert_eq!(group.offer(view(&state, 31), true, 2).unwrap().range, range(6, 10));
        assert_eq!(
            group.offer(view(&state, 31), false, 3).unwrap().range,
            range(11, 15),
            "for a second worker"
        );
        assert_eq!(group.offer(view(&state, 31), true, 4), Err(Idle::InFlight), "one is read ahead already");
        assert!(group.lease(view(&state, 31), 3, Seq(15), 101).is_some());
        assert_eq!(group.offer(view(&state, 31), false, 5), Err(Idle::InFlight));
        let out = group.take(100).unwrap();
        group.acked(out, 0);
        assert!(group.lease(view(&state, 31), 2, Seq(10), 102).is_some());
    }

    /// Found on a busy machine: one worker of three had nothing to do as long as the other two had read ahead.
    #[test]
    fn lines_read_ahead_never_keep_a_worker_from_a_place_that_is_free() {
        let state = state();
        let settings =
            GroupSettings { strict: false, in_flight: 3, batch_lines: 5, ..GroupSettings::named("a") };
        let mut group = Group::new(settings, &state);
        group.offer(view(&state, 31), false, 1).unwrap();
        group.lease(view(&state, 31), 1, Seq(5), 100).unwrap();
        assert_eq!(group.offer(view(&state, 31), true, 2).unwrap().range, range(6, 10));
        group.offer(view(&state, 31), false, 3).unwrap();
        group.lease(view(&state, 31), 3, Seq(15), 101).unwrap();
        assert_eq!(group.offer(view(&state, 31), true, 4), Err(Idle::InFlight), "one is read ahead already");
        assert_eq!(group.offer(view(&state, 31), false, 5).unwrap().range, range(16, 20), "for the third");
    }

    #[test]
    fn other_settings_hold_from_the_next_batch_and_what_is_out_ends_as_it_was_lent() {
        let mut state = state();
        let three =
            GroupSettings { strict: false, in_flight: 3, batch_lines: 5, ..GroupSettings::named("a") };
        let mut group = Group::new(three, &state);
        for token in 1..=3 {
            group.offer(view(&state, 31), false, token).unwrap();
            group.lease(view(&state, 31), token, Seq(token * 5), token).unwrap();
        }
        group.set(GroupSettings { batch_lines: 2, ..GroupSettings::named("a") });
        assert_eq!(group.offer(view(&state, 31), false, 4), Err(Idle::InFlight), "in strict order now");
        for (token, lines) in [(2, range(6, 10)), (1, range(1, 5))] {
            let out = group.take(token).unwrap();
            assert_eq!(group.acked(out, 0), GroupChange::Ack { range: lines });
            state.acks.insert(lines);
            assert_eq!(group.offer(view(&state, 31), false, 4), Err(Idle::InFlight));
        }
        let out = group.take(3).unwrap();
        group.failed(view(&state, 31), out, FAILED, &NONE_REJECTED);
        let later = View { now_ms: 200, ..view(&state, 31) };
        let offer = group.offer(later, false, 4).unwrap();
        assert_eq!(offer.range, range(11, 15), "what failed comes first, as it was");
        group.lease(later, 4, offer.range.last, 9).unwrap();
        let out = group.take(9).unwrap();
        group.acked(out, 0);
        state.acks.insert(range(11, 15));
        assert_eq!(group.offer(view(&state, 31), false, 5).unwrap().range, range(16, 17));
    }

    #[test]
    fn a_group_that_holds_at_damage_goes_on_when_it_may_pass_over_it() {
        let state = state();
        let mut group = Group::new(GroupSettings::named("a"), &state);
        group.hold("line 1".to_owned(), false);
        group.set(GroupSettings { timeout_ms: 1, ..GroupSettings::named("a") });
        assert_eq!(
            group.offer(view(&state, 31), false, 1),
            Err(Idle::Blocked(Blocked::Damage("line 1".to_owned())))
        );
        group.set(GroupSettings { skip_damage: true, ..GroupSettings::named("a") });
        assert_eq!(group.offer(view(&state, 31), false, 1).unwrap().range, range(1, 30));
    }

    /// Found by torture: a line that was parked between its offer and its lease was delivered although it was a dead letter.
    #[test]
    fn a_line_that_is_parked_while_it_is_offered_is_not_leased() {
        let mut state = state();
        let mut group =
            Group::new(GroupSettings { batch_lines: 2, ..GroupSettings::named("default") }, &state);
        group.offer(view(&state, 5), false, 1).unwrap();
        group.settled(range(1, 1), 0);
        state.acks.insert(range(1, 1));
        group.made_durable();
        assert!(group.lease(view(&state, 5), 1, Seq(2), 7).is_none(), "of a fresh batch");
        assert_eq!(group.offer(view(&state, 5), false, 2).unwrap().range, range(2, 3));
        group.lease(view(&state, 5), 2, Seq(2), 8).unwrap();
        let out = group.take(8).unwrap();
        group.failed(view(&state, 5), out, FAILED, &NONE_REJECTED);
        let later = View { now_ms: 200, ..view(&state, 5) };
        assert_eq!(group.offer(later, false, 3).unwrap().range, range(2, 2));
        group.settled(range(2, 2), 200);
        state.acks.insert(range(2, 2));
        group.made_durable();
        let later = View { now_ms: 200, ..view(&state, 5) };
        assert!(group.lease(later, 3, Seq(2), 9).is_none(), "of one that comes again");
        assert_eq!(group.offer(later, false, 4).unwrap().range, range(3, 4));
    }

    /// A line that another one's death took along every time was given up on.
    #[test]
    fn after_a_crash_suspects_are_in_flight_alone_so_that_a_death_is_their_own() {
        let mut state = state();
        let settings =
            GroupSettings { strict: false, in_flight: 3, batch_lines: 1, ..GroupSettings::named("a") };
        let mut group = Group::new(settings.clone(), &state);
        for token in 1..=3 {
            group.offer(view(&state, 9), false, token).unwrap();
            let (_, change) = group.lease(view(&state, 9), token, Seq(token), token).unwrap();
            state.apply(&change);
        }
        state.begin_run();
        assert!(state.deaths.is_empty(), "nobody knows which of the three it was: {state:?}");
        let mut group = Group::new(settings.clone(), &state);
        for token in 1..=2 {
            assert_eq!(group.offer(view(&state, 9), false, token).unwrap().range, range(token, token));
            assert_eq!(group.offer(view(&state, 9), false, 10), Err(Idle::InFlight), "alone");
            let (_, change) = group.lease(view(&state, 9), token, Seq(token), token).unwrap();
            state.apply(&change);
            assert_eq!(group.offer(view(&state, 9), true, 10), Err(Idle::InFlight), "nothing is read ahead");
            let out = group.take(token).unwrap();
            state.apply(&group.acked(out, 0));
            group.made_durable();
        }
        let offer = group.offer(view(&state, 9), false, 3).unwrap();
        let (_, change) = group.lease(view(&state, 9), 3, offer.range.last, 3).unwrap();
        state.apply(&change);
        state.begin_run();
        assert_eq!(state.deaths.iter().collect::<Vec<_>>(), [(&Seq(3), &1)]);
        // It fails, and nobody dies: from then on others are in flight with it.
        let mut group = Group::new(settings, &state);
        group.offer(view(&state, 9), false, 1).unwrap();
        group.lease(view(&state, 9), 1, Seq(3), 1).unwrap();
        let out = group.take(1).unwrap();
        group.failed(view(&state, 9), out, FAILED, &NONE_REJECTED);
        let later = View { now_ms: 200, ..view(&state, 9) };
        for token in 2..=4 {
            group.offer(later, false, token).unwrap();
        }
    }

    /// A line far ahead that was parked and put back came before lines that were never delivered.
    #[test]
    fn in_strict_order_a_line_that_was_put_back_waits_for_its_turn() {
        let mut state = state();
        let mut group =
            Group::new(GroupSettings { batch_lines: 4, ..GroupSettings::named("default") }, &state);
        group.settled(range(7, 7), 0);
        state.apply(&GroupChange::Dead { seq: Seq(7) });
        group.made_durable();
        state.apply(&GroupChange::Revive { seq: Seq(7) });
        group.revive(Seq(7));
        let mut found = Vec::new();
        for token in 1..=4 {
            let offer = group.offer(view(&state, 11), false, token).unwrap();
            let (lease, change) = group.lease(view(&state, 11), token, offer.range.last, token).unwrap();
            state.apply(&change);
            let out = group.take(token).unwrap();
            state.apply(&group.acked(out, 0));
            group.made_durable();
            found.push(lease.range);
        }
        assert_eq!(found, [range(1, 4), range(5, 6), range(7, 7), range(8, 10)]);
    }

    #[test]
    fn a_stale_token_changes_nothing() {
        let state = state();
        let mut group = Group::new(GroupSettings::named("default"), &state);
        group.offer(view(&state, 5), false, 1).unwrap();
        group.lease(view(&state, 5), 1, Seq(4), 7).unwrap();
        assert!(group.take(8).is_none());
        assert!(group.take(7).is_some());
        assert!(group.take(7).is_none(), "a lease ends once");
    }

    #[test]
    fn an_empty_group_says_why() {
        let mut state = state();
        let mut group = Group::new(GroupSettings::named("default"), &state);
        assert_eq!(group.offer(view(&state, 1), false, 1), Err(Idle::Empty));
        state.paused = true;
        assert_eq!(group.offer(view(&state, 5), false, 1), Err(Idle::Paused));
    }
}
