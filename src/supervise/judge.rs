//! From inputs to a verdict: the table of docs/supervision.md, row by row; the first that holds wins. Pure.

use spillq_storage::{Seq, SeqRange};

use super::blocked::blocked;
use super::cause::Cause;
use super::held::{is_no_accident, look_at, times};
use super::inputs::{Behind, GroupInputs, JudgeSettings};
use super::processor::{ProcessorKind, ProcessorName};
use super::state::State;
use super::typed::quoted;
use super::verdict::Verdict;
use crate::queue::{DestinationLost, EveryLineRejected, Phase};

/// A disk that is full in more than a day is left to the plots.
const FULL_NEAR_S: f64 = 86_400.0;
/// Lines of standard error that the evidence repeats.
const TAIL_LINES_SHOWN: usize = 5;

/// A row of the table in docs/supervision.md: the inputs, now, and the settings.
type Row = fn(&GroupInputs, u64, &JudgeSettings) -> Option<Verdict>;

/// The verdict on one group at `now_ms`.
#[must_use]
pub fn judge(inputs: &GroupInputs, now_ms: u64, settings: &JudgeSettings) -> Verdict {
    let rows: [Row; 12] = [
        blocked,
        refused,
        paused,
        hung,
        failing,
        floor_stands,
        disk_is_held,
        never_called,
        backs_off,
        falls_behind,
        takes_long,
        destination_lost,
    ];
    let mut verdict =
        rows.iter().find_map(|row| row(inputs, now_ms, settings)).unwrap_or_else(|| works_or_idles(inputs));
    if !verdict.is_well() {
        verdict.evidence.extend(common_evidence(inputs, now_ms));
    }
    verdict
}

fn seconds(since_ms: u64, now_ms: u64) -> String {
    format!("{:.1} s", now_ms.saturating_sub(since_ms) as f64 / 1e3)
}

/// When something is done again.
#[must_use]
pub fn soon(until_ms: u64, now_ms: u64) -> String {
    match until_ms.saturating_sub(now_ms) {
        0 => "at once".to_owned(),
        wait => format!("in {:.1} s", wait as f64 / 1e3),
    }
}

fn refused(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let Phase::Refused { until_ms, rejected } = i.phase else { return None };
    if let Some(EveryLineRejected { seq, dead }) = rejected {
        let lines = if dead == 1 { "1 line".to_owned() } else { format!("{dead} lines in a row") };
        let summary = format!(
            "the processor of group {} rejects every line: {lines} became dead letters, and line {seq} is rejected too; it is tried again {}",
            i.group,
            soon(until_ms, now)
        );
        let list = s.typed.spillq("dead-letter list", &format!("--group {}", i.group));
        let retry = s.typed.spillq("dead-letter retry", &format!("--all --group {}", i.group));
        let next = format!("{list}    # why; fix the command or the destination, then: {retry}");
        return Some(Verdict::ill(i, State::Refused, (None, Cause::EveryLineRejected), summary, next));
    }
    let summary = format!(
        "the destination of group {} refuses everything: it is set up wrongly (tried again {})",
        i.group,
        soon(until_ms, now)
    );
    let next = s.typed.spillq(
        "status",
        "   # correct the command or address under [[processor]], then start the service again",
    );
    Some(Verdict::ill(i, State::Refused, (None, Cause::Refused), summary, next))
}

fn paused(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    if i.phase != Phase::Paused {
        return None;
    }
    let waits = i.not_leased_since_ms.filter(|since| now.saturating_sub(*since) >= s.stall_after_ms);
    let Some(since) = waits.filter(|_| i.lag_lines > 0) else {
        return Some(Verdict::well(i, State::Paused, format!("group {} is paused by an operator", i.group)));
    };
    let waited = seconds(since, now);
    let summary = format!(
        "the processor of group {} is never called: an operator paused it; {} lines have waited for {waited}",
        i.group, i.lag_lines
    );
    let next = s.typed.spillq("group resume", &i.group);
    Some(Verdict::ill(i, State::Paused, (Some("A"), Cause::NeverCalled), summary, next))
}

