//! From inputs to a verdict: the rows of the table in docs/explanation/supervision.md, of which the first that applies wins.
//! Pure.

use spillq_storage::Seq;

use super::blocked::blocked;
use super::cause::Cause;
use super::consumers::{held, leases_expire, no_consumer};
use super::failing::{failing, hung, processor_oom, refused};
use super::healthy::{at_work, healthy};
use super::inputs::{Behind, GroupInputs, JudgeSettings};
use super::state::State;
use super::uncalled::{never_called, no_processor, program_missing};
use super::verdict::{Step, Verdict};
use super::wording::{has_dead_letters, segment_name, soon, waits};
use crate::plain::{counted, duration, rough_duration, span};
use crate::queue::{DestinationLost, Phase};

/// A lag that has grown for this long is reported, even if its lines are young.
const GROWS_MS: u64 = 60_000;
/// A lag must have grown by this fraction of the lines that arrived meanwhile: less is noise of a group that keeps up.
const GROWTH_PART: u64 = 20;
/// Noise does not grow in each window for this long.
const NOISE_MAX_MS: u64 = 300_000;
/// This many lines must have arrived: of fewer, the growth means nothing.
const GROWTH_LINES_MIN: u64 = 100;
/// A disk that will be full in more than a day is not reported.
const FULL_NEAR_S: f64 = 86_400.0;
/// Leases of consumers that the evidence names.
const LEASES_SHOWN: usize = 8;
/// Lines of standard error that the evidence repeats.
const TAIL_LINES_SHOWN: usize = 5;

/// A row of the table: the inputs, now, and the settings.
type Row = fn(&GroupInputs, u64, &JudgeSettings) -> Option<Verdict>;

/// The rows for a group that delivers.
const ROWS: &[Row] = &[
    blocked,
    refused,
    no_consumer,
    leases_expire,
    hung,
    processor_oom,
    failing,
    floor_is_blocked,
    disk_is_held,
    no_processor,
    program_missing,
    never_called,
    falls_behind,
    destination_lost,
    dead_letters,
];

/// The rows for a group that an operator paused.
const ROWS_PAUSED: &[Row] = &[paused_too_long, destination_lost, dead_letters];

/// The verdict on one group at `now_ms`.
#[must_use]
pub fn judge(inputs: &GroupInputs, now_ms: u64, settings: &JudgeSettings) -> Verdict {
    if inputs.is_left_out {
        return Verdict::healthy(
            inputs,
            at_work(inputs).state,
            format!("not drained by this command; {}", waits(inputs.lag_lines)),
        );
    }
    let rows = if inputs.phase == Phase::Paused { ROWS_PAUSED } else { ROWS };
    match rows.iter().find_map(|row| row(inputs, now_ms, settings)) {
        Some(mut wrong) => {
            wrong.evidence.extend(common_evidence(inputs, now_ms));
            wrong
        }
        None => healthy(inputs, now_ms, settings),
    }
}

fn paused_too_long(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let since = i.not_leased_since_ms.filter(|since| now.saturating_sub(*since) >= s.stall_after_ms)?;
    (i.lag_lines > 0).then(|| {
        let summary = format!(
            "the processor of group {} is never called: an operator paused the group, and {} for {}",
            i.group,
            match i.lag_lines {
                1 => "1 line has waited".to_owned(),
                lines => format!("{} have waited", counted(lines, "line")),
            },
            duration(now.saturating_sub(since))
        );
        let resume = s.commands.spillq("group resume", &i.group);
        Verdict::unhealthy(i, State::Paused, (Some("A"), Cause::NeverCalled), summary, resume)
    })
}

fn floor_is_blocked(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let blocking = i.oldest?;
    let leased = i.leases.iter().any(|range| range.contains(blocking));
    let is_blocked = i.acks_since_floor > 0 && now.saturating_sub(i.floor_moved_ms) >= s.stall_after_ms;
    (is_blocked && !leased && !i.oldest_waits).then(|| {
        let summary = format!(
            "group {} does not clear: {} were acked in {}, and the ack floor stays at {} because line {blocking} blocks it",
            i.group,
            counted(i.acks_since_floor, "batch"),
            duration(now.saturating_sub(i.floor_moved_ms)),
            i.ack_floor
        );
        let look = s.commands.inspect(blocking);
        let park = s.commands.park(blocking, &i.group);
        Verdict::unhealthy(i, State::NotClearing, (Some("D"), Cause::NotClearing), summary, Step::from(look).or(park))
    })
}

fn disk_is_held(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let pinned =
        i.pinned.as_ref().filter(|pinned| now.saturating_sub(pinned.since_ms) >= s.stall_after_ms)?;
    let by = match pinned.held_by.as_slice() {
        [] => "held by no group".to_owned(),
        groups => format!("held by group {}", groups.join(", ")),
    };
    let summary = format!(
        "group {} has acked {}, and the disk space has not been freed for {}: {} is {by}",
        i.group,
        span(pinned.segment),
        duration(now.saturating_sub(pinned.since_ms)),
        segment_name(pinned.segment)
    );
    let step = match pinned.held_by.first() {
        Some(group) => Step::from(format!("see the verdict on group {group}, and fix what it names"))
            .or(s.commands.change(&format!("bound group {group} with `max_lag`"))),
        None => s.commands.offline("verify", "   # with the service stopped").into(),
    };
    Some(Verdict::unhealthy(i, State::NotClearing, (Some("D"), Cause::NotClearing), summary, step))
}

