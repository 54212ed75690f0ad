//! The lines of a group that are delivered again: back off, bisect, hold, dead-letter. Pure: `now` is an argument.
//!
//! docs/explanation/delivery.md has the rules as a table. Lines that failed form a *part*: they are delivered again together,
//! later. Without blame a batch is retried, and bisected from its second failure on. In strict order the first line that
//! fails alone then holds the group: only that line is retried, nothing overtakes it, and whole batches continue when it
//! succeeds. A line that the processor rejects is condemned, and becomes a dead letter as soon as the lines before it are
//! settled.
//!
//! Bounds: [`PARTS_MAX`] parts of an unordered group; in a strict group at most one batch is in parts.
//! Times are milliseconds by the clock for deadlines.

mod failed;
mod part;
#[cfg(test)]
mod tests;

use spillq_storage::{DeadCause, Seq, SeqRange};

pub(super) use failed::{Delivered, Remembered};
use part::{Part, Standing};

use super::settings::{RetrySettings, Stuck};

/// Parts of an unordered group beyond which no fresh lines are delivered: each takes a hundred bytes.
pub(super) const PARTS_MAX: usize = 4_096;

/// Why the whole group waits until a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupWait {
    /// The destination is misconfigured.
    Refused,
    /// The destination asked for it.
    Later,
    /// As many lines in a row were rejected as allowed. Only this line, the first that waits, is retried.
    EveryLineRejected(Seq),
}

/// What to do next with the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Deliver these lines.
    Deliver(SeqRange),
    /// Nothing before this time.
    Wait(u64),
    /// This line is not delivered until an operator says so, and in strict order nothing else is.
    Held(Seq),
    /// There are no parts, or none of an unordered group can be delivered.
    Nothing,
}

/// Whether the numbers by which a processor blames lines of a batch are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    Unproven,
    Right,
    Wrong,
}

/// The parts of one group, in seq order.
#[derive(Clone, Debug)]
pub(super) struct Retries {
    settings: RetrySettings,
    strict: bool,
    parts: Vec<Part>,
    numbers: Numbers,
    /// A line that was rejected alone was rejected again: from then on one rejection is enough.
    believes_rejections: bool,
    /// Failures without blame since the last ack: the back-off doubles with each.
    streak: u32,
    /// Unordered only: batches that failed at their first delivery since the last ack.
    fresh_streak: u32,
    /// Unordered only: lines that were never delivered wait too while everything fails.
    fresh_not_before_ms: u64,
    /// How often the destination refused since the last ack.
    refusals: u32,
    /// Lines were acked in this run.
    has_acked: bool,
    group_wait: Option<(u64, GroupWait)>,
}

impl Retries {
    /// No parts yet.
    pub(super) fn new(settings: RetrySettings, strict: bool) -> Retries {
        Retries {
            settings,
            strict,
            parts: Vec::new(),
            numbers: Numbers::Unproven,
            believes_rejections: false,
            streak: 0,
            fresh_streak: 0,
            fresh_not_before_ms: 0,
            refusals: 0,
            has_acked: false,
            group_wait: None,
        }
    }

    /// Changes the settings. Back-offs that have begun end as they would have.
    pub(super) fn set(&mut self, settings: RetrySettings, strict: bool) {
        self.settings = settings;
        self.strict = strict;
        if settings.stuck == Stuck::DeadLetter {
            for part in self.parts.iter_mut().filter(|part| part.standing == Standing::Killer) {
                (part.standing, part.condemned) = (Standing::Bisected, Some(DeadCause::Died));
            }
        }
    }

    /// Adds lines that an earlier run leaves to be delivered before others, and that it never delivered.
    pub(super) fn add_untried(&mut self, range: SeqRange) {
        self.put(Part::new(range, Standing::Batch));
    }

    /// Adds lines that were in flight when an earlier run died: they are bisected if they fail.
    pub(super) fn add_suspect(&mut self, range: SeqRange) {
        self.put(Part { suspect: true, ..Part::new(range, Standing::Bisected) });
    }

    /// Adds a line that failed alone in earlier runs, or during whose delivery they died: it is delivered alone again.
    pub(super) fn add_line(&mut self, seq: Seq, failures: u32, deaths: u32) {
        let range = SeqRange::one(seq);
        self.take_out(range);
        let new = Part::new(range, Standing::Bisected);
        let mut part = Part { failures_before: failures, suspect: deaths > 0, ..new };
        if deaths >= self.settings.attempts {
            match self.settings.stuck {
                Stuck::Hold => part.standing = Standing::Killer,
                Stuck::DeadLetter => part.condemned = Some(DeadCause::Died),
            }
        }
        self.put(part);
    }