fn hung(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let first = |range: Option<SeqRange>| {
        let seq = range.map_or(i.ack_floor.next(), |range| range.first);
        let remark =
            "    # does it take these lines too long? a higher `timeout` of the [[group]] allows more time";
        look_at(i, s, seq, remark)
    };
    if let Some(failing) = i.failing.as_ref().filter(|failing| failing.timed_out) {
        let summary = format!(
            "the processor of group {} hangs: past {} s on lines {}, {} in a row; it was ended and the lines come again",
            i.group,
            i.timeout_ms as f64 / 1e3,
            failing.range,
            times(failing.times)
        );
        let next = first(Some(failing.range));
        return Some(Verdict::ill(i, State::Hung, (Some("C"), Cause::Hung), summary, next));
    }
    let since = i.oldest_lease_ms?;
    (now.saturating_sub(since) > i.timeout_ms.saturating_add(s.stall_after_ms)).then(|| {
        let out = seconds(since, now);
        let summary =
            format!("a lease of group {} is out for {out}, and its processor cannot be ended", i.group);
        Verdict::ill(i, State::Hung, (Some("C"), Cause::Hung), summary, first(i.leases.first().copied()))
    })
}

fn failing(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let failing = i.failing.as_ref()?;
    let is_command = i.processor.as_ref().is_none_or(|name| name.kind.is_command());
    if !is_no_accident(failing, is_command, now, s) {
        return None;
    }
    let for_time = seconds(failing.since_ms, now);
    let times = times(failing.times);
    Some(if is_command {
        let summary = format!(
            "the processor of group {} crashes: {times} in a row, for {for_time}, last on lines {}",
            i.group, failing.range
        );
        let shows = s.typed.spillq("inspect", &format!("--from {} --limit 1", failing.range.first));
        let next =
            format!("{shows}    # the first of the lines; what the command printed is in the evidence");
        Verdict::ill(i, State::Crashing, (Some("B"), Cause::Crashing), summary, next)
    } else {
        let summary = format!(
            "the destination of group {} is down: {times} in a row, for {for_time}; the lines wait",
            i.group
        );
        Verdict::ill(i, State::Retrying, (None, Cause::Outage), summary, see_to_destination(i, s))
    })
}

/// How to look at what is down.
fn see_to_destination(i: &GroupInputs, s: &JudgeSettings) -> String {
    let by_itself = "delivery goes on by itself when it is back";
    match &i.processor {
        Some(ProcessorName { kind: ProcessorKind::Http, about: url }) => {
            format!("curl -sS -m 5 -o /dev/null {}    # {by_itself}", quoted(url))
        }
        Some(ProcessorName { kind: ProcessorKind::File, about: path }) => {
            format!("ls -l {}    # {by_itself}", quoted(path))
        }
        _ => s.typed.spillq("status", &format!("   # see to the destination; {by_itself}")),
    }
}

fn floor_stands(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let blocking = i.oldest?;
    let leased = i.leases.iter().any(|range| range.contains(blocking));
    let stands = i.acks_since_floor > 0 && now.saturating_sub(i.floor_moved_ms) >= s.stall_after_ms;
    (stands && !leased && !i.oldest_waits).then(|| {
        let summary = format!(
            "group {} does not clear: {} batches were acked in {}, and the floor stays at {}: line {blocking} blocks it",
            i.group,
            i.acks_since_floor,
            seconds(i.floor_moved_ms, now),
            i.ack_floor
        );
        let park = s.typed.spillq("dead-letter park", &format!("{blocking} --group {}", i.group));
        let next = s.typed.spillq("inspect", &format!("--from {blocking} --limit 1    # then: {park}"));
        Verdict::ill(i, State::NotClearing, (Some("D"), Cause::NotClearing), summary, next)
    })
}

