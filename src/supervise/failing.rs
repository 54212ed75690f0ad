//! The verdict on a group whose deliveries fail: refused, past the timeout, for want of memory, or repeatedly. Pure.

use spillq_storage::SeqRange;

use super::blocked::{is_no_accident, look_at};
use super::cause::Cause;
use super::commands::quoted;
use super::inputs::{GroupInputs, JudgeSettings};
use super::processor::{ProcessorKind, ProcessorName};
use super::state::State;
use super::verdict::{Step, Verdict};
use super::wording::{soon, times};
use crate::plain::{counted, duration, size, span};
use crate::queue::{EveryLineRejected, FailureKind, OomKill, Phase};

/// The remark behind a command about a destination that is down.
const BY_ITSELF: &str = "    # delivery resumes by itself when it is back";

/// The destination refuses everything: only an attempt after each back-off is delivered, until one succeeds.
pub(super) fn refused(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let Phase::Refused { until_ms, rejected } = i.phase else { return None };
    let retried = format!("retried {}", soon(until_ms, now));
    if let Some(EveryLineRejected { seq, dead }) = rejected {
        let dead = match dead {
            1 => "1 line became a dead letter".to_owned(),
            dead => format!("{dead} lines in a row became dead letters"),
        };
        let summary = format!(
            "{} of group {} every line: {dead}, and line {seq} was rejected too; {retried}",
            if i.consumers.is_some() { "consumers" } else { "the processor" },
            if i.consumers.is_some() {
                format!("{} reject", i.group)
            } else {
                format!("{} rejects", i.group)
            },
        );
        let list = s
            .commands
            .spillq("dead-letter list", &format!("--group {}    # why; then fix what rejects them", i.group));
        let retry = s
            .commands
            .spillq("dead-letter retry", &format!("--all --group {}    # when it is fixed", i.group));
        let step = Step::from(list).or(retry);
        return Some(Verdict::unhealthy(i, State::Refused, (None, Cause::EveryLineRejected), summary, step));
    }
    let (what, key) = match i.processor.as_ref().is_some_and(|name| name.kind.is_command()) {
        true => ("the command", "`command`"),
        false => ("the destination", "the address or the credentials"),
    };
    let why =
        i.last_failure.as_ref().and_then(|failure| failure.lines().next()).unwrap_or("it is misconfigured");
    let summary = format!("{what} of group {} refuses every delivery: {why}; {retried}", i.group);
    let change = s.commands.change(&format!("correct {key} of the [[processor]] of group {}", i.group));
    let retry = s.commands.spillq("group retry-now", &format!("{}    # after fixing it elsewhere", i.group));
    Some(Verdict::unhealthy(i, State::Refused, (None, Cause::Refused), summary, Step::from(change).or(retry)))
}

/// A delivery exceeded the timeout.
pub(super) fn hung(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    if i.consumers.is_some() {
        // Each of their leases has its own deadline.
        return None;
    }
    let step = |range: Option<SeqRange>| {
        let seq = range.map_or(i.ack_floor.next(), |range| range.first);
        let longer = s.commands.change(&format!("raise `timeout` of group {}", i.group));
        look_at(i, s, seq, longer)
    };
    if let Some(failing) = i.failing.as_ref().filter(|failing| failing.timed_out) {
        let summary = format!(
            "the processor of group {} hangs: it did not finish {} within {}{}; it was ended, and the lines are delivered again",
            i.group,
            span(failing.range),
            duration(i.timeout_ms),
            if failing.times > 1 { format!(", {} in a row", times(failing.times)) } else { String::new() }
        );
        return Some(Verdict::unhealthy(
            i,
            State::Hung,
            (Some("C"), Cause::Hung),
            summary,
            step(Some(failing.range)),
        ));
    }
    let since = i.oldest_lease_ms?;
    (now.saturating_sub(since) > i.timeout_ms.saturating_add(s.stall_after_ms)).then(|| {
        let summary = format!(
            "a batch of group {} has been in flight for {}, past its timeout of {}, and its processor cannot be ended",
            i.group,
            duration(now.saturating_sub(since)),
            duration(i.timeout_ms)
        );
        Verdict::unhealthy(i, State::Hung, (Some("C"), Cause::Hung), summary, step(i.leases.first().copied()))
    })
}

