//! Offers, leases, and what follows when a lease ends.

use std::sync::Arc;

use spillq_storage::{DeadCause, DeadLetter, Error, GroupChange, GroupId, Loss, Seq, SeqRange};
use tokio::sync::oneshot;

use super::{Asked, Owner, Pending, send};
use crate::queue::clock;
use crate::queue::command::{Counted, Lease, Offer, Settled, Verdict};
use crate::queue::failure::reason;
use crate::queue::group::{Condemned, Group, Idle};
use crate::queue::own::Taken;

impl Owner {
    /// A worker asks for lines. They are offered once the commit is durable; but lines to read ahead are offered at once,
    /// so that reading overlaps with the sync.
    pub(super) fn next(&mut self, asked: Asked) {
        let token = self.next_token;
        let group = self.group(asked.group).filter(|_| asked.ahead);
        match group.and_then(|(group, view, _)| group.offer_ahead(view, token)) {
            Some(offer) => {
                self.next_token += 1;
                self.offer(asked, offer);
            }
            None => self.asked.push(asked),
        }
    }

    fn offer(&mut self, to: Asked, offer: Offer) {
        if let Err(unsent) = to.reply.send(offer)
            && let Some(group) = self.groups.get_mut(&to.group)
        {
            group.release_offer(unsent.reservation);
        }
    }

    /// Offers lines to the workers that wait, as far as there are any.
    pub(super) fn offer_waiting(&mut self) {
        self.wake_ms = None;
        for asked in std::mem::take(&mut self.asked) {
            if self.stopping || asked.reply.is_closed() {
                continue;
            }
            let token = self.next_token;
            let Some((group, view, _)) = self.group(asked.group) else { continue };
            match group.offer(view, asked.ahead, token) {
                Ok(offer) => {
                    self.next_token += 1;
                    self.offer(asked, offer);
                }
                Err(idle) => {
                    if let Idle::Until(at) = idle {
                        self.wake_ms = Some(self.wake_ms.map_or(at, |wake| wake.min(at)));
                    }
                    self.asked.push(asked);
                }
            }
        }
    }

    /// Leases the lines of an offer. The group has noted the ack of the batch before it when that was gathered, so that
    /// both go into the same commit: one sync a batch.
    pub(super) fn lease(
        &mut self,
        id: GroupId,
        reservation: u64,
        taken: Taken,
        reply: oneshot::Sender<Option<Lease>>,
    ) {
        let token = self.next_token;
        match self.group(id).and_then(|(group, view, _)| group.lease(view, reservation, taken, token)) {
            Some((lease, change)) => {
                self.next_token += 1;
                self.commit.groups.push((id, change));
                self.answers.push(Pending::Lease(reply, lease));
            }
            None => send(reply, None),
        }
    }

    /// Ends a lease.
    pub(super) fn settle(
        &mut self,
        id: GroupId,
        token: u64,
        verdict: Verdict,
        reply: oneshot::Sender<Settled>,
    ) -> Result<(), Error> {
        let names_by_seq = matches!(verdict, Verdict::DoneExcept { by_seq: true, .. });
        let is_full =
            |group: &Group| names_by_seq && group.leased(token).is_some() && !group.believes_lists(true);
        if self.groups.get(&id).is_some_and(is_full) {
            send(reply, Settled::NoRoom);
            return Ok(());
        }
        let is_part = matches!(verdict, Verdict::DonePart(_));
        let group = self.group(id).and_then(|(group, view, log)| {
            // A lease of which a part is acked goes on.
            let lease = if is_part { group.leased(token).cloned() } else { group.take(token) };
            Some((lease?, group, view, log))
        });
        let Some((lease, group, view, log)) = group else {
            send(reply, Settled::Stale);
            return Ok(());
        };
        let (leased, leased_range) = (lease.lines_left(), lease.range);
        let own = lease.own.clone();
        let (mut acked, mut left) = (0, Vec::new());
        let changes = match verdict.believed(lease.range, &own, |by_seq| group.believes_lists(by_seq)) {
            Verdict::Done => {
                acked = leased;
                group.acked(lease, view.now_ms)
            }
            Verdict::DonePart(done) => {
                let Some((changes, rest)) = group.acked_some(view, token, &done) else {
                    send(reply, Settled::NoRoom);
                    return Ok(());
                };
                left = rest;
                acked = leased - left.iter().map(|left| own.count(*left)).sum::<u64>();
                changes
            }
            Verdict::DoneExcept { rejected, .. } => {
                let first = rejected.first().map(|first| first.reason.clone()).unwrap_or_default();
                let name = &group.settings().name;
                tracing::warn!(group = name, lines = %lease.range, rejected = rejected.len(), "{first}");
                group.last_failure = Some(first);
                let changes = group.acked_except(lease, rejected, view.now_ms);
                acked = changes.iter().map(acked_lines).sum();
                changes
            }
            Verdict::Released => group.released(lease),
            Verdict::Failed { kind, summary, tail, timed_out } => {
                group.activity.failed(lease.range, (kind, timed_out), view.now_ms);
                tracing::warn!(group = group.settings().name, lines = %lease.range, "{summary}");
                let said = reason(&summary, &tail);
                let rejected_below = |seq: Seq, most: u32| log.rejected_below(id, seq, most);
                let changes = group.failed(view, lease, (kind, &said), &rejected_below);
                group.last_failure = Some(said);
                changes
            }
        };
        self.commit.groups.extend(changes.into_iter().map(|change| (id, change)));
        // In the same commit as the end of the lease.
        let dead = self.dead_letter_condemned_of(id)?;
        // Lines of other leases may become dead letters with it, now that something is acked.
        let dead = dead.into_iter().filter(|seq| leased_range.contains(*seq)).count() as u64;
        let again =
            leased.saturating_sub(acked + dead + left.iter().map(|left| own.count(*left)).sum::<u64>());
        let counted = Counted { acked, dead, again, left, ..Counted::default() };
        self.answers.push(Pending::Settled(reply, id, counted));
        Ok(())
    }