fn disk_is_held(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let pinned =
        i.pinned.as_ref().filter(|pinned| now.saturating_sub(pinned.since_ms) >= s.stall_after_ms)?;
    // Who does not read at all has worse to tell.
    let holders = pinned.held_by.join(", ");
    let waited = seconds(pinned.since_ms, now);
    let segment = segment_name(pinned.segment);
    let by =
        if holders.is_empty() { "no group holds it".to_owned() } else { format!("held by group {holders}") };
    let summary = format!(
        "group {} has acked lines {} and the disk is not given back for {waited}: {segment} is {by}",
        i.group, pinned.segment
    );
    let next = match pinned.held_by.first() {
        Some(group) => s
            .typed
            .spillq("status", &format!("   # give group {group} a [[processor]], or bound it with max_lag")),
        None => s.typed.spillq("verify", "   # with the service stopped"),
    };
    Some(Verdict::ill(i, State::NotClearing, (Some("D"), Cause::NotClearing), summary, next))
}

/// Its file, below the data dir.
fn segment_name(lines: SeqRange) -> String {
    format!("segments/{:020}", lines.first.0)
}

fn never_called(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let since = i.not_leased_since_ms.filter(|since| now.saturating_sub(*since) >= s.stall_after_ms)?;
    let backs_off = i.backs_off.is_some_and(|(_, until)| until > now);
    if i.lag_lines == 0 || !i.leases.is_empty() || backs_off {
        return None;
    }
    let (why, next) = match (&i.processor, i.has_worker) {
        (None, false) => (
            "no processor is set up for it".to_owned(),
            s.typed.spillq(
                "status",
                &format!(
                    "   # add a [[processor]] with group = \"{}\" to the configuration, and start the service again",
                    i.group
                ),
            ),
        ),
        (Some(name), false) => (
            format!("its processor ({name}) does not ask for lines"),
            s.typed.spillq("status", "   # does it ask again after a restart of the service?"),
        ),
        (_, true) => {
            ("its worker asks, and nothing is handed to it".to_owned(), s.typed.spillq("status", ""))
        }
    };
    let waited = seconds(since, now);
    let pins = i.pins.as_ref().filter(|pins| now.saturating_sub(pins.since_ms) >= s.stall_after_ms);
    if let Some(pins) = pins.filter(|_| !i.has_worker) {
        let summary = format!(
            "nobody reads group {}, and it pins the log: {} lines wait, nothing was leased for {waited}, and {} stays on disk for it although group {} has acked it; {why}",
            i.group,
            i.lag_lines,
            segment_name(pins.segment),
            pins.groups.join(", ")
        );
        // Nothing that is suggested discards lines: who does not want them removes the group (operations.md).
        let next = s.typed.spillq(
            "status",
            &format!(
                "   # add a [[processor]] with group = \"{}\", or bound the group with max_lag",
                i.group
            ),
        );
        return Some(Verdict::ill(i, State::NeverCalled, (Some("A"), Cause::PinsLog), summary, next));
    }
    let summary = format!(
        "the processor of group {} is never called: {} lines wait, nothing was leased for {waited}; {why}",
        i.group, i.lag_lines
    );
    Some(Verdict::ill(i, State::NeverCalled, (Some("A"), Cause::NeverCalled), summary, next))
}

fn destination_lost(i: &GroupInputs, _: u64, s: &JudgeSettings) -> Option<Verdict> {
    let DestinationLost { first, last, lines } = i.lost?;
    let lines = if lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") };
    let summary = format!(
        "the destination of group {} has lost {lines} that it had taken, between lines {first} and {last}: they were acked, and do not come again by themselves",
        i.group
    );
    let seek = format!("{} --to {first} --missing", i.group);
    let next = format!("{}    # as far as they are kept (disk.keep)", s.typed.spillq("group seek", &seek));
    Some(Verdict::ill(i, works_or_idles(i).state, (None, Cause::DestinationLost), summary, next))
}

fn backs_off(i: &GroupInputs, now: u64, _: &JudgeSettings) -> Option<Verdict> {
    let (range, until) = i.backs_off.filter(|(_, until)| *until > now)?;
    let wait = until.saturating_sub(now) as f64 / 1e3;
    Some(Verdict::well(i, State::Retrying, format!("lines {range} failed and come again in {wait:.1} s")))
}

