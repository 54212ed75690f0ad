//! The verdict on a command that the kernel kills because memory ran out. Pure.

use super::cause::Cause;
use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::{Step, Verdict};
use super::wording::{span, times};
use crate::plain::size;
use crate::queue::{FailureKind, OomKill};

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
