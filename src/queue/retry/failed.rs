//! What follows when a delivery fails: a back-off, a bisection, a condemned line.

use spillq_storage::{DeadCause, Seq, SeqRange};

use super::part::{Part, Standing};
use super::{GroupWait, Numbers, Retries};
use crate::queue::failure::FailureKind;
use crate::queue::settings::Stuck;

/// Doublings of the back-off that count: 2^20 times any initial back-off exceeds every maximum.
const DOUBLINGS_MAX: u32 = 20;
/// Condemned lines that wait for lines before them. A processor that names the first bad line makes one at a time. One that
/// names them backwards is not believed beyond this, as the reason of each (4 KiB) is held in memory.
const CONDEMNED_MAX: usize = 64;

/// What the log remembers of a line that was delivered alone, before this delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::queue) struct Remembered {
    /// Failures alone, over all runs.
    pub failures: u32,
    /// For how long it had been failing at the last of them.
    pub for_ms: u64,
    /// As many lines directly below it as allowed are rejected dead letters: if it is rejected too, the group is refused.
    pub exceeds_rejects: bool,
}

/// Lines that were delivered together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) struct Delivered {
    pub range: SeqRange,
    /// The same, with lines of other sources around them.
    pub reach: SeqRange,
    /// The last line of the first half.
    pub middle: Seq,
}

/// The result of a failed delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::queue) struct Failed {
    /// For how long the line has been failing, if the failure counts. `None` if nothing is charged.
    pub charged_ms: Option<u64>,
    /// The line that becomes a dead letter because of it.
    pub condemned: Option<Seq>,
}

impl Retries {
    /// A delivery failed.
    pub(in crate::queue) fn failed(
        &mut self,
        delivered: impl Into<Delivered>,
        kind: FailureKind,
        now_ms: u64,
        line: Remembered,
    ) -> Failed {
        let Delivered { range, reach, middle } = delivered.into();
        let known = self.parts.iter().position(|part| part.range == range).map(|at| self.parts.remove(at));
        let is_fresh = known.is_none();
        let known = known.unwrap_or_else(|| Part { reach, ..Part::new(range, Standing::Batch) });
        let mut part = Part { in_flight: false, suspect: false, ..known };
        if kind.spares_the_lines() {
            self.spare(part, kind, now_ms);
            return Failed::default();
        }
        self.group_wait = None;
        let blames = kind.blames(range) || kind == FailureKind::TooLarge;
        if is_fresh && !self.strict && !blames {
            self.fresh_not_before_ms = now_ms + self.backoff(self.fresh_streak);
            self.fresh_streak += 1;
        }
        let charged_ms = Some(for_how_long(&mut part, line, now_ms));
        if part.is_one_line() {
            return self.failed_alone(part, (kind, line), now_ms, charged_ms);
        }
        match kind {
            FailureKind::BadLine(bad) if range.contains(bad) && self.believes_numbers() => {
                let is_right = self.numbers == Numbers::Right;
                return Failed { charged_ms, condemned: self.cut_out(&part, (bad, is_right), now_ms) };
            }
            FailureKind::BadSeq(bad) if range.contains(bad) && self.has_room() => {
                return Failed { charged_ms, condemned: self.cut_out(&part, (bad, true), now_ms) };
            }
            _ if blames => self.bisect(&part, middle, Standing::Batch, now_ms),
            _ => {
                let until = now_ms + self.backoff(self.streak);
                self.streak += 1;
                part.failures += 1;
                if part.standing == Standing::Bisected || part.failures > 1 {
                    // An unordered group tries the halves soon: other lines continue meanwhile.
                    let until = if self.strict { until } else { now_ms + self.settings.initial_ms };
                    self.bisect(&part, middle, Standing::Bisected, until);
                } else {
                    part.not_before_ms = if self.strict { until } else { now_ms + self.backoff(part.rounds) };
                    self.put(part.clone());
                }
                self.merge_if_down(part.whole, now_ms);
            }
        }
        Failed { charged_ms, condemned: None }
    }

