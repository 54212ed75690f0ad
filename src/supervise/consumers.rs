//! The verdict on a group whose lines consumers lease by themselves. Pure.

use super::cause::Cause;
use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::{Step, Verdict};
use crate::consumers::{ExpiredView, HeldView, Seen};
use crate::plain::{counted, duration, span, waiting};

/// From this many leases in a row that expired on, and none that was settled, no consumer settles at all.
const EXPIRED_MIN: u64 = 2;

/// Lines wait, and no consumer asks for them.
pub(super) fn no_consumer(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let seen = i.consumers.as_ref().filter(|_| !i.has_worker && i.leases.is_empty() && i.lag_lines > 0)?;
    let since = i.not_leased_since_ms.filter(|since| now.saturating_sub(*since) >= s.stall_after_ms)?;
    let (group, waits) = (&i.group, waiting(i.lag_lines));
    let summary = match seen.consumers.first() {
        None => format!(
            "no consumer has asked for lines of group {group} since the service started: {waits}, and nothing was delivered \
             for {}",
            duration(now.saturating_sub(since))
        ),
        Some(last) => format!(
            "no consumer has asked for lines of group {group} for {}, the last was {}: {waits}",
            duration(now.saturating_sub(last.last_ms)),
            last.name
        ),
    };
    let step = Step::from("start the consumer, and see its log".to_owned()).or(s
        .commands
        .spillq("group lease", &format!("{group} --lines 1 --release    # shows that lines can be leased")));
    Some(Verdict::unhealthy(i, State::NeverCalled, (Some("A"), Cause::NoConsumer), summary, step))
}

/// The last lease expired.
pub(super) fn leases_expire(i: &GroupInputs, _: u64, s: &JudgeSettings) -> Option<Verdict> {
    let seen = i.consumers.as_ref()?;
    // Lines that an operator has settled since say nothing of the consumers.
    i.failing.as_ref().filter(|failing| failing.timed_out)?;
    let ExpiredView { consumer, range: lines, at_ms } = seen.last_expired.as_ref()?;
    let (group, expired) = (&i.group, seen.expired_in_a_row);
    let is_back = seen.consumers.iter().any(|one| one.name == *consumer && one.last_ms > *at_ms);
    let summary = if seen.settled == 0 && expired >= EXPIRED_MIN {
        format!(
            "consumers lease lines of group {group} and settle none: {} expired, the last was that of {consumer} on {}",
            counted(expired, "lease"),
            span(*lines)
        )
    } else if expired >= EXPIRED_MIN {
        format!(
            "leases of group {group} expire: {} in a row were not settled, the last was that of {consumer} on {}",
            counted(expired, "lease"),
            span(*lines)
        )
    } else if !is_back {
        format!(
            "consumer {consumer} vanished with {} of group {group}: its lease expired, and the lines are delivered again",
            span(*lines)
        )
    } else {
        // Once is an accident.
        return None;
    };
    let look = s.commands.inspect(lines.first);
    let step = Step::from(format!(
        "see what consumer {consumer} does: it must settle each lease, and extend one that takes longer"
    ))
    .or(look);
    Some(Verdict::unhealthy(i, State::Hung, (Some("C"), Cause::LeasesExpire), summary, step))
}

/// The leases that are out: who holds what, for how long, and for how long at most.
pub(super) fn held(seen: &Seen, now: u64) -> Vec<String> {
    let held = |one: &HeldView| {
        format!(
            "{}: held by {} for {} of {}",
            span(one.range),
            one.consumer,
            duration(now.saturating_sub(one.since_ms)),
            duration(one.until_ms.saturating_sub(one.since_ms))
        )
    };
    seen.held.iter().map(held).collect()
}