/// The last failure since the latest ack was an out-of-memory kill. Even the first one is reported: it is not an accident,
/// and a smaller part of the batch may be acked before the next.
pub(super) fn processor_oom(i: &GroupInputs, _: u64, s: &JudgeSettings) -> Option<Verdict> {
    let failing = i.failing.as_ref()?;
    let FailureKind::OutOfMemory(OomKill { kills, limit_bytes, own_bytes }) = failing.kind else {
        return None;
    };
    let command = i.processor.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let often =
        if failing.times == 1 { "once".to_owned() } else { format!("{} in a row", times(failing.times)) };
    let limit = limit_bytes.map_or_else(
        || "its cgroup has no limit, so the host ran out of memory".to_owned(),
        |bytes| format!("the limit of its cgroup is {}", size(bytes)),
    );
    let own = own_bytes.map(|own| format!("; spillq itself used {}", size(own))).unwrap_or_default();
    let summary = format!(
        "the kernel killed the command of group {}{command} because memory ran out, {often}, last on {}: {limit}; OOM kills in the cgroup: {kills}{own}",
        i.group,
        span(failing.range)
    );
    let raise = "raise MemoryMax= of the unit, or --memory of the container";
    let step = match failing.range.lines() {
        1 => {
            let look = s.commands.inspect(failing.range.first);
            Step::from(format!("{raise}: this line alone takes too much memory")).or(look)
        }
        _ => Step::from(s.commands.change(&format!("set a smaller `batch` for group {}", i.group)))
            .or(raise.to_owned()),
    };
    Some(Verdict::unhealthy(i, State::Crashing, (Some("B"), Cause::ProcessorOom), summary, step))
}

/// Failures that are not an accident.
pub(super) fn failing(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let failing = i.failing.as_ref()?;
    // A batch is rejected once for each bisection until the bad line is found: that is not a crash.
    if matches!(
        failing.kind,
        FailureKind::Poison | FailureKind::BadLine(_) | FailureKind::BadSeq(_) | FailureKind::TooLarge
    ) {
        return None;
    }
    let is_command = i.consumers.is_none() && i.processor.as_ref().is_none_or(|name| name.kind.is_command());
    // A command that asks for a pause does not crash: it says that its destination is away.
    let crashes = is_command && !matches!(failing.kind, FailureKind::Later(_));
    if !is_no_accident(failing, crashes, now, s) {
        return None;
    }
    let for_time = duration(now.saturating_sub(failing.since_ms));
    let times = times(failing.times);
    Some(if crashes {
        let summary = format!(
            "the processor of group {} crashes: it failed {times} in a row, for {for_time}, last on {}",
            i.group,
            span(failing.range)
        );
        let look = s.commands.spillq(
            "inspect",
            &format!("--from {} --limit 1    # the first of these lines; the evidence has what the command printed", failing.range.first),
        );
        Verdict::unhealthy(i, State::Crashing, (Some("B"), Cause::Crashing), summary, look)
    } else {
        let waiting = counted(i.lag_lines, "line");
        let summary = match i.consumers {
            Some(_) => format!(
                "consumers of group {} fail: {times} in a row, for {for_time}; {waiting} waiting",
                i.group
            ),
            None => format!(
                "the destination of group {} is down: it failed {times} in a row, for {for_time}; {waiting} waiting",
                i.group
            ),
        };
        let retry = s.commands.spillq("group retry-now", &format!("{}    # as soon as it is back", i.group));
        // Only the command knows its destination; what it said is in the evidence.
        let step = if is_command { Step::from(retry) } else { Step::from(see_to_destination(i)).or(retry) };
        Verdict::unhealthy(i, State::Retrying, (None, Cause::Outage), summary, step)
    })
}

/// How to check a destination that is down.
fn see_to_destination(i: &GroupInputs) -> String {
    match &i.processor {
        Some(ProcessorName { kind: ProcessorKind::Http, about: url, .. }) => {
            format!("curl -sS -m 5 -o /dev/null {}{BY_ITSELF}", quoted(url))
        }
        Some(ProcessorName { kind: ProcessorKind::File, about: path, .. }) => {
            format!("ls -l {}{BY_ITSELF}", quoted(path))
        }
        Some(name) => format!("check {name}{BY_ITSELF}"),
        None if i.consumers.is_some() => {
            "see the log of the consumer; the evidence has what it said".to_owned()
        }
        None => format!("check the destination{BY_ITSELF}"),
    }
}