    /// A delivery failed of which parts were acked, and several parts are left. None of them has failed alone: they wait, each
    /// to be delivered by itself.
    pub(in crate::queue) fn failed_in_parts(&mut self, parts: &[SeqRange], kind: FailureKind, now_ms: u64) {
        let not_before_ms = now_ms + self.backoff(self.streak);
        self.streak += 1;
        for (index, range) in parts.iter().enumerate() {
            let known =
                self.parts.iter().position(|part| part.range == *range).map(|at| self.parts.remove(at));
            let known = known.unwrap_or_else(|| Part::new(*range, Standing::Batch));
            let part = Part { in_flight: false, suspect: false, not_before_ms, ..known };
            if index == 0 && kind.spares_the_lines() {
                self.spare(part, kind, now_ms);
            } else {
                self.put(part);
            }
        }
    }

    /// The failure says nothing of the lines: they stay as they are, and the group waits.
    fn spare(&mut self, mut part: Part, kind: FailureKind, now_ms: u64) {
        // A destination that asks for no pause again and again gets one.
        let wait_ms = if let FailureKind::Later(ms) = kind { ms } else { u64::MAX };
        part.not_before_ms = now_ms + wait_ms.max(self.settings.initial_ms).min(self.settings.max_ms);
        let wait = if kind == FailureKind::Refused { GroupWait::Refused } else { GroupWait::Later };
        self.refusals = if wait == GroupWait::Refused { self.refusals + 1 } else { 0 };
        self.group_wait = Some((part.not_before_ms, wait));
        self.put(part);
    }

    /// A delivery of a line alone failed.
    fn failed_alone(
        &mut self,
        mut part: Part,
        (kind, line): (FailureKind, Remembered),
        now_ms: u64,
        charged_ms: Option<u64>,
    ) -> Failed {
        let seq = part.range.first;
        let blamed = kind.blames(part.range);
        if part.standing == Standing::Revived {
            part.failures += 1;
            part.condemned = Some(if blamed { DeadCause::Rejected } else { DeadCause::Failed });
            self.put(part);
            return Failed { charged_ms, condemned: Some(seq) };
        }
        if blamed {
            let again = matches!(part.standing, Standing::Named | Standing::Rejected)
                || self.believes_rejections
                || kind == FailureKind::BadSeq(seq);
            if again && line.exceeds_rejects {
                // Not charged: the line may not be at fault.
                self.put(part);
                self.refuse(seq, now_ms);
                return Failed::default();
            }
            part.failures += 1;
            let is_unproven = self.numbers == Numbers::Unproven;
            if part.standing == Standing::Named && kind == FailureKind::BadLine(seq) && is_unproven {
                // Any other answer rejects the line too, but does not confirm its number.
                self.numbers = Numbers::Right;
            }
            part.standing = Standing::Rejected;
            part.not_before_ms = now_ms;
            self.believes_rejections |= again;
            part.condemned = again.then_some(DeadCause::Rejected);
            self.put(part);
            return Failed { charged_ms, condemned: again.then_some(seq) };
        }
        let doublings = if self.strict { self.streak } else { part.rounds + part.failures };
        self.streak += 1;
        part.failures += 1;
        part.not_before_ms = now_ms + self.backoff(doublings);
        if part.standing == Standing::Batch {
            part.standing = Standing::Bisected;
        }
        let tried = line.failures.saturating_add(1) >= self.settings.attempts;
        let for_long = charged_ms >= Some(self.settings.give_up_after_ms);
        let given_up = self.settings.stuck == Stuck::DeadLetter && for_long;
        let condemned = tried && (given_up || (!self.strict && part.others_acked));
        part.condemned = condemned.then_some(DeadCause::Failed);
        let whole = part.whole;
        self.put(part);
        if !condemned {
            self.merge_if_down(whole, now_ms);
        }
        Failed { charged_ms, condemned: condemned.then_some(seq) }
    }

    /// Whether a list of bad lines is believed, so that the others may be acked: if it names them by their seqs or a number
    /// was right, and not too many condemned lines wait already.
    pub(in crate::queue) fn believes_lists(&self, by_seq: bool) -> bool {
        self.has_room() && (by_seq || self.numbers == Numbers::Right)
    }

    /// A line of `whole` was rejected by a list that is believed, while others are acked: it is condemned at once.
    pub(in crate::queue) fn rejected(&mut self, seq: Seq, whole: SeqRange, now_ms: u64) {
        let line = SeqRange::one(seq);
        let standing = if self.is_revived(seq) { Standing::Revived } else { Standing::Named };
        self.take_out(line);
        let condemned = Some(DeadCause::Rejected);
        self.put(Part { whole, condemned, not_before_ms: now_ms, ..Part::new(line, standing) });
    }