    /// Makes dead letters of all condemned lines whose turn it is, in the commit that is being gathered.
    pub(super) fn dead_letter_condemned(&mut self) -> Result<(), Error> {
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.dead_letter_condemned_of(id).map(drop))
    }

    /// The same for one group; returns them. At the limit of dead letters the line stays condemned, and the group is
    /// blocked.
    fn dead_letter_condemned_of(&mut self, id: GroupId) -> Result<Vec<Seq>, Error> {
        let mut made = Vec::new();
        loop {
            let Some((group, view, log)) = self.group(id) else { return Ok(made) };
            let rejected_below = |seq: Seq, most: u32| log.rejected_below(id, seq, most);
            let Some(condemned) = group.condemned(view.now_ms, &rejected_below) else { return Ok(made) };
            let seq = condemned.seq;
            if self.log.is_dead_full(id) || !self.dead_letter(id, condemned)? {
                return Ok(made);
            }
            made.push(seq);
        }
    }

    /// Writes a line to the dead letters, and its end into the commit that is being gathered. Returns false if
    /// the line cannot be read: it stays.
    pub(super) fn dead_letter(&mut self, id: GroupId, condemned: Condemned) -> Result<bool, Error> {
        let Condemned { seq, cause, mut reason } = condemned;
        let block = match self.window.get(seq).map_or_else(|| self.reader.block(seq).map(Arc::new), Ok) {
            Ok(block) => block,
            Err(error) => {
                if let Some(group) = self.groups.get_mut(&id) {
                    let what = format!("line {seq} is to become a dead letter: {error}");
                    group.block_unreadable(what, error.is_refused());
                }
                return Ok(false);
            }
        };
        reason.truncate(reason.floor_char_boundary(DeadLetter::REASON_BYTES_MAX));
        // The failure that led here may be in the same commit.
        let line = SeqRange::one(seq);
        let is_failure = |(of, change): &&(GroupId, GroupChange)| {
            *of == id
                && matches!(change, GroupChange::Return { range, failed_for_ms: Some(_) } if *range == line)
        };
        let gathered = self.commit.groups.iter().filter(is_failure).count();
        let attempts = self.log.state().groups().get(&id).map_or(0, |group| group.attempts(seq));
        let attempts = attempts.saturating_add(u32::try_from(gathered).unwrap_or(u32::MAX));
        let letter = DeadLetter { group: id, seq, cause, attempts, time_ms: clock::wall_ms(), reason };
        self.log.bury(&letter, &block)?;
        self.commit.groups.push((id, GroupChange::Dead { seq }));
        if let Some(group) = self.groups.get_mut(&id) {
            let source = block.by_source().find(|of| of.range.contains(seq)).map(|of| of.source);
            group.buried(seq, source, cause == DeadCause::Rejected);
            group.settled(line, clock::now_ms());
            // Lines that an operator parks are logged together, with their number.
            if cause != DeadCause::Parked {
                tracing::warn!(group = group.settings().name, %seq, attempts, "line moved to the dead letters");
            }
        }
        Ok(true)
    }

    /// A worker could not read lines of an offer.
    pub(super) fn unreadable(
        &mut self,
        id: GroupId,
        reservation: u64,
        range: SeqRange,
        what: String,
        is_refused: bool,
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.release_offer(reservation);
        // Lines that were recorded as lost before this group was created: it skips them, as the others did.
        let losses = self.log.state().losses().iter();
        let known: Vec<SeqRange> = losses.filter_map(|loss| loss.range.intersection(range)).collect();
        let waits =
            self.log.state().groups().get(&id).and_then(|state| state.acks().gap(range.first, range.last));
        if waits.is_some_and(|waits| known.iter().any(|known| known.contains(waits.first))) {
            group.count_again();
            for range in known {
                group.settled(range, clock::now_ms());
                self.commit.groups.push((id, GroupChange::Ack { range }));
            }
            return;
        }
        let name = &group.settings().name;
        if is_refused || !group.settings().skip_damage {
            tracing::error!(group = name, lines = %range, "{what}; the group is blocked");
            group.block_unreadable(format!("lines {range}: {what}"), is_refused);
            return;
        }
        tracing::error!(group = name, lines = %range, "{what}; the lines are lost");
        group.settled(range, clock::now_ms());
        group.count_again();
        self.commit.groups.push((id, GroupChange::Ack { range }));
        self.commit.losses.push(Loss::unreadable(range, what));
    }
}

/// The lines that a change acks, all of which waited.
fn acked_lines(change: &GroupChange) -> u64 {
    match change {
        GroupChange::Ack { range } => range.lines(),
        GroupChange::Some { lines, .. } => *lines,
        _ => 0,
    }
}