fn destination_lost(i: &GroupInputs, _: u64, s: &JudgeSettings) -> Option<Verdict> {
    let DestinationLost { first, last, lines } = i.lost?;
    let summary = format!(
        "the destination of group {} has lost {} that it had stored, between lines {first} and {last}: they were acked, and are delivered again only after a seek",
        i.group,
        counted(lines, "line")
    );
    let seek = format!("{} --to {first} --missing    # as far as disk.keep has retained them", i.group);
    let seek = s.commands.spillq("group seek", &seek);
    Some(Verdict::unhealthy(i, at_work(i).state, (None, Cause::DestinationLost), summary, seek))
}

/// Dead letters stay until an operator decides about them.
fn dead_letters(i: &GroupInputs, _: u64, s: &JudgeSettings) -> Option<Verdict> {
    let (summary, step) = has_dead_letters(i, s)?;
    Some(Verdict::unhealthy(i, at_work(i).state, (None, Cause::DeadLetters), summary, step))
}

fn falls_behind(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let Behind {
        since_ms,
        grown_lines,
        lines_in,
        oldest_since_ms,
        lines_in_per_s,
        lines_out_per_s,
        full_in_s,
    } = i.behind.as_ref()?;
    let lasts = now.saturating_sub(*since_ms);
    // A lag also grows between two acks of batches that may take long.
    let at_least = if *lines_out_per_s > 0.0 { 0 } else { i.timeout_ms };
    let is_noise = lasts < NOISE_MAX_MS && grown_lines.saturating_mul(GROWTH_PART) < *lines_in;
    // A large batch was just acked if more lines are acked than arrive.
    let is_noise = is_noise || lines_out_per_s >= lines_in_per_s;
    if lasts < s.stall_after_ms.min(GROWS_MS).max(at_least) || is_noise {
        return None;
    }
    let waited = oldest_since_ms.map(|since| now.saturating_sub(since));
    let is_old = waited.is_some_and(|waited| waited >= s.stall_after_ms.min(GROWS_MS));
    let grows_long = lasts >= GROWS_MS && *lines_in >= GROWTH_LINES_MIN;
    let full = full_in_s.filter(|left| *left <= FULL_NEAR_S);
    if !is_old && !grows_long && full.is_none() {
        return None;
    }
    let full = full.map(|left| {
        format!("; at this rate the log is full in about {}, and ingestion pauses", rough_duration(left))
    });
    let summary = format!(
        "group {} falls behind: its lag has grown for {} to {}; {} lines/s arrive, and {} are acked{}",
        i.group,
        duration(lasts),
        counted(i.lag_lines, "line"),
        per_s(*lines_in_per_s),
        per_s(*lines_out_per_s),
        full.unwrap_or_default()
    );
    let faster = s
        .commands
        .change(&format!("raise `batch`, or `in_flight` (with order = \"none\"), of group {}", i.group));
    let space = s.commands.change("raise `disk.limit` during the peak");
    let step = Step::from(faster).or(space);
    Some(Verdict::unhealthy(i, State::Slow, (None, Cause::FallingBehind), summary, step))
}

/// Lines a second.
fn per_s(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// The evidence that is common to all unhealthy groups.
fn common_evidence(i: &GroupInputs, now: u64) -> Vec<String> {
    let acked = match i.acks {
        0 => "nothing was acked in this run".to_owned(),
        acks => format!("{} acked in this run", counted(acks, "batch")),
    };
    let mut evidence = vec![format!(
        "lag: {}{}; ack floor {}; {acked}",
        counted(i.lag_lines, "line"),
        i.oldest.map(|seq| format!(", the oldest is line {seq}")).unwrap_or_default(),
        i.ack_floor
    )];
    if let Some(seen) = &i.consumers {
        evidence.extend(held(seen, now).into_iter().take(LEASES_SHOWN));
    } else if !i.leases.is_empty() {
        let leases: Vec<String> = i.leases.iter().map(ToString::to_string).collect();
        evidence.push(format!("in flight: lines {}", leases.join(", ")));
    }
    if let Some((range, until)) = i.backs_off {
        evidence.push(format!("{}: retried {}", span(range), soon(until, now)));
    }
    let is_refused = matches!(i.phase, Phase::Refused { .. });
    if let Some(failure) = i.last_failure.as_ref().filter(|_| i.failing.is_some() || is_refused) {
        let mut lines = failure.lines();
        evidence.extend(lines.next().map(|first| format!("last failure: {first}")));
        let printed: Vec<&str> = lines.collect();
        let from = printed.len().saturating_sub(TAIL_LINES_SHOWN);
        evidence.extend(printed.into_iter().skip(from).map(|line| format!("stderr: {line}")));
    }
    evidence
}

/// The lines that a verdict is about: for EVENTS.
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
