//! What follows a failed delivery: back off, bisect, hold, dead-letter. Pure: `now` is an argument.
//!
//! The rules are the table of docs/explanation/delivery.md. Lines that failed are a *part*: they are delivered again together,
//! later. Without blame a batch is retried, and bisected from its second failure on. In strict order the first line
//! that fails alone then holds the group: only that line is retried, nothing overtakes it, and when it succeeds whole
//! batches continue. A line that the processor rejects is condemned, and becomes a dead letter as soon as the lines
//! before it are settled.
//!
//! Bounds: [`PARTS_MAX`] parts of an unordered group; of a strict group one batch at most is in parts.
//! Times are milliseconds of a clock that runs on while the host sleeps.
// long: the parts of one group, and every rule by which they come again

use spillq_storage::{DeadCause, Seq, SeqRange};

/// Doublings of the back-off that are counted: 2^20 times any initial is past every maximum.
const DOUBLINGS_MAX: u32 = 20;
/// Condemned lines that wait for lines before them. A processor that names the first bad line makes one at a time; one
/// that names them backwards is not believed beyond this, as each keeps its reason (4 KiB) in memory.
const CONDEMNED_MAX: usize = 64;
/// Parts of an unordered group past which no fresh lines are delivered: each is a hundred bytes.
pub(super) const PARTS_MAX: usize = 4_096;

/// What becomes of a line that fails without being blamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stuck {
    /// It is retried until it succeeds or an operator decides; in strict order it holds the group.
    #[default]
    Hold,
    /// It becomes a dead letter after `attempts` failures alone and `give_up_after_ms` since the first.
    DeadLetter,
}

/// How deliveries are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// The first back-off.
    pub initial_ms: u64,
    /// The longest.
    pub max_ms: u64,
    /// Failures (or deaths) of a line alone after which it can be given up on.
    pub attempts: u32,
    /// Rejected lines in a row after which the group stops instead of dead-lettering the next one.
    pub rejects: u32,
    /// For how long a line has to fail before [`Stuck::DeadLetter`] gives up on it.
    pub give_up_after_ms: u64,
    /// What becomes of a line that fails without being blamed.
    pub stuck: Stuck,
}

/// A command that the kernel killed for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomKill {
    /// Kills in its cgroup, this one included, since its processor got the first batch.
    pub kills: u64,
    /// The limit on memory of that cgroup, or of the one around it that has the lowest; `None` without one.
    pub limit_bytes: Option<u64>,
    /// What of it was the service's own.
    pub own_bytes: Option<u64>,
}

/// What a failed delivery says of its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Perhaps the lines, perhaps the destination.
    Failed,
    /// The destination cannot be reached, or fails by its own account (5xx). Treated as `Failed`; an operator is never
    /// told to park a line for it.
    Down,
    /// The kernel killed the command for want of memory. Treated as `Failed`.
    OutOfMemory(OomKill),
    /// The processor blames the lines.
    Poison,
    /// The processor blames this line, and says nothing of those after it.
    BadLine(Seq),
    /// Smaller ones would do; a single line is blamed.
    TooLarge,
    /// The destination is set up wrongly.
    Refused,
    /// The destination asks to be left alone for this many milliseconds; the first and the longest back-off bound it.
    Later(u64),
}

impl FailureKind {
    /// The destination has looked at these lines and rejects them, or one of them.
    fn blames(self, range: SeqRange) -> bool {
        match self {
            FailureKind::Poison | FailureKind::BadLine(_) => true,
            FailureKind::TooLarge => range.lines() == 1,
            _ => false,
        }
    }

    /// It says nothing of the lines: they wait together as they are, and nothing is charged.
    #[must_use]
    pub(super) fn spares_the_lines(self) -> bool {
        matches!(self, FailureKind::Refused | FailureKind::Later(_))
    }
}

/// Why the whole group waits until a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// The destination is set up wrongly.
    Refused,
    /// The destination asked for it.
    Later,
    /// As many lines in a row as may be were rejected; only this one, the first that waits, is tried.
    EveryLineRejected(Seq),
}

/// What the log remembers of a line that was delivered alone, before this delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    /// Failures alone, over all runs.
    pub failures: u32,
    /// For how long it had been failing at the last of them.
    pub for_ms: u64,
    /// As many lines directly below it as may be are rejected dead letters: if it is rejected too, the group is refused.
    pub is_last_straw: bool,
}