    /// Adds a dead letter that is delivered again. One that has killed too many runs since becomes a dead letter at once.
    pub(super) fn revive(&mut self, seq: Seq, deaths: u32) {
        let range = SeqRange::one(seq);
        self.take_out(range);
        let condemned = (deaths >= self.settings.attempts).then_some(DeadCause::Died);
        self.put(Part { condemned, ..Part::new(range, Standing::Revived) });
        if self.group_wait.is_some_and(|(_, wait)| matches!(wait, GroupWait::EveryLineRejected(_))) {
            self.group_wait = None;
        }
    }

    fn put(&mut self, part: Part) {
        let at = self.parts.partition_point(|other| other.range < part.range);
        self.parts.insert(at, part);
    }

    fn take_out(&mut self, range: SeqRange) {
        let parts = std::mem::take(&mut self.parts);
        let rest = |part: Part| {
            let rest: Vec<SeqRange> = part.range.without(range).collect();
            rest.into_iter().map(move |rest| {
                let failures = if rest == part.range { part.failures } else { 0 };
                Part { failures, ..part.rest(rest) }
            })
        };
        self.parts = parts.into_iter().flat_map(rest).collect();
    }

    /// Ends every back-off, and delivers a killer line once more.
    pub(super) fn retry_now(&mut self, now_ms: u64) {
        self.group_wait = None;
        (self.fresh_not_before_ms, self.refusals) = (0, 0);
        for part in &mut self.parts {
            part.not_before_ms = part.not_before_ms.min(now_ms);
            if part.standing == Standing::Killer {
                part.standing = Standing::Bisected;
            }
        }
    }

    /// Whether lines that may have killed an earlier run are still to be delivered. Until then the group has one lease at a
    /// time.
    pub(super) fn has_suspects(&self) -> bool {
        let is_held = |part: &&Part| part.condemned.is_some() || part.standing == Standing::Killer;
        self.parts.iter().filter(|part| part.suspect).any(|part| !is_held(&part))
    }

    /// The first line of all parts.
    pub(super) fn first(&self) -> Option<Seq> {
        self.parts.first().map(|part| part.reach.first)
    }

    /// Whether there are no parts.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Until when the whole group waits, and why.
    pub(super) fn group_wait(&self) -> Option<(u64, GroupWait)> {
        self.group_wait
    }

    /// The line that holds a strict group.
    pub(super) fn held(&self) -> Option<Seq> {
        let first = self.parts.first().filter(|part| self.strict && part.holds())?;
        Some(first.range.first)
    }

    /// Lines during whose delivery the process died too often: not delivered until an operator says so.
    pub(super) fn killers(&self) -> impl Iterator<Item = Seq> {
        let killers = self.parts.iter().filter(|part| part.standing == Standing::Killer);
        killers.map(|part| part.range.first)
    }

    /// The lines that are delivered again next, and when: in strict order the first part, otherwise the one whose time is
    /// first.
    pub(super) fn waiting(&self) -> Option<(SeqRange, u64)> {
        let parts = if self.strict { self.parts.get(..1) } else { Some(&self.parts[..]) };
        parts?
            .iter()
            .filter(|part| part.is_deliverable())
            .map(|part| (part.range, part.not_before_ms))
            .min_by_key(|(_, at)| *at)
    }

    /// Whether a line waits to be delivered again.
    pub(super) fn holds(&self, line: Seq) -> bool {
        self.parts.iter().any(|part| !part.in_flight && part.range.contains(line))
    }

    /// Whether a run that ends by itself has tried the parts often enough: in strict order the first, as nothing overtakes
    /// it; otherwise all. Of an unordered group the caller knows that no other lines wait.
    pub(super) fn is_exhausted(&self) -> bool {
        let attempts = self.settings.attempts;
        if self.refusals >= attempts {
            return true;
        }
        let mut parts = self.parts.iter();
        if self.strict {
            return parts.next().is_some_and(|part| part.is_exhausted(attempts));
        }
        !self.parts.is_empty() && parts.all(|part| part.is_exhausted(attempts))
    }

