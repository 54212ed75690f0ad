//! A group over some sources: how many of its own lines wait, and which lines of others are settled. The rules are in
//! `queue/share.rs`.

use spillq_storage::{Counts, GroupChange, Seq, SeqRange, SourceId, State};

use super::{Group, View, outside};
use crate::queue::lag::Lag;
use crate::queue::share::{Count, PASSED_MAX, RANGES_LEFT, STRETCH_BYTES, Share};
use crate::queue::sources::Members;

impl Group {
    /// Its own lines are those of these sources from now on; `None`: all are. Leases continue as they began.
    pub(in crate::queue) fn set_members(&mut self, members: Option<Members>) {
        self.share = members.map(Share::new);
        // What was another's may be its own now.
        self.withdraw(|_| true);
        self.retries.forget_reach();
        for lease in self.leases.values_mut() {
            lease.reach = lease.range;
            lease.is_recounted = true;
        }
    }

    /// Lines that failed alone, except those that an operator put back.
    pub(in crate::queue) fn alone(&self) -> Vec<Seq> {
        self.retries.alone()
    }

    /// What is known of a line is forgotten: it is another's now.
    pub(in crate::queue) fn give_up(&mut self, seq: Seq) {
        self.retries.pass(SeqRange::one(seq));
        self.reasons.remove(&seq);
    }

    /// Whose lines are its own; `None` if all are.
    pub(in crate::queue) fn members(&self) -> Option<&Members> {
        self.share.as_ref().map(|share| &share.members)
    }

    /// How far it is behind.
    pub(in crate::queue) fn lag(&self, view: View<'_>, log: &State) -> Lag {
        let bytes = log.lag_bytes(view.state);
        let lines = self.lag_lines(view);
        let is_counting = self.is_counting();
        let bytes = match self.share.as_ref().filter(|_| !is_counting) {
            None => bytes,
            Some(Share { seen: (0, _), .. }) => 0,
            Some(Share { seen: (all, long), .. }) => {
                (u128::from(lines) * u128::from(*long) / u128::from(*all)) as u64
            }
        };
        Lag { lines, bytes, is_counting }
    }

    /// How many lines wait or are in flight.
    pub(in crate::queue) fn lag_lines(&self, view: View<'_>) -> u64 {
        match &self.share {
            Some(share) if share.count == Count::Known => u64::try_from(share.waiting).unwrap_or(0),
            _ => view.state.lag_lines(view.next_seq),
        }
    }

    /// Whether its own lines are not counted yet.
    pub(in crate::queue) fn is_counting(&self) -> bool {
        self.share.as_ref().is_some_and(|share| share.count != Count::Known)
    }

    /// Whether a count has to begin.
    pub(in crate::queue) fn wants_count(&self) -> bool {
        self.share.as_ref().is_some_and(|share| share.count == Count::Wanted)
    }

    /// Its lines have to be counted again.
    pub(in crate::queue) fn count_again(&mut self) {
        if let Some(share) = &mut self.share {
            share.count = Count::Wanted;
        }
    }

    /// A count of the lines that wait now begins, under this number.
    pub(in crate::queue) fn begin_count(&mut self, number: u64) {
        if let Some(share) = &mut self.share {
            (share.count, share.waiting) = (Count::Begun(number), 0);
        }
    }

    /// The count of this number is done.
    pub(in crate::queue) fn counted(&mut self, number: u64, (lines, bytes): (u64, u64)) {
        if let Some(share) = self.share.as_mut().filter(|share| share.count == Count::Begun(number)) {
            share.count = Count::Known;
            share.waiting += i64::try_from(lines).unwrap_or(i64::MAX);
            share.see(lines, bytes);
        }
    }

    /// Lines were appended, of which these are its own.
    pub(in crate::queue) fn appended(&mut self, lines: u64, bytes: u64) {
        if let Some(share) = &mut self.share {
            share.waiting += lines as i64;
            share.see(lines, bytes);
        }
    }

    /// Its own lines were settled.
    pub(in crate::queue) fn settled_own(&mut self, lines: u64) {
        if let Some(share) = &mut self.share {
            share.waiting -= lines as i64;
        }
    }

    /// A line that was a dead letter waits again.
    pub(super) fn revived_own(&mut self) {
        if let Some(share) = &mut self.share {
            share.waiting += 1;
        }
    }

