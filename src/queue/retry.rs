//! What comes after a failed delivery: wait, halve, probe, set aside. Pure: `now` is an argument.
//!
//! A batch that failed becomes a *part*: lines that are delivered again as they were, later. From its second
//! failure on it is halved, to find the line that fails while others pass. A line that is alone and fails is
//! charged an attempt; it is set aside after so many, and only when another line of the group has passed between
//! its last two. In a strict group nothing passes while a line is stuck, so a line behind it is sent as a probe:
//! if that fails too, the destination is down, all of it is one batch again, and waits.
//!
//! Times are milliseconds of a clock that runs on while the host sleeps.
// long: the parts of one group, and every rule by which they come again

use spillq_storage::{Seq, SeqRange};

/// Doublings of the back-off that are counted: 2^20 times any initial is past every maximum.
const DOUBLINGS_MAX: u32 = 20;

/// How deliveries are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// The first back-off.
    pub initial_ms: u64,
    /// The longest.
    pub max_ms: u64,
    /// Deliveries of a line alone before it can be set aside.
    pub attempts: u32,
}

/// What a failed delivery says of its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Perhaps the lines, perhaps the destination.
    Failed,
    /// The processor blames the lines.
    Poison,
    /// The processor blames this line, and says nothing of those behind it.
    BadLine(Seq),
    /// Smaller ones would do.
    TooLarge,
    /// The destination is set up wrongly.
    Refused,
    /// The destination asks to be left alone for so many milliseconds; the first and the longest back-off bound it.
    Later(u64),
}

impl FailureKind {
    /// The destination has looked at the lines, and takes none of these: there is nothing to wait for.
    fn blames_the_lines(self) -> bool {
        matches!(self, FailureKind::Poison | FailureKind::BadLine(_))
    }

    /// It says nothing of the lines: they wait together as they are, and nothing is charged.
    #[must_use]
    pub(super) fn spares_the_lines(self) -> bool {
        matches!(self, FailureKind::Refused | FailureKind::Later(_))
    }
}

/// Lines to be delivered again together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    range: SeqRange,
    /// The batch that it was cut from: where its halves all fail, that is delivered whole again.
    whole: SeqRange,
    /// Deliveries of exactly this part that failed.
    failures: u32,
    /// How often the whole has been given up on: the back-off doubles.
    rounds: u32,
    not_before_ms: u64,
    halved: bool,
    /// It is the one line that the processor named.
    named: bool,
    /// Another line of the group has passed since this one failed.
    others_passed: bool,
    out: bool,
}

impl Part {
    fn new(range: SeqRange) -> Part {
        Part {
            range,
            whole: range,
            failures: 0,
            rounds: 0,
            not_before_ms: 0,
            halved: false,
            named: false,
            others_passed: false,
            out: false,
        }
    }
}

/// A delivery to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The lines.
    pub range: SeqRange,
    /// A failure is charged to the one line.
    pub alone: bool,
}

/// What to do next with the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Deliver this.
    Deliver(Delivery),
    /// In a strict group: deliver one line behind a stuck one, to learn whether the destination is down.
    Probe {
        /// The line that is stuck.
        stuck: Seq,
        /// So many undelivered lines are passed over, if there are more: they may be poison, too, and every round
        /// that ends with a failed probe looks further away.
        skip: u64,
    },
    /// Nothing before this time.
    Wait(u64),
    /// There are no parts, or in an unordered group none to be had now.
    Nothing,
}

/// The parts of one group, in seq order.
#[derive(Clone, Debug)]
pub(super) struct Retries {
    settings: RetrySettings,
    strict: bool,
    parts: Vec<Part>,
    /// The stuck line that a probe was sent for.
    probing: Option<Seq>,
    /// How far away the last probe passed, in rounds: the lines up to it may all be poison, and each is probed for from
    /// there. 0 again when lines pass in their turn.
    reach: u32,
    /// A line that the processor had named has passed, so it names wrong ones (counts from 0, say): while there are parts
    /// its word is taken for all of a batch, and halves find the line. Else a batch would cost as many deliveries as
    /// it has lines.
    misnamed: bool,
    /// Nothing is delivered before: the destination refused, or asked for it.
    rest: Option<(u64, FailureKind)>,
}

