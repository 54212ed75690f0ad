//! Which lines of a group can be delivered next.

use spillq_storage::state::AckSet;
use spillq_storage::{Seq, SeqRange};

use super::{Group, Idle, Reserved, View};
use crate::queue::command::Offer;
use crate::queue::phase::Blocked;
use crate::queue::retry::{GroupWait, Next};
use crate::queue::share::PASSED_MAX;
use crate::queue::status::Waits;

impl Group {
    /// Why the group would get no offer, if so: for the status.
    pub(in crate::queue) fn idle(&self, view: View<'_>) -> Option<Idle> {
        if is_full(view) && self.free(view).is_none() {
            return Some(Idle::Blocked(Blocked::AckWindow));
        }
        if self.retries.condemned().is_some() {
            return Some(Idle::Blocked(Blocked::DeadLettersFull));
        }
        match self.again(view) {
            Err(idle @ Idle::Blocked(_)) => Some(idle),
            _ if self.lag_lines(view) == 0 => Some(Idle::Empty),
            _ => None,
        }
    }

    /// Why no line could be offered now, as far as that depends on leases that are out or on time.
    pub(in crate::queue) fn waits(&self, view: View<'_>) -> Option<Waits> {
        let until = |at: u64| Some(Waits::Until(at)).filter(|_| at > view.now_ms);
        let for_leases = || Some(Waits::ForLeases).filter(|_| !self.leases.is_empty());
        if self.leases.len() >= self.settings.in_flight
            || self.retries.has_suspects() && !self.leases.is_empty()
        {
            return for_leases();
        }
        let fresh = self.free(view).filter(|_| !self.settings.strict || self.retries.is_empty());
        match self.retries.next(view.now_ms) {
            Next::Deliver(_) => None,
            Next::Wait(at) if fresh.is_none() => until(at),
            Next::Held(_) | Next::Nothing if fresh.is_none() => for_leases(),
            _ => self.retries.fresh_waits(view.now_ms).filter(|_| !self.settings.strict).and_then(until),
        }
    }

    /// Whether the remaining lines need an operator, or have failed alone as often as a run that ends by itself tries.
    pub(in crate::queue) fn is_exhausted(&self, view: View<'_>) -> bool {
        if !self.leases.is_empty() || !self.reserved.is_empty() {
            return false;
        }
        let is_stopped =
            view.state.is_paused() || self.unreadable.is_some() || self.retries.condemned().is_some();
        let waits = self.lag_lines(view) > 0;
        waits
            && (is_stopped
                || self.retries.is_exhausted() && (self.settings.strict || self.free(view).is_none()))
    }