    /// A line of `source` is about to be settled as a dead letter.
    pub(in crate::queue) fn buried(&mut self, seq: Seq, source: Option<SourceId>, is_rejected: bool) {
        let is_revived = self.retries.is_revived(seq);
        if let Some(share) = &mut self.share {
            let is_counted = is_revived || source.is_none_or(|source| share.members.has(source));
            share.waiting -= i64::from(is_counted);
            share.rejected = share.rejected.saturating_add(u32::from(is_rejected));
        }
    }

    /// Rejected dead letters since the last ack. `None` if the log knows better: in a group that gets every line, those
    /// directly below a line.
    pub(in crate::queue) fn rejected_in_a_row(&self) -> Option<u32> {
        self.share.as_ref().map(|share| share.rejected)
    }

    pub(super) fn acked_own(&mut self, lines: u64, is_recounted: bool) {
        // How many of them are its own since its sources changed is not known.
        if is_recounted {
            self.count_again();
        }
        self.settled_own(lines);
        if let Some(share) = self.share.as_mut().filter(|_| lines > 0) {
            share.rejected = 0;
        }
    }

    /// The first lines of an offer, up to `to`, are of other sources.
    pub(in crate::queue) fn pass_offered(&mut self, reservation: u64, to: Seq) {
        let Some(reserved) = self.reserved.remove(&reservation) else { return };
        self.retries.release(reserved.range);
        let Some(passed) =
            SeqRange::new(reserved.range.first, to).filter(|passed| reserved.range.contains(passed.last))
        else {
            return;
        };
        if reserved.again {
            self.retries.pass(passed);
        }
        self.pass(passed);
    }

    /// A block of this many bytes was appended, of which `own` lines are its own. If there are none, and none waits directly
    /// below, it is passed at once. Above lines that wait, many such blocks are: so a group that nobody works for does not keep
    /// the lines of others.
    pub(in crate::queue) fn note_block(&mut self, view: View<'_>, (block, bytes): (SeqRange, u64), own: u64) {
        let has_room = view.state.acks().ranges() < RANGES_LEFT && self.passed().len() < PASSED_MAX;
        let before = block.first.prev();
        let follows =
            view.state.acks().contains(before) || self.passed().iter().any(|passed| passed.last == before);
        let Some(share) = &mut self.share else { return };
        let (stretch, bytes) = match share.stretch.take().filter(|_| own == 0) {
            Some((stretch, before_bytes)) if stretch.last == before => {
                (SeqRange { last: block.last, ..stretch }, before_bytes + bytes)
            }
            _ => (block, bytes),
        };
        if own > 0 {
            return;
        }
        if follows || bytes >= STRETCH_BYTES && has_room {
            self.pass(stretch);
        } else {
            share.stretch = Some((stretch, bytes));
        }
    }

    /// If none of its own lines waits: those that wait, which are of other sources then, as far as they are not settled with the
    /// next commit. A number that cannot be right is counted again.
    pub(in crate::queue) fn rest(&mut self, view: View<'_>) -> Vec<SeqRange> {
        let waiting = match &self.share {
            Some(share) if share.count == Count::Known => share.waiting,
            _ => return Vec::new(),
        };
        if waiting < 0 {
            self.count_again();
        }
        let is_busy = !self.leases.is_empty() || !self.reserved.is_empty() || !self.retries.is_empty();
        let Some(all) = SeqRange::new(Seq::FIRST, view.next_seq.prev()).filter(|_| waiting == 0 && !is_busy)
        else {
            return Vec::new();
        };
        let gaps: Vec<SeqRange> = view.state.acks().gaps(all).take(PASSED_MAX).collect();
        outside(&outside(&gaps, &self.settling), self.passed())
    }

    /// These lines are of other sources.
    pub(in crate::queue) fn pass(&mut self, range: SeqRange) {
        if let Some(share) = &mut self.share {
            share.pass(range);
        }
    }

    /// Lines of other sources that are to be settled.
    pub(in crate::queue) fn passed(&self) -> &[SeqRange] {
        self.share.as_ref().map_or(&[], |share| share.passed.as_slice())
    }

    /// Whether there are some.
    pub(in crate::queue) fn has_passed(&self) -> bool {
        !self.passed().is_empty()
    }

    /// What settles them, for the commit that is being gathered.
    pub(in crate::queue) fn take_passed(&mut self) -> Vec<GroupChange> {
        let passed = self.share.as_mut().map(|share| std::mem::take(&mut share.passed)).unwrap_or_default();
        self.settling.extend(passed.iter().copied());
        let settle = |range| GroupChange::Some { range, lines: 0, counts: Counts::Acked };
        passed.into_iter().map(settle).collect()
    }
}