impl Retries {
    /// No parts yet, but for the suspects of a run that died. One that was alone when it did, and that often, has
    /// failed; `attempts` says how often.
    #[must_use]
    pub(super) fn new(
        settings: RetrySettings,
        strict: bool,
        suspects: &[SeqRange],
        attempts: &dyn Fn(Seq) -> u32,
    ) -> Retries {
        let part = |range: &SeqRange| {
            let failed_alone = range.lines() == 1 && attempts(range.first) > 0;
            Part { failures: u32::from(failed_alone), halved: true, ..Part::new(*range) }
        };
        Retries {
            settings,
            strict,
            parts: suspects.iter().map(part).collect(),
            probing: None,
            reach: 0,
            misnamed: false,
            rest: None,
        }
    }

    /// Repeats otherwise from now on. Times that were set stay: they end by themselves.
    pub(super) fn set(&mut self, settings: RetrySettings, strict: bool) {
        self.settings = settings;
        self.strict = strict;
    }

    /// Whether lines wait to be delivered again.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Until when the destination is left alone because it refused, or asked for it: which of them.
    #[must_use]
    pub(super) fn rest(&self) -> Option<(u64, FailureKind)> {
        self.rest
    }

    /// The lines that wait, and until when: the earliest first.
    #[must_use]
    pub(super) fn waiting(&self) -> Option<(SeqRange, u64)> {
        self.parts
            .iter()
            .filter(|part| !part.out)
            .map(|part| (part.range, part.not_before_ms))
            .min_by_key(|(_, at)| *at)
    }

    /// Whether a line waits to be delivered again.
    #[must_use]
    pub(super) fn holds(&self, line: Seq) -> bool {
        self.parts.iter().any(|part| !part.out && part.range.contains(line))
    }

    /// Lines to be delivered in their turn; `again` as if they had failed alone before: dead letters put back.
    pub(super) fn add(&mut self, range: SeqRange, again: bool) {
        self.put(Part { halved: again, ..Part::new(range) });
    }

    /// Cuts a part that is more than one batch: `range` up to `last` is delivered now, the rest after it.
    pub(super) fn cut(&mut self, range: SeqRange, last: Seq) {
        let Some(at) = self.parts.iter().position(|part| part.range == range) else { return };
        let part = self.parts.remove(at);
        for range in
            [SeqRange::new(range.first, last), SeqRange::new(last.next(), range.last)].into_iter().flatten()
        {
            self.put(Part { range, out: false, ..part.clone() });
        }
    }

    /// How often exactly these lines were delivered together and failed.
    #[must_use]
    pub(super) fn failures(&self, range: SeqRange) -> u32 {
        self.parts.iter().find(|part| part.range == range).map_or(0, |part| part.failures)
    }

    /// What of `gap` no part covers, the first stretch of it: where fresh lines begin.
    #[must_use]
    pub(super) fn skip(&self, gap: SeqRange) -> Option<SeqRange> {
        let mut first = gap.first;
        let before = self.parts.partition_point(|part| part.range.last < first);
        for part in self.parts.iter().skip(before) {
            if part.range.first <= first {
                first = part.range.last.next();
                continue;
            }
            return SeqRange::new(first, gap.last.min(part.range.first.prev()));
        }
        SeqRange::new(first, gap.last)
    }

    /// What to do at `now_ms`. `attempts` says how often a line was delivered alone, over restarts too; `can_probe`
    /// whether the log holds a line after it to probe with.
    #[must_use]
    pub(super) fn next(
        &self,
        now_ms: u64,
        attempts: &dyn Fn(Seq) -> u32,
        can_probe: &dyn Fn(Seq) -> bool,
    ) -> Next {
        if let Some((until, _)) = self.rest.filter(|(until, _)| now_ms < *until) {
            return Next::Wait(until);
        }
        let mut earliest = None;
        for part in self.parts.iter().filter(|part| !part.out) {
            if part.not_before_ms <= now_ms {
                let line = part.range.first;
                if self.strict && self.wants_probe(part, attempts) && can_probe(line) {
                    return Next::Probe { stuck: line, skip: (1 << self.rounds_of_probe(part)) - 1 };
                }
                let alone = part.halved && part.range.lines() == 1;
                return Next::Deliver(Delivery { range: part.range, alone });
            }
            earliest = Some(earliest.map_or(part.not_before_ms, |at: u64| at.min(part.not_before_ms)));
            if self.strict {
                break;
            }
        }
        earliest.map_or(Next::Nothing, Next::Wait)
    }

    fn rounds_of_probe(&self, part: &Part) -> u32 {
        part.rounds.max(self.reach).min(DOUBLINGS_MAX)
    }

