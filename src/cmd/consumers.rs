//! Who leases lines of a group, for people: what is held, and who was seen.

use spillq_storage::{Seq, SeqRange};

use crate::http::GroupJson;
use crate::plain::{counted, duration, span};

/// Leases and consumers that are named: more do not fit on a screen.
const SHOWN_MAX: usize = 5;

/// A line for each.
pub(super) fn consumers(group: &GroupJson) -> Vec<String> {
    let held = group.held.iter().map(|held| {
        let (lasts, until) = (duration(held.held_ms), duration(held.held_ms + held.expires_ms));
        let lines = span(SeqRange { first: Seq(held.first), last: Seq(held.last) });
        format!("{lines}: held by {} for {lasts} of {until}", held.consumer)
    });
    let seen = group.consumers.iter().map(|consumer| {
        let (seen, acked) = (duration(consumer.seen_ms_ago), counted(consumer.acked_lines, "line"));
        format!("consumer {}: seen {seen} ago, {acked} acknowledged", consumer.name)
    });
    let held = held.take(SHOWN_MAX).chain(more(group.held.len(), "lease"));
    held.chain(seen.take(SHOWN_MAX)).chain(more(group.consumers.len(), "consumer")).collect()
}

/// How many are not named.
fn more(all: usize, noun: &str) -> Option<String> {
    let more = all.checked_sub(SHOWN_MAX).filter(|more| *more > 0)?;
    Some(format!("and {}", counted(more as u64, &format!("more {noun}"))))
}