/// What came of a failed delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failed {
    /// The failure counts, and for how long the line has been failing. `None` where nothing is charged.
    pub charged_ms: Option<u64>,
    /// The line that is to become a dead letter because of it.
    pub condemned: Option<Seq>,
}

/// What is known of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// A batch: retried whole once before it is bisected.
    Batch,
    /// Bisected from a batch that failed, or suspect of having killed an earlier run: its next failure bisects it again.
    Bisected,
    /// The one line that the processor named in a larger batch, delivered alone to see whether the number is right.
    Named,
    /// A line that was rejected alone, once.
    Rejected,
    /// A dead letter that was put back: it never holds the group.
    PutBack,
    /// A line during whose delivery the process died too often: not delivered until an operator says so.
    Killer,
}

/// Lines to be delivered again together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    range: SeqRange,
    /// The batch that it was cut from.
    whole: SeqRange,
    standing: Standing,
    /// It is to become a dead letter, and why.
    condemned: Option<DeadCause>,
    /// Deliveries of exactly this part that failed in this run of the process.
    failures: u32,
    /// Those of its one line in earlier runs.
    failures_before: u32,
    /// Since when its one line fails; before the clock's zero where an earlier run saw it fail.
    failing_since_ms: Option<i64>,
    not_before_ms: u64,
    /// Unordered only: how often the whole has been merged again because all of it failed.
    rounds: u32,
    /// Unordered only: another line was acked since this one first failed alone.
    others_passed: bool,
    /// It was in flight when an earlier run died, and was not delivered since: it is alone in flight when it is, so that a
    /// death is known to be its own.
    suspect: bool,
    out: bool,
}

impl Part {
    fn new(range: SeqRange, standing: Standing) -> Part {
        Part {
            range,
            whole: range,
            standing,
            condemned: None,
            failures: 0,
            failures_before: 0,
            failing_since_ms: None,
            not_before_ms: 0,
            rounds: 0,
            others_passed: false,
            suspect: false,
            out: false,
        }
    }

    fn is_one_line(&self) -> bool {
        self.range.lines() == 1
    }

    /// Nothing is known of its lines but that they wait.
    fn is_plain(&self) -> bool {
        self.condemned.is_none() && !self.out && matches!(self.standing, Standing::Batch | Standing::Bisected)
    }

    /// Whether it keeps a strict group from going on although it may be the line's own fault.
    fn holds(&self) -> bool {
        self.is_one_line()
            && self.condemned.is_none()
            && (self.standing == Standing::Killer || self.failures + self.failures_before > 1)
    }

    /// Whether a run that is to end by itself has tried it often enough.
    fn is_exhausted(&self, attempts: u32) -> bool {
        let is_given_up = self.standing == Standing::Killer || self.failures >= attempts;
        (self.is_one_line() && is_given_up) || self.rounds >= attempts
    }
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
    /// There are no parts, or in an unordered group none to be had now.
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
    /// Failures without blame since lines were last acked: the back-off doubles with each.
    streak: u32,
    /// Unordered only: batches that failed at their first delivery since lines were last acked.
    fresh_streak: u32,
    /// Unordered only: lines that were never delivered wait too while everything fails.
    fresh_not_before_ms: u64,
    /// How often the destination refused since lines were last acked.
    refusals: u32,
    /// Lines were acked in this run.
    has_acked: bool,
    rest: Option<(u64, Rest)>,
}