    /// A line that failed alone for the first time, or is about to be given up: is it the line, or everything?
    fn wants_probe(&self, part: &Part, attempts: &dyn Fn(Seq) -> u32) -> bool {
        let stuck = part.halved && part.range.lines() == 1 && !part.others_passed;
        stuck
            && part.failures > 0
            && (part.failures == 1 || attempts(part.range.first) + 1 >= self.settings.attempts)
    }

    /// The delivery of a part, or of a probe for `stuck`, has begun.
    pub(super) fn begin(&mut self, range: SeqRange, probe_for: Option<Seq>) {
        self.probing = probe_for.or(self.probing);
        for part in self.parts.iter_mut().filter(|part| part.range == range) {
            part.out = true;
        }
    }

    /// A delivery was given back untried: it was never handed out, or the service is stopping.
    pub(super) fn give_back(&mut self, range: SeqRange) {
        self.probing = None;
        for part in self.parts.iter_mut().filter(|part| part.range == range) {
            part.out = false;
        }
    }

    /// Lines were acked, or set aside.
    pub(super) fn settled(&mut self, range: SeqRange, passed: bool, now_ms: u64) {
        self.rest = None;
        let probed_for = self.probing.take();
        if passed {
            let stuck = self.parts.iter().find(|part| probed_for == Some(part.range.first));
            self.reach = stuck.map_or(0, |part| self.rounds_of_probe(part));
        }
        let parts = std::mem::take(&mut self.parts);
        for part in parts {
            self.misnamed |= passed && part.named && part.failures == 0 && part.range == range;
            for range in part.range.without(range) {
                let mut part = Part { range, ..part.clone() };
                if passed && !part.out {
                    part.others_passed |= part.failures > 0;
                    // The destination works: the line that was in the way is gone, or is the one that is left.
                    part.rounds = 0;
                    if self.strict {
                        part.not_before_ms = part.not_before_ms.min(now_ms + self.settings.initial_ms);
                    }
                }
                self.parts.push(part);
            }
        }
        self.misnamed &= !self.parts.is_empty();
    }

    /// A delivery failed. Says which line is to be set aside, if that is what is left to do; `attempts` are those of
    /// the line where it was alone, this one included.
    pub(super) fn failed(
        &mut self,
        range: SeqRange,
        kind: FailureKind,
        now_ms: u64,
        attempts: u32,
    ) -> Option<Seq> {
        let probed_for = self.probing.take();
        if let Some(stuck) = probed_for.filter(|stuck| *stuck != range.first && !kind.spares_the_lines()) {
            // Another line fails as well. It was not charged, and is delivered in its turn.
            self.give_back(range);
            let whole =
                self.parts.iter().find(|part| part.range.first == stuck).map_or(range, |part| part.whole);
            self.down(whole, now_ms);
            return None;
        }
        let known = self.parts.iter().position(|part| part.range == range).map(|at| self.parts.remove(at));
        let mut part = Part { out: false, ..known.unwrap_or_else(|| Part::new(range)) };
        if kind.spares_the_lines() {
            // A destination that says "at once" again and again is not asked without a pause.
            let wait_ms = if let FailureKind::Later(ms) = kind { ms } else { u64::MAX };
            part.not_before_ms = now_ms + wait_ms.max(self.settings.initial_ms).min(self.settings.max_ms);
            self.rest = Some((part.not_before_ms, kind));
            self.put(part);
            return None;
        }
        if part.range.lines() == 1 {
            let others_passed = part.others_passed || cfg!(feature = "fault-no-probe");
            if part.halved && others_passed && attempts >= self.settings.attempts {
                return Some(part.range.first);
            }
            let hasty = kind.blames_the_lines() && attempts < self.settings.attempts;
            let doublings = if hasty { 0 } else { part.rounds + part.failures };
            part.not_before_ms = now_ms + self.backoff(doublings);
            part.halved = true;
        }
        part.failures += 1;
        part.others_passed = false;
        let whole = part.whole;
        if part.range.lines() > 1 && (part.halved || part.failures > 1 || kind != FailureKind::Failed) {
            let wait_ms = if kind == FailureKind::Failed { self.settings.initial_ms } else { 0 };
            match kind {
                FailureKind::BadLine(line) if part.range.contains(line) && !self.misnamed => {
                    self.cut_out(&part, line, now_ms)
                }
                _ => self.halve(&part, now_ms + wait_ms),
            }
        } else {
            if part.range.lines() > 1 {
                part.not_before_ms = now_ms + self.backoff(part.rounds);
            }
            self.put(part);
        }
        if !self.strict && self.all_failed(whole) {
            self.down(whole, now_ms);
        }
        None
    }

