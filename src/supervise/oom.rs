//! The verdict on a command that the kernel kills for want of memory. Pure.

use super::cause::Cause;
use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::{Step, Verdict};
use super::words::{span, times};
use crate::plain::size;
use crate::queue::{FailureKind, OomKill};

/// The last failure since the latest ack was a kill for want of memory. The first one counts: it is no accident, and a
/// part of the batch that fits may be acked before the next.
pub(super) fn processor_oom(i: &GroupInputs, _: u64, s: &JudgeSettings) -> Option<Verdict> {
    let failing = i.failing.as_ref()?;
    let FailureKind::OutOfMemory(OomKill { kills, limit_bytes, own_bytes }) = failing.kind else {
        return None;
    };
    let command = i.processor.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let often =
        if failing.times == 1 { "once".to_owned() } else { format!("{} in a row", times(failing.times)) };
    let limit = limit_bytes.map_or_else(|| "none, the host has no memory left".to_owned(), size);
    let own = own_bytes.map(|own| format!("; spillq itself held {}", size(own))).unwrap_or_default();
    let summary = format!(
        "the kernel killed the command of group {}{command} for want of memory, {often}, last on {}: limit of its cgroup {limit}, OOM kills there {kills}{own}",
        i.group,
        span(failing.range)
    );
    let raise = "raise MemoryMax= of the unit, or --memory of the container";
    let step = match failing.range.lines() {
        1 => {
            let look = s.typed.inspect(failing.range.first);
            Step::from(format!("{raise}: this line alone takes too much")).or(look)
        }
        _ => Step::from(s.typed.change(&format!("set a smaller `batch` for group {}", i.group)))
            .or(raise.to_owned()),
    };
    Some(Verdict::ill(i, State::Crashing, (Some("B"), Cause::ProcessorOom), summary, step))
}