impl Retries {
    /// No parts yet.
    #[must_use]
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
            rest: None,
        }
    }

    /// Repeats otherwise from now on. Times that were set stay: they end by themselves.
    pub(super) fn set(&mut self, settings: RetrySettings, strict: bool) {
        self.settings = settings;
        self.strict = strict;
        if settings.stuck == Stuck::DeadLetter {
            for part in self.parts.iter_mut().filter(|part| part.standing == Standing::Killer) {
                (part.standing, part.condemned) = (Standing::Bisected, Some(DeadCause::Died));
            }
        }
    }

    /// Lines that an earlier run leaves to be delivered before others, and that were never delivered there.
    pub(super) fn add_untried(&mut self, range: SeqRange) {
        self.put(Part::new(range, Standing::Batch));
    }

    /// Lines that were in flight when an earlier run died: bisected if they fail.
    pub(super) fn add_suspect(&mut self, range: SeqRange) {
        self.put(Part { suspect: true, ..Part::new(range, Standing::Bisected) });
    }

    /// A line that failed alone in earlier runs, or during whose delivery they died: it comes alone again.
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

    /// A dead letter that is delivered again. One that killed too many runs since is one again at once.
    pub(super) fn put_back(&mut self, seq: Seq, deaths: u32) {
        let range = SeqRange::one(seq);
        self.take_out(range);
        let condemned = (deaths >= self.settings.attempts).then_some(DeadCause::Died);
        self.put(Part { condemned, ..Part::new(range, Standing::PutBack) });
        if self.rest.is_some_and(|(_, rest)| matches!(rest, Rest::EveryLineRejected(_))) {
            self.rest = None;
        }
    }

    fn take_out(&mut self, range: SeqRange) {
        let parts = std::mem::take(&mut self.parts);
        let rest = |part: Part| {
            let rest: Vec<SeqRange> = part.range.without(range).collect();
            rest.into_iter().map(move |rest| {
                let failures = if rest == part.range { part.failures } else { 0 };
                Part { range: rest, failures, ..part.clone() }
            })
        };
        self.parts = parts.into_iter().flat_map(rest).collect();
    }

    /// An operator does not want to wait: every back-off is over, and a killer line is delivered once more.
    pub(super) fn retry_now(&mut self, now_ms: u64) {
        self.rest = None;
        (self.fresh_not_before_ms, self.refusals) = (0, 0);
        for part in &mut self.parts {
            part.not_before_ms = part.not_before_ms.min(now_ms);
            if part.standing == Standing::Killer {
                part.standing = Standing::Bisected;
            }
        }
    }

    /// Whether lines that may have killed an earlier run are still to be delivered. Until then one lease at a time is out.
    #[must_use]
    pub(super) fn has_suspects(&self) -> bool {
        let is_held = |part: &&Part| part.condemned.is_some() || part.standing == Standing::Killer;
        self.parts.iter().filter(|part| part.suspect).any(|part| !is_held(&part))
    }

    /// The first line that waits to be delivered again.
    #[must_use]
    pub(super) fn first(&self) -> Option<Seq> {
        self.parts.first().map(|part| part.range.first)
    }

    /// Whether no lines wait to be delivered again.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Until when the whole group waits, and why.
    #[must_use]
    pub(super) fn rest(&self) -> Option<(u64, Rest)> {
        self.rest
    }

    /// The line that holds a strict group.
    #[must_use]
    pub(super) fn held(&self) -> Option<Seq> {
        let first = self.parts.first().filter(|part| self.strict && part.holds())?;
        Some(first.range.first)
    }

    /// Lines during whose delivery the process died too often: not delivered until an operator says so.
    pub(super) fn killers(&self) -> impl Iterator<Item = Seq> {
        let killers = self.parts.iter().filter(|part| part.standing == Standing::Killer);
        killers.map(|part| part.range.first)
    }

    /// The lines that come again next, and when: in strict order the first, otherwise those whose time is first.
    #[must_use]
    pub(super) fn waiting(&self) -> Option<(SeqRange, u64)> {
        let parts = if self.strict { self.parts.get(..1) } else { Some(&self.parts[..]) };
        parts?
            .iter()
            .filter(|part| !part.out && part.condemned.is_none() && part.standing != Standing::Killer)
            .map(|part| (part.range, part.not_before_ms))
            .min_by_key(|(_, at)| *at)
    }

    /// Whether a line waits to be delivered again.
    #[must_use]
    pub(super) fn holds(&self, line: Seq) -> bool {
        self.parts.iter().any(|part| !part.out && part.range.contains(line))
    }

    /// Whether a run that is to end by itself has tried everything that waits often enough: in strict order the first
    /// line, as nothing overtakes it; otherwise every line. Of an unordered group the caller knows that no others wait.
    #[must_use]
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

    /// Cuts a part that is more than one batch: `range` up to `last` is delivered now, the rest after it.
    pub(super) fn cut(&mut self, range: SeqRange, last: Seq) {
        let Some(at) = self.parts.iter().position(|part| part.range == range) else { return };
        let part = self.parts.remove(at);
        let cut = [SeqRange::new(range.first, last), SeqRange::new(last.next(), range.last)];
        for range in cut.into_iter().flatten() {
            self.put(Part { range, whole: range, out: false, failures: 0, ..part.clone() });
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

    /// Until when an unordered group delivers no fresh lines, if it does not: while everything fails they would all
    /// become parts.
    #[must_use]
    pub(super) fn fresh_waits(&self, now_ms: u64) -> Option<u64> {
        if self.parts.len() >= PARTS_MAX {
            return Some(self.waiting().map_or(u64::MAX, |(_, until)| until.max(now_ms + 1)));
        }
        (self.fresh_not_before_ms > now_ms).then_some(self.fresh_not_before_ms)
    }

    /// What to do at `now_ms`. A condemned line is the owner's to dead-letter first ([`Retries::condemned`]); in strict
    /// order nothing is delivered before that is done.
    #[must_use]
    pub(super) fn next(&self, now_ms: u64) -> Next {
        match self.rest {
            Some((until, _)) if now_ms < until => return Next::Wait(until),
            Some((_, Rest::EveryLineRejected(seq))) => {
                let part = self.parts.iter().find(|part| part.range == SeqRange::one(seq));
                match part {
                    Some(part) if part.out => return Next::Wait(now_ms + self.settings.max_ms),
                    Some(part) => return Next::Deliver(part.range),
                    None => {}
                }
            }
            _ => {}
        }
        let mut earliest = None;
        for part in self.parts.iter().filter(|part| !part.out) {
            if part.condemned.is_none() && part.standing != Standing::Killer {
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

    /// The delivery of a part has begun.
    pub(super) fn begin(&mut self, range: SeqRange) {
        for part in self.parts.iter_mut().filter(|part| part.range == range) {
            part.out = true;
        }
    }

    /// A delivery was given back untried: it was never handed out, or the service is stopping.
    pub(super) fn give_back(&mut self, range: SeqRange) {
        for part in self.parts.iter_mut().filter(|part| part.range == range) {
            part.out = false;
        }
    }

    /// The line that is to become a dead letter now: the lines before it that came in the same batch are settled, so
    /// that letters follow the order of the lines, and those in a row can be counted.
    #[must_use]
    pub(super) fn condemned(&self) -> Option<(Seq, DeadCause)> {
        let due = |at: usize, part: &Part| {
            let before = self.parts.get(..at).unwrap_or_default();
            // In an unordered group a line that fails without blame keeps none of the others from their end.
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
    #[must_use]
    pub(super) fn rejects_max(&self) -> u32 {
        if self.has_acked { self.settings.rejects } else { self.settings.rejects.min(1) }
    }

    /// Whether the line was put back: it is a dead letter again without further question.
    #[must_use]
    pub(super) fn is_put_back(&self, seq: Seq) -> bool {
        let line = SeqRange::one(seq);
        self.parts.iter().any(|part| part.range == line && part.standing == Standing::PutBack)
    }

    /// Too many lines in a row were rejected: a condemned line is not dead-lettered but tried again after the longest
    /// back-off, alone in the whole group.
    pub(super) fn refuse(&mut self, seq: Seq, now_ms: u64) {
        let until = now_ms + self.settings.max_ms;
        self.refusals += 1;
        self.rest = Some((until, Rest::EveryLineRejected(seq)));
        for part in self.parts.iter_mut().filter(|part| part.range == SeqRange::one(seq)) {
            part.condemned = None;
            part.standing = Standing::Rejected;
            part.not_before_ms = until;
        }
    }

    /// Lines were acked (`passed`), or became dead letters, were lost, skipped or dropped.
    pub(super) fn settled(&mut self, range: SeqRange, passed: bool, now_ms: u64) {
        self.rest = None;
        let was_held = self.parts.first().is_some_and(|part| part.is_one_line() && part.range == range)
            && self.parts.first().is_some_and(|part| part.failures + part.failures_before > 0);
        if passed {
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
                let mut part = Part { range: rest, ..part.clone() };
                if touched {
                    // Its lease is over, if there was one, and what is left of it was never delivered as such.
                    (part.out, part.failures) = (false, 0);
                }
                // Also of one that is in flight again just now.
                part.others_passed |= passed && part.failures > 0;
                if passed && !part.out {
                    part.rounds = 0;
                    if self.strict {
                        part.not_before_ms = part.not_before_ms.min(now_ms);
                    }
                }
                self.parts.push(part);
            }
        }
        if self.strict && was_held {
            self.resume_whole(now_ms);
        }
    }

    /// The line that held the group is settled: what bisecting has cut is whole again.
    fn resume_whole(&mut self, now_ms: u64) {
        let mut whole: Vec<Part> = Vec::with_capacity(self.parts.len());
        for part in std::mem::take(&mut self.parts) {
            if !part.is_plain() {
                whole.push(part);
                continue;
            }
            // A line that failed alone before (it was parked behind, say) stays alone.
            let failed_alone = part.is_one_line() && part.failures + part.failures_before > 0;
            let joins = |last: &&mut Part| {
                let last_failed = last.is_one_line() && last.failures + last.failures_before > 0;
                last.is_plain()
                    && !last_failed
                    && last.whole == part.whole
                    && last.range.last.next() == part.range.first
            };
            match whole.last_mut().filter(|_| !failed_alone).filter(joins) {
                Some(last) => last.range.last = part.range.last,
                None if failed_alone => whole.push(part),
                None => {
                    let not_before_ms = part.not_before_ms.min(now_ms);
                    whole.push(Part { standing: Standing::Batch, failures: 0, not_before_ms, ..part });
                }
            }
        }
        self.parts = whole;
    }

    /// A delivery failed.
    pub(super) fn failed(
        &mut self,
        range: SeqRange,
        kind: FailureKind,
        now_ms: u64,
        line: Remembered,
    ) -> Failed {
        let known = self.parts.iter().position(|part| part.range == range).map(|at| self.parts.remove(at));
        let is_fresh = known.is_none();
        let known = known.unwrap_or_else(|| Part::new(range, Standing::Batch));
        let mut part = Part { out: false, suspect: false, ..known };
        if kind.spares_the_lines() {
            self.spare(part, kind, now_ms);
            return Failed::default();
        }
        self.rest = None;
        let blames = kind.blames(range) || kind == FailureKind::TooLarge;
        if is_fresh && !self.strict && !blames {
            self.fresh_not_before_ms = now_ms + self.backoff(self.fresh_streak);
            self.fresh_streak += 1;
        }
        let charged_ms = Some(self.for_how_long(&mut part, line, now_ms));
        if part.is_one_line() {
            return self.failed_alone(part, (kind, line), now_ms, charged_ms);
        }
        match kind {
            FailureKind::BadLine(bad) if range.contains(bad) && self.believes_numbers() => {
                return Failed { charged_ms, condemned: self.cut_out(&part, bad, now_ms) };
            }
            _ if blames => self.bisect(&part, Standing::Batch, now_ms),
            _ => {
                let until = now_ms + self.backoff(self.streak);
                self.streak += 1;
                part.failures += 1;
                if part.standing == Standing::Bisected || part.failures > 1 {
                    // An unordered group tries the halves soon: other lines continue meanwhile.
                    let until = if self.strict { until } else { now_ms + self.settings.initial_ms };
                    self.bisect(&part, Standing::Bisected, until);
                } else {
                    part.not_before_ms = if self.strict { until } else { now_ms + self.backoff(part.rounds) };
                    self.put(part.clone());
                }
                self.merge_if_down(part.whole, now_ms);
            }
        }
        Failed { charged_ms, condemned: None }
    }

    /// Nothing is said of the lines: they stay as they are, and the group waits.
    fn spare(&mut self, mut part: Part, kind: FailureKind, now_ms: u64) {
        // A destination that says "at once" again and again is not asked without a pause.
        let wait_ms = if let FailureKind::Later(ms) = kind { ms } else { u64::MAX };
        part.not_before_ms = now_ms + wait_ms.max(self.settings.initial_ms).min(self.settings.max_ms);
        let rest = if kind == FailureKind::Refused { Rest::Refused } else { Rest::Later };
        self.refusals = if rest == Rest::Refused { self.refusals + 1 } else { 0 };
        self.rest = Some((part.not_before_ms, rest));
        self.put(part);
    }

    /// For how many milliseconds the line of a part has been failing, this failure included.
    fn for_how_long(&self, part: &mut Part, line: Remembered, now_ms: u64) -> u64 {
        if !part.is_one_line() {
            return 0;
        }
        let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let for_ms = i64::try_from(line.for_ms).unwrap_or(i64::MAX);
        let since = *part.failing_since_ms.get_or_insert(now.saturating_sub(for_ms));
        u64::try_from(now.saturating_sub(since)).unwrap_or_default()
    }

    fn failed_alone(
        &mut self,
        mut part: Part,
        (kind, line): (FailureKind, Remembered),
        now_ms: u64,
        charged_ms: Option<u64>,
    ) -> Failed {
        let seq = part.range.first;
        let blamed = kind.blames(part.range);
        if part.standing == Standing::PutBack {
            part.failures += 1;
            part.condemned = Some(if blamed { DeadCause::Rejected } else { DeadCause::Failed });
            self.put(part);
            return Failed { charged_ms, condemned: Some(seq) };
        }
        if blamed {
            let again =
                matches!(part.standing, Standing::Named | Standing::Rejected) || self.believes_rejections;
            if again && line.is_last_straw {
                // Uncharged: it is not known to be the line's fault.
                self.put(part);
                self.refuse(seq, now_ms);
                return Failed::default();
            }
            part.failures += 1;
            if part.standing == Standing::Named && kind == FailureKind::BadLine(seq) {
                // Any other answer rejects the line, and does not say that its number was right.
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
        let condemned = tried && (given_up || (!self.strict && part.others_passed));
        part.condemned = condemned.then_some(DeadCause::Failed);
        let whole = part.whole;
        self.put(part);
        if !condemned {
            self.merge_if_down(whole, now_ms);
        }
        Failed { charged_ms, condemned: condemned.then_some(seq) }
    }

    fn believes_numbers(&self) -> bool {
        let condemned = self.parts.iter().filter(|part| part.condemned.is_some()).count();
        self.numbers != Numbers::Wrong && condemned < CONDEMNED_MAX
    }

    /// Unordered: where every part of a whole has failed and nothing has passed, the destination is taken to be down.
    /// All that is left of the whole is delivered together again, after a back-off that doubles every time; its next
    /// failure bisects it.
    fn merge_if_down(&mut self, whole: SeqRange, now_ms: u64) {
        let mut parts = self.parts.iter().filter(|part| part.whole == whole);
        let is_down = !self.strict
            && parts.clone().count() > 1
            && parts.all(|part| part.failures > 0 && !part.others_passed && part.is_plain());
        if !is_down {
            return;
        }
        let (mine, others): (Vec<Part>, Vec<Part>) =
            std::mem::take(&mut self.parts).into_iter().partition(|part| part.whole == whole);
        self.parts = others;
        let rounds = 1 + mine.iter().map(|part| part.rounds).max().unwrap_or(0);
        let not_before_ms = now_ms + self.backoff(rounds);
        let mut merged: Vec<SeqRange> = Vec::new();
        for range in mine.iter().map(|part| part.range) {
            match merged.last_mut() {
                Some(last) if last.last.next() == range.first => last.last = range.last,
                _ => merged.push(range),
            }
        }
        for range in merged {
            let new = Part { rounds, not_before_ms, failures: 1, ..Part::new(range, Standing::Batch) };
            // A line that is left alone keeps what is known of it.
            let alone = mine.iter().find(|part| part.range == range && part.is_one_line());
            self.put(alone.map_or(new, |part| Part { rounds, not_before_ms, whole: range, ..part.clone() }));
        }
    }

    fn bisect(&mut self, part: &Part, standing: Standing, not_before_ms: u64) {
        let SeqRange { first, last } = part.range;
        let middle = Seq(first.0 + (last.0 - first.0) / 2);
        for range in [SeqRange::new(first, middle), SeqRange::new(middle.next(), last)].into_iter().flatten()
        {
            self.put(Part {
                whole: part.whole,
                rounds: part.rounds,
                not_before_ms,
                ..Part::new(range, standing)
            });
        }
    }

    /// The processor named a line of the batch: the others are delivered without it. Says whether it is condemned at
    /// once, as the numbers have been right before.
    fn cut_out(&mut self, part: &Part, bad: Seq, now_ms: u64) -> Option<Seq> {
        let SeqRange { first, last } = part.range;
        let before = if first < bad { SeqRange::new(first, bad.prev()) } else { None };
        let after = SeqRange::new(bad.next(), last);
        let like = |range, standing| Part {
            whole: part.whole,
            rounds: part.rounds,
            not_before_ms: now_ms,
            ..Part::new(range, standing)
        };
        for range in [before, after].into_iter().flatten() {
            self.put(like(range, Standing::Batch));
        }
        let condemned = (self.numbers == Numbers::Right).then_some(DeadCause::Rejected);
        self.put(Part { condemned, ..like(SeqRange::one(bad), Standing::Named) });
        condemned.map(|_| bad)
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
mod tests;
