//! The verdict on a group that cannot continue by itself: one for each reason. Pure.

use super::cause::Cause;
use super::held::held;
use super::inputs::{GroupInputs, JudgeSettings};
use super::state::State;
use super::verdict::Verdict;
use crate::queue::{Blocked, Phase};

/// The first row of the table in docs/supervision.md.
pub(super) fn blocked(i: &GroupInputs, now: u64, s: &JudgeSettings) -> Option<Verdict> {
    let Phase::Blocked(why) = &i.phase else { return None };
    let oldest = i.oldest.unwrap_or(i.ack_floor.next());
    Some(match why {
        Blocked::Damage(_) => {
            let summary = format!("group {} stands at a damaged block: {why}", i.group);
            let next = format!(
                "{}    # with the service stopped; or on_damage = \"skip\" in [disk] passes it over",
                s.typed.spillq("repair", "--dry-run")
            );
            Verdict::ill(i, State::Blocked, (None, Cause::Damage), summary, next)
        }
        Blocked::DiskError(_) => {
            let summary = format!("group {} stands at lines that the disk does not give: {why}", i.group);
            let next = format!(
                "{}    # with the service stopped: what else the disk refuses; once it is well, start the service again",
                s.typed.spillq("verify", "")
            );
            Verdict::ill(i, State::Blocked, (None, Cause::Damage), summary, next)
        }
        Blocked::AckWindow => {
            let summary = format!(
                "group {} does not clear: 4,096 ranges of acks lie above line {oldest}, which blocks the floor",
                i.group
            );
            let next = s.typed.spillq("inspect", &format!("--from {oldest} --limit 1"));
            Verdict::ill(i, State::Blocked, (Some("D"), Cause::NotClearing), summary, next)
        }
        Blocked::DeadLettersFull => {
            let summary = format!("group {} stops: {why}", i.group);
            let next = s.typed.spillq("dead-letter list", &format!("--group {}", i.group));
            Verdict::ill(i, State::Blocked, (None, Cause::DeadLettersFull), summary, next)
        }
        Blocked::HeldBy(_) => return held(i, now, s),
    })
}