    /// Cuts a part that is larger than one batch: `range` up to `last` is delivered now, the rest after it.
    pub(super) fn cut(&mut self, range: SeqRange, last: Seq) {
        let Some(at) = self.parts.iter().position(|part| part.range == range) else { return };
        let part = self.parts.remove(at);
        let cut = [SeqRange::new(range.first, last), SeqRange::new(last.next(), range.last)];
        for range in cut.into_iter().flatten() {
            self.put(Part { whole: range, in_flight: false, failures: 0, ..part.rest(range) });
        }
    }

    /// The lines of a part were read: at both ends, outside `own`, are lines of other sources.
    pub(super) fn trim(&mut self, range: SeqRange, own: SeqRange) {
        for part in self.parts.iter_mut().filter(|part| part.range == range) {
            part.range = own;
        }
    }

    /// The lines around a part that were found to be of other sources, and itself.
    pub(super) fn reach(&self, range: SeqRange) -> SeqRange {
        self.parts.iter().find(|part| part.range == range).map_or(range, |part| part.reach)
    }

    /// What is around parts may be the group's own now.
    pub(super) fn forget_reach(&mut self) {
        for part in &mut self.parts {
            part.reach = part.range;
        }
    }

    /// Lines that wait alone, except those that an operator put back.
    pub(super) fn alone(&self) -> Vec<Seq> {
        let is_alone =
            |part: &&Part| part.is_one_line() && !part.in_flight && part.standing != Standing::Revived;
        self.parts.iter().filter(is_alone).map(|part| part.range.first).collect()
    }

    /// These lines, with which a part begins, are of other sources.
    pub(super) fn pass(&mut self, passed: SeqRange) {
        self.take_out(passed);
    }

    /// How often exactly these lines were delivered together and failed.
    pub(super) fn failures(&self, range: SeqRange) -> u32 {
        self.parts.iter().find(|part| part.range == range).map_or(0, |part| part.failures)
    }

    /// The first range of `gap` that no part covers: where fresh lines begin.
    pub(super) fn skip(&self, gap: SeqRange) -> Option<SeqRange> {
        let mut first = gap.first;
        let before = self.parts.partition_point(|part| part.reach.last < first);
        for part in self.parts.iter().skip(before) {
            if part.reach.first <= first {
                first = part.reach.last.next();
                continue;
            }
            return SeqRange::new(first, gap.last.min(part.reach.first.prev()));
        }
        SeqRange::new(first, gap.last)
    }

    /// Until when an unordered group delivers no fresh lines, if so: while everything fails they would all become parts.
    pub(super) fn fresh_waits(&self, now_ms: u64) -> Option<u64> {
        if self.parts.len() >= PARTS_MAX {
            return Some(self.waiting().map_or(u64::MAX, |(_, until)| until.max(now_ms + 1)));
        }
        (self.fresh_not_before_ms > now_ms).then_some(self.fresh_not_before_ms)
    }

    /// What to do at `now_ms`. The owner dead-letters a condemned line first ([`Retries::condemned`]); in strict order
    /// nothing is delivered before that is done.
    pub(super) fn next(&self, now_ms: u64) -> Next {
        match self.group_wait {
            Some((until, _)) if now_ms < until => return Next::Wait(until),
            Some((_, GroupWait::EveryLineRejected(seq))) => {
                let part = self.parts.iter().find(|part| part.range == SeqRange::one(seq));
                match part {
                    Some(part) if part.in_flight => return Next::Wait(now_ms + self.settings.max_ms),
                    Some(part) => return Next::Deliver(part.range),
                    None => {}
                }
            }
            _ => {}
        }
        let mut earliest = None;
        for part in self.parts.iter().filter(|part| !part.in_flight) {
            if part.is_deliverable() {
                if part.not_before_ms <= now_ms {
                    return Next::Deliver(part.range);
                }
                earliest = Some(earliest.map_or(part.not_before_ms, |at: u64| at.min(part.not_before_ms)));
            }
            if self.strict && !cfg!(feature = "fault-overtake") {
                if part.standing == Standing::Killer {
                    return Next::Held(part.range.first);
                }
                break;
            }
        }
        earliest.map_or(Next::Nothing, Next::Wait)
    }

    /// The delivery of a part begins.
    pub(super) fn begin(&mut self, range: SeqRange) {
        self.set_in_flight(range, true);
    }

    /// A delivery ends untried: it was never leased, or the service is stopping.
    pub(super) fn release(&mut self, range: SeqRange) {
        self.set_in_flight(range, false);
    }