fn falls_behind(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let Behind { since_ms, lines_in_per_s, lines_out_per_s, full_in_s } = i.behind.as_ref()?;
    let lasts = now.saturating_sub(*since_ms);
    // Between two acks of a batch that may take long, a lag grows and means nothing.
    let at_least = if *lines_out_per_s > 0.0 { 0 } else { i.timeout_ms };
    if lasts < s.stall_after_ms.max(at_least) {
        return None;
    }
    let left = full_in_s.filter(|left| *left <= FULL_NEAR_S)?;
    let summary = format!(
        "group {} falls behind: for {} {lines_in_per_s:.0} lines a second come in and {lines_out_per_s:.0} are acked; at this rate there is no room for more in {}, and taking in will pause",
        i.group,
        seconds(*since_ms, now),
        about(left)
    );
    let remark =
        "   # raise `batch`, or `in_flight` (with order = \"none\"), of the [[group]]; or disk.limit";
    Some(Verdict::ill(
        i,
        State::Slow,
        (None, Cause::FallingBehind),
        summary,
        s.typed.spillq("status", remark),
    ))
}

/// A time that is only estimated.
fn about(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("about {s:.0} s"),
        s if s < 7_200.0 => format!("about {:.0} min", s / 60.0),
        s => format!("about {:.0} h", s / 3_600.0),
    }
}

fn takes_long(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let since = i.oldest_lease_ms.filter(|since| now.saturating_sub(*since) >= s.stall_after_ms)?;
    let out = seconds(since, now);
    let summary = format!("a batch of group {} is out for {out}, within its time-out", i.group);
    Some(Verdict::well(i, State::Slow, summary))
}

fn works_or_idles(i: &GroupInputs) -> Verdict {
    if i.lag_lines > 0 || !i.leases.is_empty() {
        let summary =
            format!("group {} works: {} lines wait, {} batches out", i.group, i.lag_lines, i.leases.len());
        Verdict::well(i, State::Running, summary)
    } else {
        Verdict::well(i, State::Idle, format!("group {} has nothing to do", i.group))
    }
}

/// What every ill verdict rests on.
fn common_evidence(i: &GroupInputs, now: u64) -> Vec<String> {
    let mut evidence = vec![format!(
        "lag {} lines from {}, ack floor {}, {} batches acked in this run",
        i.lag_lines,
        i.oldest.map_or_else(|| "none".to_owned(), |seq| format!("line {seq}")),
        i.ack_floor,
        i.acks
    )];
    if !i.leases.is_empty() {
        let out: Vec<String> = i.leases.iter().map(ToString::to_string).collect();
        evidence.push(format!("out: lines {}", out.join(", ")));
    }
    if let Some((range, until)) = i.backs_off {
        let wait = until.saturating_sub(now) as f64 / 1e3;
        evidence.push(format!("lines {range} come again in {wait:.1} s"));
    }
    let is_refused = matches!(i.phase, Phase::Refused { .. });
    if let Some(failure) = i.last_failure.as_ref().filter(|_| i.failing.is_some() || is_refused) {
        let mut lines = failure.lines();
        evidence.extend(lines.next().map(str::to_owned));
        let printed: Vec<&str> = lines.collect();
        let from = printed.len().saturating_sub(TAIL_LINES_SHOWN);
        evidence.extend(printed.into_iter().skip(from).map(|line| format!("stderr: {line}")));
    }
    evidence
}

/// The line to look at first: for EVENTS.
#[must_use]
pub(super) fn seqs_of(inputs: &GroupInputs) -> (Seq, Seq) {
    let range = inputs.leases.first().copied().or(inputs.failing.as_ref().map(|failing| failing.range));
    match (range, inputs.oldest) {
        (Some(range), _) => (range.first, range.last),
        (None, Some(oldest)) => (oldest, oldest),
        (None, None) => (inputs.ack_floor, inputs.ack_floor),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