    /// In an unordered group the other half is tried, too: has every part of the whole failed, and nothing passed?
    fn all_failed(&self, whole: SeqRange) -> bool {
        let mut parts = self.parts.iter().filter(|part| part.whole == whole);
        parts.clone().count() > 1 && parts.all(|part| part.failures > 0 && !part.others_passed && !part.out)
    }

    /// The destination is down: what is left of `whole` is delivered together again, after a back-off that doubles
    /// every time; its next failure halves it.
    fn down(&mut self, whole: SeqRange, now_ms: u64) {
        let cut_from_it = self.parts.iter().filter(|part| part.whole == whole);
        let rounds = 1 + cut_from_it.map(|part| part.rounds).max().unwrap_or(0);
        let not_before_ms = now_ms + self.backoff(rounds);
        let (mine, others) =
            std::mem::take(&mut self.parts).into_iter().partition(|part| part.whole == whole && !part.out);
        self.parts = others;
        let mut merged: Vec<SeqRange> = Vec::new();
        for Part { range, .. } in mine {
            match merged.last_mut() {
                Some(last) if last.last.next() == range.first => last.last = range.last,
                _ => merged.push(range),
            }
        }
        for range in merged {
            // A line that is left alone was charged before, and stays so.
            let halved = range.lines() == 1;
            self.put(Part { rounds, not_before_ms, halved, failures: 1, ..Part::new(range) });
        }
    }

    fn halve(&mut self, part: &Part, not_before_ms: u64) {
        let SeqRange { first, last } = part.range;
        let middle = Seq(first.0 + (last.0 - first.0) / 2);
        let halves = [SeqRange::new(first, middle), SeqRange::new(middle.next(), last)];
        self.split(part, halves, None, not_before_ms);
    }

    /// Like halving, where it is known which line it is.
    fn cut_out(&mut self, part: &Part, line: Seq, not_before_ms: u64) {
        let SeqRange { first, last } = part.range;
        let before = if first < line { SeqRange::new(first, line.prev()) } else { None };
        let ranges = [before, SeqRange::new(line, line), SeqRange::new(line.next(), last)];
        self.split(part, ranges, Some(line), not_before_ms);
    }

    fn split<const N: usize>(
        &mut self,
        part: &Part,
        ranges: [Option<SeqRange>; N],
        named: Option<Seq>,
        not_before_ms: u64,
    ) {
        for range in ranges.into_iter().flatten() {
            let named = named.is_some_and(|line| range == SeqRange::one(line));
            let (failures, halved, others_passed) = (0, true, false);
            self.put(Part { range, failures, halved, named, others_passed, not_before_ms, ..part.clone() });
        }
    }

    fn put(&mut self, part: Part) {
        let at = self.parts.partition_point(|other| other.range < part.range);
        self.parts.insert(at, part);
    }