    /// Offers the next lines to read, under a new reservation number.
    ///
    /// # Errors
    /// Why there are none now.
    pub(in crate::queue) fn offer(
        &mut self,
        view: View<'_>,
        ahead: bool,
        reservation: u64,
    ) -> Result<Offer, Idle> {
        if view.state.is_paused() {
            return Err(Idle::Paused);
        }
        if let Some(unreadable) = &self.unreadable {
            return Err(Idle::Blocked(unreadable.clone()));
        }
        if self.retries.condemned().is_some() {
            // The owner makes dead letters before it offers lines: this one is over the limit.
            return Err(Idle::Blocked(Blocked::DeadLettersFull));
        }
        let in_use = self.leases.len() + self.reserved.len();
        if in_use > 0 && self.retries.has_suspects() {
            return Err(Idle::InFlight);
        }
        // In strict order an offer read ahead takes a place too, as it must not be overtaken.
        let placeless = self.reserved.values().filter(|reserved| reserved.ahead && !self.settings.strict);
        let placeless = placeless.count();
        // A second offer read ahead could keep a worker from the place that is left for it.
        let is_full = if ahead { placeless > 0 } else { in_use - placeless >= self.settings.in_flight };
        if is_full || in_use > self.settings.in_flight {
            return Err(Idle::InFlight);
        }
        // A retry that is due comes first: lines that are read ahead would take its place again and again.
        let is_due =
            ahead && !self.settings.strict && matches!(self.retries.next(view.now_ms), Next::Deliver(_));
        if is_due && in_use >= self.settings.in_flight {
            return Err(Idle::InFlight);
        }
        // Only fresh lines are read ahead: what is delivered again depends on how the lease before ends.
        let is_before = self.before_parts(view).is_some();
        let again = match is_before {
            true if !self.whole_group_waits(view.now_ms) => None,
            _ if in_use < self.settings.in_flight => self.again(view)?,
            _ => None,
        };
        let mut lines_max = self.settings.batch_lines;
        let reserved = match again {
            Some(again) => {
                let mut last = again.range.last;
                // Lines that failed together are delivered together again; others in batches.
                let is_whole = self.retries.failures(again.range) > 0;
                lines_max = if is_whole { u64::MAX } else { self.settings.batch_lines };
                if self.share.is_none() && again.range.lines() > lines_max {
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
        let range = reserved.range;
        let lines_max = lines_max.min(range.lines());
        // An operator asked for a line that was put back, whatever the globs say now.
        let members = self.members().filter(|_| !self.retries.is_revived(range.first)).cloned();
        Ok(Offer { reservation, range, lines_max, members })
    }

    /// Offers fresh lines to read while all batches are in flight, before the commit that is being gathered is durable: so
    /// reading overlaps with the sync. Lines that failed depend on that commit, and are not offered.
    pub(in crate::queue) fn offer_ahead(&mut self, view: View<'_>, reservation: u64) -> Option<Offer> {
        let in_use = self.leases.len() + self.reserved.len();
        let is_full = in_use == self.settings.in_flight && self.retries.is_empty();
        is_full.then(|| self.offer(view, true, reservation).ok()).flatten()
    }

    /// In strict order, lines that were never delivered and come before all that are delivered again: a revived line waits
    /// for its turn.
    fn before_parts(&self, view: View<'_>) -> Option<SeqRange> {
        let first = self.retries.first().filter(|_| self.settings.strict)?;
        self.free(view).filter(|free| free.first < first)
    }

    /// Lines to deliver again, if some are due.
    fn again(&self, view: View<'_>) -> Result<Option<Reserved>, Idle> {
        match self.retries.next(view.now_ms) {
            Next::Deliver(range) => Ok(Some(Reserved { range, again: true, ahead: false })),
            Next::Wait(until) if self.settings.strict || self.whole_group_waits(view.now_ms) => {
                Err(Idle::Until(until))
            }
            Next::Held(seq) => Err(Idle::Blocked(Blocked::HeldBy(seq))),
            Next::Wait(_) | Next::Nothing => Ok(None),
        }
    }

    /// Whether the whole group waits, so that even an unordered group delivers no fresh lines.
    fn whole_group_waits(&self, now_ms: u64) -> bool {
        match self.retries.group_wait() {
            Some((_, GroupWait::EveryLineRejected(_))) => true,
            Some((until, _)) => until > now_ms,
            None => false,
        }
    }

    /// The next lines that were never delivered.
    fn fresh(&mut self, view: View<'_>) -> Result<SeqRange, Idle> {
        let Some(free) = self.free(view) else {
            self.linger_since_ms = None;
            return Err(if is_full(view) { Idle::Blocked(Blocked::AckWindow) } else { self.nothing(view) });
        };
        let batch_lines = self.settings.batch_lines;
        // How many of them are its own is known when they are read.
        let last = free.last.min(free.first.plus(batch_lines - 1));
        let range = if self.share.is_some() { free } else { SeqRange { first: free.first, last } };
        let waiting = match &self.share {
            None => range.lines(),
            Some(_) => self.lag_lines(view).saturating_sub(self.leased_lines()),
        };
        let is_small = waiting < batch_lines && free.last == view.next_seq.prev();
        if self.settings.linger_ms > 0 && is_small {
            let until = *self.linger_since_ms.get_or_insert(view.now_ms) + self.settings.linger_ms;
            if view.now_ms < until {
                return Err(Idle::Until(until));
            }
        }
        self.linger_since_ms = None;
        Ok(range)
    }

    /// The first range of lines that are not acked, leased, offered, or to be delivered again. If the ack window is full,
    /// only lines directly behind acked ones, below other acked ones: their acks add no range. The window may be full only
    /// because lines between acks failed before a restart, and are fresh after it.
    fn free(&self, view: View<'_>) -> Option<SeqRange> {
        let (acks, is_full) = (view.state.acks(), is_full(view));
        let end = if is_full { acks.last() } else { view.next_seq.prev() };
        let mut from = acks.floor().next();
        loop {
            let gap = acks.gap(from, end)?;
            let free = self.free_in(gap).filter(|free| !is_full || acks.contains(free.first.prev()));
            if free.is_some() {
                return free;
            }
            from = gap.last.next();
        }
    }

    /// The lines of `range` that could be offered, in at most [`PASSED_MAX`] ranges.
    pub(in crate::queue) fn free_within(&self, view: View<'_>, range: SeqRange) -> Vec<SeqRange> {
        let mut found = Vec::new();
        for gap in view.state.acks().gaps(range) {
            let mut rest = Some(gap);
            while let Some(free) = rest.and_then(|rest| self.free_in(rest)) {
                if found.len() == PASSED_MAX {
                    return found;
                }
                found.push(free);
                rest = SeqRange::new(free.last.next(), gap.last);
            }
        }
        found
    }

    /// Whether a line before this one could be offered.
    pub(super) fn is_free_before(&self, view: View<'_>, seq: Seq) -> bool {
        self.free(view).is_some_and(|free| free.first < seq)
    }

    /// The first range of `gap` that is neither taken by a lease, an offer or the commit that is being gathered, nor to be
    /// delivered again.
    fn free_in(&self, mut gap: SeqRange) -> Option<SeqRange> {
        loop {
            let mut free = self.retries.skip(gap)?;
            let leased = self.leases.values().map(|lease| lease.reach);
            let reserved = self.reserved.values().map(|reserved| reserved.range);
            let settling = self.settling.iter().chain(self.passed()).copied();
            let mut taken_up_to = None;
            for taken in leased.chain(reserved).chain(settling) {
                if taken.contains(free.first) {
                    taken_up_to = Some(taken.last);
                } else if taken.first > free.first {
                    free.last = free.last.min(taken.first.prev());
                }
            }
            let Some(last) = taken_up_to else { return Some(free) };
            gap = SeqRange::new(last.next(), gap.last)?;
        }
    }

    /// Why there are no lines to deliver: in an unordered group failed lines may wait while there are no fresh ones.
    fn nothing(&self, view: View<'_>) -> Idle {
        match self.retries.waiting() {
            Some((_, until)) if until > view.now_ms => Idle::Until(until),
            _ if self.leases.is_empty() => Idle::Empty,
            _ => Idle::InFlight,
        }
    }
}

/// Whether the group may get no more ranges of acks.
fn is_full(view: View<'_>) -> bool {
    view.state.acks().ranges() >= AckSet::RANGES_MAX
}