    fn believes_numbers(&self) -> bool {
        self.numbers != Numbers::Wrong && self.has_room()
    }

    /// Whether more condemned lines may wait.
    fn has_room(&self) -> bool {
        self.parts.iter().filter(|part| part.condemned.is_some()).count() < CONDEMNED_MAX
    }

    /// Unordered: if every part of a whole has failed and no line was acked, the destination is assumed to be down. What is
    /// left of the whole is delivered together again, after a back-off that doubles each time; its next failure bisects
    /// it.
    fn merge_if_down(&mut self, whole: SeqRange, now_ms: u64) {
        let mut parts = self.parts.iter().filter(|part| part.whole == whole);
        let is_down = !self.strict
            && parts.clone().count() > 1
            && parts.all(|part| part.failures > 0 && !part.others_acked && part.is_plain());
        if !is_down {
            return;
        }
        let (mine, others): (Vec<Part>, Vec<Part>) =
            std::mem::take(&mut self.parts).into_iter().partition(|part| part.whole == whole);
        self.parts = others;
        let rounds = 1 + mine.iter().map(|part| part.rounds).max().unwrap_or(0);
        let not_before_ms = now_ms + self.backoff(rounds);
        let mut merged: Vec<(SeqRange, SeqRange)> = Vec::new();
        for Part { range, reach, .. } in &mine {
            match merged.last_mut() {
                Some((last, around)) if around.last.next() == reach.first => {
                    (last.last, around.last) = (range.last, reach.last);
                }
                _ => merged.push((*range, *reach)),
            }
        }
        for (range, reach) in merged {
            let new = Part { reach, rounds, not_before_ms, failures: 1, ..Part::new(range, Standing::Batch) };
            // A single line that remains keeps what is known of it.
            let alone = mine.iter().find(|part| part.range == range && part.is_one_line());
            self.put(alone.map_or(new, |part| Part { rounds, not_before_ms, whole: range, ..part.clone() }));
        }
    }

    fn bisect(&mut self, part: &Part, middle: Seq, standing: Standing, not_before_ms: u64) {
        let SeqRange { first, last } = part.range;
        for range in [SeqRange::new(first, middle), SeqRange::new(middle.next(), last)].into_iter().flatten()
        {
            self.put(Part {
                whole: part.whole,
                reach: part.rest(range).reach,
                rounds: part.rounds,
                not_before_ms,
                ..Part::new(range, standing)
            });
        }
    }

    /// The processor named a line of the batch: the others are delivered without it. Returns the line if it is condemned at
    /// once, because earlier numbers were right, or it is named by its seq.
    fn cut_out(&mut self, part: &Part, (bad, is_right): (Seq, bool), now_ms: u64) -> Option<Seq> {
        let SeqRange { first, last } = part.range;
        let before = if first < bad { SeqRange::new(first, bad.prev()) } else { None };
        let after = SeqRange::new(bad.next(), last);
        let like = |range, standing| Part {
            whole: part.whole,
            reach: part.rest(range).reach,
            rounds: part.rounds,
            not_before_ms: now_ms,
            ..Part::new(range, standing)
        };
        for range in [before, after].into_iter().flatten() {
            self.put(like(range, Standing::Batch));
        }
        let condemned = is_right.then_some(DeadCause::Rejected);
        self.put(Part { condemned, ..like(SeqRange::one(bad), Standing::Named) });
        condemned.map(|_| bad)
    }

    fn backoff(&self, doublings: u32) -> u64 {
        let factor = 1u64 << doublings.min(DOUBLINGS_MAX);
        self.settings.initial_ms.saturating_mul(factor).min(self.settings.max_ms)
    }
}

impl From<SeqRange> for Delivered {
    /// All lines of the range.
    fn from(range: SeqRange) -> Delivered {
        Delivered { range, reach: range, middle: Seq(range.first.0 + (range.last.0 - range.first.0) / 2) }
    }
}

/// For how many milliseconds the line of a part has been failing, this failure included. 0 for several lines.
fn for_how_long(part: &mut Part, line: Remembered, now_ms: u64) -> u64 {
    if !part.is_one_line() {
        return 0;
    }
    let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let for_ms = i64::try_from(line.for_ms).unwrap_or(i64::MAX);
    let since = *part.failing_since_ms.get_or_insert(now.saturating_sub(for_ms));
    u64::try_from(now.saturating_sub(since)).unwrap_or_default()
}