    fn backoff(&self, doublings: u32) -> u64 {
        let factor = 1u64 << doublings.min(DOUBLINGS_MAX);
        self.settings.initial_ms.saturating_mul(factor).min(self.settings.max_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use spillq_storage::AckSet;

    use super::*;

    const SETTINGS: RetrySettings = RetrySettings { initial_ms: 200, max_ms: 30_000, attempts: 8 };

    /// A strict group that delivers `lines` lines in batches, to a destination that is down until a time and cannot
    /// take some lines.
    struct World {
        retries: Retries,
        acks: AckSet,
        dead: BTreeSet<u64>,
        attempts: BTreeMap<u64, u32>,
        deliveries: BTreeMap<u64, u32>,
        lines: u64,
        batch: u64,
        now_ms: u64,
        down_until_ms: u64,
        poison: BTreeSet<u64>,
        kind: FailureKind,
    }

    impl World {
        fn new(lines: u64, batch: u64) -> World {
            World {
                retries: Retries::new(SETTINGS, true, &[], &|_| 0),
                acks: AckSet::default(),
                dead: BTreeSet::new(),
                attempts: BTreeMap::new(),
                deliveries: BTreeMap::new(),
                lines,
                batch,
                now_ms: 0,
                down_until_ms: 0,
                poison: BTreeSet::new(),
                kind: FailureKind::Failed,
            }
        }

        fn fresh(&self, from: Seq) -> Option<SeqRange> {
            let gap = self.acks.gap(from, Seq(self.lines))?;
            self.retries.skip(gap).or_else(|| self.fresh(gap.last.next()))
        }

        fn deliver(&mut self, range: SeqRange, alone: bool, probe_for: Option<Seq>) {
            self.retries.begin(range, probe_for);
            let mut attempts = 0;
            if alone {
                let charged = self.attempts.entry(range.first.0).or_default();
                *charged += 1;
                attempts = *charged;
            }
            for seq in range.first.0..=range.last.0 {
                *self.deliveries.entry(seq).or_default() += 1;
                assert!(!self.acks.contains(Seq(seq)), "line {seq} is delivered after its ack");
            }
            let bad = self.poison.range(range.first.0..=range.last.0).next().copied();
            if self.now_ms < self.down_until_ms || bad.is_some() {
                let kind = match (self.kind, bad) {
                    (FailureKind::BadLine(_), Some(line)) => FailureKind::BadLine(Seq(line)),
                    (FailureKind::BadLine(_), None) => FailureKind::Failed,
                    (kind, _) => kind,
                };
                if let Some(seq) = self.retries.failed(range, kind, self.now_ms, attempts) {
                    self.dead.insert(seq.0);
                    self.acks.insert(SeqRange::one(seq));
                    self.retries.settled(SeqRange::one(seq), false, self.now_ms);
                }
            } else {
                self.acks.insert(range);
                self.retries.settled(range, true, self.now_ms);
            }
        }

        /// Runs until nothing is left, or nothing but lines that wait for others behind them.
        fn run(&mut self, until_ms: u64) {
            for _ in 0..100_000 {
                if self.acks.floor() == Seq(self.lines) || self.now_ms > until_ms {
                    return;
                }
                let attempts = |seq: Seq| self.attempts.get(&seq.0).copied().unwrap_or_default();
                let probe = |seq: Seq| self.acks.gap(seq.next(), Seq(self.lines)).is_some();
                match self.retries.next(self.now_ms, &attempts, &probe) {
                    Next::Deliver(Delivery { range, alone }) => self.deliver(range, alone, None),
                    Next::Probe { stuck, skip } => {
                        let behind = SeqRange { first: stuck.next(), last: Seq(self.lines) };
                        let line = self.acks.nth_outside(behind, skip).unwrap();
                        self.deliver(SeqRange::one(line), false, Some(stuck));
                    }
                    Next::Wait(until) => self.now_ms = self.now_ms.max(until),
                    Next::Nothing => {
                        let gap = self.fresh(Seq::FIRST).expect("lines are left");
                        let last = gap.last.min(gap.first.plus(self.batch - 1));
                        self.deliver(SeqRange { first: gap.first, last }, false, None);
                    }
                }
            }
            panic!("100,000 deliveries and no end");
        }
    }

    #[test]
    fn an_outage_of_ten_minutes_makes_no_dead_letter() {
        for lines in [1, 2, 7, 5_000] {
            for kind in [FailureKind::Failed, FailureKind::Refused, FailureKind::Later(5_000)] {
                let mut world = World { down_until_ms: 600_000, kind, ..World::new(lines, 1_000) };
                world.run(u64::MAX);
                assert!(world.dead.is_empty(), "{lines} lines, {kind:?}: {:?}", world.dead);
                assert!(
                    world.now_ms < 600_000 + 2 * SETTINGS.max_ms,
                    "it notices soon that the outage is over"
                );
            }
        }
    }

    #[test]
    fn how_long_a_destination_asks_to_be_left_alone_is_bounded() {
        let (range, none) = (SeqRange { first: Seq(1), last: Seq(9) }, |_: Seq| false);
        for (asked, waits) in [
            (0, SETTINGS.initial_ms),
            (SETTINGS.max_ms / 2, SETTINGS.max_ms / 2),
            (u64::MAX, SETTINGS.max_ms),
        ] {
            let mut retries = Retries::new(SETTINGS, true, &[], &|_| 0);
            retries.begin(range, None);
            assert_eq!(retries.failed(range, FailureKind::Later(asked), 1_000, 0), None);
            let early = retries.next(1_000 + waits - 1, &|_| 0, &none);
            assert!(!matches!(early, Next::Deliver(_)), "{asked}: {early:?}");
            let due = retries.next(1_000 + waits, &|_| 0, &none);
            assert_eq!(due, Next::Deliver(Delivery { range, alone: false }), "{asked}");
        }
    }

    #[test]
    fn a_line_that_is_blamed_is_cut_out_at_once() {
        let range = |first, last| SeqRange { first: Seq(first), last: Seq(last) };
        for (line, parts) in [
            (5, vec![range(1, 4), range(5, 5), range(6, 9)]),
            (1, vec![range(1, 1), range(2, 9)]),
            (9, vec![range(1, 8), range(9, 9)]),
            (10, vec![range(1, 5), range(6, 9)]),
        ] {
            let mut retries = Retries::new(SETTINGS, true, &[], &|_| 0);
            retries.begin(range(1, 9), None);
            let set_aside = retries.failed(range(1, 9), FailureKind::BadLine(Seq(line)), 1_000, 0);
            assert_eq!(set_aside, None, "nothing is charged yet");
            for part in parts {
                let next = retries.next(1_000, &|_| 0, &|_| false);
                assert_eq!(next, Next::Deliver(Delivery { range: part, alone: part.lines() == 1 }), "{line}");
                retries.begin(part, None);
                retries.settled(part, true, 1_000);
            }
            assert!(retries.is_empty());
        }
    }

    #[test]
    fn a_line_alone_at_the_end_of_the_log_waits() {
        for kind in [FailureKind::Failed, FailureKind::Poison] {
            let mut world = World { poison: BTreeSet::from([10]), kind, ..World::new(10, 100) };
            world.run(3_600_000);
            assert_eq!((world.acks.floor(), world.dead.len()), (Seq(9), 0));
            assert!(world.deliveries[&10] < 150, "{kind:?}: it is not tried again and again at once");
            world.lines = 12;
            world.run(u64::MAX);
            assert_eq!(world.dead, BTreeSet::from([10]));
        }
    }

    #[test]
    fn a_processor_that_names_wrong_lines_costs_no_delivery_a_line() {
        let range = |first, last| SeqRange { first: Seq(first), last: Seq(last) };
        let mut retries = Retries::new(SETTINGS, true, &[], &|_| 0);
        let (mut deliveries, mut passed) = (0, AckSet::default());
        retries.begin(range(1, 4_000), None);
        retries.failed(range(1, 4_000), FailureKind::BadLine(Seq(1)), 0, 0);
        // Line 4,000 is poison, and each time the first line is named.
        while let Next::Deliver(Delivery { range, .. }) = retries.next(0, &|_| 0, &|_| false) {
            deliveries += 1;
            retries.begin(range, None);
            if range.contains(Seq(4_000)) {
                retries.failed(range, FailureKind::BadLine(range.first), 0, 1);
            } else {
                passed.insert(range);
                retries.settled(range, true, 0);
            }
        }
        assert_eq!(passed.floor(), Seq(3_999));
        assert!(deliveries < 30, "{deliveries} deliveries");
    }

    /// A file that is no log, or a writer's bad hour: the lines that are bad stand together.
    #[test]
    fn lines_that_are_bad_together_are_set_aside_within_seconds_each() {
        let poison: BTreeSet<u64> = (1..=100).collect();
        for (kind, seconds_each) in
            [(FailureKind::Poison, 3), (FailureKind::BadLine(Seq(0)), 3), (FailureKind::Failed, 60)]
        {
            let mut world = World { poison: poison.clone(), kind, ..World::new(5_000, 1_000) };
            world.run(u64::MAX);
            assert_eq!(world.dead, poison);
            assert!(world.now_ms < 100 * seconds_each * 1_000, "{kind:?}: {} s", world.now_ms / 1_000);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn exactly_the_poison_lines_are_set_aside(
            poison in proptest::collection::btree_set(1u64..400, 0..6),
            batch in 1u64..300,
            down_until_ms in prop_oneof![Just(0u64), 0u64..100_000],
            blamed in 0..3,
        ) {
            let kind = match blamed {
                0 => FailureKind::Failed,
                1 => FailureKind::Poison,
                // The first of the batch that is poison, see `deliver`.
                _ => FailureKind::BadLine(Seq(0)),
            };
            let mut world = World { poison: poison.clone(), down_until_ms, kind, ..World::new(450, batch) };
            world.run(u64::MAX);
            prop_assert_eq!(&world.dead, &poison);
            if down_until_ms == 0 && poison.len() == 1 {
                // The batch twice, then the halves of it.
                let most = batch.ilog2() + 4;
                for (seq, deliveries) in world.deliveries.iter().filter(|(seq, _)| !poison.contains(seq)) {
                    prop_assert!(*deliveries <= most, "line {} was delivered {} times", seq, deliveries);
                }
            }
        }
    }
}