    fn set_in_flight(&mut self, range: SeqRange, in_flight: bool) {
        for part in self.parts.iter_mut().filter(|part| part.range == range) {
            part.in_flight = in_flight;
        }
    }

    /// The line that is to become a dead letter now. The lines before it from the same batch are settled first, so that
    /// dead letters follow the order of the lines, and those in a row can be counted.
    pub(super) fn condemned(&self) -> Option<(Seq, DeadCause)> {
        let due = |at: usize, part: &Part| {
            let before = self.parts.get(..at).unwrap_or_default();
            // In an unordered group a line that fails without blame does not delay the end of others.
            let is_untried = |other: &Part| other.failures == 0 && other.standing != Standing::Killer;
            let waits_for = |other: &Part| other.whole == part.whole && is_untried(other);
            if self.strict { before.is_empty() } else { !before.iter().any(waits_for) }
        };
        self.parts.iter().enumerate().find_map(|(at, part)| {
            let cause = part.condemned.filter(|_| due(at, part))?;
            Some((part.range.first, cause))
        })
    }

    /// How many rejected lines in a row are dead-lettered before the next one stops the group.
    pub(super) fn rejects_max(&self) -> u32 {
        if self.has_acked { self.settings.rejects } else { self.settings.rejects.min(1) }
    }

    /// Whether the line was revived: it becomes a dead letter again whatever else was rejected.
    pub(super) fn is_revived(&self, seq: Seq) -> bool {
        let line = SeqRange::one(seq);
        self.parts.iter().any(|part| part.range == line && part.standing == Standing::Revived)
    }

    /// Too many lines in a row were rejected: a condemned line is not dead-lettered but retried after the longest back-off,
    /// alone in the whole group.
    pub(super) fn refuse(&mut self, seq: Seq, now_ms: u64) {
        let until = now_ms + self.settings.max_ms;
        self.refusals += 1;
        self.group_wait = Some((until, GroupWait::EveryLineRejected(seq)));
        for part in self.parts.iter_mut().filter(|part| part.range == SeqRange::one(seq)) {
            part.condemned = None;
            part.standing = Standing::Rejected;
            part.not_before_ms = until;
        }
    }

    /// Lines were settled: `acked`, or dead-lettered, lost, skipped or dropped.
    pub(super) fn settled(&mut self, range: SeqRange, acked: bool, now_ms: u64) {
        self.group_wait = None;
        let was_held = self.parts.first().is_some_and(|part| part.range == range && part.failed_alone());
        if acked {
            (self.streak, self.fresh_streak, self.refusals) = (0, 0, 0);
            self.fresh_not_before_ms = 0;
            self.has_acked = true;
            if self.parts.iter().any(|part| part.standing == Standing::Named && part.range == range) {
                self.numbers = Numbers::Wrong;
            }
        }
        for part in std::mem::take(&mut self.parts) {
            let touched = part.range.intersection(range).is_some();
            for rest in part.range.without(range) {
                let mut part = part.rest(rest);
                if touched {
                    // A lease of it has ended, and the rest of it was never delivered as such.
                    (part.in_flight, part.failures) = (false, 0);
                }
                // Even if the part is in flight again.
                part.others_acked |= acked && part.failures > 0;
                if acked && !part.in_flight {
                    part.rounds = 0;
                    if self.strict {
                        part.not_before_ms = part.not_before_ms.min(now_ms);
                    }
                }
                self.parts.push(part);
            }
        }
        if self.strict && was_held {
            self.rejoin(now_ms);
        }
    }

    /// The line that held the group is settled: the parts into which its batch was bisected are joined again.
    fn rejoin(&mut self, now_ms: u64) {
        let mut joined: Vec<Part> = Vec::with_capacity(self.parts.len());
        for part in std::mem::take(&mut self.parts) {
            // A line that failed alone before (it was parked behind, say) stays alone.
            if !part.is_plain() || part.failed_alone() {
                joined.push(part);
                continue;
            }
            let joins = |last: &&mut Part| {
                last.is_plain()
                    && !last.failed_alone()
                    && last.whole == part.whole
                    && last.reach.last.next() == part.reach.first
            };
            match joined.last_mut().filter(joins) {
                Some(last) => (last.range.last, last.reach.last) = (part.range.last, part.reach.last),
                None => {
                    let not_before_ms = part.not_before_ms.min(now_ms);
                    joined.push(Part { standing: Standing::Batch, failures: 0, not_before_ms, ..part });
                }
            }
        }
        self.parts = joined;
    }
}
